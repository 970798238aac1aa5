/*
 * counters: what a listener has done on one worker.
 *
 * Written by that worker alone, read by anyone: a plain addition in memory
 * that other threads may look at.  Sums over workers are made on reading.
 */
#ifndef INTAKE_COUNTERS_H
#define INTAKE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#include "message/message.h"

/* Why a connection was turned away before a byte was read. */
enum refusal {
	REFUSAL_ADDRESS_LIMIT,
	REFUSAL_MEMORY,
	REFUSAL_SHUTDOWN,
	REFUSAL_ACCESS, /* by allow and deny */
	REFUSAL_PROXY,  /* no PROXY header from who must send one, or one from who must not */
	REFUSAL_COUNT,
};

/* The reason word of metrics: "address-limit", "memory", ... */
const char *refusal_name(enum refusal refusal);

/* Why TLS with a client failed, mostly in its handshake. */
enum tls_failure {
	TLS_FAILURE_TIMEOUT,
	TLS_FAILURE_CLOSED,
	TLS_FAILURE_NOT_TLS,
	TLS_FAILURE_PROTOCOL,
	TLS_FAILURE_NO_CERTIFICATE,
	TLS_FAILURE_BAD_CERTIFICATE,
	TLS_FAILURE_COUNT,
};

typedef _Atomic uint64_t counter;

/* Messages by size: up to 64 bytes, up to 256, and so on by fours up to 256 MiB, and
 * what is larger. */
#define COUNTERS_SIZES 13
#define COUNTERS_SIZE_BOUND(i) (UINT64_C(64) << 2 * (i))

/* received = accepted + refused + failed + in flight; discarded ones were never
 * whole and so never received. */
struct counters {
	counter connections;
	counter connections_refused[REFUSAL_COUNT];
	counter connections_active;
	counter bytes;
	counter received;
	counter accepted;
	counter refused;
	counter failed;
	counter in_flight;
	counter discarded[ENDED_COUNT];
	counter accept_errors;
	counter tls_failed[TLS_FAILURE_COUNT];
	counter sizes[COUNTERS_SIZES]; /* of messages received ... */
	counter size_sum;              /* ... and their bytes */
};

static inline void
counter_add(counter *c, uint64_t n)
{
	atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

static inline void
counter_subtract(counter *c, uint64_t n)
{
	counter_add(c, (uint64_t)0 - n);
}

/* The place of a message among sizes. */
static inline unsigned
counters_size(uint64_t size)
{
	unsigned width = 64 - (unsigned)__builtin_clzll((size - (size != 0)) | 63);

	return width >= 5 + 2 * COUNTERS_SIZES ? COUNTERS_SIZES - 1 : (width - 5) / 2;
}

static inline uint64_t
counter_get(const counter *c)
{
	return atomic_load_explicit(c, memory_order_relaxed);
}

#endif
