/*
 * spool_test: the spool sink, handed batches directly.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <sysexits.h>
#include <unistd.h>

#include "batches.h"
#include "message/body.h"
#include "sinks/spool.h"
#include "sinks/spool_facts.h"
#include "unit.h"

static struct batches b;

static struct config_sink
settings(void)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s", batches_path("spool"));
	return (struct config_sink){.name = (char *)(uintptr_t)"spool", .type = CONFIG_SINK_SPOOL,
				    .directory = path, .sync = true, .mode = 0640};
}

static const char *
in_spool(const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "spool/%s", name);
	return batches_path(path);
}

static void
open_spool(void)
{
	struct config_sink config = settings();

	batches_open(&b, &config);
}

static void
clean(void)
{
	batches_clean();
}

START_TEST(makes_its_directories)
{
	struct stat st;

	open_spool();
	ck_assert_int_eq(stat(in_spool("new"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0750);
	ck_assert_int_eq(stat(in_spool("tmp"), &st), 0);
	ck_assert_int_eq(stat(in_spool("failed"), &st), 0);
	batches_close(&b);
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 0);
	ck_assert_uint_eq(batches_count(in_spool("tmp"), NULL), 0);
}
END_TEST

static char *
read_new(const char *name, size_t *len)
{
	char path[300];

	snprintf(path, sizeof(path), "new/%s", name);
	return batches_read(in_spool(path), len);
}

static mode_t
mode_new(const char *name)
{
	char path[300];
	struct stat st;

	snprintf(path, sizeof(path), "new/%s", name);
	ck_assert_int_eq(stat(in_spool(path), &st), 0);
	return st.st_mode & 07777;
}

START_TEST(stores_exactly_the_bytes)
{
	static const char bytes[] = "\0\r\n\xff{}\\x00 end";
	char name[256], *found;
	size_t len;
	mode_t before;

	open_spool();
	before = umask(0077); /* the mode is the configured one, whatever this says */
	ck_assert_int_eq(batches_send(&b, batches_make_bytes(&b, bytes, sizeof(bytes))),
			 OUTCOME_ACCEPTED);
	umask(before);
	ck_assert_uint_eq(batches_count(in_spool("new"), name), 1);
	found = read_new(name, &len);
	ck_assert_uint_eq(len, sizeof(bytes));
	ck_assert_mem_eq(found, bytes, len);
	free(found);
	ck_assert_uint_eq(mode_new(name), 0640);
	ck_assert_uint_eq(strspn(name, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"), 26);
	ck_assert_str_eq(name + 26, ".main.192.0.2.1-5140");
	batches_close(&b);
}
END_TEST

START_TEST(stores_the_empty_message)
{
	char name[256];
	size_t len;

	open_spool();
	ck_assert_int_eq(batches_send(&b, batches_make_bytes(&b, "", 0)), OUTCOME_ACCEPTED);
	ck_assert_uint_eq(batches_count(in_spool("new"), name), 1);
	free(read_new(name, &len));
	ck_assert_uint_eq(len, 0);
	batches_close(&b);
}
END_TEST

/* Two groups and a half, from one delivery; and many deliveries at once. */
START_TEST(stores_more_than_a_group)
{
	struct batch *batches[300];
	unsigned i;

	open_spool();
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 640, "message %u")), OUTCOME_ACCEPTED);
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 640);
	for (i = 0; i < 300; i++) {
		batches[i] = batches_make(&b, 3, "again %u");
		batches_deliver(&b, batches[i]);
	}
	batches_wait(&b);
	for (i = 0; i < 300; i++) {
		ck_assert_int_eq(batches_outcome(batches[i], 2), OUTCOME_ACCEPTED);
		batch_free(batches[i]);
	}
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 640 + 900);
	ck_assert_uint_eq(atomic_load(&b.sink->account->accepted), 640 + 900);
	batches_close(&b);
}
END_TEST

static void
check_body(const char *spill)
{
	size_t size = 300001, len, i;
	unsigned char *bytes = malloc(size);
	char name[256], *found;
	struct batch *batch;

	ck_assert_ptr_nonnull(bytes);
	for (i = 0; i < size; i++)
		bytes[i] = (unsigned char)(i * 31 + i / 251);
	batch = batches_make_body(&b, bytes, size, spill);
	ck_assert_int_eq(batches_send(&b, batch), OUTCOME_ACCEPTED);
	ck_assert_uint_eq(batches_count(in_spool("new"), name), 1);
	found = read_new(name, &len);
	ck_assert_uint_eq(len, size);
	ck_assert_mem_eq(found, bytes, size);
	ck_assert_uint_eq(mode_new(name), 0640);
	free(found);
	free(bytes);
}

START_TEST(stores_a_body_in_memory)
{
	open_spool();
	check_body(NULL);
	batches_close(&b);
}
END_TEST

START_TEST(links_a_spilled_body)
{
	char name[256], path[300];
	struct stat st, linked;
	struct batch *batch;
	struct body *body;

	open_spool();
	check_body(in_spool("tmp"));
	batch = batches_make_body(&b, "0123456789", 10, in_spool("tmp"));
	body = batch->messages[0].body;
	ck_assert_int_eq(fstat(body->file, &st), 0);
	if (!body->linkable) {
		batch_free(batch);
		batches_close(&b);
		return; /* a filesystem without O_TMPFILE: check_body has seen the copy */
	}
	batches_deliver(&b, batch);
	batches_wait(&b);
	ck_assert_int_eq(batches_outcome(batch, 0), OUTCOME_ACCEPTED);
	spool_name(batch, &batch->messages[0], name);
	batch_free(batch);
	snprintf(path, sizeof(path), "new/%s", name);
	ck_assert_int_eq(stat(in_spool(path), &linked), 0);
	ck_assert_uint_eq(linked.st_ino, st.st_ino);
	ck_assert_uint_eq(linked.st_nlink, 1);
	batches_close(&b);
}
END_TEST

START_TEST(copies_a_body_that_others_read)
{
	struct config_sink config = settings();
	struct spool_group group;
	struct batch *batch;

	open_spool();
	batch = batches_make_body(&b, "0123456789", 10, in_spool("tmp"));
	ck_assert_int_eq(spool_group_open(&group, &config), 0);
	group.unnamed = true;
	batch->n_deliveries = 2;
	ck_assert(!spool_group_links(&group, batch, &batch->messages[0]));
	batch->n_deliveries = 1;
	ck_assert(spool_group_links(&group, batch, &batch->messages[0]) ==
		  batch->messages[0].body->linkable);
	group.device++;
	ck_assert(!spool_group_links(&group, batch, &batch->messages[0]));
	spool_group_close(&group);
	batch_free(batch);
	batches_close(&b);
}
END_TEST

/* As on a kernel whose syncfs keeps errors to itself. */
START_TEST(syncs_each_where_syncfs_does_not_tell)
{
	struct config_sink config = settings();
	struct spool_group group;
	struct batch *batch;
	unsigned i;

	open_spool();
	batch = batches_make(&b, 3, "number %u");
	ck_assert_int_eq(spool_group_open(&group, &config), 0);
	group.unnamed = true;
	group.syncfs_tells = false;
	for (i = 0; i < 3; i++)
		ck_assert_int_eq(spool_group_add(&group, batch, &batch->messages[i], 0), SPOOL_ADDED);
	spool_group_commit(&group);
	for (i = 0; i < 3; i++)
		ck_assert(group.files[i].error == 0 && group.files[i].synced);
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 3);
	spool_group_close(&group);
	batch_free(batch);
	batches_close(&b);
}
END_TEST

/* As on a filesystem without O_TMPFILE. */
START_TEST(renames_where_files_need_names)
{
	struct config_sink config = settings();
	struct spool_group group;
	struct batch *batch;
	char name[256];
	unsigned i;

	open_spool();
	batch = batches_make(&b, 5, "number %u");
	ck_assert_int_eq(spool_group_open(&group, &config), 0);
	group.unnamed = false;
	for (i = 0; i < 5; i++)
		ck_assert_int_eq(spool_group_add(&group, batch, &batch->messages[i], 0), SPOOL_ADDED);
	ck_assert_uint_eq(batches_count(in_spool("tmp"), NULL), 5);
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 0);
	spool_group_commit(&group);
	for (i = 0; i < 5; i++)
		ck_assert_int_eq(group.files[i].error, 0);
	ck_assert_uint_eq(batches_count(in_spool("tmp"), NULL), 0);
	ck_assert_uint_eq(batches_count(in_spool("new"), name), 5);
	ck_assert_uint_eq(mode_new(name), 0640);
	spool_group_close(&group);
	batch_free(batch);
	batches_close(&b);
}
END_TEST

START_TEST(removes_leftovers_at_start)
{
	open_spool();
	batches_close(&b);
	batches_write(in_spool("tmp/01LEFTOVER"), "half", 4);
	batches_write(in_spool("new/01WHOLE"), "whole", 5);
	open_spool();
	ck_assert_uint_eq(batches_count(in_spool("tmp"), NULL), 0);
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 1);
	batches_close(&b);
}
END_TEST

/* A reload opens the new sink while the old one is still at work. */
START_TEST(leaves_what_another_one_works_on)
{
	struct config_sink config = settings();
	struct batches other;

	open_spool();
	batches_write(in_spool("tmp/01WORK"), "half", 4);
	ck_assert_int_eq(batches_open_code(&other, &config), 0);
	ck_assert_uint_eq(batches_count(in_spool("tmp"), NULL), 1);
	sink_close(other.sink);
	free(other.config);
	batches_close(&b);
}
END_TEST

START_TEST(keeps_min_free)
{
	struct config_sink config = settings();

	config.min_free = (uint64_t)1 << 60;
	batches_open(&b, &config);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 3, "too much")), OUTCOME_STORAGE);
	ck_assert(!sink_is_ready(b.sink));
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 0);
	ck_assert_uint_eq(atomic_load(&b.sink->account->failed), 3);
	batches_close(&b);
	config.min_free = 1;
	batches_open(&b, &config);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 3, "fits")), OUTCOME_ACCEPTED);
	batches_close(&b);
}
END_TEST

/* new/ is taken away and made again. */
START_TEST(finds_a_new_directory)
{
	open_spool();
	ck_assert_int_eq(rmdir(in_spool("new")), 0);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 2, "lost %u")), OUTCOME_STORAGE);
	ck_assert(!sink_is_ready(b.sink));
	ck_assert_int_eq(mkdir(in_spool("new"), 0700), 0);
	batches_wait_ready(&b, true); /* nobody sends */
	while (batches_send(&b, batches_make(&b, 2, "found %u")) != OUTCOME_ACCEPTED)
		; /* each of the writers finds it for itself */
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 2);
	batches_close(&b);
}
END_TEST

/* Descriptors run out in the middle of a group: it is committed and the rest follows. */
START_TEST(commits_early_without_descriptors)
{
	struct rlimit limit, before;
	int fd;

	open_spool();
	ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	fd = dup(0);
	close(fd);
	limit = before;
	limit.rlim_cur = (rlim_t)fd + 20;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 200, "message %u")), OUTCOME_ACCEPTED);
	limit.rlim_cur = (rlim_t)fd;
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 2, "refused %u")), OUTCOME_STORAGE);
	ck_assert(!sink_is_ready(b.sink));
	ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
	batches_wait_ready(&b, true); /* nobody sends */
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 200);
	batches_close(&b);
}
END_TEST

/* A message that cannot be given its name fails alone. */
START_TEST(fails_one_of_a_group)
{
	struct batch *batch;
	char name[256], path[300];

	open_spool();
	batch = batches_make(&b, 3, "message %u");
	spool_name(batch, &batch->messages[1], name);
	snprintf(path, sizeof(path), "new/%s", name);
	ck_assert_int_eq(mkdir(in_spool(path), 0700), 0);
	batches_deliver(&b, batch);
	batches_wait(&b);
	ck_assert_int_eq(batches_outcome(batch, 0), OUTCOME_ACCEPTED);
	ck_assert_int_eq(batches_outcome(batch, 1), OUTCOME_STORAGE);
	ck_assert_int_eq(batches_outcome(batch, 2), OUTCOME_ACCEPTED);
	ck_assert_uint_eq(atomic_load(&b.sink->account->accepted), 2);
	ck_assert_uint_eq(atomic_load(&b.sink->account->failed), 1);
	batch_free(batch);
	batches_close(&b);
}
END_TEST

START_TEST(hurries)
{
	open_spool();
	sink_hurry(b.sink);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 2, "late")), OUTCOME_SHUTDOWN);
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 0);
	batches_close(&b);
}
END_TEST

START_TEST(answers_all_before_it_closes)
{
	struct batch *batches[64];
	unsigned i;

	open_spool();
	for (i = 0; i < 64; i++) {
		batches[i] = batches_make(&b, 10, "message %u");
		batches_deliver(&b, batches[i]);
	}
	batches_close(&b); /* demands that all are home */
	for (i = 0; i < 64; i++) {
		ck_assert_int_eq(batches_outcome(batches[i], 9), OUTCOME_ACCEPTED);
		batch_free(batches[i]);
	}
	ck_assert_uint_eq(batches_count(in_spool("new"), NULL), 640);
}
END_TEST

START_TEST(cannot_be_made)
{
	struct config_sink config = settings();

	batches_write(batches_path("plain"), "x", 1);
	config.directory = (char *)(uintptr_t)batches_path("plain/spool");
	ck_assert_int_eq(batches_open_code(&b, &config), EX_CANTCREAT);
}
END_TEST

static void
check_name(const char *expected)
{
	struct batch *batch = batches_make(&b, 1, "x");
	char name[256];

	spool_name(batch, &batch->messages[0], name);
	ck_assert_str_eq(name + 26, expected);
	batch_free(batch);
}

START_TEST(names_peers)
{
	char listener[400];

	open_spool();
	b.origin.peer = (struct net_address){.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(7)}};
	b.origin.peer.in6.sin6_addr.s6_addr[0] = 0x20;
	b.origin.peer.in6.sin6_addr.s6_addr[15] = 1;
	b.origin.listener = "a/b.c *d";
	check_name(".a_b_c__d.2000::1-7");
	b.origin.peer = (struct net_address){.unix_peer = {.family = AF_UNIX}};
	check_name(".a_b_c__d.unix");
	b.origin.peer.unix_peer.pid = 42;
	b.origin.listener = "..";
	check_name(".__.unix-42");
	memset(listener, 'x', sizeof(listener));
	listener[399] = '\0';
	b.origin.listener = listener;
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "long")), OUTCOME_ACCEPTED);
	batches_close(&b);
}
END_TEST

/* What is written beside a message is what is read. */
static void
check_facts(const char *listener, const char *subject, bool kept)
{
	struct batch *batch;
	struct spool_facts facts;
	char name[SPOOL_NAME_LEN + 1];
	int fd = open(batches_path("facts"), O_RDWR | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ne(fd, -1);
	b.origin.listener = listener;
	b.origin.tls_subject = subject;
	batch = batches_make(&b, 1, "x");
	batch->time = 1795459315123456;
	batch->messages[0].ended = ENDED_TIMEOUT;
	spool_name(batch, &batch->messages[0], name);
	ck_assert_int_eq(spool_facts_write(fd, batch, &batch->messages[0], name), 0);
	ck_assert_int_eq(spool_facts_of_name(&facts, name), 0);
	ck_assert_mem_eq(&facts.id, &batch->messages[0].id, sizeof(facts.id));
	ck_assert_mem_eq(&facts.peer.in.sin_addr, &b.origin.peer.in.sin_addr, 4);
	ck_assert_uint_eq(facts.peer.in.sin_port, b.origin.peer.in.sin_port);
	ck_assert(!facts.has_local && facts.ended == ENDED_FIN);
	spool_facts_read(&facts, fd);
	if (fgetxattr(fd, "user.cistern", NULL, 0) > 0) {
		ck_assert_uint_eq(facts.time, 1795459315123456);
		ck_assert_int_eq(facts.ended, ENDED_TIMEOUT);
		ck_assert(facts.has_local);
		ck_assert_uint_eq(facts.local.in.sin_port, htons(5140));
		ck_assert_str_eq(facts.listener, listener);
		ck_assert_str_eq(facts.subject, kept ? subject : "");
	}
	close(fd);
	batch_free(batch);
}

START_TEST(keeps_facts)
{
	char subject[SPOOL_FACTS_SUBJECT + 2];

	open_spool();
	memset(subject, 's', sizeof(subject));
	subject[SPOOL_FACTS_SUBJECT + 1] = '\0';
	check_facts("main", NULL, false);
	check_facts("a*b", "CN=a b,O=c=d ended=fin", true);
	check_facts("main", subject, false);
	check_facts("main", subject + 1, true);
	b.origin.listener = "main";
	b.origin.tls_subject = NULL;
	batches_close(&b);
}
END_TEST

START_TEST(knows_names)
{
	static const char *const bad[] = {"", ".", "README", "01M8HR85BNA35AS5SDQEEJAAJE",
		"01M8HR85BNA35AS5SDQEEJAAJE.", "01M8HR85BNA35AS5SDQEEJAAJE.main",
		"01M8HR85BNA35AS5SDQEEJAAJE..x", "01M8HR85BNA35AS5SDQEEJAAJE.main.",
		"01M8HR85BNA35AS5SDQEEJAAJE-main.x", "01m8HR85BNA35AS5SDQEEJAAJE.main.x"};
	struct spool_facts facts;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(spool_facts_of_name(&facts, bad[i]) == -1, "%s", bad[i]);
	ck_assert_int_eq(spool_facts_of_name(&facts, "01M8HR85BNA35AS5SDQEEJAAJE.main.nobody"), 0);
	ck_assert_uint_eq(facts.peer.family, 0);
	ck_assert_int_eq(spool_facts_of_name(&facts, "01M8HR85BNA35AS5SDQEEJAAJE.main.unix-42"), 0);
	ck_assert_uint_eq(facts.peer.unix_peer.pid, 42);
	ck_assert_int_eq(
	    spool_facts_of_name(&facts, "01M8HR85BNA35AS5SDQEEJAAJE.main.fe80::1%2-9"), 0);
	ck_assert_uint_eq(facts.peer.in6.sin6_scope_id, 2);
}
END_TEST

static Suite *
spool_suite(void)
{
	Suite *suite = suite_create("spool");
	TCase *tcase = tcase_create("spool");

	tcase_add_checked_fixture(tcase, NULL, clean);
	tcase_add_test(tcase, makes_its_directories);
	tcase_add_test(tcase, stores_exactly_the_bytes);
	tcase_add_test(tcase, stores_the_empty_message);
	tcase_add_test(tcase, stores_more_than_a_group);
	tcase_add_test(tcase, stores_a_body_in_memory);
	tcase_add_test(tcase, links_a_spilled_body);
	tcase_add_test(tcase, copies_a_body_that_others_read);
	tcase_add_test(tcase, syncs_each_where_syncfs_does_not_tell);
	tcase_add_test(tcase, renames_where_files_need_names);
	tcase_add_test(tcase, removes_leftovers_at_start);
	tcase_add_test(tcase, leaves_what_another_one_works_on);
	tcase_add_test(tcase, keeps_min_free);
	tcase_add_test(tcase, finds_a_new_directory);
	tcase_add_test(tcase, commits_early_without_descriptors);
	tcase_add_test(tcase, fails_one_of_a_group);
	tcase_add_test(tcase, hurries);
	tcase_add_test(tcase, answers_all_before_it_closes);
	tcase_add_test(tcase, cannot_be_made);
	tcase_add_test(tcase, names_peers);
	tcase_add_test(tcase, keeps_facts);
	tcase_add_test(tcase, knows_names);
	suite_add_tcase(suite, tcase);
	return suite;
}

int
main(void)
{
	signal(SIGPIPE, SIG_IGN);
	return unit_run(spool_suite());
}
