/*
 * selection: which messages of a spool are meant.  Pure, but for complaints.
 */
#ifndef TOOL_SELECTION_H
#define TOOL_SELECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tool/spools.h"

struct selection {
	bool all;	 /* ALL was said */
	char **patterns; /* ids, beginnings of ids, globs */
	size_t n_patterns;
	uint64_t older; /* microseconds; 0: any age */
	uint64_t newer;
	const char *listener; /* globs; NULL: any */
	const char *peer;
	unsigned states; /* bits; 0: what the command is for */
};

/* Whether it says anything about which ones. */
bool selection_is_given(const struct selection *selection);

/* Takes everything else out of the spools' messages.  0, or EX_NOINPUT and a complaint
 * when a pattern without wildcards names none, EX_USAGE when it names several. */
int selection_apply(const struct selection *selection, struct spools *spools, uint64_t now);

#endif
