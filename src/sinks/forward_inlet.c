/*
 * forward_inlet: what the spool's writers tell the forwarder.
 *
 * Bounded: past FORWARD_FRESH messages or their bytes, or while the inlet is shut, a
 * message only counts as being on disk, where it is found in its turn.
 *
 * Two writers take turns, and the later one may be ready first, or even the first to say
 * that it has begun.  So what it brings waits
 * in its lane until no earlier turn is open, and messages of one connection stay in
 * their order.  A look at the directory sees names before their writer has told of
 * them; as it knows which ids are being committed, it leaves these to the writer.  And it
 * sees names of a turn that is ahead of an open one, which have to wait for it.
 */
#include <string.h>

#include "base/fault.h"
#include "base/memory.h"
#include "message/body.h"
#include "sinks/forward_work.h"

static bool
id_before(const struct id *one, const struct id *other)
{
	return one->high < other->high || (one->high == other->high && one->low < other->low);
}

static bool
id_is(const struct id *one, const struct id *other)
{
	return one->low == other->low && one->high == other->high;
}

void
forward_inlet_init(struct forward_inlet *inlet)
{
	unsigned w;

	*inlet = (struct forward_inlet){.shut = true, .open = 1};
	pthread_mutex_init(&inlet->lock, NULL); /* cannot fail with no attributes */
	for (w = 0; w < FORWARD_WRITERS; w++)
		inlet->lanes[w].last = &inlet->lanes[w].first;
}

static void
free_list(struct forward_entry *first)
{
	struct forward_entry *entry;

	while ((entry = first) != NULL) {
		first = entry->next;
		forward_entry_free(entry);
	}
}

/* Under the lock: a message of that turn is on disk only. */
static void
note_ahead(struct forward_inlet *inlet, uint64_t turn, const struct id *id)
{
	if (turn <= inlet->open)
		return;
	if (!inlet->ahead || id_before(id, &inlet->ahead_floor))
		inlet->ahead_floor = *id;
	inlet->ahead = true;
}

/* Under the lock: what is in a lane, out of it. */
static struct forward_entry *
empty_lane(struct forward_inlet *inlet, struct forward_lane *lane)
{
	struct forward_entry *first = lane->first, *entry;

	for (entry = first; entry != NULL; entry = entry->next) {
		inlet->count--;
		inlet->bytes -= forward_entry_held(entry);
		note_ahead(inlet, entry->turn, &entry->id);
	}
	lane->first = NULL;
	lane->last = &lane->first;
	return first;
}

/* Under the lock: names of a turn that is ahead now will be found, and those of the open one
 * perhaps not, though it may have ended by then. */
static void
begin_look(struct forward *forward)
{
	forward->ahead = forward->inlet.ahead;
	forward->ahead_floor = forward->inlet.ahead_floor;
}

void
forward_inlet_look(struct forward *forward)
{
	pthread_mutex_lock(&forward->inlet.lock);
	begin_look(forward);
	pthread_mutex_unlock(&forward->inlet.lock);
}

static void
drop_all(struct forward *forward, bool shut)
{
	struct forward_inlet *inlet = &forward->inlet;
	struct forward_entry *dropped[FORWARD_WRITERS], *entry;
	size_t bytes = 0;
	unsigned count = 0, w;

	while ((entry = forward->fresh) != NULL) {
		forward->fresh = entry->next;
		count++;
		bytes += forward_entry_held(entry);
		forward_table_drop(&forward->known, entry);
		forward_entry_free(entry);
	}
	forward->fresh_last = &forward->fresh;
	pthread_mutex_lock(&inlet->lock);
	inlet->count -= count;
	inlet->bytes -= bytes;
	inlet->shut = shut;
	inlet->overflowed = false;
	for (w = 0; w < FORWARD_WRITERS; w++)
		dropped[w] = empty_lane(inlet, &inlet->lanes[w]);
	begin_look(forward);
	pthread_mutex_unlock(&inlet->lock);
	for (w = 0; w < FORWARD_WRITERS; w++)
		free_list(dropped[w]);
}

void
forward_inlet_clear(struct forward_inlet *inlet)
{
	unsigned w;

	for (w = 0; w < FORWARD_WRITERS; w++)
		free_list(empty_lane(inlet, &inlet->lanes[w]));
	pthread_mutex_destroy(&inlet->lock);
}

void
forward_inlet_reset(struct forward *forward)
{
	drop_all(forward, false);
}

void
forward_inlet_shut(struct forward *forward)
{
	drop_all(forward, true);
	forward->more = true;
}

/* The lane whose first entry is next; NULL: none is, or it has to wait. */
static struct forward_lane *
next_lane(struct forward_inlet *inlet)
{
	struct forward_lane *best = NULL;
	unsigned w;

	for (w = 0; w < FORWARD_WRITERS; w++)
		if (inlet->lanes[w].first != NULL &&
		    (best == NULL || inlet->lanes[w].first->turn < best->first->turn))
			best = &inlet->lanes[w];
	return best != NULL && best->first->turn <= inlet->open ? best : NULL;
}

/* Under the lock. */
static void
drain(struct forward *forward)
{
	struct forward_inlet *inlet = &forward->inlet;
	struct forward_lane *lane;
	struct forward_entry *entry;

	while ((lane = next_lane(inlet)) != NULL) {
		entry = lane->first;
		lane->first = entry->next;
		if (lane->first == NULL)
			lane->last = &lane->first;
		entry->next = NULL;
		*forward->fresh_last = entry;
		forward->fresh_last = &entry->next;
		forward_table_put(&forward->known, entry);
	}
	forward->waiting += inlet->arrived;
	inlet->arrived = 0;
	forward->more |= inlet->overflowed;
	forward->held &= inlet->ahead;
}

void
forward_inlet_drain(struct forward *forward)
{
	pthread_mutex_lock(&forward->inlet.lock);
	drain(forward);
	pthread_mutex_unlock(&forward->inlet.lock);
}

void
forward_inlet_lock(struct forward *forward)
{
	pthread_mutex_lock(&forward->inlet.lock);
	drain(forward);
}

bool
forward_inlet_concerns(struct forward *forward, const struct id *id)
{
	struct forward_inlet *inlet = &forward->inlet;
	const struct forward_entry *entry;
	unsigned w, i;

	if ((forward->ahead && !id_before(id, &forward->ahead_floor)) ||
	    (inlet->ahead && !id_before(id, &inlet->ahead_floor))) {
		if (!inlet->overflowed || id_before(id, &inlet->floor))
			inlet->floor = *id;
		inlet->overflowed = forward->more = true;
		forward->held = inlet->ahead;
		return false;
	}
	/* It came while the look was on its way, which may have missed one before it. */
	if (inlet->overflowed && !id_before(id, &inlet->floor))
		return false;
	for (w = 0; w < FORWARD_WRITERS; w++) {
		const struct forward_lane *lane = &inlet->lanes[w];

		for (i = 0; i < lane->n_ids; i++)
			if (id_is(id, &lane->ids[i]))
				return false;
		if (lane->first == NULL || id_before(id, &lane->lowest) ||
		    id_before(&lane->highest, id))
			continue;
		for (entry = lane->first; entry != NULL; entry = entry->next)
			if (id_is(id, &entry->id))
				return false;
	}
	return true;
}

void
forward_inlet_unlock(struct forward *forward)
{
	pthread_mutex_unlock(&forward->inlet.lock);
}

void
forward_inlet_gone(struct forward *forward, size_t held)
{
	pthread_mutex_lock(&forward->inlet.lock);
	forward->inlet.count--;
	forward->inlet.bytes -= held;
	pthread_mutex_unlock(&forward->inlet.lock);
}

/* ----------------------------------------------------------------- writers */

void
forward_turn_begins(struct forward *forward, unsigned writer, uint64_t turn)
{
	struct forward_inlet *inlet = &forward->inlet;

	pthread_mutex_lock(&inlet->lock);
	inlet->lanes[writer].turn = turn;
	pthread_mutex_unlock(&inlet->lock);
}

/* Under the lock: whether the forwarder is to be woken. */
static bool
wakes(struct forward_inlet *inlet)
{
	if (inlet->poked || (next_lane(inlet) == NULL && !inlet->overflowed))
		return false;
	/* In a backlog it wakes by itself. */
	if (inlet->shut)
		return false;
	return inlet->poked = true;
}

/* With two writers, each of which goes through its turns in order, all that have ended
 * after one that has not are the other's, and follow each other. */
_Static_assert(FORWARD_WRITERS == 2, "turns are told by two writers");

/* Whether something waits for that on disk only. */
static bool
end_turn(struct forward_inlet *inlet, uint64_t turn)
{
	bool ahead = inlet->ahead;

	if (turn != inlet->open) {
		inlet->ended = turn;
		return false;
	}
	inlet->open = inlet->ended > turn ? inlet->ended + 1 : turn + 1;
	inlet->ahead = false;
	return ahead;
}

void
forward_turn_ends(struct forward *forward, unsigned writer)
{
	struct forward_inlet *inlet = &forward->inlet;
	bool wake;

	pthread_mutex_lock(&inlet->lock);
	wake = end_turn(inlet, inlet->lanes[writer].turn) && !inlet->poked;
	inlet->lanes[writer].turn = 0;
	if (wake)
		inlet->poked = true;
	else
		wake = wakes(inlet);
	pthread_mutex_unlock(&inlet->lock);
	if (wake)
		inbox_post(&forward->inbox, &forward->poke);
}

void
forward_commit_begins(struct forward *forward, unsigned writer, const struct id *ids,
		      unsigned count)
{
	struct forward_inlet *inlet = &forward->inlet;
	struct forward_lane *lane = &inlet->lanes[writer];

	pthread_mutex_lock(&inlet->lock);
	lane->ids = ids;
	lane->n_ids = count;
	pthread_mutex_unlock(&inlet->lock);
}

/* Under the lock: all of the list that there is room for goes into the lane, and nothing
 * after the first that there is none for. */
static struct forward_entry *
take(struct forward_inlet *inlet, struct forward_lane *lane, struct forward_entry *first)
{
	struct forward_entry *entry;

	while ((entry = first) != NULL && !inlet->shut && !inlet->overflowed &&
	       inlet->count < FORWARD_FRESH && inlet->bytes < forward_bytes(FORWARD_FRESH_BYTES)) {
		first = entry->next;
		entry->next = NULL;
		entry->turn = lane->turn;
		if (lane->first == NULL || id_before(&entry->id, &lane->lowest))
			lane->lowest = entry->id;
		if (lane->first == NULL || id_before(&lane->highest, &entry->id))
			lane->highest = entry->id;
		*lane->last = entry;
		lane->last = &entry->next;
		inlet->count++;
		inlet->bytes += forward_entry_held(entry);
		inlet->arrived++;
	}
	return first;
}

/* Under the lock: it is on disk, and nobody has been told of it. */
static void
leave_on_disk(struct forward_inlet *inlet, uint64_t turn, const struct id *id)
{
	inlet->arrived++;
	note_ahead(inlet, turn, id);
	if (!inlet->overflowed || id_before(id, &inlet->floor))
		inlet->floor = *id;
	inlet->overflowed = true;
}

/* Under the lock: when something of a turn is on disk only, what has come in later ones
 * must not be in memory, or it would be handed on first.  It waits in its lane yet, as
 * the turn has not ended.  A list, to be freed. */
static struct forward_entry *
drop_later(struct forward_inlet *inlet, uint64_t turn)
{
	struct forward_entry *dropped = NULL, **at, *entry;
	unsigned w;

	for (w = 0; w < FORWARD_WRITERS; w++) {
		at = &inlet->lanes[w].first;
		while (*at != NULL && (*at)->turn <= turn)
			at = &(*at)->next;
		inlet->lanes[w].last = at;
		while ((entry = *at) != NULL) {
			*at = entry->next;
			inlet->count--;
			inlet->bytes -= forward_entry_held(entry);
			if (id_before(&entry->id, &inlet->floor))
				inlet->floor = entry->id;
			note_ahead(inlet, entry->turn, &entry->id);
			entry->next = dropped;
			dropped = entry;
		}
	}
	return dropped;
}

void
forward_inlet_missed(struct forward *forward, const struct id *id)
{
	struct forward_inlet *inlet = &forward->inlet;
	uint64_t one, other;

	pthread_mutex_lock(&inlet->lock);
	/* Of which turn is not known: it may be the later one. */
	one = inlet->lanes[0].turn;
	other = inlet->lanes[1].turn;
	leave_on_disk(inlet, one > other ? one : other, id);
	pthread_mutex_unlock(&inlet->lock);
}

bool
forward_inlet_has_room(struct forward *forward)
{
	struct forward_inlet *inlet = &forward->inlet;
	bool room;

	pthread_mutex_lock(&inlet->lock);
	room = !inlet->shut && !inlet->overflowed && inlet->count < FORWARD_FRESH &&
	       inlet->bytes < forward_bytes(FORWARD_FRESH_BYTES);
	pthread_mutex_unlock(&inlet->lock);
	return room;
}

void
forward_commit_ends(struct forward *forward, unsigned writer, struct forward_entry *first)
{
	struct forward_inlet *inlet = &forward->inlet;
	struct forward_lane *lane = &inlet->lanes[writer];
	struct forward_entry *entry, *later = NULL;
	bool wake;

	pthread_mutex_lock(&inlet->lock);
	lane->ids = NULL;
	lane->n_ids = 0;
	first = take(inlet, lane, first);
	for (entry = first; entry != NULL; entry = entry->next)
		leave_on_disk(inlet, lane->turn, &entry->id);
	if (inlet->overflowed)
		later = drop_later(inlet, lane->turn);
	wake = wakes(inlet);
	pthread_mutex_unlock(&inlet->lock);
	free_list(first);
	free_list(later);
	if (wake)
		inbox_post(&forward->inbox, &forward->poke);
}
