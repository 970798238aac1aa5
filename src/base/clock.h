/*
 * clock: the two times that cistern knows, and how it writes the one for people.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/* "2026-11-22T18:41:55.123456Z" and a NUL */
#define CLOCK_TEXT_LEN 27

/* Microseconds since 1970, UTC; steps when the clock is set. */
uint64_t clock_wall(void);

/* Microseconds since some moment; never steps. */
uint64_t clock_now(void);

/* Writes a wall time as of RFC 3339.  What lies past the year 9999 is written as
 * the last microsecond of it. */
void clock_rfc3339(uint64_t wall, char text[CLOCK_TEXT_LEN + 1]);

#endif
