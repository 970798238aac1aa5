/*
 * Tests of belongings: a pid file that others hold, remove and make anew meanwhile.
 * flock(2) is this file's, so that something can happen right before it.
 */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sysexits.h>
#include <unistd.h>

#include "belongings.h"
#include "config/config.h"
#include "identity.h"
#include "unit.h"

static char directory[256];
static char path[sizeof directory + 8];
static struct config config;
static const struct identity identity;
static int removals; /* of the file, each right before it is locked */

int
flock(int fd, int operation)
{
	if (removals > 0 && removals-- > 0)
		ck_assert_int_eq(unlink(path), 0);
	return (int)syscall(SYS_flock, fd, operation);
}

static void
set_up(void)
{
	const char *parent = getenv("TMPDIR");

	snprintf(directory, sizeof directory, "%s/cistern-belongings.XXXXXX", parent != NULL ? parent : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/pid", directory);
	config.pid_file = path;
	removals = 0;
}

static void
tear_down(void)
{
	unlink(path);
	rmdir(directory);
}

/* The path leads to a file with this process's id. */
static void
expect_pid_file(void)
{
	char text[32] = "", expected[32];
	int fd = open(path, O_RDONLY);

	ck_assert_msg(fd != -1, "%s: %s", path, strerror(errno));
	ck_assert_int_gt(read(fd, text, sizeof text - 1), 0);
	snprintf(expected, sizeof expected, "%ld\n", (long)getpid());
	ck_assert_str_eq(text, expected);
	close(fd);
}

/* Who held it before removes it between our open and our lock. */
START_TEST(removed_before_the_lock)
{
	int fd = -1;

	removals = 3;
	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &fd), 0);
	expect_pid_file();
	belongings_close_pid_file(&config, fd);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

/* Somebody has removed it, and another daemon has made its own: that one stays. */
START_TEST(another_ones_is_left)
{
	int first = -1, second = -1;

	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &first), 0);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &second), 0);
	belongings_close_pid_file(&config, first);
	expect_pid_file();
	belongings_close_pid_file(&config, second);
	ck_assert_int_eq(access(path, F_OK), -1);
}
END_TEST

START_TEST(held_by_another)
{
	int first = -1, second = -1;

	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &first), 0);
	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &second), EX_CANTCREAT);
	ck_assert_int_eq(second, -1);
	expect_pid_file();
	belongings_close_pid_file(&config, first);
}
END_TEST

/* Whatever else has come to lie there, or is named by mistake, is not emptied. */
START_TEST(others_files_are_left)
{
	static const char *const others[] = { "precious\n", "12 monkeys\n",
					      "1234567890123456789012345\n" };
	char text[32] = "";
	int fd = -1;
	size_t i;

	for (i = 0; i < sizeof others / sizeof others[0]; i++) {
		FILE *file = fopen(path, "w");

		ck_assert_ptr_nonnull(file);
		ck_assert_int_ge(fputs(others[i], file), 0);
		ck_assert_int_eq(fclose(file), 0);
		ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &fd), EX_CANTCREAT);
		ck_assert_int_eq(fd, -1);
		file = fopen(path, "r");
		ck_assert_ptr_nonnull(file);
		ck_assert_ptr_nonnull(fgets(text, sizeof text, file));
		ck_assert_str_eq(text, others[i]);
		fclose(file);
	}
}
END_TEST

/* What a crash has left is not in the way. */
START_TEST(what_a_crash_left_is_taken)
{
	FILE *file = fopen(path, "w");
	int fd = -1;

	ck_assert_ptr_nonnull(file);
	ck_assert_int_ge(fputs("4194304\n", file), 0);
	ck_assert_int_eq(fclose(file), 0);
	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &fd), 0);
	expect_pid_file();
	belongings_close_pid_file(&config, fd);
}
END_TEST

/* A second name, or what is no file at all, may be meant to deceive. */
START_TEST(traps_are_left)
{
	char other[sizeof path + 8];
	int fd = -1;

	snprintf(other, sizeof other, "%s.other", path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &fd), EX_CANTCREAT);
	ck_assert_int_eq(rename(path, other), 0);
	ck_assert_int_eq(symlink(other, path), 0);
	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &fd), EX_CANTCREAT);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(unlink(other), 0);
	fd = open(other, O_CREAT | O_WRONLY, 0600);
	ck_assert_int_ne(fd, -1);
	close(fd);
	ck_assert_int_eq(link(other, path), 0);
	fd = -1;
	ck_assert_int_eq(belongings_open_pid_file(&config, &identity, &fd), EX_CANTCREAT);
	ck_assert_int_eq(fd, -1);
	ck_assert_int_eq(unlink(other), 0);
}
END_TEST

/* With its parent, as the default one needs where no package has made it; no more. */
START_TEST(spill_directory_is_made)
{
	char parent[sizeof path + 8], spill[sizeof path + 16], deep[sizeof path + 24];
	struct stat st;

	snprintf(parent, sizeof parent, "%s/lib", directory);
	snprintf(spill, sizeof spill, "%s/cistern", parent);
	snprintf(deep, sizeof deep, "%s/none/none/none", directory);
	config.spill_directory = deep;
	belongings_make_spill_directory(&config, &identity);
	ck_assert_int_eq(belongings_check_spill_directory(&config), 0); /* only remarked on */
	config.spill_directory_given = true;
	ck_assert_int_eq(belongings_check_spill_directory(&config), EX_CANTCREAT);
	config.spill_directory = spill;
	belongings_make_spill_directory(&config, &identity);
	ck_assert_int_eq(belongings_check_spill_directory(&config), 0);
	ck_assert_int_eq(stat(spill, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0700);
	ck_assert_int_eq(rmdir(spill), 0);
	ck_assert_int_eq(rmdir(parent), 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("belongings");
	TCase *tc = tcase_create("pid file");

	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, removed_before_the_lock);
	tcase_add_test(tc, another_ones_is_left);
	tcase_add_test(tc, held_by_another);
	tcase_add_test(tc, others_files_are_left);
	tcase_add_test(tc, what_a_crash_left_is_taken);
	tcase_add_test(tc, traps_are_left);
	tcase_add_test(tc, spill_directory_is_made);
	suite_add_tcase(s, tc);
	return unit_run(s);
}
