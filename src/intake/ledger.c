/*
 * ledger: see ledger.h.
 */
#include <stdlib.h>
#include <string.h>

#include "intake/ledger.h"

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
