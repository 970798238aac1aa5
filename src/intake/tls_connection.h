/*
 * tls_connection: a connection whose bytes are encrypted.
 *
 * It begins with a handshake (state greeting), during which its bufferevent is
 * libevent's for OpenSSL.  That also reads: what it has decrypted waits in its input,
 * up to a record, and is taken from there.  All of this belongs to the worker's thread.
 */
#ifndef INTAKE_TLS_CONNECTION_H
#define INTAKE_TLS_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>

struct connection;

enum tls_goodbye {
	TLS_GOODBYE_SAID,
	TLS_GOODBYE_WAITS, /* the socket takes nothing for now */
	TLS_GOODBYE_FAILED,
};

#ifdef HAVE_OPENSSL

/* Begins the handshake.  May find no memory for that; the connection is then lost. */
void tls_connection_start(struct connection *connection);

/* What the bufferevent tells during the handshake. */
void tls_connection_greeted(struct connection *connection, short what, int error);

/* The handshake has taken too long. */
void tls_connection_late(struct connection *connection);

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
tls_connection_start(struct connection *connection)
{
	(void)connection;
}

static inline void
tls_connection_greeted(struct connection *connection, short what, int error)
{
	(void)connection;
	(void)what;
	(void)error;
}

static inline void
tls_connection_late(struct connection *connection)
{
	(void)connection;
}

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
