/*
 * nats_flight: the messages of a nats sink that are under way, from when they are begun to
 * their end; what the sink (nats.c) and they share.
 */
#ifndef SINKS_NATS_FLIGHT_H
#define SINKS_NATS_FLIGHT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "sinks/nats_claim.h"
#include "sinks/nats_link.h"
#include "sinks/nats_message.h"
#include "sinks/sink.h"

#define NATS_WINDOW 2048

/* A delivery of which some messages are in flight. */
struct nats_work {
	struct delivery *delivery;
	unsigned begun;
	unsigned flying;
	unsigned n_failed;
	unsigned n_refused;
	struct nats_work *next; /* free, or to be answered */
};

/* A message that is in flight. */
struct nats_flight {
	struct nats_work *work; /* NULL: free */
	struct message *message;
	uint64_t number; /* in the order in which they came */
	uint64_t token;	 /* what its answers are known by */
	uint64_t due;	 /* when it is to be sent, again or at last */
	uint64_t nobody; /* when it was answered that nobody takes it; 0: it was not */
	unsigned epoch;	 /* of the link, when it was sent last */
	unsigned sent;	 /* how often it may have gone out, ... */
	unsigned references; /* ... and a reference in its place */
	unsigned oversized;  /* of the others, how many the stream found too large */
	bool busy;	 /* the sink's thread is at it: answers wait */
	bool answered;	 /* `answer` is there for the sink's thread to take */
	bool claimed;	 /* its bytes are in the spool, ... */
	bool found;	 /* ... and were before */
	bool too_large;	 /* the stream said so: its bytes are to go there */
	struct nats_answer answer;
};

struct nats {
	struct sink *sink;
	struct nats_link *link; /* its lock guards all that follows */
	pthread_t thread;
	bool started;
	struct delivery *first; /* not begun */
	struct delivery **last;
	bool closed;
	bool sleeping; /* the thread is, for want of work or room */
	struct nats_work *works, *free_works, *head;
	struct nats_flight *flights;
	unsigned *free_flights;
	unsigned n_free;
	uint64_t bytes; /* in flight */
	uint64_t numbers;
	uint64_t next_look; /* at all that is in flight */

	/* The thread's own. */
	unsigned *due; /* flights that are to be sent, in order */
	unsigned n_due;
	unsigned at_due;
	struct nats_claim claim;
	bool has_claim;
	struct nats_draft draft;
};

static inline unsigned
nats_flying(const struct nats *n)
{
	return NATS_WINDOW - n->n_free;
}

/* An answer has come; without the lock. */
void nats_flight_answered(struct sink *sink, uint64_t token, const struct nats_answer *answer);

/* The rest is the sink's thread's, with the lock held, which is given up meanwhile. */

/* Takes the next message that has not been begun into flight; NULL: there is none, or no
 * room. */
struct nats_flight *nats_flight_begin(struct nats *n);

/* Sends a message, for the first time or again. */
void nats_flight_publish(struct nats *n, struct nats_flight *flight, struct nats_work **done);

/* Looks at all that is in flight: answers that were left, times that are over, what has to
 * be sent again (then in n->due). */
void nats_flight_look(struct nats *n, uint64_t now, struct nats_work **done);

uint64_t nats_flight_deadline(const struct nats *n, const struct batch *batch);

/* Without the lock: answers what is done. */
void nats_flight_answer_all(struct nats *n, struct nats_work *done);

/* Says that the sink fails, and why. */
void nats_flight_fail(struct nats *n, const char *why);

#endif
