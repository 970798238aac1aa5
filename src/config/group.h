/*
 * group: a setting of a listener that is a group, such as "tls".
 *
 * A group counts as one value: that of a listener takes the place of the one at the
 * top level, whole; `false` undoes it.
 */
#ifndef CONFIG_GROUP_H
#define CONFIG_GROUP_H

#include <libconfig.h>

#include "config/parse.h"
#include "config/table.h"

/* Fills the members of row's group in the listener.  False: something in it is wrong,
 * and reported. */
bool group_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	       struct config_listener *listener);

#endif
