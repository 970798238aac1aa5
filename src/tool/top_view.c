/*
 * top_view: see top_view.h.
 */
#include "tool/top_view.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "config/types.h"
#include "tool/screen.h"
#include "tool/tool.h"

#define AGE_MOST 1e12 /* seconds; microseconds still fit into 64 bits */
#define MARK (marks ? "\1" : "")
_Static_assert(SCREEN_HEADING == '\1', "MARK is a string of it");

/* A count or a rate: "0", "0.3", "12", "1.2K" (of thousands). */
static const char *
count_text(double count, char text[TOOL_SHORT])
{
	static const char units[] = " kMGTPE";
	int unit = 0;

	while (count >= 999.5 && unit < 6) {
		count /= 1000;
		unit++;
	}
	if (unit == 0)
		snprintf(text, TOOL_SHORT, count > 0 && count < 9.95 && count != (int)count ? "%.1f" :
											     "%.0f",
			 count);
	else
		snprintf(text, TOOL_SHORT, count < 9.95 ? "%.1f%c" : "%.0f%c", count, units[unit]);
	return text;
}

static const char *
rate_text(const struct status *status, double rate, char text[TOOL_SHORT])
{
	if (status->rated)
		return count_text(rate, text);
	strcpy(text, "-");
	return text;
}

static const char *
byte_rate_text(const struct status *status, double rate, char text[TOOL_SHORT])
{
	if (status->rated)
		tool_size(rate, text);
	else
		strcpy(text, "-");
	return text;
}

static const char *
age_text(double seconds, char text[TOOL_SHORT])
{
	if (seconds > AGE_MOST)
		seconds = AGE_MOST;
	tool_age(seconds > 0 ? (uint64_t)(seconds * (double)TYPES_SECOND) : 0, text);
	return text;
}

static int
width(int least, const char *text)
{
	int len = (int)strlen(text);

	return len > least ? len : least;
}

static void
put_summary(FILE *to, const struct status *status)
{
	double active = 0, in_flight = 0, bytes = 0, messages = 0, discards = 0;
	char a[TOOL_SHORT], b[TOOL_SHORT], c[TOOL_SHORT], d[TOOL_SHORT], e[TOOL_SHORT];

	for (size_t i = 0; i < status->n_listeners; i++) {
		const struct status_listener *listener = &status->listeners[i];

		active += listener->active;
		in_flight += listener->in_flight;
		bytes += listener->byte_rate;
		messages += listener->message_rate;
		discards += listener->discard_rate;
	}
	fprintf(to, "cistern %s  pid %.0f  up %s  workers %.0f  %s\n", status->version, status->pid,
		age_text(status->uptime, a), status->workers, status->ready ? "ready" : "NOT READY");
	if (!status->ready && *status->not_ready != '\0')
		fprintf(to, "%s\n", status->not_ready);
	fprintf(to, "messages/s %s  bytes/s %s  discards/s %s  connections %s  in flight %s\n",
		rate_text(status, messages, a), byte_rate_text(status, bytes, b),
		rate_text(status, discards, c), count_text(active, d), count_text(in_flight, e));
	tool_size(status->memory_messages, a);
	tool_size(status->memory_limit, b);
	tool_size(status->memory_resident, c);
	fprintf(to, "memory for messages %s of %s, resident %s\n", a, b, c);
}

void
top_view_head(FILE *to, const struct status *status, bool marks)
{
	char a[TOOL_SHORT], b[TOOL_SHORT], c[TOOL_SHORT], d[TOOL_SHORT], e[TOOL_SHORT],
		f[TOOL_SHORT];
	int names = 8, types = 4;
	size_t i;

	put_summary(to, status);
	for (i = 0; i < status->n_listeners; i++)
		names = width(names, status->listeners[i].name);
	for (i = 0; i < status->n_sinks; i++) {
		names = width(names, status->sinks[i].name);
		types = width(types, status->sinks[i].type);
	}
	fprintf(to, "%s%-*s %6s %7s %7s %9s %9s %9s  %s\n", MARK, names, "LISTENER", "CONNS",
		"MSG/S", "BYTES/S", "IN FLIGHT", "REFUSED", "DISCARDED", "ADDRESSES");
	for (i = 0; i < status->n_listeners; i++) {
		const struct status_listener *listener = &status->listeners[i];

		fprintf(to, "%-*s %6s %7s %7s %9s %9s %9s  %s\n", names, listener->name,
			count_text(listener->active, a),
			rate_text(status, listener->message_rate, b),
			byte_rate_text(status, listener->byte_rate, c),
			count_text(listener->in_flight, d), count_text(listener->refused, e),
			count_text(listener->discarded, f), listener->addresses);
	}
	fprintf(to, "%s%-*s %-*s %-8s %7s %7s %7s %7s %7s  %s\n", MARK, names, "SINK", types, "TYPE",
		"STATE", "WAITING", "ACC/S", "FAIL/S", "FAILED", "RETRIED", "WHY");
	for (i = 0; i < status->n_sinks; i++) {
		const struct status_sink *sink = &status->sinks[i];

		fprintf(to, "%-*s %-*s %-8s %7s %7s %7s %7s %7s  %s\n", names, sink->name, types,
			sink->type, sink->state, count_text(sink->waiting, a),
			rate_text(status, sink->accept_rate, b), rate_text(status, sink->fail_rate, c),
			count_text(sink->failed + sink->refused, d), count_text(sink->retried, e),
			sink->why);
	}
}

void
top_view_connections(FILE *to, const struct status *status, enum status_column sorted,
		     size_t first, size_t count, bool marks)
{
	static const char *const titles[STATUS_COLUMNS] = {
		"CONNECTION", "LISTENER", "PEER", "AGE", "BYTES/S",
		"MSG/S", "BYTES", "MESSAGES", "IN FLIGHT", "WAITS FOR",
	};
	char title[STATUS_COLUMNS][24], a[TOOL_SHORT], b[TOOL_SHORT], c[TOOL_SHORT], d[TOOL_SHORT],
		e[TOOL_SHORT], f[TOOL_SHORT];
	int names = 9, peers = 5;
	size_t i;

	for (i = 0; i < status->n_connections; i++) {
		names = width(names, status->connections[i].listener);
		peers = width(peers, status->connections[i].peer);
	}
	for (i = 0; i < STATUS_COLUMNS; i++)
		snprintf(title[i], sizeof title[i], "%s%s", titles[i], i == sorted && marks ? "*" : "");
	fprintf(to, "%s%11s %-*s %-*s %5s %8s %7s %7s %9s %10s %-12s %s\n", MARK, title[STATUS_ID],
		names, title[STATUS_LISTENER], peers, title[STATUS_PEER], title[STATUS_AGE],
		title[STATUS_RATE], title[STATUS_MESSAGE_RATE], title[STATUS_BYTES],
		title[STATUS_MESSAGES], title[STATUS_IN_FLIGHT], title[STATUS_WAITS_FOR], "SUBJECT");
	for (i = first; i < status->n_connections && i - first < count; i++) {
		const struct status_connection *connection = &status->connections[i];

		tool_size(connection->bytes, a);
		fprintf(to, "%11.0f %-*s %-*s %5s %8s %7s %7s %9s %10s %-12s %s\n", connection->id,
			names, connection->listener, peers, connection->peer,
			age_text(connection->age, b),
			byte_rate_text(status, connection->byte_rate, c),
			rate_text(status, connection->message_rate, d), a,
			count_text(connection->messages, e), count_text(connection->in_flight, f),
			connection->waits_for, connection->subject);
	}
	if (status->left_out > 0 && i == status->n_connections)
		fprintf(to, "and %.0f more connections\n", status->left_out);
}

/* `"name":"text"`, with what comes before. */
static void
put_text(FILE *to, const char *before, const char *name, const char *text)
{
	char *escaped = tool_alloc(JSON_ESCAPED_MAX(UTF8_SHOW_MAX(strlen(text))) + 1);
	size_t len = json_text(escaped, text);

	fprintf(to, "%s\"%s\":\"%.*s\"", before, name, (int)len, escaped);
	free(escaped);
}

static void
put_number(FILE *to, const char *name, double number)
{
	/* Counters whole, rates as far as they mean something. */
	if (number > -1e18 && number < 1e18 && number == (double)(long long)number)
		fprintf(to, ",\"%s\":%.0f", name, number);
	else
		fprintf(to, ",\"%s\":%.3f", name, number);
}

void
top_view_json(FILE *to, const struct status *status)
{
	size_t i;

	put_text(to, "{", "now", status->now);
	put_text(to, ",", "version", status->version);
	put_number(to, "pid", status->pid);
	put_number(to, "uptime", status->uptime);
	fprintf(to, ",\"ready\":%s", status->ready ? "true" : "false");
	put_text(to, ",", "not_ready", status->not_ready);
	put_number(to, "memory_messages", status->memory_messages);
	put_number(to, "memory_limit", status->memory_limit);
	put_number(to, "memory_resident", status->memory_resident);
	fputs(",\"listeners\":[", to);
	for (i = 0; i < status->n_listeners; i++) {
		const struct status_listener *listener = &status->listeners[i];

		put_text(to, i == 0 ? "{" : ",{", "name", listener->name);
		put_number(to, "connections", listener->active);
		put_number(to, "messages_per_second", listener->message_rate);
		put_number(to, "bytes_per_second", listener->byte_rate);
		put_number(to, "refused_per_second", listener->refusal_rate);
		put_number(to, "discarded_per_second", listener->discard_rate);
		put_number(to, "in_flight", listener->in_flight);
		put_number(to, "messages", listener->received);
		put_number(to, "bytes", listener->bytes);
		put_number(to, "not_accepted", listener->not_accepted);
		put_number(to, "refused", listener->refused);
		put_number(to, "discarded", listener->discarded);
		fputc('}', to);
	}
	fputs("],\"sinks\":[", to);
	for (i = 0; i < status->n_sinks; i++) {
		const struct status_sink *sink = &status->sinks[i];

		put_text(to, i == 0 ? "{" : ",{", "name", sink->name);
		put_text(to, ",", "type", sink->type);
		put_text(to, ",", "state", sink->state);
		put_text(to, ",", "why", sink->why);
		put_number(to, "waiting", sink->waiting);
		put_number(to, "accepted_per_second", sink->accept_rate);
		put_number(to, "failed_per_second", sink->fail_rate);
		put_number(to, "accepted", sink->accepted);
		put_number(to, "failed", sink->failed);
		put_number(to, "refused", sink->refused);
		put_number(to, "retried", sink->retried);
		fputc('}', to);
	}
	fputs("],\"connections\":[", to);
	for (i = 0; i < status->n_connections; i++) {
		const struct status_connection *connection = &status->connections[i];

		fprintf(to, "%s{\"id\":%.0f", i == 0 ? "" : ",", connection->id);
		put_text(to, ",", "listener", connection->listener);
		put_text(to, ",", "peer", connection->peer);
		put_number(to, "age", connection->age);
		put_number(to, "messages_per_second", connection->message_rate);
		put_number(to, "bytes_per_second", connection->byte_rate);
		put_number(to, "messages", connection->messages);
		put_number(to, "bytes", connection->bytes);
		put_number(to, "in_flight", connection->in_flight);
		put_text(to, ",", "waits_for", connection->waits_for);
		put_text(to, ",", "tls_subject", connection->subject);
		fputc('}', to);
	}
	fprintf(to, "],\"connections_left_out\":%.0f}\n", status->left_out);
}
