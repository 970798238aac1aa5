/*
 * deadline: see deadline.h.  The timer is armed for the earliest entry and
 * left alone when that entry goes away: firing early costs one look, moving
 * the timer at every message would cost more.
 */
#include <stdlib.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/deadline.h"

#define TIMERS 256 /* of a base, armed at once; more than 30 listeners have */

static void
place(struct deadlines *all, size_t at, struct deadline *deadline)
{
	all->heap[at] = deadline;
	deadline->slot = at + 1;
}

static void
sift_up(struct deadlines *all, size_t at, struct deadline *deadline)
{
	while (at > 0 && all->heap[(at - 1) / 2]->when > deadline->when) {
		place(all, at, all->heap[(at - 1) / 2]);
		at = (at - 1) / 2;
	}
	place(all, at, deadline);
}

static void
sift_down(struct deadlines *all, size_t at, struct deadline *deadline)
{
	size_t child;

	while ((child = 2 * at + 1) < all->count) {
		if (child + 1 < all->count && all->heap[child + 1]->when < all->heap[child]->when)
			child++;
		if (all->heap[child]->when >= deadline->when)
			break;
		place(all, at, all->heap[child]);
		at = child;
	}
	place(all, at, deadline);
}

static void
arm(struct deadlines *all)
{
	uint64_t now, wait;
	struct timeval tv;

	if (all->count == 0 || (all->armed != 0 && all->armed <= all->heap[0]->when))
		return;
	now = clock_now();
	wait = all->heap[0]->when > now ? all->heap[0]->when - now : 0;
	/* libevent counts from its cached time, which is a little behind: a timer
	 * that fires early finds nothing due and is armed again. */
	tv.tv_sec = (time_t)(wait / 1000000);
	tv.tv_usec = (suseconds_t)(wait % 1000000);
	if (event_add(all->timer, &tv) == 0)
		all->armed = all->heap[0]->when;
}

static void
deadlines_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct deadlines *all = arg;
	struct deadline *first;
	uint64_t now = clock_now();

	(void)fd;
	(void)what;
	all->armed = 0;
	while (all->count > 0 && (first = all->heap[0])->when <= now) {
		deadline_clear(all, first);
		all->due(first);
	}
	arm(all);
}

static void
deadlines_on_nothing(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

int
deadlines_reserve_timers(struct event_base *base)
{
	static const struct timeval far = {.tv_sec = 1000000};
	struct event *timers[TIMERS] = {NULL};
	int result = 0, i;

	for (i = 0; i < TIMERS && result == 0; i++) {
		timers[i] = evtimer_new(base, deadlines_on_nothing, NULL);
		if (timers[i] == NULL || event_add(timers[i], &far) == -1)
			result = -1;
	}
	while (i-- > 0)
		if (timers[i] != NULL)
			event_free(timers[i]);
	return result;
}

int
deadlines_open(struct deadlines *all, struct event_base *base, void (*due)(struct deadline *))
{
	*all = (struct deadlines){.due = due};
	all->timer = evtimer_new(base, deadlines_on_timer, all);
	return all->timer == NULL ? -1 : 0;
}

void
deadlines_close(struct deadlines *all)
{
	if (all->timer != NULL)
		event_free(all->timer);
	free(all->heap);
	*all = (struct deadlines){0};
}

int
deadlines_reserve(struct deadlines *all, size_t count)
{
	struct deadline **heap;
	size_t room = all->room == 0 ? 64 : all->room;

	while (room < count)
		room *= 2;
	if (room == all->room)
		return 0;
	heap = realloc(all->heap, room * sizeof(struct deadline *));
	if (heap == NULL)
		return -1;
	all->heap = heap;
	all->room = room;
	return 0;
}

void
deadline_set(struct deadlines *all, struct deadline *deadline, uint64_t when)
{
	uint64_t before = deadline->when;

	deadline->when = when;
	if (deadline->slot == 0)
		sift_up(all, all->count++, deadline);
	else if (when < before)
		sift_up(all, deadline->slot - 1, deadline);
	else
		sift_down(all, deadline->slot - 1, deadline);
	if (deadline->slot == 1)
		arm(all);
}

void
deadline_clear(struct deadlines *all, struct deadline *deadline)
{
	size_t at = deadline->slot - 1;
	struct deadline *last;

	if (deadline->slot == 0)
		return;
	deadline->slot = 0;
	last = all->heap[--all->count];
	if (last == deadline)
		return;
	if (last->when < deadline->when)
		sift_up(all, at, last);
	else
		sift_down(all, at, last);
}
