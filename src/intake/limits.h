/*
 * limits: how many connections a listener has, over all workers, in all and
 * from each address.
 *
 * They outlive the listener: after a reload the connections of the old one count
 * under the new maxima.
 */
#ifndef INTAKE_LIMITS_H
#define INTAKE_LIMITS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/net.h"

struct limits_entry;

struct limits {
	_Atomic uint64_t most;             /* 0: no limit */
	_Atomic uint64_t most_per_address; /* 0: no limit */
	_Atomic uint64_t active;
	pthread_mutex_t lock; /* of the table below */
	struct limits_entry **table;
	size_t n_buckets;
	size_t n_entries;
};

void limits_init(struct limits *limits);
void limits_clear(struct limits *limits);

/* Makes room for counting addresses, so that limits_set cannot fail; -1: no memory. */
int limits_reserve(struct limits *limits);
void limits_set(struct limits *limits, uint64_t most, uint64_t most_per_address);

/* A place for one more connection, or not.  Any thread. */
bool limits_take(struct limits *limits);
void limits_take_anyway(struct limits *limits);
void limits_give(struct limits *limits);

/* The same for its address; local (unix) peers are not counted.  After limits_reserve,
 * and to be given only if it was taken. */
bool limits_take_address(struct limits *limits, const struct net_address *peer);
void limits_give_address(struct limits *limits, const struct net_address *peer);

#endif
