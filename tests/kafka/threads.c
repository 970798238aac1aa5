/*
 * threads: C11's threads, mutexes and conditions by POSIX's, for ThreadSanitizer.
 *
 * librdkafka uses thrd_create(3) and its kind, of which ThreadSanitizer does not know: a
 * thread that was made so has none of its state, and ends the process.  In LD_PRELOAD this
 * makes pthread calls of them, which it knows.  glibc's objects of both are of one size.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

_Static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t), "mtx_t");
_Static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t), "cnd_t");
_Static_assert(sizeof(thrd_t) == sizeof(pthread_t), "thrd_t");
_Static_assert(sizeof(once_flag) == sizeof(pthread_once_t), "once_flag");

#define MUTEX(m) ((pthread_mutex_t *)(void *)(m))
#define CONDITION(c) ((pthread_cond_t *)(void *)(c))

static int
result(int error)
{
	switch (error) {
	case 0:
		return thrd_success;
	case ENOMEM:
		return thrd_nomem;
	case ETIMEDOUT:
		return thrd_timedout;
	case EBUSY:
		return thrd_busy;
	default:
		return thrd_error;
	}
}

struct begin {
	thrd_start_t run;
	void *arg;
};

static void *
begin(void *arg)
{
	struct begin b = *(struct begin *)arg;

	free(arg);
	return (void *)(intptr_t)b.run(b.arg);
}

int
thrd_create(thrd_t *thread, thrd_start_t run, void *arg)
{
	struct begin *b = malloc(sizeof(*b));
	int error;

	if (b == NULL)
		return thrd_nomem;
	*b = (struct begin){run, arg};
	error = pthread_create(thread, NULL, begin, b);
	if (error != 0)
		free(b);
	return result(error == EAGAIN ? ENOMEM : error);
}

int
thrd_join(thrd_t thread, int *code)
{
	void *value;
	int error = pthread_join(thread, &value);

	if (error == 0 && code != NULL)
		*code = (int)(intptr_t)value;
	return result(error);
}

int
thrd_detach(thrd_t thread)
{
	return result(pthread_detach(thread));
}

/* How long they live is said by the library's atomic counts, which are not seen: so that they
 * begin and end is not told.  ThreadSanitizer makes its own of the first use. */
int
mtx_init(mtx_t *mutex, int type)
{
	pthread_mutexattr_t attributes;
	int error;

	if ((type & mtx_recursive) == 0) {
		*MUTEX(mutex) = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
		return thrd_success;
	}
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	error = pthread_mutex_init(MUTEX(mutex), &attributes);
	pthread_mutexattr_destroy(&attributes);
	return result(error);
}

void
mtx_destroy(mtx_t *mutex)
{
	(void)mutex; /* glibc keeps nothing of it elsewhere */
}

int
mtx_lock(mtx_t *mutex)
{
	return result(pthread_mutex_lock(MUTEX(mutex)));
}

int
mtx_trylock(mtx_t *mutex)
{
	return result(pthread_mutex_trylock(MUTEX(mutex)));
}

int
mtx_unlock(mtx_t *mutex)
{
	return result(pthread_mutex_unlock(MUTEX(mutex)));
}

int
cnd_init(cnd_t *condition)
{
	*CONDITION(condition) = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
	return thrd_success;
}

void
cnd_destroy(cnd_t *condition)
{
	static void (*real)(cnd_t *); /* glibc's, which waits until nobody is at it */

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "cnd_destroy");
	real(condition);
}

int
cnd_signal(cnd_t *condition)
{
	return result(pthread_cond_signal(CONDITION(condition)));
}

int
cnd_broadcast(cnd_t *condition)
{
	return result(pthread_cond_broadcast(CONDITION(condition)));
}

int
cnd_wait(cnd_t *condition, mtx_t *mutex)
{
	return result(pthread_cond_wait(CONDITION(condition), MUTEX(mutex)));
}

int
cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex,
	      const struct timespec *restrict until)
{
	return result(pthread_cond_timedwait(CONDITION(condition), MUTEX(mutex), until));
}

void
call_once(once_flag *flag, void (*run)(void))
{
	pthread_once((pthread_once_t *)(void *)flag, run);
}

/* ThreadSanitizer's, which stands behind this library.  (No jumps in place of calls: it goes
 * by who calls it.) */
#ifdef __clang__
#define CALLS __attribute__((disable_tail_calls))
#else
#define CALLS
#pragma GCC optimize("no-optimize-sibling-calls")
#endif

#define PASS(name) \
	CALLS int name(pthread_rwlock_t *lock) \
	{ \
		static int (*real)(pthread_rwlock_t *); \
\
		if (real == NULL) \
			*(void **)&real = dlsym(RTLD_NEXT, #name); \
		return real(lock); \
	}

PASS(pthread_rwlock_rdlock)
PASS(pthread_rwlock_wrlock)
PASS(pthread_rwlock_unlock)

int
pthread_rwlock_init(pthread_rwlock_t *restrict lock, const pthread_rwlockattr_t *restrict attributes)
{
	(void)attributes; /* the library has none */
	*lock = (pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER;
	return 0;
}

int
pthread_rwlock_destroy(pthread_rwlock_t *lock)
{
	(void)lock;
	return 0;
}
