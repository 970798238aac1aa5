/*
 * thread: starting threads that leave signals alone.
 *
 * Signals are the main thread's.  A handler that ran in a writer's thread would cut
 * its system calls short, and be put off for as long as it waits for work.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* Starts a thread with all signals blocked.  0, or an errno. */
int thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

#endif
