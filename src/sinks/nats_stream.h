/*
 * nats_stream: asking the servers about the stream, and making it.
 *
 * Asking blocks for as long as the servers take to answer, and is the keeper's alone.
 */
#ifndef SINKS_NATS_STREAM_H
#define SINKS_NATS_STREAM_H

#include "sinks/nats_link.h"

struct nats_finding {
	enum nats_link_state state;
	uint64_t limit; /* of a message with its headers; 0: unknown */
	bool full;	/* it takes no more, or hardly */
	char **subjects; /* that it takes, the caller's to free; NULL: unknown */
	int n_subjects;
	char why[160]; /* it is not open */
};

/* Asks, and makes a stream that is not there where the sink has `create`. */
void nats_stream_ask(struct nats_finding *finding, natsConnection *connection,
		     const struct config_sink *config);

void nats_stream_free_subjects(char **subjects, int count);

/* For who has the link's lock: whether the stream takes a subject, as far as is known from a
 * question put after then; and one that it has said it does not take. */
bool nats_stream_takes(const struct nats_link *link, const char *subject, uint64_t after);
void nats_stream_set_misfit(struct nats_link *link, const char *subject);

#endif
