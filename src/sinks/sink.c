/*
 * sink: what all kinds share: their list, the accounting of answers, and the
 * episodes of trouble that are logged once and not for every message.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "sinks/kinds.h"
#include "sinks/sink.h"

/* Episodes that are said at most, in so long a time. */
#define SPOKEN_MOST 5
#define SPOKEN_FOR UINT64_C(10000000)

static const struct sink_kind *const kinds[] = {
	[CONFIG_SINK_CONSOLE] = &sink_kind_console,
	[CONFIG_SINK_FILE] = &sink_kind_file,
	[CONFIG_SINK_SPOOL] = &sink_kind_spool,
	[CONFIG_SINK_COMMAND] = &sink_kind_command,
#ifdef HAVE_RDKAFKA
	[CONFIG_SINK_KAFKA] = &sink_kind_kafka,
#endif
#ifdef HAVE_NATS
	[CONFIG_SINK_NATS] = &sink_kind_nats,
#endif
};

int
sink_open(struct sink **opened, struct config *config, const struct config_sink *settings)
{
	struct sink *sink = memory_alloc(sizeof(*sink));
	int code;

	if (sink == NULL) {
		log_event(LOG_LEVEL_ERROR, "out-of-memory", "sink %s: out of memory", settings->name);
		return EX_OSERR;
	}
	*sink = (struct sink){.kind = kinds[settings->type], .config = settings};
	sink->config_reference = config_ref(config);
	pthread_mutex_init(&sink->own_trouble.lock, NULL); /* cannot fail with no attributes */
	sink->trouble = &sink->own_trouble;
	sink->account = &sink->own_account;
	code = sink->kind->open(sink);
	if (code != 0) {
		pthread_mutex_destroy(&sink->own_trouble.lock);
		config_unref(sink->config_reference);
		memory_free(sink);
		return code;
	}
	*opened = sink;
	return 0;
}

int
sink_start(struct sink *sink)
{
	return sink->kind->start(sink);
}

int
sink_start_thread(struct sink *sink, pthread_t *thread, const char *role, void *(*run)(void *),
		  void *arg)
{
	int error = thread_start(thread, role, sink->config->name, run, arg);

	if (error == 0)
		return 0;
	log_event(LOG_LEVEL_ERROR, "sink-start", "sink %s: cannot start a thread: %s",
		  sink->config->name, strerror(error));
	return EX_OSERR;
}

int
sink_exit_code(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return EX_NOPERM;
	case EIO:
		return EX_IOERR;
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return EX_OSERR;
	default:
		return EX_CANTCREAT;
	}
}

void
sink_reopen(struct sink *sink)
{
	if (sink->kind->reopen != NULL)
		sink->kind->reopen(sink);
}

void
sink_hurry(struct sink *sink)
{
	if (sink->kind->hurry != NULL)
		sink->kind->hurry(sink);
}

void
sink_close(struct sink *sink)
{
	if (sink == NULL)
		return;
	sink->kind->close(sink);
	pthread_mutex_destroy(&sink->own_trouble.lock);
	config_unref(sink->config_reference);
	memory_free(sink);
}

static _Thread_local uint64_t answering; /* since; 0: each answer has its own time */

void
sink_answers_begin(void)
{
	answering = clock_now();
	inbox_hold();
}

void
sink_answers_end(void)
{
	inbox_release();
	answering = 0;
}

void
sink_answer_mixed(struct delivery *delivery, unsigned n_failed, unsigned n_refused)
{
	struct account *account = delivery->sink->account;
	struct batch *batch = delivery->batch;
	unsigned count = batch->count;
	uint64_t now = answering != 0 ? answering : clock_now();

	if (n_failed + n_refused > 0)
		atomic_store_explicit(&batch->mixed, true, memory_order_relaxed);
	if (n_failed > 0)
		account_add(&account->failed, n_failed);
	if (n_refused > 0)
		account_add(&account->refused, n_refused);
	if (count > n_failed + n_refused)
		account_add(&account->accepted, count - n_failed - n_refused);
	account_time(account, count, now > batch->since ? now - batch->since : 0);
	batch_answered(batch);
}

void
sink_answer(struct delivery *delivery, enum outcome outcome)
{
	struct batch *batch = delivery->batch;
	unsigned i;

	if (outcome != OUTCOME_ACCEPTED)
		for (i = 0; i < batch->count; i++)
			message_settle(&batch->messages[i], outcome);
	if (outcome == OUTCOME_ACCEPTED)
		sink_answer_mixed(delivery, 0, 0);
	else if (outcome_is_temporary(outcome))
		sink_answer_mixed(delivery, batch->count, 0);
	else
		sink_answer_mixed(delivery, 0, batch->count);
}

static void
trouble_begins(struct sink_trouble *trouble, const char *sink, const char *what,
	       const char *reason)
{
	uint64_t now;
	bool begins, says;

	pthread_mutex_lock(&trouble->lock);
	now = clock_now(); /* and not another thread's, later one, in `since` */
	begins = !trouble->failing || trouble->unsaid;
	trouble->failing = true;
	trouble->unsaid = false;
	trouble->failed++;
	if (now - trouble->since >= SPOKEN_FOR) {
		trouble->since = now;
		trouble->spoken = 0;
	}
	says = !trouble->said && trouble->spoken < SPOKEN_MOST;
	if (says) {
		trouble->said = true;
		trouble->spoken++;
	}
	if (begins)
		snprintf(trouble->why, sizeof(trouble->why), "%s: %s", what, reason);
	pthread_mutex_unlock(&trouble->lock);
	if (says)
		log_event_with(LOG_LEVEL_ERROR, "sink-failing",
			  LOG_FIELDS(LOG_TEXT("reason", reason)),
			  "sink %s: %s: %s; messages are refused until it works again",
			  sink, what, reason);
}

void
sink_trouble_begins(struct sink_trouble *trouble, const char *sink, const char *what, int error)
{
	trouble_begins(trouble, sink, what, strerror(error));
}

void
sink_trouble_ends(struct sink_trouble *trouble, const char *sink)
{
	uint64_t failed = 0;

	pthread_mutex_lock(&trouble->lock);
	if (trouble->failing) {
		trouble->failing = trouble->unsaid = false;
		/* One that was not said goes on in the next one's figures. */
		if (trouble->said) {
			failed = trouble->failed;
			trouble->failed = 0;
		}
		trouble->said = false;
	}
	pthread_mutex_unlock(&trouble->lock);
	if (failed > 0)
		log_event_with(LOG_LEVEL_NOTICE, "sink-well", LOG_FIELDS(LOG_NUMBER("failures", failed)),
			  "sink %s: works again, after %llu failures", sink,
			  (unsigned long long)failed);
}

bool
sink_trouble_why(struct sink_trouble *trouble, char *why, size_t size)
{
	bool failing;

	pthread_mutex_lock(&trouble->lock);
	failing = trouble->failing;
	snprintf(why, size, "%s", failing ? trouble->why : "");
	pthread_mutex_unlock(&trouble->lock);
	return failing;
}

bool
sink_trouble_lasts(struct sink_trouble *trouble)
{
	bool failing;

	pthread_mutex_lock(&trouble->lock);
	failing = trouble->failing;
	pthread_mutex_unlock(&trouble->lock);
	return failing;
}

void
sink_failing(struct sink *sink, const char *what, int error)
{
	sink_trouble_begins(sink->trouble, sink->config->name, what, error);
}

void
sink_failing_as(struct sink *sink, const char *what, const char *reason)
{
	trouble_begins(sink->trouble, sink->config->name, what, reason);
}

void
sink_starting(struct sink *sink, const char *why)
{
	struct sink_trouble *trouble = sink->trouble;

	pthread_mutex_lock(&trouble->lock);
	trouble->failing = trouble->unsaid = true;
	snprintf(trouble->why, sizeof(trouble->why), "%s", why);
	pthread_mutex_unlock(&trouble->lock);
}

void
sink_well(struct sink *sink)
{
	sink_trouble_ends(sink->trouble, sink->config->name);
}

bool
sink_is_ready(struct sink *sink)
{
	return !sink_trouble_lasts(sink->trouble);
}

bool
sinks_check(const struct config *config, FILE *to)
{
	bool good = true;
	size_t i;

	for (i = 0; i < config->n_sinks; i++) {
		const struct config_sink *sink = &config->sinks[i];

		if (kinds[sink->type]->check != NULL)
			good = kinds[sink->type]->check(sink, to) && good;
	}
	return good;
}
