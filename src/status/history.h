/*
 * history: the last ten minutes, a sample every two seconds.  Main thread.
 */
#ifndef STATUS_HISTORY_H
#define STATUS_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#define HISTORY_SAMPLES 300
#define HISTORY_INTERVAL 2 /* seconds */

struct counters;

struct history_sample {
	double messages; /* received a second */
	double bytes;    /* the same */
	double lost;     /* messages a second: discarded, refused or failed */
	uint64_t connections;
	uint64_t memory; /* bytes */
};

struct history {
	struct history_sample samples[HISTORY_SAMPLES]; /* a ring */
	size_t next, count;
	uint64_t looked; /* clock_now; 0: never */
	uint64_t received, bytes, lost;
};

/* Adds a sample of what has come since the last one; the first call adds none. */
void history_add(struct history *history, const struct counters *total, uint64_t memory,
		 uint64_t now);

/* From the oldest (0) on. */
const struct history_sample *history_sample(const struct history *history, size_t i);

#endif
