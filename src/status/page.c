/*
 * page: see page.h.
 *
 * page.html is compiled in; its {{words}} are written by the functions of the table
 * below.  Its script writes the same figures in the same way, into the same places.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "intake/listener.h"
#include "intake/survey.h"
#include "sinks/account.h"
#include "status/census.h"
#include "status/chart.h"
#include "status/history.h"
#include "status/page.h"
#include "status/picture.h"
#include "status/process.h"
#include "status/text.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

#define SHOWN 500 /* connections; as in page.html */

static const char page[] =
#include "page_html.h"
	;

static char nonce[33]; /* of the page that is written next */

/* ------------------------------------------------------------------- cells */

static void
cell(FILE *to, const char *class, const char *text)
{
	fprintf(to, "<td%s%s%s>", class != NULL ? " class=\"" : "", class != NULL ? class : "",
		class != NULL ? "\"" : "");
	text_html(to, text);
	fputs("</td>", to);
}

static void
head(FILE *to, const char *text)
{
	fputs("<tr><th scope=\"row\" class=\"t\">", to);
	text_html(to, text);
	fputs("</th>", to);
}

static void
number(FILE *to, uint64_t n)
{
	fputs("<td>", to);
	text_count(to, n);
	fputs("</td>", to);
}

static void
bytes(FILE *to, uint64_t n)
{
	fputs("<td>", to);
	text_bytes(to, (double)n);
	fputs("</td>", to);
}

static void
print_rate(FILE *to, double n)
{
	if (n < 10)
		fprintf(to, "%.1f", n);
	else
		text_count(to, (uint64_t)(n + .5));
}

static void
print_bytes_rate(FILE *to, double n)
{
	text_bytes(to, n);
	fputs("/s", to);
}

static void
print_count(FILE *to, double n)
{
	text_count(to, (uint64_t)n);
}

static uint64_t
sum(const counter *counts, unsigned n)
{
	uint64_t total = 0;

	while (n-- > 0)
		total += counter_get(&counts[n]);
	return total;
}

/* ------------------------------------------------------------------- words */

static void
nothing(const char *text, void *arg)
{
	(void)text;
	(void)arg;
}

static bool
is_ready(const struct picture *p)
{
	return picture_reasons(p, nothing, NULL) == 0;
}

static void
write_state(FILE *to, const struct picture *p)
{
	fputs(is_ready(p) ? "ready" : "not ready", to);
}

static void
write_class(FILE *to, const struct picture *p)
{
	fputs(is_ready(p) ? "good" : "bad", to);
}

static void
write_nonce(FILE *to, const struct picture *p)
{
	(void)p;
	fputs(nonce, to);
}

static void
write_host(FILE *to, const struct picture *p)
{
	char name[256] = "";

	(void)p;
	if (gethostname(name, sizeof(name) - 1) == -1)
		name[0] = '\0';
	text_html(to, name);
}

static void
write_version(FILE *to, const struct picture *p)
{
	(void)p;
	fputs(PACKAGE_VERSION, to);
}

static void
write_pid(FILE *to, const struct picture *p)
{
	(void)p;
	fprintf(to, "%ld", (long)getpid());
}

static void
write_uptime(FILE *to, const struct picture *p)
{
	text_age(to, (double)(clock_now() - p->started_at) / 1e6);
}

static void
write_now(FILE *to, const struct picture *p)
{
	char text[CLOCK_TEXT_LEN + 1];

	(void)p;
	clock_rfc3339(clock_wall(), text);
	text[10] = ' ';
	fprintf(to, "%.19s UTC", text);
}

static void
write_reason(const char *text, void *arg)
{
	fputs("<li>", arg);
	text_html(arg, text);
	fputs("</li>", arg);
}

static void
write_reasons(FILE *to, const struct picture *p)
{
	fputs("<ul id=\"reasons\" class=\"bad\">", to);
	picture_reasons(p, write_reason, to);
	fputs("</ul>", to);
}

static uint64_t
lost(const struct picture *p)
{
	return sum(&p->total.discarded[ENDED_RESET], PICTURE_DISCARDS) + counter_get(&p->total.refused) +
	       counter_get(&p->total.failed);
}

static void
card(FILE *to, const char *title, const char *id)
{
	fprintf(to, "<li><h2>%s</h2><p><span id=\"%s\">", title, id);
}

static void
write_cards(FILE *to, const struct picture *p)
{
	static const struct history_sample none;
	const struct history *h = p->history;
	const struct history_sample *now = h->count > 0 ? history_sample(h, h->count - 1) : &none;
	struct process process;

	process_look(&process, p->started);
	card(to, "Messages a second", "rate-messages");
	print_rate(to, now->messages);
	fputs("</span><small id=\"messages\">", to);
	text_count(to, counter_get(&p->total.received));
	fputs(" in all</small></p></li>\n", to);
	card(to, "Bytes a second", "rate-bytes");
	print_bytes_rate(to, now->bytes);
	fputs("</span><small id=\"bytes\">", to);
	text_bytes(to, (double)counter_get(&p->total.bytes));
	fputs(" in all</small></p></li>\n", to);
	card(to, "Connections", "active");
	text_count(to, counter_get(&p->total.connections_active));
	fputs("</span><small>open now</small></p></li>\n", to);
	card(to, "In flight", "in-flight");
	text_count(to, counter_get(&p->total.in_flight));
	fputs("</span><small>messages, with sinks</small></p></li>\n", to);
	card(to, "Not accepted", "not-accepted");
	text_count(to, lost(p));
	fputs("</span><small>messages since the start</small></p></li>\n", to);
	card(to, "Memory for messages", "memory");
	text_bytes(to, (double)memory_used());
	fputs("</span> <small class=\"beside\" id=\"memory-limit\">of ", to);
	text_bytes(to, (double)memory_limit());
	fprintf(to, "</small><meter id=\"meter\" min=\"0\" max=\"%" PRIu64 "\" value=\"%" PRIu64
		"\" aria-label=\"Memory for messages\"></meter><small id=\"resident\">resident ",
		memory_limit(), memory_used());
	text_bytes(to, process.resident_memory);
	fputs("</small></p></li>\n", to);
}

static double
messages_of(const struct history_sample *sample)
{
	return sample->messages;
}

static double
bytes_of(const struct history_sample *sample)
{
	return sample->bytes;
}

static double
connections_of(const struct history_sample *sample)
{
	return (double)sample->connections;
}

static double
memory_of(const struct history_sample *sample)
{
	return (double)sample->memory;
}

static void
write_charts(FILE *to, const struct picture *p)
{
	const struct chart charts[] = {
		{"messages", "Messages a second", messages_of, print_rate, 0},
		{"bytes", "Bytes a second", bytes_of, print_bytes_rate, 0},
		{"connections", "Connections", connections_of, print_count, 0},
		/* Some kilobytes are not to look like a mountain. */
		{"memory", "Memory", memory_of, text_bytes, (double)memory_limit() / 50},
	};
	size_t i;

	for (i = 0; i < sizeof(charts) / sizeof(charts[0]); i++)
		chart_write(to, &charts[i], p->history);
}

static void
write_listeners(FILE *to, const struct picture *p)
{
	size_t i, k;

	for (i = 0; i < p->n_listeners; i++) {
		const struct picture_listener *l = &p->listeners[i];
		const struct counters *c = &l->counters;

		if (l->group == NULL && counter_get(&c->connections_active) == 0)
			continue;
		head(to, l->name);
		fputs("<td class=\"t a\">", to);
		for (k = 0; l->group != NULL && k < l->group->sockets.count; k++) {
			fputs(k > 0 ? " " : "", to);
			text_html(to, l->group->sockets.items[k]->text);
		}
		fputs("</td>", to);
		number(to, counter_get(&c->connections_active));
		number(to, counter_get(&c->connections));
		number(to, sum(c->connections_refused, REFUSAL_COUNT));
		number(to, counter_get(&c->received));
		number(to, counter_get(&c->in_flight));
		bytes(to, counter_get(&c->bytes));
		fputs("</tr>\n", to);
	}
}

static void
write_sinks(FILE *to, const struct picture *p)
{
	size_t i;

	for (i = 0; i < p->n_sinks; i++) {
		const struct picture_sink *s = &p->sinks[i];

		if (s->type == NULL)
			continue;
		head(to, s->name);
		cell(to, "t", s->type);
		cell(to, s->trouble ? "t why bad" : "t", s->trouble ? s->why : "ok");
		number(to, s->waiting);
		number(to, account_get(&s->account->accepted));
		number(to, account_get(&s->account->refused));
		number(to, account_get(&s->account->failed));
		number(to, account_get(&s->account->retried));
		fputs("</tr>\n", to);
	}
}

static bool
lost_row(FILE *to, const char *what, const char *reason, uint64_t n)
{
	if (n == 0)
		return false;
	head(to, what);
	cell(to, "t", reason);
	number(to, n);
	fputs("</tr>\n", to);
	return true;
}

static void
write_lost(FILE *to, const struct picture *p)
{
	bool any = false;
	unsigned i;

	for (i = 0; i < PICTURE_DISCARDS; i++)
		any |= lost_row(to, "message discarded", picture_discard(i),
				counter_get(&p->total.discarded[ENDED_RESET + i]));
	for (i = 0; i < REFUSAL_COUNT; i++)
		any |= lost_row(to, "connection turned away", picture_refusal(i),
				counter_get(&p->total.connections_refused[i]));
	any |= lost_row(to, "message refused", "by a sink, for good", counter_get(&p->total.refused));
	any |= lost_row(to, "message failed", "by a sink, for now", counter_get(&p->total.failed));
	if (!any)
		fputs("<tr><th scope=\"row\" class=\"t\">nothing</th><td></td><td>0</td></tr>\n", to);
}

static void
write_spool(const char *sink, const uint64_t counts[CENSUS_STATES], void *arg)
{
	int s;

	head(arg, sink);
	for (s = 0; s < CENSUS_STATES; s++)
		number(arg, counts[s]);
	fputs("</tr>\n", arg);
}

static void
write_spools(FILE *to, const struct picture *p)
{
	long before = ftell(to);

	if (p->census != NULL)
		census_tell(p->census, write_spool, to);
	if (ftell(to) == before)
		fputs("<tr><th scope=\"row\" class=\"t\">none</th><td></td><td></td><td></td><td></td>"
		      "</tr>\n", to);
}

/* ------------------------------------------------------------- connections */

struct row {
	const struct survey_part *part;
	const struct survey_entry *entry;
};

static int
compare_rows(const void *a, const void *b)
{
	const struct survey_entry *x = ((const struct row *)a)->entry, *y = ((const struct row *)b)->entry;

	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return x->id > y->id ? -1 : x->id < y->id;
}

static size_t
count_entries(const struct picture *p)
{
	size_t count = 0;
	unsigned w;

	for (w = 0; w < p->n_parts; w++)
		count += p->parts[w].count;
	return count;
}

static void
write_shown(FILE *to, const struct picture *p)
{
	size_t count = count_entries(p);

	if (p->left_out > 0 || count > SHOWN)
		fprintf(to, "%zu of ", count < SHOWN ? count : SHOWN);
	text_count(to, count + p->left_out);
	if (p->left_out == 0 && count <= SHOWN)
		fputs(" open", to);
}

static void
write_connection(FILE *to, const struct row *row)
{
	const struct survey_entry *e = row->entry;
	char peer[NET_TEXT_LEN];

	net_address_text(&e->peer, peer);
	fprintf(to, "<tr><td>%" PRIu64 "</td>", e->id);
	cell(to, "t", row->part->text + e->listener);
	cell(to, "t", peer);
	fputs("<td>", to);
	text_age(to, (double)e->age / 1e6);
	fputs("</td>", to);
	bytes(to, e->bytes);
	number(to, e->messages);
	number(to, e->in_flight);
	cell(to, "t", e->waits_for);
	cell(to, "t", row->part->text + e->subject);
	fputs("</tr>\n", to);
}

static void
write_connections(FILE *to, const struct picture *p)
{
	size_t count = count_entries(p), n = 0, i;
	struct row *rows = calloc(count + 1, sizeof(*rows));
	unsigned w;

	if (rows == NULL)
		return; /* a page without them is better than none */
	for (w = 0; w < p->n_parts; w++)
		for (i = 0; i < p->parts[w].count; i++)
			rows[n++] = (struct row){&p->parts[w], &p->parts[w].entries[i]};
	qsort(rows, n, sizeof(*rows), compare_rows);
	for (i = 0; i < n && i < SHOWN; i++)
		write_connection(to, &rows[i]);
	if (n == 0)
		fputs("<tr><td></td><td class=\"t\">none</td><td></td><td></td><td></td><td></td><td></td>"
		      "<td></td><td></td></tr>\n", to);
	free(rows);
}

/* -------------------------------------------------------------------- page */

static const struct {
	const char *word;
	void (*write)(FILE *to, const struct picture *p);
} words[] = {
	{"nonce", write_nonce},
	{"state", write_state},
	{"class", write_class},
	{"host", write_host},
	{"version", write_version},
	{"pid", write_pid},
	{"uptime", write_uptime},
	{"now", write_now},
	{"reasons", write_reasons},
	{"cards", write_cards},
	{"charts", write_charts},
	{"listeners", write_listeners},
	{"sinks", write_sinks},
	{"lost", write_lost},
	{"spools", write_spools},
	{"shown", write_shown},
	{"connections", write_connections},
};

static void
write_word(FILE *to, const char *word, size_t len, const struct picture *p)
{
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strlen(words[i].word) == len && memcmp(words[i].word, word, len) == 0)
			words[i].write(to, p);
}

int
page_policy(char *policy, size_t size)
{
	unsigned char random[16];
	size_t i;

	if (getrandom(random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random))
		return -1;
	for (i = 0; i < sizeof(random); i++)
		snprintf(nonce + 2 * i, 3, "%02x", random[i]);
	snprintf(policy, size,
		 "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; connect-src 'self'; "
		 "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
		 nonce, nonce);
	return 0;
}

void
page_write(FILE *to, const struct picture *p)
{
	const char *at = page, *open, *close;

	while ((open = strstr(at, "{{")) != NULL && (close = strstr(open, "}}")) != NULL) {
		fwrite(at, 1, (size_t)(open - at), to);
		write_word(to, open + 2, (size_t)(close - open - 2), p);
		at = close + 2;
	}
	fputs(at, to);
}
