/*
 * subject: templates that are refused, what is filled in, and patterns.
 */
#include <stdlib.h>
#include <string.h>

#include "message/subject.h"
#include "unit.h"

START_TEST(test_check)
{
	static const char *const good[] = {"a", "intake.{listener}", "{peer}", "a.x-{listener}-{peer}.b",
					   "a.{peer}.{peer}.{peer}.{peer}", "A_b-c:d"};
	static const char *const bad[] = {"", ".", ".a", "a.", "a..b", "a b", "a\tb", "a.*", "a.>", "*",
					  "$SYS.a", "{", "}", "a{}", "{id}", "{listener", "\xc3\xa4",
					  "{peer}{peer}{peer}{peer}{peer}", "a\x7f"};
	char longest[SUBJECT_TEMPLATE_MAX + 2];
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert_msg(subject_check(good[i]) == NULL, "%s", good[i]);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(subject_check(bad[i]) != NULL, "%s", bad[i]);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	ck_assert_ptr_nonnull(subject_check(longest));
	longest[sizeof(longest) - 2] = '\0';
	ck_assert_ptr_null(subject_check(longest));
}
END_TEST

static void
check_fill(const char *template, const char *listener, const char *peer, const char *expected)
{
	char subject[SUBJECT_SIZE];

	ck_assert_ptr_null(subject_check(template));
	subject_fill(template, listener, peer, subject);
	ck_assert_str_eq(subject, expected);
}

START_TEST(test_fill)
{
	check_fill("a", "x", "unix", "a");
	check_fill("in.{listener}", "main", "192.0.2.1:5", "in.main");
	check_fill("{peer}", "main", "192.0.2.1:5", "192_0_2_1");
	check_fill("{peer}.x", "main", "[2001:db8::1]:5", "2001_db8__1.x");
	check_fill("{peer}.x", "main", "[fe80::1%eth0]:5", "fe80__1_eth0.x");
	check_fill("{peer}", "main", "unix", "unix");
	check_fill("{peer}", "main", "unix:123", "unix");
	check_fill("{listener}", "a*b.c>d e\n", "unix", "a_b_c_d_e_");
	check_fill("{listener}", "", "unix", "_");
	check_fill("x-{listener}-{peer}", "l", "10.0.0.1:1", "x-l-10_0_0_1");
}
END_TEST

/* Whatever is filled in, the subject fits, and has as many tokens as its template. */
START_TEST(test_fill_any)
{
	char template[SUBJECT_TEMPLATE_MAX + 1], value[200], subject[SUBJECT_SIZE];
	size_t n;

	memset(template, 'a', sizeof(template) - 1);
	memcpy(template, "{listener}{listener}{peer}{peer}.", 33);
	template[sizeof(template) - 1] = '\0';
	ck_assert_ptr_null(subject_check(template));
	for (int round = 0; round < 1000; round++) {
		for (n = 0; n < sizeof(value) - 1; n++)
			value[n] = (char)(1 + rand() % 255);
		value[n] = '\0';
		subject_fill(template, value, value, subject);
		ck_assert_uint_lt(strlen(subject), SUBJECT_SIZE);
		ck_assert_ptr_null(subject_check(subject + strcspn(subject, ".") + 1));
		ck_assert_uint_eq(strspn(subject, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
						  "0123456789-_."), strlen(subject));
		ck_assert_ptr_eq(strchr(subject, '.'), strrchr(subject, '.'));
	}
}
END_TEST

START_TEST(test_pattern)
{
	static const struct {
		const char *template, *pattern;
	} cases[] = {{"a", "a"}, {"a.{listener}", "a.*"}, {"{peer}.b", "*.b"}, {"a.x{peer}y.b", "a.*.b"}};
	char pattern[SUBJECT_SIZE];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		subject_pattern(cases[i].template, pattern);
		ck_assert_str_eq(pattern, cases[i].pattern);
	}
}
END_TEST

START_TEST(test_matches)
{
	ck_assert(subject_matches("a", "a"));
	ck_assert(subject_matches("a.b", "a.b"));
	ck_assert(subject_matches("a.*", "a.b"));
	ck_assert(subject_matches("*.b", "a.b"));
	ck_assert(subject_matches(">", "a"));
	ck_assert(subject_matches("a.>", "a.b.c"));
	ck_assert(!subject_matches("a", "b"));
	ck_assert(!subject_matches("a", "a.b"));
	ck_assert(!subject_matches("a.b", "a"));
	ck_assert(!subject_matches("a.*", "a"));
	ck_assert(!subject_matches("a.*", "a.b.c"));
	ck_assert(!subject_matches("a.>", "a"));
	ck_assert(!subject_matches("a.b", "a.bc"));
	ck_assert(!subject_matches("a.bc", "a.b"));
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("subject");
	TCase *tcase = tcase_create("subject");

	tcase_add_test(tcase, test_check);
	tcase_add_test(tcase, test_fill);
	tcase_add_test(tcase, test_fill_any);
	tcase_add_test(tcase, test_pattern);
	tcase_add_test(tcase, test_matches);
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
