/*
 * Tests of base/clock: RFC 3339 against the C library's calendar.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "unit.h"

static void
expect(uint64_t wall, const char *text)
{
	char found[CLOCK_TEXT_LEN + 1];

	clock_rfc3339(wall, found);
	if (strcmp(found, text) != 0)
		ck_abort_msg("%s instead of %s", found, text);
}

START_TEST(known_times)
{
	expect(0, "1970-01-01T00:00:00.000000Z");
	expect(1, "1970-01-01T00:00:00.000001Z");
	expect(UINT64_C(951782399999999), "2000-02-28T23:59:59.999999Z");
	expect(UINT64_C(951782400000000), "2000-02-29T00:00:00.000000Z");
	expect(UINT64_C(1795372915123456), "2026-11-22T18:41:55.123456Z");
	expect(UINT64_C(4107542400000000), "2100-03-01T00:00:00.000000Z");
	expect(UINT64_C(253402300799999999), "9999-12-31T23:59:59.999999Z");
	expect(UINT64_C(253402300800000000), "9999-12-31T23:59:59.999999Z");
	expect(UINT64_MAX, "9999-12-31T23:59:59.999999Z");
}
END_TEST

/* Every day to the end of the year 2500, and a coarse walk to 9999. */
START_TEST(agrees_with_gmtime)
{
	uint64_t step = 86400;

	for (uint64_t second = 0; second < UINT64_C(253402300800); second += step) {
		time_t t = (time_t)second;
		struct tm tm;
		char text[96];

		if (second > UINT64_C(16756675200))
			step = 86400 * 17 + 12345;
		ck_assert_ptr_nonnull(gmtime_r(&t, &tm));
		snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.000007Z", tm.tm_year + 1900,
			 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
		expect(second * 1000000 + 7, text);
	}
}
END_TEST

START_TEST(clocks_run)
{
	uint64_t start = clock_now(), wall = clock_wall();
	time_t seconds = time(NULL);

	while (clock_now() == start)
		;
	ck_assert_uint_gt(clock_now(), start);
	ck_assert_uint_le(wall / 1000000, (uint64_t)seconds + 2);
	ck_assert_uint_ge(wall / 1000000 + 2, (uint64_t)seconds);
}
END_TEST

static Suite *
clock_suite(void)
{
	Suite *s = suite_create("clock");
	TCase *tc = tcase_create("clock");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, known_times);
	tcase_add_test(tc, agrees_with_gmtime);
	tcase_add_test(tc, clocks_run);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(clock_suite());
}
