/*
 * limits: how many connections a listener has, over all workers, in all and
 * from each address.
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
	uint64_t most;             /* 0: no limit */
	uint64_t most_per_address; /* 0: no limit */
	_Atomic uint64_t active;
	pthread_mutex_t lock; /* of the table below */
	struct limits_entry **table;
	size_t n_buckets;
	size_t n_entries;
};

/* -1: no memory */
int limits_init(struct limits *limits, uint64_t most, uint64_t most_per_address);
void limits_clear(struct limits *limits);

/* A place for one more connection, or not.  Any thread. */
bool limits_take(struct limits *limits);
void limits_give(struct limits *limits);

/* The same for its address; local (unix) peers are not counted. */
bool limits_take_address(struct limits *limits, const struct net_address *peer);
void limits_give_address(struct limits *limits, const struct net_address *peer);

#endif
