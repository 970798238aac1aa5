/*
 * greeting: the TLS handshake of one connection (state greeting).
 *
 * It belongs to the connection and its worker's thread, but for the steps, which the
 * greeter does: while one is away (connection->away) only the greeter touches SSL and
 * descriptor.  A connection that ends meanwhile is dead at once, and keeps both until the
 * step has come home.
 *
 * A handshake that succeeds becomes a stream (tls_connection.h).  One that fails is
 * counted and logged with its reason, and the client is told by a reset.
 */
#ifndef INTAKE_GREETING_H
#define INTAKE_GREETING_H

struct connection;

#ifdef HAVE_OPENSSL

/* Begins to wait for the client's first word.  May find no memory for that; the
 * connection is then lost. */
void greeting_start(struct connection *connection);

/* It has taken too long. */
void greeting_late(struct connection *connection);

/* The connection is dead: frees all of it but the descriptor, or, while a step is away,
 * nothing: it will, and let the descriptor go with a reset, when that is home.  A step whose
 * turn has not come by then is passed over. */
void greeting_leave(struct connection *connection);

#else

/* Without OpenSSL there is none. */
static inline void
greeting_start(struct connection *connection)
{
	(void)connection;
}

static inline void
greeting_late(struct connection *connection)
{
	(void)connection;
}

static inline void
greeting_leave(struct connection *connection)
{
	(void)connection;
}

#endif

#endif
