/*
 * greeter: the thread that does the arithmetic of TLS handshakes for two workers.
 *
 * A step of a handshake takes up to a millisecond of processor time, and a worker's loop
 * has others to serve: a plain client beside 250 handshakes a second waited three times
 * as long as alone (p99, docs/RELIABILITY.md).  So steps are done here, one after the
 * other, in the order in which they were posted.  Without TLS there is no greeter.
 */
#ifndef INTAKE_GREETER_H
#define INTAKE_GREETER_H

#include <pthread.h>
#include <stdbool.h>

struct inbox_item;

struct greeter {
	bool started; /* the rest is in use; the main thread's to look at */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct inbox_item *first, **last; /* under the lock, as is ... */
	bool ended;
};

/* Starts the thread where it does not run yet, named after a worker.  Main thread; workers
 * learn of it by a message (intake_change).  -1 with errno. */
int greeter_start(struct greeter *greeter, unsigned number);

/* Has item->run called in the greeter's thread.  Cannot fail.  Any thread. */
void greeter_post(struct greeter *greeter, struct inbox_item *item);

/* Waits until all that was posted has run, and ends the thread.  Main thread, when nobody
 * posts any more. */
void greeter_end(struct greeter *greeter);

#endif
