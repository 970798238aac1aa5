/*
 * listener: accepts connections for one `listeners` entry of the configuration.
 *
 * A listener_group is the entry, shared by all workers; each worker has a
 * listener of its own in it, with its own sockets, counters and read memory.
 *
 * Out of descriptors, a listener stops accepting for a while instead of
 * spinning, and the connections wait in the backlog.  At max_connections each
 * worker holds at most one accepted connection unread, and the rest waits in
 * the backlog.
 */
#ifndef INTAKE_LISTENER_H
#define INTAKE_LISTENER_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "intake/counters.h"
#include "intake/damper.h"
#include "intake/limits.h"
#include "intake/socket.h"
#include "message/chunk.h"

struct event;
struct evconnlistener;
struct intake;
struct listener;
struct sink;
struct tls_context;

struct listener_group {
	const struct config_listener *config;
	struct socket_set sockets;
	struct limits limits;
	struct tls_context *tls; /* NULL: none */
	struct sink **deliver; /* config->deliver.count of them */
	struct sink *incomplete;
	char *spill_directory; /* where its large messages wait; owned */
	mode_t spill_mode;
	bool wants_local;          /* a sink records the local address */
	struct listener **members; /* one a worker */
	unsigned n_members;
	_Atomic unsigned n_parked; /* members that hold a connection at max_connections */
};

struct listener {
	const struct config_listener *config;
	struct listener_group *group;
	struct intake *intake;
	struct evconnlistener **acceptors;
	size_t n_acceptors;
	struct event *retry;     /* accepts again after a pause */
	unsigned pause;          /* milliseconds; grows while descriptors are short */
	int parked;              /* an accepted descriptor that waits for a place; -1 */
	struct net_address parked_peer;
	struct inbox_item place; /* posted when a place may be free */
	atomic_bool place_posted;
	struct chunk_pool pool;
	struct chunk *landing; /* what reads go into */
	struct counters counters;
	struct damper dampers[ENDED_COUNT];
	struct damper refusals[REFUSAL_COUNT];
	struct damper accept_errors;
	struct damper tls_failures[TLS_FAILURE_COUNT];
};

/* Prepares a worker's part in a group.  Before the worker runs.  -1: no memory. */
int listener_open(struct listener *listener, struct intake *intake, struct listener_group *group,
		  unsigned worker);

/* Accepts no more and closes its sockets.  Its connections go on. */
void listener_stop(struct listener *listener);

/* Frees it, once its connections are gone. */
void listener_close(struct listener *listener);

/* A chunk to read into that nobody else refers to; NULL: no memory. */
struct chunk *listener_landing(struct listener *listener);

/* A connection is gone: its places are free again. */
void listener_released(struct listener *listener, const struct net_address *peer);

/* Counts and logs that a connection was turned away unread. */
void listener_refuse(struct listener *listener, enum refusal why, const struct net_address *peer,
		     const char *text);

/* "timeout", "closed", "not-tls", ...: for the log and for metrics. */
const char *listener_tls_failure(enum tls_failure failure);

/* Says what the dampers have held back. */
void listener_sum_up(struct listener *listener);

#endif
