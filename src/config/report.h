/*
 * report: the errors of a file, collected until all of it has been read.
 *
 * Adding never fails as far as the caller is concerned: when there is no memory
 * for an error, no_memory is set, and that is the one thing said at the end.
 */
#ifndef CONFIG_REPORT_H
#define CONFIG_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"

struct report_item {
	unsigned order; /* line in the text with its includes; errors are told in this order */
	size_t number;
	struct config_error error;
};

struct report {
	struct report_item *items;
	size_t count;
	size_t room;
	bool no_memory;
	int exit_code; /* of sysexits.h; EX_CONFIG unless a file could not be read */
};

void report_add(struct report *report, unsigned order, const char *file, int line,
		const char *format, ...) __attribute__((format(printf, 5, 6)));

/* Whether there is anything to tell. */
bool report_is_empty(const struct report *report);

/* Moves what was collected to the caller's errors, sorted by place. */
void report_finish(struct report *report, struct config_errors *errors);

/* Text as an error may show it: in quotes, cut when long, harmless to terminals. */
#define REPORT_QUOTE_SHOWN 60
#define REPORT_QUOTE_LEN (4 * (REPORT_QUOTE_SHOWN + 3) + 8)
const char *report_quote(char quoted[REPORT_QUOTE_LEN], const char *text);

/* The candidate that a misspelt name was most likely meant to be. */
struct report_nearest {
	const char *name;
	const char *best; /* NULL: none is near enough */
	unsigned distance;
};

void report_nearest_offer(struct report_nearest *nearest, const char *candidate);

/* ` (did you mean "X"?)`, or nothing. */
const char *report_nearest_hint(const struct report_nearest *nearest, char hint[REPORT_QUOTE_LEN]);

#endif
