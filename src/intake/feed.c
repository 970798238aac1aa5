/*
 * feed: from bytes that were read to messages that the sinks have.
 *
 * The framing looks at the bytes where they lie, in the chunk that they were
 * read into.  Messages that lie there whole are delivered as slices of it, or as
 * copies when that is cheaper than giving the chunk away.  The end of the bytes
 * that is a message's beginning stays where it is, as the tail, so long as the
 * next read may come to lie right behind it; else it grows in a body, which
 * becomes a file when it is large or memory is short.
 *
 * Without memory what was found is not delivered, and the connection is reset.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "message/body.h"
#include "message/chunk.h"
#include "sinks/sink.h"
#include "worker.h"

/* Fewer bytes than so many are copied, whatever holds them. */
#define COPIED_MOST 1024
/* A message that has grown so large leaves memory for a file. */
#define SPILL_SIZE 1048576

/* What a feed has found so far. */
struct findings {
	struct chunk *chunk;
	size_t references;        /* of the chunk, before */
	struct feed_tail *tail;   /* NULL: nothing can come to lie behind these bytes */
	const unsigned char *end; /* of the bytes that are fed */
	const unsigned char *from, *to; /* all slices lie in between */
	struct message *messages;
	unsigned count;
};

int
feed_spill(struct connection *c)
{
	struct listener_group *group = c->listener->group;

	return body_spill(c->body, group->spill_directory, group->spill_mode);
}

/* Whether bytes of the chunk are pointed to: where that is worth the chunk, or the
 * chunk is kept in any case, for slices before them or for what comes behind. */
static bool
is_kept(const struct findings *f, const unsigned char *bytes, size_t len)
{
	if (f->chunk == NULL || len < COPIED_MOST)
		return false;
	return chunk_is_worth(f->chunk, len) || f->chunk->references > f->references ||
	       chunk_is_worth(f->chunk, (size_t)(f->end - bytes)) ||
	       (f->from != NULL && chunk_is_worth(f->chunk, (size_t)(f->to - f->from)));
}

/* Adds bytes to the message in progress.  ENDED_FIN: done, otherwise why not. */
static enum ended
grow(struct connection *c, const struct findings *f, const unsigned char *bytes, size_t len)
{
	struct chunk *chunk;
	uint64_t most = c->listener->config->framing.max_size;

	if (len == 0)
		return ENDED_FIN;
	chunk = is_kept(f, bytes, len) ? f->chunk : NULL;
	if (c->body == NULL && (c->body = body_new()) == NULL)
		return ENDED_MEMORY;
	if (most != 0 && c->body->size + len > most) {
		/* What fits is kept for the sink that takes what is incomplete. */
		if (c->listener->group->incomplete != NULL)
			if (body_append(c->body, bytes, (size_t)(most - c->body->size), chunk) == -1)
				return c->body->file != -1 ? ENDED_STORAGE : ENDED_MEMORY;
		return ENDED_TOO_LARGE;
	}
	if (body_append(c->body, bytes, len, chunk) == -1)
		return c->body->file != -1 ? ENDED_STORAGE : ENDED_MEMORY;
	if (c->body->file == -1 && (c->body->size >= SPILL_SIZE || memory_over()) &&
	    feed_spill(c) == -1)
		return ENDED_STORAGE;
	return ENDED_FIN;
}

/* The tail becomes a body, or the body's next bytes. */
static enum ended
settle(struct connection *c, const struct findings *f)
{
	size_t len = f->tail != NULL ? f->tail->len : 0;

	if (len == 0)
		return ENDED_FIN;
	f->tail->len = 0;
	return grow(c, f, f->tail->bytes, len);
}

static enum ended
grow_by_step(struct connection *c, const struct findings *f, const struct framing_step *step)
{
	static const struct findings elsewhere;
	enum ended failure = settle(c, f);

	/* What the framing held back lies in static memory. */
	if (failure == ENDED_FIN)
		failure = grow(c, &elsewhere, step->head, step->head_len);
	return failure != ENDED_FIN ? failure : grow(c, f, step->data, step->data_len);
}

/* Where the message in progress begins, when it lies in one piece up to the end of
 * the step's bytes; NULL: it does not.  *len: that piece. */
static inline const unsigned char *
in_one_piece(const struct connection *c, const struct findings *f,
	     const struct framing_step *step, size_t *len)
{
	const struct feed_tail *tail = f->tail;

	*len = step->data_len;
	if (c->body != NULL || step->head_len > 0)
		return NULL;
	if (tail == NULL || tail->len == 0)
		return step->data;
	if (step->data_len > 0 && tail->bytes + tail->len != step->data)
		return NULL;
	*len += tail->len;
	return tail->bytes;
}

/* A message goes on past the bytes at hand. */
static enum ended
go_on(struct connection *c, struct findings *f, const struct framing_step *step)
{
	uint64_t most = c->listener->config->framing.max_size;
	const unsigned char *bytes;
	size_t len;

	if (f->tail != NULL && (bytes = in_one_piece(c, f, step, &len)) != NULL &&
	    (most == 0 || len <= most)) {
		*f->tail = (struct feed_tail){.bytes = bytes, .len = len};
		return ENDED_FIN;
	}
	return grow_by_step(c, f, step);
}

static void
add_slice(struct findings *f, struct message *m, const unsigned char *bytes, size_t len)
{
	m->data = bytes;
	m->size = len;
	if (f->from == NULL)
		f->from = bytes;
	f->to = bytes + len;
	f->count++;
}

/* A message is whole: a slice of the chunk where it can be, else a body. */
static enum ended
found(struct connection *c, struct findings *f, const struct framing_step *step, enum ended how)
{
	uint64_t most = c->listener->config->framing.max_size;
	struct message *m = &f->messages[f->count];
	const unsigned char *bytes;
	enum ended failure;
	size_t len;

	*m = (struct message){.ended = how};
	bytes = in_one_piece(c, f, step, &len);
	if (bytes != NULL && (most == 0 || len <= most)) {
		if (f->tail != NULL)
			f->tail->len = 0;
		add_slice(f, m, bytes, len);
		return ENDED_FIN;
	}
	failure = grow_by_step(c, f, step);
	if (failure != ENDED_FIN)
		return failure;
	m->body = c->body;
	m->size = c->body->size;
	c->body = NULL;
	f->count++;
	return ENDED_FIN;
}

/* The address that the client came to, where a sink wants to know. */
static void
know_local(struct connection *c)
{
	struct sockaddr_storage local = {0};
	socklen_t len = sizeof(local);

	if (!c->listener->group->wants_local || c->origin.local != NULL ||
	    getsockname(c->fd, (struct sockaddr *)&local, &len) == -1)
		return;
	/* Without memory the records lack it, which is the least harm. */
	c->origin.local = memory_alloc(sizeof(*c->origin.local));
	if (c->origin.local != NULL)
		net_address_set(c->origin.local, (struct sockaddr *)&local);
}

/* Messages of a connection are mostly of like sizes: a run of those in one bucket is
 * counted at once, at five instructions each. */
static void
count_sizes(struct counters *counters, const struct message *messages, unsigned count)
{
	uint64_t low = 0, span = 0, sum = 0, size;
	unsigned bucket = 0, begin = 0, i;

	if (count == 1) {
		counter_add(&counters->sizes[counters_size(messages->size)], 1);
		counter_add(&counters->size_sum, messages->size);
		return;
	}
	for (i = 0; i < count; i++) {
		size = messages[i].size;
		sum += size;
		if (size - low <= span)
			continue;
		counter_add(&counters->sizes[bucket], i - begin);
		begin = i;
		bucket = counters_size(size);
		low = bucket == 0 ? 0 : COUNTERS_SIZE_BOUND(bucket - 1) + 1;
		span = bucket + 1 < COUNTERS_SIZES ? COUNTERS_SIZE_BOUND(bucket) - low : UINT64_MAX - low;
	}
	counter_add(&counters->sizes[bucket], i - begin);
	counter_add(&counters->size_sum, sum);
}

/* Gives what was found to the sinks.  False: there is no memory for that; none of it
 * is delivered. */
static bool
deliver(struct connection *c, struct findings *f, bool keep_chunk)
{
	struct listener *l = c->listener;
	struct listener_group *group = l->group;
	unsigned n_sinks = (unsigned)l->config->deliver.count;
	struct chunk *chunk = NULL;
	struct batch *batch;
	unsigned i;

	counter_add(&l->counters.received, f->count);
	count_sizes(&l->counters, f->messages, f->count);
	c->messages += f->count;
	if (f->from != NULL && (keep_chunk || f->chunk->references > f->references ||
				chunk_is_worth_batch(f->chunk, (size_t)(f->to - f->from))))
		chunk = f->chunk;
	batch = batch_new(f->messages, f->count, n_sinks, chunk, f->from, f->to);
	if (batch == NULL) {
		for (i = 0; i < f->count; i++)
			body_free(f->messages[i].body);
		counter_add(&l->counters.failed, f->count);
		return false;
	}
	know_local(c);
	batch->time = clock_wall();
	/* A silence that ended a message is not the sinks'. */
	batch->since = f->messages[0].ended == ENDED_QUIET ? clock_now() : c->heard;
	for (i = 0; i < batch->count; i++)
		batch->messages[i].id = id_next(&l->intake->ids, batch->time);
	batch->origin = &c->origin;
	batch->home = &l->intake->worker->inbox;
	batch->item.run = reply_on_answer;
	counter_add(&l->counters.in_flight, f->count);
	c->in_flight += f->count;
	batch->held = (uint32_t)(f->to - f->from);
	for (i = 0; i < batch->count && batch->n_bodies > 0; i++)
		if (batch->messages[i].body != NULL && batch->messages[i].body->file == -1)
			batch->held += (uint32_t)batch->messages[i].size; /* below SPILL_SIZE */
	c->held += batch->held;
	*c->flight_last = batch;
	c->flight_last = &batch->next;
	for (i = 0; i < n_sinks; i++)
		batch->deliveries[i].sink = group->deliver[i];
	for (i = 0; i < n_sinks; i++)
		intake_deliver(l->intake, group->deliver[i], &batch->deliveries[i]);
	return true;
}

void
feed_put_aside(struct connection *c, enum ended reason)
{
	struct listener *l = c->listener;
	struct message message = {.ended = reason, .body = c->body, .size = c->body->size};
	struct batch *batch = batch_new(&message, 1, 1, NULL, NULL, NULL);

	if (batch == NULL)
		return; /* it is discarded, then, which is logged anyway */
	c->body = NULL;
	know_local(c);
	batch->time = clock_wall();
	batch->since = clock_now();
	batch->messages[0].id = id_next(&l->intake->ids, batch->time);
	batch->origin = &c->origin;
	batch->home = &l->intake->worker->inbox;
	batch->item.run = reply_on_answer;
	batch->incomplete = true;
	*c->flight_last = batch;
	c->flight_last = &batch->next;
	batch->deliveries[0].sink = l->group->incomplete;
	intake_deliver(l->intake, l->group->incomplete, &batch->deliveries[0]);
}

/* How many more messages may be taken now. */
static uint64_t
allowance(const struct connection *c)
{
	const struct config_listener *config = c->listener->config;
	uint64_t most = INTAKE_BATCH;

	if (c->in_flight >= config->max_in_flight)
		return 0;
	if (config->max_in_flight - c->in_flight < most)
		most = config->max_in_flight - c->in_flight;
	if (config->max_messages != 0 && config->max_messages - c->messages < most)
		most = config->max_messages - c->messages;
	return most;
}

static const char *
explain(enum ended failure)
{
	switch (failure) {
	case ENDED_TOO_LARGE:
		return "larger than max_message_size";
	case ENDED_STORAGE:
		return strerror(errno);
	default:
		return "out of memory";
	}
}

/* The close of the client, or silence, behind the last bytes. */
static enum ended
finish(struct connection *c, struct findings *f, struct framing_step *rest, enum ended how,
       const char **why)
{
	struct framing_step last;
	enum ended failure;

	framing_finish(&c->listener->config->framing, &c->framing, &last);
	if (last.verdict == FRAMING_MESSAGE && last.head_len == 0 && last.data_len == 0)
		return found(c, f, rest, how);
	failure = grow_by_step(c, f, rest);
	if (failure != ENDED_FIN || last.verdict == FRAMING_NOTHING)
		return failure;
	if (last.verdict == FRAMING_MESSAGE)
		return found(c, f, &last, how);
	failure = grow_by_step(c, f, &last); /* what was held back is all there will be */
	if (failure == ENDED_STORAGE || failure == ENDED_MEMORY)
		return failure;
	*why = last.why;
	return ENDED_INCOMPLETE;
}

void
feed_bytes(struct connection *c, struct chunk *chunk, size_t at, size_t len,
	   struct feed_tail *tail, bool last, enum ended how)
{
	const struct config_listener *config = c->listener->config;
	const unsigned char *p = chunk != NULL ? chunk->data + at : NULL;
	const unsigned char *end = p != NULL ? p + len : NULL;
	struct findings f = {.chunk = chunk,
			     .references = chunk != NULL ? chunk->references : 0,
			     .tail = tail,
			     .end = end,
			     .messages = c->listener->intake->scratch};
	struct framing_step step = {0}, rest = {.data = end};
	uint64_t most = allowance(c);
	enum ended failure = ENDED_FIN;
	const char *why = NULL;
	bool full = false;

	while (p < end && f.count < most && failure == ENDED_FIN) {
		framing_feed(&config->framing, &c->framing, p, (size_t)(end - p), &step);
		p += step.used;
		switch (step.verdict) {
		case FRAMING_MESSAGE:
			failure = found(c, &f, &step, ENDED_FRAME);
			break;
		case FRAMING_MORE:
			if (last)
				rest = step;
			else
				failure = go_on(c, &f, &step);
			break;
		default:
			(void)grow_by_step(c, &f, &step); /* for those who put it aside */
			failure = step.verdict == FRAMING_TOO_LARGE ? ENDED_TOO_LARGE
								    : ENDED_MALFORMED;
			why = step.why;
			break;
		}
	}
	full = config->max_messages != 0 && c->messages + f.count >= config->max_messages;
	if (last && p == end && failure == ENDED_FIN && !full)
		failure = finish(c, &f, &rest, how, &why);
	else
		last = false;
	if (failure != ENDED_FIN && why == NULL)
		why = explain(failure);
	if (f.count > 0 && !deliver(c, &f, p < end && !full && failure == ENDED_FIN)) {
		/* Receipts go by order: after a gap none would be true. */
		connection_out_of_memory(c);
		return;
	}
	if (!c->framing.open)
		c->begun = 0;
	else if (c->begun == 0 || f.count > 0)
		c->begun = c->heard;
	if (failure != ENDED_FIN) {
		connection_fail(c, failure, why);
	} else if (last || full) {
		c->dropped = p < end; /* past max_messages: not accepted */
		connection_end(c);
	} else if (p < end) {
		c->rest = chunk_ref(chunk);
		c->rest_at = (uint32_t)(p - chunk->data);
		c->rest_len = (uint32_t)(end - p);
	}
}

void
feed_settle(struct connection *c, struct chunk *chunk, struct feed_tail *tail)
{
	struct findings f = {.chunk = chunk, .tail = tail};
	enum ended failure;

	if (tail->len == 0)
		return;
	f.references = chunk->references;
	f.end = tail->bytes + tail->len;
	failure = settle(c, &f);
	if (failure != ENDED_FIN)
		connection_fail(c, failure, explain(failure));
}

void
feed_held_back(struct connection *c)
{
	static const struct findings elsewhere;
	struct framing_step last;
	enum ended failure;

	framing_finish(&c->listener->config->framing, &c->framing, &last);
	failure = grow(c, &elsewhere, last.head, last.head_len);
	if (failure != ENDED_STORAGE && failure != ENDED_MEMORY)
		return;
	body_free(c->body);
	c->body = NULL;
}

void
feed_quiet(struct connection *c)
{
	feed_bytes(c, NULL, 0, 0, NULL, true, ENDED_QUIET);
}
