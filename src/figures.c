/*
 * figures: see figures.h.
 */
#include <stddef.h>

#include "figures.h"
#include "generation.h"
#include "intake/ledger.h"

static void
add(struct figures *figures, const struct counters *c)
{
	int e;

	figures->connections += counter_get(&c->connections_active);
	figures->received += counter_get(&c->received);
	figures->accepted += counter_get(&c->accepted);
	figures->refused += counter_get(&c->refused);
	figures->failed += counter_get(&c->failed);
	figures->in_flight += counter_get(&c->in_flight);
	for (e = 0; e < ENDED_COUNT; e++)
		figures->discarded += counter_get(&c->discarded[e]);
}

void
figures_sum(struct figures *figures, const struct reign *reign)
{
	const struct ledger *ledger;
	struct counters sum;

	*figures = (struct figures){0};
	for (ledger = reign->ledgers; ledger != NULL; ledger = ledger->next) {
		reign_count(reign, ledger, &sum);
		add(figures, &sum);
	}
}
