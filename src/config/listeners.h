/*
 * listeners: the group "listeners", or the top level in its place.
 */
#ifndef CONFIG_LISTENERS_H
#define CONFIG_LISTENERS_H

#include "config/parse.h"

/* Fills config->listeners; the sinks are known by now. */
void listeners_parse(struct parse *parse, const config_setting_t *root);

#endif
