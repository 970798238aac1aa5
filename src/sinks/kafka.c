/*
 * kafka: messages go to a topic of Kafka's, by librdkafka.
 *
 * The producer is idempotent and wants to hear from all replicas in sync, so a message that
 * is accepted is in the topic, once, in the order in which it was handed over among those
 * of its partition.  "In" is what Kafka means by it: in the page caches of those machines.
 *
 * A queue of the library's that is full is waited for, and so is memory: whoever sends
 * waits, nothing is lost.  A message is given up when `timeout` is over: RETRY unavailable
 * when no broker can be reached, else RETRY timeout.  While something is wrong and nobody
 * sends, the cluster is asked once in a while whether that is over.  A producer that has
 * given up (a fatal error) is replaced; what it had in flight is RETRY unavailable.  When
 * the time for a stop is over, all that is left is RETRY shutdown.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "sinks/kafka.h"
#include "sinks/kafka_producer.h"
#include "sinks/kinds.h"

#define PATIENCE 500			  /* milliseconds between two looks at what is wrong */
#define OPEN_AFTER UINT64_C(1000000)	  /* between two producers */
#define PROBE_AFTER UINT64_C(1000000)	  /* between two probes, growing ... */
#define PROBE_AFTER_MAX UINT64_C(32000000) /* ... when they do not tell the truth */
#define LOG_LINES 20			  /* of the library's in ten seconds */
#define FINISH_MORE UINT64_C(5000000)	  /* past `timeout`, when reports must have come */

/* ----------------------------------------------------------------- waiting */

/* For one report more, or 100 ms. */
static void
wait_for_report(struct kafka *k)
{
	struct timespec until;
	uint64_t seen;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += 100000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&k->lock);
	seen = k->reports;
	while (k->reports == seen && k->in_flight > 0 && !atomic_load(&k->hurried) &&
	       pthread_cond_timedwait(&k->reported, &k->lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&k->lock);
}

static uint64_t
in_flight(struct kafka *k)
{
	uint64_t n;

	pthread_mutex_lock(&k->lock);
	n = k->in_flight;
	pthread_mutex_unlock(&k->lock);
	return n;
}

/* Until all is reported, or the time is over, or somebody hurries. */
static void
wait_for_all(struct kafka *k)
{
	uint64_t until = clock_now() + k->sink->config->timeout + FINISH_MORE;

	while (in_flight(k) > 0 && !atomic_load(&k->hurried) && !atomic_load(&k->fatal) &&
	       clock_now() < until)
		wait_for_report(k);
}

/* ------------------------------------------------------------ the producer */

static void
drop_producer(struct kafka *k, enum outcome outcome)
{
	if (k->producer == NULL)
		return;
	kafka_producer_close(k->producer);
	k->producer = NULL;
	kafka_settle_all(k, outcome);
}

/* Producers that give up one after the other are made at a pace; meanwhile messages wait. */
static void
wait_for_pace(struct kafka *k)
{
	struct timespec until;
	uint64_t now = clock_now();

	if (now >= k->next_open)
		return;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)((k->next_open - now) * 1000); /* OPEN_AFTER at most */
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	pthread_mutex_lock(&k->lock);
	while (!atomic_load(&k->hurried) &&
	       pthread_cond_timedwait(&k->reported, &k->lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&k->lock);
}

/* Whether there is one, perhaps a new one. */
static bool
have_producer(struct kafka *k)
{
	char error[KAFKA_ERROR_LEN];
	uint64_t now;

	if (atomic_load(&k->fatal) && k->producer != NULL) {
		rd_kafka_fatal_error(k->producer->rk, error, sizeof error);
		log_event(LOG_LEVEL_WARNING, "kafka-renewed",
			  "sink %s: %s: the producer has given up, and another takes its place: %s",
			  k->sink->config->name, k->what, error);
		sink_failing_as(k->sink, k->what, error);
		atomic_store(&k->last_failure, clock_now());
		drop_producer(k, OUTCOME_UNAVAILABLE);
	}
	atomic_store(&k->fatal, false);
	if (k->producer == NULL && !k->unopened)
		wait_for_pace(k);
	now = clock_now();
	if (k->producer != NULL || now < k->next_open || atomic_load(&k->hurried))
		return k->producer != NULL;
	k->next_open = now + OPEN_AFTER;
	k->producer = kafka_producer_open(k, error);
	k->unopened = k->producer == NULL;
	if (k->unopened)
		sink_failing_as(k->sink, k->what, error);
	return k->producer != NULL;
}

/* Batches of half the size: the topic takes less than it was sent. */
static void
shrink(struct kafka *k)
{
	size_t size = k->producer->batch_size / 2;

	wait_for_all(k);
	drop_producer(k, OUTCOME_UNAVAILABLE);
	k->next_open = 0;
	atomic_store(&k->shrink, false);
	k->batch_size = size > 0 ? size : 1;
	log_event(LOG_LEVEL_WARNING, "kafka-batches",
		  "sink %s: %s: a broker finds batches too large (max.message.bytes of the topic): "
		  "from now on they have %zu bytes; set batch.size in properties to save this search",
		  k->sink->config->name, k->what, k->batch_size);
}

static void
probe(struct kafka *k)
{
	char error[KAFKA_ERROR_LEN], why[KAFKA_ERROR_LEN + sizeof k->why];
	const char *fault = kafka_producer_probe(k->producer, error);
	bool ready = sink_is_ready(k->sink);

	if (fault == NULL) {
		atomic_store(&k->down, false);
		atomic_store(&k->last_failure, 0);
		sink_well(k->sink);
		/* If it fails again without a success in between, this was no help. */
		if (!ready && k->probe_delay < PROBE_AFTER_MAX)
			k->probe_delay *= 2;
		k->next_probe = 0;
		return;
	}
	pthread_mutex_lock(&k->lock);
	snprintf(why, sizeof why, "%s%s%s", fault, k->why[0] != '\0' ? "; " : "", k->why);
	pthread_mutex_unlock(&k->lock);
	if (ready)
		sink_failing_as(k->sink, k->what, why);
	k->next_probe = clock_now() + PROBE_AFTER;
}

static bool
is_in_trouble(struct kafka *k)
{
	return k->producer == NULL || atomic_load(&k->down) ||
	       atomic_load(&k->last_failure) != 0 || !sink_is_ready(k->sink);
}

/* What there is to do besides sending. */
static void
look_after(struct kafka *k)
{
	uint64_t now;

	if (atomic_load(&k->hurried)) {
		drop_producer(k, OUTCOME_SHUTDOWN);
		return;
	}
	if (have_producer(k) && atomic_load(&k->shrink)) {
		shrink(k);
		(void)have_producer(k);
	}
	now = clock_now();
	if (atomic_exchange(&k->succeeded, false))
		k->probe_delay = PROBE_AFTER;
	if (k->next_probe == 0 && is_in_trouble(k))
		k->next_probe = now + k->probe_delay;
	if (k->next_probe != 0 && now >= k->next_probe && k->producer != NULL)
		probe(k);
	queue_patience(&k->queue, k->next_probe != 0 || k->producer == NULL ? PATIENCE : 0);
}

/* ----------------------------------------------------------------- sending */

/* What holds memory already goes first. */
static void
wait_for_memory(struct kafka *k)
{
	while (memory_over() && in_flight(k) > 0 && !atomic_load(&k->hurried) &&
	       !atomic_load(&k->fatal))
		wait_for_report(k);
}

/* How many there were before. */
static uint64_t
count_in_flight(struct kafka *k, struct kafka_ticket *ticket, bool more)
{
	uint64_t before;

	pthread_mutex_lock(&k->lock);
	before = k->in_flight;
	k->in_flight += more ? 1 : (uint64_t)-1;
	pthread_mutex_unlock(&k->lock);
	ticket->state = more ? KAFKA_IN_FLIGHT : KAFKA_WAITS;
	return before;
}

/* Hands a message over, or settles it. */
static void
send_one(struct kafka *k, struct kafka_ticket *ticket, const struct batch *batch,
	 const struct message *message)
{
	char error[KAFKA_ERROR_LEN];
	enum kafka_sent sent;
	uint64_t others;

	for (;;) {
		if (atomic_load(&k->hurried)) {
			kafka_settle(k, ticket, OUTCOME_SHUTDOWN);
			return;
		}
		if ((k->producer == NULL || atomic_load(&k->fatal)) && !have_producer(k)) {
			kafka_settle(k, ticket, atomic_load(&k->hurried) ? OUTCOME_SHUTDOWN
									 : OUTCOME_UNAVAILABLE);
			return;
		}
		wait_for_memory(k);
		others = count_in_flight(k, ticket, true);
		sent = kafka_record_send(k->producer, ticket, batch, message, error);
		if (sent == KAFKA_SENT)
			return; /* and may be answered by now */
		count_in_flight(k, ticket, false);
		if (sent == KAFKA_FULL && others == 0)
			sent = KAFKA_TOO_LARGE; /* for the whole of the queue */
		if (sent == KAFKA_FULL)
			wait_for_report(k);
		else if (sent == KAFKA_FATAL)
			atomic_store(&k->fatal, true);
		else
			break;
	}
	if (sent == KAFKA_TOO_LARGE) {
		kafka_settle(k, ticket, OUTCOME_TOO_LARGE);
		return;
	}
	atomic_store(&k->last_failure, clock_now());
	if (sent == KAFKA_LOST)
		sink_failing(k->sink, "a message's bytes", errno);
	else
		sink_failing_as(k->sink, k->what, error);
	kafka_settle(k, ticket, sent == KAFKA_LOST ? OUTCOME_STORAGE : OUTCOME_UNAVAILABLE);
}

static void
send_delivery(struct kafka *k, struct delivery *delivery)
{
	struct batch *batch = delivery->batch;
	struct kafka_work *work = kafka_work_new(k, delivery);

	if (work == NULL) {
		sink_failing(k->sink, k->what, ENOMEM);
		sink_answer(delivery, OUTCOME_UNAVAILABLE);
		return;
	}
	/* The batch is ours until the release. */
	for (unsigned i = 0; i < batch->count; i++)
		send_one(k, &work->tickets[i], batch, &batch->messages[i]);
	kafka_work_release(k, work);
}

static void *
kafka_run(void *arg)
{
	struct kafka *k = arg;
	struct delivery *delivery, *next;
	bool woken, closed = false;

	for (;;) {
		delivery = queue_take(&k->queue, 0, &woken, &closed);
		if (closed)
			break;
		look_after(k);
		for (; delivery != NULL; delivery = next) {
			next = delivery->next;
			send_delivery(k, delivery);
		}
	}
	wait_for_all(k);
	drop_producer(k, atomic_load(&k->hurried) ? OUTCOME_SHUTDOWN : OUTCOME_UNAVAILABLE);
	return NULL;
}

/* ----------------------------------------------------------- open and close */

static void
kafka_free(struct kafka *k)
{
	if (k->producer != NULL)
		kafka_producer_close(k->producer);
	kafka_log_end(&k->log);
	pthread_mutex_destroy(&k->log.lock);
	pthread_cond_destroy(&k->reported);
	pthread_mutex_destroy(&k->lock);
	queue_clear(&k->queue);
	free(k);
}

/* -1: errno. */
static int
init_locks(struct kafka *k)
{
	int error;

	if (queue_init(&k->queue) == -1)
		return -1;
	error = kafka_cond_init(&k->reported);
	if (error != 0) {
		queue_clear(&k->queue);
		errno = error;
		return -1;
	}
	pthread_mutex_init(&k->lock, NULL); /* cannot fail with no attributes */
	pthread_mutex_init(&k->log.lock, NULL);
	return 0;
}

static int
kafka_open(struct sink *sink)
{
	struct kafka *k = calloc(1, sizeof(*k));

	if (k == NULL || init_locks(k) == -1) {
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s", sink->config->name,
			  strerror(errno));
		free(k);
		return EX_OSERR;
	}
	k->sink = sink;
	k->log.sink = sink->config->name;
	k->log.valve.most = LOG_LINES;
	snprintf(k->what, sizeof k->what, "topic %s", sink->config->topic);
	k->probe_delay = PROBE_AFTER;
	sink->state = k;
	return 0;
}

/* The first producer is made here, where what it does not like can still be told. */
static int
kafka_start(struct sink *sink)
{
	struct kafka *k = sink->state;
	char error[KAFKA_ERROR_LEN];
	int code;

	k->producer = kafka_producer_open(k, error);
	if (k->producer == NULL) {
		log_event(LOG_LEVEL_ERROR, "sink-start", "sink %s: %s (%s:%d)", sink->config->name,
			  error, sink->config->place.file, sink->config->place.line);
		return EX_CONFIG;
	}
	k->next_probe = clock_now(); /* says soon whether there is a cluster, and a topic */
	queue_reopen(&k->queue);
	code = sink_start_thread(sink, &k->thread, "kafka", kafka_run, k);
	k->started = code == 0;
	return code;
}

static void
kafka_deliver(struct sink *sink, struct delivery *first)
{
	struct kafka *k = sink->state;

	queue_put(&k->queue, first);
}

static void
kafka_hurry(struct sink *sink)
{
	struct kafka *k = sink->state;

	atomic_store(&k->hurried, true);
	queue_reopen(&k->queue); /* wakes the writer */
	pthread_mutex_lock(&k->lock);
	pthread_cond_broadcast(&k->reported);
	pthread_mutex_unlock(&k->lock);
}

static void
kafka_close(struct sink *sink)
{
	struct kafka *k = sink->state;

	queue_close(&k->queue);
	if (k->started)
		pthread_join(k->thread, NULL);
	kafka_free(k);
}

const struct sink_kind sink_kind_kafka = {
	.name = "kafka",
	.open = kafka_open,
	.start = kafka_start,
	.deliver = kafka_deliver,
	.hurry = kafka_hurry,
	.close = kafka_close,
};
