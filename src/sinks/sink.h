/*
 * sink: where messages go.
 *
 * A sink takes batches from any worker, in its own time and from its own
 * threads, and answers each exactly once (sink_answer) after it has settled
 * every message in it (message_settle; a message not settled is accepted).
 * Until the answer the batch stays; after it the sink must not touch it.
 *
 * A new kind of sink is one file with a const struct sink_kind and one line in
 * the list in sink.c.
 */
#ifndef SINKS_SINK_H
#define SINKS_SINK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "config/config.h"
#include "message/message.h"
#include "sinks/account.h"

struct sink;

struct sink_kind {
	const char *name;
	/* Opens files and checks what can be checked before anything is served.
	 * Main thread, before privileges are dropped.  Returns 0 or an exit code of
	 * sysexits.h, having logged why. */
	int (*open)(struct sink *sink);
	/* Says to `to` what open would find wrong with its files, without changing or
	 * connecting to anything (cisternd -t).  NULL: nothing to check.  False: it did. */
	bool (*check)(const struct config_sink *config, FILE *to);
	/* Starts the threads; after daemon(3) and the change of user.  0 or an exit code. */
	int (*start)(struct sink *sink);
	/* The configuration that it belongs to is in force.  Main thread.  May be NULL. */
	void (*begin)(struct sink *sink);
	/* It is in force no longer, or the daemon stops: begins nothing of its own any more
	 * at another sink, and posts the item once that one has answered for all that it was
	 * given.  False: there is nothing to wait for, and nothing is posted.  Messages may
	 * still come.  Main thread; asynchronous.  May be NULL. */
	bool (*leave)(struct sink *sink, struct inbox *home, struct inbox_item *left);
	/* Takes a chain of deliveries over, in order.  Any worker; never blocks, never
	 * fails. */
	void (*deliver)(struct sink *sink, struct delivery *first);
	/* Opens its files anew (USR1).  Main thread; asynchronous. */
	void (*reopen)(struct sink *sink);
	/* The time for an orderly stop is over: what cannot be stored at once is to
	 * be answered with OUTCOME_SHUTDOWN.  Main thread; asynchronous. */
	void (*hurry)(struct sink *sink);
	/* Answers all that it still holds, ends its threads and frees its state.
	 * Main thread, once no worker delivers any more. */
	void (*close)(struct sink *sink);
};

/* Why a sink cannot accept now: said once an episode, shown by readiness.  On a disk that
 * is nearly full small messages pass where large ones fail, and each would end an episode
 * and begin one: of many episodes in a short time only the first are said, or one that lasts. */
struct sink_trouble {
	pthread_mutex_t lock;
	bool failing;
	bool unsaid;     /* it has only begun to work: nothing was logged */
	bool said;       /* the log has its begin, and gets its end */
	unsigned spoken; /* episodes said since ... */
	uint64_t since;
	uint64_t failed; /* messages since one was said to begin, or the last one said ended */
	char why[160];
};

struct sink {
	const struct sink_kind *kind;
	struct sink *next;   /* of all that are open; the main thread's, as what follows */
	unsigned number;     /* no other open one has it; set before messages come */
	unsigned references; /* configurations that have it */
	bool started;
	bool begun, leaving, left; /* see sink_kind's begin and leave */
	struct inbox_item left_item;
	void *owner;         /* whom that item is for: the main thread's */
	struct sink *target; /* that it hands on to, with a reference; NULL: none */
	const struct config_sink *config;
	struct config *config_reference; /* keeps the above alive */
	void *state;                     /* the kind's own */
	struct sink_trouble *trouble;    /* its own, or that of a file that it shares */
	struct sink_trouble own_trouble;
	struct account *account; /* that of its name, set before messages come; or its own */
	struct account own_account;
};

/* Makes a sink of its configuration and opens it.  0 or an exit code. */
int sink_open(struct sink **sink, struct config *config, const struct config_sink *settings);
int sink_start(struct sink *sink);
void sink_reopen(struct sink *sink);
void sink_hurry(struct sink *sink);
void sink_close(struct sink *sink); /* frees it, too; NULL is fine */

static inline void
sink_deliver(struct sink *sink, struct delivery *first)
{
	sink->kind->deliver(sink, first);
}

/* Starts one of a sink's threads, which has its role and the sink's name.  0, or an exit
 * code, having logged why. */
int sink_start_thread(struct sink *sink, pthread_t *thread, const char *role,
		      void *(*run)(void *), void *arg);

/* The exit code for an errno of what a sink stores in. */
int sink_exit_code(int error);

/* The one answer to a delivery: counts its messages' outcomes for this sink and,
 * when it was the last sink's, sends the batch home.  The outcomes of this sink
 * are given here, one for all (`outcome`), or were settled before (then
 * OUTCOME_ACCEPTED, which worsens nothing) with n_failed, n_refused of them. */
void sink_answer(struct delivery *delivery, enum outcome outcome);
void sink_answer_mixed(struct delivery *delivery, unsigned n_failed, unsigned n_refused);

/* Around answers that are given one after another: one look at the clock for all of them,
 * and each worker is woken once. */
void sink_answers_begin(void);
void sink_answers_end(void);

/* A failure and its end, logged once an episode ("WHAT: strerror(error); what to do"). */
void sink_trouble_begins(struct sink_trouble *trouble, const char *sink, const char *what, int error);
void sink_trouble_ends(struct sink_trouble *trouble, const char *sink);
bool sink_trouble_lasts(struct sink_trouble *trouble);

/* The same, and why (empty: all is well). */
bool sink_trouble_why(struct sink_trouble *trouble, char *why, size_t size);

/* The same for a sink. */
void sink_failing(struct sink *sink, const char *what, int error);
/* The same for errors that have no number. */
void sink_failing_as(struct sink *sink, const char *what, const char *reason);
void sink_well(struct sink *sink);
bool sink_is_ready(struct sink *sink);

/* The same for errors that have no number. */
void sink_failing_as(struct sink *sink, const char *what, const char *reason);

/* It cannot accept yet, and that is no trouble: only readiness tells. */
void sink_starting(struct sink *sink, const char *why);

/* For cisternd -t.  False: what is wrong has been said. */
bool sinks_check(const struct config *config, FILE *to);

#endif
