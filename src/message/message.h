/*
 * message: what a client sent, once its framing says that it is whole.
 *
 * The messages that one connection completes in one wake-up travel together in
 * a batch: one allocation, one hand-over to each sink, one answer.  A batch is
 * made, answered and freed by the worker that owns its connection; in between
 * the sinks of its listener read it, all at once and each from its own thread,
 * and write nothing but the messages' outcomes (message_settle).
 */
#ifndef MESSAGE_MESSAGE_H
#define MESSAGE_MESSAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/buffer.h>

#include "base/inbox.h"
#include "base/net.h"
#include "message/id.h"

struct body;
struct chunk;
struct sink;

/* What became of a message, from good to final: of the answers of several
 * sinks the greatest stands. */
enum outcome {
	OUTCOME_ACCEPTED,
	OUTCOME_UNAVAILABLE, /* the temporary failures: RETRY ... */
	OUTCOME_STORAGE,
	OUTCOME_SHUTDOWN,
	OUTCOME_TIMEOUT,
	OUTCOME_TOO_LARGE, /* the final ones: REJECT ... */
	OUTCOME_MALFORMED,
	OUTCOME_INCOMPLETE,
	OUTCOME_REFUSED,
};

/* The reason word of receipts, log and metrics: "accepted", "unavailable", ... */
const char *outcome_name(enum outcome outcome);
bool outcome_is_temporary(enum outcome outcome);

/* How a message ended; from ENDED_RESET on it is incomplete. */
enum ended {
	ENDED_FIN,
	ENDED_FRAME,
	ENDED_QUIET,
	ENDED_RESET,
	ENDED_TIMEOUT,
	ENDED_TOO_LARGE,
	ENDED_MALFORMED,
	ENDED_INCOMPLETE,
	ENDED_SHUTDOWN,
	ENDED_STORAGE, /* it could not be spilled */
	ENDED_MEMORY,  /* the machine has none left */
	ENDED_COUNT,
};

const char *ended_name(enum ended ended); /* "fin", "frame", "quiet", "reset", ... */
enum outcome ended_outcome(enum ended ended); /* what the sender of an incomplete one is told */

/* Where messages come from.  Part of their connection, which outlives them. */
struct origin {
	uint64_t connection;     /* its number, unique in this process */
	const char *listener;    /* name, owned by the configuration */
	const char *tls_subject; /* NULL: none */
	struct net_address *local; /* where it came to; NULL: no sink wants to know */
	struct net_address peer;
};

struct message {
	struct id id;
	const unsigned char *data; /* its bytes, when body is NULL */
	uint64_t size;
	struct body *body; /* where they do not lie in one piece of memory */
	enum ended ended;
	_Atomic uint8_t outcome; /* enum outcome */
};

/* A batch's place in the queue of one sink. */
struct delivery {
	struct delivery *next;
	struct batch *batch;
	struct sink *sink;
};

struct batch {
	struct inbox_item item; /* brings the answer home ... */
	struct inbox *home;     /* ... to the worker it came from */
	struct batch *next;     /* in flight on the same connection, in order */
	const struct origin *origin;
	struct chunk *chunk;   /* holds the messages' data; NULL: it follows the batch itself */
	uint64_t time;         /* when they were complete: microseconds since 1970, UTC */
	uint64_t since;        /* when the sinks' time began: clock_now */
	size_t charged;        /* bytes of memory accounted for */
	uint32_t held;         /* bytes of messages that lie in memory */
	atomic_uint pending;   /* sinks that have not answered yet */
	atomic_bool mixed;     /* some message was not accepted by some sink */
	bool answered;         /* all have; set and read by the worker */
	bool incomplete;       /* goes to the sink for what was cut short; never answered to the client */
	unsigned n_bodies;     /* messages that have one */
	unsigned count;        /* of messages, at least 1 */
	unsigned n_deliveries;
	struct delivery *deliveries; /* one a sink */
	struct message *messages;
};

/* A batch of copies of count messages for n_deliveries sinks, charged to memory.
 * Where chunk is NULL, the messages' data (which then all lies between `from` and
 * `to`) is copied along; otherwise the chunk is referred to.  NULL: no memory,
 * nothing has changed.  Worker. */
struct batch *batch_new(const struct message *messages, unsigned count, unsigned n_deliveries,
			struct chunk *chunk, const unsigned char *from, const unsigned char *to);

/* Frees it, its messages' bodies and its hold on the chunk.  Worker. */
void batch_free(struct batch *batch);

/* One sink fewer to wait for; the last one sends the batch home.  Any thread. */
void batch_answered(struct batch *batch);

/* A sink's verdict on one message; the worst of all sinks' stands.  Any thread. */
void message_settle(struct message *message, enum outcome outcome);

/* The bytes of a message, piece by piece, whatever holds them. */
struct cursor {
	const struct message *message;
	uint64_t at;
	struct evbuffer_ptr place; /* in the body's memory */
};

void cursor_start(struct cursor *cursor, const struct message *message);

/* Points *piece at the next bytes and returns how many (0: the end; -1: they
 * could not be read back, errno is set).  Bytes that lie in a file are read into
 * scratch, so a piece is good until the next call.  Any thread, many at once. */
ptrdiff_t cursor_next(struct cursor *cursor, const unsigned char **piece, void *scratch,
		      size_t scratch_size);

#endif
