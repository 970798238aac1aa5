/*
 * nats_claim: messages that are too large for the stream, as files in a spool.
 *
 * Used by the sink's thread alone.
 */
#ifndef SINKS_NATS_CLAIM_H
#define SINKS_NATS_CLAIM_H

#include "message/facts.h"
#include "sinks/spool.h"

#define NATS_CLAIM_PATH (4096 + SPOOL_NAME_LEN + 8)

struct nats_claim {
	const struct config_sink *spool;
	struct spool_group group;
};

/* 0, or -1 with errno: its directories have to be there (the spool's own sink makes them). */
int nats_claim_open(struct nats_claim *claim, const struct config_sink *spool);
void nats_claim_close(struct nats_claim *claim);

/* Where a message is, or would be. */
void nats_claim_path(const struct nats_claim *claim, const struct batch *batch,
		     const struct message *message, char path[NATS_CLAIM_PATH]);

/* Puts a message into the spool, as durably as that does.  1: an earlier try had begun to,
 * and has done so or is made good, so a reference may be out.  0, or -1 with errno. */
int nats_claim_store(struct nats_claim *claim, const struct batch *batch,
		     struct message *message);

/* Takes it out again.  0, or -1 with errno. */
int nats_claim_withdraw(struct nats_claim *claim, const struct batch *batch,
			const struct message *message);

/* What is published in its place: an object of JSON, to be freed with memory_free.  NULL:
 * no memory. */
char *nats_claim_text(const struct nats_claim *claim, const struct facts *facts,
		      const struct batch *batch, const struct message *message);

#endif
