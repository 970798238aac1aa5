/*
 * generation: one configuration in force, whole: its listeners, on all workers, and
 * its sinks.
 *
 * A reload makes another one beside it and hands it to the workers.  The one before
 * lives on until the last of its connections has ended, with the settings that they
 * began with; many may be alive at once.  What both have is shared: sockets by their
 * address, sinks by name and settings, counts and limits by the listener's name.
 *
 * Main thread, but for what its listeners do on their workers.
 */
#ifndef GENERATION_H
#define GENERATION_H

#include <stdbool.h>
#include <stddef.h>

#include "intake/intake.h"
#include "intake/socket.h"

struct config;
struct ledger;
struct sink;

struct generation {
	struct generation *next; /* an older one */
	struct config *config;
	struct sink **sinks; /* in the order of the configuration; NULL: not opened yet */
	size_t n_sinks;
	struct listener_group *groups;
	size_t n_groups;
	struct change *changes; /* one a worker, until all have taken over */
	unsigned n_waiting;     /* workers that have not */
	size_t n_listeners;     /* of all workers, that have not retired */
	struct reign *reign;
};

/* What outlives generations. */
struct reign {
	struct generation *newest; /* the one in force comes first */
	struct sockets sockets;
	struct sink *sinks;        /* all that are open, by next */
	struct ledger *ledgers;
	struct account *accounts;  /* of the sinks, by name */
	struct intake *intakes;    /* one a worker; set before generation_attach */
	unsigned n_workers;
	void (*taken)(struct generation *generation); /* all workers have taken it over */
	struct inbox *inbox;       /* the main thread's */
	void (*left)(struct reign *reign); /* a sink has nothing at another one any more */
	bool closing;
};

/* The steps of an opening, in this order.  Each returns 0 or an exit code, having
 * logged why; nothing of what is in force has changed then, and generation_free undoes
 * the steps before. */
int generation_new(struct generation **made, struct reign *reign, struct config *config);
int generation_bind(struct generation *generation);   /* sockets; they do not listen yet */
int generation_open(struct generation *generation);   /* directories and sinks */
int generation_attach(struct generation *generation); /* to the workers */
int generation_start(struct generation *generation);  /* sinks' threads */
int generation_listen(struct generation *generation); /* the last one */

/* Puts it in force; cannot fail.  Before the workers run; or while they do, and then
 * `taken` is called once they have all taken it over.  Until then no other may be put
 * in force. */
void generation_begin(struct generation *generation);
void generation_hand_over(struct generation *generation);

/* One that was never in force; or any, when no worker runs any more. */
void generation_free(struct generation *generation);

/* No sink hands anything on any more; `left` is called for each that had something at
 * another one.  Whether there is still some. */
void reign_leave(struct reign *reign);
bool reign_is_leaving(const struct reign *reign);

/* The end: frees all generations, and closes all that they have. */
void reign_close(struct reign *reign);

/* What a ledger's listeners have counted so far, all workers and generations together. */
void reign_count(const struct reign *reign, const struct ledger *ledger, struct counters *sum);

struct ledger *reign_find_ledger(const struct reign *reign, const char *name);

#endif
