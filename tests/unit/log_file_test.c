/*
 * Tests of base/log: a file that goes away, and fields that have no room.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "batches.h"
#include "unit.h"

static void
teardown(void)
{
	(void)log_open(LOG_TARGET_STDERR, NULL, LOG_LEVEL_ERROR, false);
	batches_clean();
}

/* A field that has no room is left out, as half of one would be no JSON; the others stay. */
START_TEST(fields_have_room_or_are_left_out)
{
	static char much[5000];
	char path[PATH_MAX], *line;
	size_t len;

	snprintf(path, sizeof path, "%s", batches_path("log"));
	ck_assert_int_eq(log_open(LOG_TARGET_FILE, path, LOG_LEVEL_INFO, true), 0);
	memset(much, 'y', sizeof much - 1);
	log_event_with(LOG_LEVEL_INFO, "test",
		       LOG_FIELDS(LOG_TEXT("much", much), LOG_NUMBER("bytes", 7)), "it goes on");
	line = batches_read(path, &len);
	ck_assert_ptr_nonnull(strstr(line, ",\"bytes\":7,\"message\":\"it goes on\"}\n"));
	ck_assert_ptr_null(strstr(line, "\"much\""));
	free(line);
}
END_TEST

/* Where it cannot be opened again, the old one goes on. */
START_TEST(a_directory_is_gone_for_a_while)
{
	char directory[PATH_MAX], path[PATH_MAX], old[PATH_MAX], *line;
	size_t len;

	snprintf(directory, sizeof directory, "%s", batches_path("d"));
	snprintf(path, sizeof path, "%s", batches_path("d/log"));
	snprintf(old, sizeof old, "%s", batches_path("old"));
	ck_assert_int_eq(mkdir(directory, 0700), 0);
	ck_assert_int_eq(log_open(LOG_TARGET_FILE, path, LOG_LEVEL_INFO, false), 0);
	ck_assert_int_eq(rename(path, old), 0);
	ck_assert_int_eq(rmdir(directory), 0);
	ck_assert_int_eq(log_reopen(), -1);
	ck_assert_int_eq(errno, ENOENT);
	log_event(LOG_LEVEL_INFO, "x", "into the old one");
	ck_assert_int_eq(mkdir(directory, 0700), 0);
	ck_assert_int_eq(log_reopen(), 0);
	log_event(LOG_LEVEL_INFO, "x", "here again");
	line = batches_read(old, &len);
	ck_assert_ptr_nonnull(strstr(line, "into the old one\n"));
	free(line);
	line = batches_read(path, &len);
	ck_assert_ptr_nonnull(strstr(line, "here again\n"));
	ck_assert_ptr_null(strstr(line, "old one"));
	free(line);
}
END_TEST

/* Half a line that a full disk has left gets its newline, though the file was opened anew
 * meanwhile; another file does not. */
START_TEST(half_a_line_ends_before_the_next)
{
	char path[PATH_MAX], *line;
	struct rlimit limit, old;
	size_t len;
	int way;

	snprintf(path, sizeof path, "%s", batches_path("log"));
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	for (way = 0; way < 3; way++) {
		ck_assert_int_eq(log_open(LOG_TARGET_FILE, path, LOG_LEVEL_INFO, false), 0);
		limit = old;
		limit.rlim_cur = 60;
		ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
		log_event(LOG_LEVEL_INFO, "x", "this one is much too long for what is left of the disk");
		ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
		if (way == 2)
			ck_assert_int_eq(unlink(path), 0);
		if (way == 1)
			ck_assert_int_eq(log_open(LOG_TARGET_FILE, path, LOG_LEVEL_INFO, false), 0);
		else
			ck_assert_int_eq(log_reopen(), 0);
		log_event(LOG_LEVEL_INFO, "x", "room again");
		line = batches_read(path, &len);
		if (way == 2)
			ck_assert_int_ne(line[0], '\n');
		else
			ck_assert_int_eq(line[60], '\n');
		free(line);
		ck_assert_int_eq(unlink(path), 0);
		ck_assert_int_eq(log_reopen(), 0);
		ck_assert_int_eq(unlink(path), 0);
	}
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("log_file");
	TCase *tcase = tcase_create("log_file");

	tcase_add_checked_fixture(tcase, NULL, teardown);
	tcase_add_test(tcase, fields_have_room_or_are_left_out);
	tcase_add_test(tcase, a_directory_is_gone_for_a_while);
	tcase_add_test(tcase, half_a_line_ends_before_the_next);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
