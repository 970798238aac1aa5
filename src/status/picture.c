/*
 * picture: see picture.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "generation.h"
#include "intake/ledger.h"
#include "intake/listener.h"
#include "sinks/sink.h"
#include "status/picture.h"

static const struct listener_group *
find_group(const struct reign *reign, const struct ledger *ledger)
{
	const struct generation *g = reign->newest;
	size_t i;

	for (i = 0; g != NULL && i < g->n_groups; i++)
		if (g->groups[i].ledger == ledger)
			return &g->groups[i];
	return NULL;
}

/* The sink of that name in force; else one whose last connections have not ended. */
static struct sink *
find_open(const struct reign *reign, const struct account *account)
{
	const struct generation *g = reign->newest;
	struct sink *sink;
	size_t i;

	for (i = 0; g != NULL && i < g->n_sinks; i++)
		if (g->sinks[i]->account == account)
			return g->sinks[i];
	for (sink = reign->sinks; sink != NULL; sink = sink->next)
		if (sink->account == account)
			return sink;
	return NULL;
}

static void
take_sink(struct picture_sink *to, const struct reign *reign, const struct account *account)
{
	struct sink *sink = find_open(reign, account);
	/* What is answered is read first, so that it is no more than what was given. */
	uint64_t answered = atomic_load_explicit(&account->accepted, memory_order_acquire) +
			    atomic_load_explicit(&account->refused, memory_order_acquire) +
			    atomic_load_explicit(&account->failed, memory_order_acquire);
	uint64_t given = account_get(&account->given);

	to->name = account->name;
	to->account = account;
	to->waiting = given > answered ? given - answered : 0;
	if (sink == NULL)
		return;
	to->type = sink->kind->name;
	to->trouble = sink_trouble_why(sink->trouble, to->why, sizeof(to->why));
}

/* Lists are newest first; people and machines get the file's order, as far as it goes. */
static void
take_listeners(struct picture *p)
{
	const struct ledger *ledger;
	size_t n = p->n_listeners;

	for (ledger = p->reign->ledgers; ledger != NULL; ledger = ledger->next) {
		struct picture_listener *to;

		if (!ledger->in_use)
			continue;
		to = &p->listeners[--n];
		to->name = ledger->name;
		to->group = find_group(p->reign, ledger);
		reign_count(p->reign, ledger, &to->counters);
		ledger_add(&p->total, &to->counters);
	}
}

int
picture_take(struct picture *p)
{
	const struct ledger *ledger;
	const struct account *account;
	size_t n;

	p->n_listeners = p->n_sinks = 0;
	p->total = (struct counters){0};
	for (ledger = p->reign->ledgers; ledger != NULL; ledger = ledger->next)
		p->n_listeners += ledger->in_use;
	for (account = p->reign->accounts; account != NULL; account = account->next)
		p->n_sinks += account->in_use;
	p->listeners = calloc(p->n_listeners + 1, sizeof(*p->listeners));
	p->sinks = calloc(p->n_sinks + 1, sizeof(*p->sinks));
	if (p->listeners == NULL || p->sinks == NULL) {
		picture_clear(p);
		return -1;
	}
	take_listeners(p);
	n = p->n_sinks;
	for (account = p->reign->accounts; account != NULL; account = account->next)
		if (account->in_use)
			take_sink(&p->sinks[--n], p->reign, account);
	return 0;
}

void
picture_clear(struct picture *p)
{
	free(p->listeners);
	free(p->sinks);
	p->listeners = NULL;
	p->sinks = NULL;
}

static bool
is_only_target(const struct generation *g, const struct sink *sink)
{
	bool target = false;
	size_t i, k;

	for (i = 0; i < g->n_sinks; i++)
		target |= g->sinks[i]->target == sink;
	for (i = 0; target && i < g->n_groups; i++) {
		const struct listener_group *group = &g->groups[i];

		if (group->incomplete == sink)
			return false;
		for (k = 0; k < group->config->deliver.count; k++)
			if (group->deliver[k] == sink)
				return false;
	}
	return target;
}

size_t
picture_reasons(const struct picture *p, void (*each)(const char *text, void *arg), void *arg)
{
	const struct generation *g = p->reign->newest;
	char text[256], why[160];
	size_t count = 0, i;

	if (p->stopping && ++count > 0)
		each("stopping", arg);
	if (p->stuck && ++count > 0)
		each("a worker's loop does not turn", arg);
	if (p->short_of_memory && ++count > 0)
		each("memory_limit is reached: nothing more is read", arg);
	for (i = 0; g != NULL && i < g->n_sinks; i++) {
		/* What only gets what a spool hands on keeps nobody from sending. */
		if (is_only_target(g, g->sinks[i]))
			continue;
		if (!sink_trouble_why(g->sinks[i]->trouble, why, sizeof(why)))
			continue;
		snprintf(text, sizeof(text), "sink %s: %s", g->sinks[i]->config->name, why);
		each(text, arg);
		count++;
	}
	return count;
}

const char *
picture_refusal(unsigned i)
{
	return refusal_name((enum refusal)i);
}

const char *
picture_discard(unsigned i)
{
	return ended_name((enum ended)(ENDED_RESET + i));
}

const char *
picture_tls_failure(unsigned i)
{
	return listener_tls_failure((enum tls_failure)i);
}
