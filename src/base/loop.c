/*
 * loop: see loop.h.
 */
#include "base/loop.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#define DESCRIPTORS 3 /* of a base: epoll's, and a pair for signals */

/* Whether there are as many as a base takes.  Another thread may take them in the very
 * next moment, but then it would have had to be waiting for them. */
static int
look_for_descriptors(void)
{
	int fds[DESCRIPTORS], n, error = 0;

	for (n = 0; n < DESCRIPTORS && error == 0; n++)
		if ((fds[n] = eventfd(0, EFD_CLOEXEC)) == -1)
			error = errno;
	while (n-- > 0)
		if (fds[n] != -1)
			close(fds[n]);
	errno = error;
	return error == 0 ? 0 : -1;
}

struct event_base *
loop_new(void)
{
	struct event_base *base;

	if (look_for_descriptors() == -1)
		return NULL;
	errno = ENOMEM;
	base = event_base_new();
	return base;
}
