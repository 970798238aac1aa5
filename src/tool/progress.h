/*
 * progress: a line on the terminal for what takes longer than a second.
 */
#ifndef TOOL_PROGRESS_H
#define TOOL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	bool on;
	bool shown;
	uint64_t begun;
	uint64_t drawn;
};

/* Silent unless standard error is a terminal. */
void progress_start(struct progress *progress, bool wanted);

/* Draws now and then. */
void progress_show(struct progress *progress, const char *name, uint64_t done, uint64_t total);

/* Removes the line, before something else is written. */
void progress_clear(struct progress *progress);

#endif
