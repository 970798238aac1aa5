/*
 * status: see status.h.
 *
 * Whoever asks for live connections waits for the workers' answers, which come within
 * moments; a worker that does not answer within SURVEY_PATIENCE is left out, and is not
 * asked again until it has answered.  Who asks meanwhile waits for the same answers, so
 * there is never more than one survey, however many ask.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <event2/http.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/config.h"
#include "generation.h"
#include "heartbeat.h"
#include "intake/survey.h"
#include "status/census.h"
#include "status/history.h"
#include "status/http.h"
#include "status/metrics.h"
#include "status/page.h"
#include "status/picture.h"
#include "status/report_json.h"
#include "status/status.h"
#include "worker.h"

#define SURVEY_MOST 10000       /* connections */
#define SURVEY_PATIENCE 1000000 /* microseconds */
#define STUCK 5000000           /* a worker's loop that does not turn */
#define SHORT_OF_MEMORY 3       /* samples */
#define WAITING_MOST 96         /* requests */

struct waiting {
	struct evhttp_request *request;
	bool page;
};

struct part {
	struct survey_part survey;
	bool out;   /* the worker has it */
	bool taken; /* part of the survey under way */
	struct status *status;
};

struct status {
	struct event_base *base;
	struct reign *reign;
	struct heartbeat *heartbeat;
	struct http *http;     /* in force; NULL: off */
	struct http *retiring; /* what it was before, until its answers are out */
	struct http *next;     /* of the configuration that is being opened ... */
	bool changes;          /* ... and takes the place of the one in force */
	const struct config *config;
	struct census *census;
	struct history history;
	struct event *tick, *patience;
	unsigned full; /* samples with the memory full, one after another */
	bool stopping;
	uint64_t started, started_at;
	struct part *parts; /* one a worker, once there was a survey */
	unsigned n_out;
	bool surveying;
	struct waiting waiting[WAITING_MOST];
	unsigned n_waiting;
};

static void
describe(struct status *s, struct picture *p)
{
	*p = (struct picture){.reign = s->reign, .history = &s->history, .census = s->census,
			      .started = s->started, .started_at = s->started_at,
			      .stopping = s->stopping, .short_of_memory = s->full >= SHORT_OF_MEMORY};
	p->stuck = !heartbeat_ok(s->heartbeat, STUCK);
	heartbeat_ask(s->heartbeat);
}

/* What `write` writes, as a body; NULL: no memory. */
static struct http_body *
compose(struct picture *p, void (*write)(FILE *to, const struct picture *p))
{
	char *bytes = NULL;
	size_t len = 0;
	FILE *to;
	bool failed;

	if (picture_take(p) == -1)
		return NULL;
	to = open_memstream(&bytes, &len);
	if (to != NULL) {
		write(to, p);
		failed = ferror(to) != 0;
		if (fclose(to) == EOF || failed) {
			free(bytes);
			bytes = NULL;
		}
	}
	picture_clear(p);
	return bytes != NULL ? http_body_new(bytes, len) : NULL;
}

/* ------------------------------------------------------------------ survey */

static void
answer_page(struct evhttp_request *request, struct picture *p)
{
	char policy[512];
	struct http_body *body;

	if (page_policy(policy, sizeof(policy)) == -1) {
		http_reply_text(request, HTTP_SERVUNAVAIL, "no random numbers\n");
		return;
	}
	body = compose(p, page_write);
	http_reply(request, HTTP_OK, "text/html; charset=utf-8", policy, body);
	http_body_unref(body);
}

/* Answers all that wait, with what there is. */
static void
survey_end(struct status *s)
{
	struct survey_part *parts = calloc(s->reign->n_workers, sizeof(*parts));
	struct http_body *body = NULL;
	struct picture p;
	unsigned i, n = s->n_waiting;

	event_del(s->patience);
	s->surveying = false;
	s->n_waiting = 0;
	describe(s, &p);
	for (i = 0; parts != NULL && i < s->reign->n_workers; i++) {
		struct part *part = &s->parts[i];

		if (part->taken && !part->out) {
			parts[p.n_parts++] = part->survey;
			p.left_out += part->survey.left_out;
		}
	}
	p.parts = parts;
	for (i = 0; i < n; i++) {
		if (s->waiting[i].page) {
			answer_page(s->waiting[i].request, &p);
			continue;
		}
		if (body == NULL)
			body = compose(&p, report_json_write);
		http_reply(s->waiting[i].request, HTTP_OK, "application/json", NULL, body);
	}
	http_body_unref(body);
	free(parts);
	for (i = 0; i < s->reign->n_workers; i++) {
		struct part *part = &s->parts[i];

		if (part->taken && !part->out)
			survey_close(&part->survey);
		part->taken = false;
	}
}

static void
status_on_answer(struct inbox_item *item)
{
	struct survey_part *survey =
		(struct survey_part *)((char *)item - offsetof(struct survey_part, answer));
	struct part *part = survey->owner;
	struct status *s = part->status;

	part->out = false;
	s->n_out--;
	if (!part->taken) { /* too late */
		survey_close(survey);
		return;
	}
	if (s->surveying && s->n_out == 0)
		survey_end(s);
}

static void
status_on_patience(evutil_socket_t fd, short what, void *arg)
{
	struct status *s = arg;

	(void)fd;
	(void)what;
	if (s->surveying)
		survey_end(s);
}

/* How many connections a worker has, of all its listeners, about. */
static size_t
count_connections(const struct status *s, unsigned worker)
{
	const struct generation *g;
	size_t count = 0, i;

	for (g = s->reign->newest; g != NULL; g = g->next)
		for (i = 0; i < g->n_groups; i++)
			if (g->groups[i].members[worker] != NULL)
				count += counter_get(&g->groups[i].members[worker]->counters
							      .connections_active);
	return count;
}

static void
survey_begin(struct status *s)
{
	static const struct timeval patience = {.tv_sec = SURVEY_PATIENCE / 1000000};
	size_t total = 0, mine, room;
	unsigned i;

	for (i = 0; i < s->reign->n_workers; i++)
		total += count_connections(s, i);
	s->surveying = true;
	for (i = 0; i < s->reign->n_workers; i++) {
		struct part *part = &s->parts[i];

		if (part->out || atomic_load(&s->reign->intakes[i].worker->ended))
			continue;
		/* A few more, which have come meanwhile, or wait for their sinks only. */
		mine = count_connections(s, i);
		room = total <= SURVEY_MOST ? mine + 100 : mine * SURVEY_MOST / total;
		part->status = s;
		if (survey_open(&part->survey, &s->reign->intakes[i], room, status_on_answer) == -1)
			continue;
		part->survey.owner = part;
		part->out = part->taken = true;
		s->n_out++;
		survey_ask(&part->survey);
	}
	event_add(s->patience, &patience);
	if (s->n_out == 0)
		survey_end(s);
}

static void
ask_survey(struct status *s, struct evhttp_request *request, bool page)
{
	if (s->parts == NULL)
		s->parts = calloc(s->reign->n_workers, sizeof(*s->parts));
	if (s->parts == NULL || s->n_waiting == WAITING_MOST) {
		http_reply_text(request, HTTP_SERVUNAVAIL, "too many ask at a time\n");
		return;
	}
	s->waiting[s->n_waiting++] = (struct waiting){.request = request, .page = page};
	if (!s->surveying)
		survey_begin(s);
}

/* ---------------------------------------------------------------- requests */

static void
write_metrics(FILE *to, const struct picture *p)
{
	metrics_write(to, p, false);
}

static void
write_open_metrics(FILE *to, const struct picture *p)
{
	metrics_write(to, p, true);
}

static void
write_reason(const char *text, void *arg)
{
	fprintf(arg, "%s\n", text);
}

static void
write_readiness(FILE *to, const struct picture *p)
{
	if (picture_reasons(p, write_reason, to) == 0)
		fputs("ready\n", to);
}

static void
note_reason(const char *text, void *arg)
{
	(void)text;
	(void)arg;
}

static void
status_on_request(struct evhttp_request *request, const char *path, void *arg)
{
	struct status *s = arg;
	struct http_body *body;
	struct picture p;
	bool open;

	if (strcmp(path, "/") == 0) {
		ask_survey(s, request, true);
	} else if (strcmp(path, "/status.json") == 0) {
		ask_survey(s, request, false);
	} else if (strcmp(path, "/metrics") == 0) {
		open = metrics_wants_open(http_header(request, "Accept"));
		describe(s, &p);
		body = compose(&p, open ? write_open_metrics : write_metrics);
		http_reply(request, HTTP_OK, open ? METRICS_OPEN : METRICS_TEXT, NULL, body);
		http_body_unref(body);
	} else if (strcmp(path, "/healthz") == 0) {
		describe(s, &p);
		http_reply_text(request, p.stuck ? HTTP_SERVUNAVAIL : HTTP_OK,
				p.stuck ? "a worker's loop does not turn\n" : "ok\n");
	} else if (strcmp(path, "/readyz") == 0) {
		describe(s, &p);
		body = compose(&p, write_readiness);
		http_reply(request, picture_reasons(&p, note_reason, NULL) == 0 ? HTTP_OK : HTTP_SERVUNAVAIL,
			   "text/plain; charset=utf-8", NULL, body);
		http_body_unref(body);
	} else {
		http_reply_text(request, HTTP_NOTFOUND,
				"there are /, /metrics, /status.json, /healthz and /readyz\n");
	}
}

/* -------------------------------------------------------------------- time */

static void
status_on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct status *s = arg;
	struct picture p = {.reign = s->reign};

	(void)fd;
	(void)what;
	s->full = memory_over() ? s->full + 1 : 0;
	if (s->retiring != NULL && http_is_idle(s->retiring)) {
		http_close(s->retiring);
		s->retiring = NULL;
	}
	if (s->http == NULL && s->retiring == NULL)
		event_del(s->tick);
	if (s->http == NULL || picture_take(&p) == -1)
		return;
	history_add(&s->history, &p.total, memory_used(), clock_now());
	picture_clear(&p);
}

/* ------------------------------------------------------------- open, close */

static bool
is_same(const struct config_status *a, const struct config_status *b)
{
	return a->address != NULL && b->address != NULL && strcmp(a->address, b->address) == 0 &&
	       a->port == b->port;
}

struct status *
status_open(struct event_base *base, struct reign *reign, struct heartbeat *heartbeat)
{
	struct status *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->base = base;
	s->reign = reign;
	s->heartbeat = heartbeat;
	s->started = clock_wall();
	s->started_at = clock_now();
	s->tick = event_new(base, -1, EV_PERSIST, status_on_tick, s);
	s->patience = evtimer_new(base, status_on_patience, s);
	if (s->tick != NULL && s->patience != NULL)
		return s;
	status_close(s);
	return NULL;
}

int
status_bind(struct status *s, const struct config *config)
{
	s->changes = s->http == NULL || !is_same(&s->config->status, &config->status);
	if (!s->changes || config->status.address == NULL)
		return 0;
	return http_open(&s->next, s->base, &config->status, status_on_request, s);
}

void
status_abandon(struct status *s)
{
	http_close(s->next);
	s->next = NULL;
}

/* Counting is not worth a failure. */
static void
begin_census(struct status *s, const struct config *config)
{
	if (s->census == NULL)
		s->census = census_open();
	if (s->census == NULL || census_set(s->census, config) == -1)
		log_event(LOG_LEVEL_WARNING, "status-census",
			  "messages in spools are not counted: %s", strerror(errno));
}

void
status_begin(struct status *s, const struct config *config)
{
	static const struct timeval interval = {.tv_sec = HISTORY_INTERVAL};

	s->config = config;
	if (!s->changes) {
		http_set_hosts(s->http, &config->status);
	} else if (s->http != NULL) {
		if (s->retiring != NULL && s->surveying)
			survey_end(s); /* it may hold who waits */
		http_close(s->retiring); /* a reload after the other: its clients are late */
		s->retiring = s->http;
		http_retire(s->retiring);
		s->http = NULL;
		http_set_hosts(s->retiring, &config->status);
	}
	if (s->changes && s->next != NULL) {
		s->http = s->next;
		s->next = NULL;
		http_begin(s->http, &config->status);
		status_on_tick(-1, 0, s);
	}
	if (s->http == NULL) {
		census_close(s->census);
		s->census = NULL;
		return;
	}
	event_add(s->tick, &interval);
	begin_census(s, config);
}

void
status_stopping(struct status *s)
{
	s->stopping = true;
}

void
status_close(struct status *s)
{
	unsigned i;

	if (s == NULL)
		return;
	s->n_waiting = 0; /* what they asked with goes with evhttp */
	http_close(s->next);
	http_close(s->http);
	http_close(s->retiring);
	event_base_loop(s->base, EVLOOP_NONBLOCK); /* frees what is left of connections */
	census_close(s->census);
	for (i = 0; s->parts != NULL && i < s->reign->n_workers; i++)
		survey_close(&s->parts[i].survey);
	free(s->parts);
	if (s->tick != NULL)
		event_free(s->tick);
	if (s->patience != NULL)
		event_free(s->patience);
	free(s);
}
