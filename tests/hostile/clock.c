/*
 * clock: a wall clock that a test can set, for one program (LD_PRELOAD).
 *
 * The file named by HOSTILE_CLOCK holds one int64_t, the microseconds that are to be added
 * to the wall clock; it is read anew each time, through a mapping.  Only clocks that
 * step are changed: what counts from the boot goes on as it does when somebody sets the
 * machine's clock.  Without the file the process ends: a test must not believe that it
 * has set a clock when it has not.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000

static const volatile int64_t *offset;

__attribute__((constructor)) static void
clock_open(void)
{
	const char *path = getenv("HOSTILE_CLOCK");
	int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *mapped = mmap(NULL, sizeof(*offset), PROT_READ, MAP_SHARED, fd, 0);

	if (fd == -1 || mapped == MAP_FAILED) {
		perror("HOSTILE_CLOCK");
		_exit(70);
	}
	close(fd);
	offset = mapped;
}

/* Also before the constructor has run. */
int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int64_t all;

	if (syscall(SYS_clock_gettime, id, ts) == -1)
		return -1;
	if (offset == NULL || (id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
		return 0;
	all = (int64_t)ts->tv_sec * SECOND + ts->tv_nsec / 1000 + *offset;
	ts->tv_sec = (time_t)(all / SECOND);
	ts->tv_nsec = (long)(all % SECOND) * 1000 + ts->tv_nsec % 1000;
	return 0;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &ts) == -1)
		return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = (suseconds_t)(ts.tv_nsec / 1000);
	return 0;
}

time_t
time(time_t *to)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_REALTIME, &ts) == -1)
		return -1;
	if (to != NULL)
		*to = ts.tv_sec;
	return ts.tv_sec;
}
