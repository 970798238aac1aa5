/*
 * Tests of base/privileges.  What drops privileges happens in a child, which says
 * afterwards what the kernel thinks of it.  Most of that takes root.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/privileges.h"
#include "unit.h"

#define UID 54321 /* of nobody that is in the database */
#define GID 54322

static const char NO_CAPABILITY[] = "0000000000000000";

/* ------------------------------------------------------------------- find */

static void
expect_failure(const char *user, const char *group, const char *expected)
{
	struct privileges privileges;
	const char *why = "";

	ck_assert_int_eq(privileges_find(user, group, &privileges, &why), -1);
	ck_assert_str_eq(why, expected);
	ck_assert(!privileges.given);
}

START_TEST(nobody_to_become)
{
	struct privileges privileges;
	const char *why = "";

	ck_assert_int_eq(privileges_find(NULL, NULL, &privileges, &why), 0);
	ck_assert(!privileges.given);
}
END_TEST

START_TEST(names_that_do_not_exist)
{
	expect_failure("no-such-user-here", NULL, "there is no such user");
	expect_failure("no-such-user-here", "root", "there is no such user");
	expect_failure("", NULL, "there is no such user");
	expect_failure("-1", "1", "there is no such user");
	expect_failure("4294967295", "1", "there is no such user");
	expect_failure("12x", "1", "there is no such user");
	expect_failure("54321", "no-such-group-here", "there is no such group");
	expect_failure("54321", "", "there is no such group");
	expect_failure("54321", "4294967295", "there is no such group");
	expect_failure(NULL, "root", "a group needs a `user` too");
	expect_failure("54321", NULL,
		       "no user has this number, so it has no group: name one with `group`");
}
END_TEST

START_TEST(root_is_nobody_to_become)
{
	expect_failure("0", "1", "this is root: to stay root, leave `user` out");
	expect_failure("root", NULL, "this is root: to stay root, leave `user` out");
}
END_TEST

START_TEST(numbers)
{
	struct privileges privileges;
	const char *why = "";

	ck_assert_int_eq(privileges_find("54321", "54322", &privileges, &why), 0);
	ck_assert(privileges.given);
	ck_assert_uint_eq(privileges.uid, UID);
	ck_assert_uint_eq(privileges.gid, GID);
	ck_assert_str_eq(privileges.user, "");
	ck_assert_int_eq(privileges_find("4294967294", "0", &privileges, &why), 0);
	ck_assert_uint_eq(privileges.uid, 4294967294U);
	ck_assert_uint_eq(privileges.gid, 0);
}
END_TEST

/* Some user of the database that is not root; false: there is none. */
static bool
find_somebody(struct passwd *somebody)
{
	struct passwd *entry;
	bool found = false;

	setpwent();
	while (!found && (entry = getpwent()) != NULL)
		if (entry->pw_uid != 0) {
			*somebody = *entry;
			somebody->pw_name = strdup(entry->pw_name);
			ck_assert_ptr_nonnull(somebody->pw_name);
			found = true;
		}
	endpwent();
	return found;
}

START_TEST(names_have_their_own_group)
{
	struct privileges privileges;
	struct passwd somebody;
	const char *why = "";
	char number[16];

	if (!find_somebody(&somebody))
		return;
	ck_assert_int_eq(privileges_find(somebody.pw_name, NULL, &privileges, &why), 0);
	ck_assert(privileges.given);
	ck_assert_uint_eq(privileges.uid, somebody.pw_uid);
	ck_assert_uint_eq(privileges.gid, somebody.pw_gid);
	ck_assert_str_eq(privileges.user, somebody.pw_name);

	snprintf(number, sizeof number, "%u", somebody.pw_uid);
	ck_assert_int_eq(privileges_find(number, "54322", &privileges, &why), 0);
	ck_assert_uint_eq(privileges.uid, somebody.pw_uid);
	ck_assert_uint_eq(privileges.gid, GID);
	ck_assert_str_eq(privileges.user, somebody.pw_name);

	ck_assert_int_eq(privileges_find(number, "root", &privileges, &why), 0);
	ck_assert_uint_eq(privileges.gid, 0);
	free(somebody.pw_name);
}
END_TEST

/* ------------------------------------------------------------------- drop */

struct outcome {
	int result; /* of privileges_drop */
	int error;
	int dumpable;
	bool are_root;
	char status[4096]; /* /proc/self/status */
};

static void
read_status(struct outcome *outcome)
{
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t len = fd == -1 ? 0 : read(fd, outcome->status, sizeof outcome->status - 1);

	if (len > 0)
		outcome->status[len] = '\0';
}

/* Drops privileges in a child, after some preparation there. */
static struct outcome
drop(int (*prepare)(void), const struct privileges *privileges)
{
	static struct outcome outcome;
	size_t used = 0;
	int to[2], status;
	ssize_t len;
	pid_t child;

	outcome = (struct outcome){ .result = -2 };
	ck_assert_int_eq(pipe2(to, O_CLOEXEC), 0);
	child = fork();
	ck_assert_int_ne(child, -1);
	if (child == 0) {
		if (prepare != NULL && prepare() == -1)
			_exit(1);
		outcome.result = privileges_drop(privileges);
		outcome.error = errno;
		outcome.dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
		outcome.are_root = privileges_are_root();
		read_status(&outcome);
		_exit(write(to[1], &outcome, sizeof outcome) == sizeof outcome ? 0 : 2);
	}
	close(to[1]);
	while (used < sizeof outcome &&
	       (len = read(to[0], (char *)&outcome + used, sizeof outcome - used)) > 0)
		used += (size_t)len;
	close(to[0]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert_uint_eq(used, sizeof outcome);
	return outcome;
}

/* A line of /proc/self/status, its blanks made single spaces. */
static const char *
line(const struct outcome *outcome, const char *name)
{
	static char value[256];
	char label[32];
	const char *from;
	size_t n = 0;

	snprintf(label, sizeof label, "\n%s:", name);
	from = strstr(outcome->status, label);
	ck_assert_ptr_nonnull(from);
	for (from += strlen(label); *from != '\n' && *from != '\0'; from++) {
		if (*from != '\t' && *from != ' ')
			value[n++] = *from;
		else if (n > 0 && value[n - 1] != ' ')
			value[n++] = ' ';
		ck_assert_uint_lt(n, sizeof value);
	}
	while (n > 0 && value[n - 1] == ' ')
		n--;
	value[n] = '\0';
	return value;
}

static void
expect_ids(const struct outcome *outcome, uid_t uid, gid_t gid)
{
	char expected[64];

	snprintf(expected, sizeof expected, "%u %u %u %u", uid, uid, uid, uid);
	ck_assert_str_eq(line(outcome, "Uid"), expected);
	snprintf(expected, sizeof expected, "%u %u %u %u", gid, gid, gid, gid);
	ck_assert_str_eq(line(outcome, "Gid"), expected);
}

static void
expect_powerless(const struct outcome *outcome)
{
	ck_assert_str_eq(line(outcome, "CapInh"), NO_CAPABILITY);
	ck_assert_str_eq(line(outcome, "CapPrm"), NO_CAPABILITY);
	ck_assert_str_eq(line(outcome, "CapEff"), NO_CAPABILITY);
	ck_assert_str_eq(line(outcome, "CapAmb"), NO_CAPABILITY);
	ck_assert_str_eq(line(outcome, "NoNewPrivs"), "1");
	ck_assert(!outcome->are_root);
}

static struct privileges
numbers_only(void)
{
	return (struct privileges){ .given = true, .uid = UID, .gid = GID };
}

/* As a login session of root would have it. */
static int
have_groups(void)
{
	static const gid_t groups[] = { 0, 4, 27, 1000 };

	return setgroups(sizeof groups / sizeof *groups, groups);
}

START_TEST(to_a_number)
{
	struct privileges privileges = numbers_only();
	struct outcome outcome = drop(have_groups, &privileges);

	ck_assert_int_eq(outcome.result, 0);
	expect_ids(&outcome, UID, GID);
	ck_assert_str_eq(line(&outcome, "Groups"), "54322");
	expect_powerless(&outcome);
	ck_assert_int_eq(outcome.dumpable, 0);
}
END_TEST

START_TEST(to_a_name_with_all_its_groups)
{
	struct privileges privileges;
	struct passwd somebody;
	gid_t groups[64];
	int n = 64, listed = 0;
	const char *why = "", *p;
	struct outcome outcome;
	char number[16];

	if (!find_somebody(&somebody))
		return;
	ck_assert_int_eq(privileges_find(somebody.pw_name, NULL, &privileges, &why), 0);
	outcome = drop(have_groups, &privileges);
	ck_assert_int_eq(outcome.result, 0);
	expect_ids(&outcome, somebody.pw_uid, somebody.pw_gid);
	expect_powerless(&outcome);
	ck_assert_int_ne(getgrouplist(somebody.pw_name, somebody.pw_gid, groups, &n), -1);
	for (p = line(&outcome, "Groups"); *p != '\0'; p += strspn(p, " ")) {
		size_t len = strcspn(p, " ");
		bool found = false;

		for (int i = 0; i < n; i++) {
			snprintf(number, sizeof number, "%u", groups[i]);
			found |= strlen(number) == len && strncmp(number, p, len) == 0;
		}
		ck_assert_msg(found, "a group too many: %s", p);
		listed++;
		p += len;
	}
	ck_assert_int_eq(listed, n);
	free(somebody.pw_name);
}
END_TEST

/* Another user for a moment: what is that user's to open, no more; then root, all of it,
 * again.  In a child of its own: 0, or the number of what was wrong. */
static int
borrow(void)
{
	struct privileges privileges = numbers_only();
	struct privileges_loan loan;
	gid_t groups[8];
	int fd;

	if (have_groups() == -1 || privileges_borrow(&privileges, &loan) == -1)
		return 1;
	if (geteuid() != UID || getegid() != GID || getuid() != 0 ||
	    getgroups(8, groups) != 1 || groups[0] != GID)
		return 2;
	fd = open("/proc/sys/kernel/hostname", O_WRONLY | O_CLOEXEC);
	if (fd != -1 || access("/", W_OK) == -1) /* access(2) asks for the real user */
		return 3;
	if (privileges_return(&loan) == -1 || loan.taken)
		return 4;
	if (geteuid() != 0 || getegid() != 0 || getgroups(8, groups) != 4 || groups[3] != 1000)
		return 5;
	return privileges_drop(&privileges) == 0 && geteuid() == UID ? 0 : 6;
}

START_TEST(a_user_for_a_moment)
{
	pid_t child = fork();
	int status;

	ck_assert_int_ne(child, -1);
	if (child == 0)
		_exit(borrow());
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

static int
keep_capabilities(void)
{
	return prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP | SECBIT_KEEP_CAPS, 0, 0, 0);
}

START_TEST(securebits_do_not_help_to_keep_capabilities)
{
	struct privileges privileges = numbers_only();
	struct outcome outcome = drop(keep_capabilities, &privileges);

	ck_assert_int_eq(outcome.result, 0);
	expect_ids(&outcome, UID, GID);
	expect_powerless(&outcome);
}
END_TEST

START_TEST(root_without_a_user_stays_root)
{
	struct privileges nobody = { .given = false };
	struct outcome outcome = drop(NULL, NULL);

	ck_assert_int_eq(outcome.result, 0);
	expect_ids(&outcome, 0, 0);
	ck_assert_str_eq(line(&outcome, "NoNewPrivs"), "1");
	ck_assert(outcome.are_root);
	outcome = drop(NULL, &nobody);
	ck_assert_int_eq(outcome.result, 0);
	expect_ids(&outcome, 0, 0);
	ck_assert_str_eq(line(&outcome, "NoNewPrivs"), "1");
}
END_TEST

static int
be_ordinary(void)
{
	gid_t gid = GID;

	return setgroups(1, &gid) == 0 && setresgid(GID, GID, GID) == 0 &&
			       setresuid(UID, UID, UID) == 0
		       ? 0
		       : -1;
}

/* Root in one id only: what a careless set-user-id leaves. */
static int
be_half(void)
{
	return setresgid(GID, GID, GID) == 0 && setresuid(UID, UID, 0) == 0 ? 0 : -1;
}

START_TEST(who_is_that_user_already)
{
	struct privileges privileges = numbers_only();
	struct outcome outcome = drop(be_ordinary, &privileges);

	ck_assert_int_eq(outcome.result, 0);
	expect_ids(&outcome, UID, GID);
	expect_powerless(&outcome);
}
END_TEST

START_TEST(who_is_somebody_else)
{
	struct privileges privileges = numbers_only();
	struct outcome outcome;

	privileges.uid++;
	outcome = drop(be_ordinary, &privileges);
	ck_assert_int_eq(outcome.result, -1);
	ck_assert_int_eq(outcome.error, EPERM);
	expect_ids(&outcome, UID, GID);

	privileges = numbers_only();
	privileges.gid++;
	outcome = drop(be_ordinary, &privileges);
	ck_assert_int_eq(outcome.result, -1);
	ck_assert_int_eq(outcome.error, EPERM);

	privileges = numbers_only();
	outcome = drop(be_half, &privileges);
	ck_assert_int_eq(outcome.result, -1);
	ck_assert_int_eq(outcome.error, EPERM);
}
END_TEST

/* As started with AmbientCapabilities=CAP_NET_BIND_SERVICE. */
static int
have_ambient(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == -1 || be_ordinary() == -1)
		return -1;
	sets[0].effective = sets[0].permitted = sets[0].inheritable = 1U << CAP_NET_BIND_SERVICE;
	if (syscall(SYS_capset, &header, sets) == -1)
		return -1;
	return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0);
}

START_TEST(a_capability_for_low_ports_is_not_passed_on)
{
	struct privileges privileges = numbers_only();
	struct outcome outcome = drop(have_ambient, &privileges);

	ck_assert_int_eq(outcome.result, 0);
	ck_assert_str_eq(line(&outcome, "CapAmb"), NO_CAPABILITY);
	ck_assert_str_eq(line(&outcome, "CapEff"), "0000000000000400");
	ck_assert_str_eq(line(&outcome, "NoNewPrivs"), "1");
}
END_TEST

START_TEST(anybody_gets_no_new_privileges)
{
	struct outcome outcome = drop(NULL, NULL);

	ck_assert_int_eq(outcome.result, 0);
	ck_assert_str_eq(line(&outcome, "NoNewPrivs"), "1");
	ck_assert(outcome.are_root == (geteuid() == 0));
}
END_TEST

/* ------------------------------------------------------------------------- */

static Suite *
privileges_suite(void)
{
	Suite *s = suite_create("privileges");
	TCase *find = tcase_create("find"), *dropping = tcase_create("drop");

	tcase_add_test(find, nobody_to_become);
	tcase_add_test(find, names_that_do_not_exist);
	tcase_add_test(find, root_is_nobody_to_become);
	tcase_add_test(find, numbers);
	tcase_add_test(find, names_have_their_own_group);
	suite_add_tcase(s, find);
	tcase_add_test(dropping, anybody_gets_no_new_privileges);
	if (geteuid() == 0) {
		tcase_add_test(dropping, to_a_number);
		tcase_add_test(dropping, to_a_name_with_all_its_groups);
		tcase_add_test(dropping, a_user_for_a_moment);
		tcase_add_test(dropping, securebits_do_not_help_to_keep_capabilities);
		tcase_add_test(dropping, root_without_a_user_stays_root);
		tcase_add_test(dropping, who_is_that_user_already);
		tcase_add_test(dropping, who_is_somebody_else);
		tcase_add_test(dropping, a_capability_for_low_ports_is_not_passed_on);
	} else {
		printf("# not root: 7 tests of privileges_drop are left out\n");
	}
	suite_add_tcase(s, dropping);
	return s;
}

int
main(void)
{
	return unit_run(privileges_suite());
}
