/*
 * account: what the sinks of one name have done since the start.
 *
 * It outlives them: a reload that changes a sink's settings opens another one beside
 * it, and both count here.  Any thread adds, once for each batch; any thread reads.
 */
#ifndef SINKS_ACCOUNT_H
#define SINKS_ACCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Bounds of the histogram of delivery times, in microseconds; past the last one there
 * is a bucket more. */
#define ACCOUNT_BOUNDS 15
extern const uint32_t account_bounds[ACCOUNT_BOUNDS];

struct account {
	struct account *next;
	char *name;
	bool in_use;            /* some configuration with it has been in force */
	_Atomic uint64_t given; /* messages; those not answered yet wait */
	_Atomic uint64_t accepted, refused, failed;
	_Atomic uint64_t retried; /* tried again after a temporary failure */
	_Atomic uint64_t seconds[ACCOUNT_BOUNDS + 1]; /* messages by the time to their answer ... */
	_Atomic uint64_t microseconds;                /* ... and the sum of that */
};

struct account *account_new(const char *name); /* NULL: no memory */
void account_free(struct account *account);

/* So many messages have been answered, so many microseconds after they were whole. */
void account_time(struct account *account, uint64_t count, uint64_t microseconds);

static inline void
account_add(_Atomic uint64_t *to, uint64_t n)
{
	atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

static inline uint64_t
account_get(const _Atomic uint64_t *of)
{
	return atomic_load_explicit(of, memory_order_relaxed);
}

#endif
