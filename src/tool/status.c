/*
 * status: see status.h.
 *
 * jansson reads the JSON.  A member that is missing, or of another type, is 0 or
 * "": the service may be older or younger than we are.
 */
#include "tool/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool/tool.h"

#define NUMBER_MOST 2e19 /* 2^64, and a little */
#define SECONDS_LEAST .001 /* between two looks */

static const char *const column_names[STATUS_COLUMNS] = {
	"connection", "listener", "peer",     "age",	   "rate",
	"message-rate", "bytes",  "messages", "in-flight", "waits-for",
};

int
status_column_from_name(const char *name)
{
	for (int i = 0; i < STATUS_COLUMNS; i++)
		if (strcmp(name, column_names[i]) == 0)
			return i;
	return -1;
}

#ifdef HAVE_JANSSON

#include <jansson.h>

/* What is larger than any counter of ours is nonsense; a sum or a rate of it might be no
 * number any more. */
static double
plausible(const json_t *value)
{
	double number = json_number_value(value);

	return number > -NUMBER_MOST && number < NUMBER_MOST ? number : 0;
}

static double
number(const json_t *object, const char *name)
{
	return plausible(json_object_get(object, name));
}

static char *
text(const json_t *value)
{
	if (!json_is_string(value))
		return tool_copy("");
	return tool_show_bytes(json_string_value(value), json_string_length(value));
}

static char *
member(const json_t *object, const char *name)
{
	return text(json_object_get(object, name));
}

/* The strings of a list in one line. */
static char *
joined(const json_t *list, const char *between)
{
	char *all = tool_copy("");

	for (size_t i = 0; i < json_array_size(list); i++) {
		char *one = text(json_array_get(list, i));
		size_t len = strlen(all);

		all = tool_grow(all, len + strlen(between) + strlen(one) + 1, 1);
		sprintf(all + len, "%s%s", i == 0 ? "" : between, one);
		free(one);
	}
	return all;
}

/* All the numbers of an object by reason. */
static double
sum(json_t *object)
{
	const char *name;
	json_t *value;
	double all = 0;

	json_object_foreach(object, name, value)
		all += plausible(value);
	return all;
}

static void
read_listener(const json_t *from, struct status_listener *to)
{
	const json_t *connections = json_object_get(from, "connections");
	const json_t *messages = json_object_get(from, "messages");

	to->name = member(from, "name");
	to->addresses = joined(json_object_get(from, "addresses"), " ");
	to->active = number(connections, "active");
	to->accepted = number(connections, "accepted");
	to->refused = sum(json_object_get(connections, "refused"));
	to->bytes = number(from, "bytes");
	to->received = number(messages, "received");
	to->in_flight = number(messages, "in_flight");
	to->not_accepted = number(messages, "refused") + number(messages, "failed");
	to->discarded = sum(json_object_get(messages, "discarded"));
}

static void
read_sink(const json_t *from, struct status_sink *to)
{
	const json_t *messages = json_object_get(from, "messages");

	to->name = member(from, "name");
	to->type = member(from, "type");
	to->state = member(from, "state");
	to->why = member(from, "why");
	to->waiting = number(from, "waiting");
	to->accepted = number(messages, "accepted");
	to->refused = number(messages, "refused");
	to->failed = number(messages, "failed");
	to->retried = number(messages, "retried");
}

static void
read_connection(const json_t *from, struct status_connection *to)
{
	to->id = number(from, "id");
	to->listener = member(from, "listener");
	to->peer = member(from, "peer");
	to->age = number(from, "age");
	to->bytes = number(from, "bytes");
	to->messages = number(from, "messages");
	to->in_flight = number(from, "in_flight");
	to->waits_for = member(from, "waits_for");
	to->subject = member(from, "tls_subject");
}

static int
compare_ids(const void *a, const void *b)
{
	const struct status_connection *left = a, *right = b;

	return left->id < right->id ? -1 : left->id > right->id;
}

static struct status *
read_status(const json_t *root)
{
	const json_t *memory = json_object_get(root, "memory");
	const json_t *listeners = json_object_get(root, "listeners");
	const json_t *sinks = json_object_get(root, "sinks");
	const json_t *connections = json_object_get(root, "connections");
	struct status *status = tool_alloc(sizeof *status);
	size_t i;

	status->version = member(root, "version");
	status->now = member(root, "now");
	status->started = member(root, "started");
	status->configuration = member(root, "configuration");
	status->pid = number(root, "pid");
	status->uptime = number(root, "uptime");
	status->workers = number(root, "workers");
	status->ready = json_is_true(json_object_get(root, "ready"));
	status->not_ready = joined(json_object_get(root, "not_ready"), "; ");
	status->memory_messages = number(memory, "messages");
	status->memory_limit = number(memory, "limit");
	status->memory_resident = number(memory, "resident");
	status->left_out = number(root, "connections_left_out");
	status->n_listeners = json_array_size(listeners);
	status->listeners = tool_alloc((status->n_listeners + 1) * sizeof *status->listeners);
	for (i = 0; i < status->n_listeners; i++)
		read_listener(json_array_get(listeners, i), &status->listeners[i]);
	status->n_sinks = json_array_size(sinks);
	status->sinks = tool_alloc((status->n_sinks + 1) * sizeof *status->sinks);
	for (i = 0; i < status->n_sinks; i++)
		read_sink(json_array_get(sinks, i), &status->sinks[i]);
	status->n_connections = json_array_size(connections);
	status->connections = tool_alloc((status->n_connections + 1) * sizeof *status->connections);
	for (i = 0; i < status->n_connections; i++)
		read_connection(json_array_get(connections, i), &status->connections[i]);
	qsort(status->connections, status->n_connections, sizeof *status->connections, compare_ids);
	return status;
}

struct status *
status_parse(const char *document, size_t len, char *why, size_t size)
{
	json_error_t error;
	/* As real numbers, so that no integer is too large. */
	json_t *root = json_loadb(document, len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
	struct status *status;

	if (root == NULL) {
		snprintf(why, size, "what came is no JSON: line %d: %s", error.line, error.text);
		return NULL;
	}
	if (!json_is_object(root) || !json_is_array(json_object_get(root, "listeners"))) {
		snprintf(why, size, "what came is no status of cisternd");
		json_decref(root);
		return NULL;
	}
	status = read_status(root);
	json_decref(root);
	return status;
}

#else

struct status *
status_parse(const char *document, size_t len, char *why, size_t size)
{
	(void)document, (void)len;
	snprintf(why, size, "jansson, which reads JSON, was not compiled in");
	return NULL;
}

#endif

void
status_free(struct status *status)
{
	size_t i;

	if (status == NULL)
		return;
	for (i = 0; i < status->n_listeners; i++) {
		free(status->listeners[i].name);
		free(status->listeners[i].addresses);
	}
	for (i = 0; i < status->n_sinks; i++) {
		free(status->sinks[i].name);
		free(status->sinks[i].type);
		free(status->sinks[i].state);
		free(status->sinks[i].why);
	}
	for (i = 0; i < status->n_connections; i++) {
		free(status->connections[i].listener);
		free(status->connections[i].peer);
		free(status->connections[i].waits_for);
		free(status->connections[i].subject);
	}
	free(status->listeners);
	free(status->sinks);
	free(status->connections);
	free(status->version);
	free(status->now);
	free(status->started);
	free(status->configuration);
	free(status->not_ready);
	free(status);
}

/* Of a counter; one that has shrunk belongs to something new. */
static double
rate(double now, double before, double seconds)
{
	return now >= before && seconds > 0 ? (now - before) / seconds : 0;
}

static void
rate_listener(struct status_listener *listener, const struct status *before, double seconds)
{
	for (size_t i = 0; i < before->n_listeners; i++) {
		const struct status_listener *old = &before->listeners[i];

		if (strcmp(old->name, listener->name) != 0)
			continue;
		listener->byte_rate = rate(listener->bytes, old->bytes, seconds);
		listener->message_rate = rate(listener->received, old->received, seconds);
		listener->refusal_rate = rate(listener->refused, old->refused, seconds);
		listener->discard_rate = rate(listener->discarded, old->discarded, seconds);
		return;
	}
}

static void
rate_sink(struct status_sink *sink, const struct status *before, double seconds)
{
	for (size_t i = 0; i < before->n_sinks; i++) {
		const struct status_sink *old = &before->sinks[i];

		if (strcmp(old->name, sink->name) != 0)
			continue;
		sink->accept_rate = rate(sink->accepted, old->accepted, seconds);
		sink->fail_rate = rate(sink->failed + sink->refused, old->failed + old->refused, seconds);
		return;
	}
}

/* The earlier ones may be in any order by now. */
static void
rate_connections(struct status *status, const struct status *before, double seconds)
{
	struct status_connection *old = tool_alloc((before->n_connections + 1) * sizeof *old);
	size_t at = 0;

	if (before->n_connections > 0)
		memcpy(old, before->connections, before->n_connections * sizeof *old);
	status_sort(&(struct status){.connections = old, .n_connections = before->n_connections},
		    STATUS_ID, false);
	for (size_t i = 0; i < status->n_connections; i++) {
		struct status_connection *connection = &status->connections[i];
		double life = connection->age < seconds ? connection->age : seconds;

		while (at < before->n_connections && old[at].id < connection->id)
			at++;
		if (at < before->n_connections && old[at].id == connection->id) {
			connection->byte_rate = rate(connection->bytes, old[at].bytes, seconds);
			connection->message_rate =
				rate(connection->messages, old[at].messages, seconds);
		} else {
			connection->byte_rate = rate(connection->bytes, 0, life);
			connection->message_rate = rate(connection->messages, 0, life);
		}
	}
	free(old);
}

void
status_rate(struct status *status, const struct status *before)
{
	double seconds;

	if (before == NULL || before->pid != status->pid ||
	    strcmp(before->started, status->started) != 0)
		return;
	seconds = status->uptime - before->uptime;
	if (seconds < SECONDS_LEAST)
		return;
	status->rated = true;
	for (size_t i = 0; i < status->n_listeners; i++)
		rate_listener(&status->listeners[i], before, seconds);
	for (size_t i = 0; i < status->n_sinks; i++)
		rate_sink(&status->sinks[i], before, seconds);
	rate_connections(status, before, seconds);
}

struct order {
	enum status_column column;
	bool reverse;
};

static double
value(const struct status_connection *connection, enum status_column column)
{
	switch (column) {
	case STATUS_AGE:
		return connection->age;
	case STATUS_RATE:
		return connection->byte_rate;
	case STATUS_MESSAGE_RATE:
		return connection->message_rate;
	case STATUS_BYTES:
		return connection->bytes;
	case STATUS_MESSAGES:
		return connection->messages;
	case STATUS_IN_FLIGHT:
		return connection->in_flight;
	default:
		return 0;
	}
}

static int
compare(const void *a, const void *b, void *arg)
{
	const struct status_connection *left = a, *right = b;
	const struct order *order = arg;
	double l, r;
	int result;

	if (order->column == STATUS_LISTENER)
		result = strcmp(left->listener, right->listener);
	else if (order->column == STATUS_PEER)
		result = strcmp(left->peer, right->peer);
	else if (order->column == STATUS_WAITS_FOR)
		result = strcmp(left->waits_for, right->waits_for);
	else if (order->column == STATUS_ID)
		result = left->id < right->id ? -1 : left->id > right->id;
	else {
		l = value(left, order->column);
		r = value(right, order->column);
		result = l > r ? -1 : l < r;
	}
	if (result == 0)
		return left->id < right->id ? -1 : left->id > right->id;
	return order->reverse ? -result : result;
}

void
status_sort(struct status *status, enum status_column column, bool reverse)
{
	struct order order = {.column = column, .reverse = reverse};

	if (status->n_connections > 0)
		qsort_r(status->connections, status->n_connections, sizeof *status->connections,
			compare, &order);
}
