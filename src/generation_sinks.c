/*
 * generation_sinks: see generation_sinks.h.
 *
 * A sink is open as long as a generation refers to it, or another sink hands on to it.
 * One that has something of its own at another sink is closed only when that has been
 * answered, and nobody waits for it here: it says so by an item.
 */
#include "generation_sinks.h"

#include <stddef.h>
#include <string.h>
#include <sysexits.h>

#include "base/log.h"
#include "config/compare.h"
#include "config/config.h"
#include "sinks/sink.h"

static int
no_memory(void)
{
	log_event(LOG_LEVEL_ERROR, "out-of-memory", "out of memory");
	return EX_OSERR;
}

/* The lowest number that no open sink has: outboxes go by it. */
static unsigned
free_number(const struct reign *reign)
{
	const struct sink *sink;
	unsigned number = 0;

	for (sink = reign->sinks; sink != NULL;) {
		if (sink->number == number) {
			number++;
			sink = reign->sinks;
		} else {
			sink = sink->next;
		}
	}
	return number;
}

/* The sink with these settings, or NULL.  -1: no memory to know that. */
static int
find_sink(const struct reign *reign, const struct config_sink *settings, struct sink **found)
{
	enum comparison same = COMPARE_DIFFERENT;

	for (*found = reign->sinks; *found != NULL; *found = (*found)->next)
		if (!(*found)->leaving &&
		    (same = compare_sinks((*found)->config, settings)) != COMPARE_DIFFERENT)
			break;
	return same == COMPARE_NO_MEMORY ? -1 : 0;
}

static struct account *
find_account(struct reign *reign, const char *name)
{
	struct account *account;

	for (account = reign->accounts; account != NULL; account = account->next)
		if (strcmp(account->name, name) == 0)
			return account;
	account = account_new(name);
	if (account == NULL)
		return NULL;
	account->next = reign->accounts;
	reign->accounts = account;
	return account;
}

static int
open_sink(struct generation *g, size_t i)
{
	struct reign *reign = g->reign;
	struct sink *sink;
	struct account *account = find_account(reign, g->config->sinks[i].name);
	unsigned number = free_number(reign);
	int code;

	if (account == NULL || find_sink(reign, &g->config->sinks[i], &sink) == -1)
		return no_memory();
	if (sink == NULL) {
		code = sink_open(&sink, g->config, &g->config->sinks[i]);
		if (code != 0)
			return code;
		sink->number = number;
		sink->account = account;
		sink->next = reign->sinks;
		reign->sinks = sink;
	}
	sink->references++;
	g->sinks[i] = sink;
	return 0;
}

static void release_sink(struct reign *reign, struct sink *sink);

/* What it hands on to is closed after it. */
static void
close_sink(struct reign *reign, struct sink *sink)
{
	struct sink **at = &reign->sinks, *target = sink->target;

	while (*at != sink)
		at = &(*at)->next;
	*at = sink->next;
	sink_close(sink);
	release_sink(reign, target);
}

static void
reign_on_left(struct inbox_item *item)
{
	struct sink *sink = (struct sink *)((char *)item - offsetof(struct sink, left_item));
	struct reign *reign = sink->owner;

	sink->left = true;
	if (sink->references == 0)
		close_sink(reign, sink);
	reign->left(reign);
}

static void
leave_sink(struct reign *reign, struct sink *sink)
{
	if (sink->leaving || !sink->begun || sink->kind->leave == NULL)
		return;
	sink->owner = reign;
	sink->left_item.run = reign_on_left;
	sink->leaving = true;
	sink->left = !sink->kind->leave(sink, reign->inbox, &sink->left_item);
}

static void
release_sink(struct reign *reign, struct sink *sink)
{
	if (sink == NULL || --sink->references > 0)
		return;
	/* One that has something at another sink is closed when that is answered: nothing
	 * waits for it here. */
	if (!reign->closing)
		leave_sink(reign, sink);
	if (reign->closing || !sink->leaving || sink->left)
		close_sink(reign, sink);
}

/* Sinks that hand on to others have them as long as they live. */
static void
link_sinks(struct generation *g)
{
	size_t i;

	for (i = 0; i < g->n_sinks; i++) {
		struct sink *sink = g->sinks[i];

		if (sink->config->forward_to == NULL || sink->target != NULL)
			continue;
		/* It has just been opened, with these settings. */
		sink->target = g->sinks[sink->config->forward_to - g->config->sinks];
		sink->target->references++;
	}
}

void
reign_leave(struct reign *reign)
{
	struct sink *sink;

	for (sink = reign->sinks; sink != NULL; sink = sink->next)
		leave_sink(reign, sink);
}

bool
reign_is_leaving(const struct reign *reign)
{
	const struct sink *sink;

	for (sink = reign->sinks; sink != NULL; sink = sink->next)
		if (sink->leaving && !sink->left)
			return true;
	return false;
}

bool
generation_has_sink(const struct generation *g, const struct sink *sink)
{
	size_t i;

	for (i = 0; i < g->n_sinks; i++)
		if (g->sinks[i] == sink)
			return true;
	return false;
}

/* Those of the generations before take what their connections send, and hand nothing on:
 * their places may be others' now. */
void
generation_sinks_change(struct generation *g)
{
	struct sink *sink;

	for (sink = g->reign->sinks; sink != NULL; sink = sink->next) {
		if (!generation_has_sink(g, sink))
			leave_sink(g->reign, sink);
		else if (!sink->begun && sink->kind->begin != NULL)
			sink->kind->begin(sink);
		sink->begun = true;
	}
}

int
generation_sinks_open(struct generation *g)
{
	size_t i;
	int code = 0;

	for (i = 0; i < g->n_sinks && code == 0; i++)
		code = open_sink(g, i);
	if (code == 0)
		link_sinks(g);
	return code;
}

void
generation_sinks_release(struct generation *g)
{
	size_t i;

	for (i = 0; i < g->n_sinks; i++)
		release_sink(g->reign, g->sinks[i]);
}
