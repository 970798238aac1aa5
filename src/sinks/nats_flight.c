/*
 * nats_flight: see nats_flight.h.
 *
 * A flight is `busy` while the sink's thread works on it without the lock: an answer that
 * comes then is left in it.  Else an answer to the first copy of a message could free its
 * batch while a second copy is made of it.
 */
#include "sinks/nats_flight.h"
#include "sinks/nats_stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/config.h"

#define WINDOW_BYTES UINT64_C(16777216)
#define LOOK UINT64_C(100000)	       /* between two looks at all that is in flight */
#define AGAIN UINT64_C(250000)	       /* before what found no stream is sent again */
#define ANSWER_WAIT UINT64_C(4000000)  /* the same for what found no answer; doubled each time */
#define RECKONED 256		       /* a message's headers, as part of WINDOW_BYTES */

/* ---------------------------------------------------------------- outcomes */

static uint64_t
weight(const struct message *message)
{
	return message->size + RECKONED;
}

/* Where there is room again, but not for each single message: the thread would be woken for
 * every one of them. */
static void
wake_for_room(struct nats *n)
{
	if (n->sleeping && (n->first != NULL || n->head != NULL) && n->n_free >= NATS_WINDOW / 4 &&
	    n->bytes <= WINDOW_BYTES / 4 * 3)
		pthread_cond_signal(&n->link->wake);
}

/* The end of a message.  Works that are done are added to *done, for answer_all. */
static void
settle(struct nats *n, struct nats_flight *flight, enum outcome outcome, struct nats_work **done)
{
	struct nats_work *work = flight->work;

	message_settle(flight->message, outcome);
	if (outcome_is_temporary(outcome))
		work->n_failed++;
	else if (outcome != OUTCOME_ACCEPTED)
		work->n_refused++;
	n->bytes -= weight(flight->message);
	flight->work = NULL;
	flight->token += NATS_WINDOW; /* late answers know it no more */
	n->free_flights[n->n_free++] = (unsigned)(flight - n->flights);
	if (--work->flying > 0 || work->begun < work->delivery->batch->count)
		return;
	work->next = *done;
	*done = work;
}

/* Without the lock; *done is in the reverse order. */
void
nats_flight_answer_all(struct nats *n, struct nats_work *done)
{
	struct nats_work *ordered = NULL, *next, *last = NULL;

	if (done == NULL)
		return;
	for (; done != NULL; done = next) {
		next = done->next;
		done->next = ordered;
		ordered = done;
	}
	sink_answers_begin();
	for (next = ordered; next != NULL; last = next, next = next->next)
		sink_answer_mixed(next->delivery, next->n_failed, next->n_refused);
	sink_answers_end();
	pthread_mutex_lock(&n->link->lock);
	last->next = n->free_works;
	n->free_works = ordered;
	pthread_mutex_unlock(&n->link->lock);
}

static bool
is_trouble(const struct nats_answer *answer)
{
	return answer->verdict == NATS_NEVER && outcome_is_temporary(answer->outcome);
}

/* What the stream said, for whoever has to find out where a message went.  Without the lock. */
static void
say_stored(const struct nats *n, const struct id *id, const struct nats_answer *answer)
{
	char text[ID_TEXT_LEN + 1];

	if (!log_enabled(LOG_LEVEL_DEBUG))
		return;
	id_text(id, text);
	log_event_with(LOG_LEVEL_DEBUG, "nats-stored",
		       LOG_FIELDS(LOG_TEXT("id", text), LOG_NUMBER("sequence", answer->sequence)),
		       "sink %s: %s is message %llu of the stream%s", n->sink->config->name, text,
		       (unsigned long long)answer->sequence,
		       answer->duplicate ? ", and was so before" : "");
}

/* An answer has come. */
void
nats_flight_answered(struct sink *sink, uint64_t token, const struct nats_answer *answer)
{
	struct nats *n = sink->state;
	struct nats_flight *flight = &n->flights[token % NATS_WINDOW];
	struct nats_work *done = NULL;
	struct id id;
	bool stored = false;

	pthread_mutex_lock(&n->link->lock);
	nats_link_heard(n->link);
	if (flight->work == NULL || flight->token != token) {
		pthread_mutex_unlock(&n->link->lock);
		return;
	}
	if (answer->verdict == NATS_STORED && !flight->busy) {
		stored = true;
		id = flight->message->id;
		settle(n, flight, OUTCOME_ACCEPTED, &done);
		wake_for_room(n);
	} else if (!flight->answered || answer->verdict == NATS_STORED) {
		flight->answer = *answer;
		flight->answered = true;
		n->next_look = 0;
		if (n->sleeping)
			pthread_cond_signal(&n->link->wake);
	}
	pthread_mutex_unlock(&n->link->lock);
	if (stored) /* before its sender is told */
		say_stored(n, &id, answer);
	nats_flight_answer_all(n, done);
}

/* -------------------------------------------------------------- publishing */

void
nats_flight_fail(struct nats *n, const char *why)
{
	sink_failing_as(n->sink, n->sink->config->nats.stream, why);
}

static const struct batch *
batch_of(const struct nats_flight *flight)
{
	return flight->work->delivery->batch;
}

/* A reference that nobody will find is of no use; one that may have gone out is. */
static void
withdraw(struct nats *n, const struct nats_flight *flight, bool certain)
{
	char path[NATS_CLAIM_PATH];
	int error = 0;

	if (certain && nats_claim_withdraw(&n->claim, batch_of(flight), flight->message) == -1)
		error = errno;
	if (certain && error == 0)
		return;
	nats_claim_path(&n->claim, batch_of(flight), flight->message, path);
	log_event(LOG_LEVEL_WARNING, "nats-claim-left", "sink %s: %s: %s", n->sink->config->name, path,
		  certain ? strerror(error)
			  : "left, as the stream may have it although it did not say so");
}

/* The thread's way to settle; the lock is held, and given up where there is a file.  So many
 * references to it are known not to be in the stream; where more went out, or an earlier
 * try left the file, one may be there. */
static void
conclude(struct nats *n, struct nats_flight *flight, enum outcome outcome, unsigned denied,
	 struct nats_work **done)
{
	bool certain = flight->references <= denied && !flight->found;

	if (flight->claimed && outcome != OUTCOME_ACCEPTED) {
		flight->busy = true;
		pthread_mutex_unlock(&n->link->lock);
		withdraw(n, flight, certain);
		pthread_mutex_lock(&n->link->lock);
		flight->busy = false;
	}
	settle(n, flight, outcome, done);
}

/* Puts the message's bytes into the spool.  False: errno. */
static bool
store_claim(struct nats *n, struct nats_flight *flight)
{
	int stored;

	if (flight->claimed)
		return true;
	if (!n->has_claim) {
		n->has_claim = nats_claim_open(&n->claim, n->sink->config->nats.claim) == 0;
		if (!n->has_claim)
			return false;
	}
	stored = nats_claim_store(&n->claim, batch_of(flight), flight->message);
	flight->claimed = stored != -1;
	flight->found = stored == 1;
	return flight->claimed;
}

static natsMsg *
make_claim(struct nats *n, struct nats_flight *flight, const char *reply, natsStatus *status)
{
	char path[NATS_CLAIM_PATH], *text;
	natsMsg *made = NULL;

	*status = NATS_NO_MEMORY;
	nats_claim_path(&n->claim, batch_of(flight), flight->message, path);
	text = nats_claim_text(&n->claim, &n->draft.facts, batch_of(flight), flight->message);
	nats_draft_clear(&n->draft);
	if (text != NULL && nats_draft_make(&n->draft, n->sink->config, batch_of(flight),
					    flight->message, path) == 0)
		made = nats_message_text(&n->draft, text, reply, status);
	memory_free(text);
	return made;
}

/* Sends it.  Without the lock; the flight is busy.  OUTCOME_ACCEPTED: it is on its way, or
 * will be tried again (status); else that is its end. */
static enum outcome
launch(struct nats *n, struct nats_flight *flight, const char *reply, uint64_t limit,
       natsStatus *status)
{
	const struct message *message = flight->message;
	natsMsg *made = NULL;
	bool too_large;
	int error = 0;

	*status = NATS_NO_MEMORY;
	if (nats_draft_make(&n->draft, n->sink->config, batch_of(flight), message, NULL) == -1)
		return OUTCOME_ACCEPTED;
	too_large = flight->too_large || n->draft.headers_size > limit ||
		    message->size > limit - n->draft.headers_size;
	if (too_large && n->sink->config->nats.claim == NULL) {
		nats_draft_clear(&n->draft);
		return OUTCOME_TOO_LARGE;
	}
	if (too_large && !store_claim(n, flight)) {
		sink_failing(n->sink, "storing for claim_check", errno);
		nats_draft_clear(&n->draft);
		return OUTCOME_STORAGE;
	}
	if (too_large)
		made = make_claim(n, flight, reply, status);
	else
		made = nats_message_new(&n->draft, message, reply, status, &error);
	if (made != NULL) {
		flight->sent++;
		flight->references += too_large;
		*status = nats_link_publish(n->link, made);
	}
	nats_message_free(made);
	nats_draft_clear(&n->draft);
	if (error != 0 && error != ENOMEM) {
		sink_failing(n->sink, "reading a message's file", error);
		return OUTCOME_STORAGE;
	}
	return OUTCOME_ACCEPTED;
}

/* Sends a message, for the first time or again.  The lock is held, and given up meanwhile. */
void
nats_flight_publish(struct nats *n, struct nats_flight *flight, struct nats_work **done)
{
	struct nats_link *link = n->link;
	char reply[NATS_LINK_REPLY];
	uint64_t limit = link->limit, wait = ANSWER_WAIT << (flight->sent < 5 ? flight->sent : 5);
	enum outcome outcome;
	natsStatus status;

	if (!nats_link_reply(link, flight->token, reply)) {
		flight->due = clock_now() + AGAIN;
		return;
	}
	if (flight->sent > 0)
		account_add(&n->sink->account->retried, 1);
	flight->epoch = link->epoch;
	flight->busy = true;
	pthread_mutex_unlock(&link->lock);
	outcome = launch(n, flight, reply, limit, &status);
	pthread_mutex_lock(&link->lock);
	flight->busy = false;
	flight->due = clock_now() + (status == NATS_OK ? wait : AGAIN);
	if (outcome != OUTCOME_ACCEPTED)
		conclude(n, flight, outcome, 0, done);
	else if (flight->answered)
		n->next_look = 0;
}

static bool
has_room(const struct nats *n, const struct message *message)
{
	return n->n_free > 0 && (n->n_free == NATS_WINDOW || n->bytes + weight(message) <= WINDOW_BYTES);
}

/* Takes the next message that has not been begun into flight; NULL: there is none, or no
 * room. */
struct nats_flight *
nats_flight_begin(struct nats *n)
{
	struct nats_work *work = n->head;
	struct nats_flight *flight;
	struct message *message;
	struct delivery *delivery;
	unsigned at;

	if (work == NULL && n->first != NULL && n->free_works != NULL) {
		delivery = n->first;
		n->first = delivery->next;
		if (n->first == NULL)
			n->last = &n->first;
		work = n->free_works;
		n->free_works = work->next;
		*work = (struct nats_work){.delivery = delivery};
		n->head = work;
	}
	if (work == NULL)
		return NULL;
	message = &work->delivery->batch->messages[work->begun];
	if (!has_room(n, message))
		return NULL;
	at = n->free_flights[--n->n_free];
	flight = &n->flights[at];
	*flight = (struct nats_flight){.work = work, .message = message, .number = n->numbers++,
				       .token = flight->token};
	n->bytes += weight(message);
	work->flying++;
	if (++work->begun == work->delivery->batch->count)
		n->head = NULL;
	return flight;
}

/* ------------------------------------------------------------------ looking */

uint64_t
nats_flight_deadline(const struct nats *n, const struct batch *batch)
{
	return batch->since + n->sink->config->timeout;
}

/* Takes an answer that was left to the thread.  True: that was the end. */
static bool
take_answer(struct nats *n, struct nats_flight *flight, uint64_t now, struct nats_work **done)
{
	struct nats_answer answer = flight->answer;

	flight->answered = false;
	if (answer.verdict == NATS_STORED) {
		flight->busy = true;
		pthread_mutex_unlock(&n->link->lock);
		say_stored(n, &flight->message->id, &answer);
		pthread_mutex_lock(&n->link->lock);
		flight->busy = false;
		settle(n, flight, OUTCOME_ACCEPTED, done);
		return true;
	}
	if (answer.verdict == NATS_AGAIN) {
		flight->nobody = now;
		flight->due = now + AGAIN;
		nats_link_suspect(n->link);
		return false;
	}
	/* Each copy of the message itself is answered so, some of them late. */
	if (answer.too_large && n->sink->config->nats.claim != NULL &&
	    flight->oversized < flight->sent - flight->references) {
		flight->oversized++;
		flight->too_large = true;
		if (!flight->claimed)
			flight->due = now;
		return false;
	}
	if (is_trouble(&answer)) {
		char peer[NET_TEXT_LEN], subject[SUBJECT_SIZE];

		net_address_text(&batch_of(flight)->origin->peer, peer);
		subject_fill(n->sink->config->nats.subject, batch_of(flight)->origin->listener, peer,
			     subject);
		if (answer.outcome == OUTCOME_UNAVAILABLE)
			nats_stream_set_misfit(n->link, subject);
		nats_link_suspect(n->link);
		flight->busy = true;
		pthread_mutex_unlock(&n->link->lock);
		nats_flight_fail(n, answer.why);
		pthread_mutex_lock(&n->link->lock);
		flight->busy = false;
	}
	conclude(n, flight, answer.outcome, 1, done);
	return true;
}

/* Nobody takes it: is that so because the stream does not have its subject? */
static bool
is_misfit(struct nats *n, struct nats_flight *flight, struct nats_work **done)
{
	char peer[NET_TEXT_LEN], subject[SUBJECT_SIZE], why[160];

	net_address_text(&batch_of(flight)->origin->peer, peer);
	subject_fill(n->sink->config->nats.subject, batch_of(flight)->origin->listener, peer, subject);
	if (nats_stream_takes(n->link, subject, flight->nobody))
		return false;
	nats_stream_set_misfit(n->link, subject);
	flight->busy = true;
	pthread_mutex_unlock(&n->link->lock);
	snprintf(why, sizeof(why), "the stream does not take the subject %.100s", subject);
	nats_flight_fail(n, why);
	pthread_mutex_lock(&n->link->lock);
	flight->busy = false;
	conclude(n, flight, OUTCOME_UNAVAILABLE, 1, done);
	return true;
}

/* Its time is over. */
static void
expire(struct nats *n, struct nats_flight *flight, struct nats_work **done)
{
	bool open = n->link->state == NATS_LINK_OPEN, lasts = flight->nobody == 0;

	nats_link_suspect(n->link);
	if (open) {
		flight->busy = true;
		pthread_mutex_unlock(&n->link->lock);
		nats_flight_fail(n, lasts ? "no acknowledgement in time" : "no stream takes it");
		pthread_mutex_lock(&n->link->lock);
		flight->busy = false;
	}
	conclude(n, flight, open && lasts ? OUTCOME_TIMEOUT : OUTCOME_UNAVAILABLE, 0, done);
}

static int
in_order(const void *a, const void *b, void *arg)
{
	const struct nats_flight *flights = arg;
	uint64_t one = flights[*(const unsigned *)a].number;
	uint64_t other = flights[*(const unsigned *)b].number;

	return one < other ? -1 : one > other;
}

/* All that is in flight: answers that were left, times that are over, what has to be sent
 * again. */
void
nats_flight_look(struct nats *n, uint64_t now, struct nats_work **done)
{
	unsigned i;

	n->next_look = now + LOOK;
	n->n_due = n->at_due = 0;
	for (i = 0; i < NATS_WINDOW; i++) {
		struct nats_flight *flight = &n->flights[i];

		if (flight->work == NULL || (flight->answered && take_answer(n, flight, now, done)))
			continue;
		if (n->link->hurried)
			conclude(n, flight, OUTCOME_SHUTDOWN, 0, done);
		else if (n->link->state == NATS_LINK_UNFIT)
			conclude(n, flight, OUTCOME_UNAVAILABLE, 0, done);
		else if (now >= nats_flight_deadline(n, batch_of(flight)))
			expire(n, flight, done);
		else if (flight->nobody != 0 && is_misfit(n, flight, done))
			continue;
		else if (now >= flight->due || flight->epoch != n->link->epoch)
			n->due[n->n_due++] = i;
	}
	qsort_r(n->due, n->n_due, sizeof(*n->due), in_order, n->flights);
}
