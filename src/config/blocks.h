/*
 * blocks: lists of CIDR blocks (allow, deny, proxy_from).
 */
#ifndef CONFIG_BLOCKS_H
#define CONFIG_BLOCKS_H

#include <libconfig.h>

#include "config/parse.h"
#include "config/table.h"

/* Reads one block or a list of them into what is all zero.  False: the report says
 * why. */
bool blocks_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
		struct config_blocks *blocks);

#endif
