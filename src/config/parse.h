/*
 * parse: from libconfig's tree to struct config, by the rows of the table.
 *
 * Whatever is wrong is added to the report; the configuration that comes out is
 * only good while the report is empty, but may be freed in any case.
 */
#ifndef CONFIG_PARSE_H
#define CONFIG_PARSE_H

#include <libconfig.h>

#include "config/config.h"
#include "config/report.h"
#include "config/source.h"

struct parse {
	struct config *config;
	const struct source *source;
	struct report *report;
	bool sinks_unknown; /* their names could not be read */
};

/* Fills a configuration that is all zero. */
void parse_text(struct parse *parse);

/* An error at a setting. */
#define parse_error(parse, setting, ...) \
	parse_error_at(parse, config_setting_source_line(setting), __VA_ARGS__)
void parse_error_at(struct parse *parse, unsigned line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Of a group; parse_member gives NULL where there is none of that name, or no group. */
config_setting_t *parse_element(const config_setting_t *group, int i);
const config_setting_t *parse_member(const config_setting_t *group, const char *name);

/* The place of a sink among those known so far; -1: no such. */
int parse_find_sink(const struct config *config, const char *name);

/* These report what they find wrong. */
bool parse_is_group(struct parse *parse, const config_setting_t *setting, const char *expected);
bool parse_check_name(struct parse *parse, const config_setting_t *setting, const char *what);

/* A setting that none of the scopes has (a bit for each), nor sinks of these types. */
void parse_unknown(struct parse *parse, const config_setting_t *setting, unsigned scopes,
		   unsigned sink_types);

#endif
