/*
 * worker: see worker.h.
 */
#include <errno.h>
#include <stdio.h>

#include <event2/event.h>

#include "base/deadline.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "base/thread.h"
#include "worker.h"

/* libevent puts callbacks that were deferred off to later turns when there are many, and
 * each holds its bufferevent. */
static void
finish(struct worker *worker)
{
	while (event_base_get_num_events(worker->base, EVENT_BASE_COUNT_ACTIVE) > 0 &&
	       event_base_loop(worker->base, EVLOOP_NONBLOCK) == 0)
		;
}

static void *
worker_run(void *arg)
{
	struct worker *worker = arg;

	if (event_base_loop(worker->base, EVLOOP_NO_EXIT_ON_EMPTY) == -1)
		log_event(LOG_LEVEL_ERROR, "worker-failed", "worker %u: the event loop failed",
			  worker->number);
	finish(worker);
	memory_unstock();
	atomic_store(&worker->ended, true);
	inbox_post(worker->parent, &worker->ended_item);
	return NULL;
}

int
worker_open(struct worker *worker, unsigned number, struct inbox *parent,
	    void (*ended)(struct inbox_item *item))
{
	*worker = (struct worker){.number = number, .parent = parent};
	worker->ended_item.run = ended;
	worker->inbox.fd = -1;
	worker->base = loop_new();
	if (worker->base == NULL)
		return -1;
	if (deadlines_reserve_timers(worker->base) == -1) {
		event_base_free(worker->base);
		worker->base = NULL;
		errno = ENOMEM;
		return -1;
	}
	if (inbox_open(&worker->inbox, worker->base) == -1) {
		event_base_free(worker->base);
		worker->base = NULL;
		return -1;
	}
	return 0;
}

int
worker_start(struct worker *worker)
{
	char number[11];

	snprintf(number, sizeof(number), "%u", worker->number);
	errno = thread_start(&worker->thread, "worker", number, worker_run, worker);
	if (errno != 0)
		return -1;
	worker->started = true;
	return 0;
}

void
worker_end(struct worker *worker)
{
	/* Not loopbreak: what libevent still has to finalize refers to what is freed next. */
	if (event_base_loopexit(worker->base, NULL) == -1)
		event_base_loopbreak(worker->base);
}

void
worker_join(struct worker *worker)
{
	if (worker->started)
		pthread_join(worker->thread, NULL);
	worker->started = false;
}

void
worker_close(struct worker *worker)
{
	if (worker->base == NULL)
		return;
	inbox_close(&worker->inbox);
	event_base_free(worker->base);
	worker->base = NULL;
}
