/*
 * nats_answer: what a stream answered to a message, and what that means for it.
 *
 * Pure: bytes in, a verdict out.
 */
#ifndef SINKS_NATS_ANSWER_H
#define SINKS_NATS_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
	bool duplicate;	      /* of NATS_STORED: it was there already */
	uint64_t sequence;    /* of NATS_STORED: where in the stream it is */
	char why[120];	      /* printable; empty for NATS_STORED */
};

/* An acknowledgement of JetStream counts only when it is of this stream.  One of a duplicate
 * counts, too: ids are never given twice, so what is there is this message, sent before, whose
 * first answer was lost. */
void nats_answer_read(struct nats_answer *answer, const char *bytes, size_t len,
		      const char *stream);

/* Nobody listened to the subject. */
void nats_answer_nobody(struct nats_answer *answer);

#endif
