/*
 * receive: the way in, from the socket to the framing.
 *
 * The first read is tried at accept, before there is a bufferevent: a short
 * message has often arrived whole by then, and never needs one.  Later on
 * libevent reads at most 4096 bytes a callback, so after taking those the
 * socket is read on from here, into its worker's chunk, each read behind the
 * last one as long as those bytes are kept (feed.c).
 *
 * Reading stops (and the kernel's buffers fill, and the client waits) while
 * the connection has max_in_flight messages under way, replies it does not
 * take, or there is no memory to hold more.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "base/clock.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "intake/rate.h"
#include "intake/tls_connection.h"
#include "message/body.h"
#include "message/chunk.h"

/* Reads for one connection before the others have their turn. */
#define TURN 16
/* Messages of so many bytes and more are large.  A sender of such that fills a read is
 * read in larger pieces, as far as a chunk goes: when the kernel's windows are full,
 * each read makes it transmit what the sender has queued, and on one machine all of
 * that is then the reader's time (docs/PERFORMANCE.md). */
#define LARGE 8192
/* Past so many bytes of its messages in memory a connection waits for the sinks, which
 * keeps memory in the caches, and one sender from taking all of memory_limit. */
#define HELD_MOST 1048576
/* What libevent 2.1 reads at a time; less means that the socket was empty. */
#define LIBEVENT_READ 4096

enum arrived { ARRIVED_BYTES, ARRIVED_LAST, ARRIVED_RESET, ARRIVED_CUT };

/* What libevent has decrypted, where it reads. */
static enum arrived
take_decrypted(struct connection *c, unsigned char *to, size_t most, size_t *len, bool *drained)
{
	*len = tls_connection_take(c, to, most);
	*drained = !tls_connection_has(c);
	if (!*drained)
		return ARRIVED_BYTES;
	if (c->fin)
		return ARRIVED_LAST;
	if (c->cut)
		return ARRIVED_CUT;
	return c->broken ? ARRIVED_RESET : ARRIVED_BYTES;
}

/* What has come, and whether it is all: one system call in place of two reads.  Returns as
 * read(2) does.  *end: the client has closed its side behind it; *drained: or nothing more
 * has come. */
static ssize_t
read_to_end(struct connection *c, unsigned char *to, size_t most, bool *end, bool *drained)
{
	size_t half = most / 2;
	struct iovec parts[2] = {{.iov_base = to, .iov_len = half},
				 {.iov_base = to + half, .iov_len = most - half}};
	struct mmsghdr reads[2] = {{.msg_hdr = {.msg_iov = &parts[0], .msg_iovlen = 1}},
				   {.msg_hdr = {.msg_iov = &parts[1], .msg_iovlen = 1}}};
	int n = recvmmsg(c->fd, reads, 2, MSG_DONTWAIT, NULL);
	size_t first = n > 0 ? reads[0].msg_len : 0, second = n > 1 ? reads[1].msg_len : 0;

	if (n == -1 && errno == ECONNRESET)
		c->broken = true; /* taken from the socket; what came before it can still be read */
	*end = n > 0 && (first == 0 || (n > 1 && second == 0));
	*drained = *end || n == 1 || (n == -1 && (errno == EAGAIN || errno == EWOULDBLOCK));
	if (second > 0 && first < half) /* it came in between */
		memmove(to + first, to + half, second);
	return n == -1 ? -1 : (ssize_t)(first + second);
}

/* Reads up to `most` bytes to `at` in the chunk.  *len may be 0 with each of the results;
 * *drained: there is no more for now. */
static enum arrived
take(struct connection *c, struct chunk *chunk, size_t at, size_t most, size_t *len, bool *drained)
{
	struct evbuffer *input = c->bev != NULL ? bufferevent_get_input(c->bev) : NULL;
	bool to_the_end = c->listener->config->framing.kind == FRAMING_EOF;
	size_t have = input != NULL ? evbuffer_get_length(input) : 0;
	unsigned char *to = chunk->data + at;
	ssize_t n;

	if (c->tls)
		return take_decrypted(c, to, most, len, drained);
	*len = 0;
	*drained = false;
	if (have > 0) {
		n = evbuffer_remove(input, to, most);
		*len = n > 0 ? (size_t)n : 0;
	}
	if (c->fin)
		return have == *len ? ARRIVED_LAST : ARRIVED_BYTES;
	if (have > *len)
		return ARRIVED_BYTES;
	if (have > 0 && have < LIBEVENT_READ && !to_the_end) {
		*drained = true;
		return ARRIVED_BYTES;
	}
	if (to_the_end && c->bytes == 0 && have == 0 && most > 1) {
		bool end;

		n = read_to_end(c, to, most, &end, drained);
		if (n > 0)
			*len = (size_t)n;
		c->fin = end;
		if (*drained)
			return end ? ARRIVED_LAST : ARRIVED_BYTES;
	}
	while (*len < most) {
		n = read(c->fd, to + *len, most - *len);
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

/* Where the next read goes: right behind the tail, if there is one.  NULL: no memory. */
static struct chunk *
land(struct connection *c, struct feed_tail *tail)
{
	struct reads *reads = c->listener->reads;
	struct chunk *chunk = reads->landing;
	size_t room = c->large ? reads->pool.size / 4 : (size_t)c->listener->config->buffer_size;

	if (chunk != NULL && chunk->references == 1 && tail->len == 0)
		reads->landed = 0;
	if (chunk != NULL && chunk->size - reads->landed >= room)
		return chunk;
	/* A short tail moves to where there is room, a long one grows in a body. */
	if (tail->len > reads->pool.size - room || tail->len > room)
		feed_settle(c, chunk, tail);
	chunk = reads_landing(reads, tail->bytes, tail->len);
	if (chunk != NULL)
		*tail = (struct feed_tail){.bytes = chunk->data, .len = tail->len};
	return chunk;
}

/* The rest of an earlier read, which max_in_flight kept back. */
static void
feed_rest(struct connection *c)
{
	struct chunk *chunk = c->rest;

	c->rest = NULL;
	feed_bytes(c, chunk, c->rest_at, c->rest_len, NULL, false, ENDED_FIN);
	chunk_unref(chunk);
}

/* Whether nothing more may be taken for now; then others will take up the
 * connection again (an answer, drained replies, memory given back). */
static bool
must_wait(struct connection *c)
{
	const struct config_listener *config = c->listener->config;
	struct intake *intake = c->listener->intake;

	c->paced = false; /* whatever it waits for now */
	if (c->in_flight >= config->max_in_flight)
		return true;
	if (c->held >= HELD_MOST)
		return true;
	if (c->unsent > REPLY_UNSENT_MOST)
		return true;
	if (!memory_over())
		return false;
	/* What grows goes to a file; past that, whoever would need more waits. */
	if (c->body != NULL && c->body->file == -1 && (feed_spill(c) == -1 || !memory_over()))
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

/* Whether rate_limit allows no read now; *room is cut to what it allows.  Then the
 * connection's deadline takes it up again. */
static bool
must_pace(struct connection *c, size_t *room)
{
	if (c->rest != NULL)
		return false; /* that has been read already */
	*room = pace_ask(c->pace, *room, clock_now());
	c->paced = *room == 0;
	return c->paced;
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

/* One read of at most `room` bytes, and into the framing with them.  False: the
 * connection is not open any more. */
static bool
read_once(struct connection *c, struct feed_tail *tail, size_t room, size_t *len, bool *drained)
{
	struct listener *l = c->listener;
	struct chunk *chunk = land(c, tail);
	uint64_t before = c->messages;
	enum arrived arrived;
	size_t at, most;

	if (c->state != CONNECTION_OPEN)
		return false;
	if (chunk == NULL) {
		connection_fail(c, ENDED_MEMORY, "out of memory");
		return false;
	}
	at = l->reads->landed;
	most = c->large ? chunk->size - at : (size_t)l->config->buffer_size;
	if (most > room)
		most = room;
	arrived = take(c, chunk, at, most, len, drained);
	if (c->pace != NULL)
		pace_spend(c->pace, *len);
	if (*len > 0) {
		if (c->bytes > 0 || c->bev != NULL) /* else it was accepted just now */
			c->heard = clock_now();
		c->bytes += *len;
		counter_add(&l->counters.bytes, *len);
	}
	if (*len > 0 || arrived == ARRIVED_LAST)
		feed_bytes(c, chunk, at, *len, tail, arrived == ARRIVED_LAST, ENDED_FIN);
	if (*len == most || c->large)
		c->large = (c->messages - before) * LARGE <= *len;
	/* What anybody points to is not written over. */
	l->reads->landed = chunk->references > 1 || tail->len > 0 ? at + *len : 0;
	if ((arrived == ARRIVED_RESET || arrived == ARRIVED_CUT) && c->state == CONNECTION_OPEN)
		feed_settle(c, chunk, tail);
	if (arrived == ARRIVED_RESET && c->state != CONNECTION_DEAD)
		connection_lost(c, "connection reset by the client");
	else if (arrived == ARRIVED_CUT && c->state != CONNECTION_DEAD)
		connection_cut(c);
	return c->state == CONNECTION_OPEN;
}

/* Takes up to so many bytes (a read may go past that), or all that there is. */
static void
run(struct connection *c, size_t quota)
{
	struct listener *l = c->listener;
	struct feed_tail tail = {0};
	bool drained = false, wait = false;
	size_t taken, len;

	for (taken = 0; taken < quota && c->state == CONNECTION_OPEN && !drained; taken += len) {
		size_t room = l->reads->pool.size;

		if ((wait = must_wait(c)) || (c->pace != NULL && (wait = must_pace(c, &room))))
			break;
		connection_unpause(c);
		len = c->rest_len;
		if (c->rest != NULL)
			feed_rest(c);
		else if (!read_once(c, &tail, room, &len, &drained))
			return;
	}
	if (tail.len > 0)
		feed_settle(c, l->reads->landing, &tail);
	if (c->state != CONNECTION_OPEN)
		return;
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
	run(c, TURN * (size_t)c->listener->config->buffer_size);
}

void
receive_first(struct connection *c)
{
	run(c, 1);
}
