/*
 * compare: what a reload has to know of two configurations.
 *
 * All that the table knows is compared, by the text that config_dump prints of it.
 */
#ifndef CONFIG_COMPARE_H
#define CONFIG_COMPARE_H

#include <stdbool.h>

#include "config/config.h"

/* Whether all settings are the same: names count, places in files do not. */
enum comparison { COMPARE_DIFFERENT, COMPARE_SAME, COMPARE_NO_MEMORY };

enum comparison compare_listeners(const struct config_listener *one,
				  const struct config_listener *other);
enum comparison compare_sinks(const struct config_sink *one, const struct config_sink *other);

/* Calls differs for each setting that is only read at the start (at_start in the table)
 * and whose value is another one in `new`. */
void compare_fixed(const struct config *old, const struct config *new,
		   void (*differs)(const char *name, const char *old_value, const char *new_value));

#endif
