/*
 * queue: deliveries on their way from the workers to a writer thread.
 *
 * The writer takes all that waits at once, which is what makes a group commit.
 * Bounded by the workers: each connection has at most max_in_flight messages
 * under way, and all together stay within memory_limit.
 */
#ifndef SINKS_QUEUE_H
#define SINKS_QUEUE_H

#include <pthread.h>
#include <stdbool.h>

struct delivery;

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct delivery *first;
	struct delivery **last;
	bool waiting; /* the writer sleeps */
	bool closed;
	bool reopen;
};

int queue_init(struct queue *queue);
void queue_clear(struct queue *queue);
void queue_put(struct queue *queue, struct delivery *delivery);

/* Waits for something to do.  Returns the chain of all deliveries that wait, in
 * order; NULL with *closed once queue_close was called and none is left; NULL
 * without it when only *reopen is set.  *reopen: queue_reopen was called. */
struct delivery *queue_take(struct queue *queue, bool *reopen, bool *closed);
void queue_reopen(struct queue *queue);
void queue_close(struct queue *queue);

#endif
