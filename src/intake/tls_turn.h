/*
 * tls_turn: the socket under TLS, a turn at a time.
 *
 * OpenSSL goes on reading for as long as what comes is none of the client's own bytes:
 * changes of keys, handshakes that are not wanted, empty records.  One client that sends
 * nothing else would have the worker for itself.
 */
#ifndef INTAKE_TLS_TURN_H
#define INTAKE_TLS_TURN_H

#include <stdbool.h>

struct ssl_st;

/* Before the first session, on the main thread; more than once does no harm.  False: no
 * memory. */
bool tls_turn_open(void);

/* Gives a session its socket.  After so many reads it says once that there is nothing to
 * be had for now; the socket is still readable, and says so when the others have had their
 * turn.  False: no memory. */
bool tls_turn_set(struct ssl_st *ssl, int fd);

#endif
