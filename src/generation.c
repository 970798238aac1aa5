/*
 * generation: see generation.h.
 *
 * Who frees what: a generation is freed by the message of its last listener that has
 * retired; with it go its references to sinks and sockets, and what nobody else refers
 * to is closed.  Messages in flight hold their connection, that its listener, and that
 * the generation: so a sink is closed when nothing of its is under way.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "belongings.h"
#include "config/config.h"
#include "generation.h"
#include "generation_sinks.h"
#include "identity.h"
#include "intake/given.h"
#include "intake/tls.h"
#include "message/format.h"
#include "sinks/sink.h"
#include "worker.h"

static int
no_memory(void)
{
	log_event(LOG_LEVEL_ERROR, "out-of-memory", "out of memory");
	return EX_OSERR;
}

/* ------------------------------------------------------------------ groups */

struct ledger *
reign_find_ledger(const struct reign *reign, const char *name)
{
	struct ledger *ledger;

	for (ledger = reign->ledgers; ledger != NULL; ledger = ledger->next)
		if (strcmp(ledger->name, name) == 0)
			return ledger;
	return NULL;
}

static struct ledger *
open_ledger(struct reign *reign, const struct config_listener *config)
{
	struct ledger *ledger = reign_find_ledger(reign, config->name);

	if (ledger == NULL) {
		ledger = ledger_new(config->name, reign->n_workers);
		if (ledger == NULL)
			return NULL;
		ledger->next = reign->ledgers;
		reign->ledgers = ledger;
	}
	if (config->max_connections_per_address != 0 && limits_reserve(&ledger->limits) == -1)
		return NULL;
	return ledger;
}

/* Those of an opening that came to nothing. */
static void
drop_unused_ledgers(struct reign *reign)
{
	struct ledger **at = &reign->ledgers, *ledger;

	while ((ledger = *at) != NULL) {
		if (ledger->in_use) {
			at = &ledger->next;
			continue;
		}
		*at = ledger->next;
		ledger_free(ledger);
	}
}

static bool
wants_local(const struct config_sink *sink)
{
	if (sink->forward_to != NULL)
		return wants_local(sink->forward_to);
	return sink->type == CONFIG_SINK_COMMAND || sink->type == CONFIG_SINK_KAFKA ||
	       sink->type == CONFIG_SINK_NATS ||
	       (sink->type != CONFIG_SINK_SPOOL && sink->format == FORMAT_JSON);
}

/* Large messages go straight to where a spool can give them a name. */
static int
choose_spill(const struct config *all, struct listener_group *group)
{
	const struct config_listener *config = group->config;
	size_t i;

	for (i = 0; i < config->deliver.count; i++) {
		const struct config_sink *sink = &all->sinks[config->deliver_to[i]];

		if (sink->type != CONFIG_SINK_SPOOL)
			continue;
		group->spill_mode = sink->mode;
		if (asprintf(&group->spill_directory, "%s/tmp", sink->directory) == -1)
			group->spill_directory = NULL;
		return group->spill_directory == NULL ? -1 : 0;
	}
	group->spill_mode = 0600;
	group->spill_directory = strdup(all->spill_directory);
	return group->spill_directory == NULL ? -1 : 0;
}

/* Connections that began before have their part of the same limit. */
static struct rate *
find_rate(const struct reign *reign, const struct ledger *ledger, uint64_t limit)
{
	const struct generation *g;
	size_t i;

	for (g = reign->newest; g != NULL; g = g->next)
		for (i = 0; i < g->n_groups; i++)
			if (g->groups[i].ledger == ledger && g->groups[i].rate->rate == limit)
				return g->groups[i].rate;
	return NULL;
}

static int
open_rate(struct reign *reign, struct listener_group *group)
{
	uint64_t limit = group->config->rate_limit.listener;

	group->rate = find_rate(reign, group->ledger, limit);
	if (group->rate == NULL) {
		group->rate = calloc(1, sizeof(*group->rate));
		if (group->rate == NULL)
			return -1;
		rate_init(group->rate, limit, clock_now());
	}
	group->rate->references++;
	return 0;
}

/* All of a group but its sockets and what the workers have of it. */
static int
open_group(struct generation *g, struct listener_group *group)
{
	const struct config_listener *config = group->config;
	size_t i;

	group->ledger = open_ledger(g->reign, config);
	group->deliver = calloc(config->deliver.count, sizeof(struct sink *));
	group->members = calloc(group->n_members, sizeof(struct listener *));
	if (group->ledger == NULL || group->deliver == NULL || group->members == NULL ||
	    choose_spill(g->config, group) == -1 || open_rate(g->reign, group) == -1)
		return no_memory();
	group->limits = &group->ledger->limits;
	group->paced = config->rate_limit.connection != 0 || config->rate_limit.listener != 0;
	for (i = 0; i < config->deliver.count; i++) {
		group->deliver[i] = g->sinks[config->deliver_to[i]];
		group->wants_local |= wants_local(group->deliver[i]->config);
	}
	if (config->incomplete_to != -1) {
		group->incomplete = g->sinks[config->incomplete_to];
		group->wants_local |= wants_local(group->incomplete->config);
	}
	return 0;
}

static void
close_group(struct reign *reign, struct listener_group *group)
{
	unsigned w;

	for (w = 0; group->members != NULL && w < group->n_members; w++) {
		struct listener *l = group->members[w];

		if (l == NULL)
			continue;
		if (l->intake != NULL)
			listener_close(l);
		ledger_add(&group->ledger->gone, &l->counters);
		free(l);
	}
	free(group->members);
	socket_set_close(&reign->sockets, &group->sockets);
	tls_context_free(group->tls);
	if (group->rate != NULL && --group->rate->references == 0)
		free(group->rate);
	free(group->spill_directory);
	free(group->deliver);
}

/* ----------------------------------------------------------------- opening */

int
generation_new(struct generation **made, struct reign *reign, struct config *config)
{
	struct generation *g = calloc(1, sizeof(*g));
	size_t i;

	*made = g;
	if (g == NULL)
		return no_memory();
	g->reign = reign;
	g->config = config_ref(config);
	g->sinks = calloc(config->n_sinks, sizeof(struct sink *));
	g->groups = calloc(config->n_listeners, sizeof(*g->groups));
	g->changes = calloc(reign->n_workers, sizeof(*g->changes));
	if (g->sinks == NULL || g->groups == NULL || g->changes == NULL)
		return no_memory();
	g->n_sinks = config->n_sinks;
	g->n_groups = config->n_listeners;
	for (i = 0; i < g->n_groups; i++)
		g->groups[i] = (struct listener_group){.config = &config->listeners[i],
			.n_members = reign->n_workers, .generation = g};
	return 0;
}

int
generation_bind(struct generation *g)
{
	struct sockets *sockets = &g->reign->sockets;
	size_t i;
	int code = given_check(g->config);

	sockets->n_workers = g->reign->n_workers;
	sockets->round++;
	/* Keys may be root's to read; ports to bind. */
	for (i = 0; i < g->n_groups && code == 0; i++)
		code = tls_open(&g->groups[i].tls, g->groups[i].config);
	for (i = 0; i < g->n_groups && code == 0; i++)
		code = socket_set_open(sockets, &g->groups[i].sockets, g->config,
				       g->groups[i].config);
	return code;
}

int
generation_open(struct generation *g)
{
	static const struct identity ours;
	size_t i;
	int code;

	belongings_make_spill_directory(g->config, &ours);
	code = belongings_check_spill_directory(g->config);
	if (code == 0)
		code = generation_sinks_open(g);
	for (i = 0; i < g->n_groups && code == 0; i++)
		code = open_group(g, &g->groups[i]);
	return code;
}

/* The last listener's message frees it all. */
static void
generation_on_retired(struct inbox_item *item)
{
	struct listener *l = (struct listener *)((char *)item - offsetof(struct listener, retired));
	struct listener_group *group = l->group;
	struct generation *g = group->generation, **at = &g->reign->newest;

	group->members[l->intake->worker->number] = NULL;
	ledger_add(&group->ledger->gone, &l->counters);
	free(l);
	if (--g->n_listeners > 0)
		return;
	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	log_event(LOG_LEVEL_DEBUG, "generation-freed",
		  "the last connection of an earlier configuration has ended");
	generation_free(g);
}

static void
generation_on_taken(struct inbox_item *item)
{
	struct change *change = (struct change *)((char *)item - offsetof(struct change, done));
	struct generation *g = change->listeners[0]->group->generation;
	unsigned w;

	if (--g->n_waiting > 0)
		return;
	for (w = 0; w < g->reign->n_workers; w++)
		intake_change_close(&g->changes[w]);
	g->reign->taken(g);
}

static int
attach(struct generation *g, unsigned worker, size_t n_sinks)
{
	struct change *change = &g->changes[worker];
	struct intake *intake = &g->reign->intakes[worker];
	size_t i;

	if (intake_change_open(change, intake, g->n_groups, n_sinks, generation_on_taken) == -1)
		return -1;
	for (i = 0; i < g->n_groups; i++) {
		struct listener_group *group = &g->groups[i];
		struct listener *l = calloc(1, sizeof(*l));

		group->members[worker] = l;
		if (l == NULL || listener_open(l, intake, group, generation_on_retired) == -1)
			return -1;
		change->listeners[change->n_listeners++] = l;
		g->n_listeners++;
	}
	return 0;
}

int
generation_attach(struct generation *g)
{
	const struct sink *sink;
	size_t n_sinks = 0;
	unsigned w;

	for (sink = g->reign->sinks; sink != NULL; sink = sink->next)
		if (sink->number >= n_sinks)
			n_sinks = sink->number + 1;
	for (w = 0; w < g->reign->n_workers; w++)
		if (attach(g, w, n_sinks) == -1)
			return no_memory();
	return 0;
}

int
generation_start(struct generation *g)
{
	size_t i;
	int code = 0;

	for (i = 0; i < g->n_sinks && code == 0; i++) {
		if (g->sinks[i]->started)
			continue;
		code = sink_start(g->sinks[i]);
		g->sinks[i]->started = code == 0;
	}
	return code;
}

int
generation_listen(struct generation *g)
{
	size_t i;
	int code = 0;

	for (i = 0; i < g->n_groups && code == 0; i++)
		code = socket_set_listen(&g->reign->sockets, &g->groups[i].sockets,
					 g->groups[i].config);
	return code;
}

/* ------------------------------------------------------------------- force */

/* What the workers will find. */
static void
enter(struct generation *g)
{
	size_t i;

	for (i = 0; i < g->n_groups; i++) {
		struct listener_group *group = &g->groups[i];

		group->ledger->in_use = true;
		limits_set(group->limits, group->config->max_connections,
			   group->config->max_connections_per_address);
		socket_set_adjust(&g->reign->sockets, &group->sockets, group->config);
	}
	for (i = 0; i < g->n_sinks; i++)
		g->sinks[i]->account->in_use = true;
	generation_sinks_change(g);
	sockets_leave(&g->reign->sockets);
	g->next = g->reign->newest;
	g->reign->newest = g;
}

void
generation_begin(struct generation *g)
{
	unsigned w;

	enter(g);
	for (w = 0; w < g->reign->n_workers; w++) {
		intake_change_make(&g->changes[w]);
		intake_change_close(&g->changes[w]);
	}
}

void
generation_hand_over(struct generation *g)
{
	unsigned w;

	enter(g);
	g->n_waiting = g->reign->n_workers;
	for (w = 0; w < g->reign->n_workers; w++)
		intake_change_post(&g->changes[w]);
}

void
generation_free(struct generation *g)
{
	unsigned w;
	size_t i;

	if (g == NULL)
		return;
	for (i = 0; i < g->n_groups; i++)
		close_group(g->reign, &g->groups[i]);
	drop_unused_ledgers(g->reign);
	generation_sinks_release(g);
	for (w = 0; g->changes != NULL && w < g->reign->n_workers; w++)
		intake_change_close(&g->changes[w]);
	free(g->changes);
	free(g->groups);
	free(g->sinks);
	config_unref(g->config);
	free(g);
}

void
reign_close(struct reign *reign)
{
	struct generation *g;
	struct ledger *ledger;
	struct account *account;

	reign->closing = true;
	while ((g = reign->newest) != NULL) {
		reign->newest = g->next;
		generation_free(g);
	}
	while ((ledger = reign->ledgers) != NULL) {
		reign->ledgers = ledger->next;
		ledger_free(ledger);
	}
	while ((account = reign->accounts) != NULL) {
		reign->accounts = account->next;
		account_free(account);
	}
}

void
reign_count(const struct reign *reign, const struct ledger *ledger, struct counters *sum)
{
	const struct generation *g;
	unsigned w;
	size_t i;

	*sum = (struct counters){0};
	ledger_add(sum, &ledger->gone);
	for (g = reign->newest; g != NULL; g = g->next)
		for (i = 0; i < g->n_groups; i++)
			for (w = 0; g->groups[i].ledger == ledger && w < reign->n_workers; w++)
				if (g->groups[i].members[w] != NULL)
					ledger_add_balanced(sum, &g->groups[i].members[w]->counters);
}
