/*
 * reply: the way out: what became of the messages, told to their sender.
 *
 * Batches come home in any order; replies leave in the order of the messages.
 * They are written to the socket straight away; what the client does not take
 * waits in the bufferevent's output, charged to memory, and past
 * REPLY_UNSENT_MOST nothing more is read from that client.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "base/clock.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/intake.h"
#include "message/body.h"

/* Decimal digits of n at `at`; returns their end. */
static char *
put_number(char *at, uint64_t n)
{
	char digits[20];
	size_t count = 0;

	do
		digits[count++] = (char)('0' + n % 10);
	while ((n /= 10) != 0);
	while (count > 0)
		*at++ = digits[--count];
	return at;
}

/* "OK id size", "RETRY reason", "REJECT reason". */
static int
put_receipt(struct evbuffer *out, enum outcome outcome, const struct message *message)
{
	char line[64], *at = line;

	if (outcome != OUTCOME_ACCEPTED)
		return evbuffer_add_printf(out, "%s %s\n",
					   outcome_is_temporary(outcome) ? "RETRY" : "REJECT",
					   outcome_name(outcome)) < 0 ? -1 : 0;
	memcpy(at, "OK ", 3);
	id_text(&message->id, at + 3);
	at += 3 + ID_TEXT_LEN;
	*at++ = ' ';
	at = put_number(at, message->size);
	*at++ = '\n';
	return evbuffer_add(out, line, (size_t)(at - line));
}

/* The message back.  What is in memory moves, what is in a file is mapped. */
static int
put_echo(struct connection *c, struct evbuffer *out, struct message *message)
{
	struct body *body = message->body;
	int fd;

	if (body == NULL)
		return evbuffer_add(out, message->data, message->size);
	if (body->memory != NULL)
		return evbuffer_add_buffer(out, body->memory);
	fd = fcntl(body->file, F_DUPFD_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	if (evbuffer_add_file(out, fd, 0, (ev_off_t)message->size) == -1) {
		close(fd);
		return -1;
	}
	c->mapped = true;
	return 0;
}

size_t
reply_unsent(const struct connection *c)
{
	return c->bev != NULL ? evbuffer_get_length(bufferevent_get_output(c->bev)) : 0;
}

/* Keeps the charge for unsent replies true. */
static void
account(struct connection *c)
{
	size_t charged;

	c->unsent = charged = reply_unsent(c);
	if (c->unsent == 0)
		c->mapped = false;
	if (c->mapped && charged > REPLY_UNSENT_MOST)
		charged = REPLY_UNSENT_MOST; /* about what may be besides the files */
	memory_charge(charged);
	memory_release(c->charged);
	c->charged = charged;
}

/* Sends what has been put together.  May find the client gone. */
static void
send_replies(struct connection *c, struct evbuffer *out)
{
	size_t len = evbuffer_get_length(out);
	int failed = 0;

	if (len == 0)
		return;
	c->told = true;
	if (!c->tls && reply_unsent(c) == 0)
		failed = evbuffer_write(out, c->fd) == -1 && errno != EAGAIN && errno != EINTR;
	if (failed) {
		int error = errno;

		evbuffer_drain(out, evbuffer_get_length(out));
		connection_lost(c, strerror(error));
		return;
	}
	if (evbuffer_get_length(out) == 0)
		return;
	if (!connection_buffer(c)) {
		evbuffer_drain(out, evbuffer_get_length(out));
		return;
	}
	if (c->unsent == 0)
		c->heard = clock_now(); /* from now on it is the client that we wait for */
	if (bufferevent_write_buffer(c->bev, out) == -1) {
		evbuffer_drain(out, evbuffer_get_length(out));
		connection_out_of_memory(c);
		return;
	}
	account(c);
	timeout_schedule(c);
}

static void __attribute__((noinline, cold))
say_outcome(const struct connection *c, enum outcome outcome)
{
	connection_log_with(LOG_LEVEL_DEBUG, "message-not-accepted", c,
			    LOG_FIELDS(LOG_TEXT("reason", outcome_name(outcome))), "%s",
			    outcome_name(outcome));
}

/* Counts a batch's outcomes and puts its replies together.  -1: no memory. */
static int
settle(struct connection *c, struct batch *batch, struct evbuffer *out)
{
	struct counters *counters = &c->listener->counters;
	enum config_reply reply = c->listener->config->reply;
	unsigned i, accepted = 0, failed = 0;
	int ok = 0;

	if (!atomic_load_explicit(&batch->mixed, memory_order_relaxed) &&
	    (c->state == CONNECTION_DEAD || reply == CONFIG_REPLY_NONE))
		i = accepted = batch->count; /* nothing to tell */
	else
		i = 0;
	for (; i < batch->count; i++) {
		struct message *m = &batch->messages[i];
		enum outcome outcome = (enum outcome)m->outcome;

		if (outcome == OUTCOME_ACCEPTED)
			accepted++;
		else if (outcome_is_temporary(outcome))
			failed++;
		if (outcome != OUTCOME_ACCEPTED)
			say_outcome(c, outcome);
		if (c->state == CONNECTION_DEAD || reply == CONFIG_REPLY_NONE)
			continue;
		if (reply == CONFIG_REPLY_RECEIPT)
			ok |= put_receipt(out, outcome, m);
		else if (outcome == OUTCOME_ACCEPTED)
			ok |= put_echo(c, out, m);
	}
	counter_add(&counters->accepted, accepted);
	counter_add(&counters->failed, failed);
	counter_add(&counters->refused, batch->count - accepted - failed);
	counter_subtract(&counters->in_flight, batch->count);
	c->in_flight -= batch->count;
	c->held -= batch->held;
	if (accepted < batch->count)
		c->unaccepted = true;
	return ok;
}

void
reply_on_answer(struct inbox_item *item)
{
	struct batch *batch = (struct batch *)((char *)item - offsetof(struct batch, item));
	struct connection *c =
		(struct connection *)((const char *)batch->origin - offsetof(struct connection, origin));
	struct evbuffer *out = c->listener->intake->replies;
	int ok = 0;

	batch->answered = true;
	while ((batch = c->flight) != NULL && batch->answered) {
		c->flight = batch->next;
		if (c->flight == NULL)
			c->flight_last = &c->flight;
		if (!batch->incomplete)
			ok |= settle(c, batch, out);
		batch_free(batch);
	}
	if (c->state != CONNECTION_DEAD) {
		if (ok == 0) {
			send_replies(c, out);
		} else {
			evbuffer_drain(out, evbuffer_get_length(out));
			connection_out_of_memory(c);
		}
	}
	if (c->state == CONNECTION_OPEN) {
		if (c->unaccepted && c->listener->config->reply != CONFIG_REPLY_RECEIPT) {
			connection_end(c); /* the reset is all that can tell */
			return;
		}
		if (c->paused_since != 0)
			receive_run(c);
	}
	connection_advance(c);
}

void
reply_last_words(struct connection *c)
{
	struct evbuffer *out = c->listener->intake->replies;

	if (c->listener->config->reply != CONFIG_REPLY_RECEIPT)
		return;
	if (put_receipt(out, (enum outcome)c->last_words, NULL) == -1)
		connection_out_of_memory(c);
	else
		send_replies(c, out);
}

void
reply_on_drained(struct connection *c)
{
	account(c);
	if (c->unsent > 0)
		return;
	if (c->state == CONNECTION_OPEN && c->paused_since != 0)
		receive_run(c);
	connection_advance(c);
}
