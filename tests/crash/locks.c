/*
 * locks: linked into a test's daemon, it holds cistern to what HACKING.md says: no function
 * takes a lock while it holds another, so there is no order that could be broken.
 *
 * The linker sends our calls of pthread_mutex_lock and its like here (--wrap); those of
 * libraries are theirs.  A second lock ends the process with a trace of who took it.
 */
#include <execinfo.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FRAMES 24

int __real_pthread_mutex_lock(pthread_mutex_t *lock);
int __real_pthread_mutex_trylock(pthread_mutex_t *lock);
int __real_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);

static _Thread_local pthread_mutex_t *held;

_Noreturn static void
locks_broken(const char *what, const pthread_mutex_t *lock)
{
	void *frames[FRAMES];

	dprintf(STDERR_FILENO, "Assertion of the lock order: %p %s while %p is held\n",
		(const void *)lock, what, (void *)held);
	backtrace_symbols_fd(frames, backtrace(frames, FRAMES), STDERR_FILENO);
	abort();
}

int
__wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
	int error;

	if (held != NULL)
		locks_broken("is taken", lock);
	error = __real_pthread_mutex_lock(lock);
	if (error == 0)
		held = lock;
	return error;
}

int
__wrap_pthread_mutex_trylock(pthread_mutex_t *lock)
{
	int error;

	if (held != NULL)
		locks_broken("is tried", lock);
	error = __real_pthread_mutex_trylock(lock);
	if (error == 0)
		held = lock;
	return error;
}

/* A wait for a condition gives up the lock for a while; its thread does nothing meanwhile. */
int
__wrap_pthread_mutex_unlock(pthread_mutex_t *lock)
{
	if (held != lock)
		locks_broken("is given back", lock);
	held = NULL;
	return __real_pthread_mutex_unlock(lock);
}
