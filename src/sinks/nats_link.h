/*
 * nats_link: a nats sink's connection to its servers, and what is known of its stream.
 *
 * A thread of its own (the keeper) does all that may block: connecting, asking about the
 * stream, making it, closing.  libnats reconnects and reads in threads of its own; their
 * callbacks only note what happened and pass answers on.
 *
 * The link outlives its sink for as long as the library may still call back.
 */
#ifndef SINKS_NATS_LINK_H
#define SINKS_NATS_LINK_H

#include <nats/nats.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "message/subject.h"
#include "sinks/nats_answer.h"

struct config;
struct config_sink;
struct sink;

enum nats_link_state {
	NATS_LINK_DOWN,	 /* no server, or the stream has no leader: may pass by itself */
	NATS_LINK_UNFIT, /* the stream is not there, or not for us: somebody has to act */
	NATS_LINK_OPEN,
};

#define NATS_LINK_INBOX 64 /* where answers go */
#define NATS_LINK_REPLY 96 /* room for where an answer goes, and a NUL */

struct nats_link {
	/* Guards all that follows, and the sink's own state; no other lock is taken under it. */
	pthread_mutex_t lock;
	pthread_cond_t wake; /* the sink's thread: messages, answers, another state */
	pthread_cond_t tend; /* the keeper */
	pthread_cond_t gone; /* whoever closes */
	enum nats_link_state state;
	uint64_t since; /* it has this state */
	unsigned epoch; /* a connection lost adds one: what was sent in an earlier one may be, too */
	uint64_t limit; /* of a message with its headers, in bytes */
	bool hurried;	/* the sink's time is over */
	uint64_t unheard; /* when a message was published of which, as of all later ones, nothing
			   * was heard; 0: there is none such */

	/* The link's own. */
	struct sink *sink; /* NULL: closed */
	const struct config_sink *config;
	struct config *config_reference; /* keeps the above alive */
	void (*answered)(struct sink *sink, uint64_t token, const struct nats_answer *answer);
	unsigned busy;	/* threads of ours and the library's that have the sink just now */
	unsigned users; /* threads that publish */
	unsigned references;
	char *stream;
	natsOptions *options;
	natsConnection *connection;
	natsSubscription *answers;
	char inbox[NATS_LINK_INBOX];
	pthread_t keeper;
	bool started;
	bool stop;
	bool ended;	/* the keeper has */
	bool suspect;	/* something is wrong with the stream: ask about it */
	bool forbidden; /* we may not ask */
	bool full;	/* as of the last question */
	bool said;	/* that it is not open */
	bool renewed;	/* the subscription was, and nothing was heard since */
	uint64_t asked; /* when the last question was put */
	uint64_t next;	/* not before then: a question, or a try to connect */
	char misfit[SUBJECT_SIZE]; /* a subject that the stream did not take; "": none */
	char **subjects;	   /* that it takes */
	int n_subjects;
	char why[160]; /* it is not open */
};

/* Main thread.  0, or an exit code, having logged why.  answered: for each answer that
 * comes, in a thread of the library, without the lock. */
int nats_link_open(struct nats_link **link, struct sink *sink,
		   void (*answered)(struct sink *sink, uint64_t token,
				    const struct nats_answer *answer));
int nats_link_start(struct nats_link *link);

/* No answer comes any more.  Waits for the connection's end, but not for long. */
void nats_link_close(struct nats_link *link);

/* For its parts; without the lock. */

void nats_link_ref(struct nats_link *link);
void nats_link_unref(struct nats_link *link);

/* The sink, which stays until it is given back; NULL: it is closed. */
struct sink *nats_link_borrow_sink(struct nats_link *link);
void nats_link_give_back_sink(struct nats_link *link, const struct sink *sink);

/* Whoever calls the following holds the lock. */

/* A message was answered, whatever the answer is. */
static inline void
nats_link_heard(struct nats_link *link)
{
	link->unheard = 0;
	link->renewed = false;
}

/* Something is wrong: ask about the stream soon. */
void nats_link_suspect(struct nats_link *link);

/* Where an answer to this token is to go.  False: there is no connection. */
bool nats_link_reply(const struct nats_link *link, uint64_t token, char reply[NATS_LINK_REPLY]);

/* Without the lock. */
natsStatus nats_link_publish(struct nats_link *link, natsMsg *message);

#endif
