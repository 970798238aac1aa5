/*
 * arguments: a program and what it is given (argv of command sinks).
 */
#ifndef CONFIG_ARGUMENTS_H
#define CONFIG_ARGUMENTS_H

#include <libconfig.h>

#include "config/parse.h"
#include "config/table.h"

/* Reads a list into what is all zero, and looks whether there is such a program.
 * False: the report says why. */
bool arguments_set(struct parse *parse, const struct config_row *row,
		   const config_setting_t *setting, struct config_strings *arguments);

#endif
