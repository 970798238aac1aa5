/*
 * value: see value.h.
 *
 * A setting is first brought to text or a number, then checked and stored by
 * functions that defaults take, too: a default is checked as an operator's
 * value is.
 */
#include "config/value.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "config/arguments.h"
#include "config/blocks.h"
#include "config/brokers.h"
#include "config/group.h"
#include "config/nats_sinks.h"
#include "config/types.h"

static bool
no_memory(struct parse *parse)
{
	parse->report->no_memory = true;
	return false;
}

static void
print_choices(FILE *to, const char *const *choices, const char *quote)
{
	for (size_t i = 0; choices[i] != NULL; i++)
		fprintf(to, "%s%s%s%s",
			i == 0                   ? ""
			: choices[i + 1] == NULL ? " or "
						 : ", ",
			quote, choices[i], quote);
}

static void
print_bounds(FILE *to, const struct config_row *row, void (*print)(FILE *, uint64_t))
{
	if (row->maximum == INT64_MAX) {
		fputs(" of at least ", to);
		print(to, row->minimum);
	} else {
		fputs(" from ", to);
		print(to, row->minimum);
		fputs(" to ", to);
		print(to, row->maximum);
	}
}

static void
print_expected(FILE *to, const struct config_row *row)
{
	switch (row->type) {
	case TABLE_INTEGER:
		if (row->choices != NULL) {
			print_choices(to, row->choices, "");
		} else {
			fputs("an integer", to);
			print_bounds(to, row, types_print_integer);
		}
		break;
	case TABLE_SIZE:
		fputs("a size (bytes, or a string such as \"64K\")", to);
		print_bounds(to, row, types_print_size);
		break;
	case TABLE_DURATION:
		fputs("a duration (seconds, or a string such as \"250ms\", \"30s\", \"5m\")", to);
		print_bounds(to, row, types_print_duration);
		break;
	case TABLE_BOOL:
		fputs("true or false", to);
		break;
	case TABLE_MODE:
		fputs("permissions as an octal number from \"0000\" to \"0777\"", to);
		break;
	case TABLE_CHOICE:
		print_choices(to, row->choices, "\"");
		break;
	case TABLE_TARGET:
		print_choices(to, row->choices, "\"");
		fputs(", or an absolute path: the daemon changes its directory", to);
		break;
	case TABLE_TEXT:
		fputs("a string that is not empty", to);
		break;
	case TABLE_PATH:
		fputs("an absolute path (\"/...\"): the daemon changes its directory", to);
		break;
	case TABLE_DELIMITER:
		fprintf(to, "a string of 1 to %" PRIu64 " bytes", row->maximum);
		break;
	case TABLE_ADDRESSES:
		fputs("a string, or a list of strings: \"*\", \"localhost\", an IPv4 or IPv6 "
		      "address or \"unix:/path\"",
		      to);
		break;
	case TABLE_ARGUMENTS:
		fputs("a list of strings: a program's absolute path (\"/...\") and its arguments", to);
		break;
	case TABLE_SERVERS:
		fputs("a string, or a list of strings: \"nats://HOST:PORT\"", to);
		break;
	case TABLE_NAMES:
		fputs("a host's name (\"cistern.example.com\"), or a list of names", to);
		break;
	case TABLE_BROKERS:
		fputs("a broker (\"kafka.example.com:9092\"), or a list of brokers", to);
		break;
	case TABLE_TOPIC:
		fputs("a topic's name: up to 249 letters, digits, \".\", \"_\" and \"-\"", to);
		break;
	case TABLE_SINK_NAME:
		fputs("the name of a sink", to);
		break;
	case TABLE_SINK_NAMES:
		fputs("the name of a sink, or a list of names", to);
		break;
	case TABLE_BLOCKS:
	case TABLE_PROPERTIES:
	case TABLE_GROUP:
		break; /* those who read them say it */
	}
}

char *
value_expected(struct parse *parse, const struct config_row *row)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	if (to == NULL) {
		no_memory(parse);
		return NULL;
	}
	print_expected(to, row);
	if (fclose(to) == EOF || text == NULL) {
		no_memory(parse);
		free(text);
		return NULL;
	}
	return text;
}

const char *
value_found(char found[REPORT_QUOTE_LEN + 16], const config_setting_t *setting)
{
	static const char *const names[] = {
		[CONFIG_TYPE_GROUP] = "a group",
		[CONFIG_TYPE_ARRAY] = "an array",
		[CONFIG_TYPE_LIST] = "a list",
	};
	char quoted[REPORT_QUOTE_LEN];
	const char *text;

	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		snprintf(found, REPORT_QUOTE_LEN, "%lld", config_setting_get_int64(setting));
		return found;
	case CONFIG_TYPE_FLOAT:
		snprintf(found, REPORT_QUOTE_LEN, "the number %g",
			 config_setting_get_float(setting));
		return found;
	case CONFIG_TYPE_BOOL:
		return config_setting_get_bool(setting) ? "true" : "false";
	case CONFIG_TYPE_STRING:
		text = config_setting_get_string(setting);
		report_quote(quoted, text == NULL ? "" : text);
		snprintf(found, REPORT_QUOTE_LEN + 16, "the string %s", quoted);
		return found;
	case CONFIG_TYPE_GROUP:
	case CONFIG_TYPE_ARRAY:
	case CONFIG_TYPE_LIST:
		return names[config_setting_type(setting)];
	default:
		return "nothing";
	}
}

static bool
fail(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
     const char *hint)
{
	char found[REPORT_QUOTE_LEN + 16];
	unsigned line = config_setting_source_line(setting);
	int type = config_setting_type(setting);
	char *expected;

	/* What does not fit has been reported where it stands. */
	if ((type == CONFIG_TYPE_INT || type == CONFIG_TYPE_INT64) &&
	    source_is_wide(parse->source, line))
		return false;
	expected = value_expected(parse, row);
	if (expected != NULL)
		parse_error_at(parse, line, "\"%s\" is %s; expected %s%s", row->name,
			       value_found(found, setting), expected, hint);
	free(expected);
	return false;
}

static bool
in_bounds(const struct config_row *row, uint64_t value)
{
	char text[24];

	if (row->choices == NULL)
		return value >= row->minimum && value <= row->maximum;
	snprintf(text, sizeof text, "%" PRIu64, value);
	for (size_t i = 0; row->choices[i] != NULL; i++) {
		if (strcmp(row->choices[i], text) == 0)
			return true;
	}
	return false;
}

static bool
put_number(const struct config_row *row, uint64_t value, void *base)
{
	if (!in_bounds(row, value))
		return false;
	table_put(row, base, value);
	return true;
}

static bool
put_string(struct parse *parse, const struct config_row *row, const char *text, void *base)
{
	char *copy = strdup(text);

	if (copy == NULL)
		return no_memory(parse);
	*(char **)table_member(row, base) = copy;
	return true;
}

static int
choice(const struct config_row *row, const char *text)
{
	for (int i = 0; row->choices[i] != NULL; i++) {
		if (strcmp(row->choices[i], text) == 0)
			return i;
	}
	return -1;
}

static bool
is_path(const char *text)
{
	return text[0] == '/' && strlen(text) < PATH_MAX;
}

static bool
put_target(struct parse *parse, const struct config_row *row, const char *text,
	   struct config_log *log)
{
	int target = choice(row, text);

	if (target == -1 && !is_path(text))
		return false;
	log->target = target == -1 ? CONFIG_LOG_FILE : (enum config_log_target)target;
	if (target != -1)
		return true;
	log->path = strdup(text);
	return log->path != NULL || no_memory(parse);
}

static bool
put_delimiter(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	      const char *text, struct config_listener *listener)
{
	unsigned char *bytes = malloc(strlen(text) + 1);
	const char *why;
	size_t len;

	if (bytes == NULL)
		return no_memory(parse);
	why = types_delimiter(text, bytes, &len);
	if (why != NULL || len > row->maximum) {
		free(bytes);
		if (why == NULL)
			return fail(parse, row, setting, "");
		parse_error(parse, setting, "\"%s\" %s", row->name, why);
		return false;
	}
	listener->framing.delimiter = bytes;
	listener->framing.delimiter_len = len;
	return true;
}

/* Number, choice, string and the like, from text.  False: it is none of the row's
 * values, or there is no memory. */
static bool
put_text(struct parse *parse, const struct config_row *row, const char *text, void *base)
{
	uint64_t value;
	unsigned mode;
	int place;

	switch (row->type) {
	case TABLE_INTEGER:
	case TABLE_SIZE:
		return types_size(text, &value) && put_number(row, value, base);
	case TABLE_DURATION:
		return types_duration(text, &value) && put_number(row, value, base);
	case TABLE_BOOL:
		table_put(row, base, strcmp(text, "true") == 0);
		return true;
	case TABLE_MODE:
		if (!types_mode(text, &mode))
			return false;
		table_put(row, base, mode);
		return true;
	case TABLE_CHOICE:
		place = choice(row, text);
		if (place != -1)
			table_put(row, base, (uint64_t)place);
		return place != -1;
	case TABLE_TARGET:
		return put_target(parse, row, text, base);
	case TABLE_TEXT:
		return *text != '\0' && put_string(parse, row, text, base);
	case TABLE_TOPIC:
		return brokers_is_topic(text) && put_string(parse, row, text, base);
	case TABLE_PATH:
		return is_path(text) && put_string(parse, row, text, base);
	default:
		return false;
	}
}

/* A number of a file into a row that counts something. */
static bool
put_integer(const struct config_row *row, const config_setting_t *setting, void *base)
{
	long long number = config_setting_get_int64(setting);
	uint64_t value;
	char text[24];
	unsigned mode;

	if (number < 0)
		return false;
	switch (row->type) {
	case TABLE_INTEGER:
	case TABLE_SIZE:
		return put_number(row, (uint64_t)number, base);
	case TABLE_DURATION:
		return !__builtin_mul_overflow((uint64_t)number, TYPES_SECOND, &value) &&
		       put_number(row, value, base);
	case TABLE_MODE:
		/* libconfig reads 0640 as six hundred and forty: its digits are meant. */
		snprintf(text, sizeof text, "%lld", number);
		if (config_setting_get_format(setting) == CONFIG_FORMAT_HEX ||
		    !types_mode(text, &mode))
			return false;
		table_put(row, base, mode);
		return true;
	default:
		return false;
	}
}

static bool
check_sink(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	   const char *name)
{
	struct report_nearest nearest = { .name = name };
	char quoted[REPORT_QUOTE_LEN], hint[REPORT_QUOTE_LEN];

	if (parse->sinks_unknown || parse_find_sink(parse->config, name) != -1)
		return true;
	for (size_t i = 0; i < parse->config->n_sinks; i++)
		report_nearest_offer(&nearest, parse->config->sinks[i].name);
	parse_error(parse, setting,
		    "\"%s\" names %s, which is no sink%s; expected one of those in "
		    "\"sinks\", or \"console\"",
		    row->name, report_quote(quoted, name), report_nearest_hint(&nearest, hint));
	return false;
}

static bool
check_address(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	      const char *text)
{
	struct types_address addresses[2];
	char quoted[REPORT_QUOTE_LEN];
	const char *expected;
	size_t count;

	expected = types_address(text, addresses, &count);
	if (expected != NULL)
		parse_error(parse, setting, "\"%s\" is %s; expected %s", row->name,
			    report_quote(quoted, text), expected);
	return expected == NULL;
}

static bool
check_name(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	   const char *text)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-._";
	char quoted[REPORT_QUOTE_LEN];
	size_t len = strlen(text);

	if (len > 0 && len <= 253 && strspn(text, letters) == len)
		return true;
	parse_error(parse, setting,
		    "\"%s\" is %s; expected a host's name alone, as in \"cistern.example.com\"",
		    row->name, report_quote(quoted, text));
	return false;
}

static bool
check_string(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	     const char *text)
{
	switch (row->type) {
	case TABLE_SINK_NAMES:
		return check_sink(parse, row, setting, text);
	case TABLE_NAMES:
		return check_name(parse, row, setting, text);
	case TABLE_BROKERS:
		return brokers_check(parse, row, setting, text);
	case TABLE_SERVERS:
		return nats_sinks_check_server(parse, setting, text);
	default:
		return check_address(parse, row, setting, text);
	}
}

static bool
is_list(const struct config_row *row)
{
	return row->type == TABLE_ADDRESSES || row->type == TABLE_SINK_NAMES ||
	       row->type == TABLE_NAMES || row->type == TABLE_BROKERS ||
	       row->type == TABLE_SERVERS;
}

/* One more of a list; setting is its place. */
static bool
add_string(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	   const char *text, struct config_strings *strings)
{
	char quoted[REPORT_QUOTE_LEN];

	if (!check_string(parse, row, setting, text))
		return false;
	for (size_t i = 0; i < strings->count; i++) {
		if (strcmp(strings->items[i], text) == 0) {
			parse_error(parse, setting, "\"%s\" has %s twice", row->name,
				    report_quote(quoted, text));
			return false;
		}
	}
	strings->items[strings->count] = strdup(text);
	if (strings->items[strings->count] == NULL)
		return no_memory(parse);
	strings->count++;
	return true;
}

/* A string, an array or a list of strings; NULL: the default. */
static bool
put_strings(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	    struct config_strings *strings)
{
	bool many = setting != NULL &&
		    (config_setting_is_array(setting) || config_setting_is_list(setting));
	int count = many ? config_setting_length(setting) : 1, i;
	bool good = true;

	if (count == 0) {
		parse_error(parse, setting, "\"%s\" is an empty list; expected at least one string",
			    row->name);
		return false;
	}
	strings->items = calloc((size_t)count, sizeof *strings->items);
	if (strings->items == NULL)
		return no_memory(parse);
	if (setting == NULL) {
		strings->items[0] = strdup(row->fallback);
		strings->count = strings->items[0] != NULL;
		return strings->items[0] != NULL || no_memory(parse);
	}
	for (i = 0; i < count; i++) {
		const config_setting_t *one =
			many ? config_setting_get_elem(setting, (unsigned)i) : setting;
		const char *text = config_setting_get_string(one);

		if (config_setting_type(one) != CONFIG_TYPE_STRING)
			good = fail(parse, row, one, "");
		else if (!add_string(parse, row, one, text == NULL ? "" : text, strings))
			good = false;
	}
	return good;
}

static bool
put_default(struct parse *parse, const struct config_row *row, void *base)
{
	if (is_list(row) && row->fallback != NULL)
		return put_strings(parse, row, NULL, table_member(row, base));
	return row->fallback == NULL || put_text(parse, row, row->fallback, base);
}

static bool
set_string(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	   const char *text, void *base)
{
	struct report_nearest nearest = { .name = text };
	char hint[REPORT_QUOTE_LEN];

	switch (row->type) {
	case TABLE_INTEGER:
	case TABLE_BOOL:
		return fail(parse, row, setting, ", not in quotes");
	case TABLE_DELIMITER:
		return put_delimiter(parse, row, setting, text, base);
	case TABLE_SINK_NAME:
		/* Empty, it undoes what the top level says. */
		return *text == '\0' || (check_sink(parse, row, setting, text) &&
					 put_string(parse, row, text, base));
	default:
		break;
	}
	if (put_text(parse, row, text, base))
		return true;
	if (parse->report->no_memory)
		return false;
	for (size_t i = 0; row->choices != NULL && row->choices[i] != NULL; i++)
		report_nearest_offer(&nearest, row->choices[i]);
	return fail(parse, row, setting, report_nearest_hint(&nearest, hint));
}

bool
value_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	  void *base)
{
	const char *text;
	uint64_t value;

	if (row->type == TABLE_GROUP)
		return group_set(parse, row, setting, table_member(row, base));
	if (setting == NULL)
		return put_default(parse, row, base);
	if (row->type == TABLE_ARGUMENTS)
		return arguments_set(parse, row, setting, table_member(row, base));
	if (row->type == TABLE_PROPERTIES)
		return brokers_properties(parse, row, setting, table_member(row, base));
	if (row->type == TABLE_BLOCKS)
		return blocks_set(parse, row, setting, table_member(row, base));
	if (is_list(row))
		return put_strings(parse, row, setting, table_member(row, base));
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_STRING:
		text = config_setting_get_string(setting);
		return set_string(parse, row, setting, text == NULL ? "" : text, base);
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		return put_integer(row, setting, base) || fail(parse, row, setting, "");
	case CONFIG_TYPE_FLOAT:
		if (row->type == TABLE_DURATION &&
		    types_seconds(config_setting_get_float(setting), &value) &&
		    put_number(row, value, base))
			return true;
		return fail(parse, row, setting, "");
	case CONFIG_TYPE_BOOL:
		if (row->type != TABLE_BOOL)
			return fail(parse, row, setting, "");
		table_put(row, base, config_setting_get_bool(setting) != 0);
		return true;
	default:
		return fail(parse, row, setting, "");
	}
}
