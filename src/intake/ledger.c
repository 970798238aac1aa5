/*
 * ledger: see ledger.h.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "intake/ledger.h"

#define BALANCE_TRIES 1024
#define BALANCE_PAUSE 500 /* microseconds, after each 64 tries */

struct ledger *
ledger_new(const char *name, unsigned n_seats)
{
	struct ledger *ledger = calloc(1, sizeof(*ledger));

	if (ledger == NULL)
		return NULL;
	limits_init(&ledger->limits);
	ledger->name = strdup(name);
	ledger->n_seats = n_seats;
	ledger->seats = calloc(n_seats, sizeof(*ledger->seats));
	if (ledger->name == NULL || ledger->seats == NULL) {
		ledger_free(ledger);
		return NULL;
	}
	return ledger;
}

void
ledger_free(struct ledger *ledger)
{
	if (ledger == NULL)
		return;
	limits_clear(&ledger->limits);
	free(ledger->name);
	free(ledger->seats);
	free(ledger);
}

_Static_assert(sizeof(struct counters) % sizeof(counter) == 0, "counters holds nothing else");

void
ledger_add(struct counters *to, const struct counters *from)
{
	counter *sum = (counter *)to;
	const counter *more = (const counter *)from;
	size_t i;

	for (i = 0; i < sizeof(*to) / sizeof(counter); i++)
		counter_add(&sum[i], counter_get(&more[i]));
}

static bool
is_balanced(const struct counters *c)
{
	return counter_get(&c->received) == counter_get(&c->accepted) + counter_get(&c->refused) +
						    counter_get(&c->failed) + counter_get(&c->in_flight);
}

void
ledger_add_balanced(struct counters *to, const struct counters *from)
{
	struct counters copy;
	int tries;

	/* A worker is between the parts for some hundred instructions at the most, unless
	 * it has lost its processor just there. */
	for (tries = 0; tries < BALANCE_TRIES; tries++) {
		copy = (struct counters){0};
		ledger_add(&copy, from);
		if (is_balanced(&copy))
			break;
		if (tries % 64 == 63)
			usleep(BALANCE_PAUSE);
	}
	ledger_add(to, &copy);
}

void
ledger_give_place(struct ledger *ledger)
{
	unsigned i;

	limits_give(&ledger->limits);
	if (atomic_load(&ledger->n_parked) == 0)
		return;
	for (i = 0; i < ledger->n_seats; i++)
		if (!atomic_exchange(&ledger->seats[i].place_posted, true))
			inbox_post(ledger->seats[i].inbox, &ledger->seats[i].place);
}
