/*
 * forward_retry: when something is tried again.
 *
 * A failure is the target's, or the message's.  It is the target's when the target says
 * that it is in trouble, or when FAILURES_IN_A_ROW messages have failed with none in
 * between that got through: then nothing is handed on but one message now and then, to
 * see, and all that came back waits in front.  Otherwise it is the message's: that one
 * waits aside, and others go on.  What is tried to see and fails is put aside, too, so
 * the next one is another: a message may be what brings the target into trouble.  When
 * the trouble is over, what was put aside by it alone is next; one that fails again waits
 * by its own delay.
 *
 * Delays grow from retry_min to retry_max, and are spread by a quarter in each direction,
 * so that many spools do not come back to one broker in step.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "sinks/forward_work.h"

#define FAILURES_IN_A_ROW 16
#define PAUSE_LEAST UINT64_C(100000)
#define PAUSE_MOST UINT64_C(2000000)

/* Chance enough to be out of step with others. */
static uint64_t
mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* Before the next try, after so many. */
static uint64_t
delay(const struct forward *forward, unsigned attempts, uint64_t seed)
{
	uint64_t least = forward->config->retry_min, most = forward->config->retry_max;
	uint64_t length = least;

	while (--attempts > 0 && length < most)
		length *= 2;
	if (length > most)
		length = most;
	return length - length / 4 + mix(seed ^ clock_now()) % (length / 2 + 1);
}

void
forward_put_aside(struct forward *forward, struct forward_entry *entry)
{
	entry->attempts++;
	entry->due = clock_now() + delay(forward, entry->attempts, entry->id.low);
	forward_heap_put(&forward->aside, entry);
}

bool
forward_pass_over(struct forward *forward, struct forward_entry *entry, int error)
{
	if (!entry->broken && forward->n_broken == FORWARD_BROKEN_MOST) {
		forward_heap_put(&forward->front, entry);
		forward->read_said = forward->many_said;
		forward->many_said = true;
		forward_pause(forward, "too many files that cannot be read", error);
		return false;
	}
	if (!forward->read_said)
		log_event_with(LOG_LEVEL_ERROR, "forward-unreadable",
			       LOG_FIELDS(LOG_TEXT("file", entry->name),
					  LOG_TEXT("reason", strerror(error))),
			       "sink %s: %s/new/%s: %s; it is tried again, and others go on",
			       forward->config->name, forward->config->directory, entry->name,
			       strerror(error));
	forward->read_said = true;
	forward_set_broken(forward, entry, true);
	forward_put_aside(forward, entry);
	return true;
}

static void
say_failing(struct forward *forward, const char *why)
{
	struct sink *target = forward->sink->target;
	char text[160];

	if (!sink_trouble_why(target->trouble, text, sizeof(text)))
		text[0] = '\0';
	log_event_with(LOG_LEVEL_WARNING, "forward-failing",
		       LOG_FIELDS(LOG_TEXT("target", target->config->name), LOG_TEXT("reason", why),
				  LOG_NUMBER("waiting", forward->waiting)),
		       "sink %s: sink %s takes nothing (%s%s%s); %llu messages wait, and more are "
		       "accepted",
		       forward->config->name, target->config->name, why, text[0] != '\0' ? ": " : "", text,
		       (unsigned long long)forward->waiting);
}

static void
begin(struct forward *forward, const char *why)
{
	struct forward_trouble *trouble = &forward->trouble;
	uint64_t now = clock_now();

	if (trouble->lasts)
		return;
	*trouble = (struct forward_trouble){.lasts = true, .attempts = 1, .since = now,
					    .row = trouble->row};
	trouble->unready = !sink_is_ready(forward->sink->target);
	trouble->due = now + delay(forward, 1, forward->waiting);
	/* What is in memory only for speed is on disk, too. */
	forward_inlet_shut(forward);
	say_failing(forward, why);
}

void
forward_failed(struct forward *forward, struct forward_entry *entry, enum outcome outcome)
{
	struct forward_trouble *trouble = &forward->trouble;
	bool unready = !sink_is_ready(forward->sink->target);
	bool all = unready || outcome == OUTCOME_SHUTDOWN;

	trouble->failures++;
	if (entry->probe) {
		trouble->trying = trouble->woken = false;
		trouble->attempts++;
		trouble->unready = unready;
		trouble->due = clock_now() + delay(forward, trouble->attempts, entry->id.low);
	}
	if (forward->leaving) {
		forward_heap_put(&forward->front, entry);
		return;
	}
	/* That the target is in trouble may be this one's doing, as when it is too large for
	 * what is left of a disk: what was tried to see steps aside, for another. */
	if (all && !entry->probe && !entry->blamed) {
		forward_heap_put(&forward->front, entry);
	} else {
		entry->early = all && !entry->blamed;
		forward_put_aside(forward, entry);
	}
	if (all || ++trouble->row >= FAILURES_IN_A_ROW)
		begin(forward, outcome_name(outcome));
}

/* What failed only because all did need not wait any longer; this once. */
static void
take_up_early(struct forward *forward)
{
	struct forward_heap *aside = &forward->aside;
	size_t count = aside->count, i;
	uint64_t now = clock_now();

	aside->count = 0;
	for (i = 0; i < count; i++) {
		struct forward_entry *entry = aside->items[i];

		if (entry->early) {
			entry->early = false;
			entry->blamed = true;
			entry->due = now;
		}
		forward_heap_put(aside, entry); /* at i at the most */
	}
}

void
forward_answered(struct forward *forward, const struct forward_entry *entry)
{
	struct forward_trouble *trouble = &forward->trouble;

	trouble->row = 0;
	/* What was under way before proves nothing. */
	if (!trouble->lasts || !entry->probe)
		return;
	log_event_with(LOG_LEVEL_NOTICE, "forward-well",
		       LOG_FIELDS(LOG_TEXT("target", forward->sink->target->config->name),
				  LOG_NUMBER("failures", trouble->failures),
				  LOG_NUMBER("waiting", forward->waiting)),
		       "sink %s: sink %s takes messages again, after %llu seconds; %llu wait",
		       forward->config->name, forward->sink->target->config->name,
		       (unsigned long long)((clock_now() - trouble->since) / 1000000),
		       (unsigned long long)forward->waiting);
	*trouble = (struct forward_trouble){0};
	take_up_early(forward);
}

bool
forward_may_try(struct forward *forward, uint64_t now)
{
	struct forward_trouble *trouble = &forward->trouble;

	if (trouble->trying || forward->in_flight > 0)
		return false;
	/* It works again, by its own word: no need to wait on. */
	if (trouble->unready && sink_is_ready(forward->sink->target)) {
		trouble->unready = false;
		trouble->woken = true;
		trouble->due = now;
	}
	return now >= trouble->due;
}

void
forward_nothing_to_try(struct forward *forward, uint64_t now)
{
	struct forward_entry *first = forward_heap_top(&forward->aside);

	if (first != NULL && forward->trouble.woken) {
		forward->trouble.woken = false;
		if (first->due > now)
			first->due = now; /* it was first, and stays so */
	}
	if (first != NULL || forward->more || forward->in_flight > 0) {
		forward->trouble.due = now + PAUSE_MOST;
		if (first != NULL && first->due < forward->trouble.due)
			forward->trouble.due = first->due;
		return;
	}
	log_event_with(LOG_LEVEL_NOTICE, "forward-well",
		       LOG_FIELDS(LOG_TEXT("target", forward->sink->target->config->name),
				  LOG_NUMBER("failures", forward->trouble.failures),
				  LOG_NUMBER("waiting", 0)),
		       "sink %s: nothing waits any more for sink %s", forward->config->name,
		       forward->sink->target->config->name);
	forward->trouble = (struct forward_trouble){0};
	forward->more = true; /* which opens the inlet */
}

void
forward_pause(struct forward *forward, const char *what, int error)
{
	forward->pause = forward->pause == 0 ? PAUSE_LEAST : forward->pause * 2;
	if (forward->pause > PAUSE_MOST)
		forward->pause = PAUSE_MOST;
	forward->pause_due = clock_now() + forward->pause;
	if (forward->read_said)
		return;
	forward->read_said = true;
	log_event_with(LOG_LEVEL_ERROR, "forward-stopped", LOG_FIELDS(LOG_TEXT("reason", strerror(error))),
		       "sink %s: %s/new: %s: %s; nothing is handed on until that works",
		       forward->config->name, forward->config->directory, what, strerror(error));
}
