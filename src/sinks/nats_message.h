/*
 * nats_message: a message as it is published: its headers, and how large it is with them.
 */
#ifndef SINKS_NATS_MESSAGE_H
#define SINKS_NATS_MESSAGE_H

#include <nats/nats.h>
#include <stdint.h>

#include "message/facts.h"
#include "message/subject.h"

struct config_sink;

#define NATS_HEADERS_MAX (FACT_COUNT + 3)

/* What goes out besides the bytes.  All of it stays the draft's. */
struct nats_draft {
	struct facts facts;
	char subject[SUBJECT_SIZE];
	unsigned count;
	const char *names[NATS_HEADERS_MAX];
	const char *values[NATS_HEADERS_MAX];
	uint64_t headers_size; /* in bytes, as servers count them */
	char *tls_subject;     /* where it had to be made fit for a header */
};

/* claim: the path of the file that has the bytes, or NULL.  0, or -1: no memory. */
int nats_draft_make(struct nats_draft *draft, const struct config_sink *config,
		    const struct batch *batch, const struct message *message, const char *claim);
void nats_draft_clear(struct nats_draft *draft);

/* Copies all of it into a message of the library.  NULL: *status says why.  The memory
 * that it takes is charged until nats_message_free. */
natsMsg *nats_message_new(const struct nats_draft *draft, const struct message *message,
			  const char *reply, natsStatus *status, int *error);
natsMsg *nats_message_text(const struct nats_draft *draft, const char *text, const char *reply,
			   natsStatus *status);
void nats_message_free(natsMsg *message);

#endif
