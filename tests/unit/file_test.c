/*
 * file_test: the file sink, handed batches directly.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "batches.h"
#include "message/format.h"
#include "sinks/file.h"
#include "unit.h"

static struct batches b;

static struct config_sink
settings(enum format format)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s", batches_path("log"));
	return (struct config_sink){.name = (char *)(uintptr_t)"file", .type = CONFIG_SINK_FILE,
				    .format = (int)format, .path = path, .sync = true, .mode = 0640};
}

static void
open_file(enum format format)
{
	struct config_sink config = settings(format);

	batches_open(&b, &config);
}

static void
expect(const char *name, const char *text)
{
	size_t len;
	char *found = batches_read(batches_path(name), &len);

	ck_assert_str_eq(found, text);
	ck_assert_uint_eq(len, strlen(text));
	free(found);
}

static void
clean(void)
{
	batches_clean();
}

START_TEST(appends_records)
{
	struct stat st;
	mode_t before = umask(0077); /* the mode is the configured one, whatever this says */

	open_file(FORMAT_LINE);
	umask(before);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 3, "line %u")), OUTCOME_ACCEPTED);
	expect("log", "line 0\nline 1\nline 2\n");
	batches_close(&b);
	ck_assert_int_eq(stat(batches_path("log"), &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0640);
	open_file(FORMAT_LINE);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "more")), OUTCOME_ACCEPTED);
	batches_close(&b);
	expect("log", "line 0\nline 1\nline 2\nmore\n");
}
END_TEST

START_TEST(writes_groups_larger_than_the_bound)
{
	struct batch *batches[6];
	size_t size = 3000000, len;
	char *bytes = malloc(size), *found;
	unsigned i;

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'x', size);
	open_file(FORMAT_RAW);
	for (i = 0; i < 6; i++) {
		batches[i] = batches_make_bytes(&b, bytes, size);
		batches_deliver(&b, batches[i]);
	}
	batches_wait(&b);
	for (i = 0; i < 6; i++) {
		ck_assert_int_eq(batches_outcome(batches[i], 0), OUTCOME_ACCEPTED);
		batch_free(batches[i]);
	}
	batches_close(&b);
	found = batches_read(batches_path("log"), &len);
	ck_assert_uint_eq(len, 6 * size);
	free(found);
	free(bytes);
}
END_TEST

START_TEST(reopens)
{
	open_file(FORMAT_LINE);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "first")), OUTCOME_ACCEPTED);
	ck_assert_int_eq(rename(batches_path("log"), batches_path("log.1")), 0);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "second")), OUTCOME_ACCEPTED);
	sink_reopen(b.sink);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "third")), OUTCOME_ACCEPTED);
	batches_close(&b);
	expect("log.1", "first\nsecond\n");
	expect("log", "third\n");
}
END_TEST

START_TEST(keeps_the_old_file_when_reopening_fails)
{
	open_file(FORMAT_LINE);
	ck_assert_int_eq(rename(batches_path("log"), batches_path("log.1")), 0);
	ck_assert_int_eq(mkdir(batches_path("log"), 0700), 0);
	sink_reopen(b.sink);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "kept")), OUTCOME_ACCEPTED);
	batches_close(&b);
	expect("log.1", "kept\n");
}
END_TEST

/* A limit on the file's size is a disk that fills up in the middle of a record. */
START_TEST(cuts_back_what_did_not_fit)
{
	struct rlimit limit, before;
	char *large = malloc(5001);

	ck_assert_ptr_nonnull(large);
	memset(large, 'x', 5000);
	large[5000] = '\0';
	open_file(FORMAT_LINE);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 2, "good %u")), OUTCOME_ACCEPTED);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = 3000;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 2, large)), OUTCOME_STORAGE);
	ck_assert(!sink_is_ready(b.sink));
	ck_assert_uint_eq(account_get(&b.sink->account->failed), 2);
	expect("log", "good 0\ngood 1\n");
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
	batches_wait_ready(&b, true); /* nobody sends */
	expect("log", "good 0\ngood 1\n");
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "again")), OUTCOME_ACCEPTED);
	batches_close(&b);
	expect("log", "good 0\ngood 1\nagain\n");
	free(large);
}
END_TEST

/* logrotate's copytruncate. */
/* What has no name is nobody's: receipts for it would be false. */
START_TEST(follows_a_removal)
{
	open_file(FORMAT_LINE);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "first")), OUTCOME_ACCEPTED);
	ck_assert_int_eq(unlink(batches_path("log")), 0);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "second")), OUTCOME_ACCEPTED);
	expect("log", "second\n");
	batches_close(&b);
}
END_TEST

/* As a daemon's standard output may be. */
START_TEST(keeps_what_never_had_a_name)
{
	struct config_sink config = settings(FORMAT_LINE);
	char path[32], found[16] = "";
	int fd = open(batches_path("."), O_TMPFILE | O_RDWR, 0600);

	ck_assert_int_ne(fd, -1);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	config.path = path;
	batches_open(&b, &config);
	for (int i = 0; i < 2; i++)
		ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "here")), OUTCOME_ACCEPTED);
	batches_close(&b);
	ck_assert_int_eq(pread(fd, found, sizeof(found), 0), 10);
	ck_assert_str_eq(found, "here\nhere\n");
	close(fd);
}
END_TEST

START_TEST(follows_a_truncation)
{
	open_file(FORMAT_LINE);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "before")), OUTCOME_ACCEPTED);
	ck_assert_int_eq(truncate(batches_path("log"), 0), 0);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "after")), OUTCOME_ACCEPTED);
	batches_close(&b);
	expect("log", "after\n");
}
END_TEST

static void
check_tail(enum format format, const char *before, const char *after)
{
	batches_write(batches_path("log"), before, strlen(before));
	open_file(format);
	batches_close(&b);
	expect("log", after);
}

START_TEST(cuts_torn_tails)
{
	check_tail(FORMAT_LINE, "", "");
	check_tail(FORMAT_LINE, "whole\n", "whole\n");
	check_tail(FORMAT_LINE, "whole\nto", "whole\n");
	check_tail(FORMAT_LINE, "to", "");
	check_tail(FORMAT_JSON, "{\"id\":\"A\"}\n{\"id\":\"B\",\"tim", "{\"id\":\"A\"}\n");
	check_tail(FORMAT_JSON, "{\"id\":\"A\"}\n{\"i", "{\"id\":\"A\"}\n");
	check_tail(FORMAT_JSON, "{\"id\":\"A\"}\n", "{\"id\":\"A\"}\n");
}
END_TEST

/* What is not ours is not thrown away. */
START_TEST(keeps_foreign_tails)
{
	check_tail(FORMAT_JSON, "some notes", "some notes\n");
	check_tail(FORMAT_TEXT, "some notes", "some notes\n");
	check_tail(FORMAT_RAW, "some notes", "some notes");
}
END_TEST

#define TEXT(n, data) "Read " n " bytes from socket.\n Data : " data

START_TEST(cuts_torn_text)
{
	/* The torn record goes, from wherever in it the file ends. */
	check_tail(FORMAT_TEXT, TEXT("5", "whole\n") TEXT("9", "to"), TEXT("5", "whole\n"));
	check_tail(FORMAT_TEXT, TEXT("5", "whole\n") TEXT("9", "a\nb\nc"), TEXT("5", "whole\n"));
	check_tail(FORMAT_TEXT, TEXT("5", "whole\n") "Read 9 bytes from socket.\n Da",
		   TEXT("5", "whole\n"));
	check_tail(FORMAT_TEXT, TEXT("5", "whole\n") "Read 9 bytes fr", TEXT("5", "whole\n"));
	check_tail(FORMAT_TEXT, TEXT("5", "whole\n") "R", TEXT("5", "whole\n"));
	check_tail(FORMAT_TEXT, TEXT("9", "to"), "");
	/* In doubt an older record is kept: this tail may be a heading's beginning. */
	check_tail(FORMAT_TEXT, TEXT("5", "whole\n") TEXT("90", "a\nRead"),
		   TEXT("5", "whole\n") TEXT("90", "a\n"));
	check_tail(FORMAT_TEXT, TEXT("12", "a\nRead 3 bites\n"), TEXT("12", "a\nRead 3 bites\n"));
}
END_TEST

/* Every place at which a file of two records can be torn: the first always stays. */
START_TEST(never_cuts_an_older_record)
{
	static const char first[] = TEXT("32", "one\nRead 7 bytes from socket.\n D\n");
	static const char second[] = TEXT("20", "Read 1 bytes from s\nx\n");
	char both[sizeof(first) + sizeof(second)];
	size_t whole = sizeof(first) - 1, len;
	bool ours;
	int fd;

	snprintf(both, sizeof(both), "%s%s", first, second);
	for (len = whole; len < strlen(both); len++) {
		off_t found;

		batches_write(batches_path("torn"), both, len);
		fd = open(batches_path("torn"), O_RDWR);
		ck_assert_int_ne(fd, -1);
		found = file_tail_find(fd, (off_t)len, FORMAT_TEXT, &ours);
		ck_assert_int_ge(found, (off_t)whole);
		ck_assert_int_le(found, (off_t)len);
		ck_assert(found == (off_t)len ? both[len - 1] == '\n' : ours);
		close(fd);
	}
}
END_TEST

/* A record of nothing but newlines, as long as two blocks and more or less: its heading
 * is found wherever it stands in a block. */
START_TEST(finds_headings_across_blocks)
{
	static const char first[] = TEXT("5", "whole\n"), heading[] = TEXT("99999", "");
	size_t whole = sizeof(first) - 1, begun = whole + sizeof(heading) - 1, more;
	char bytes[3 * 4096];
	bool ours;
	int fd;

	memset(bytes, '\n', sizeof(bytes));
	memcpy(bytes, first, whole);
	memcpy(bytes + whole, heading, sizeof(heading) - 1);
	for (more = 2 * 4096 - 100; more < 2 * 4096 + 100; more++) {
		bytes[begun + more] = 'x';
		batches_write(batches_path("torn"), bytes, begun + more + 1);
		bytes[begun + more] = '\n';
		fd = open(batches_path("torn"), O_RDWR);
		ck_assert_int_ne(fd, -1);
		ck_assert_int_eq(file_tail_find(fd, (off_t)(begun + more + 1), FORMAT_TEXT, &ours), (off_t)whole);
		ck_assert(ours);
		close(fd);
	}
}
END_TEST

/* How often this process has read; 0: the kernel does not count. */
static unsigned long
reads(void)
{
	unsigned long n = 0;
	char line[64];
	FILE *io = fopen("/proc/self/io", "re");

	while (io != NULL && fgets(line, sizeof(line), io) != NULL)
		if (sscanf(line, "syscr: %lu", &n) == 1)
			break;
	if (io != NULL)
		fclose(io);
	return n;
}

/* Each newline begins a line; 32 MB of them took half a minute when each was looked up. */
START_TEST(reads_each_block_once)
{
	static const char heading[] = TEXT("999999", "");
	size_t len = sizeof(heading) + 512 * 1024;
	char *bytes = malloc(len);
	unsigned long before;
	bool ours;
	int fd;

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, '\n', len);
	memcpy(bytes, heading, sizeof(heading) - 1);
	bytes[len - 1] = 'x';
	batches_write(batches_path("torn"), bytes, len);
	free(bytes);
	fd = open(batches_path("torn"), O_RDWR);
	ck_assert_int_ne(fd, -1);
	before = reads();
	ck_assert_int_eq(file_tail_find(fd, (off_t)len, FORMAT_TEXT, &ours), 0);
	ck_assert(ours);
	ck_assert_uint_lt(reads() - before, 200);
	close(fd);
}
END_TEST

START_TEST(mends_the_last_block)
{
	char bytes[9000];
	size_t len;
	char *found;
	int fd;

	memset(bytes, 'a', sizeof(bytes));
	batches_write(batches_path("log"), bytes, sizeof(bytes));
	fd = open(batches_path("log"), O_RDWR | O_APPEND);
	ck_assert_int_ne(fd, -1);
	ck_assert_int_eq(file_tail_mend(fd, 5000, true), 0);
	ck_assert_int_eq(file_tail_mend(fd, 4096, true), 0);
	ck_assert_int_eq(file_tail_mend(fd, 100, false), 0);
	ck_assert_int_eq(file_tail_mend(fd, 0, true), 0);
	close(fd);
	batches_write(batches_path("log"), bytes, sizeof(bytes));
	fd = open(batches_path("log"), O_RDWR | O_APPEND);
	ck_assert_int_eq(file_tail_mend(fd, 8200, true), 0);
	close(fd);
	found = batches_read(batches_path("log"), &len);
	ck_assert_uint_eq(len, 8200);
	ck_assert_mem_eq(found, bytes, len);
	free(found);
}
END_TEST

START_TEST(writes_to_devices)
{
	struct config_sink config = settings(FORMAT_JSON);

	config.path = (char *)(uintptr_t)"/dev/null";
	batches_open(&b, &config);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 3, "gone")), OUTCOME_ACCEPTED);
	batches_close(&b);
	config.path = (char *)(uintptr_t)"/dev/full";
	batches_open(&b, &config);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "full")), OUTCOME_STORAGE);
	batches_close(&b);
}
END_TEST

START_TEST(waits_for_a_fifo_to_be_read)
{
	char text[16] = "";
	int reader;

	ck_assert_int_eq(mkfifo(batches_path("log"), 0600), 0);
	open_file(FORMAT_LINE);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "nobody")), OUTCOME_UNAVAILABLE);
	ck_assert(!sink_is_ready(b.sink));
	reader = open(batches_path("log"), O_RDONLY | O_NONBLOCK);
	ck_assert_int_ne(reader, -1);
	batches_wait_ready(&b, true);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "somebody")), OUTCOME_ACCEPTED);
	ck_assert_int_eq(read(reader, text, sizeof(text) - 1), 9);
	ck_assert_str_eq(text, "somebody\n");
	close(reader);
	ck_assert_int_eq(batches_send(&b, batches_make(&b, 1, "nobody")), OUTCOME_UNAVAILABLE);
	batches_close(&b);
}
END_TEST

START_TEST(leaves_a_full_fifo_when_hurried)
{
	size_t size = 1000000;
	char *bytes = calloc(1, size);
	struct batch *batch;
	int reader;

	ck_assert_ptr_nonnull(bytes);
	ck_assert_int_eq(mkfifo(batches_path("log"), 0600), 0);
	reader = open(batches_path("log"), O_RDONLY | O_NONBLOCK);
	open_file(FORMAT_RAW);
	batch = batches_make_bytes(&b, bytes, size);
	batches_deliver(&b, batch);
	sink_hurry(b.sink);
	batches_wait(&b);
	ck_assert_int_eq(batches_outcome(batch, 0), OUTCOME_SHUTDOWN);
	batch_free(batch);
	batches_close(&b);
	close(reader);
	free(bytes);
}
END_TEST

START_TEST(cannot_be_opened)
{
	struct config_sink config = settings(FORMAT_LINE);

	config.path = (char *)(uintptr_t)batches_path("none/log");
	ck_assert_int_eq(batches_open_code(&b, &config), EX_CANTCREAT);
	config.path = (char *)(uintptr_t)batches_directory();
	ck_assert_int_eq(batches_open_code(&b, &config), EX_CANTCREAT);
}
END_TEST

static Suite *
file_suite(void)
{
	Suite *suite = suite_create("file");
	TCase *tcase = tcase_create("file");

	tcase_add_checked_fixture(tcase, NULL, clean);
	tcase_add_test(tcase, appends_records);
	tcase_add_test(tcase, writes_groups_larger_than_the_bound);
	tcase_add_test(tcase, reopens);
	tcase_add_test(tcase, keeps_the_old_file_when_reopening_fails);
	tcase_add_test(tcase, cuts_back_what_did_not_fit);
	tcase_add_test(tcase, follows_a_removal);
	tcase_add_test(tcase, keeps_what_never_had_a_name);
	tcase_add_test(tcase, follows_a_truncation);
	tcase_add_test(tcase, cuts_torn_tails);
	tcase_add_test(tcase, keeps_foreign_tails);
	tcase_add_test(tcase, cuts_torn_text);
	tcase_add_test(tcase, never_cuts_an_older_record);
	tcase_add_test(tcase, finds_headings_across_blocks);
	tcase_add_test(tcase, reads_each_block_once);
	tcase_add_test(tcase, mends_the_last_block);
	tcase_add_test(tcase, writes_to_devices);
	tcase_add_test(tcase, waits_for_a_fifo_to_be_read);
	tcase_add_test(tcase, leaves_a_full_fifo_when_hurried);
	tcase_add_test(tcase, cannot_be_opened);
	suite_add_tcase(suite, tcase);
	return suite;
}

int
main(void)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	return unit_run(file_suite());
}
