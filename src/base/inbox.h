/*
 * inbox: how other threads speak to one that turns an event loop.
 *
 * Items are part of what they speak of, so posting never allocates and never
 * fails.  Any thread posts; the owner's loop runs them, in the order posted.
 * An eventfd wakes it, written to only when the inbox was empty.
 */
#ifndef BASE_INBOX_H
#define BASE_INBOX_H

#include <stdatomic.h>
#include <stdbool.h>

struct event;
struct event_base;
struct inbox_loan;

struct inbox_item {
	struct inbox_item *next;
	void (*run)(struct inbox_item *item); /* in the owner's thread; item is free to reuse */
};

struct inbox {
	_Atomic(struct inbox_item *) top;
	int fd;
	struct inbox_loan *loan; /* NULL: the owner outlives whoever posts */
	bool edge; /* epoll tells of each wake-up once, however many are unread */
	struct event *event;
};

int inbox_open(struct inbox *inbox, struct event_base *base); /* -1: errno */
void inbox_close(struct inbox *inbox);

/* For an owner that may end before those who post to it: who has posted its last item
 * may still be about to wake it.  Whoever posts holds the eventfd meanwhile, and the last
 * one closes it.  Before anybody posts; -1: no memory. */
int inbox_lend(struct inbox *inbox);
void inbox_post(struct inbox *inbox, struct inbox_item *item);

/* Between these two, what this thread posts wakes each owner once, at the release. */
void inbox_hold(void);
void inbox_release(void);

/* Runs what lies in the inbox now; for a loop that is coming to its end. */
void inbox_run(struct inbox *inbox);

#endif
