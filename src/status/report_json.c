/*
 * report_json: see report_json.h.  Totals are since the start; a reader computes rates from
 * two of them.
 */
#include <inttypes.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "config/config.h"
#include "generation.h"
#include "intake/listener.h"
#include "intake/survey.h"
#include "sinks/account.h"
#include "status/census.h"
#include "status/history.h"
#include "status/picture.h"
#include "status/process.h"
#include "status/report_json.h"
#include "status/text.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

struct list {
	FILE *to;
	const char *separator;
};

static void
next(struct list *list)
{
	fputs(list->separator, list->to);
	list->separator = ",";
}

static void
write_reasons(FILE *to, const char *name, const counter *counts, const char *(*word)(unsigned i),
	      unsigned count)
{
	unsigned i;

	fprintf(to, "\"%s\":{", name);
	for (i = 0; i < count; i++)
		fprintf(to, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", word(i), counter_get(&counts[i]));
	fputs("}", to);
}

static void
write_listener(FILE *to, const struct picture_listener *l)
{
	const struct counters *c = &l->counters;
	size_t i;

	fputs("{\"name\":", to);
	text_json(to, l->name);
	fputs(",\"addresses\":[", to);
	for (i = 0; l->group != NULL && i < l->group->sockets.count; i++) {
		fputs(i > 0 ? "," : "", to);
		text_json(to, l->group->sockets.items[i]->text);
	}
	fprintf(to, "],\"connections\":{\"active\":%" PRIu64 ",\"accepted\":%" PRIu64 ",",
		counter_get(&c->connections_active), counter_get(&c->connections));
	write_reasons(to, "refused", c->connections_refused, picture_refusal, REFUSAL_COUNT);
	fprintf(to, "},\"bytes\":%" PRIu64 ",\"messages\":{\"received\":%" PRIu64
		",\"accepted\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"failed\":%" PRIu64
		",\"in_flight\":%" PRIu64 ",", counter_get(&c->bytes), counter_get(&c->received),
		counter_get(&c->accepted), counter_get(&c->refused), counter_get(&c->failed),
		counter_get(&c->in_flight));
	write_reasons(to, "discarded", &c->discarded[ENDED_RESET], picture_discard, PICTURE_DISCARDS);
	fputs("}}", to);
}

static void
write_sink(FILE *to, const struct picture_sink *s)
{
	fputs("{\"name\":", to);
	text_json(to, s->name);
	fputs(",\"type\":", to);
	text_json(to, s->type);
	fprintf(to, ",\"state\":\"%s\"", s->trouble ? "trouble" : "ok");
	if (s->trouble) {
		fputs(",\"why\":", to);
		text_json(to, s->why);
	}
	fprintf(to, ",\"waiting\":%" PRIu64 ",\"messages\":{\"accepted\":%" PRIu64
		",\"refused\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"retried\":%" PRIu64
		"},\"delivery_seconds_sum\":%.6f}", s->waiting, account_get(&s->account->accepted),
		account_get(&s->account->refused), account_get(&s->account->failed),
		account_get(&s->account->retried),
		(double)account_get(&s->account->microseconds) / 1e6);
}

static void
write_spool(const char *sink, const uint64_t counts[CENSUS_STATES], void *arg)
{
	struct list *list = arg;
	int s;

	next(list);
	text_json(list->to, sink);
	for (s = 0; s < CENSUS_STATES; s++)
		fprintf(list->to, "%s\"%s\":%" PRIu64, s == 0 ? ":{" : ",",
			census_state_name((enum census_state)s), counts[s]);
	fputc('}', list->to);
}

static void
write_connection(FILE *to, const struct survey_part *part, const struct survey_entry *e)
{
	char peer[NET_TEXT_LEN];

	net_address_text(&e->peer, peer);
	fprintf(to, "{\"id\":%" PRIu64 ",\"listener\":", e->id);
	text_json(to, part->text + e->listener);
	fputs(",\"peer\":", to);
	text_json(to, peer);
	fprintf(to, ",\"age\":%.1f,\"bytes\":%" PRIu64 ",\"messages\":%" PRIu64
		",\"in_flight\":%" PRIu32 ",\"waits_for\":\"%s\"", (double)e->age / 1e6, e->bytes,
		e->messages, e->in_flight, e->waits_for);
	if (e->subject != 0) {
		fputs(",\"tls_subject\":", to);
		text_json(to, part->text + e->subject);
	}
	fputc('}', to);
}

static void
write_connections(FILE *to, const struct picture *p)
{
	struct list list = {.to = to, .separator = ""};
	unsigned w;
	size_t i;

	fputs("\"connections\":[", to);
	for (w = 0; w < p->n_parts; w++)
		for (i = 0; i < p->parts[w].count; i++) {
			next(&list);
			write_connection(to, &p->parts[w], &p->parts[w].entries[i]);
		}
	fprintf(to, "],\"connections_left_out\":%zu", p->left_out);
}

static void
write_history(FILE *to, const struct history *h)
{
	size_t i;

	fprintf(to, "\"history\":{\"interval\":%d,\"messages\":[", HISTORY_INTERVAL);
	for (i = 0; i < h->count; i++)
		fprintf(to, "%s%.1f", i > 0 ? "," : "", history_sample(h, i)->messages);
	fputs("],\"bytes\":[", to);
	for (i = 0; i < h->count; i++)
		fprintf(to, "%s%.0f", i > 0 ? "," : "", history_sample(h, i)->bytes);
	fputs("],\"lost\":[", to);
	for (i = 0; i < h->count; i++)
		fprintf(to, "%s%.1f", i > 0 ? "," : "", history_sample(h, i)->lost);
	fputs("],\"connections\":[", to);
	for (i = 0; i < h->count; i++)
		fprintf(to, "%s%" PRIu64, i > 0 ? "," : "", history_sample(h, i)->connections);
	fputs("],\"memory\":[", to);
	for (i = 0; i < h->count; i++)
		fprintf(to, "%s%" PRIu64, i > 0 ? "," : "", history_sample(h, i)->memory);
	fputs("]}", to);
}

static void
write_reason(const char *text, void *arg)
{
	struct list *list = arg;

	next(list);
	text_json(list->to, text);
}

void
report_json_write(FILE *to, const struct picture *p)
{
	struct list reasons = {.to = to, .separator = ""}, spools = {.to = to, .separator = "\"spools\":{"};
	char started[CLOCK_TEXT_LEN + 1], now[CLOCK_TEXT_LEN + 1];
	struct process process;
	const char *separator = "";
	size_t i;

	clock_rfc3339(p->started, started);
	clock_rfc3339(clock_wall(), now);
	process_look(&process, p->started);
	fprintf(to, "{\"version\":\"%s\",\"pid\":%ld,\"started\":\"%s\",\"now\":\"%s\",\"uptime\":%.3f,"
		"\"configuration\":", PACKAGE_VERSION, (long)getpid(), started, now,
		(double)(clock_now() - p->started_at) / 1e6);
	text_json(to, p->reign->newest != NULL ? p->reign->newest->config->file : "");
	fprintf(to, ",\"workers\":%u,\"not_ready\":[", p->reign->n_workers);
	i = picture_reasons(p, write_reason, &reasons);
	fprintf(to, "],\"ready\":%s,\"memory\":{\"messages\":%" PRIu64 ",\"limit\":%" PRIu64
		",\"resident\":%.0f},\n\"listeners\":[", i == 0 ? "true" : "false", memory_used(),
		memory_limit(), process.resident_memory);
	for (i = 0; i < p->n_listeners; i++) {
		if (p->listeners[i].group == NULL &&
		    counter_get(&p->listeners[i].counters.connections_active) == 0)
			continue;
		fputs(separator, to);
		separator = ",";
		write_listener(to, &p->listeners[i]);
	}
	fputs("],\n\"sinks\":[", to);
	separator = "";
	for (i = 0; i < p->n_sinks; i++) {
		if (p->sinks[i].type == NULL)
			continue;
		fputs(separator, to);
		separator = ",";
		write_sink(to, &p->sinks[i]);
	}
	fputs("],\n", to);
	if (p->census != NULL)
		census_tell(p->census, write_spool, &spools);
	fputs(*spools.separator == ',' ? "},\n" : "", to);
	write_connections(to, p);
	fputs(",\n", to);
	write_history(to, p->history);
	fputs("}\n", to);
}
