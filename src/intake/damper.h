/*
 * damper: keeps a flood of like events from flooding the log.
 *
 * The first few of a kind are said one by one; further ones within the
 * interval are only counted, and the count is said at its end.
 */
#ifndef INTAKE_DAMPER_H
#define INTAKE_DAMPER_H

#include <stdbool.h>
#include <stdint.h>

#define DAMPER_LINES 5           /* of a kind, said one by one ... */
#define DAMPER_INTERVAL 10000000 /* ... in so many microseconds */

struct damper {
	uint64_t since;
	uint64_t held; /* counted, not said */
	unsigned said;
};

/* Whether to say it now.  The caller sees to it that damper_sum is called
 * DAMPER_INTERVAL later once this has returned false. */
bool damper_pass(struct damper *damper, uint64_t now);

/* How many were held back; forgets them. */
uint64_t damper_sum(struct damper *damper);

#endif
