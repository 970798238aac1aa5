/*
 * heartbeat: see heartbeat.h.
 */
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/inbox.h"
#include "base/log.h"
#include "heartbeat.h"
#include "worker.h"

struct heartbeat_beat {
	struct inbox_item item;
	struct worker *worker;
	atomic_bool owed; /* the item is in the worker's hands */
	uint64_t asked;
	bool stuck; /* and the log says so */
};

/* In the worker. */
static void
heartbeat_on_item(struct inbox_item *item)
{
	struct heartbeat_beat *beat =
		(struct heartbeat_beat *)((char *)item - offsetof(struct heartbeat_beat, item));

	atomic_store(&beat->owed, false);
}

int
heartbeat_open(struct heartbeat *heartbeat, struct worker *workers, unsigned count)
{
	unsigned i;

	*heartbeat = (struct heartbeat){0};
	heartbeat->beats = calloc(count, sizeof(*heartbeat->beats));
	if (heartbeat->beats == NULL)
		return -1;
	heartbeat->count = count;
	for (i = 0; i < count; i++) {
		heartbeat->beats[i].item.run = heartbeat_on_item;
		heartbeat->beats[i].worker = &workers[i];
	}
	return 0;
}

void
heartbeat_close(struct heartbeat *heartbeat)
{
	free(heartbeat->beats);
	*heartbeat = (struct heartbeat){0};
}

void
heartbeat_ask(struct heartbeat *heartbeat)
{
	uint64_t now = clock_now();
	unsigned i;

	for (i = 0; i < heartbeat->count; i++) {
		struct heartbeat_beat *beat = &heartbeat->beats[i];

		if (atomic_load(&beat->owed) || atomic_load(&beat->worker->ended))
			continue;
		beat->asked = now;
		atomic_store(&beat->owed, true);
		inbox_post(&beat->worker->inbox, &beat->item);
	}
}

/* Whether this one is all right, and what is to be said about it. */
static bool
look(struct heartbeat_beat *beat, uint64_t now, uint64_t patience)
{
	double silence = (double)(now - beat->asked) / 1e6;
	bool owed = atomic_load(&beat->owed) && !atomic_load(&beat->worker->ended);

	if (!owed && beat->stuck) {
		beat->stuck = false;
		log_event(LOG_LEVEL_NOTICE, "worker-turns", "worker %u turns again, after %.1f s",
			  beat->worker->number, silence);
	} else if (owed && !beat->stuck && now - beat->asked >= patience) {
		beat->stuck = true;
		log_event(LOG_LEVEL_ERROR, "worker-stuck",
			  "worker %u has not answered for %.1f s: something blocks its loop, and "
			  "its connections wait",
			  beat->worker->number, silence);
	}
	return !owed || now - beat->asked < patience;
}

bool
heartbeat_ok(struct heartbeat *heartbeat, uint64_t patience)
{
	uint64_t now = clock_now();
	bool ok = true;
	unsigned i;

	for (i = 0; i < heartbeat->count; i++)
		if (!look(&heartbeat->beats[i], now, patience))
			ok = false;
	return ok;
}
