/*
 * kafka_answer: what became of messages.
 *
 * Accepted is what the library reports as persisted, and nothing else.  Too large is final;
 * any other failure is temporary, also one of configuration (no such topic, no permission):
 * that is for the operator to mend, and no fault of the message.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "sinks/kafka_producer.h"

#define CALM UINT64_C(2000000) /* without a failure, before a success ends an episode */

struct kafka_work *
kafka_work_new(struct kafka *k, struct delivery *delivery)
{
	unsigned count = delivery->batch->count;
	struct kafka_work *work =
		memory_alloc(sizeof(*work) + count * sizeof(struct kafka_ticket));

	if (work == NULL)
		return NULL;
	*work = (struct kafka_work){.delivery = delivery};
	atomic_init(&work->pending, count + 1);
	for (unsigned i = 0; i < count; i++)
		work->tickets[i] = (struct kafka_ticket){.work = work};
	work->charged = memory_size(work) + (size_t)count * KAFKA_RECORD_COST;
	memory_charge(work->charged);
	pthread_mutex_lock(&k->lock);
	work->next = k->works;
	if (work->next != NULL)
		work->next->at = &work->next;
	work->at = &k->works;
	k->works = work;
	pthread_mutex_unlock(&k->lock);
	return work;
}

void
kafka_work_release(struct kafka *k, struct kafka_work *work)
{
	struct delivery *delivery = work->delivery;
	unsigned n_failed, n_refused;

	if (atomic_fetch_sub_explicit(&work->pending, 1, memory_order_acq_rel) != 1)
		return;
	pthread_mutex_lock(&k->lock);
	*work->at = work->next;
	if (work->next != NULL)
		work->next->at = work->at;
	pthread_mutex_unlock(&k->lock);
	n_failed = atomic_load_explicit(&work->n_failed, memory_order_relaxed);
	n_refused = atomic_load_explicit(&work->n_refused, memory_order_relaxed);
	memory_release(work->charged);
	memory_free(work);
	sink_answer_mixed(delivery, n_failed, n_refused);
}

void
kafka_settle(struct kafka *k, struct kafka_ticket *ticket, enum outcome outcome)
{
	struct kafka_work *work = ticket->work;

	ticket->state = KAFKA_DONE;
	if (ticket->copy != NULL) {
		memory_release(memory_size(ticket->copy));
		memory_free(ticket->copy);
		ticket->copy = NULL;
	}
	if (outcome != OUTCOME_ACCEPTED) {
		message_settle(&work->delivery->batch->messages[ticket - work->tickets], outcome);
		atomic_fetch_add_explicit(outcome_is_temporary(outcome) ? &work->n_failed
									: &work->n_refused,
					  1, memory_order_relaxed);
	}
	kafka_work_release(k, work);
}

void
kafka_settle_all(struct kafka *k, enum outcome outcome)
{
	struct kafka_work *work, *next;

	/* The reporter is gone, so nobody else takes works out. */
	for (work = k->works; work != NULL; work = next) {
		unsigned count = work->delivery->batch->count;

		next = work->next;
		/* One more, so that it stays while it is looked through. */
		atomic_fetch_add_explicit(&work->pending, 1, memory_order_relaxed);
		for (unsigned i = 0; i < count; i++)
			if (work->tickets[i].state == KAFKA_IN_FLIGHT)
				kafka_settle(k, &work->tickets[i], outcome);
		kafka_work_release(k, work);
	}
	k->in_flight = 0;
}

/* ----------------------------------------------------------------- reports */

/* What a message's error means, given how many messages the report is about. */
static enum outcome
judge(struct kafka *k, rd_kafka_resp_err_t error, size_t count)
{
	switch (error) {
	case RD_KAFKA_RESP_ERR__PURGE_QUEUE:
	case RD_KAFKA_RESP_ERR__PURGE_INFLIGHT:
		return atomic_load(&k->hurried) ? OUTCOME_SHUTDOWN : OUTCOME_UNAVAILABLE;
	case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		/* The broker measures a batch, and refuses it whole.  Only of one that was
		 * alone in it is known that it is too large itself. */
		if (count == 1)
			return OUTCOME_TOO_LARGE;
		atomic_store(&k->shrink, true);
		return OUTCOME_UNAVAILABLE;
	case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
	case RD_KAFKA_RESP_ERR__TIMED_OUT:
	case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
	case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
		return atomic_load(&k->down) ? OUTCOME_UNAVAILABLE : OUTCOME_TIMEOUT;
	default:
		return OUTCOME_UNAVAILABLE;
	}
}

/* The error, or what the library complained of before, where the error only says that
 * time has passed. */
static void
fails(struct kafka *k, rd_kafka_resp_err_t error)
{
	char why[sizeof k->why + 64];

	atomic_store(&k->last_failure, clock_now());
	if (error == RD_KAFKA_RESP_ERR__PURGE_QUEUE || error == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT)
		return;
	pthread_mutex_lock(&k->lock);
	snprintf(why, sizeof why, "%s%s%s", rd_kafka_err2str(error), k->why[0] != '\0' ? "; " : "",
		 k->why);
	pthread_mutex_unlock(&k->lock);
	sink_failing_as(k->sink, k->what, why);
}

static void
succeeds(struct kafka *k)
{
	uint64_t last = atomic_load(&k->last_failure);

	atomic_store(&k->down, false);
	atomic_store(&k->succeeded, true);
	if (last != 0 && clock_now() - last < CALM)
		return;
	if (last != 0) {
		atomic_store(&k->last_failure, 0);
		pthread_mutex_lock(&k->lock);
		k->why[0] = '\0';
		pthread_mutex_unlock(&k->lock);
	}
	sink_well(k->sink);
}

static size_t
take_reports(struct kafka *k, rd_kafka_event_t *event)
{
	size_t count = rd_kafka_event_message_count(event);
	const rd_kafka_message_t *message;
	bool some = false;

	sink_answers_begin();
	while ((message = rd_kafka_event_message_next(event)) != NULL) {
		rd_kafka_resp_err_t error = message->err;
		enum outcome outcome;

		if (error == RD_KAFKA_RESP_ERR_NO_ERROR &&
		    rd_kafka_message_status(message) == RD_KAFKA_MSG_STATUS_PERSISTED) {
			outcome = OUTCOME_ACCEPTED;
			some = true;
		} else {
			outcome = judge(k, error, count);
			if (outcome_is_temporary(outcome))
				fails(k, error);
		}
		kafka_settle(k, message->_private, outcome);
	}
	sink_answers_end();
	if (some)
		succeeds(k);
	return count;
}

static void
take_error(struct kafka_producer *producer, rd_kafka_event_t *event)
{
	struct kafka *k = producer->kafka;
	rd_kafka_resp_err_t error = rd_kafka_event_error(event);

	if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
		atomic_store(&k->down, true); /* or idle: the writer will see */
	} else if (rd_kafka_fatal_error(producer->rk, NULL, 0) != RD_KAFKA_RESP_ERR_NO_ERROR) {
		atomic_store(&k->fatal, true);
	} else {
		pthread_mutex_lock(&k->lock);
		snprintf(k->why, sizeof k->why, "%s", rd_kafka_event_error_string(event));
		pthread_mutex_unlock(&k->lock);
		return;
	}
	queue_reopen(&k->queue); /* wakes the writer */
}

void
kafka_take_event(struct kafka_producer *producer, rd_kafka_event_t *event)
{
	struct kafka *k = producer->kafka;
	size_t count = 0;

	if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
		count = take_reports(k, event);
	else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR)
		take_error(producer, event);
	rd_kafka_event_destroy(event); /* there is room in the library's queue from here on */
	if (atomic_load(&k->shrink) || atomic_load(&k->last_failure) != 0)
		queue_reopen(&k->queue);
	pthread_mutex_lock(&k->lock);
	k->in_flight -= count;
	k->reports++;
	pthread_cond_broadcast(&k->reported);
	pthread_mutex_unlock(&k->lock);
}
