/*
 * tls_connection: a connection whose bytes are encrypted.
 *
 * Once the handshake is done (greeting.h) its bufferevent is libevent's for OpenSSL.  That
 * also reads: what it has decrypted waits in its input, up to a record, and is taken from
 * there.  All of this belongs to the worker's thread.
 */
#ifndef INTAKE_TLS_CONNECTION_H
#define INTAKE_TLS_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>

#include "intake/counters.h"

struct connection;
struct ssl_st;

enum tls_goodbye {
	TLS_GOODBYE_SAID,
	TLS_GOODBYE_WAITS, /* the socket takes nothing for now */
	TLS_GOODBYE_FAILED,
};

#ifdef HAVE_OPENSSL

/* The stream begins; ssl, whose handshake is done, is the connection's.  False: there was
 * no memory for it, and the connection is lost. */
bool tls_connection_open(struct connection *connection, struct ssl_st *ssl);

/* Counts and logs a failure, once a connection. */
void tls_connection_say(struct connection *connection, enum tls_failure failure, const char *text);

/* Of OpenSSL's errors: whether it is the end of the file, and its words. */
bool tls_is_eof(unsigned long code);
const char *tls_words(unsigned long code);

/* The client's close_notify has come; we may still write. */
void tls_connection_half_close(struct connection *connection);

/* The bufferevent has told of an error; `error` is errno.  True: the stream is cut off
 * where it is, without the client's close_notify.  False: the socket has failed. */
bool tls_connection_is_cut(struct connection *connection, int error);

/* Decrypted bytes, as many as there are and fit. */
size_t tls_connection_take(struct connection *connection, void *bytes, size_t room);

/* Whether there are any to take. */
bool tls_connection_has(const struct connection *connection);

/* Whether part of a record has come, and of a message, for all that anybody can tell. */
bool tls_connection_within(const struct connection *connection);

/* Whether more of that has come since it was asked last: nothing else tells of bytes that
 * cannot be decrypted yet. */
bool tls_connection_moves(struct connection *connection);

/* Whether there is any of this, with a look at what has come meanwhile. */
bool tls_connection_unread(struct connection *connection);

/* Sends our close_notify, once: the client may believe that all was accepted. */
enum tls_goodbye tls_connection_goodbye(struct connection *connection);

/* Frees the bufferevent and what belongs to it, but not the descriptor. */
void tls_connection_drop(struct connection *connection);

#else

/* Without OpenSSL no connection is one of these. */
static inline void
tls_connection_half_close(struct connection *connection)
{
	(void)connection;
}

static inline bool
tls_connection_is_cut(struct connection *connection, int error)
{
	(void)connection;
	(void)error;
	return false;
}

static inline size_t
tls_connection_take(struct connection *connection, void *bytes, size_t room)
{
	(void)connection;
	(void)bytes;
	(void)room;
	return 0;
}

static inline bool
tls_connection_has(const struct connection *connection)
{
	(void)connection;
	return false;
}

static inline bool
tls_connection_within(const struct connection *connection)
{
	(void)connection;
	return false;
}

static inline bool
tls_connection_moves(struct connection *connection)
{
	(void)connection;
	return false;
}

static inline bool
tls_connection_unread(struct connection *connection)
{
	(void)connection;
	return false;
}

static inline enum tls_goodbye
tls_connection_goodbye(struct connection *connection)
{
	(void)connection;
	return TLS_GOODBYE_FAILED;
}

static inline void
tls_connection_drop(struct connection *connection)
{
	(void)connection;
}

#endif

#endif
