/*
 * dump: parts of what config_dump prints, for comparing (compare.c).
 */
#ifndef CONFIG_DUMP_H
#define CONFIG_DUMP_H

#include <stdio.h>

struct config_listener;
struct config_row;
struct config_sink;

/* All settings, but not the name. */
void dump_listener(FILE *to, const char *indent, const struct config_listener *listener);
void dump_sink(FILE *to, const char *indent, const struct config_sink *sink);

/* The value alone; nothing where there is none.  base: what has the row's member. */
void dump_value(FILE *to, const struct config_row *row, const void *base);

#endif
