/*
 * preface: see preface.h.
 *
 * The header is looked at where it lies, in the socket (MSG_PEEK).  As long as there
 * has to be more of it all that was seen belongs to it and is read away, so that the
 * socket is quiet until more comes; the last part is read away to the byte.
 *
 * A proxy sends its header at once, so there mostly is one when the connection is
 * accepted, and no event is made to wait for it.
 */
#include "intake/preface.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/event.h>

#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "intake/proxy.h"
#include "worker.h"

#define PATIENCE UINT64_C(5000000) /* microseconds that a header may take */

struct preface {
	struct event *more; /* NULL until it has to wait */
	size_t len;         /* bytes that were read away */
	unsigned char bytes[PROXY_MOST];
};

static void
preface_on_more(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	preface_run(arg);
}

static void
wait_for_more(struct connection *c)
{
	struct preface *p = c->preface;

	if (p->more == NULL) {
		p->more = event_new(c->listener->intake->worker->base, c->fd, EV_READ | EV_PERSIST,
				    preface_on_more, c);
		if (p->more == NULL || event_add(p->more, NULL) == -1) {
			connection_refuse(c, REFUSAL_MEMORY, "out of memory");
			return;
		}
	}
	timeout_schedule(c);
}

/* Reads bytes that have been seen. */
static bool
read_away(struct connection *c, size_t len)
{
	struct preface *p = c->preface;
	size_t end = p->len + len;
	ssize_t n;

	while (p->len < end) {
		n = recv(c->fd, p->bytes + p->len, end - p->len, 0);
		if (n == -1 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p->len += (size_t)n;
	}
	return true;
}

static void
refuse(struct connection *c, const char *why)
{
	char text[160];

	snprintf(text, sizeof text, "no PROXY header: %s", why);
	connection_refuse(c, REFUSAL_PROXY, text);
}

/* From here on the connection is the client's. */
static void
rename_peer(struct connection *c, const struct proxy_result *header)
{
	char client[NET_TEXT_LEN];

	net_address_text(&header->source, client);
	connection_log(LOG_LEVEL_DEBUG, "connection-proxied", c, "speaks for %s", client);
	c->origin.peer = header->source;
	if (!c->listener->group->wants_local)
		return;
	/* Without memory the records have the address that the proxy came to. */
	c->origin.local = memory_alloc(sizeof(*c->origin.local));
	if (c->origin.local != NULL)
		*c->origin.local = header->destination;
}

/* A header that names nobody leaves the proxy's own address, to be judged as such. */
static void
finish(struct connection *c, const struct proxy_result *header)
{
	struct listener *l = c->listener;

	if (!header->local)
		rename_peer(c, header);
	if (!listener_admits(l, &c->origin.peer)) {
		connection_refuse(c, REFUSAL_ACCESS, LISTENER_NOT_ADMITTED);
		return;
	}
	if (l->config->max_connections_per_address != 0 &&
	    !limits_take_address(l->group->limits, &c->origin.peer)) {
		connection_refuse(c, REFUSAL_ADDRESS_LIMIT, LISTENER_ADDRESS_LIMIT);
		return;
	}
	preface_free(c->preface);
	c->preface = NULL;
	connection_greet(c);
}

void
preface_run(struct connection *c)
{
	struct preface *p = c->preface;
	struct proxy_result header;
	enum proxy_verdict verdict;
	ssize_t n;

	for (;;) {
		/* There is room: PROXY_MORE is never said of as much. */
		n = recv(c->fd, p->bytes + p->len, sizeof p->bytes - p->len, MSG_PEEK);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			wait_for_more(c);
			return;
		}
		if (n <= 0) {
			refuse(c, n == 0 ? "closed before it was whole" : strerror(errno));
			return;
		}
		verdict = proxy_parse(p->bytes, p->len + (size_t)n, &header);
		if (verdict == PROXY_MALFORMED) {
			refuse(c, header.why);
			return;
		}
		if (!read_away(c, verdict == PROXY_DONE ? header.used - p->len : (size_t)n)) {
			refuse(c, "cannot be read");
			return;
		}
		if (verdict == PROXY_DONE) {
			finish(c, &header);
			return;
		}
	}
}

void
preface_start(struct connection *c)
{
	struct preface *p = memory_alloc(sizeof *p);

	c->preface = p;
	if (p == NULL) {
		connection_refuse(c, REFUSAL_MEMORY, "out of memory");
		return;
	}
	p->more = NULL;
	p->len = 0;
	preface_run(c);
}

/* From the start: bytes that trickle in win no time. */
uint64_t
preface_deadline(const struct connection *c)
{
	uint64_t patience = c->listener->config->idle_timeout;

	return c->heard + (patience == 0 || patience > PATIENCE ? PATIENCE : patience);
}

void
preface_on_deadline(struct connection *c)
{
	preface_run(c);
	if (c->state == CONNECTION_PREFACE)
		refuse(c, "not whole in time");
}

void
preface_free(struct preface *p)
{
	if (p == NULL)
		return;
	if (p->more != NULL)
		event_free(p->more);
	memory_free(p);
}
