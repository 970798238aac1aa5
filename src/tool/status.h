/*
 * status: what a status service said at one moment, and what it means beside an
 * earlier moment.  All texts are harmless to terminals already.
 */
#ifndef TOOL_STATUS_H
#define TOOL_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct status_listener {
	char *name;
	char *addresses; /* "0.0.0.0:11000 [::]:11000" */
	double active, accepted, refused, bytes;
	double received, in_flight, discarded, not_accepted;
	/* Rates, a second */
	double byte_rate, message_rate, refusal_rate, discard_rate;
};

struct status_sink {
	char *name, *type, *state, *why;
	double waiting, accepted, failed, refused, retried;
	double accept_rate, fail_rate;
};

struct status_connection {
	double id, age, bytes, messages, in_flight;
	char *listener, *peer, *waits_for, *subject;
	double byte_rate, message_rate;
};

struct status {
	char *version, *now, *started, *configuration;
	double pid, uptime, workers;
	bool ready;
	char *not_ready; /* all reasons */
	double memory_messages, memory_limit, memory_resident;
	struct status_listener *listeners;
	size_t n_listeners;
	struct status_sink *sinks;
	size_t n_sinks;
	struct status_connection *connections; /* sorted by id, until status_sort */
	size_t n_connections;
	double left_out;
	bool rated; /* the rates mean something */
};

enum status_column {
	STATUS_ID,
	STATUS_LISTENER,
	STATUS_PEER,
	STATUS_AGE,
	STATUS_RATE,
	STATUS_MESSAGE_RATE,
	STATUS_BYTES,
	STATUS_MESSAGES,
	STATUS_IN_FLIGHT,
	STATUS_WAITS_FOR,
	STATUS_COLUMNS,
};

/* As on the command line; -1: no such. */
int status_column_from_name(const char *name);

/* NULL and why (of that size) when it is no such document. */
struct status *status_parse(const char *text, size_t len, char *why, size_t size);
void status_free(struct status *status); /* NULL is fine */

/* From an earlier status of the same daemon; another one's is passed over. */
void status_rate(struct status *status, const struct status *before);

/* Text columns from A on, numbers from the greatest on; or the other way round. */
void status_sort(struct status *status, enum status_column column, bool reverse);

#endif
