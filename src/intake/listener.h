/*
 * listener: accepts connections for one `listeners` entry of the configuration.
 *
 * A listener_group is the entry, shared by all workers; each worker has a
 * listener of its own in it, with its own sockets and counters.
 *
 * With the next configuration another listener takes its seat and its sockets
 * (listener_take).  The old one goes on until its last connection has ended, and
 * accepts who had connected to an address that goes; then it tells the main thread
 * that it has retired.
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
#include "intake/ledger.h"
#include "intake/limits.h"
#include "intake/rate.h"
#include "intake/reads.h"
#include "intake/socket.h"

struct event;
struct generation;
struct intake;
struct listener;
struct sink;
struct tls_context;

/* What the log says of some refusals. */
#define LISTENER_NOT_ADMITTED "allow and deny do not let its address in"
#define LISTENER_ADDRESS_LIMIT "max_connections_per_address is reached"

struct listener_group {
	const struct config_listener *config;
	struct socket_set sockets;
	struct ledger *ledger;
	struct limits *limits; /* the ledger's */
	struct tls_context *tls; /* NULL: none */
	struct sink **deliver; /* config->deliver.count of them */
	struct sink *incomplete;
	char *spill_directory; /* where its large messages wait; owned */
	mode_t spill_mode;
	bool paced;                /* rate_limit is set */
	struct rate *rate;         /* of all connections, also those of before; 0 where only
				    * each has a limit */
	bool wants_local;          /* a sink records the local address */
	struct listener **members; /* one a worker; NULL: gone */
	unsigned n_members;
	struct generation *generation; /* what all this belongs to */
};

struct listener {
	const struct config_listener *config;
	struct listener_group *group;
	struct intake *intake;
	struct listener *next, **previous; /* of the intake */
	struct seat *seat;
	struct socket **sockets; /* that it accepts from, now */
	size_t n_sockets;
	struct event *retry;     /* accepts again after a pause */
	struct event *leave;     /* closes what it still has of addresses that go */
	unsigned pause;          /* milliseconds; grows while descriptors are short */
	unsigned accepted;       /* connections */
	unsigned patience;       /* times that `leave` may be put off */
	int parked;              /* an accepted descriptor that waits for a place; -1 */
	struct net_address parked_peer;
	bool old;                /* another configuration is in force */
	size_t n_connections;    /* that refer to it */
	struct inbox_item retired; /* tells the main thread */
	struct reads *reads;     /* its own until it takes its seat; then shared */
	struct counters counters;
	struct damper *dampers;  /* the seat's */
	struct damper *refusals;
};

/* Prepares a worker's part in a group; all that its work needs is allocated here.  Main
 * thread; it touches nothing that the worker has.  -1: no memory. */
int listener_open(struct listener *listener, struct intake *intake, struct listener_group *group,
		  void (*retired)(struct inbox_item *item));

/* It is of the configuration in force no more.  Before others take its sockets. */
void listener_yield(struct listener *listener);

/* It accepts from now on, from its sockets, which others may have had. */
void listener_take(struct listener *listener);

/* Others have taken what they want of it: it accepts who waits to be, lets its other
 * sockets go and, without connections, retires. */
void listener_leave(struct listener *listener);

/* Accepts no more and closes its sockets.  Its connections go on. */
void listener_stop(struct listener *listener);

/* Gives up all that is its worker's, once its connections are gone. */
void listener_close(struct listener *listener);

/* A connection more, or one fewer; the last one of an old listener lets it retire. */
void listener_gain(struct listener *listener);
void listener_lose(struct listener *listener);

/* A connection is gone: its places are free again; peer is NULL where it had none
 * among those of its address. */
void listener_released(struct listener *listener, const struct net_address *peer);

/* Whether allow and deny let this address in.  Local peers (AF_UNIX) always come in. */
bool listener_admits(const struct listener *listener, const struct net_address *peer);

/* Counts and logs that a connection was turned away unread. */
void listener_refuse(struct listener *listener, enum refusal why, const struct net_address *peer,
		     const char *text);

/* "timeout", "closed", "not-tls", ...: for the log and for metrics. */
const char *listener_tls_failure(enum tls_failure failure);

/* Says what the dampers have held back. */
void listener_sum_up(struct listener *listener);

#endif
