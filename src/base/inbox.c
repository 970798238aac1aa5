/*
 * inbox: a stack that any thread pushes to and the owner takes whole, then
 * reverses, so that items run in the order posted.  Whoever pushes onto an
 * empty stack wakes the owner; the others know that somebody has.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/inbox.h"

/* The eventfd of an owner that may end before those who post to it are done with it. */
struct inbox_loan {
	atomic_uint holders; /* the owner, and whoever is posting */
	int fd;
};

/* Owners that this thread has posted to and not woken yet.  One that has run its
 * inbox meanwhile may be in it again; waking it twice does no harm.  Its descriptor is
 * open until the release: an owner outlives what is posted to it, or has lent it. */
#define HELD_MOST 64
struct held {
	int fd;
	struct inbox_loan *loan;
};
static _Thread_local bool holding;
static _Thread_local unsigned n_held;
static _Thread_local struct held held[HELD_MOST];

/* Whoever comes last closes it. */
static void
give_back(struct inbox_loan *loan)
{
	if (loan == NULL || atomic_fetch_sub_explicit(&loan->holders, 1, memory_order_acq_rel) != 1)
		return;
	close(loan->fd);
	free(loan);
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
	inbox->loan = NULL;
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

int
inbox_lend(struct inbox *inbox)
{
	struct inbox_loan *loan = malloc(sizeof(*loan));

	if (loan == NULL)
		return -1;
	atomic_init(&loan->holders, 1);
	loan->fd = inbox->fd;
	inbox->loan = loan;
	return 0;
}

void
inbox_close(struct inbox *inbox)
{
	if (inbox->event != NULL)
		event_free(inbox->event);
	inbox->event = NULL;
	if (inbox->loan != NULL)
		give_back(inbox->loan);
	else if (inbox->fd != -1)
		close(inbox->fd);
	inbox->loan = NULL;
	inbox->fd = -1;
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
	while (n_held > 0) {
		n_held--;
		inbox_wake(held[n_held].fd);
		give_back(held[n_held].loan);
	}
}

void
inbox_post(struct inbox *inbox, struct inbox_item *item)
{
	struct inbox_item *top = atomic_load_explicit(&inbox->top, memory_order_relaxed);
	/* Once posted, the owner may run the item and end. */
	struct held now = {.fd = inbox->fd, .loan = inbox->loan};

	if (now.loan != NULL)
		atomic_fetch_add_explicit(&now.loan->holders, 1, memory_order_relaxed);
	do
		item->next = top;
	while (!atomic_compare_exchange_weak_explicit(&inbox->top, &top, item,
	    memory_order_release, memory_order_relaxed));
	if (top == NULL && holding && n_held < HELD_MOST) {
		held[n_held++] = now;
		return;
	}
	if (top == NULL)
		inbox_wake(now.fd);
	give_back(now.loan);
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
