/*
 * facts: see facts.h.
 */
#include "message/facts.h"

#include <stdio.h>

static const char *const names[FACT_COUNT] = {
	[FACT_ID] = "id",       [FACT_LISTENER] = "listener",
	[FACT_PEER] = "peer",   [FACT_LOCAL] = "local",
	[FACT_TIME] = "time",   [FACT_SIZE] = "size",
	[FACT_ENDED] = "ended", [FACT_TLS_SUBJECT] = "tls_subject",
};

static const char *const headers[FACT_COUNT] = {
	[FACT_ID] = "Cistern-Id",       [FACT_LISTENER] = "Cistern-Listener",
	[FACT_PEER] = "Cistern-Peer",   [FACT_LOCAL] = "Cistern-Local",
	[FACT_TIME] = "Cistern-Time",   [FACT_SIZE] = "Cistern-Size",
	[FACT_ENDED] = "Cistern-Ended", [FACT_TLS_SUBJECT] = "Cistern-Tls-Subject",
};

const char *
fact_header(enum fact fact)
{
	return headers[fact];
}

size_t
fact_header_value(char *to, const char *value)
{
	static const char digits[] = "0123456789ABCDEF";
	char *at = to;

	for (; *value != '\0'; value++) {
		unsigned char c = (unsigned char)*value;

		if (c >= 0x20 && c != 0x7f) {
			*at++ = *value;
			continue;
		}
		*at++ = '\\';
		*at++ = 'x';
		*at++ = digits[c >> 4];
		*at++ = digits[c & 15];
	}
	*at = '\0';
	return (size_t)(at - to);
}

const char *
fact_name(enum fact fact)
{
	return names[fact];
}

void
facts_set(struct facts *facts, const struct batch *batch, const struct message *message)
{
	const struct origin *origin = batch->origin;

	id_text(&message->id, facts->id);
	net_address_text(&origin->peer, facts->peer);
	if (origin->local != NULL)
		net_address_text(origin->local, facts->local);
	clock_rfc3339(batch->time, facts->time);
	snprintf(facts->size, sizeof(facts->size), "%llu", (unsigned long long)message->size);
	facts->value[FACT_ID] = facts->id;
	facts->value[FACT_LISTENER] = origin->listener;
	facts->value[FACT_PEER] = facts->peer;
	facts->value[FACT_LOCAL] = origin->local != NULL ? facts->local : NULL;
	facts->value[FACT_TIME] = facts->time;
	facts->value[FACT_SIZE] = facts->size;
	facts->value[FACT_ENDED] = ended_name(message->ended);
	facts->value[FACT_TLS_SUBJECT] = origin->tls_subject;
}
