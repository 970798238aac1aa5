/*
 * tls_connection: see tls_connection.h.
 *
 * libevent reports the end of a stream before it hands over the bytes in front of it,
 * unless its callbacks are deferred; so they are.  Its input has a high watermark, and
 * at that it stops with the rest of a record decrypted inside OpenSSL, of which no
 * event will ever tell: whoever takes bytes takes those, too (tls_connection_take).
 *
 * OpenSSL's queue of errors belongs to the thread, not to the connection: whatever may
 * leave something in it empties it, or the next connection would be blamed.
 */
#include "intake/tls_connection.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/bufferevent_struct.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/clock.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "intake/tls.h"
#include "worker.h"

/* The most that waits decrypted: what, with libevent's head, fits into 16 KiB; a bit less
 * than a full record. */
#define INPUT_MOST (16384 - 256)

static SSL *
session(const struct connection *c)
{
	return bufferevent_openssl_get_ssl(c->bev);
}

/* ---------------------------------------------------------------- failures */

/* What libevent has kept of OpenSSL's errors: the first one that says something. */
static unsigned long
kept_error(struct bufferevent *bev)
{
	unsigned long code, found = 0;

	while ((code = bufferevent_get_openssl_error(bev)) != 0)
		if (ERR_GET_LIB(code) > ERR_LIB_NONE)
			found = code; /* the latest is given first */
	ERR_clear_error();
	return found;
}

static bool
is_eof(unsigned long code)
{
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
	if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
	    ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return true;
#endif
	(void)code;
	return false;
}

static enum tls_failure
classify(unsigned long code)
{
	if (code == 0 || is_eof(code))
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

/* Counts and logs it, once a connection. */
static void
say_failure(struct connection *c, enum tls_failure failure, const char *text)
{
	struct listener *l = c->listener;

	counter_add(&l->counters.tls_failed[failure], 1);
	if (damper_pass(&l->seat->tls_failures[failure], clock_now()))
		connection_log_with(LOG_LEVEL_WARNING, "tls-failed", c,
			       LOG_FIELDS(LOG_TEXT("reason", listener_tls_failure(failure))), "%s: %s", listener_tls_failure(failure),
			       text);
	else
		intake_damped(l->intake);
}

/* The words for a failed handshake. */
static const char *
explain(const struct connection *c, enum tls_failure failure, unsigned long code, int error)
{
	const char *words = code != 0 ? ERR_reason_error_string(code) : NULL;

	switch (failure) {
	case TLS_FAILURE_CLOSED:
		return error != 0 && code == 0 ? strerror(error)
					       : "the client has closed during the handshake";
	case TLS_FAILURE_NOT_TLS:
		return "what the client sends is not TLS; is it meant for a port without?";
	case TLS_FAILURE_BAD_CERTIFICATE:
		return X509_verify_cert_error_string(SSL_get_verify_result(session(c)));
	default:
		return words != NULL ? words : "OpenSSL does not say why";
	}
}

/* --------------------------------------------------------------- handshake */

/* The client's name as RFC 2253 has it, in UTF-8, controls escaped.  -1: no memory. */
static int
read_subject(struct connection *c)
{
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
	X509 *certificate = SSL_get1_peer_certificate(session(c));
#else
	X509 *certificate = SSL_get_peer_certificate(session(c));
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
open_stream(struct connection *c)
{
	SSL *ssl = session(c);

	if (read_subject(c) == -1) {
		connection_out_of_memory(c);
		return;
	}
	connection_log(LOG_LEVEL_DEBUG, "tls-open", c, "%s, %s%s%s", SSL_get_version(ssl),
		       SSL_get_cipher_name(ssl), c->origin.tls_subject != NULL ? ", " : "",
		       c->origin.tls_subject != NULL ? c->origin.tls_subject : "");
	connection_begin(c);
}

/* The client is to see a reset: nothing was accepted.  But an alert may tell it why, if
 * the reset does not overtake that. */
static void
fail_handshake(struct connection *c, enum tls_failure failure, const char *text)
{
	say_failure(c, failure, text);
	if (failure == TLS_FAILURE_CLOSED || failure == TLS_FAILURE_TIMEOUT) {
		connection_lost(c, text);
		return;
	}
	tls_connection_drop(c);
	connection_turn_away(c);
}

void
tls_connection_greeted(struct connection *c, short what, int error)
{
	enum tls_failure failure;
	unsigned long code;

	if ((what & BEV_EVENT_CONNECTED) != 0) {
		ERR_clear_error();
		open_stream(c);
	} else if ((what & (BEV_EVENT_ERROR | BEV_EVENT_EOF)) != 0) {
		code = kept_error(c->bev);
		failure = classify(code);
		fail_handshake(c, failure, explain(c, failure, code, error));
	}
}

void
tls_connection_late(struct connection *c)
{
	fail_handshake(c, TLS_FAILURE_TIMEOUT, "no handshake within tls.handshake_timeout");
}

void
tls_connection_start(struct connection *c)
{
	struct listener *l = c->listener;
	SSL *ssl = tls_session(l->group->tls);
	struct bufferevent *bev = NULL;
	uint64_t high = l->config->buffer_size;

	if (ssl != NULL && memory_stock())
		bev = bufferevent_openssl_socket_new(l->intake->worker->base, c->fd, ssl,
						     BUFFEREVENT_SSL_ACCEPTING,
						     BEV_OPT_DEFER_CALLBACKS);
	if (bev == NULL) {
		memory_stock_close();
		SSL_free(ssl);
		ERR_clear_error();
		connection_out_of_memory(c);
		return;
	}
	c->tls = true;
	bufferevent_setwatermark(bev, EV_READ, 0, high < INPUT_MOST ? (size_t)high : INPUT_MOST);
	connection_adopt(c, bev);
	memory_stock_close();
	timeout_schedule(c);
}

/* ------------------------------------------------------------------ stream */

bool
tls_connection_is_cut(struct connection *c, int error)
{
	unsigned long code = kept_error(c->bev);

	bufferevent_disable(c->bev, EV_READ);
	if (code == 0)
		return error == 0; /* older OpenSSL: the end of the file, without a word */
	if (!is_eof(code) && !c->cut)
		say_failure(c, TLS_FAILURE_PROTOCOL, explain(c, TLS_FAILURE_PROTOCOL, code, error));
	return true;
}

void
tls_connection_half_close(struct connection *c)
{
	/* libevent has stopped to write, too; and it would read again once its input falls
	 * below the watermark. */
	bufferevent_disable(c->bev, EV_READ);
	if (reply_unsent(c) > 0 && bufferevent_enable(c->bev, EV_WRITE) == -1)
		connection_out_of_memory(c);
}

bool
tls_connection_has(const struct connection *c)
{
	return evbuffer_get_length(bufferevent_get_input(c->bev)) > 0 || SSL_pending(session(c)) > 0;
}

size_t
tls_connection_take(struct connection *c, void *bytes, size_t room)
{
	struct evbuffer *input = bufferevent_get_input(c->bev);
	SSL *ssl = session(c);
	size_t len = 0;
	int n;

	if (evbuffer_get_length(input) > 0) {
		n = evbuffer_remove(input, bytes, room);
		len = n > 0 ? (size_t)n : 0;
	}
	while (len < room && evbuffer_get_length(input) == 0 && SSL_pending(ssl) > 0) {
		n = SSL_read(ssl, (char *)bytes + len, (int)(room - len)); /* at most 16 MiB */
		ERR_clear_error();
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	return len;
}

bool
tls_connection_within(const struct connection *c)
{
	SSL *ssl = session(c);

	/* Its head and no more is told by the state alone. */
	return !c->fin && (SSL_has_pending(ssl) == 1 || strcmp(SSL_rstate_string(ssl), "RB") == 0);
}

bool
tls_connection_moves(struct connection *c)
{
	uint64_t raw = BIO_number_read(SSL_get_rbio(session(c)));
	bool more = raw != c->raw;

	c->raw = raw;
	return more && tls_connection_within(c);
}

bool
tls_connection_unread(struct connection *c)
{
	SSL *ssl = session(c);
	char byte;
	int n;

	if (tls_connection_has(c) || tls_connection_within(c))
		return true;
	/* At the end of the file OpenSSL would be of no more use, not even for our
	 * close_notify: it only gets to see what is there. */
	if (c->fin || c->broken || ioctl(c->fd, FIONREAD, &n) == -1 || n == 0)
		return false;
	n = SSL_peek(ssl, &byte, 1);
	if (n <= 0 && SSL_get_error(ssl, n) == SSL_ERROR_ZERO_RETURN)
		c->fin = true;
	ERR_clear_error();
	return n > 0 || tls_connection_within(c);
}

enum tls_goodbye
tls_connection_goodbye(struct connection *c)
{
	SSL *ssl = session(c);
	int n, error;

	if ((SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN) != 0 && !c->waving)
		return TLS_GOODBYE_SAID;
	n = SSL_shutdown(ssl);
	error = n < 0 ? SSL_get_error(ssl, n) : SSL_ERROR_NONE;
	ERR_clear_error();
	c->waving = error == SSL_ERROR_WANT_WRITE;
	if (c->waving)
		return TLS_GOODBYE_WAITS;
	return error == SSL_ERROR_NONE ? TLS_GOODBYE_SAID : TLS_GOODBYE_FAILED;
}

void
tls_connection_drop(struct connection *c)
{
	SSL *ssl = session(c);

	/* A deferred callback may hold the bufferevent for a while, and during a handshake
	 * bufferevent_disable does nothing.  No event may outlive SSL and descriptor. */
	event_del(&c->bev->ev_read);
	event_del(&c->bev->ev_write);
	bufferevent_free(c->bev);
	SSL_free(ssl);
	ERR_clear_error();
	c->bev = NULL;
	c->tls = false;
	c->reading = false;
}
