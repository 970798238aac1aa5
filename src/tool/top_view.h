/*
 * top_view: a status as text: for a terminal, for a script's eyes, and as JSON.
 */
#ifndef TOOL_TOP_VIEW_H
#define TOOL_TOP_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "tool/status.h"

/* All but the connections.  Headings are marked for screen_draw, or not. */
void top_view_head(FILE *to, const struct status *status, bool marks);

/* Connections, `count` of them beginning with that number, under their heading. */
void top_view_connections(FILE *to, const struct status *status, enum status_column sorted,
			  size_t first, size_t count, bool marks);

/* One object, one line. */
void top_view_json(FILE *to, const struct status *status);

#endif
