/*
 * timeout: what a client owes us, and by when.
 *
 * One entry a connection in the worker's deadlines, set to what is due first.
 * Activity only moves time stamps; an entry that fires early is set anew.
 */
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "intake/connection.h"
#include "intake/greeting.h"
#include "intake/intake.h"
#include "intake/preface.h"
#include "intake/rate.h"
#include "intake/tls_connection.h"
#include "message/body.h"

#define SECOND UINT64_C(1000000)
#define LINGER_MOST (30 * SECOND)   /* nginx's lingering_time */
#define LINGER_SILENCE (5 * SECOND) /* nginx's lingering_timeout */
#define LINGER_RESET (2 * SECOND)   /* the same where a reset follows */
#define LINGER_LOOK (10000)         /* between looks whether replies have arrived */
#define PAUSE_LOOK (1 * SECOND)     /* between looks for a reset while not reading */
#define RATE_GRACE (10 * SECOND)    /* min_rate is judged after so long */

static uint64_t
earlier(uint64_t a, uint64_t b)
{
	return b < a ? b : a;
}

uint64_t
timeout_lingering(const struct connection *c)
{
	return earlier(c->begun + LINGER_MOST,
		       c->heard + (c->unaccepted || c->dropped ? LINGER_RESET : LINGER_SILENCE));
}

/* When min_rate is broken if nothing more comes. */
static uint64_t
rate_deadline(const struct connection *c)
{
	uint64_t rate = c->listener->config->min_rate;
	uint64_t size = c->body != NULL ? c->body->size : 0;
	uint64_t judged = c->begun + RATE_GRACE;
	uint64_t broken = c->begun + (uint64_t)((double)size * 1e6 / (double)rate) + 1;

	return broken > judged ? broken : judged;
}

/* Not reading, for reasons of ours: no event tells of a reset. */
static bool
is_blind(const struct connection *c)
{
	return c->state == CONNECTION_ENDING ||
	       (c->state == CONNECTION_OPEN && c->paused_since != 0);
}

/* Whether the client has reset the connection, which is then over. */
static bool
look_for_reset(struct connection *c)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) == -1 || error == 0)
		return false;
	connection_lost(c, strerror(error));
	return true;
}

void
timeout_schedule(struct connection *c)
{
	const struct config_listener *config = c->listener->config;
	uint64_t when = UINT64_MAX;

	switch ((enum connection_state)c->state) {
	case CONNECTION_DEAD:
		return;
	case CONNECTION_PREFACE:
		when = preface_deadline(c);
		break;
	case CONNECTION_GREETING:
		when = c->heard + config->tls.handshake_timeout;
		break;
	case CONNECTION_LINGERING:
		when = timeout_lingering(c);
		if (c->fin)
			when = earlier(when, clock_now() + LINGER_LOOK);
		break;
	case CONNECTION_ENDING:
		if (c->unsent > 0 && config->idle_timeout != 0)
			when = c->heard + config->idle_timeout;
		if (c->waving)
			when = clock_now() + LINGER_LOOK;
		break;
	case CONNECTION_OPEN:
		if (config->idle_timeout != 0)
			when = c->heard + config->idle_timeout;
		if (c->begun != 0 && c->paused_since == 0) {
			if (config->message_timeout != 0)
				when = earlier(when, c->begun + config->message_timeout);
			if (config->min_rate != 0)
				when = earlier(when, rate_deadline(c));
			if (config->quiet_timeout != 0)
				when = earlier(when, c->heard + config->quiet_timeout);
		}
		if (c->paced)
			when = earlier(when, c->pace->due);
		break;
	}
	if (is_blind(c))
		when = earlier(when, clock_now() + PAUSE_LOOK);
	if (when == UINT64_MAX)
		deadline_clear(&c->listener->intake->deadlines, &c->deadline);
	else if (c->deadline.slot == 0 || when < c->deadline.when)
		deadline_set(&c->listener->intake->deadlines, &c->deadline, when);
	/* A later one than set is found out when that comes. */
}

/* Whether the client takes its replies, if slowly.  False: it is gone, or was. */
static bool
look_at_replies(struct connection *c, uint64_t now)
{
	uint64_t patience = c->listener->config->idle_timeout;
	size_t before = c->unsent;
	uint8_t state = c->state;

	if (before == 0 || patience == 0 || now < c->heard + patience)
		return true;
	reply_on_drained(c);
	if (c->state != state)
		return false;
	if (c->unsent >= before) {
		connection_lost(c, "it does not read its replies");
		return false;
	}
	c->heard = now;
	return true;
}

/* What the client owes us while we read. */
static void
look_while_open(struct connection *c, uint64_t now)
{
	const struct config_listener *config = c->listener->config;

	if (c->paused_since == 0 && c->begun != 0) {
		if (config->quiet_timeout != 0 && now >= c->heard + config->quiet_timeout) {
			if (c->tls && tls_connection_within(c))
				connection_fail(c, ENDED_TIMEOUT,
						"nothing received for quiet_timeout, within a record");
			else
				feed_quiet(c);
			return;
		}
		if (config->message_timeout != 0 && now >= c->begun + config->message_timeout) {
			connection_fail(c, ENDED_TIMEOUT, "not complete within message_timeout");
			return;
		}
		if (config->min_rate != 0 && now >= rate_deadline(c)) {
			connection_fail(c, ENDED_TIMEOUT, "slower than min_rate");
			return;
		}
	}
	if (config->idle_timeout == 0 || now < c->heard + config->idle_timeout)
		return;
	if (c->unsent > 0) {
		(void)look_at_replies(c, now);
	} else if (c->in_flight > 0 || c->paused_since != 0) {
		c->heard = now; /* the wait is ours */
	} else if (connection_in_progress(c)) {
		connection_fail(c, ENDED_TIMEOUT, "nothing received for idle_timeout");
	} else {
		connection_log(LOG_LEVEL_DEBUG, "connection-idle", c, "nothing received for idle_timeout");
		connection_end(c);
	}
}

void
timeout_on_deadline(struct deadline *deadline)
{
	struct connection *c =
		(struct connection *)((char *)deadline - offsetof(struct connection, deadline));
	uint64_t now = clock_now();

	if (is_blind(c) && look_for_reset(c))
		return;
	switch ((enum connection_state)c->state) {
	case CONNECTION_PREFACE:
		preface_on_deadline(c);
		return;
	case CONNECTION_GREETING:
		/* It may have been set while the header in front was waited for. */
		if (now < c->heard + c->listener->config->tls.handshake_timeout)
			break;
		greeting_late(c);
		return;
	case CONNECTION_OPEN:
		/* What has come while the loop, or the process, stood still counts. */
		if (c->paused_since == 0) {
			receive_run(c);
		} else if (c->paced && now >= c->pace->due) {
			receive_run(c);
			connection_advance(c);
		}
		if (c->state != CONNECTION_OPEN)
			return;
		if (c->tls && c->paused_since == 0 && tls_connection_moves(c))
			c->heard = now;
		look_while_open(c, now);
		break;
	case CONNECTION_ENDING:
		if (c->waving && now >= c->heard + LINGER_MOST)
			connection_lost(c, "it does not read to the end");
		else if (c->waving)
			connection_advance(c);
		else if (look_at_replies(c, now))
			break;
		return;
	case CONNECTION_LINGERING:
		connection_linger(c, now);
		return;
	case CONNECTION_DEAD:
		return;
	}
	timeout_schedule(c);
}
