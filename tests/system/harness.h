/*
 * harness: runs the system tests, each in a process of its own, and says in TAP
 * what became of them.
 *
 * Every test program has one directory under $TMPDIR.  What a passed test leaves
 * in it is removed; what a failed one leaves (configuration, log, output of its
 * daemons) is kept, its place is printed, and the log's tail with it.  No process
 * started by a test outlives it.
 */
#ifndef SYSTEM_HARNESS_H
#define SYSTEM_HARNESS_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HARNESS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HARNESS_SANITIZED 1
#endif
#endif
#ifndef HARNESS_SANITIZED
#define HARNESS_SANITIZED 0
#endif

/* The longest that anything is waited for, in seconds. */
#define HARNESS_DEADLINE (HARNESS_SANITIZED ? 60.0 : 20.0)

struct harness_test {
	const TTest *test;
	double timeout; /* seconds in a plain build; four times as long under sanitizers */
};

/* Runs the tests (those whose names contain argv[1], when given).  The exit code. */
int harness_run(const char *suite, const struct harness_test *tests, size_t n_tests, int argc,
		char **argv);

/* Within a test: it cannot be run here, and why.  The test returns after it. */
void harness_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Within a test: a fact worth reading, as a TAP comment on standard error. */
void harness_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Within a test: a fresh directory, gone when the test passes. */
char *harness_directory(void);

/* Seconds since some moment, never going back. */
double harness_now(void);

/* Waits a moment between two looks at something (5 ms). */
void harness_pause(void);

/* The file's bytes with a NUL behind them, to be freed; "" when there is no file. */
char *harness_read_file(const char *path, size_t *len);
void harness_write_file(const char *path, const char *text);

/* printf into fresh memory; never NULL. */
char *harness_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reproducible bytes: the word number `at` of the stream number `stream`. */
uint64_t harness_word(uint64_t stream, uint64_t at);

#endif
