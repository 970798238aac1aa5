/*
 * bench: what the load generator and the limits share.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stddef.h>
#include <stdint.h>

/* Monotonic, in nanoseconds. */
uint64_t bench_clock(void);

/* Says why, with errno's text unless that is 0, and ends the process with 1. */
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "64K", "1G": a number of bytes, or of anything. */
uint64_t bench_number(const char *text);

/* Memory, or the end. */
void *bench_alloc(size_t count, size_t size);

/* As many descriptors as the system lets us have; returns how many. */
size_t bench_descriptors(void);

#endif
