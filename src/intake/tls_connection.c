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

#include "base/clock.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "worker.h"

/* The most that waits decrypted: what, with libevent's head, fits into 16 KiB; a bit less
 * than a full record. */
#define INPUT_MOST (16384 - 256)

/* Looks for bytes behind records that hold none, until such a client is not waited for. */
#define LOOKS_MOST 16

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

bool
tls_is_eof(unsigned long code)
{
#ifdef SSL_R_UNEXPECTED_EOF_WHILE_READING
	if (ERR_GET_LIB(code) == ERR_LIB_SSL &&
	    ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return true;
#endif
	(void)code;
	return false;
}

const char *
tls_words(unsigned long code)
{
	const char *words = code != 0 ? ERR_reason_error_string(code) : NULL;

	return words != NULL ? words : "OpenSSL does not say why";
}

void
tls_connection_say(struct connection *c, enum tls_failure failure, const char *text)
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

/* ------------------------------------------------------------------- start */

bool
tls_connection_open(struct connection *c, SSL *ssl)
{
	uint64_t high = c->listener->config->buffer_size;
	struct bufferevent *bev = NULL;

	if (memory_stock())
		bev = bufferevent_openssl_socket_new(c->listener->intake->worker->base, c->fd, ssl,
						     BUFFEREVENT_SSL_OPEN, BEV_OPT_DEFER_CALLBACKS);
	if (bev == NULL) {
		memory_stock_close();
		SSL_free(ssl);
		ERR_clear_error();
		connection_out_of_memory(c);
		return false;
	}
	c->tls = true;
	bufferevent_setwatermark(bev, EV_READ, 0, high < INPUT_MOST ? (size_t)high : INPUT_MOST);
	connection_adopt(c, bev);
	memory_stock_close(); /* a watermark allocates, too, and takes it for granted */
	return true;
}

/* ------------------------------------------------------------------ stream */

bool
tls_connection_is_cut(struct connection *c, int error)
{
	unsigned long code = kept_error(c->bev);

	bufferevent_disable(c->bev, EV_READ);
	if (code == 0)
		return error == 0; /* older OpenSSL: the end of the file, without a word */
	if (!tls_is_eof(code) && !c->cut)
		tls_connection_say(c, TLS_FAILURE_PROTOCOL, tls_words(code));
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
	int n, error, looks;
	char byte;

	if (tls_connection_has(c) || tls_connection_within(c))
		return true;
	/* At the end of the file OpenSSL would be of no more use, not even for our
	 * close_notify: it only gets to see what is there. */
	for (looks = 0; !c->fin && !c->broken && ioctl(c->fd, FIONREAD, &n) == 0 && n > 0; looks++) {
		n = SSL_peek(ssl, &byte, 1);
		error = SSL_get_error(ssl, n);
		ERR_clear_error();
		/* One that does not take what TLS has to say may have sent anything behind it. */
		if (n > 0 || looks == LOOKS_MOST || error == SSL_ERROR_WANT_WRITE)
			return true;
		if (error == SSL_ERROR_ZERO_RETURN)
			c->fin = true;
		else if (error != SSL_ERROR_WANT_READ) /* what is no data, and maybe more behind it */
			break;
	}
	return tls_connection_within(c);
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

	/* A deferred callback may hold the bufferevent for a while.  No event may outlive SSL
	 * and descriptor. */
	event_del(&c->bev->ev_read);
	event_del(&c->bev->ev_write);
	bufferevent_free(c->bev);
	SSL_free(ssl);
	ERR_clear_error();
	c->bev = NULL;
	c->tls = false;
	c->reading = false;
}
