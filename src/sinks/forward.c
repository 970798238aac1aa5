/*
 * forward: see forward.h.  The forwarder's thread.
 *
 * All that it does, it does in forward_pump: takes up what is due, hands on what comes
 * next while the window has room, looks at the directory when it has nothing left. It
 * runs when something has arrived, when batches came home, and when the timer says so;
 * idle, it looks once a second whether new/ has changed.
 */
#include "sinks/forward.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sysexits.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/loop.h"
#include "sinks/forward_work.h"

#define TICK UINT64_C(1000000)
#define SOON UINT64_C(20000)
#define LOCK_LEAST UINT64_C(20000)
#define LOCK_SAY UINT64_C(5000000)
#define STEPS 1024 /* of one turn of the loop, with messages that are not handed on */

static void
forward_arm(struct forward *forward, uint64_t when)
{
	uint64_t now = clock_now(), left = when > now ? when - now : 1;
	struct timeval tv = {.tv_sec = (time_t)(left / 1000000),
			     .tv_usec = (suseconds_t)(left % 1000000)};

	if (forward->armed != 0 && forward->armed <= when)
		return;
	/* Where it cannot be set, the last one set is the next tick at the latest. */
	if (event_add(forward->timer, &tv) == 0)
		forward->armed = when;
}

/* ------------------------------------------------------------------ charge */

static void
say_waits(struct forward *forward, uint64_t now)
{
	if (forward->lock_said || now - forward->lock_since < LOCK_SAY)
		return;
	forward->lock_said = true;
	log_event(LOG_LEVEL_NOTICE, "forward-waits",
		  "sink %s: %s: another process hands on from there, or the configuration before has "
		  "something with its sink still; this waits until that has ended",
		  forward->config->name, forward->config->directory);
}

/* The directory's lock goes with its description: to one forwarder of all processes. */
static void
take_charge(struct forward *forward, uint64_t now)
{
	if (now < forward->lock_due)
		return;
	if (forward->new == -1 && forward_directories_open(forward) == -1) {
		forward->lock_due = now + TICK;
		forward_pause(forward, "opening it", errno);
		return;
	}
	if (flock(forward->new, LOCK_EX | LOCK_NB) == -1) {
		if (errno == EWOULDBLOCK || errno == EINTR) {
			forward->lock_wait = forward->lock_wait * 2 < TICK ? forward->lock_wait * 2 : TICK;
			forward->lock_due = now + forward->lock_wait;
			say_waits(forward, now);
			return;
		}
		log_event(LOG_LEVEL_WARNING, "forward-lock",
			  "sink %s: %s/new cannot be locked: %s; no other process may hand on from there",
			  forward->config->name, forward->config->directory, strerror(errno));
	}
	forward->in_charge = true;
	forward->lock_wait = LOCK_LEAST;
	forward->lock_said = false;
	forward->more = true;
}

/* --------------------------------------------------------------- next, and on */

/* Whether there is room for all that may come back, beside what cannot be read: that is
 * no reason not to hand on others. */
static bool
has_room_aside(const struct forward *forward)
{
	return forward->aside.count + forward->front.count + forward->in_flight <
	       FORWARD_ASIDE + forward->n_broken;
}

/* What has not been tried yet: of the last look, and then what is in memory. */
static struct forward_entry *
take_new(struct forward *forward)
{
	struct forward_entry *entry;

	if (!has_room_aside(forward))
		return NULL;
	if (forward->ready_at < forward->n_ready) {
		entry = forward->ready[forward->ready_at++];
		forward_table_put(&forward->known, entry);
		return entry;
	}
	entry = forward->fresh;
	if (entry == NULL)
		return NULL;
	forward->fresh = entry->next;
	if (forward->fresh == NULL)
		forward->fresh_last = &forward->fresh;
	forward_inlet_gone(forward, forward_entry_held(entry));
	return entry;
}

/* Whether another's turn has come: messages that fail again and again, each on its own
 * account, are every second one at the most.  Else many of them would be all that is
 * tried, for the target's trouble that they look like. */
static bool
yields(const struct forward *forward)
{
	return forward->was_again && forward->front.count > 0 &&
	       forward_heap_top(&forward->front)->attempts > 0;
}

/* What is to be handed on next. */
static struct forward_entry *
take_next(struct forward *forward)
{
	struct forward_entry *front = forward_heap_top(&forward->front), *entry = NULL;
	bool first = front != NULL && (forward->ready_at == forward->n_ready ||
				       forward_by_id(front, forward->ready[forward->ready_at]));

	if (!first || yields(forward))
		entry = take_new(forward);
	if (entry == NULL && front != NULL)
		entry = forward_heap_take(&forward->front);
	forward->was_again = entry != NULL && entry->attempts > 0;
	return entry;
}

static bool
is_exhausted(const struct forward *forward)
{
	return forward->ready_at == forward->n_ready && forward->fresh == NULL &&
	       (forward->front.count == 0 || yields(forward));
}

/* Whether to look at the directory now, as nothing is left that is known. */
static bool
wants_scan(const struct forward *forward, uint64_t now)
{
	return is_exhausted(forward) && !forward->held &&
	       (forward->more || (forward->unseen && now >= forward->scan_due));
}

static bool
has_room(const struct forward *forward)
{
	return forward->in_flight < forward->window && forward->files < FORWARD_FILES &&
	       (forward->in_flight == 0 ||
		forward->in_flight_bytes < forward_bytes(FORWARD_WINDOW_BYTES));
}

static void
put_outgoing(struct forward *forward, struct forward_entry *entry)
{
	struct delivery *delivery = &entry->batch->deliveries[0];

	delivery->sink = forward->sink->target;
	delivery->next = NULL;
	*forward->outgoing_last = delivery;
	forward->outgoing_last = &delivery->next;
	forward->n_outgoing++;
	forward->in_flight++;
	forward->in_flight_bytes += forward_entry_held(entry);
	forward->files += entry->batch->n_bodies;
	entry->batch->since = clock_now();
	entry->probe = forward->trouble.lasts;
	forward->trouble.trying |= entry->probe;
	if (entry->tried)
		account_add(&forward->sink->target->account->retried, 1);
	entry->tried = true;
}

static void
send_outgoing(struct forward *forward)
{
	struct delivery *first = forward->outgoing;
	struct sink *target = forward->sink->target;

	if (first == NULL)
		return;
	account_add(&target->account->given, forward->n_outgoing);
	forward->outgoing = NULL;
	forward->outgoing_last = &forward->outgoing;
	forward->n_outgoing = 0;
	sink_deliver(target, first);
}

/* False: it is better to stop here. */
static bool
hand_on(struct forward *forward, struct forward_entry *entry)
{
	if (entry->step != FORWARD_SEND) {
		forward_settle(forward, entry);
		return true;
	}
	if (forward_is_expired(forward, entry)) {
		forward_entry_unload(entry);
		entry->step = FORWARD_FAIL;
		entry->why = "expired";
		forward_settle(forward, entry);
		return true;
	}
	switch (forward_load(forward, entry)) {
	case FORWARD_LOADED:
		forward_set_broken(forward, entry, false);
		forward->pause = 0;
		forward->read_said &= forward->aside.count > 0;
		forward->many_said &= forward->n_broken == FORWARD_BROKEN_MOST;
		put_outgoing(forward, entry);
		return true;
	case FORWARD_FOREIGN:
	case FORWARD_GONE:
		forward_forget(forward, entry);
		return true;
	case FORWARD_BROKEN:
		return forward_pass_over(forward, entry, errno);
	default:
		forward_heap_put(&forward->front, entry);
		forward_pause(forward, "reading", errno);
		return false;
	}
}

/* --------------------------------------------------------------------- pump */

static void
forward_again(struct forward *forward)
{
	event_active(forward->pump, EV_TIMEOUT, 0);
}

/* Hands on until the window is full or nothing is left. */
static void
hand_on_all(struct forward *forward, uint64_t now)
{
	struct forward_entry *entry;
	unsigned steps = 0;

	while (has_room(forward) && forward->pause_due <= now) {
		if (forward->trouble.lasts && !forward_may_try(forward, now))
			break;
		if (wants_scan(forward, now)) {
			send_outgoing(forward); /* it may take a while */
			if (forward_scan(forward) == -1) {
				if (errno != ECANCELED)
					forward_pause(forward, "reading the directory", errno);
				break;
			}
		}
		if (++steps > STEPS) {
			forward_again(forward);
			break;
		}
		entry = take_next(forward);
		if (entry == NULL && forward->trouble.lasts)
			forward_nothing_to_try(forward, now);
		if (entry == NULL || !hand_on(forward, entry))
			break;
	}
	send_outgoing(forward);
}

static void
tick(struct forward *forward, uint64_t now)
{
	if (now < forward->tick_due)
		return;
	forward->tick_due = now + TICK;
	forward_say_sum(forward, now, false);
	if (forward->in_charge)
		forward_look(forward, now);
}

static void
take_up_due(struct forward *forward, uint64_t now)
{
	while (forward->aside.count > 0 && forward_heap_top(&forward->aside)->due <= now &&
	       forward->front.count < FORWARD_ASIDE) {
		struct forward_entry *entry = forward_heap_take(&forward->aside);

		if (entry->step == FORWARD_SEND)
			forward_heap_put(&forward->front, entry);
		else
			forward_settle(forward, entry);
	}
}

/* What wakes it next, besides arrivals and answers. */
static void
arm(struct forward *forward)
{
	const struct forward_entry *top = forward_heap_top(&forward->aside);
	uint64_t now = clock_now();

	forward_arm(forward, forward->tick_due);
	if (!forward->in_charge)
		forward_arm(forward, forward->lock_due);
	if (top != NULL)
		forward_arm(forward, top->due);
	if (forward->trouble.lasts && !forward->trouble.trying && forward->in_flight == 0)
		forward_arm(forward, forward->trouble.due);
	if (forward->pause_due > now)
		forward_arm(forward, forward->pause_due);
	else if (!forward->trouble.lasts && has_room(forward) && wants_scan(forward, now))
		forward_arm(forward, now + SOON);
}

/* Nothing is with the target any more, and nothing will be.  The spool may be there for
 * long: as long as a connection that began with it. */
static void
depart(struct forward *forward)
{
	struct inbox *home;

	if (forward->in_flight > 0 || forward->left)
		return;
	forward->left = true;
	forward_forget_all(forward);
	memory_give_back();
	forward_directories_close(forward); /* and with it the lock */
	forward_say_sum(forward, clock_now(), true);
	pthread_mutex_lock(&forward->inlet.lock);
	home = forward->inlet.home;
	pthread_mutex_unlock(&forward->inlet.lock);
	if (home != NULL)
		inbox_post(home, forward->inlet.left);
}

static void
take_orders(struct forward *forward)
{
	bool goes;

	pthread_mutex_lock(&forward->inlet.lock);
	forward->closing = forward->inlet.closed;
	goes = forward->closing || forward->inlet.home != NULL;
	if (forward->inlet.begun && !forward->begun) {
		forward->begun = true;
		forward->lock_since = clock_now();
	}
	pthread_mutex_unlock(&forward->inlet.lock);
	if (!goes || forward->leaving)
		return;
	forward->leaving = true;
	forward_inlet_shut(forward);
}

static void
forward_pump(evutil_socket_t fd, short what, void *arg)
{
	struct forward *forward = arg;
	uint64_t now;

	(void)fd;
	(void)what;
	take_orders(forward);
	if (forward->leaving) {
		depart(forward);
		if (forward->left && forward->closing)
			event_base_loopbreak(forward->base);
		return;
	}
	if (!forward->begun)
		return;
	forward_inlet_drain(forward);
	now = clock_now();
	tick(forward, now);
	if (!forward->in_charge)
		take_charge(forward, now);
	if (forward->in_charge) {
		take_up_due(forward, now);
		hand_on_all(forward, now);
	}
	arm(forward);
}

static void
forward_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct forward *forward = arg;

	forward->armed = 0;
	forward_pump(fd, what, arg);
}

static void
forward_on_poke(struct inbox_item *item)
{
	struct forward *forward = (struct forward *)((char *)item - offsetof(struct forward, poke));

	pthread_mutex_lock(&forward->inlet.lock);
	forward->inlet.poked = false;
	pthread_mutex_unlock(&forward->inlet.lock);
	forward_again(forward);
}

void
forward_on_home(struct inbox_item *item)
{
	struct batch *batch = (struct batch *)((char *)item - offsetof(struct batch, item));
	const struct forward_letter *letter =
		(const struct forward_letter *)((const char *)batch->origin -
						offsetof(struct forward_letter, origin));
	struct forward *forward = letter->forward;
	struct forward_entry *entry = letter->entry;
	enum outcome outcome = (enum outcome)atomic_load_explicit(&batch->messages[0].outcome,
								  memory_order_relaxed);

	forward->in_flight--;
	forward->in_flight_bytes -= forward_entry_held(entry);
	forward->files -= batch->n_bodies;
	forward_entry_unload(entry);
	if (outcome_is_temporary(outcome)) {
		forward_failed(forward, entry, outcome);
	} else {
		forward_answered(forward, entry);
		entry->attempts = 0;
		entry->step = outcome == OUTCOME_ACCEPTED ? FORWARD_DONE : FORWARD_FAIL;
		entry->why = outcome_name(outcome);
		if (forward->new != -1)
			forward_settle(forward, entry);
		else
			forward_put_aside(forward, entry);
	}
	forward_again(forward);
}

static void *
forward_run(void *arg)
{
	struct forward *forward = arg;

	if (event_base_loop(forward->base, EVLOOP_NO_EXIT_ON_EMPTY) == -1)
		log_event(LOG_LEVEL_ERROR, "loop-failed", "sink %s: the forwarder's event loop failed",
			  forward->config->name);
	return NULL;
}

/* ------------------------------------------------------------ open and close */

static void
forward_free(struct forward *forward)
{
	struct forward_entry *entry;

	forward_inlet_clear(&forward->inlet);
	while ((entry = forward->fresh) != NULL) {
		forward->fresh = entry->next;
		forward_entry_free(entry);
	}
	forward_forget_all(forward);
	free(forward->ready);
	forward_heap_close(&forward->front);
	forward_heap_close(&forward->aside);
	forward_table_close(&forward->known);
	forward_directories_close(forward);
	if (forward->pump != NULL)
		event_free(forward->pump);
	if (forward->timer != NULL)
		event_free(forward->timer);
	inbox_close(&forward->inbox);
	if (forward->base != NULL)
		event_base_free(forward->base);
	free(forward);
}

static int
prepare(struct forward *forward)
{
	forward->base = loop_new();
	if (forward->base == NULL)
		return -1;
	forward->ready = calloc(FORWARD_NAMES, sizeof(struct forward_entry *));
	if (forward->ready == NULL ||
	    forward_heap_open(&forward->front, FORWARD_KNOWN + FORWARD_ASIDE, forward_by_id) == -1 ||
	    forward_heap_open(&forward->aside, FORWARD_KNOWN + FORWARD_BROKEN_MOST, forward_by_due) == -1 ||
	    forward_table_open(&forward->known) == -1) {
		errno = ENOMEM;
		return -1;
	}
	if (inbox_open(&forward->inbox, forward->base) == -1)
		return -1;
	/* Who posts the last answer may wake it when it has ended. */
	if (inbox_lend(&forward->inbox) == -1)
		return -1;
	forward->pump = event_new(forward->base, -1, 0, forward_pump, forward);
	forward->timer = evtimer_new(forward->base, forward_on_timer, forward);
	if (forward->pump == NULL || forward->timer == NULL) {
		errno = ENOMEM;
		return -1;
	}
	return forward_directories_open(forward);
}

struct forward *
forward_open(struct sink *sink)
{
	struct forward *forward = calloc(1, sizeof(*forward));
	int error;

	if (forward == NULL)
		return NULL;
	forward->sink = sink;
	forward->config = sink->config;
	forward->inbox.fd = -1;
	forward->new = forward->failed = forward->done = -1;
	forward->poke.run = forward_on_poke;
	forward->fresh_last = &forward->fresh;
	forward->outgoing_last = &forward->outgoing;
	forward->lock_wait = LOCK_LEAST;
	forward_inlet_init(&forward->inlet);
	if (prepare(forward) == 0)
		return forward;
	error = errno;
	forward_free(forward);
	errno = error;
	return NULL;
}

int
forward_start(struct forward *forward)
{
	int code = sink_start_thread(forward->sink, &forward->thread, "fwd", forward_run, forward);

	forward->started = code == 0;
	return code;
}

static void
poke(struct forward *forward)
{
	bool wake;

	pthread_mutex_lock(&forward->inlet.lock);
	wake = !forward->inlet.poked;
	forward->inlet.poked = true;
	pthread_mutex_unlock(&forward->inlet.lock);
	if (wake)
		inbox_post(&forward->inbox, &forward->poke);
}

void
forward_begin(struct forward *forward)
{
	forward->window = forward_window(forward->sink->target->config);
	pthread_mutex_lock(&forward->inlet.lock);
	forward->inlet.begun = true;
	pthread_mutex_unlock(&forward->inlet.lock);
	poke(forward);
}

void
forward_leave(struct forward *forward, struct inbox *home, struct inbox_item *left)
{
	atomic_store(&forward->hasty, true);
	pthread_mutex_lock(&forward->inlet.lock);
	forward->inlet.home = home;
	forward->inlet.left = left;
	pthread_mutex_unlock(&forward->inlet.lock);
	poke(forward);
}

void
forward_close(struct forward *forward)
{
	if (forward == NULL)
		return;
	if (forward->started) {
		atomic_store(&forward->hasty, true);
		pthread_mutex_lock(&forward->inlet.lock);
		forward->inlet.closed = true;
		pthread_mutex_unlock(&forward->inlet.lock);
		poke(forward);
		pthread_join(forward->thread, NULL);
	}
	forward_free(forward);
}
