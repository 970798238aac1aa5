/*
 * group: a setting that has settings of its own, by its row's inner scope.
 *
 * A group counts as one value: that of a listener takes the place of the one at the
 * top level, whole.  One that has settings it cannot do without (tls) may be left out,
 * and `false` undoes it.
 */
#ifndef CONFIG_GROUP_H
#define CONFIG_GROUP_H

#include <libconfig.h>

#include "config/parse.h"
#include "config/table.h"

/* Fills a struct of the inner scope that is all zero: from the setting, and from
 * defaults what it lacks (NULL: all, unless it is left out).  False: the report says
 * why. */
bool group_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	       void *inner);

#endif
