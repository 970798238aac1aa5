/*
 * connection: one client, from accept to close.
 *
 * It outlives its messages: a batch points to its origin, so a connection whose
 * network side is gone stays until its last batch has come home.  Freeing it
 * discards a message in progress.  It belongs to its worker's thread.
 *
 *   preface    (behind a proxy) waits for the header that names its client
 *   greeting   speaks, but sends no bytes of its own yet: the TLS handshake, whose steps
 *              another thread does
 *   open       reads, frames, delivers
 *   ending     takes no more; waits for the sinks' answers and for its replies
 *              to leave
 *   lingering  all is said; what the client still sends is read and dropped, so
 *              that no reset of ours destroys what it has not read yet
 *   dead       the network side is gone; waits for the sinks, or for a step of its
 *              handshake
 *
 * preface.c and greeting.c hold what precedes, connection.c its life, receive.c and feed.c
 * the way in, reply.c the way out, timeout.c what it owes us by when, tls_connection.c what
 * is different with TLS.
 */
#ifndef INTAKE_CONNECTION_H
#define INTAKE_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/deadline.h"
#include "base/log.h"
#include "framing/framing.h"
#include "intake/counters.h"
#include "message/message.h"

struct body;
struct bufferevent;
struct event;
struct greeting;
struct intake;
struct listener;
struct pace;
struct preface;

enum connection_state {
	CONNECTION_PREFACE,
	CONNECTION_GREETING,
	CONNECTION_OPEN,
	CONNECTION_ENDING,
	CONNECTION_LINGERING,
	CONNECTION_DEAD,
};

struct connection {
	struct origin origin;
	struct listener *listener;
	struct connection *next, **previous; /* of the intake */
	struct connection *starved_next; /* or buried */
	struct bufferevent *bev; /* NULL until the first wait */
	union {
		struct greeting *greeting; /* in CONNECTION_GREETING, with TLS, or away */
		struct chunk *rest;        /* later on: read but not framed yet */
	};
	uint32_t rest_at, rest_len;
	struct body *body; /* of the message in progress, as far as it is kept */
	struct framing_state framing;
	struct batch *flight, **flight_last; /* batches that the sinks have */
	union {
		struct preface *preface; /* in CONNECTION_PREFACE */
		struct pace *pace;       /* later on; NULL: no rate_limit */
	};
	struct deadline deadline;
	uint64_t opened;
	uint64_t heard;        /* when bytes came last, or reading was taken up again */
	uint64_t begun;        /* when the message in progress began; 0: none */
	uint64_t paused_since; /* 0: reading */
	uint64_t bytes;
	uint64_t raw; /* bytes of TLS records, when timeouts looked last */
	uint64_t messages;
	uint32_t in_flight;     /* messages that the sinks have ... */
	uint32_t held;          /* ... and bytes of them in memory */
	size_t unsent;          /* bytes of replies that the client does not take, ... */
	size_t charged;         /* ... of which so many are charged to memory */
	int fd;
	uint8_t state;
	uint8_t last_words; /* enum outcome: what ended the stream; ACCEPTED: nothing to say */
	bool broken : 1;     /* reset; the error has been taken, so that read(2) says 0 now */
	bool fin : 1;        /* the client's FIN has been read */
	bool reading : 1;    /* the bufferevent reads */
	bool unaccepted : 1; /* something was not accepted: the close is a reset */
	bool mapped : 1;     /* among the unsent bytes are mapped files, which are no memory of ours */
	bool told : 1;       /* replies have been written */
	bool dropped : 1;    /* bytes were read and thrown away: past the end, or lingering */
	bool buried : 1;     /* on its way to connection_free */
	bool starved : 1;    /* waits for memory */
	bool large : 1;      /* sends large messages, faster than they are read */
	bool paced : 1;      /* waits for its share of rate_limit */
	bool away : 1;       /* the greeter has a step of the handshake */
	bool tls : 1;        /* the bufferevent is one for TLS; see tls_connection.h */
	bool cut : 1;        /* the TLS stream has ended without close_notify */
	bool waving : 1;     /* our close_notify does not fit into the socket yet */
};

/* Takes over an accepted descriptor.  Closes it (with a reset) when that fails. */
void connection_open(struct listener *listener, int fd, const struct net_address *peer);

/* The preface, if it had one, is over, and its address has a place: goes on with the TLS
 * handshake where the listener has TLS, else with the first read. */
void connection_greet(struct connection *connection);

/* Turned away before that: counted and logged, and reset. */
void connection_refuse(struct connection *connection, enum refusal why, const char *text);

/* The client's own bytes begin: the handshake is done. */
void connection_begin(struct connection *connection);

/* They never will, for the handshake has failed.  The client is told by a reset, after
 * what it was sent has had time to arrive. */
void connection_turn_away(struct connection *connection);

/* It was dead already, and the step of its handshake that it has waited for is home: the
 * descriptor goes now, and its place with it. */
void connection_step_home(struct connection *connection);

/* The stream is at its end and all in it was whole: no more is read. */
void connection_end(struct connection *connection);

/* The stream cannot go on: what is in progress is discarded (or put aside),
 * counted and logged by its reason, the client is told by words (where it gets
 * receipts) and by a reset. */
void connection_fail(struct connection *connection, enum ended reason, const char *why);

/* The network side is gone, or has to go at once. */
void connection_lost(struct connection *connection, const char *why);

/* The same where a TLS stream has ended without close_notify, so that anybody may have
 * cut it: what is in progress is incomplete. */
void connection_cut(struct connection *connection);

/* The same for want of memory, logged as that. */
void connection_out_of_memory(struct connection *connection);

/* Looks what is due next: ends what can end.  May free the connection's network
 * side, never the connection itself. */
void connection_advance(struct connection *connection);

/* No bytes are wanted for now; a reset is noticed all the same (timeout.c looks
 * for it now and then: epoll tells of errors whether asked or not, and libevent
 * passes them on to readers and writers only, so that watching alone would spin). */
void connection_pause(struct connection *connection);
void connection_resume(struct connection *connection);

/* The pause is over, as far as the client's time goes; reading is not on yet. */
void connection_unpause(struct connection *connection);

/* The bufferevent, made when it is first needed.  False: there was no memory for
 * one, and the connection is lost. */
bool connection_buffer(struct connection *connection);

/* Takes over a bufferevent, whose callbacks are set. */
void connection_adopt(struct connection *connection, struct bufferevent *bev);

/* The worker is to stop: ends where no message is in progress. */
void connection_stop(struct connection *connection);

/* Whether a lingering connection can go. */
void connection_linger(struct connection *connection, uint64_t now);

/* From one state into a later one. */
void connection_enter(struct connection *connection, enum connection_state state);

/* Whether part of a message has been received. */
bool connection_in_progress(const struct connection *connection);

/* For the intake. */
void connection_free(struct connection *connection);

/* A line about it, with further fields (log.h) or none.  Costs a comparison when the level
 * is not logged. */
#define connection_log(level, event, connection, ...) \
	connection_log_with(level, event, connection, NULL, __VA_ARGS__)
#define connection_log_with(level, event, connection, fields, ...)             \
	do {                                                                   \
		if (log_enabled(level))                                        \
			connection_say(level, event, connection, fields, __VA_ARGS__); \
	} while (0)
void connection_say(enum log_level level, const char *event, const struct connection *connection,
		    const struct log_field *fields, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

/* receive.c */

/* Reads and frames what there is, in fair measure. */
void receive_run(struct connection *connection);

/* The same at accept: one read, so that a flood of connections is accepted. */
void receive_first(struct connection *connection);

/* feed.c */

/* The beginning of a message in progress that has no body yet: bytes of the chunk
 * that is being read into, up to where the next read goes. */
struct feed_tail {
	const unsigned char *bytes;
	size_t len; /* 0: there is none */
};

/* Frames len bytes at `at` in the chunk (NULL and 0: none), which lie behind the tail,
 * and leaves the new one there; tail NULL: what is unfinished goes to a body.  last: the
 * stream ends with them, in the manner of `how`.  May end the connection. */
void feed_bytes(struct connection *connection, struct chunk *chunk, size_t at, size_t len,
		struct feed_tail *tail, bool last, enum ended how);

/* The next read will not lie behind the tail: it becomes (part of) a body. */
void feed_settle(struct connection *connection, struct chunk *chunk, struct feed_tail *tail);

/* Silence has ended an eof message (quiet_timeout). */
void feed_quiet(struct connection *connection);

/* The message in progress will not go on: what its framing holds back, as the beginning
 * of its end, is the last of its bytes.  Without memory nothing is left of it. */
void feed_held_back(struct connection *connection);

/* Hands what is there of an unfinished message to the sink for such. */
void feed_put_aside(struct connection *connection, enum ended reason);

/* Moves the message in progress out of memory.  0, or -1 with errno. */
int feed_spill(struct connection *connection);

/* timeout.c */

/* Sets the connection's timer to what is due first. */
void timeout_schedule(struct connection *connection);
void timeout_on_deadline(struct deadline *deadline);

/* When a lingering connection ends. */
uint64_t timeout_lingering(const struct connection *connection);

/* reply.c */

/* The item of a batch that has come home. */
void reply_on_answer(struct inbox_item *item);

/* Says why the stream ended, where the client gets receipts. */
void reply_last_words(struct connection *connection);

/* Replies have left; keeps the account of those that have not. */
void reply_on_drained(struct connection *connection);
size_t reply_unsent(const struct connection *connection);

/* Past so many unsent bytes of replies nothing more is read. */
#define REPLY_UNSENT_MOST 262144

#endif
