/*
 * link: a client's connection, plain or TLS, to a host or a local socket.
 *
 * Nothing blocks but link_open and link_wait, and those no longer than they are
 * told.  Whatever ends the process early resets the connection (SO_LINGER): an
 * orderly close, which would say that a message is complete, comes from
 * link_finish alone.
 */
#ifndef TOOL_LINK_H
#define TOOL_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tool/target.h"

struct ssl_st;
struct ssl_ctx_st;

#define LINK_WHY_MAX 512

struct link_tls {
	bool on;
	bool insecure; /* takes any certificate */
	const char *ca;
	const char *certificate;
	const char *key;
	const char *name; /* to ask for and to find in the certificate; NULL: the host */
};

struct link {
	int fd;
	bool local;
	bool temporary;  /* what failed may be well another time */
	bool said_bye;	 /* a close_notify is out */
	short wants_read;  /* poll(2)'s events, when the last read, write or finish said ... */
	short wants_write; /* ... LINK_AGAIN */
	struct ssl_st *ssl;
	struct ssl_ctx_st *tls;
	char why[LINK_WHY_MAX]; /* of the last failure */
};

enum { LINK_FAILED = -1, LINK_AGAIN = -2 };

/* 0, or an exit status: EX_NOHOST, EX_UNAVAILABLE, EX_TEMPFAIL, EX_PROTOCOL, EX_NOINPUT, EX_OSERR.
 * A timeout of 0: none. */
int link_open(struct link *link, const struct target *target, const struct link_tls *tls,
	      uint64_t timeout);

/* How many bytes, LINK_FAILED or LINK_AGAIN; of a read also 0: closed in order. */
ssize_t link_read(struct link *link, void *bytes, size_t len);
ssize_t link_write(struct link *link, const void *bytes, size_t len);

/* Says that there is no more to come.  0, LINK_FAILED or LINK_AGAIN. */
int link_finish(struct link *link);

/* 1: one of the events, 0: the time (microseconds, 0: none) is over, -1. */
int link_wait(struct link *link, short events, uint64_t timeout);

/* After an orderly close by both sides: whether no reset came behind it. */
bool link_is_settled(struct link *link);

/* With a reset, unless both sides have closed. */
void link_close(struct link *link);

/* For link.c alone; in link_tls.c. */
int link_tls_open(struct link *link, const struct target *target, const struct link_tls *tls,
		  uint64_t until);
ssize_t link_tls_read(struct link *link, void *bytes, size_t len);
ssize_t link_tls_write(struct link *link, const void *bytes, size_t len);
int link_tls_finish(struct link *link);
void link_tls_close(struct link *link);

/* Microseconds that are left until a moment of clock_now (0: none); at least one. */
uint64_t link_left(uint64_t until);

#endif
