/*
 * bench: see bench.h.  These are tools: whatever fails ends them.
 */
#include "bench.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

uint64_t
bench_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void
bench_fail(const char *format, ...)
{
	int error = errno;
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	if (error != 0)
		fprintf(stderr, ": %s", strerror(error));
	fputc('\n', stderr);
	exit(1);
}

uint64_t
bench_number(const char *text)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;
	uint64_t number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno == 0 && end != text && *end != '\0' && (unit = strchr(units, *end)) != NULL) {
		number <<= 10 * (unit - units + 1);
		end++;
	}
	if (errno != 0 || end == text || *end != '\0') {
		errno = 0;
		bench_fail("%s: expected a number, as 64K", text);
	}
	return number;
}

void *
bench_alloc(size_t count, size_t size)
{
	void *memory = calloc(count > 0 ? count : 1, size);

	if (memory == NULL)
		bench_fail("%zu times %zu bytes", count, size);
	return memory;
}

size_t
bench_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == -1)
		bench_fail("getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == -1)
		bench_fail("setrlimit");
	return limit.rlim_cur == RLIM_INFINITY ? 1048576 : (size_t)limit.rlim_cur;
}
