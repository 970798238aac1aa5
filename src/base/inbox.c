/*
 * inbox: a stack that any thread pushes to and the owner takes whole, then
 * reverses, so that items run in the order posted.  Whoever pushes onto an
 * empty stack wakes the owner; the others know that somebody has.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/inbox.h"

/* Owners that this thread has posted to and not woken yet.  One that has run its
 * inbox meanwhile may be in it again; waking it twice does no harm.  An owner outlives
 * what is posted to it, so its descriptor is open until the release. */
#define HELD_MOST 64
static _Thread_local bool holding;
static _Thread_local unsigned n_held;
static _Thread_local int held[HELD_MOST];

/* Eventfds of retired inboxes. */
#define RETIRED_MOST 1024 /* more than there are sinks */
static pthread_mutex_t retired_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned n_retired;
static int retired[RETIRED_MOST];

static int
take_retired(void)
{
	int fd = -1;

	pthread_mutex_lock(&retired_lock);
	if (n_retired > 0)
		fd = retired[--n_retired];
	pthread_mutex_unlock(&retired_lock);
	return fd;
}

static void
inbox_on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct inbox *inbox = arg;
	uint64_t count;

	(void)what;
	/* Empties the eventfd.  Whatever that says, who is woken looks: an item that is left
	 * is woken for no more. */
	if (!inbox->edge)
		(void)!read(fd, &count, sizeof(count));
	inbox_run(inbox);
}

int
inbox_open(struct inbox *inbox, struct event_base *base)
{
	atomic_init(&inbox->top, NULL);
	inbox->fd = take_retired();
	if (inbox->fd == -1)
		inbox->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (inbox->fd == -1)
		return -1;
	/* Every write is an edge, so nothing needs to be read: one call less a wake-up. */
	inbox->edge = (event_base_get_features(base) & EV_FEATURE_ET) != 0;
	inbox->event = event_new(base, inbox->fd,
				 (short)(EV_READ | EV_PERSIST | (inbox->edge ? EV_ET : 0)),
				 inbox_on_wake, inbox);
	if (inbox->event == NULL || event_add(inbox->event, NULL) == -1) {
		inbox_close(inbox);
		errno = ENOMEM;
		return -1;
	}
	return 0;
}

void
inbox_close(struct inbox *inbox)
{
	if (inbox->event != NULL)
		event_free(inbox->event);
	inbox->event = NULL;
	if (inbox->fd != -1)
		close(inbox->fd);
	inbox->fd = -1;
}

void
inbox_retire(struct inbox *inbox)
{
	pthread_mutex_lock(&retired_lock);
	if (inbox->fd != -1 && n_retired < RETIRED_MOST) {
		if (inbox->event != NULL)
			event_free(inbox->event);
		inbox->event = NULL;
		retired[n_retired++] = inbox->fd;
		inbox->fd = -1;
	}
	pthread_mutex_unlock(&retired_lock);
	inbox_close(inbox);
}

static void
inbox_wake(int fd)
{
	static const uint64_t one = 1;

	/* EAGAIN cannot be: the counter, which nobody takes back, would have to be at
	 * 2^64 - 2. */
	while (write(fd, &one, sizeof(one)) == -1 && errno == EINTR)
		;
}

void
inbox_hold(void)
{
	holding = true;
}

void
inbox_release(void)
{
	holding = false;
	while (n_held > 0)
		inbox_wake(held[--n_held]);
}

void
inbox_post(struct inbox *inbox, struct inbox_item *item)
{
	struct inbox_item *top = atomic_load_explicit(&inbox->top, memory_order_relaxed);
	int fd = inbox->fd; /* once posted, the owner may run the item and end */

	do
		item->next = top;
	while (!atomic_compare_exchange_weak_explicit(&inbox->top, &top, item,
	    memory_order_release, memory_order_relaxed));
	if (top != NULL)
		return;
	if (holding && n_held < HELD_MOST)
		held[n_held++] = fd;
	else
		inbox_wake(fd);
}

void
inbox_run(struct inbox *inbox)
{
	struct inbox_item *item = atomic_exchange_explicit(&inbox->top, NULL, memory_order_acquire);
	struct inbox_item *first = NULL, *next;

	for (; item != NULL; item = next) {
		next = item->next;
		item->next = first;
		first = item;
	}
	for (; first != NULL; first = next) {
		next = first->next;
		first->run(first);
	}
}
