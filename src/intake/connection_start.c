/*
 * connection_start: from an accepted descriptor to the client's own first byte.
 *
 * Behind a proxy its header comes first (preface.c), then with TLS the handshake
 * (greeting.c); mostly there is neither.  Without memory the descriptor is
 * closed with a reset, and counted.
 */
#include "base/clock.h"
#include "base/memory.h"
#include "base/net.h"
#include "intake/connection.h"
#include "intake/greeting.h"
#include "intake/intake.h"
#include "intake/preface.h"
#include "intake/rate.h"

void
connection_begin(struct connection *c)
{
	connection_enter(c, CONNECTION_OPEN);
	c->heard = clock_now();
	connection_resume(c);
	timeout_schedule(c);
}

void
connection_greet(struct connection *c)
{
	struct listener *l = c->listener;

	if (c->state == CONNECTION_PREFACE) {
		connection_enter(c, CONNECTION_GREETING);
		c->heard = clock_now();
	}
	counter_add(&l->counters.connections, 1);
	connection_log(LOG_LEVEL_DEBUG, "connection-open", c, "accepted");
	if (l->group->paced) {
		c->pace = pace_new(l->group->rate, l->config->rate_limit.connection, c->heard);
		if (c->pace == NULL) {
			connection_out_of_memory(c);
			return;
		}
	}
	if (l->group->tls != NULL) {
		greeting_start(c);
	} else {
		c->state = CONNECTION_OPEN;
		receive_first(c);
	}
}

void
connection_open(struct listener *l, int fd, const struct net_address *peer)
{
	static _Atomic uint64_t numbers;
	struct intake *intake = l->intake;
	struct connection *c = memory_alloc(sizeof(*c));

	if (c == NULL || deadlines_reserve(&intake->deadlines, intake->n_connections + 1) == -1) {
		memory_free(c);
		net_reset(fd);
		listener_released(l, l->config->proxy_protocol ? NULL : peer);
		listener_refuse(l, REFUSAL_MEMORY, peer, "out of memory");
		return;
	}
	if (peer->family == AF_UNIX)
		(void)net_keep_urgent(fd); /* a local socket inherits nothing; an old kernel's has no such bytes */
	*c = (struct connection){.listener = l, .fd = fd, .state = CONNECTION_GREETING};
	c->origin.connection = atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed) + 1;
	c->origin.listener = l->config->name;
	c->origin.peer = *peer;
	c->flight_last = &c->flight;
	c->opened = c->heard = clock_now();
	c->next = intake->connections;
	c->previous = &intake->connections;
	if (c->next != NULL)
		c->next->previous = &c->next;
	intake->connections = c;
	intake->n_connections++;
	listener_gain(l);
	counter_add(&l->counters.connections_active, 1);
	if (l->config->proxy_protocol) {
		c->state = CONNECTION_PREFACE;
		preface_start(c);
	} else {
		connection_greet(c);
	}
}
