/*
 * command_test: the command sink, handed batches directly: what tests/system/commands.py cannot
 * bring about through a listener.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "batches.h"
#include "unit.h"

static struct batches b;
static char *arguments[6];

/* /bin/sh -c SCRIPT sh DIRECTORY */
static struct config_sink
settings(const char *script)
{
	static char directory[4096];

	snprintf(directory, sizeof(directory), "%s", batches_directory());
	arguments[0] = (char *)(uintptr_t)"/bin/sh";
	arguments[1] = (char *)(uintptr_t)"-c";
	arguments[2] = (char *)(uintptr_t)script;
	arguments[3] = (char *)(uintptr_t)"sh";
	arguments[4] = directory;
	return (struct config_sink){.name = (char *)(uintptr_t)"command", .type = CONFIG_SINK_COMMAND,
				    .argv = {.items = arguments, .count = 5}, .max_processes = 2,
				    .timeout = 60000000, .run_as_root = true};
}

static void
open_command(const struct config_sink *config)
{
	batches_open(&b, config);
	memory_set_limit(UINT64_C(64) << 20); /* messages are handed over in memory */
}

static void
clean(void)
{
	batches_clean();
}

static void
expect(const char *name, const char *text)
{
	size_t len;
	char *found = batches_read(batches_path(name), &len);

	ck_assert_str_eq(found, text);
	free(found);
}

/* The certificate's subject is a variable, never part of a command line, whatever it holds. */
START_TEST(tells_who_sent_it)
{
	struct config_sink config = settings("printf %s \"$CISTERN_TLS_SUBJECT\" >$1/subject; cat >$1/got; "
					     "env >$1/env");
	char *environment;
	size_t len;

	open_command(&config);
	b.origin.tls_subject = "CN=$(touch x)\n;`id`,O=\xc3\xa4 'q'";
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "bytes")), OUTCOME_ACCEPTED);
	expect("subject", b.origin.tls_subject);
	expect("got", "bytes");
	b.origin.tls_subject = NULL;
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "bytes")), OUTCOME_ACCEPTED);
	environment = batches_read(batches_path("env"), &len);
	ck_assert_ptr_null(strstr(environment, "CISTERN_TLS_SUBJECT"));
	ck_assert_ptr_nonnull(strstr(environment, "CISTERN_LOCAL=192.0.2.1:5140\n"));
	free(environment);
	batches_close(&b);
}
END_TEST

/* More than the kernel takes for a variable: refused, and the next one is run. */
START_TEST(refuses_an_endless_subject)
{
	struct config_sink config = settings("cat >$1/got");
	char *subject = malloc(40001);

	ck_assert_ptr_nonnull(subject);
	memset(subject, 's', 40000);
	subject[40000] = '\0';
	open_command(&config);
	b.origin.tls_subject = subject;
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 2, "bytes")), OUTCOME_REFUSED);
	ck_assert_int_eq(access(batches_path("got"), F_OK), -1);
	ck_assert(sink_is_ready(b.sink)); /* it is the message's fault, not the program's */
	subject[30000] = '\0';
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "bytes")), OUTCOME_ACCEPTED);
	expect("got", "bytes");
	b.origin.tls_subject = NULL;
	free(subject);
	batches_close(&b);
}
END_TEST

START_TEST(is_not_opened_without_its_program)
{
	struct config_sink config = settings("exit 0");
	char path[4096];

	snprintf(path, sizeof(path), "%s", batches_path("program"));
	arguments[0] = path;
	ck_assert_int_eq(batches_open_code(&b, &config), EX_CONFIG);
	batches_write(path, "#!/bin/sh\n", 10);
	ck_assert_int_eq(chmod(path, 0644), 0);
	ck_assert_int_eq(batches_open_code(&b, &config), EX_NOPERM);
}
END_TEST

/* Past memory_limit a message is handed over in a file, from its first byte all the same. */
START_TEST(hands_over_a_file_when_memory_is_short)
{
	struct config_sink config = settings("readlink /proc/self/fd/0 >$1/kind; cat >$1/got");
	char *kind;
	size_t len;

	open_command(&config);
	memory_set_limit(1);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "bytes")), OUTCOME_ACCEPTED);
	expect("got", "bytes");
	kind = batches_read(batches_path("kind"), &len);
	ck_assert_ptr_null(strstr(kind, "memfd"));
	free(kind);
	memory_set_limit(UINT64_C(64) << 20);
	batches_close(&b);
}
END_TEST

static unsigned
count_files(const char *prefix)
{
	char path[64];
	unsigned n = 0;

	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s%u", prefix, i);
		n += access(batches_path(path), F_OK) == 0;
	}
	return n;
}

/* A stop's time is over: programs that run get TERM, what has had it KILL, what waits is
 * RETRY shutdown. */
START_TEST(hurries)
{
	/* The first does not end by TERM and has had it, as its time was over; the second does. */
	struct config_sink config = settings("m=$(cat); test $m = m0 && trap ': >$1/had0' TERM; : >$1/began${m#m}; "
					     "while :; do sleep 0.05; done");
	struct batch *batches[4];
	uint64_t began, until = clock_now() + 30000000;

	config.timeout = 2000000; /* the second has to begin within it */
	open_command(&config);
	batches[0] = batches_make(&b, 1, "m0");
	batches_deliver(&b, batches[0]);
	while (count_files("had") < 1 && clock_now() < until)
		usleep(1000);
	ck_assert_uint_eq(count_files("had"), 1); /* KILL comes five seconds later */
	batches[1] = batches_make(&b, 1, "m1");
	batches[2] = batches_make(&b, 2, "m2");
	batches_deliver(&b, batches[1]);
	batches_deliver(&b, batches[2]);
	while (count_files("began") < 2 && clock_now() < until)
		usleep(1000);
	ck_assert_uint_eq(count_files("began"), 2);
	began = clock_now();
	sink_hurry(b.sink);
	batches_wait(&b);
	ck_assert_uint_lt(clock_now() - began, 4000000);
	ck_assert_int_eq(batches_outcome(batches[0], 0), OUTCOME_TIMEOUT);
	ck_assert(outcome_is_temporary(batches_outcome(batches[1], 0)));
	ck_assert_int_eq(batches_outcome(batches[2], 0), OUTCOME_SHUTDOWN);
	ck_assert_int_eq(batches_outcome(batches[2], 1), OUTCOME_SHUTDOWN);
	for (int i = 0; i < 3; i++)
		batch_free(batches[i]);
	batches_close(&b);
}
END_TEST

/* A status that nobody knows accepts nothing, and a batch is as good as its worst message. */
START_TEST(accepts_by_status_alone)
{
	static const struct {
		const char *script;
		enum outcome outcome;
	} cases[] = {
		{"exit 0", OUTCOME_ACCEPTED},	     {"exit 75", OUTCOME_UNAVAILABLE},
		{"exit 1", OUTCOME_REFUSED},	     {"kill -9 $$", OUTCOME_UNAVAILABLE},
		{"exec >&- 2>&- <&-", OUTCOME_ACCEPTED}, {"exit 255", OUTCOME_REFUSED},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config_sink config = settings(cases[i].script);
		struct batch *batch;

		open_command(&config);
		batch = batches_make(&b, 5, "m%u");
		batches_deliver(&b, batch);
		batches_wait(&b);
		for (unsigned m = 0; m < 5; m++)
			ck_assert_msg(batches_outcome(batch, m) == cases[i].outcome, "%s", cases[i].script);
		batch_free(batch);
		batches_close(&b);
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("command");
	TCase *tcase = tcase_create("command");

	signal(SIGPIPE, SIG_IGN);
	tcase_add_checked_fixture(tcase, NULL, clean);
	tcase_add_test(tcase, tells_who_sent_it);
	tcase_add_test(tcase, refuses_an_endless_subject);
	tcase_add_test(tcase, is_not_opened_without_its_program);
	tcase_add_test(tcase, hands_over_a_file_when_memory_is_short);
	tcase_add_test(tcase, hurries);
	tcase_add_test(tcase, accepts_by_status_alone);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
