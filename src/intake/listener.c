/*
 * listener: see listener.h.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/listener.h>

#include "base/acl.h"
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

/* Connections that are accepted before the others have their turn: libevent goes on for as
 * long as there are any, which in a flood is for ever. */
#define TURN 64

/* An address that goes: those who are connected already are still accepted, for so long. */
#define LEAVE_AFTER 500 /* milliseconds */
#define LEAVE_TRIES 20	/* where descriptors are short */

static const struct timeval leave_after = {.tv_usec = LEAVE_AFTER * 1000};

static void pause_accepting(struct listener *l, int error);

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
	unsigned worker = l->intake->worker->number;
	size_t i;

	for (i = 0; i < l->n_sockets; i++) {
		struct evconnlistener *acceptor = l->sockets[i]->acceptors[worker];

		if (!on)
			evconnlistener_disable(acceptor);
		else if (evconnlistener_enable(acceptor) == -1)
			pause_accepting(l, errno);
	}
}

const char *
refusal_name(enum refusal refusal)
{
	static const char *const names[] = {
		[REFUSAL_ADDRESS_LIMIT] = "address-limit",
		[REFUSAL_MEMORY] = "memory",
		[REFUSAL_SHUTDOWN] = "shutdown",
		[REFUSAL_ACCESS] = "access",
		[REFUSAL_PROXY] = "proxy",
	};

	return names[refusal];
}

bool
listener_admits(const struct listener *l, const struct net_address *peer)
{
	const struct config_listener *config = l->config;

	if (peer->family == AF_UNIX)
		return true;
	if (config->deny.acl != NULL && acl_match(config->deny.acl, peer))
		return false;
	return config->allow.acl == NULL || acl_match(config->allow.acl, peer);
}

void
listener_refuse(struct listener *l, enum refusal why, const struct net_address *peer, const char *text)
{
	char name[NET_TEXT_LEN];
	struct log_subject subject = {.listener = l->config->name, .peer = name,
		.fields = LOG_FIELDS(LOG_TEXT("reason", refusal_name(why)))};

	counter_add(&l->counters.connections_refused[why], 1);
	if (damper_pass(&l->refusals[why], clock_now())) {
		net_address_text(peer, name);
		log_connection(LOG_LEVEL_WARNING, "connection-refused", &subject, "%s: reset: %s",
			       refusal_name(why), text);
	} else {
		intake_damped(l->intake);
	}
}

/* Whether who connects may go on.  With a PROXY header to come, that decides about the
 * client, and only the proxy is looked at here. */
static bool
is_welcome(struct listener *l, int fd, const struct net_address *peer)
{
	const struct config_listener *config = l->config;

	if (config->proxy_protocol) {
		if (peer->family == AF_UNIX ||
		    (config->proxy_from.acl != NULL && acl_match(config->proxy_from.acl, peer)))
			return true;
		net_reset(fd);
		listener_refuse(l, REFUSAL_PROXY, peer, "its address is not in proxy_from");
		return false;
	}
	if (listener_admits(l, peer))
		return true;
	net_reset(fd);
	listener_refuse(l, REFUSAL_ACCESS, peer, LISTENER_NOT_ADMITTED);
	return false;
}

/* A place under max_connections is taken already. */
static void
admit(struct listener *l, int fd, const struct net_address *peer)
{
	const struct config_listener *config = l->config;

	/* Behind a proxy an address has its place once the header has named it. */
	if (!config->proxy_protocol && config->max_connections_per_address != 0 &&
	    !limits_take_address(l->group->limits, peer)) {
		net_reset(fd);
		ledger_give_place(l->group->ledger);
		listener_refuse(l, REFUSAL_ADDRESS_LIMIT, peer, LISTENER_ADDRESS_LIMIT);
		return;
	}
	connection_open(l, fd, peer);
}

/* There is a place for the one that waits. */
static void
unpark(struct listener *l)
{
	int fd = l->parked;

	l->parked = -1;
	atomic_fetch_sub(&l->group->ledger->n_parked, 1);
	acceptors(l, true);
	admit(l, fd, &l->parked_peer);
}

/* Holds an accepted connection until one of the others closes. */
static void
park(struct listener *l, int fd, const struct net_address *peer)
{
	acceptors(l, false);
	l->parked = fd;
	l->parked_peer = *peer;
	atomic_fetch_add(&l->group->ledger->n_parked, 1);
	/* A place may have become free between the look and the announcement. */
	if (limits_take(l->group->limits))
		unpark(l);
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
	net_address_ask(&peer, fd);
	if (l->pause > 0)
		l->pause--;
	if (++l->accepted % TURN == 0) {
		acceptors(l, false);
		event_active(l->retry, EV_TIMEOUT, 0); /* when the loop comes round */
	}
	if (!is_welcome(l, fd, &peer))
		return;
	if (l->old) {
		/* It had connected before its address went; there is nobody to wait for. */
		limits_take_anyway(l->group->limits);
		admit(l, fd, &peer);
	} else if (limits_take(l->group->limits)) {
		admit(l, fd, &peer);
	} else {
		park(l, fd, &peer);
	}
}

/* Accepting failed: again in a while. */
static void
pause_accepting(struct listener *l, int error)
{
	struct timeval tv;

	counter_add(&l->counters.accept_errors, 1);
	if (l->pause < PAUSE_MOST)
		l->pause += PAUSE_STEP;
	acceptors(l, false);
	tv.tv_sec = l->pause / 1000;
	tv.tv_usec = (suseconds_t)(l->pause % 1000) * 1000;
	event_add(l->retry, &tv);
	if (damper_pass(&l->seat->accept_errors, clock_now()))
		log_event(LOG_LEVEL_ERROR, "accept-failed",
			  "listener %s: cannot accept: %s; connections wait in the backlog%s",
			  l->config->name, strerror(error),
			  error == EMFILE ? "; raise the limit of open files (ulimit -n, LimitNOFILE)"
					  : "");
	else
		intake_damped(l->intake);
}

static void
listener_on_error(struct evconnlistener *acceptor, void *arg)
{
	int error = EVUTIL_SOCKET_ERROR();

	(void)acceptor;
	pause_accepting(arg, error);
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
	struct seat *seat = (struct seat *)((char *)item - offsetof(struct seat, place));
	struct listener *l = seat->listener;

	(void)atomic_exchange(&seat->place_posted, false); /* orders the look behind it */
	if (l != NULL && l->parked != -1 && limits_take(l->group->limits))
		unpark(l);
}

static void
retire(struct listener *l)
{
	listener_sum_up(l);
	listener_close(l);
	inbox_post(l->intake->worker->parent, &l->retired); /* frees it */
}

/* Addresses that go are closed, and so that nobody is reset: all that is in the queue has
 * been accepted by now, and no new ones were let into it for a while. */
static void
listener_on_leave(evutil_socket_t fd, short what, void *arg)
{
	struct listener *l = arg;

	(void)fd;
	(void)what;
	if (event_pending(l->retry, EV_TIMEOUT, NULL) && l->patience > 0) {
		l->patience--;
		event_add(l->leave, &leave_after);
		return;
	}
	listener_stop(l);
	log_event(LOG_LEVEL_DEBUG, "listener-left", "listener %s: its sockets are closed",
		  l->config->name);
	if (l->n_connections == 0)
		retire(l);
}

int
listener_open(struct listener *l, struct intake *intake, struct listener_group *group,
	      void (*retired)(struct inbox_item *item))
{
	struct event_base *base = intake->worker->base;
	unsigned worker = intake->worker->number;
	size_t i;

	*l = (struct listener){
		.config = group->config, .group = group, .intake = intake, .parked = -1};
	l->retired.run = retired;
	l->seat = &group->ledger->seats[worker];
	if (l->seat->inbox == NULL) { /* later on workers read it */
		l->seat->inbox = &intake->worker->inbox;
		l->seat->place.run = listener_on_place;
	}
	l->dampers = l->seat->dampers;
	l->refusals = l->seat->refusals;
	l->reads = reads_new((size_t)group->config->buffer_size);
	l->retry = evtimer_new(base, listener_on_retry, l);
	l->leave = evtimer_new(base, listener_on_leave, l);
	l->sockets = calloc(group->sockets.count, sizeof(struct socket *));
	if (l->reads == NULL || l->retry == NULL || l->leave == NULL || l->sockets == NULL)
		return -1;
	if (group->tls != NULL && greeter_start(intake_greeter(intake), worker) == -1) {
		log_event(LOG_LEVEL_ERROR, "start-failed",
			  "listener %s: cannot start a thread for TLS handshakes: %s",
			  group->config->name, strerror(errno));
		return -1;
	}
	for (i = 0; i < group->sockets.count; i++) {
		struct socket *s = group->sockets.items[i];

		if (s->acceptors[worker] == NULL) {
			/* Disabled it does not touch the base, which may be turning. */
			s->acceptors[worker] = evconnlistener_new(base, listener_on_accept, l,
				LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_DISABLED, 0, s->fds[worker]);
			if (s->acceptors[worker] == NULL)
				return -1;
			evconnlistener_set_error_cb(s->acceptors[worker], listener_on_error);
		}
		l->sockets[l->n_sockets++] = s;
	}
	return 0;
}

void
listener_yield(struct listener *l)
{
	size_t i, rest = 0;

	l->old = true;
	event_del(l->retry);
	for (i = 0; i < l->n_sockets; i++)
		if (l->sockets[i]->leaving)
			l->sockets[rest++] = l->sockets[i];
	l->n_sockets = rest;
}

/* Who waits for a place has not begun: it goes by what is in force now, and by what that
 * says of who may connect. */
static void
inherit_parked(struct listener *l, struct listener *before)
{
	int fd = before->parked;

	before->parked = -1;
	if (is_welcome(l, fd, &before->parked_peer)) {
		l->parked = fd;
		l->parked_peer = before->parked_peer;
	} else {
		atomic_fetch_sub(&l->group->ledger->n_parked, 1);
	}
}

void
listener_take(struct listener *l)
{
	unsigned worker = l->intake->worker->number;
	struct listener *before = l->seat->listener;
	size_t i;

	l->seat->listener = l;
	l->reads = reads_share(&l->intake->reads, l->reads);
	l->next = l->intake->listeners;
	l->previous = &l->intake->listeners;
	if (l->next != NULL)
		l->next->previous = &l->next;
	l->intake->listeners = l;
	for (i = 0; i < l->n_sockets; i++)
		evconnlistener_set_cb(l->sockets[i]->acceptors[worker], listener_on_accept, l);
	if (before != NULL && before->parked != -1)
		inherit_parked(l, before);
	acceptors(l, l->parked == -1);
	/* There may be more places than there were. */
	if (l->parked != -1 && limits_take(l->group->limits))
		unpark(l);
}

void
listener_leave(struct listener *l)
{
	unsigned worker = l->intake->worker->number;
	size_t i;

	if (l->seat->listener == l)
		l->seat->listener = NULL; /* its name is gone */
	for (i = 0; i < l->n_sockets; i++)
		socket_deafen(l->sockets[i], worker);
	acceptors(l, true);
	if (l->parked != -1) {
		limits_take_anyway(l->group->limits);
		unpark(l);
	}
	/* What is kept for reading in pieces of its size may be needed by nobody else. */
	reads_rest(l->reads);
	l->patience = LEAVE_TRIES;
	if (l->n_sockets > 0)
		event_add(l->leave, &leave_after);
	else if (l->n_connections == 0)
		retire(l);
}

void
listener_gain(struct listener *l)
{
	l->n_connections++;
}

void
listener_lose(struct listener *l)
{
	l->n_connections--;
	if (l->n_connections == 0 && l->old && l->n_sockets == 0)
		retire(l);
}

void
listener_stop(struct listener *l)
{
	while (l->n_sockets > 0)
		socket_release(l->sockets[--l->n_sockets], l->intake->worker->number);
	event_del(l->retry);
	event_del(l->leave);
	if (l->parked != -1) {
		net_reset(l->parked);
		l->parked = -1;
		atomic_fetch_sub(&l->group->ledger->n_parked, 1);
		counter_add(&l->counters.connections_refused[REFUSAL_SHUTDOWN], 1);
	}
}

void
listener_close(struct listener *l)
{
	if (l->seat != NULL && l->seat->listener == l)
		l->seat->listener = NULL;
	if (l->previous != NULL) {
		*l->previous = l->next;
		if (l->next != NULL)
			l->next->previous = l->previous;
	}
	l->previous = NULL;
	if (l->retry != NULL)
		event_free(l->retry);
	if (l->leave != NULL)
		event_free(l->leave);
	l->retry = l->leave = NULL;
	free(l->sockets);
	l->sockets = NULL;
	l->n_sockets = 0;
	if (l->reads != NULL)
		reads_leave(&l->intake->reads, l->reads);
	l->reads = NULL;
}

void
listener_released(struct listener *l, const struct net_address *peer)
{
	if (peer != NULL && l->config->max_connections_per_address != 0)
		limits_give_address(l->group->limits, peer);
	ledger_give_place(l->group->ledger);
}

void
listener_sum_up(struct listener *l)
{
	uint64_t held;
	int i;

	for (i = 0; i < ENDED_COUNT; i++)
		if ((held = damper_sum(&l->dampers[i])) > 0)
			log_event_with(LOG_LEVEL_WARNING, "message-discarded",
				  LOG_FIELDS(LOG_TEXT("reason", ended_name((enum ended)i)),
					     LOG_NUMBER("messages", held)), "listener %s: %s: %llu more messages discarded", l->config->name,
				  ended_name((enum ended)i), (unsigned long long)held);
	for (i = 0; i < REFUSAL_COUNT; i++)
		if ((held = damper_sum(&l->refusals[i])) > 0)
			log_event_with(LOG_LEVEL_WARNING, "connection-refused",
				  LOG_FIELDS(LOG_TEXT("reason", refusal_name((enum refusal)i)),
					     LOG_NUMBER("connections", held)), "listener %s: %s: %llu more connections refused", l->config->name,
				  refusal_name((enum refusal)i), (unsigned long long)held);
	for (i = 0; i < TLS_FAILURE_COUNT; i++)
		if ((held = damper_sum(&l->seat->tls_failures[i])) > 0)
			log_event_with(LOG_LEVEL_WARNING, "tls-failed",
				  LOG_FIELDS(LOG_TEXT("reason", tls_failures[i]),
					     LOG_NUMBER("connections", held)), "listener %s: %s: %llu more connections",
				  l->config->name, tls_failures[i], (unsigned long long)held);
	if ((held = damper_sum(&l->seat->accept_errors)) > 0)
		log_event(LOG_LEVEL_WARNING, "accept-failed",
			  "listener %s: could not accept %llu more times", l->config->name,
			  (unsigned long long)held);
}
