/*
 * intake: what one worker takes in: its listeners and their connections.
 *
 * Everything here belongs to the worker's thread from worker_start on; the main
 * thread speaks to it through the worker's inbox (intake_stop, intake_change).
 */
#ifndef INTAKE_INTAKE_H
#define INTAKE_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/inbox.h"
#include "intake/greeter.h"
#include "intake/listener.h"
#include "message/id.h"

struct connection;
struct evbuffer;
struct event;
struct worker;

/* Messages that one batch carries at the most. */
#define INTAKE_BATCH 1024

/* How far a stop has come.  The worker ends when its last connection has. */
enum intake_stop {
	INTAKE_RUNS,
	INTAKE_STOP,  /* accepts no more; messages in progress may finish */
	INTAKE_ABORT, /* messages in progress are discarded, their senders told */
	INTAKE_KILL,  /* all connections end at once */
};

/* Deliveries to one sink that are handed over together. */
struct outbox {
	struct sink *sink;
	struct delivery *first, **last;
	unsigned count;
	unsigned messages; /* in them */
};

/* A configuration on its way to a worker: all that it needs to take it over, so that
 * this cannot fail. */
struct change {
	struct inbox_item item; /* to the worker ... */
	struct inbox_item done; /* ... and back, when it has taken over; run is the sender's */
	struct intake *intake;
	struct listener **listeners; /* the worker's, of the new configuration */
	size_t n_listeners;
	struct outbox *outboxes; /* more than the worker had; then those that it had; or NULL */
	size_t n_outboxes;
};

struct intake {
	struct worker *worker;
	struct greeter greeter; /* see intake_greeter */
	struct deadlines deadlines;
	struct id_generator ids;
	struct message *scratch; /* INTAKE_BATCH + 1 messages being framed */
	struct outbox *outboxes; /* one a sink, by its number */
	size_t n_outboxes;
	struct event *hand_over;  /* when what the loop has found ready is seen to */
	struct evbuffer *replies; /* being written */
	struct listener *listeners; /* of all configurations */
	struct reads *reads;        /* what they read into, by size */
	struct connection *connections;
	size_t n_connections;
	struct connection *buried; /* closed, to be freed when the loop comes round */
	struct event *burial;
	struct connection *starved; /* wait for memory, in turn */
	struct connection **starved_last;
	struct event *hunger; /* looks whether there is memory again */
	struct event *summary; /* says what the dampers held back */
	uint64_t relieved; /* when it last spilled to make room */
	enum intake_stop stop;
	_Atomic int stop_wanted; /* enum intake_stop, set by the main thread */
	struct inbox_item stop_item;
	atomic_bool stop_posted;
	struct inbox_item relieve_item;
	atomic_bool relieve_posted;
	struct intake *siblings; /* all workers' intakes, this one included */
	unsigned n_siblings;
};

/* Prepares a worker's intake, without listeners.  Before the worker runs.  -1 with errno. */
int intake_open(struct intake *intake, struct worker *worker, struct intake *siblings,
		unsigned n_siblings);

/* What a change is made of: 0, or -1 for want of memory.  Main thread.  Then it is posted
 * to a worker that runs, or taken over here and now for one that does not yet. */
int intake_change_open(struct change *change, struct intake *intake, size_t n_listeners,
		       size_t n_sinks, void (*done)(struct inbox_item *item));
void intake_change_close(struct change *change);
void intake_change_post(struct change *change);
void intake_change_make(struct change *change);

/* Frees it, after the worker has ended. */
void intake_close(struct intake *intake);

/* From the main thread; may be called again with a higher level. */
void intake_stop(struct intake *intake, enum intake_stop level);

/* Who does its TLS handshakes, where there is TLS: one greeter for two workers, so that
 * handshakes never have all processors. */
struct greeter *intake_greeter(struct intake *intake);

/* For connections: */
void intake_deliver(struct intake *intake, struct sink *sink, struct delivery *delivery);
void intake_bury(struct intake *intake, struct connection *connection);
void intake_starve(struct intake *intake, struct connection *connection);
void intake_unstarve(struct intake *intake, struct connection *connection);
void intake_relieve(struct intake *intake); /* spills what it can to make room */
void intake_damped(struct intake *intake);  /* a damper holds something back */

#endif
