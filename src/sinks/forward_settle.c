/*
 * forward_settle: what becomes of a message's file.
 *
 * One that the target has goes (or moves to done/), one that it never will moves to
 * failed/.  None of this is synced: what a loss of power undoes is handed on once more,
 * under the same id.  A file that is not there any more was taken by somebody.  One that
 * cannot be moved is put aside and tried again; it is not handed on again meanwhile.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "sinks/forward_work.h"

#define SAID_MOST 100 /* messages that are named in the log in ten seconds */
#define SAID_INTERVAL UINT64_C(10000000)

void
forward_forget(struct forward *forward, struct forward_entry *entry)
{
	forward_set_broken(forward, entry, false);
	forward_table_drop(&forward->known, entry);
	forward_entry_free(entry);
	if (forward->waiting > 0)
		forward->waiting--;
}

void
forward_forget_all(struct forward *forward)
{
	struct forward_heap *heaps[] = {&forward->front, &forward->aside};
	struct forward_entry *entry;
	size_t i;

	for (i = 0; i < sizeof(heaps) / sizeof(heaps[0]); i++) {
		while (heaps[i]->count > 0) {
			entry = heaps[i]->items[--heaps[i]->count];
			forward_table_drop(&forward->known, entry);
			forward_entry_free(entry);
		}
	}
	while (forward->ready_at < forward->n_ready)
		forward_entry_free(forward->ready[forward->ready_at++]);
	forward->n_broken = 0;
}

void
forward_say_sum(struct forward *forward, uint64_t now, bool last)
{
	if (forward->said_since == 0 || (!last && now - forward->said_since < SAID_INTERVAL))
		return;
	if (forward->unsaid > 0)
		log_event(LOG_LEVEL_WARNING, "forward-refused",
			  "sink %s: %llu more messages were moved to failed/", forward->config->name,
			  (unsigned long long)forward->unsaid);
	forward->said_since = 0;
	forward->said = 0;
	forward->unsaid = 0;
}

static void
say_failed(struct forward *forward, const struct forward_entry *entry)
{
	uint64_t now = clock_now();

	forward_say_sum(forward, now, false);
	if (forward->said_since == 0)
		forward->said_since = now;
	if (++forward->said > SAID_MOST) {
		forward->unsaid++;
		return;
	}
	log_event_with(LOG_LEVEL_WARNING, "forward-refused",
		       LOG_FIELDS(LOG_TEXT("file", entry->name), LOG_TEXT("reason", entry->why)),
		       "sink %s: %s: %s; moved to %s/failed", forward->config->name, entry->name,
		       entry->why, forward->config->directory);
}

/* 0, or -1 with errno. */
static int
move(struct forward *forward, const struct forward_entry *entry)
{
	struct stat st;
	int *to = entry->step == FORWARD_FAIL ? &forward->failed : &forward->done, result;

	if (entry->step == FORWARD_DONE && !forward->config->keep) {
		if (fault_unlinkat(forward->new, entry->name, 0) == 0)
			return 0;
		return errno == ENOENT ? 0 : -1;
	}
	result = fault_renameat(forward->new, entry->name, *to, entry->name);
	/* Is it the file that is gone, or the directory, which somebody has cleared away? */
	if (result == -1 && errno == ENOENT) {
		if (fstatat(forward->new, entry->name, &st, AT_SYMLINK_NOFOLLOW) == -1 &&
		    errno == ENOENT)
			return 0;
		if (forward_directory_renew(forward, to, entry->step == FORWARD_FAIL ? "failed" : "done",
					    true) == 0)
			result = fault_renameat(forward->new, entry->name, *to, entry->name);
	}
	if (result == 0 && entry->step == FORWARD_FAIL)
		say_failed(forward, entry);
	return result;
}

void
forward_settle(struct forward *forward, struct forward_entry *entry)
{
	if (move(forward, entry) == 0) {
		if (forward->disk_said) {
			forward->disk_said = false;
			log_event(LOG_LEVEL_NOTICE, "forward-disk",
				  "sink %s: files of %s/new can be moved again", forward->config->name,
				  forward->config->directory);
		}
		forward_forget(forward, entry);
		return;
	}
	if (!forward->disk_said) {
		forward->disk_said = true;
		log_event_with(LOG_LEVEL_ERROR, "forward-disk",
			       LOG_FIELDS(LOG_TEXT("file", entry->name),
					  LOG_TEXT("reason", strerror(errno))),
			       "sink %s: %s/new/%s: cannot be %s: %s; it stays, and may be handed on "
			       "again after a restart", forward->config->name,
			       forward->config->directory, entry->name,
			       entry->step == FORWARD_FAIL ? "moved to failed/"
			       : forward->config->keep	   ? "moved to done/"
							   : "removed",
			       strerror(errno));
	}
	forward_put_aside(forward, entry);
}

bool
forward_is_expired(struct forward *forward, const struct forward_entry *entry)
{
	uint64_t most = forward->config->max_age, born = (entry->id.high >> 16) * 1000;
	uint64_t now = clock_wall(), moved;
	struct stat st;

	if (most == 0 || now < born || now - born <= most)
		return false;
	/* One that was requeued or released has its time anew: the file's own change. */
	if (fstatat(forward->new, entry->name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return false;
	moved = (uint64_t)st.st_ctim.tv_sec * 1000000 + (uint64_t)st.st_ctim.tv_nsec / 1000;
	return now >= moved && now - moved > most;
}
