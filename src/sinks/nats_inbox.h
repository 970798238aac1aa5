/*
 * nats_inbox: where a stream's answers to messages go: a subscription of a link's.
 *
 * Used by the link's keeper, without the lock.
 */
#ifndef SINKS_NATS_INBOX_H
#define SINKS_NATS_INBOX_H

#include "sinks/nats_link.h"

/* Subscribes, in the place of what there was; answers are expected there from now on. */
natsStatus nats_inbox_open(struct nats_link *link, natsConnection *connection);

/* Whether nothing was heard of any message for so long that more than messages may be
 * lost.  For who has the lock. */
bool nats_inbox_is_silent(const struct nats_link *link, uint64_t now);

/* Opens another one on the same connection, and has all that is in flight sent again. */
void nats_inbox_renew(struct nats_link *link);

#endif
