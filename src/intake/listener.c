/*
 * listener: see listener.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/listener.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "intake/listener.h"
#include "worker.h"

/* The pause after an accept that failed: grows by STEP with each failure, up to
 * MOST, and shrinks with each success; so descriptors that come and go are used,
 * and a lasting shortage costs no time. */
#define PAUSE_STEP 50
#define PAUSE_MOST 500

static const char *const tls_failures[] = {
	[TLS_FAILURE_TIMEOUT] = "timeout",
	[TLS_FAILURE_CLOSED] = "closed",
	[TLS_FAILURE_NOT_TLS] = "not-tls",
	[TLS_FAILURE_PROTOCOL] = "protocol",
	[TLS_FAILURE_NO_CERTIFICATE] = "no-certificate",
	[TLS_FAILURE_BAD_CERTIFICATE] = "bad-certificate",
};

const char *
listener_tls_failure(enum tls_failure failure)
{
	return tls_failures[failure];
}

static void
acceptors(struct listener *l, bool on)
{
	size_t i;

	for (i = 0; i < l->n_acceptors; i++) {
		if (l->acceptors[i] == NULL)
			continue;
		if (on)
			evconnlistener_enable(l->acceptors[i]);
		else
			evconnlistener_disable(l->acceptors[i]);
	}
}

void
listener_refuse(struct listener *l, enum refusal why, const struct net_address *peer, const char *text)
{
	char name[NET_TEXT_LEN];
	struct log_subject subject = {.listener = l->config->name, .peer = name};

	counter_add(&l->counters.connections_refused[why], 1);
	if (damper_pass(&l->refusals[why], clock_now())) {
		net_address_text(peer, name);
		log_connection(LOG_LEVEL_WARNING, "connection-refused", &subject, "%s", text);
	} else {
		intake_damped(l->intake);
	}
}

/* A place under max_connections is free again, perhaps for one that is parked. */
static void
give_place(struct listener *l)
{
	struct listener_group *group = l->group;
	unsigned i;

	limits_give(&group->limits);
	if (atomic_load(&group->n_parked) == 0)
		return;
	for (i = 0; i < group->n_members; i++)
		if (!atomic_exchange(&group->members[i]->place_posted, true))
			inbox_post(&group->members[i]->intake->worker->inbox,
				   &group->members[i]->place);
}

/* A place under max_connections is taken already. */
static void
admit(struct listener *l, int fd, const struct net_address *peer)
{
	if (!limits_take_address(&l->group->limits, peer)) {
		net_reset(fd);
		give_place(l);
		listener_refuse(l, REFUSAL_ADDRESS_LIMIT, peer, "reset: max_connections_per_address is reached");
		return;
	}
	connection_open(l, fd, peer);
}

/* Holds an accepted connection until one of the others closes. */
static void
park(struct listener *l, int fd, const struct net_address *peer)
{
	acceptors(l, false);
	l->parked = fd;
	l->parked_peer = *peer;
	atomic_fetch_add(&l->group->n_parked, 1);
	/* A place may have become free between the look and the announcement. */
	if (limits_take(&l->group->limits)) {
		l->parked = -1;
		atomic_fetch_sub(&l->group->n_parked, 1);
		acceptors(l, true);
		admit(l, fd, peer);
	}
}

static void
listener_on_accept(struct evconnlistener *acceptor, evutil_socket_t fd, struct sockaddr *sa, int len,
		   void *arg)
{
	struct listener *l = arg;
	struct net_address peer;

	(void)acceptor;
	(void)len;
	net_address_set(&peer, sa);
	if (l->pause > 0)
		l->pause--;
	if (limits_take(&l->group->limits))
		admit(l, fd, &peer);
	else
		park(l, fd, &peer);
}

static void
listener_on_error(struct evconnlistener *acceptor, void *arg)
{
	struct listener *l = arg;
	int error = EVUTIL_SOCKET_ERROR();
	struct timeval tv;

	(void)acceptor;
	counter_add(&l->counters.accept_errors, 1);
	if (l->pause < PAUSE_MOST)
		l->pause += PAUSE_STEP;
	acceptors(l, false);
	tv.tv_sec = l->pause / 1000;
	tv.tv_usec = (suseconds_t)(l->pause % 1000) * 1000;
	event_add(l->retry, &tv);
	if (damper_pass(&l->accept_errors, clock_now()))
		log_event(LOG_LEVEL_ERROR, "accept-failed",
			  "listener %s: cannot accept: %s; connections wait in the backlog%s",
			  l->config->name, strerror(error),
			  error == EMFILE ? "; raise the limit of open files (ulimit -n, LimitNOFILE)"
					  : "");
	else
		intake_damped(l->intake);
}

static void
listener_on_retry(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	(void)fd;
	(void)what;
	if (l->parked == -1)
		acceptors(l, true);
}

/* A connection somewhere has closed: the parked one may have its place. */
static void
listener_on_place(struct inbox_item *item)
{
	struct listener *l = (struct listener *)((char *)item - offsetof(struct listener, place));
	int fd = l->parked;

	(void)atomic_exchange(&l->place_posted, false); /* orders the look behind it */
	if (fd == -1 || !limits_take(&l->group->limits))
		return;
	l->parked = -1;
	atomic_fetch_sub(&l->group->n_parked, 1);
	acceptors(l, true);
	admit(l, fd, &l->parked_peer);
}

int
listener_open(struct listener *l, struct intake *intake, struct listener_group *group, unsigned worker)
{
	struct event_base *base = intake->worker->base;
	size_t i;

	*l = (struct listener){
		.config = group->config, .group = group, .intake = intake, .parked = -1};
	l->place.run = listener_on_place;
	chunk_pool_init(&l->pool, group->config->buffer_size);
	group->members[worker] = l;
	l->retry = evtimer_new(base, listener_on_retry, l);
	l->acceptors = calloc(group->sockets.count, sizeof(*l->acceptors));
	if (l->retry == NULL || l->acceptors == NULL)
		return -1;
	for (i = 0; i < group->sockets.count; i++) {
		struct socket *s = &group->sockets.items[i];
		unsigned options = LEV_OPT_CLOSE_ON_EXEC;

		if (!s->shared)
			options |= LEV_OPT_CLOSE_ON_FREE;
		l->acceptors[i] = evconnlistener_new(base, listener_on_accept, l, options, 0,
						     s->fds[worker]);
		if (l->acceptors[i] == NULL)
			return -1;
		l->n_acceptors++;
		if (!s->shared)
			s->fds[worker] = -1; /* the acceptor's now */
		evconnlistener_set_error_cb(l->acceptors[i], listener_on_error);
	}
	return 0;
}

void
listener_stop(struct listener *l)
{
	size_t i;

	for (i = 0; i < l->n_acceptors; i++)
		evconnlistener_free(l->acceptors[i]);
	l->n_acceptors = 0;
	event_del(l->retry);
	if (l->parked != -1) {
		net_reset(l->parked);
		l->parked = -1;
		atomic_fetch_sub(&l->group->n_parked, 1);
		counter_add(&l->counters.connections_refused[REFUSAL_SHUTDOWN], 1);
	}
}

static void
leave_landing(struct listener *l)
{
	if (l->landing == NULL)
		return;
	memory_charge(memory_size(l->landing));
	chunk_unref(l->landing);
	l->landing = NULL;
}

void
listener_close(struct listener *l)
{
	size_t i;

	for (i = 0; i < l->n_acceptors; i++)
		evconnlistener_free(l->acceptors[i]);
	free(l->acceptors);
	if (l->retry != NULL)
		event_free(l->retry);
	leave_landing(l);
	chunk_pool_clear(&l->pool);
}

struct chunk *
listener_landing(struct listener *l)
{
	struct chunk *fresh;

	if (l->landing != NULL && l->landing->references == 1)
		return l->landing;
	fresh = chunk_get(&l->pool);
	if (fresh == NULL)
		return NULL;
	/* The chunk that waits for the next read is a fixed cost, and not charged; it
	 * is once somebody else holds it. */
	memory_release(memory_size(fresh));
	leave_landing(l);
	return l->landing = fresh;
}

void
listener_released(struct listener *l, const struct net_address *peer)
{
	limits_give_address(&l->group->limits, peer);
	give_place(l);
}

void
listener_sum_up(struct listener *l)
{
	uint64_t held;
	int i;

	for (i = 0; i < ENDED_COUNT; i++)
		if ((held = damper_sum(&l->dampers[i])) > 0)
			log_event(LOG_LEVEL_WARNING, "message-discarded",
				  "listener %s: %s: %llu more messages discarded", l->config->name,
				  ended_name((enum ended)i), (unsigned long long)held);
	for (i = 0; i < REFUSAL_COUNT; i++)
		if ((held = damper_sum(&l->refusals[i])) > 0)
			log_event(LOG_LEVEL_WARNING, "connection-refused",
				  "listener %s: %llu more connections refused", l->config->name,
				  (unsigned long long)held);
	for (i = 0; i < TLS_FAILURE_COUNT; i++)
		if ((held = damper_sum(&l->tls_failures[i])) > 0)
			log_event(LOG_LEVEL_WARNING, "tls-failed", "listener %s: %s: %llu more connections",
				  l->config->name, tls_failures[i], (unsigned long long)held);
	if ((held = damper_sum(&l->accept_errors)) > 0)
		log_event(LOG_LEVEL_WARNING, "accept-failed",
			  "listener %s: could not accept %llu more times", l->config->name,
			  (unsigned long long)held);
}
