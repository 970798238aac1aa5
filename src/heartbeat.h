/*
 * heartbeat: whether the workers' loops turn.
 *
 * A worker is asked by an item in its inbox, and answers when its loop comes to
 * it.  Nothing ticks here by itself: it costs something only where somebody asks
 * (a watchdog, a health check).  Main thread.
 */
#ifndef HEARTBEAT_H
#define HEARTBEAT_H

#include <stdbool.h>
#include <stdint.h>

struct heartbeat_beat;
struct worker;

struct heartbeat {
	struct heartbeat_beat *beats; /* one a worker */
	unsigned count;
};

/* -1 with errno.  The workers must be there until heartbeat_close, which comes
 * after they have ended. */
int heartbeat_open(struct heartbeat *heartbeat, struct worker *workers, unsigned count);
void heartbeat_close(struct heartbeat *heartbeat);

/* Asks every worker that owes no answer. */
void heartbeat_ask(struct heartbeat *heartbeat);

/* Whether none owes an answer for so many microseconds.  The log names the one that
 * does, once until it answers again.  A worker that has ended owes nothing. */
bool heartbeat_ok(struct heartbeat *heartbeat, uint64_t patience);

#endif
