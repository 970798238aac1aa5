/*
 * valve: how much of what others have to say goes into the log.
 *
 * Belongs to one thread, or to whoever holds a lock.
 */
#ifndef SINKS_VALVE_H
#define SINKS_VALVE_H

#include <stdbool.h>
#include <stdint.h>

/* Says at most so many lines in ten seconds, and afterwards how many more there were. */
struct valve {
	unsigned most;
	unsigned said;
	uint64_t held;
	uint64_t since; /* 0: nothing said yet */
};

bool valve_pass(struct valve *valve, uint64_t now);
/* When there is a sum to say; 0: there is none. */
uint64_t valve_due(const struct valve *valve);
/* How many were held back; starts anew. */
uint64_t valve_sum(struct valve *valve);

#endif
