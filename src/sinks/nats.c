/*
 * nats: messages for a stream of NATS JetStream.
 *
 * One thread takes messages from the workers and publishes them, at most 2048 of them
 * and 16 MiB ahead of the stream's acknowledgements, which come in a thread of the
 * library.  A message is accepted when the stream has acknowledged it.  Until then, and
 * for no longer than `timeout` after it was whole, it is sent again when the connection
 * was lost, when the stream had no leader, and when no answer came; its id makes the
 * stream drop the copies.
 *
 * While there is no connection (or no leader) messages wait, so that a server that is
 * started anew or an election costs nobody a refusal; when that has lasted for `timeout`,
 * or the stream is not there at all, new ones are refused at once, so that whoever keeps
 * them learns of it.
 *
 * Not js_PublishMsgAsync of libnats 3.4.1: it keeps a record of each message until its
 * longest wait is over, whether it was answered or not, keeps its bytes a second time,
 * and has no way to forget one.  What it does else is the protocol of acknowledgements,
 * which is a request with headers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "sinks/kinds.h"
#include "sinks/nats_flight.h"
#include "sinks/nats_options.h"

#define IDLE UINT64_C(1000000) /* between two looks round when there is nothing to do */

/* What has not been begun, and is not going to be. */
static struct delivery *
refuse(struct nats *n, uint64_t now, enum outcome *outcome)
{
	struct nats_link *link = n->link;
	struct delivery *delivery = n->first;
	bool at_once = link->hurried || link->state == NATS_LINK_UNFIT ||
		       (link->state == NATS_LINK_DOWN &&
			now - link->since >= n->sink->config->timeout);

	*outcome = link->hurried			 ? OUTCOME_SHUTDOWN
		   : link->state == NATS_LINK_OPEN ? OUTCOME_TIMEOUT
						   : OUTCOME_UNAVAILABLE;
	if (delivery == NULL || (!at_once && now < nats_flight_deadline(n, delivery->batch)))
		return NULL;
	n->first = delivery->next;
	if (n->first == NULL)
		n->last = &n->first;
	return delivery;
}

/* The rest of the work at the head, when it is not going to be begun either. */
static void
refuse_rest(struct nats *n, uint64_t now, struct nats_work **done)
{
	struct nats_link *link = n->link;
	struct nats_work *work = n->head;
	enum outcome outcome = link->hurried ? OUTCOME_SHUTDOWN : OUTCOME_UNAVAILABLE;
	struct batch *batch;

	if (work == NULL)
		return;
	batch = work->delivery->batch;
	if (!link->hurried && link->state != NATS_LINK_UNFIT && now < nats_flight_deadline(n, batch))
		return;
	n->head = NULL;
	while (work->begun < batch->count) {
		message_settle(&batch->messages[work->begun++], outcome);
		work->n_failed++;
	}
	if (work->flying > 0)
		return;
	work->next = *done;
	*done = work;
}

static void
wait_for_work(struct nats *n, uint64_t now)
{
	uint64_t until = now + IDLE;
	struct timespec time;

	if (n->n_free < NATS_WINDOW || n->first != NULL || n->head != NULL)
		until = n->next_look > now ? n->next_look : now + 1000;
	time.tv_sec = (time_t)(until / 1000000);
	time.tv_nsec = (long)(until % 1000000) * 1000;
	n->sleeping = true;
	pthread_cond_timedwait(&n->link->wake, &n->link->lock, &time);
	n->sleeping = false;
}

/* One step; the lock is held.  False: there is nothing to do now. */
static bool
step(struct nats *n, uint64_t now, struct nats_work **done)
{
	struct nats_link *link = n->link;
	struct nats_flight *flight;

	if (link->state != NATS_LINK_OPEN || link->hurried)
		return false;
	while (n->at_due < n->n_due) {
		flight = &n->flights[n->due[n->at_due++]];
		/* It may have been answered meanwhile, and its place have another message. */
		if (flight->work == NULL || flight->answered ||
		    (now < flight->due && flight->epoch == link->epoch))
			continue;
		nats_flight_publish(n, flight, done);
		return true;
	}
	flight = nats_flight_begin(n);
	if (flight == NULL)
		return false;
	nats_flight_publish(n, flight, done);
	return true;
}

static void *
nats_run(void *arg)
{
	struct nats *n = arg;
	struct nats_link *link = n->link;
	unsigned epoch = 0, steps = 0;
	enum nats_link_state state = NATS_LINK_DOWN;

	pthread_mutex_lock(&link->lock);
	while (!n->closed || n->first != NULL || n->head != NULL || nats_flying(n) > 0) {
		uint64_t now = clock_now();
		struct nats_work *done = NULL;
		struct delivery *refused;
		enum outcome outcome;
		bool busy;

		if (now >= n->next_look || link->epoch != epoch || link->state != state ||
		    link->hurried) {
			epoch = link->epoch;
			state = link->state;
			refuse_rest(n, now, &done);
			nats_flight_look(n, now, &done);
			now = clock_now(); /* the link may be in another state since */
		}
		refused = refuse(n, now, &outcome);
		busy = step(n, now, &done);
		if (refused != NULL || done != NULL) {
			bool down = refused != NULL && outcome == OUTCOME_UNAVAILABLE;
			char why[sizeof(link->why)];

			memcpy(why, link->why, sizeof(why));
			pthread_mutex_unlock(&link->lock);
			if (down)
				nats_flight_fail(n, why);
			if (refused != NULL)
				sink_answer(refused, outcome);
			nats_flight_answer_all(n, done);
			pthread_mutex_lock(&link->lock);
		} else if (!busy && !(n->closed && nats_flying(n) == 0 && n->first == NULL && n->head == NULL)) {
			wait_for_work(n, now);
		} else if (++steps % 64 == 0) {
			/* Let those in who wait for the lock. */
			pthread_mutex_unlock(&link->lock);
			pthread_mutex_lock(&link->lock);
		}
	}
	pthread_mutex_unlock(&link->lock);
	nats_ReleaseThreadMemory();
	return NULL;
}

/* ------------------------------------------------------------ open and close */

static void
nats_free(struct nats *n)
{
	if (n->has_claim)
		nats_claim_close(&n->claim);
	free(n->works);
	free(n->flights);
	free(n->free_flights);
	free(n->due);
	free(n);
}

static bool
prepare(struct nats *n)
{
	unsigned i;

	n->works = calloc(NATS_WINDOW + 1, sizeof(*n->works)); /* one for the head */
	n->flights = calloc(NATS_WINDOW, sizeof(*n->flights));
	n->free_flights = calloc(NATS_WINDOW, sizeof(*n->free_flights));
	n->due = calloc(NATS_WINDOW, sizeof(*n->due));
	if (n->works == NULL || n->flights == NULL || n->free_flights == NULL || n->due == NULL)
		return false;
	for (i = 0; i <= NATS_WINDOW; i++) {
		n->works[i].next = n->free_works;
		n->free_works = &n->works[i];
	}
	for (i = NATS_WINDOW; i-- > 0;) {
		n->flights[i].token = i;
		n->free_flights[n->n_free++] = i;
	}
	n->last = &n->first;
	return true;
}

static int
nats_open(struct sink *sink)
{
	struct nats *n = calloc(1, sizeof(*n));
	int code;

	if (n == NULL || !prepare(n)) {
		if (n != NULL)
			nats_free(n);
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: out of memory", sink->config->name);
		return EX_OSERR;
	}
	n->sink = sink;
	sink->state = n;
	code = nats_link_open(&n->link, sink, nats_flight_answered);
	if (code != 0)
		nats_free(n);
	return code;
}

static bool
nats_check(const struct config_sink *config, FILE *to)
{
	natsOptions *options = NULL;
	char why[256];

	if (nats_options_new(&options, config, why, sizeof(why)) != 0) {
		fprintf(to, "%s:%d: sink \"%s\": %s\n", config->place.file, config->place.line,
			config->name, why);
		return false;
	}
	natsOptions_Destroy(options);
	return true;
}

static int
nats_start(struct sink *sink)
{
	struct nats *n = sink->state;
	int code = sink_start_thread(sink, &n->thread, "nats", nats_run, n);

	n->started = code == 0;
	return code != 0 ? code : nats_link_start(n->link);
}

static void
nats_deliver(struct sink *sink, struct delivery *first)
{
	struct nats *n = sink->state;
	struct delivery *last = first;
	bool wake;

	while (last->next != NULL)
		last = last->next;
	pthread_mutex_lock(&n->link->lock);
	wake = n->sleeping && n->first == NULL && n->head == NULL;
	*n->last = first;
	n->last = &last->next;
	pthread_mutex_unlock(&n->link->lock);
	if (wake)
		pthread_cond_signal(&n->link->wake);
}

static void
nats_hurry(struct sink *sink)
{
	struct nats *n = sink->state;

	pthread_mutex_lock(&n->link->lock);
	n->link->hurried = true;
	pthread_cond_signal(&n->link->wake);
	pthread_mutex_unlock(&n->link->lock);
}

static void
nats_close(struct sink *sink)
{
	struct nats *n = sink->state;

	pthread_mutex_lock(&n->link->lock);
	n->closed = true;
	pthread_cond_signal(&n->link->wake);
	pthread_mutex_unlock(&n->link->lock);
	if (n->started)
		pthread_join(n->thread, NULL);
	nats_link_close(n->link);
	nats_free(n);
}

const struct sink_kind sink_kind_nats = {
	.name = "nats",
	.open = nats_open,
	.check = nats_check,
	.start = nats_start,
	.deliver = nats_deliver,
	.hurry = nats_hurry,
	.close = nats_close,
};
