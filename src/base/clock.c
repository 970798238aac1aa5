/*
 * clock: microseconds, and RFC 3339 without strftime.
 *
 * Nothing here can fail: Linux always has both clocks.  Each thread remembers
 * the last second that it has written, since most times follow one another
 * closely.
 */
#include "base/clock.h"

#include <string.h>
#include <time.h>

#define SECOND 1000000U
#define DAY_SECONDS 86400U
#define YEAR_10000 253402300800U /* the first second of it */

#define SECOND_LEN 19 /* "2026-11-22T18:41:55" */

static uint64_t
read_clock(clockid_t id)
{
	struct timespec ts = { 0, 0 };

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec / 1000;
}

static void
put_digits(char *to, unsigned value, int digits)
{
	while (digits-- > 0) {
		to[digits] = (char)('0' + value % 10);
		value /= 10;
	}
}

/* The date of a day since 1970-01-01.  Years are counted from March, so that the
 * leap day is the last of its year and the months' lengths follow a line: the
 * first day of month m (March is 0) is (153 * m + 2) / 5. */
static void
put_date(char *to, uint32_t day)
{
	uint32_t since = day + 719468;        /* days since 0000-03-01 */
	uint32_t cycle = since / 146097;      /* of 400 years */
	uint32_t in_cycle = since % 146097;
	uint32_t leaps = in_cycle / 1460 - in_cycle / 36524 + in_cycle / 146096;
	uint32_t year = (in_cycle - leaps) / 365;
	uint32_t in_year = in_cycle - (365 * year + year / 4 - year / 100);
	uint32_t month = (5 * in_year + 2) / 153;
	uint32_t in_month = in_year - (153 * month + 2) / 5;

	year += 400 * cycle;
	if (month >= 10)
		year++;
	put_digits(to, year, 4);
	put_digits(to + 5, month < 10 ? month + 3 : month - 9, 2);
	put_digits(to + 8, in_month + 1, 2);
}

static void
put_second(char *to, uint64_t second)
{
	uint32_t in_day = (uint32_t)(second % DAY_SECONDS);

	memcpy(to, "0000-00-00T00:00:00", SECOND_LEN);
	put_date(to, (uint32_t)(second / DAY_SECONDS));
	put_digits(to + 11, in_day / 3600, 2);
	put_digits(to + 14, in_day / 60 % 60, 2);
	put_digits(to + 17, in_day % 60, 2);
}

uint64_t
clock_wall(void)
{
	return read_clock(CLOCK_REALTIME);
}

uint64_t
clock_now(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

void
clock_rfc3339(uint64_t wall, char text[CLOCK_TEXT_LEN + 1])
{
	static _Thread_local uint64_t last_second = UINT64_MAX;
	static _Thread_local char last_text[SECOND_LEN];
	uint64_t second = wall / SECOND;
	unsigned fraction = (unsigned)(wall % SECOND);

	if (second >= YEAR_10000) {
		second = YEAR_10000 - 1;
		fraction = SECOND - 1;
	}
	if (second != last_second) {
		put_second(last_text, second);
		last_second = second;
	}
	memcpy(text, last_text, SECOND_LEN);
	text[SECOND_LEN] = '.';
	put_digits(text + SECOND_LEN + 1, fraction, 6);
	text[CLOCK_TEXT_LEN - 1] = 'Z';
	text[CLOCK_TEXT_LEN] = '\0';
}
