/*
 * queue: deliveries on their way from the workers to writer threads.
 *
 * The writer takes all that waits at once, which is what makes a group commit.
 * Bounded by the workers: each connection has at most max_in_flight messages
 * under way, and all together stay within memory_limit.
 */
#ifndef SINKS_QUEUE_H
#define SINKS_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct delivery;

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct delivery *first;
	struct delivery **last;
	unsigned sleepers; /* writers that wait */
	bool closed;
	bool reopen;
	unsigned patience; /* milliseconds; 0: for ever */
	uint64_t turns;    /* chains taken so far */
};

int queue_init(struct queue *queue);
void queue_clear(struct queue *queue);

/* Adds a chain of deliveries. */
void queue_put(struct queue *queue, struct delivery *first);

/* Waits for something to do.  Returns the chain of deliveries that wait, in order (of
 * at most `most` messages, but one delivery at least; 0: all); NULL with *closed once
 * queue_close was called and none is left; NULL without it when only *reopen is set, or
 * when nothing came for the time of queue_patience.  *reopen: queue_reopen was called
 * (one writer is told).  Several writers may take from one queue. */
struct delivery *queue_take(struct queue *queue, unsigned most, bool *reopen, bool *closed);

/* The same for writers who have to know their order: *turn is the chain's number, from 1
 * on and without gaps. */
struct delivery *queue_take_turn(struct queue *queue, unsigned most, bool *reopen, bool *closed,
				 uint64_t *turn);

/* How long writers wait from now on, so that those in trouble can see whether it is
 * over when nobody sends.  Milliseconds; 0: for ever. */
void queue_patience(struct queue *queue, unsigned patience);
void queue_reopen(struct queue *queue);
void queue_close(struct queue *queue);

#endif
