/*
 * worker: a thread that turns an event loop.
 *
 * It knows nothing of what happens on the loop.  Whatever is put on its base is
 * put there before worker_start, or by items posted to its inbox.
 */
#ifndef WORKER_H
#define WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/inbox.h"

struct event_base;

struct worker {
	unsigned number; /* from 0 */
	struct event_base *base;
	struct inbox inbox;
	pthread_t thread;
	bool started;
	atomic_bool ended;            /* the loop turns no more */
	struct inbox *parent;         /* told when the loop has come to its end, ... */
	struct inbox_item ended_item; /* ... by this item */
};

/* -1: errno */
int worker_open(struct worker *worker, unsigned number, struct inbox *parent,
		void (*ended)(struct inbox_item *item));
int worker_start(struct worker *worker);

/* Ends the loop; from its own thread. */
void worker_end(struct worker *worker);

/* Waits for the thread and frees all; what is on the base must be gone. */
void worker_join(struct worker *worker);
void worker_close(struct worker *worker);

#endif
