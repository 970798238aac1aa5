/*
 * generation_sinks: the sinks of a generation, shared with others by name and settings.
 *
 * Main thread.
 */
#ifndef GENERATION_SINKS_H
#define GENERATION_SINKS_H

#include <stdbool.h>

#include "generation.h"

/* Opens those that no generation has open, and links those that hand on to others.  0 or
 * an exit code, having logged why; then what was opened is released by _release. */
int generation_sinks_open(struct generation *generation);

bool generation_has_sink(const struct generation *generation, const struct sink *sink);

/* In force: its sinks may begin, and those of earlier generations leave. */
void generation_sinks_change(struct generation *generation);

/* Its references; what nobody refers to any more is closed, now or when it has left. */
void generation_sinks_release(struct generation *generation);

#endif
