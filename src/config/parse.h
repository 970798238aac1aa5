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

#endif
