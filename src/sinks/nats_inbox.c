/*
 * nats_inbox: see nats_inbox.h.
 *
 * A connection may live on and have lost what libnats wrote to it (a send that failed, and
 * the next one did not).  Messages and questions that are lost so are sent again; a
 * subscription would be missed for ever.  So each question has one of its own
 * (nats_options.c), and when no message at all is answered for a while, the one for their
 * answers is made anew.
 */
#include "sinks/nats_inbox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/config.h"

/* No answer to any message for half of timeout, so that there is time for another try; but: */
#define SILENCE_LEAST UINT64_C(4000000)
#define SILENCE_MOST UINT64_C(30000000)

static void
on_answer(natsConnection *connection, natsSubscription *subscription, natsMsg *reply, void *closure)
{
	struct nats_link *link = closure;
	const char *token = strrchr(natsMsg_GetSubject(reply), '.');
	struct nats_answer answer;
	struct sink *sink;

	(void)connection;
	(void)subscription;
	if (natsMsg_IsNoResponders(reply))
		nats_answer_nobody(&answer);
	else
		nats_answer_read(&answer, natsMsg_GetData(reply),
				 (size_t)natsMsg_GetDataLength(reply), link->stream);
	sink = nats_link_borrow_sink(link);
	if (sink != NULL)
		link->answered(sink, strtoull(token != NULL ? token + 1 : "", NULL, 16), &answer);
	nats_link_give_back_sink(link, sink);
	natsMsg_Destroy(reply);
}

static void
on_ended(void *closure)
{
	nats_link_unref(closure);
}

static natsStatus
subscribe(struct nats_link *link, natsConnection *connection, natsSubscription **answers,
	  char inbox[NATS_LINK_INBOX])
{
	natsInbox *made = NULL;
	char subject[NATS_LINK_REPLY];
	natsStatus status = natsInbox_Create(&made);

	if (status != NATS_OK)
		return status;
	snprintf(inbox, NATS_LINK_INBOX, "%s", made);
	natsInbox_Destroy(made);
	snprintf(subject, sizeof(subject), "%s.*", inbox);
	status = natsConnection_Subscribe(answers, connection, subject, on_answer, link);
	if (status != NATS_OK)
		return status;
	nats_link_ref(link);
	status = natsSubscription_SetOnCompleteCB(*answers, on_ended, link);
	if (status != NATS_OK)
		nats_link_unref(link);
	else
		status = natsSubscription_SetPendingLimits(*answers, -1, -1); /* we send no more than we hold */
	return status;
}

natsStatus
nats_inbox_open(struct nats_link *link, natsConnection *connection)
{
	natsSubscription *answers = NULL, *before;
	char inbox[NATS_LINK_INBOX];
	natsStatus status = subscribe(link, connection, &answers, inbox);

	if (status != NATS_OK) {
		natsSubscription_Destroy(answers);
		return status;
	}
	pthread_mutex_lock(&link->lock);
	before = link->answers;
	link->answers = answers;
	memcpy(link->inbox, inbox, sizeof(inbox));
	link->epoch++; /* what was sent is answered elsewhere */
	link->unheard = 0;
	pthread_cond_signal(&link->wake);
	pthread_mutex_unlock(&link->lock);
	natsSubscription_Destroy(before);
	return NATS_OK;
}

bool
nats_inbox_is_silent(const struct nats_link *link, uint64_t now)
{
	uint64_t most = link->config->timeout / 2;

	if (most < SILENCE_LEAST)
		most = SILENCE_LEAST;
	if (most > SILENCE_MOST)
		most = SILENCE_MOST;
	return link->state == NATS_LINK_OPEN && link->unheard != 0 && now - link->unheard >= most;
}

void
nats_inbox_renew(struct nats_link *link)
{
	natsStatus status = nats_inbox_open(link, link->connection);
	bool says = false;

	pthread_mutex_lock(&link->lock);
	if (status == NATS_OK) {
		says = !link->renewed;
		link->renewed = true;
	} else {
		link->unheard = clock_now(); /* another time */
	}
	pthread_mutex_unlock(&link->lock);
	if (says)
		log_event(LOG_LEVEL_WARNING, "nats-renewed", "sink %s: no message is answered, though "
			  "the connection is up: subscribes to answers anew", link->config->name);
}
