/*
 * rate: bytes a second, for a connection and for all of a listener.
 *
 * A bucket earns so many bytes a second and holds at most a quarter of a second's
 * worth, so that over any ten seconds no more than 2.5 % over the limit is read.
 *
 * Who finds too few reserves a small share of what will be earned, behind all that is
 * reserved already, and waits until that is due.  So shares come due in the order in
 * which they were asked for, whichever connection and whichever worker asked: all who
 * wait have one turn after another, and nobody is passed over.  A wait ends at a point
 * in time that is known when it begins; nobody looks again and again.
 *
 * A bucket is one atomic number that any thread may take from; a pace belongs to its
 * connection's thread.
 */
#ifndef INTAKE_RATE_H
#define INTAKE_RATE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct rate {
	uint64_t rate;  /* bytes a second; 0: no limit */
	uint64_t burst; /* what it holds at the most */
	uint64_t start; /* clock_now's microseconds; it was full then */
	_Atomic uint64_t spent; /* of all that was ever earned, reserved shares included */
	unsigned references;    /* of listeners' groups that share it; the main thread's */
};

void rate_init(struct rate *rate, uint64_t bytes_a_second, uint64_t now);

/* A part of what a bucket earns: bytes that may be read from a point in time on. */
struct rate_share {
	uint64_t due;
	size_t bytes; /* 0: none is held */
};

/* What a connection may read. */
struct pace {
	struct rate own;
	struct rate *common; /* the listener's */
	struct rate_share own_share, common_share;
	uint64_t due; /* when pace_ask said 0: when to ask again */
};

/* NULL: no memory */
struct pace *pace_new(struct rate *common, uint64_t bytes_a_second, uint64_t now);
void pace_free(struct pace *pace); /* gives back what it holds; NULL is fine */

/* How many of so many bytes (at least 1) may be read now; 0: none before pace->due. */
size_t pace_ask(struct pace *pace, size_t want, uint64_t now);

/* So many were, of those that pace_ask allowed; the others are given back. */
void pace_spend(struct pace *pace, size_t bytes);

#endif
