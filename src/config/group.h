/*
 * group: a listener's setting that has settings of its own, by its row's inner scope.
 */
#ifndef CONFIG_GROUP_H
#define CONFIG_GROUP_H

#include <libconfig.h>

#include "config/parse.h"
#include "config/table.h"

/* Fills a struct of the inner scope that is all zero: from the setting, and from
 * defaults what it lacks (NULL: all).  False: the report says why. */
bool group_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	       void *inner);

#endif
