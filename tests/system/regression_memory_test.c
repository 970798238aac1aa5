/*
 * regression_memory: bugs that were found once, and must not come back: connections
 * that wait for memory, for each other, or for a console that nobody reads.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"
#include "program.h"

#define RAW "workers = 1; sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"

#define CLIENTS 30
#define READ ((size_t)65536) /* bytes in one read */
#define LINES 64             /* in them */
#define PLUG ((size_t)32768)

static const struct daemon_options piped = { .pipe = true };

/* From now on the console waits for us: it has begun to print a message that does
 * not fit into its pipe.  The message's client. */
static int
plug(struct daemon *daemon)
{
	char *bytes = malloc(PLUG);
	int fd = client_connect(daemon_address(daemon, "main"));

	ck_assert_ptr_nonnull(bytes);
	ck_assert_int_ge(fcntl(daemon->pipe, F_SETPIPE_SZ, 4096), 4096);
	memset(bytes, 'p', PLUG);
	bytes[PLUG - 1] = '\n';
	client_send(fd, bytes, PLUG);
	daemon_read_pipe(daemon, bytes, 1);
	client_finish(fd);
	free(bytes);
	return fd;
}

static void
unplug(struct daemon *daemon)
{
	char *bytes = malloc(PLUG);

	ck_assert_ptr_nonnull(bytes);
	daemon_read_pipe(daemon, bytes, PLUG - 2); /* its LF is not printed, one is read */
	free(bytes);
}

/* Sends lines of 1 KiB to the daemon, a read's worth of them at once. */
static int
send_lines(struct daemon *daemon)
{
	char *bytes = malloc(READ);
	int fd = client_connect(daemon_address(daemon, "main"));
	size_t i;

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'l', READ);
	for (i = READ / LINES - 1; i < READ; i += READ / LINES)
		bytes[i] = '\n';
	client_send(fd, bytes, READ);
	free(bytes);
	return fd;
}

/* More reads than memory_limit allows, each held back by max_in_flight.  The sink
 * stands still, then recovers: so does everybody, first come, last come. */
START_TEST(rests_over_memory_limit)
{
	struct daemon *daemon = daemon_start_with(
		&piped, RAW "framing = \"line\"; max_in_flight = 1; idle_timeout = 0;"
			    "memory_limit = \"1M\";");
	size_t len = CLIENTS * (READ - LINES), i;
	char *printed = malloc(len);
	int plugged = plug(daemon), fds[CLIENTS];

	ck_assert_ptr_nonnull(printed);
	for (i = 0; i < CLIENTS; i++)
		fds[i] = send_lines(daemon);
	for (i = 0; i < 10; i++)
		client_wait_unread(fds[i], READ - 1); /* those have memory, the last have none */
	for (i = 0; i < CLIENTS; i++)
		client_finish(fds[i]);
	poll(NULL, 0, 500);
	unplug(daemon);
	daemon_read_pipe(daemon, printed, len);
	for (i = 0; i < len; i++)
		ck_assert_int_eq(printed[i], 'l');
	for (i = 0; i < CLIENTS; i++)
		client_expect(fds[i], "", CLIENT_FIN);
	client_expect(plugged, "", CLIENT_FIN);
	client_deliver(daemon_address(daemon, "main"), "late\n", 5, CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, CLIENTS * LINES + 2);
	daemon_end(daemon);
	free(printed);
}
END_TEST

/* One that waits for memory when the daemon is told to stop has not been accepted:
 * it may wait, or be reset, but no FIN claims otherwise. */
START_TEST(sigterm_while_starved)
{
	struct daemon *daemon = daemon_start_with(
		&piped, RAW "framing = \"line\"; max_in_flight = 1; idle_timeout = 0;"
			    "memory_limit = \"1M\"; shutdown_timeout = 1;");
	int plugged = plug(daemon), fds[CLIENTS], starved;
	size_t i;

	for (i = 0; i < CLIENTS; i++)
		fds[i] = send_lines(daemon);
	for (i = 0; i < 10; i++)
		client_wait_unread(fds[i], READ - 1);
	for (i = 0; i < CLIENTS; i++)
		client_finish(fds[i]);
	starved = client_connect(daemon_address(daemon, "main"));
	client_send_text(starved, "precious\n");
	client_finish(starved);
	poll(NULL, 0, 500);
	daemon->at_once = true; /* the console is blocked for good */
	daemon_signal(daemon, SIGTERM);
	client_expect(starved, "", CLIENT_RST);
	for (i = 0; i < CLIENTS; i++)
		client_expect(fds[i], "", CLIENT_RST);
	client_expect(plugged, "", CLIENT_RST);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 0);
	daemon_end(daemon);
}
END_TEST

/* Less than one read's buffer, and yet it serves. */
START_TEST(memory_limit_64k)
{
	struct daemon *daemon = daemon_start(
		RAW
		"memory_limit = \"64K\"; listeners = { lines = { port = 0; framing = \"line\"; };"
		"	whole = { port = 0; }; };");
	size_t len = 1 << 20, printed = 0, i;
	char *bytes = malloc(len);

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'w', len);
	for (i = 0; i < 3; i++) {
		client_deliver(daemon_address(daemon, "lines"), "x\n", 2, CLIENT_FIN);
		client_deliver(daemon_address(daemon, "whole"), bytes, len, CLIENT_FIN);
		printed += 1 + len;
	}
	free(daemon_wait_output(daemon, printed));
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 6);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

/* Whether the daemon, or the build of it that is there for that, can be made to
 * fail; then it is the one that is tested. */
static bool
can_fail(void)
{
	const char *faults = getenv("CISTERND_FAULTS");
	struct program_result result = program_run("-V", NULL);
	bool can = strstr(result.output, "fault points") != NULL;

	program_result_free(&result);
	if (!can && faults != NULL && access(faults, X_OK) == 0) {
		setenv("CISTERND", faults, 1);
		can = true;
	}
	if (!can)
		harness_skip("this cisternd has no fault points");
	return can;
}

/* A body that lost bytes on its way to the disk is no evidence of anything. */
static void
fail_to_spill(const char *kind, const char *where)
{
	struct daemon *daemon;
	size_t len = 8000000;
	char *bytes, *path;
	struct stat st;
	int fd;

	if (!can_fail())
		return;
	setenv("CISTERN_FAULT", "write/3:ENOSPC:once", 1);
	bytes = malloc(len);
	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'y', len);
	daemon = daemon_start("workers = 1; incomplete = \"aside\"; sinks = { aside = { "
			      "type = \"%s\"; %s = \"@DIR@/aside\"; sync = false; %s }; };",
			      kind, where, strcmp(kind, "file") == 0 ? "format = \"raw\";" : "");
	fd = client_connect(daemon_address(daemon, "main"));
	if (client_pour(fd, bytes, len) == CLIENT_OPEN)
		client_expect(fd, "", CLIENT_RST);
	else
		close(fd);
	daemon_wait_log(daemon, "message-discarded", "storage", 1);
	ck_assert_uint_eq(daemon_count_log(daemon, NULL, "put aside"), 0);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.discarded, 1);
	path = harness_text("%s/aside%s", daemon->directory,
			    strcmp(kind, "spool") == 0 ? "/new" : "");
	ck_assert_int_eq(stat(path, &st), 0);
	if (S_ISDIR(st.st_mode))
		ck_assert_int_eq(rmdir(path), 0); /* it is empty */
	else
		ck_assert_int_eq(st.st_size, 0);
	free(path);
	daemon_end(daemon);
	free(bytes);
}

START_TEST(spill_failure_not_put_aside)
{
	fail_to_spill("file", "path");
}
END_TEST

START_TEST(spill_failure_not_put_aside_by_spool)
{
	fail_to_spill("spool", "directory");
}
END_TEST

/* Memory is full of messages that cannot be spilled, and that do not go on: they
 * are not paused for ever, but time out, and others are served. */
START_TEST(memory_full_and_no_spilling)
{
	struct daemon *daemon;
	char *bytes;
	int fds[60];
	size_t i;

	if (!can_fail())
		return;
	bytes = calloc(1, 100000);
	ck_assert_ptr_nonnull(bytes);
	setenv("CISTERN_FAULT", "open/1:EACCES:on", 1);
	daemon = daemon_start(RAW "memory_limit = \"2M\"; idle_timeout = 2;");
	/* All at once, so that each has its first read and none its second. */
	daemon_signal(daemon, SIGSTOP);
	for (i = 0; i < 60; i++) {
		fds[i] = client_connect(daemon_address(daemon, "main"));
		client_send(fds[i], bytes, 100000);
	}
	daemon_signal(daemon, SIGCONT);
	client_deliver(daemon_address(daemon, "main"), "x", 1, CLIENT_FIN);
	for (i = 0; i < 60; i++)
		client_reset(fds[i]);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

/* For a second the daemon has nothing to do. */
static void
expect_quiet(struct daemon *daemon, const char *while_what)
{
	double processor = daemon_processor(daemon);

	poll(NULL, 0, 1000);
	processor = daemon_processor(daemon) - processor;
	harness_note("%.2f s of processor time in 1 s while %s", processor, while_what);
	ck_assert_double_lt(processor, 0.2);
}

/* A client whose line is with the sink, with another one behind it. */
static int
pause_one(struct daemon *daemon)
{
	int fd = client_connect(daemon_address(daemon, "main"));

	client_send_text(fd, "with the sink\n");
	client_wait_read(fd);
	client_send_text(fd, "held back\n");
	client_wait_read(fd);
	client_send_text(fd, "unread\n");
	return fd;
}

START_TEST(reset_while_paused_is_noticed)
{
	struct daemon *daemon = daemon_start_with(
		&piped, RAW "framing = \"line\"; max_in_flight = 1; idle_timeout = 0;");
	int plugged = plug(daemon), fd, i;
	size_t descriptors = daemon_descriptors(daemon);
	char printed[26];

	for (i = 0; i < 2; i++) {
		fd = pause_one(daemon);
		ck_assert_uint_eq(daemon_descriptors(daemon), descriptors + 1);
		client_reset(fd);
		daemon_wait_descriptors(daemon, descriptors);
	}
	/* What was whole when it was taken is delivered, and nothing of the rest. */
	unplug(daemon);
	daemon_read_pipe(daemon, printed, sizeof printed);
	ck_assert_int_eq(memcmp(printed, "with the sinkwith the sink", sizeof printed), 0);
	client_expect(plugged, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 3);
	daemon_end(daemon);
}
END_TEST

START_TEST(reset_while_paused_does_not_spin)
{
	struct daemon *daemon = daemon_start_with(
		&piped, RAW "framing = \"line\"; max_in_flight = 1; idle_timeout = 0;");
	int plugged = plug(daemon), fds[8], i;
	size_t descriptors = daemon_descriptors(daemon);

	for (i = 0; i < 8; i++)
		fds[i] = pause_one(daemon);
	expect_quiet(daemon, "eight clients are paused");
	for (i = 0; i < 8; i++) {
		if (i % 2 == 0)
			client_reset(fds[i]);
		else
			client_finish(fds[i]);
	}
	expect_quiet(daemon, "half of them are gone, half of them finished");
	daemon_wait_descriptors(daemon, descriptors + 4);
	unplug(daemon);
	client_expect(plugged, "", CLIENT_FIN);
	for (i = 1; i < 8; i += 2)
		client_expect(fds[i], "", CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1 + 4 + 4 * 3);
	daemon_end(daemon);
}
END_TEST

/* What a worker keeps for reading is its own, not one for each listener that has ever been
 * sent to: a soak of 14 listeners stood at 56 MiB. */
START_TEST(listeners_share_what_they_read_into)
{
	enum { LISTENERS = 24, SENT = 2 << 20 };
	char config[4096], name[16], *bytes = malloc(SENT);
	struct daemon *daemon;
	size_t len, before, after;
	int i, fd;

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'l', SENT);
	for (i = 99; i < SENT; i += 100)
		bytes[i] = '\n';
	bytes[SENT - 1] = '\n';
	len = (size_t)snprintf(config, sizeof config, "%s",
			       RAW "framing = \"line\"; idle_timeout = 0; listeners = {\n");
	for (i = 0; i < LISTENERS; i++)
		len += (size_t)snprintf(config + len, sizeof config - len, "l%d = { port = 0; };\n", i);
	snprintf(config + len, sizeof config - len, "};\n");
	daemon = daemon_start("%s", config);
	for (i = 0, before = 0; i < LISTENERS; i++) {
		snprintf(name, sizeof name, "l%d", i);
		fd = client_connect(daemon_address(daemon, name));
		client_send(fd, bytes, SENT);
		client_finish(fd);
		client_expect(fd, "", CLIENT_FIN);
		if (i == 3)
			before = daemon_memory(daemon);
	}
	after = daemon_memory(daemon);
	harness_note("%zu KiB resident after 4 listeners, %zu after %d", before, after, LISTENERS);
	if (!HARNESS_SANITIZED)
		ck_assert_uint_lt(after, before + 8192);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ rests_over_memory_limit, 60 },
		{ sigterm_while_starved, 60 },
		{ memory_limit_64k, 60 },
		{ spill_failure_not_put_aside, 60 },
		{ spill_failure_not_put_aside_by_spool, 60 },
		{ memory_full_and_no_spilling, 60 },
		{ reset_while_paused_is_noticed, 60 },
		{ reset_while_paused_does_not_spin, 60 },
		{ listeners_share_what_they_read_into, 60 },
	};

	return harness_run("regression_memory", tests, sizeof tests / sizeof tests[0], argc, argv);
}
