/*
 * value: one setting into its member, by its row.
 */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include <libconfig.h>

#include "config/parse.h"
#include "config/table.h"

/* Checks a setting (NULL: takes the row's default) and stores it in base, the struct
 * of the row's scope, where the member is still all zero.  False: it was not stored;
 * the report says why. */
bool value_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	       void *base);

/* "a group", "the string "x"", "5": what a setting is, for errors. */
const char *value_found(char found[REPORT_QUOTE_LEN + 16], const config_setting_t *setting);

/* What a row takes, for errors; to be freed.  NULL: no memory, which the report knows. */
char *value_expected(struct parse *parse, const struct config_row *row);

#endif
