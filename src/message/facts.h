/*
 * facts: what is known of a message besides its bytes, as text.
 *
 * One home for it: the environment of commands, the headers of brokers and what a
 * spool keeps beside a file are made from here, so they never say different things.
 */
#ifndef MESSAGE_FACTS_H
#define MESSAGE_FACTS_H

#include "base/clock.h"
#include "base/net.h"
#include "message/message.h"

enum fact {
	FACT_ID,       /* a ULID */
	FACT_LISTENER, /* the listener's name */
	FACT_PEER,     /* as net_address_text writes it */
	FACT_LOCAL,    /* likewise; absent unless a sink asked for it (struct origin) */
	FACT_TIME,     /* when it was whole: RFC 3339, UTC, microseconds */
	FACT_SIZE,     /* bytes, decimal */
	FACT_ENDED,    /* as ended_name writes it */
	FACT_TLS_SUBJECT, /* of any length; absent without a client's certificate */
	FACT_COUNT,
};

struct facts {
	const char *value[FACT_COUNT]; /* NULL: absent.  Into this struct or the batch's origin. */
	char id[ID_TEXT_LEN + 1];
	char peer[NET_TEXT_LEN];
	char local[NET_TEXT_LEN];
	char time[CLOCK_TEXT_LEN + 1];
	char size[24];
};

/* Fills it for a message of the batch; good as long as both are.  Any thread. */
void facts_set(struct facts *facts, const struct batch *batch, const struct message *message);

/* "id", "listener", ..., "tls_subject": as the keys of format json. */
const char *fact_name(enum fact fact);

/* "Cistern-Id", "Cistern-Listener", ..., "Cistern-Tls-Subject": in headers of brokers. */
const char *fact_header(enum fact fact);

/* A value as a header may hold it: controls are shown as \xNN, so it stays on its line.
 * Returns the length; `to` has room for FACT_HEADER_MAX of the value's. */
#define FACT_HEADER_MAX(len) (4 * (len) + 1)
size_t fact_header_value(char *to, const char *value);

#endif
