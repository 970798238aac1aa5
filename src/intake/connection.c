/*
 * connection: its life.  See connection.h for the states.
 *
 * Promise 2 is kept here: the close is orderly (FIN) only when every message
 * was accepted, and a reset otherwise.  Whatever fails while a connection is
 * made is answered with a reset, so that no client takes it for a receipt.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "base/clock.h"
#include "base/memory.h"
#include "intake/connection.h"
#include "intake/greeting.h"
#include "intake/intake.h"
#include "intake/preface.h"
#include "intake/rate.h"
#include "intake/tls_connection.h"
#include "message/body.h"
#include "message/chunk.h"
#include "worker.h"

static const char *const state_names[] = {
	[CONNECTION_PREFACE] = "preface",
	[CONNECTION_GREETING] = "greeting",
	[CONNECTION_OPEN] = "open",
	[CONNECTION_ENDING] = "ending",
	[CONNECTION_LINGERING] = "lingering",
	[CONNECTION_DEAD] = "dead",
};

/* Apart, so that those who do not log have no room for it on their stack. */
static void __attribute__((noinline, cold))
say_state(const struct connection *c)
{
	const char *state = state_names[c->state];

	connection_say(LOG_LEVEL_DEBUG, "connection-state", c, LOG_FIELDS(LOG_TEXT("state", state)), "%s", state);
}

static void __attribute__((noinline, cold))
say_closed(const struct connection *c, bool reset)
{
	unsigned long long bytes = c->bytes, messages = c->messages;

	connection_say(LOG_LEVEL_DEBUG, "connection-closed", c,
		       LOG_FIELDS(LOG_TEXT("close", reset ? "reset" : "fin"), LOG_NUMBER("bytes", bytes),
				  LOG_NUMBER("messages", messages)),
		       "%s after %llu bytes, %llu messages", reset ? "reset" : "closed", bytes, messages);
}

/* States only move forward; anything else is a bug. */
void
connection_enter(struct connection *c, enum connection_state state)
{
	if (state <= c->state) {
		connection_log(LOG_LEVEL_ERROR, "bug", c, "cannot go from %s to %s",
			       state_names[c->state], state_names[state]);
#ifndef NDEBUG
		__builtin_trap();
#endif
	}
	c->state = (uint8_t)state;
	if (log_enabled(LOG_LEVEL_DEBUG))
		say_state(c);
}

/* libevent frees a bufferevent when its loop comes round, and with it what was not sent:
 * references to chunks among that, whose listener may be gone by then. */
static void
drop_unsent(struct connection *c)
{
	struct evbuffer *output = bufferevent_get_output(c->bev);

	evbuffer_unfreeze(output, 1);
	evbuffer_drain(output, evbuffer_get_length(output));
}

/* The descriptor goes, and its places with it; unnamed: it has none among those of an address. */
static void
let_go(struct connection *c, bool reset, bool unnamed)
{
	if (reset)
		net_reset(c->fd);
	else
		net_close(c->fd);
	c->fd = -1;
	counter_subtract(&c->listener->counters.connections_active, 1);
	listener_released(c->listener, unnamed ? NULL : &c->origin.peer);
}

/* The network side ends: with a FIN, or with a reset. */
static void
leave(struct connection *c, bool reset)
{
	struct intake *intake = c->listener->intake;
	bool unnamed = c->state == CONNECTION_PREFACE;

	/* What has events of its own goes while the descriptor is there. */
	if (c->state == CONNECTION_GREETING)
		greeting_leave(c);
	connection_enter(c, CONNECTION_DEAD);
	if (unnamed)
		preface_free(c->preface);
	else
		pace_free(c->pace);
	c->pace = NULL;
	deadline_clear(&intake->deadlines, &c->deadline);
	intake_unstarve(intake, c);
	if (c->tls) {
		if (!reset)
			(void)tls_connection_goodbye(c); /* mostly said already */
		drop_unsent(c);
		tls_connection_drop(c);
	} else if (c->bev != NULL) {
		/* A deferred callback may hold it for a while, and its events must not
		 * outlive the descriptor. */
		bufferevent_disable(c->bev, EV_READ | EV_WRITE);
		drop_unsent(c);
		bufferevent_free(c->bev);
	}
	c->bev = NULL;
	memory_release(c->charged);
	c->charged = 0;
	c->unsent = 0;
	if (!c->away) {
		if (c->rest != NULL)
			chunk_unref(c->rest);
		c->rest = NULL;
		let_go(c, reset, unnamed);
	}
	body_free(c->body);
	c->body = NULL;
	if (log_enabled(LOG_LEVEL_DEBUG))
		say_closed(c, reset);
	if (c->flight == NULL && !c->away)
		intake_bury(intake, c);
}

void
connection_step_home(struct connection *c)
{
	let_go(c, true, false);
	connection_advance(c);
}

void
connection_free(struct connection *c)
{
	struct intake *intake = c->listener->intake;

	*c->previous = c->next;
	if (c->next != NULL)
		c->next->previous = c->previous;
	intake->n_connections--;
	listener_lose(c->listener);
	memory_free(c->origin.local);
	memory_free((void *)(uintptr_t)c->origin.tls_subject);
	memory_free(c);
}

static void
reading(struct connection *c, bool on)
{
	if (c->reading == on || (on && !connection_buffer(c)))
		return;
	c->reading = on;
	if (!on) {
		bufferevent_disable(c->bev, EV_READ);
	} else if (bufferevent_enable(c->bev, EV_READ) == -1) {
		c->reading = false;
		connection_out_of_memory(c); /* or it would wait for ever */
	}
}

void
connection_pause(struct connection *c)
{
	if (c->paused_since == 0)
		c->paused_since = clock_now();
	reading(c, false);
	timeout_schedule(c);
}

void
connection_unpause(struct connection *c)
{
	uint64_t now;

	if (c->paused_since == 0)
		return;
	now = clock_now();
	if (c->begun != 0)
		c->begun += now - c->paused_since; /* the pause was ours, not the client's */
	c->paused_since = 0;
	c->heard = now;
}

void
connection_resume(struct connection *c)
{
	connection_unpause(c);
	if (!c->reading && !c->fin && !c->broken)
		reading(c, true);
}

static void
start_lingering(struct connection *c)
{
	connection_enter(c, CONNECTION_LINGERING);
	connection_resume(c);
	c->begun = c->heard = clock_now();
	timeout_schedule(c);
}

/* Bytes that come after the end are nobody's any more. */
static void
linger_read(struct connection *c)
{
	struct evbuffer *input;
	char bytes[4096];

	while (c->tls && tls_connection_take(c, bytes, sizeof(bytes)) > 0) {
		c->dropped = true;
		c->heard = clock_now();
	}
	if (c->bev == NULL || evbuffer_get_length(bufferevent_get_input(c->bev)) == 0)
		return;
	input = bufferevent_get_input(c->bev);
	c->dropped = true;
	c->heard = clock_now();
	evbuffer_drain(input, evbuffer_get_length(input));
}

/* Whether the client's side has taken all replies. */
static bool
replies_arrived(const struct connection *c)
{
	int queued;

	return ioctl(c->fd, SIOCOUTQ, &queued) == -1 || queued == 0;
}

/* Whether bytes have come that nobody will look at. */
static bool
unread(struct connection *c)
{
	int n;

	if (c->tls)
		return c->rest != NULL || tls_connection_unread(c);
	if (c->rest != NULL ||
	    (c->bev != NULL && evbuffer_get_length(bufferevent_get_input(c->bev)) > 0))
		return true;
	return !c->fin && ioctl(c->fd, FIONREAD, &n) == 0 && n > 0;
}

void
connection_linger(struct connection *c, uint64_t now)
{
	bool reset = c->unaccepted || c->dropped;

	if ((c->fin && replies_arrived(c)) || now >= timeout_lingering(c))
		leave(c, reset);
	else
		timeout_schedule(c);
}

/* TLS has a farewell of its own in front of the FIN.  False: it waits, or all is over. */
static bool
say_goodbye(struct connection *c)
{
	bool waited = c->waving;

	switch (tls_connection_goodbye(c)) {
	case TLS_GOODBYE_SAID:
		return true;
	case TLS_GOODBYE_WAITS:
		if (!waited)
			c->heard = clock_now();
		timeout_schedule(c);
		return false;
	case TLS_GOODBYE_FAILED:
		break;
	}
	leave(c, true);
	return false;
}

void
connection_advance(struct connection *c)
{
	if (c->state == CONNECTION_DEAD && c->flight == NULL && !c->away)
		intake_bury(c->listener->intake, c);
	if (c->state == CONNECTION_OPEN && c->listener->intake->stop != INTAKE_RUNS)
		connection_stop(c); /* a message has ended while the worker stops */
	if (c->state != CONNECTION_ENDING || c->flight != NULL)
		return;
	if (c->last_words != OUTCOME_ACCEPTED) {
		reply_last_words(c);
		c->last_words = OUTCOME_ACCEPTED;
		if (c->state != CONNECTION_ENDING)
			return;
	}
	if (reply_unsent(c) > 0) {
		timeout_schedule(c);
		return;
	}
	if (unread(c))
		c->dropped = true; /* a FIN would claim that it was accepted */
	if ((c->unaccepted || c->dropped) && !c->told) {
		leave(c, true);
	} else if (c->unaccepted || c->dropped) {
		start_lingering(c);
	} else if (c->tls && !say_goodbye(c)) {
		return;
	} else if (c->fin) {
		leave(c, false);
	} else if (shutdown(c->fd, SHUT_WR) == -1) {
		leave(c, true); /* the client is gone already */
	} else {
		start_lingering(c);
	}
}

bool
connection_in_progress(const struct connection *c)
{
	return c->framing.open || c->body != NULL || (c->tls && tls_connection_within(c));
}

/* Reading and framing are over. */
static void
end(struct connection *c)
{
	connection_enter(c, CONNECTION_ENDING);
	intake_unstarve(c->listener->intake, c);
	if (c->rest != NULL) {
		chunk_unref(c->rest);
		c->dropped = true;
	}
	c->rest = NULL;
	c->begun = 0;
	connection_pause(c);
	timeout_schedule(c);
	connection_advance(c);
}

void
connection_end(struct connection *c)
{
	end(c);
}

/* Counts and logs what promise 1 discards. */
static void
discard(struct connection *c, enum ended reason, const char *why)
{
	struct listener *l = c->listener;
	/* A body that could not grow is beyond use. */
	bool aside = l->group->incomplete != NULL && reason != ENDED_STORAGE && reason != ENDED_MEMORY;
	uint64_t size;

	if (aside)
		feed_held_back(c);
	aside = aside && c->body != NULL;
	size = c->body != NULL ? c->body->size : 0;
	counter_add(&l->counters.discarded[reason], 1);
	if (damper_pass(&l->dampers[reason], clock_now()))
		connection_log_with(LOG_LEVEL_WARNING, "message-discarded", c,
				    LOG_FIELDS(LOG_TEXT("reason", ended_name(reason)), LOG_NUMBER("bytes", size)),
				    "%s: %s; %llu bytes of it %s", ended_name(reason), why,
				    (unsigned long long)size, aside ? "put aside" : "discarded");
	else
		intake_damped(l->intake);
	if (aside)
		feed_put_aside(c, reason);
	body_free(c->body);
	c->body = NULL;
}

void
connection_fail(struct connection *c, enum ended reason, const char *why)
{
	discard(c, reason, why);
	c->unaccepted = true;
	c->last_words = (uint8_t)ended_outcome(reason);
	end(c);
}

static void
lose(struct connection *c, enum ended reason, const char *why)
{
	if (c->state == CONNECTION_DEAD)
		return;
	if (c->state == CONNECTION_OPEN && (connection_in_progress(c) || c->rest != NULL))
		discard(c, reason, why);
	else
		connection_log(LOG_LEVEL_DEBUG, "connection-lost", c, "%s", why);
	leave(c, true);
}

void
connection_lost(struct connection *c, const char *why)
{
	lose(c, ENDED_RESET, why);
}

void
connection_cut(struct connection *c)
{
	lose(c, ENDED_INCOMPLETE, "the TLS stream has ended without close_notify");
}

void
connection_refuse(struct connection *c, enum refusal why, const char *text)
{
	listener_refuse(c->listener, why, &c->origin.peer, text);
	leave(c, true);
}

void
connection_turn_away(struct connection *c)
{
	c->unaccepted = true;
	start_lingering(c);
}

void
connection_out_of_memory(struct connection *c)
{
	struct listener *l = c->listener;

	if (damper_pass(&l->dampers[ENDED_MEMORY], clock_now()))
		connection_log(LOG_LEVEL_WARNING, "out-of-memory", c,
			       "reset: out of memory; what was not accepted has to be sent again");
	else
		intake_damped(l->intake);
	connection_lost(c, "out of memory");
}

/* ------------------------------------------------------------------ events */

static void
connection_on_read(struct bufferevent *bev, void *arg)
{
	struct connection *c = arg;

	(void)bev;
	if (c->state == CONNECTION_LINGERING)
		linger_read(c);
	else if (c->state != CONNECTION_OPEN || c->paused_since != 0)
		connection_pause(c); /* what came waits in the bufferevent */
	else
		receive_run(c);
}

static void
connection_on_write(struct bufferevent *bev, void *arg)
{
	struct connection *c = arg;

	(void)bev;
	reply_on_drained(c);
}

/* No more will come, nor go.  What has come is framed before it is judged, in its turn. */
static void
connection_on_cut(struct connection *c)
{
	c->cut = true;
	c->reading = false;
	if (c->state == CONNECTION_LINGERING) {
		c->fin = true; /* all is said, and it has closed */
		linger_read(c);
		connection_linger(c, clock_now());
	} else if (c->state != CONNECTION_OPEN) {
		if (reply_unsent(c) > 0)
			connection_cut(c);
	} else if (c->paused_since == 0) {
		receive_run(c);
	}
}

static void
connection_on_event(struct bufferevent *bev, short what, void *arg)
{
	struct connection *c = arg;
	int error = EVUTIL_SOCKET_ERROR();

	(void)bev;
	if ((what & BEV_EVENT_ERROR) != 0) {
		c->broken = true;
		if (c->tls && tls_connection_is_cut(c, error)) {
			connection_on_cut(c);
			return;
		}
		/* What was read before the reset is framed first: whole messages in
		 * it are whole. */
		if (c->state == CONNECTION_OPEN && c->paused_since == 0)
			receive_run(c);
		connection_lost(c, strerror(error));
		return;
	}
	if ((what & BEV_EVENT_EOF) == 0)
		return;
	c->fin = true;
	c->reading = false; /* by libevent */
	if (c->tls)
		tls_connection_half_close(c);
	if (c->state == CONNECTION_LINGERING) {
		linger_read(c);
		connection_linger(c, clock_now());
	} else if (c->state == CONNECTION_OPEN && c->paused_since == 0) {
		receive_run(c);
	}
}

bool
connection_buffer(struct connection *c)
{
	if (c->bev != NULL)
		return true;
	c->bev = bufferevent_socket_new(c->listener->intake->worker->base, c->fd, 0);
	if (c->bev == NULL) {
		connection_out_of_memory(c);
		return false;
	}
	connection_adopt(c, c->bev);
	bufferevent_set_max_single_read(c->bev, (size_t)c->listener->config->buffer_size);
	return true;
}

void
connection_adopt(struct connection *c, struct bufferevent *bev)
{
	c->bev = bev;
	bufferevent_setcb(bev, connection_on_read, connection_on_write, connection_on_event, c);
}

/* Whether its first message may be on the way: then the client would take a FIN for
 * the receipt of what nobody will read. */
static bool
awaits_first(const struct connection *c)
{
	return c->messages == 0 && !c->fin && c->listener->config->reply == CONFIG_REPLY_NONE;
}

void
connection_stop(struct connection *c)
{
	enum intake_stop level = c->listener->intake->stop;

	if (c->state == CONNECTION_DEAD)
		return;
	if (c->state == CONNECTION_PREFACE) {
		/* A header that has come whole is not turned away. */
		if (level == INTAKE_STOP)
			preface_run(c);
		if (c->state == CONNECTION_PREFACE)
			connection_refuse(c, REFUSAL_SHUTDOWN, "the daemon stops");
		if (c->state == CONNECTION_DEAD)
			return;
	}
	if (c->state == CONNECTION_GREETING) {
		leave(c, true);
		return;
	}
	if (level == INTAKE_KILL) {
		/* A FIN would claim what we do not know. */
		leave(c, c->unaccepted || c->flight != NULL || c->unsent > 0 || c->dropped ||
				 connection_in_progress(c) || unread(c) || awaits_first(c));
		return;
	}
	if (c->state == CONNECTION_OPEN && c->paused_since == 0)
		receive_run(c); /* what has arrived is not turned away */
	if (c->state != CONNECTION_OPEN)
		return;
	if (level == INTAKE_ABORT && (connection_in_progress(c) || c->rest != NULL))
		connection_fail(c, ENDED_SHUTDOWN, "the daemon stops");
	else if (level != INTAKE_ABORT && (connection_in_progress(c) || c->rest != NULL ||
					   c->in_flight > 0 || c->paused_since != 0))
		return;
	else if (awaits_first(c))
		leave(c, true);
	else
		connection_end(c);
}
