/*
 * census: how many messages lie in each spool, by their state.
 *
 * Counted by a thread of its own, for a directory may hold millions: never more often
 * than every ten seconds, and so that it is at work 5 % of the time at the most.  What
 * is told is what was counted last; a spool that has not been counted yet is left out.
 */
#ifndef STATUS_CENSUS_H
#define STATUS_CENSUS_H

#include <stddef.h>
#include <stdint.h>

struct config;

enum census_state { CENSUS_NEW, CENSUS_FAILED, CENSUS_HOLD, CENSUS_DONE, CENSUS_STATES };

const char *census_state_name(enum census_state state); /* and of its directory */

struct census;

struct census *census_open(void); /* starts the thread; NULL: errno */
void census_close(struct census *census); /* NULL is fine */

/* The spools of a configuration; -1: no memory, and those before go on. */
int census_set(struct census *census, const struct config *config);

/* Calls each with the spools' counts that are known; counts anew if they are old. */
void census_tell(struct census *census,
		 void (*each)(const char *sink, const uint64_t counts[CENSUS_STATES], void *arg),
		 void *arg);

#endif
