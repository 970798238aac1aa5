/*
 * greeting: see greeting.h.
 *
 * OpenSSL reads and writes the socket itself (tls_turn.h).  Its queue of errors is the thread's, so
 * what it has to say of a step is kept in the greeting before the next one.
 */
#include "intake/greeting.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <event2/event.h>
#include <event2/event_struct.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/inbox.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "intake/tls.h"
#include "intake/tls_connection.h"
#include "intake/tls_turn.h"
#include "worker.h"

#define NO_MEMORY (-1) /* none of OpenSSL's SSL_ERROR_ */

struct greeting {
	struct inbox_item item; /* to the greeter, and home */
	struct connection *connection;
	SSL *ssl; /* NULL before the first step */
	atomic_bool given_up; /* the connection is dead: a step that has not begun is not to be done */
	struct event ready; /* the socket can be read, or written to */
	int wants;          /* after a step: SSL_ERROR_NONE: it is done; NO_MEMORY; ... */
	int error;          /* errno, ... */
	unsigned long code; /* and OpenSSL's first error that says something; 0: none */
};

static void greeting_on_home(struct inbox_item *item);

static struct greeting *
greeting_of(struct inbox_item *item)
{
	return (struct greeting *)((char *)item - offsetof(struct greeting, item));
}

/* In the greeter's thread. */
static void
greeting_free(struct inbox_item *item)
{
	struct greeting *g = greeting_of(item);

	SSL_free(g->ssl);
	ERR_clear_error();
	memory_free(g);
}

/* ---------------------------------------------------------------- failures */

static enum tls_failure
classify(unsigned long code)
{
	if (code == 0 || tls_is_eof(code))
		return TLS_FAILURE_CLOSED;
	if (ERR_GET_LIB(code) != ERR_LIB_SSL)
		return TLS_FAILURE_PROTOCOL;
	switch (ERR_GET_REASON(code)) {
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
	case SSL_R_WRONG_VERSION_NUMBER:
		return TLS_FAILURE_NOT_TLS;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
		return TLS_FAILURE_NO_CERTIFICATE;
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return TLS_FAILURE_BAD_CERTIFICATE;
	default:
		return TLS_FAILURE_PROTOCOL;
	}
}

static const char *
explain(const struct greeting *g, enum tls_failure failure)
{
	switch (failure) {
	case TLS_FAILURE_CLOSED:
		return g->error != 0 && g->code == 0 ? strerror(g->error)
						     : "the client has closed during the handshake";
	case TLS_FAILURE_NOT_TLS:
		return "what the client sends is not TLS; is it meant for a port without?";
	case TLS_FAILURE_BAD_CERTIFICATE:
		return X509_verify_cert_error_string(SSL_get_verify_result(g->ssl));
	default:
		return tls_words(g->code);
	}
}

/* The client is to see a reset: nothing was accepted.  But an alert may tell it why, if
 * the reset does not overtake that. */
static void
fail(struct connection *c)
{
	struct greeting *g = c->greeting;
	enum tls_failure failure = classify(g->code);
	const char *text = explain(g, failure);

	tls_connection_say(c, failure, text);
	if (failure == TLS_FAILURE_CLOSED) {
		connection_lost(c, text);
		return;
	}
	greeting_leave(c);
	connection_turn_away(c);
}

void
greeting_late(struct connection *c)
{
	static const char text[] = "no handshake within tls.handshake_timeout";

	tls_connection_say(c, TLS_FAILURE_TIMEOUT, text);
	connection_lost(c, text);
}

/* ----------------------------------------------------------------- success */

/* The client's name as RFC 2253 has it, in UTF-8, controls escaped.  -1: no memory. */
static int
read_subject(struct connection *c, SSL *ssl)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
	X509 *certificate = SSL_get1_peer_certificate(ssl);
#else
	X509 *certificate = SSL_get_peer_certificate(ssl);
#endif
	unsigned long flags = XN_FLAG_RFC2253 & ~(unsigned long)ASN1_STRFLGS_ESC_MSB;
	BIO *bio;
	char *text, *copy = NULL;
	long len;

	if (certificate == NULL)
		return 0;
	bio = BIO_new(BIO_s_mem());
	if (bio != NULL) {
		/* What is not the UTF-8 that it claims to be is shown byte by byte. */
		if (X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, flags) < 0) {
			(void)BIO_reset(bio);
			X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0,
					   (XN_FLAG_RFC2253 | ASN1_STRFLGS_ESC_MSB) &
						   ~(unsigned long)ASN1_STRFLGS_UTF8_CONVERT);
		}
		len = BIO_get_mem_data(bio, &text);
		copy = memory_alloc((size_t)len + 1);
		if (copy != NULL) {
			memcpy(copy, text, (size_t)len);
			copy[len] = '\0';
		}
	}
	BIO_free(bio);
	X509_free(certificate);
	ERR_clear_error();
	c->origin.tls_subject = copy;
	return copy == NULL ? -1 : 0;
}

static void
finish(struct connection *c)
{
	SSL *ssl = c->greeting->ssl;

	if (read_subject(c, ssl) == -1) {
		connection_out_of_memory(c);
		return;
	}
	connection_log(LOG_LEVEL_DEBUG, "tls-open", c, "%s, %s%s%s", SSL_get_version(ssl),
		       SSL_get_cipher_name(ssl), c->origin.tls_subject != NULL ? ", " : "",
		       c->origin.tls_subject != NULL ? c->origin.tls_subject : "");
	c->greeting->ssl = NULL; /* the stream's from here on */
	greeting_leave(c);
	if (tls_connection_open(c, ssl))
		connection_begin(c);
}

/* ------------------------------------------------------------------- steps */

static bool
make_session(struct greeting *g)
{
	struct connection *c = g->connection;

	g->ssl = tls_session(c->listener->group->tls);
	if (g->ssl != NULL && tls_turn_set(g->ssl, c->fd))
		return true;
	ERR_clear_error();
	g->wants = NO_MEMORY;
	return false;
}

static void
take_step(struct greeting *g)
{
	unsigned long code;
	int n;

	ERR_clear_error();
	errno = 0;
	n = SSL_accept(g->ssl);
	g->error = errno;
	g->wants = n == 1 ? SSL_ERROR_NONE : SSL_get_error(g->ssl, n);
	g->code = 0;
	while ((code = ERR_get_error()) != 0) /* the oldest comes first */
		if (g->code == 0 && ERR_GET_LIB(code) > ERR_LIB_NONE)
			g->code = code;
}

/* In the greeter's thread. */
static void
greeting_step(struct inbox_item *item)
{
	struct greeting *g = greeting_of(item);
	struct inbox *home = &g->connection->listener->intake->worker->inbox;

	/* Where more is asked for than can be done, the dead must not have the time of the living. */
	if (!atomic_load_explicit(&g->given_up, memory_order_relaxed) &&
	    (g->ssl != NULL || make_session(g)))
		take_step(g);
	g->item.run = greeting_on_home;
	inbox_post(home, &g->item);
}

static void
greeting_on_ready(evutil_socket_t fd, short what, void *arg)
{
	struct connection *c = arg;
	struct greeting *g = c->greeting;

	(void)fd;
	(void)what;
	c->away = true;
	g->item.run = greeting_step;
	greeter_post(intake_greeter(c->listener->intake), &g->item);
}

static void
wait_until(struct connection *c, short what)
{
	struct greeting *g = c->greeting;

	if (event_assign(&g->ready, c->listener->intake->worker->base, c->fd, what, greeting_on_ready,
			 c) == -1 || event_add(&g->ready, NULL) == -1)
		connection_out_of_memory(c);
}

static void
greeting_on_home(struct inbox_item *item)
{
	struct greeting *g = greeting_of(item);
	struct connection *c = g->connection;

	c->away = false;
	if (c->state == CONNECTION_DEAD) {
		greeting_leave(c);
		connection_step_home(c);
		return;
	}
	switch (g->wants) {
	case SSL_ERROR_NONE:
		finish(c);
		break;
	case NO_MEMORY:
		connection_out_of_memory(c);
		break;
	case SSL_ERROR_WANT_READ:
		wait_until(c, EV_READ);
		break;
	case SSL_ERROR_WANT_WRITE:
		wait_until(c, EV_WRITE);
		break;
	default:
		fail(c);
		break;
	}
}

void
greeting_start(struct connection *c)
{
	struct greeting *g = memory_alloc(sizeof(*g));

	if (g == NULL) {
		connection_out_of_memory(c);
		return;
	}
	*g = (struct greeting){.connection = c};
	c->greeting = g;
	wait_until(c, EV_READ);
	timeout_schedule(c);
}

void
greeting_leave(struct connection *c)
{
	struct greeting *g = c->greeting;

	if (g != NULL && c->away)
		atomic_store_explicit(&g->given_up, true, memory_order_relaxed);
	if (g == NULL || c->away)
		return;
	if (event_initialized(&g->ready))
		event_del(&g->ready);
	c->greeting = NULL;
	if (g->ssl == NULL) {
		memory_free(g);
		return;
	}
	g->item.run = greeting_free; /* takes as long as some steps */
	greeter_post(intake_greeter(c->listener->intake), &g->item);
}
