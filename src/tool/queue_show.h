/*
 * queue_show: messages of a spool for people and for programs, on standard output.
 */
#ifndef TOOL_QUEUE_SHOW_H
#define TOOL_QUEUE_SHOW_H

#include <stdbool.h>
#include <stdint.h>

#include "tool/spools.h"

/* Each returns 0 or an exit status. */
int queue_show_table(struct spools *spools, uint64_t now);
int queue_show_json(struct spools *spools, uint64_t now);
int queue_show_each(struct spools *spools, uint64_t now);

/* The bytes, one message behind the other; on a terminal harmless to it, unless raw. */
int queue_show_bytes(struct spools *spools, bool raw);

#endif
