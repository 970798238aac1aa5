/*
 * log: what operators read.
 *
 * One line an event, written whole with one write.  A log that cannot be
 * written to (a full pipe, a slow terminal) never stops its caller: lines are
 * dropped, counted, and the count is said when there is room again.  Every
 * function preserves errno.  Any thread.
 *
 * Each event has a stable name (lower case, hyphens), listed in cisternd(8).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_NOTICE, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_target { LOG_TARGET_STDERR, LOG_TARGET_SYSLOG, LOG_TARGET_JOURNAL, LOG_TARGET_FILE };

/* What a line says, for machines: a member of its object in json, where its message says
 * it in words.  The names are listed in cisternd(8), too. */
struct log_field {
	const char *name; /* NULL: the end */
	const char *text; /* NULL: it is a number */
	unsigned long long number;
};

#define LOG_FIELDS(...) ((const struct log_field[]){__VA_ARGS__, {0}})
#define LOG_TEXT(n, value) {.name = (n), .text = (value)}
#define LOG_NUMBER(n, value) {.name = (n), .number = (value)}

/* The connection that a line is about; part of the line in text and json. */
struct log_subject {
	unsigned long long connection; /* its number */
	const char *listener;
	const char *peer;
	const struct log_field *fields; /* NULL: none */
};

/* Where lines go from now on; path only for LOG_TARGET_FILE.  Returns 0, or -1
 * with errno when the file cannot be opened (then nothing has changed). */
int log_open(enum log_target target, const char *path, enum log_level level, bool json);
int log_reopen(void);
void log_close(void);

/* More by so many levels than the configuration says (-v); calls add up. */
void log_verbose(int levels);
extern atomic_int log_threshold; /* the highest level that is written */

static inline bool
log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_threshold, memory_order_relaxed);
}

/* A format that begins with "listener %s", "sink %s", "user %s" or "worker %u" makes a
 * field of that name by itself. */
void log_event(enum log_level level, const char *event, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void log_event_with(enum log_level level, const char *event, const struct log_field *fields,
		    const char *format, ...) __attribute__((format(printf, 4, 5)));

/* The same about a connection; its number, listener and peer are added. */
void log_connection(enum log_level level, const char *event, const struct log_subject *subject,
		    const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
