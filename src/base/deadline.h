/*
 * deadline: many points in time, one timer.
 *
 * A binary heap of entries that live inside what they belong to, under one
 * libevent timer.  An entry costs 24 bytes where an event of libevent's costs
 * 128, which is what an idle connection must not.  Belongs to one thread.
 */
#ifndef BASE_DEADLINE_H
#define BASE_DEADLINE_H

#include <stddef.h>
#include <stdint.h>

struct event;
struct event_base;

struct deadline {
	uint64_t when; /* clock_now's microseconds */
	size_t slot;   /* place in the heap plus one; 0: not set */
};

struct deadlines {
	struct deadline **heap;
	size_t count;
	size_t room;
	uint64_t armed; /* what the timer is set to; 0: not at all */
	struct event *timer;
	void (*due)(struct deadline *deadline); /* no longer set when it is called */
};

/* Makes libevent's heap of a new base large enough that event_add of its timers does not
 * fail for want of memory, as it never shrinks: what waits for a timer that could not be
 * armed would wait for ever.  -1: no memory. */
int deadlines_reserve_timers(struct event_base *base);

/* -1: no memory */
int deadlines_open(struct deadlines *deadlines, struct event_base *base,
		   void (*due)(struct deadline *deadline));
void deadlines_close(struct deadlines *deadlines);

/* Room for so many entries, so that deadline_set cannot fail; -1: no memory. */
int deadlines_reserve(struct deadlines *deadlines, size_t count);

/* Sets or moves. */
void deadline_set(struct deadlines *deadlines, struct deadline *deadline, uint64_t when);
void deadline_clear(struct deadlines *deadlines, struct deadline *deadline);

#endif
