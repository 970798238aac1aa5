/*
 * metrics: see metrics.h.
 *
 * A row says what a metric is called and where its number comes from.  Counters are
 * named without their _total, which text 0.0.4 takes for part of the name and OpenMetrics
 * does not.  Series are written for every reason and outcome, 0 or not, so that rates
 * begin with the first.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory.h"
#include "sinks/account.h"
#include "status/census.h"
#include "status/metrics.h"
#include "status/picture.h"
#include "status/process.h"
#include "status/text.h"

#ifndef PACKAGE_VERSION
#define PACKAGE_VERSION "unknown"
#endif

enum kind { COUNTER, GAUGE, HISTOGRAM, INFO };

struct writer {
	FILE *to;
	const struct picture *picture;
	const struct metric *metric;
	struct process process;
	bool open;
};

struct metric {
	const char *name;
	enum kind kind;
	const char *help;
	void (*write)(struct writer *w);
	size_t offset;                     /* of a number in its struct */
	const char *(*reason)(unsigned i); /* words of a row of them */
	unsigned n_reasons;
};

static const char *const kinds[] = {
	[COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram", [INFO] = "info",
};

/* ------------------------------------------------------------------- lines */

/* NAME{A="a",B="b"} , up to the number; NULL: no such label. */
static void
begin(struct writer *w, const char *label, const char *value, const char *other, const char *word)
{
	fprintf(w->to, "%s%s", w->metric->name, w->metric->kind == COUNTER ? "_total" : "");
	if (label != NULL) {
		fprintf(w->to, "{%s=", label);
		text_label(w->to, value);
	}
	if (other != NULL) {
		fprintf(w->to, "%c%s=", label != NULL ? ',' : '{', other);
		text_label(w->to, word);
	}
	fputs(label != NULL || other != NULL ? "} " : " ", w->to);
}

static void
number(struct writer *w, uint64_t n)
{
	fprintf(w->to, "%" PRIu64 "\n", n);
}

/* A bucket, the count or the sum of a histogram, up to the number. */
static void
begin_part(struct writer *w, const char *part, const char *sink, const char *bound)
{
	fprintf(w->to, "%s_%s", w->metric->name, part);
	if (sink != NULL) {
		fputs("{sink=", w->to);
		text_label(w->to, sink);
	}
	if (bound != NULL)
		fprintf(w->to, "%cle=\"%s\"", sink != NULL ? ',' : '{', bound);
	fputs(sink != NULL || bound != NULL ? "} " : " ", w->to);
}

/* ----------------------------------------------------------------- sources */

static uint64_t
of_listener(const struct writer *w, const struct picture_listener *l, unsigned i)
{
	return counter_get((const counter *)(const void *)((const char *)&l->counters +
							   w->metric->offset) + i);
}

static void
write_listeners(struct writer *w)
{
	const struct picture *p = w->picture;
	size_t i;
	unsigned k;

	for (i = 0; i < p->n_listeners; i++) {
		const struct picture_listener *l = &p->listeners[i];

		if (w->metric->reason == NULL) {
			begin(w, "listener", l->name, NULL, NULL);
			number(w, of_listener(w, l, 0));
		}
		for (k = 0; w->metric->reason != NULL && k < w->metric->n_reasons; k++) {
			begin(w, "listener", l->name, "reason", w->metric->reason(k));
			number(w, of_listener(w, l, k));
		}
	}
}

static void
write_sizes(struct writer *w)
{
	const struct counters *c = &w->picture->total;
	char bound[32];
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < COUNTERS_SIZES; i++) {
		sum += counter_get(&c->sizes[i]);
		snprintf(bound, sizeof(bound), "%" PRIu64 "%s", COUNTERS_SIZE_BOUND(i),
			 w->open ? ".0" : "");
		begin_part(w, "bucket", NULL, i + 1 < COUNTERS_SIZES ? bound : "+Inf");
		number(w, sum);
	}
	begin_part(w, "sum", NULL, NULL);
	number(w, counter_get(&c->size_sum));
	begin_part(w, "count", NULL, NULL);
	number(w, sum);
}

static void
write_outcomes(struct writer *w)
{
	size_t i;

	for (i = 0; i < w->picture->n_sinks; i++) {
		const struct picture_sink *s = &w->picture->sinks[i];

		begin(w, "sink", s->name, "outcome", "accepted");
		number(w, account_get(&s->account->accepted));
		begin(w, "sink", s->name, "outcome", "refused");
		number(w, account_get(&s->account->refused));
		begin(w, "sink", s->name, "outcome", "failed");
		number(w, account_get(&s->account->failed));
		begin(w, "sink", s->name, "outcome", "retried");
		number(w, account_get(&s->account->retried));
	}
}

static void
write_seconds(struct writer *w)
{
	char bound[32];
	uint64_t sum;
	unsigned i;
	size_t s;

	for (s = 0; s < w->picture->n_sinks; s++) {
		const struct picture_sink *sink = &w->picture->sinks[s];

		for (i = 0, sum = 0; i <= ACCOUNT_BOUNDS; i++) {
			sum += account_get(&sink->account->seconds[i]);
			if (i < ACCOUNT_BOUNDS)
				snprintf(bound, sizeof(bound), "%g%s", account_bounds[i] / 1e6,
					 w->open && account_bounds[i] % 1000000 == 0 ? ".0" : "");
			begin_part(w, "bucket", sink->name, i < ACCOUNT_BOUNDS ? bound : "+Inf");
			number(w, sum);
		}
		begin_part(w, "sum", sink->name, NULL);
		fprintf(w->to, "%.6f\n", (double)account_get(&sink->account->microseconds) / 1e6);
		begin_part(w, "count", sink->name, NULL);
		number(w, sum);
	}
}

static void
write_waiting(struct writer *w)
{
	size_t i;

	for (i = 0; i < w->picture->n_sinks; i++) {
		begin(w, "sink", w->picture->sinks[i].name, NULL, NULL);
		number(w, w->picture->sinks[i].waiting);
	}
}

static void
write_sinks_ready(struct writer *w)
{
	size_t i;

	for (i = 0; i < w->picture->n_sinks; i++) {
		begin(w, "sink", w->picture->sinks[i].name, NULL, NULL);
		number(w, !w->picture->sinks[i].trouble);
	}
}

static void
write_spool(const char *sink, const uint64_t counts[CENSUS_STATES], void *arg)
{
	int s;

	for (s = 0; s < CENSUS_STATES; s++) {
		begin(arg, "sink", sink, "state", census_state_name((enum census_state)s));
		number(arg, counts[s]);
	}
}

static void
write_spools(struct writer *w)
{
	if (w->picture->census != NULL)
		census_tell(w->picture->census, write_spool, w);
}

static void
write_build(struct writer *w)
{
	begin(w, "version", PACKAGE_VERSION, NULL, NULL);
	number(w, 1);
}

static void
write_memory(struct writer *w)
{
	begin(w, NULL, NULL, NULL, NULL);
	number(w, memory_used());
}

static void
write_memory_limit(struct writer *w)
{
	begin(w, NULL, NULL, NULL, NULL);
	number(w, memory_limit());
}

static void
count_nothing(const char *text, void *arg)
{
	(void)text;
	(void)arg;
}

static void
write_ready(struct writer *w)
{
	begin(w, NULL, NULL, NULL, NULL);
	number(w, picture_reasons(w->picture, count_nothing, NULL) == 0);
}

static void
write_process(struct writer *w)
{
	const double *value = (const double *)(const void *)((const char *)&w->process +
							     w->metric->offset);

	if (*value < 0)
		return; /* not known */
	begin(w, NULL, NULL, NULL, NULL);
	fprintf(w->to, "%.*f\n", *value == (double)(uint64_t)*value ? 0 : 3, *value);
}

/* ------------------------------------------------------------------- table */

#define LISTENER(member) write_listeners, offsetof(struct counters, member), NULL, 0
#define REASONS(member, words, count) \
	write_listeners, offsetof(struct counters, member), words, count
#define PROCESS(member) write_process, offsetof(struct process, member), NULL, 0
#define OWN(function) function, 0, NULL, 0

static const struct metric metrics[] = {
	{"cistern_build_info", INFO, "The version of cisternd that runs.", OWN(write_build)},
	{"cistern_ready", GAUGE, "Whether messages can be accepted, as /readyz says.", OWN(write_ready)},
	{"cistern_connections_accepted", COUNTER, "Connections accepted.", LISTENER(connections)},
	{"cistern_connections_refused", COUNTER, "Connections turned away before a byte was read.",
	 REASONS(connections_refused, picture_refusal, REFUSAL_COUNT)},
	{"cistern_connections_active", GAUGE, "Connections open now.", LISTENER(connections_active)},
	{"cistern_accept_errors", COUNTER, "Times that accepting failed, mostly for want of descriptors.",
	 LISTENER(accept_errors)},
	{"cistern_tls_failures", COUNTER, "TLS handshakes that failed.",
	 REASONS(tls_failed, picture_tls_failure, TLS_FAILURE_COUNT)},
	{"cistern_received_bytes", COUNTER, "Bytes read from clients.", LISTENER(bytes)},
	{"cistern_messages_received", COUNTER,
	 "Messages received whole: those accepted, refused, failed and in flight.", LISTENER(received)},
	{"cistern_messages_accepted", COUNTER, "Messages that all sinks have accepted.",
	 LISTENER(accepted)},
	{"cistern_messages_refused", COUNTER, "Messages refused for good.", LISTENER(refused)},
	{"cistern_messages_failed", COUNTER, "Messages that could not be accepted for now.",
	 LISTENER(failed)},
	{"cistern_messages_in_flight", GAUGE, "Messages that the sinks have not answered yet.",
	 LISTENER(in_flight)},
	{"cistern_messages_discarded", COUNTER, "Messages that were never whole, and so never received.",
	 REASONS(discarded[ENDED_RESET], picture_discard, PICTURE_DISCARDS)},
	{"cistern_message_size_bytes", HISTOGRAM, "Sizes of the messages received.", OWN(write_sizes)},
	{"cistern_sink_messages", COUNTER, "Messages by what a sink has answered.", OWN(write_outcomes)},
	{"cistern_sink_delivery_seconds", HISTOGRAM,
	 "Time from a message's last byte to the sink's answer.", OWN(write_seconds)},
	{"cistern_sink_waiting_messages", GAUGE, "Messages that a sink has and has not answered yet.",
	 OWN(write_waiting)},
	{"cistern_sink_ready", GAUGE, "Whether a sink can accept messages.", OWN(write_sinks_ready)},
	{"cistern_spool_messages", GAUGE, "Files in a spool, as counted every ten seconds or less often.",
	 OWN(write_spools)},
	{"cistern_memory_message_bytes", GAUGE, "Memory that holds bytes of messages.", OWN(write_memory)},
	{"cistern_memory_limit_bytes", GAUGE, "memory_limit.", OWN(write_memory_limit)},
	{"process_cpu_seconds", COUNTER, "Processor time, of user and system.", PROCESS(cpu_seconds)},
	{"process_open_fds", GAUGE, "Open file descriptors.", PROCESS(open_fds)},
	{"process_max_fds", GAUGE, "The limit of open file descriptors.", PROCESS(max_fds)},
	{"process_virtual_memory_bytes", GAUGE, "Size of the address space.", PROCESS(virtual_memory)},
	{"process_resident_memory_bytes", GAUGE, "Memory resident.", PROCESS(resident_memory)},
	{"process_threads", GAUGE, "Threads.", PROCESS(threads)},
	{"process_start_time_seconds", GAUGE, "When the process started, since 1970.",
	 PROCESS(start_time)},
};

bool
metrics_wants_open(const char *accept)
{
	static const char type[] = "application/openmetrics-text";
	const char *at = accept, *end, *q;

	/* Who names it is able to read it; q says whether it wants to. */
	for (; at != NULL && *at != '\0'; at = *end == ',' ? end + 1 : end) {
		at += strspn(at, " \t");
		end = at + strcspn(at, ",");
		if (strncasecmp(at, type, sizeof(type) - 1) != 0)
			continue;
		q = strstr(at, "q=");
		if (q == NULL || q > end || strtod(q + 2, NULL) > 0)
			return true;
	}
	return false;
}

void
metrics_write(FILE *to, const struct picture *picture, bool open)
{
	struct writer w = {.to = to, .picture = picture, .open = open};
	size_t i;

	process_look(&w.process, picture->started);
	for (i = 0; i < sizeof(metrics) / sizeof(metrics[0]); i++) {
		const struct metric *m = &metrics[i];
		const char *end = m->kind == COUNTER && !open ? "_total" : "";
		/* The family of an info goes without _info, and is unknown to text 0.0.4. */
		int len = (int)strlen(m->name) - (m->kind == INFO && open ? 5 : 0);

		w.metric = m;
		fprintf(to, "# HELP %.*s%s %s\n", len, m->name, end, m->help);
		fprintf(to, "# TYPE %.*s%s %s\n", len, m->name, end,
			m->kind == INFO && !open ? "gauge" : kinds[m->kind]);
		m->write(&w);
	}
	if (open)
		fputs("# EOF\n", to);
}
