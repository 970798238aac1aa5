/*
 * thread: starting threads that leave signals alone.
 *
 * Signals are the main thread's.  A handler that ran in a writer's thread would cut
 * its system calls short, and be put off for as long as it waits for work.
 *
 * Each has a name, for ps, top and perf, and for whoever counts them.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* Starts a thread with all signals blocked, called role, or role-name (as much of it as
 * the kernel keeps, 15 bytes) where name is not NULL.  0, or an errno. */
int thread_start(pthread_t *thread, const char *role, const char *name, void *(*run)(void *),
		 void *arg);

/* What the calling thread does takes long and can wait: whoever else of this machine has
 * something to do goes first, also in the middle of it.  -1 with errno, where a sandbox
 * forbids it; then it does not. */
int thread_stand_back(void);

#endif
