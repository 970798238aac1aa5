/*
 * intake: see intake.h.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include <event2/buffer.h>
#include <event2/event.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "message/body.h"
#include "message/message.h"
#include "sinks/sink.h"
#include "worker.h"

#define OUTBOX_MOST 64       /* deliveries that wait for the end of a turn */
#define HUNGER_LOOK 20000    /* microseconds between looks whether there is memory */
#define RELIEF_PAUSE 50000   /* between two rounds of spilling */
#define RELIEF_WORTH 4096    /* what it pays to spill, unless nothing else is left */

static const struct timeval hunger_look = {.tv_usec = HUNGER_LOOK};

static void
intake_on_burial(evutil_socket_t fd, short what, void *arg)
{
	struct intake *intake = arg;
	struct connection *c, *next = intake->buried;

	(void)fd;
	(void)what;
	intake->buried = NULL;
	while ((c = next) != NULL) {
		next = c->starved_next;
		connection_free(c);
	}
	if (intake->stop != INTAKE_RUNS && intake->n_connections == 0)
		worker_end(intake->worker);
}

void
intake_bury(struct intake *intake, struct connection *c)
{
	if (c->buried)
		return;
	c->buried = true;
	c->starved_next = intake->buried;
	intake->buried = c;
	/* Whoever brought it here may still look at it: it is freed when the loop
	 * comes round. */
	event_active(intake->burial, EV_TIMEOUT, 0);
}

static void
intake_on_summary(evutil_socket_t fd, short what, void *arg)
{
	struct intake *intake = arg;
	struct listener *l;

	(void)fd;
	(void)what;
	for (l = intake->listeners; l != NULL; l = l->next)
		listener_sum_up(l);
}

void
intake_damped(struct intake *intake)
{
	struct timeval tv = {.tv_sec = DAMPER_INTERVAL / 1000000};

	if (!event_pending(intake->summary, EV_TIMEOUT, NULL))
		event_add(intake->summary, &tv);
}

/* --------------------------------------------------------------- deliveries */

static void
outbox_empty(struct outbox *box)
{
	struct delivery *first = box->first;

	if (first == NULL)
		return;
	box->first = NULL;
	box->last = &box->first;
	box->count = 0;
	account_add(&box->sink->account->given, box->messages);
	box->messages = 0;
	sink_deliver(box->sink, first);
}

static void
intake_on_hand_over(evutil_socket_t fd, short what, void *arg)
{
	struct intake *intake = arg;
	size_t i;

	(void)fd;
	(void)what;
	for (i = 0; i < intake->n_outboxes; i++)
		outbox_empty(&intake->outboxes[i]);
}

/* One lock and one wake-up for all that a turn of the loop has brought, not one for each
 * connection: the event is active behind those of the connections that are ready now. */
void
intake_deliver(struct intake *intake, struct sink *sink, struct delivery *delivery)
{
	struct outbox *box = &intake->outboxes[sink->number];

	delivery->next = NULL;
	box->sink = sink;
	*box->last = delivery;
	box->last = &delivery->next;
	box->messages += delivery->batch->count;
	if (++box->count >= OUTBOX_MOST)
		outbox_empty(box);
	else if (box->count == 1)
		event_active(intake->hand_over, EV_TIMEOUT, 0);
}

/* ------------------------------------------------------------------ memory */

static void
spill_all(struct intake *intake, size_t worth)
{
	struct connection *c;

	for (c = intake->connections; c != NULL && memory_over(); c = c->next)
		if (c->body != NULL && c->body->file == -1 && c->body->charged >= worth)
			(void)feed_spill(c); /* it may wait in memory, then */
}

void
intake_relieve(struct intake *intake)
{
	uint64_t now = clock_now();

	if (now - intake->relieved < RELIEF_PAUSE)
		return;
	intake->relieved = now;
	spill_all(intake, RELIEF_WORTH);
	spill_all(intake, 0);
}

static void
intake_on_relieve(struct inbox_item *item)
{
	struct intake *intake =
		(struct intake *)((char *)item - offsetof(struct intake, relieve_item));

	atomic_store(&intake->relieve_posted, false);
	if (memory_over())
		intake_relieve(intake);
}

void
intake_starve(struct intake *intake, struct connection *c)
{
	if (c->starved)
		return;
	c->starved = true;
	c->starved_next = NULL;
	*intake->starved_last = c;
	intake->starved_last = &c->starved_next;
	if (!event_pending(intake->hunger, EV_TIMEOUT, NULL))
		event_add(intake->hunger, &hunger_look);
}

void
intake_unstarve(struct intake *intake, struct connection *c)
{
	struct connection **at;

	if (!c->starved)
		return;
	for (at = &intake->starved; *at != c; at = &(*at)->starved_next)
		;
	*at = c->starved_next;
	if (intake->starved_last == &c->starved_next)
		intake->starved_last = at;
	c->starved = false;
}

/* Feeds those who wait, in turn, for as long as there is memory.  Where there is
 * none, the other workers are asked to spill, too. */
static void
intake_on_hunger(evutil_socket_t fd, short what, void *arg)
{
	struct intake *intake = arg;
	struct connection *c;
	unsigned i;

	(void)fd;
	(void)what;
	while ((c = intake->starved) != NULL && memory_room()) {
		intake_unstarve(intake, c);
		receive_run(c);
		connection_advance(c);
	}
	if (intake->starved == NULL)
		return;
	event_add(intake->hunger, &hunger_look);
	if (!memory_over())
		return;
	intake_relieve(intake);
	for (i = 0; i < intake->n_siblings; i++)
		if (!atomic_exchange(&intake->siblings[i].relieve_posted, true))
			inbox_post(&intake->siblings[i].worker->inbox,
				   &intake->siblings[i].relieve_item);
}

/* -------------------------------------------------------------------- stop */

static void
intake_on_stop(struct inbox_item *item)
{
	struct intake *intake = (struct intake *)((char *)item - offsetof(struct intake, stop_item));
	enum intake_stop wanted;
	struct connection *c, *next;
	struct listener *l;

	atomic_store(&intake->stop_posted, false);
	wanted = (enum intake_stop)atomic_load(&intake->stop_wanted);
	if (wanted <= intake->stop)
		return;
	if (intake->stop == INTAKE_RUNS)
		for (l = intake->listeners; l != NULL; l = l->next)
			listener_stop(l);
	intake->stop = wanted;
	for (c = intake->connections; c != NULL; c = next) {
		next = c->next; /* connections are freed later, see intake_bury */
		connection_stop(c);
	}
	if (intake->n_connections == 0)
		worker_end(intake->worker);
}

void
intake_stop(struct intake *intake, enum intake_stop level)
{
	atomic_store(&intake->stop_wanted, (int)level);
	if (!atomic_exchange(&intake->stop_posted, true))
		inbox_post(&intake->worker->inbox, &intake->stop_item);
}

/* ------------------------------------------------------------------ change */

static void
outboxes_clear(struct outbox *outboxes, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		outboxes[i] = (struct outbox){.last = &outboxes[i].first};
}

/* Takes the new listeners in and lets go of the old ones, whose connections go on.  The
 * new ones come first: a socket that both have does not miss a connection, and whoever
 * waits for a place keeps it. */
void
intake_change_make(struct change *change)
{
	struct intake *intake = change->intake;
	struct listener *old = intake->listeners, *l, *next, *end;
	struct outbox *boxes = intake->outboxes;
	size_t n = intake->n_outboxes, i;

	if (change->outboxes != NULL) {
		for (i = 0; i < n; i++)
			outbox_empty(&boxes[i]);
		intake->outboxes = change->outboxes;
		intake->n_outboxes = change->n_outboxes;
		change->outboxes = boxes;
		change->n_outboxes = n;
	}
	/* Those that were old already stand behind these, and stay as they are. */
	for (l = old; l != NULL && !l->old; l = l->next)
		listener_yield(l);
	end = l;
	for (i = change->n_listeners; i-- > 0;)
		listener_take(change->listeners[i]);
	for (l = old; l != end; l = next) {
		next = l->next;
		listener_leave(l);
	}
}

static void
intake_on_change(struct inbox_item *item)
{
	struct change *change = (struct change *)((char *)item - offsetof(struct change, item));

	intake_change_make(change);
	inbox_post(change->intake->worker->parent, &change->done);
}

void
intake_change_post(struct change *change)
{
	inbox_post(&change->intake->worker->inbox, &change->item);
}

int
intake_change_open(struct change *change, struct intake *intake, size_t n_listeners, size_t n_sinks,
		   void (*done)(struct inbox_item *item))
{
	*change = (struct change){.intake = intake};
	change->item.run = intake_on_change;
	change->done.run = done;
	change->listeners = calloc(n_listeners, sizeof(struct listener *));
	if (change->listeners == NULL)
		return -1;
	if (n_sinks <= intake->n_outboxes) /* which only a change changes */
		return 0;
	change->outboxes = calloc(n_sinks, sizeof(*change->outboxes));
	if (change->outboxes == NULL)
		return -1;
	change->n_outboxes = n_sinks;
	outboxes_clear(change->outboxes, n_sinks);
	return 0;
}

void
intake_change_close(struct change *change)
{
	free(change->listeners);
	free(change->outboxes);
	*change = (struct change){0};
}

struct greeter *
intake_greeter(struct intake *intake)
{
	return &intake->siblings[intake->worker->number & ~1U].greeter;
}

/* ------------------------------------------------------------- open, close */

int
intake_open(struct intake *intake, struct worker *worker, struct intake *siblings,
	    unsigned n_siblings)
{
	struct event_base *base = worker->base;

	*intake = (struct intake){
		.worker = worker, .siblings = siblings, .n_siblings = n_siblings};
	intake->stop_item.run = intake_on_stop;
	intake->relieve_item.run = intake_on_relieve;
	intake->starved_last = &intake->starved;
	if (id_generator_init(&intake->ids) == -1)
		return -1;
	errno = ENOMEM;
	intake->scratch = calloc(INTAKE_BATCH + 1, sizeof(*intake->scratch));
	intake->replies = evbuffer_new();
	intake->hand_over = evtimer_new(base, intake_on_hand_over, intake);
	intake->burial = evtimer_new(base, intake_on_burial, intake);
	intake->hunger = evtimer_new(base, intake_on_hunger, intake);
	intake->summary = evtimer_new(base, intake_on_summary, intake);
	if (intake->hand_over == NULL || intake->scratch == NULL || intake->replies == NULL ||
	    intake->burial == NULL || intake->hunger == NULL || intake->summary == NULL ||
	    deadlines_open(&intake->deadlines, base, timeout_on_deadline) == -1)
		return -1;
	return 0;
}

void
intake_close(struct intake *intake)
{
	greeter_end(&intake->greeter);
	if (intake->summary != NULL && event_pending(intake->summary, EV_TIMEOUT, NULL))
		intake_on_summary(-1, 0, intake);
	while (intake->listeners != NULL)
		listener_close(intake->listeners);
	deadlines_close(&intake->deadlines);
	free(intake->outboxes);
	if (intake->hand_over != NULL)
		event_free(intake->hand_over);
	if (intake->burial != NULL)
		event_free(intake->burial);
	if (intake->hunger != NULL)
		event_free(intake->hunger);
	if (intake->summary != NULL)
		event_free(intake->summary);
	if (intake->replies != NULL)
		evbuffer_free(intake->replies);
	free(intake->scratch);
}
