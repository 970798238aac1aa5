/*
 * receive: the way in, from the socket to the sinks.
 *
 * The first read is tried at accept, before there is a bufferevent: a short
 * message has often arrived whole by then, and never needs one.  Later on
 * libevent reads at most 4096 bytes a callback, so after taking those the
 * socket is read on from here, into the listener's chunk.  The framing looks
 * at the bytes where they lie.  Messages that lie whole in the chunk are
 * delivered as slices of it, or as copies when that is cheaper than giving the
 * chunk away; a message that goes on past it grows in a body.
 *
 * Reading stops (and the kernel's buffers fill, and the client waits) while
 * the connection has max_in_flight messages under way, replies it does not
 * take, or there is no memory to hold more.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "base/clock.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "intake/tls_connection.h"
#include "message/body.h"
#include "message/chunk.h"
#include "sinks/sink.h"
#include "worker.h"

/* Chunks read for one connection before the others have their turn. */
#define TURN 16
/* Fewer bytes than so many are copied, whatever holds them. */
#define COPIED_MOST 1024
/* A message that has grown so large leaves memory for a file. */
#define SPILL_SIZE 1048576
/* Past so many bytes of its messages in memory a connection waits for the sinks, which
 * keeps memory in the caches, and one sender from taking all of memory_limit. */
#define HELD_MOST 1048576
/* What libevent 2.1 reads at a time; less means that the socket was empty. */
#define LIBEVENT_READ 4096

enum arrived { ARRIVED_BYTES, ARRIVED_LAST, ARRIVED_RESET, ARRIVED_CUT };

/* What a feed has found so far. */
struct findings {
	struct chunk *chunk;
	const unsigned char *end; /* of the bytes that are fed */
	const unsigned char *from, *to; /* all slices lie in between */
	struct message *messages;
	unsigned count;
};

/* The same where libevent reads: what that has decrypted. */
static enum arrived
take_decrypted(struct connection *c, struct chunk *chunk, size_t *len, bool *drained)
{
	*len = tls_connection_take(c, chunk->data, chunk->size);
	*drained = !tls_connection_has(c);
	if (!*drained)
		return ARRIVED_BYTES;
	if (c->fin)
		return ARRIVED_LAST;
	if (c->cut)
		return ARRIVED_CUT;
	return c->broken ? ARRIVED_RESET : ARRIVED_BYTES;
}

/* Reads what fits into the chunk.  *len may be 0 with each of the results;
 * *drained: there is no more for now. */
static enum arrived
take(struct connection *c, struct chunk *chunk, size_t *len, bool *drained)
{
	struct evbuffer *input = c->bev != NULL ? bufferevent_get_input(c->bev) : NULL;
	bool to_the_end = c->listener->config->framing.kind == FRAMING_EOF;
	size_t have = input != NULL ? evbuffer_get_length(input) : 0;
	ssize_t n;

	if (c->tls)
		return take_decrypted(c, chunk, len, drained);
	*len = 0;
	*drained = false;
	if (have > 0) {
		n = evbuffer_remove(input, chunk->data, chunk->size);
		*len = n > 0 ? (size_t)n : 0;
	}
	if (c->fin)
		return have == *len ? ARRIVED_LAST : ARRIVED_BYTES;
	if (have > 0 && have < LIBEVENT_READ && !to_the_end) {
		*drained = true;
		return ARRIVED_BYTES;
	}
	while (*len < chunk->size) {
		n = read(c->fd, chunk->data + *len, chunk->size - *len);
		if (n > 0) {
			*len += (size_t)n;
			if (!to_the_end)
				break;
		} else if (n == 0 && c->broken) {
			return ARRIVED_RESET;
		} else if (n == 0) {
			c->fin = true;
			*drained = true;
			return ARRIVED_LAST;
		} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
			*drained = true;
			break;
		} else if (errno != EINTR) {
			return ARRIVED_RESET;
		}
	}
	return ARRIVED_BYTES;
}

int
receive_spill(struct connection *c)
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
	return chunk_is_worth(f->chunk, len) || f->chunk->references > 1 ||
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
	    receive_spill(c) == -1)
		return ENDED_STORAGE;
	return ENDED_FIN;
}

static enum ended
grow_by_step(struct connection *c, const struct findings *f, const struct framing_step *step)
{
	static const struct findings elsewhere;
	/* What the framing held back lies in static memory. */
	enum ended failure = grow(c, &elsewhere, step->head, step->head_len);

	return failure != ENDED_FIN ? failure : grow(c, f, step->data, step->data_len);
}

/* A message is whole: a slice of the chunk where it can be, else a body. */
static enum ended
found(struct connection *c, struct findings *f, const struct framing_step *step,
      const unsigned char *here, enum ended how)
{
	uint64_t most = c->listener->config->framing.max_size;
	struct message *m = &f->messages[f->count];
	enum ended failure;

	*m = (struct message){.ended = how};
	if (c->body == NULL && step->head_len == 0) {
		if (most != 0 && step->data_len > most)
			return grow(c, f, step->data, step->data_len);
		m->data = step->data_len > 0 ? step->data : here;
		m->size = step->data_len;
		if (f->from == NULL)
			f->from = m->data;
		f->to = m->data + m->size;
	} else {
		failure = grow_by_step(c, f, step);
		if (failure != ENDED_FIN)
			return failure;
		m->body = c->body;
		m->size = c->body->size;
		c->body = NULL;
	}
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
	c->messages += f->count;
	if (f->from != NULL && (keep_chunk || f->chunk->references > 1 ||
				chunk_is_worth(f->chunk, (size_t)(f->to - f->from))))
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
receive_put_aside(struct connection *c, enum ended reason)
{
	struct listener *l = c->listener;
	struct message message = {.ended = reason, .body = c->body, .size = c->body->size};
	struct batch *batch = batch_new(&message, 1, 1, NULL, NULL, NULL);

	if (batch == NULL)
		return; /* it is discarded, then, which is logged anyway */
	c->body = NULL;
	know_local(c);
	batch->time = clock_wall();
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

	if (config->max_in_flight != 0) {
		uint64_t left = c->in_flight < config->max_in_flight
					? config->max_in_flight - c->in_flight : 0;

		if (left < most)
			most = left;
	}
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
finish(struct connection *c, struct findings *f, struct framing_step *tail, enum ended how,
       const char **why)
{
	struct framing_step last;
	enum ended failure;

	framing_finish(&c->listener->config->framing, &c->framing, &last);
	if (last.verdict == FRAMING_MESSAGE && last.head_len == 0 && last.data_len == 0)
		return found(c, f, tail, tail->data, how);
	failure = grow_by_step(c, f, tail);
	if (failure != ENDED_FIN || last.verdict == FRAMING_NOTHING)
		return failure;
	if (last.verdict == FRAMING_MESSAGE)
		return found(c, f, &last, NULL, how);
	*why = last.why;
	return ENDED_INCOMPLETE;
}

/* Frames len bytes at `at` in the chunk (NULL and 0: none), the last ones where
 * `last` says so, which then ends as `how`. */
static void
feed(struct connection *c, struct chunk *chunk, size_t at, size_t len, bool last, enum ended how)
{
	const struct config_listener *config = c->listener->config;
	const unsigned char *p = chunk != NULL ? chunk->data + at : NULL;
	const unsigned char *end = p != NULL ? p + len : NULL;
	struct findings f = {
		.chunk = chunk, .end = end, .messages = c->listener->intake->scratch};
	struct framing_step step = {0}, tail = {0};
	uint64_t most = allowance(c);
	enum ended failure = ENDED_FIN;
	const char *why = NULL;
	bool full = false;

	while (p < end && f.count < most && failure == ENDED_FIN) {
		framing_feed(&config->framing, &c->framing, p, (size_t)(end - p), &step);
		p += step.used;
		switch (step.verdict) {
		case FRAMING_MESSAGE:
			failure = found(c, &f, &step, p, ENDED_FRAME);
			break;
		case FRAMING_MORE:
			if (last)
				tail = step;
			else
				failure = grow_by_step(c, &f, &step);
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
		failure = finish(c, &f, &tail, how, &why);
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
receive_quiet(struct connection *c)
{
	feed(c, NULL, 0, 0, true, ENDED_QUIET);
}

/* The rest of an earlier read, which max_in_flight kept back. */
static void
feed_rest(struct connection *c)
{
	struct chunk *chunk = c->rest;

	c->rest = NULL;
	feed(c, chunk, c->rest_at, c->rest_len, false, ENDED_FIN);
	chunk_unref(chunk);
}

/* Whether nothing more may be taken for now; then others will take up the
 * connection again (an answer, drained replies, memory given back). */
static bool
must_wait(struct connection *c)
{
	const struct config_listener *config = c->listener->config;
	struct intake *intake = c->listener->intake;

	if (config->max_in_flight != 0 && c->in_flight >= config->max_in_flight)
		return true;
	if (c->held >= HELD_MOST)
		return true;
	if (c->unsent > REPLY_UNSENT_MOST)
		return true;
	if (!memory_over())
		return false;
	/* What grows goes to a file; past that, whoever would need more waits. */
	if (c->body != NULL && c->body->file == -1 && (receive_spill(c) == -1 || !memory_over()))
		return false; /* where it cannot be spilled it is refused as it grows */
	if (c->body != NULL && c->body->file != -1 && c->rest == NULL)
		return false;
	if (c->rest != NULL)
		return false; /* it needs no more, and gives its chunk back */
	intake_relieve(intake);
	if (!memory_over())
		return false;
	intake_starve(intake, c);
	return true;
}

/* A turn has ended with bytes, or a close, that the socket will not speak of
 * again: they are seen to when the loop comes round. */
static void
go_on_later(struct connection *c)
{
	if (c->state != CONNECTION_OPEN)
		return;
	if (c->rest == NULL && !c->fin && !c->broken &&
	    (c->tls ? !tls_connection_has(c)
		    : c->bev == NULL || evbuffer_get_length(bufferevent_get_input(c->bev)) == 0))
		return;
	if (connection_buffer(c))
		bufferevent_trigger(c->bev, EV_READ,
				    BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

/* Takes so many turns of reading and framing, or until there is no more. */
static void
run(struct connection *c, unsigned turns)
{
	struct listener *l = c->listener;
	bool drained = false, wait = false;
	unsigned turn;

	for (turn = 0; turn < turns && c->state == CONNECTION_OPEN && !drained; turn++) {
		struct chunk *chunk;
		enum arrived arrived;
		size_t len;

		if ((wait = must_wait(c)))
			break;
		connection_unpause(c);
		if (c->rest != NULL) {
			feed_rest(c);
			continue;
		}
		chunk = listener_landing(l);
		if (chunk == NULL) {
			connection_fail(c, ENDED_MEMORY, "out of memory");
			return;
		}
		arrived = take(c, chunk, &len, &drained);
		if (len > 0) {
			c->heard = clock_now();
			c->bytes += len;
			counter_add(&l->counters.bytes, len);
		}
		if (len > 0 || arrived == ARRIVED_LAST)
			feed(c, chunk, 0, len, arrived == ARRIVED_LAST, ENDED_FIN);
		if (arrived == ARRIVED_RESET && c->state != CONNECTION_DEAD) {
			connection_lost(c, "connection reset by the client");
			return;
		}
		if (arrived == ARRIVED_CUT && c->state != CONNECTION_DEAD) {
			connection_cut(c);
			return;
		}
	}
	if (c->state != CONNECTION_OPEN)
		return;
	if (c->unaccepted && l->config->reply != CONFIG_REPLY_RECEIPT) {
		connection_end(c); /* the reset is all that can tell */
		return;
	}
	if (c->rest != NULL && !wait)
		wait = must_wait(c);
	if (wait) {
		if (c->paused_since == 0)
			c->paused_since = clock_now(); /* the bufferevent is stopped when it has more */
	} else {
		connection_resume(c);
		go_on_later(c);
	}
	timeout_schedule(c);
}

void
receive_run(struct connection *c)
{
	run(c, TURN);
}

void
receive_first(struct connection *c)
{
	run(c, 1);
}
