/*
 * loop: an event base, or the reason why there is none.
 */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

struct event_base;

/* NULL: errno.  libevent 2.1 itself ends the process, with exit(3), where there are no
 * descriptors for what a base has of its own. */
struct event_base *loop_new(void);

#endif
