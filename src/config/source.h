/*
 * source: a configuration file as one text, with what it includes in place.
 *
 * libconfig 1.5 resolves every include against one directory, wraps integers
 * that do not fit, drops NULs and says of comments without an end nothing at
 * all.  So the text is read, searched for these and put together here, and
 * libconfig is given the result.  Every line of it knows where it came from.
 */
#ifndef CONFIG_SOURCE_H
#define CONFIG_SOURCE_H

#include <stdbool.h>
#include <stddef.h>

#include "config/config.h"
#include "config/report.h"

/* Bounds that no honest file comes near to. */
#define SOURCE_SIZE_MAX ((size_t)16 << 20) /* with all that it includes */
#define SOURCE_INCLUDES_MAX 1000
#define SOURCE_DEPTH_MAX 10  /* of includes */
#define SOURCE_NESTING_MAX 64 /* of groups and lists */

/* From this line on the text is that of a file, from its line first. */
struct source_segment {
	unsigned line;
	size_t file;
	int first;
};

struct source {
	char *text;
	struct config_strings files;
	struct source_segment *segments;
	size_t n_segments;
	unsigned *wide; /* lines with an integer that does not fit, already reported */
	size_t n_wide;
};

/* Reads file and what it includes.  False: there are errors in the report that
 * make parsing pointless.  The source is to be cleared in any case. */
bool source_read(struct source *source, const char *file, struct report *report);
void source_clear(struct source *source);

/* Where a line of the text came from. */
struct config_place source_place(const struct source *source, unsigned line);
/* libconfig knows a value's line only from what stands behind it: where that is the end
 * of a list on a line of its own, the value's own line.  Costs a walk through the text. */
unsigned source_last_line(const struct source *source, unsigned line);

bool source_is_wide(const struct source *source, unsigned line);

#endif
