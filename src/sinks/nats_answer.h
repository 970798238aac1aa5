/*
 * nats_answer: what a stream answered to a message, and what that means for it.
 *
 * Pure: bytes in, a verdict out.
 */
#ifndef SINKS_NATS_ANSWER_H
#define SINKS_NATS_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#include "message/message.h"

enum nats_verdict {
	NATS_STORED, /* acknowledged by the stream, now or when it was sent before */
	NATS_AGAIN,  /* not now: worth sending again within the message's time */
	NATS_NEVER,  /* the servers say no; `outcome` is the message's */
};

struct nats_answer {
	enum nats_verdict verdict;
	enum outcome outcome; /* of NATS_NEVER; of NATS_AGAIN, when its time is over */
	bool too_large;	      /* for the stream */
	char why[120];	      /* printable; empty for NATS_STORED */
};

/* An acknowledgement of JetStream counts only when it is of this stream. */
void nats_answer_read(struct nats_answer *answer, const char *bytes, size_t len,
		      const char *stream);

/* Nobody listened to the subject. */
void nats_answer_nobody(struct nats_answer *answer);

#endif
