/*
 * tls: what the connections of a listener share for TLS: certificate, key and rules.
 *
 * Made from a listener's settings when it is opened, by the main thread, and not
 * changed any more, so that workers use it at the same time.  A new configuration
 * makes a new one; a connection keeps what it needs of the one that it began with.
 */
#ifndef INTAKE_TLS_H
#define INTAKE_TLS_H

#include <stddef.h>

#include "config/config.h"

#define TLS_ERROR_LEN 512

struct ssl_st;
struct tls_context;

#ifdef HAVE_OPENSSL

/* Loads the files.  NULL: error says which of them cannot be used, and why.  What is
 * questionable but works (a certificate that has expired) is logged. */
struct tls_context *tls_context_new(const struct config_tls *config, char error[TLS_ERROR_LEN]);
void tls_context_free(struct tls_context *context); /* NULL is fine; any thread */

/* The same for a listener that is opened: a new one each time, so that certificates are
 * read anew, or none where it has no TLS.  0, or an exit code, having logged why. */
int tls_open(struct tls_context **context, const struct config_listener *listener);

/* What a connection speaks with, waiting for the client's first word; NULL: no memory.
 * Any thread. */
struct ssl_st *tls_session(struct tls_context *context);

/* Loads the files of all listeners for nothing but their errors, which are printed as
 * "FILE:LINE: TEXT".  How many there are. */
size_t tls_check(const struct config *config, FILE *to);

/* The library that is used, for people; or that there is none. */
const char *tls_version(void);

#else

/* No configuration with TLS gets as far as this. */
static inline int
tls_open(struct tls_context **context, const struct config_listener *listener)
{
	(void)listener;
	*context = NULL;
	return 0;
}

static inline void
tls_context_free(struct tls_context *context)
{
	(void)context;
}

static inline size_t
tls_check(const struct config *config, FILE *to)
{
	(void)config;
	(void)to;
	return 0;
}

static inline const char *
tls_version(void)
{
	return "without TLS";
}

#endif

#endif
