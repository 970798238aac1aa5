/*
 * parse: see parse.h.
 *
 * Sinks come before listeners, whose settings name them.  A listener setting at
 * the top level is checked once, where it stands, and then stored again for
 * each listener that has none of its own.
 */
#include "config/parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/release.h"
#include "config/table.h"
#include "config/types.h"
#include "config/value.h"

/* Part of file names in a spool, beside much else. */
#define NAME_MAX_LEN 64

struct listener_rows {
	const config_setting_t *group; /* its own settings */
	bool bad[TABLE_MAX];	       /* rows whose value could not be read */
};

static bool
no_memory(struct parse *parse)
{
	parse->report->no_memory = true;
	return false;
}

void
parse_error_at(struct parse *parse, unsigned line, const char *format, ...)
{
	struct config_place place = source_place(parse->source, line);
	va_list args;
	char *text;

	va_start(args, format);
	if (vasprintf(&text, format, args) == -1)
		text = NULL;
	va_end(args);
	if (text == NULL)
		no_memory(parse);
	else
		report_add(parse->report, line, place.file, place.line, "%s", text);
	free(text);
}

static config_setting_t *
element(const config_setting_t *group, int i)
{
	return config_setting_get_elem(group, (unsigned)i);
}

static const config_setting_t *
member(const config_setting_t *group, const char *name)
{
	return group == NULL ? NULL : config_setting_get_member(group, name);
}

static bool
is_group(struct parse *parse, const config_setting_t *setting, const char *expected)
{
	char found[REPORT_QUOTE_LEN + 16], quoted[REPORT_QUOTE_LEN];

	if (config_setting_is_group(setting))
		return true;
	parse_error(parse, setting, "%s is %s; expected a group: %s",
		    report_quote(quoted, config_setting_name(setting)), value_found(found, setting),
		    expected);
	return false;
}

/* Names become parts of files' names, of metrics and of log lines. */
static bool
check_name(struct parse *parse, const config_setting_t *setting, const char *what)
{
	char quoted[REPORT_QUOTE_LEN];

	if (strlen(config_setting_name(setting)) <= NAME_MAX_LEN)
		return true;
	parse_error(parse, setting, "the %s's name %s is too long; expected at most %d characters", what,
		    report_quote(quoted, config_setting_name(setting)), NAME_MAX_LEN);
	return false;
}

/* Which types of sinks have a setting of that name; 0: none. */
static unsigned
sink_types_of(const char *name)
{
	unsigned types = 0;
	size_t count;
	const struct config_row *rows = config_table(&count);

	for (size_t i = 0; i < count; i++) {
		if (rows[i].scope == TABLE_SINK && strcmp(rows[i].name, name) == 0)
			types |= rows[i].sink_types;
	}
	return types;
}

/* Where a setting of that name belongs, for those who put it in the wrong place. */
static const char *
belongs(const char *name)
{
	if (table_find(TABLE_GLOBAL, name, 0) != NULL)
		return ", which stands at the top level of the file";
	if (table_find(TABLE_LISTENER, name, 0) != NULL)
		return ", which stands at the top level or in a listener";
	if (sink_types_of(name) != 0)
		return ", which stands in a sink";
	if (table_find(TABLE_LOG, name, 0) != NULL)
		return ", which stands in the group \"log\"";
	return "";
}

/* scopes: a bit for each that the setting could have been in. */
static void
unknown(struct parse *parse, const config_setting_t *setting, unsigned scopes, unsigned sink_types)
{
	const char *name = config_setting_name(setting);
	struct report_nearest nearest = { .name = name };
	char quoted[REPORT_QUOTE_LEN], hint[REPORT_QUOTE_LEN];
	size_t count;
	const struct config_row *rows = config_table(&count);

	for (size_t i = 0; i < count; i++) {
		if ((scopes & 1U << rows[i].scope) != 0 &&
		    (rows[i].scope != TABLE_SINK || (rows[i].sink_types & sink_types) != 0))
			report_nearest_offer(&nearest, rows[i].name);
	}
	parse_error(parse, setting, "unknown setting %s%s%s", report_quote(quoted, name),
		    report_nearest_hint(&nearest, hint),
		    nearest.best == NULL ? belongs(name) : "");
}

/* A group that is a row's and holds rows of one scope. */
static void
parse_log(struct parse *parse, const config_setting_t *root)
{
	const config_setting_t *group = member(root, "log");
	size_t count;
	const struct config_row *rows = config_table(&count);

	if (group != NULL && !is_group(parse, group, "{ target = ...; level = ...; format = ...; }"))
		return;
	for (size_t i = 0; i < count; i++) {
		if (rows[i].scope == TABLE_LOG)
			(void)value_set(parse, &rows[i], member(group, rows[i].name),
					&parse->config->log);
	}
	for (int i = 0; group != NULL && i < config_setting_length(group); i++) {
		if (table_find(TABLE_LOG, config_setting_name(element(group, i)), 0) == NULL)
			unknown(parse, element(group, i), 1U << TABLE_LOG, 0);
	}
}

static void
parse_globals(struct parse *parse, const config_setting_t *root)
{
	size_t count;
	const struct config_row *rows = config_table(&count);

	for (size_t i = 0; i < count; i++) {
		if (rows[i].scope == TABLE_GLOBAL && rows[i].type != TABLE_GROUP)
			(void)value_set(parse, &rows[i], member(root, rows[i].name), parse->config);
	}
	parse->config->spill_directory_given = member(root, "spill_directory") != NULL;
	parse_log(parse, root);
	for (int i = 0; i < config_setting_length(root); i++) {
		const config_setting_t *setting = element(root, i);
		const char *name = config_setting_name(setting);

		if (table_find(TABLE_GLOBAL, name, 0) == NULL &&
		    table_find(TABLE_LISTENER, name, 0) == NULL)
			unknown(parse, setting, 1U << TABLE_GLOBAL | 1U << TABLE_LISTENER, 0);
	}
}

/* A setting that other types of sinks have. */
static void
misplaced(struct parse *parse, const config_setting_t *setting, unsigned have, const char *type)
{
	const char *const *names = table_find(TABLE_SINK, "type", ~0U)->choices;
	char text[128] = "";
	size_t n = 0;

	for (unsigned i = 0; names[i] != NULL; i++) {
		if ((have & 1U << i) != 0)
			n += (size_t)snprintf(text + n, sizeof text - n, "%s\"%s\"",
					      n == 0 ? "" : " and ", names[i]);
	}
	parse_error(parse, setting, "\"%s\" is no setting of a sink of type \"%s\"; only %s has it",
		    config_setting_name(setting), type, text);
}

static void
need(struct parse *parse, unsigned line, const struct config_row *row, const char *name)
{
	char *expected = value_expected(parse, row);

	if (expected != NULL)
		parse_error_at(parse, line, "sink \"%s\" lacks \"%s\"; expected %s", name, row->name,
			       expected);
	free(expected);
}

/* The settings of a sink; group is NULL for the console that is there by default. */
static void
parse_sink(struct parse *parse, const config_setting_t *group, struct config_sink *sink)
{
	const struct config_row *type = table_find(TABLE_SINK, "type", ~0U);
	const config_setting_t *given = member(group, "type");
	size_t count;
	const struct config_row *rows = config_table(&count);
	unsigned types = ~0U; /* any, as long as its own is not known */

	if (group == NULL)
		types = 1U << CONFIG_SINK_CONSOLE;
	else if (given == NULL)
		need(parse, config_setting_source_line(group), type, sink->name);
	else if (value_set(parse, type, given, sink))
		types = 1U << sink->type;

	for (size_t i = 0; i < count && types != ~0U; i++) {
		const config_setting_t *setting = member(group, rows[i].name);

		if (rows[i].scope != TABLE_SINK || (rows[i].sink_types & types) == 0 || &rows[i] == type)
			continue;
		if (setting == NULL && rows[i].required)
			need(parse, config_setting_source_line(group), &rows[i], sink->name);
		else
			(void)value_set(parse, &rows[i], setting, sink);
	}
	for (int i = 0; group != NULL && i < config_setting_length(group); i++) {
		const config_setting_t *setting = element(group, i);
		unsigned have = sink_types_of(config_setting_name(setting));

		if (have == 0)
			unknown(parse, setting, 1U << TABLE_SINK, types);
		else if ((have & types) == 0)
			misplaced(parse, setting, have, type->choices[sink->type]);
	}
}

/* Two writers in one file would cut off each other's records. */
static void
check_paths(struct parse *parse, const config_setting_t *group)
{
	struct config *config = parse->config;

	for (size_t i = 0; i < config->n_sinks; i++) {
		for (size_t j = 0; j < i && config->sinks[i].path != NULL; j++) {
			if (config->sinks[i].path == NULL ||
			    strcmp(config->sinks[j].path, config->sinks[i].path) != 0)
				continue;
			parse_error(parse, member(member(group, config->sinks[i].name), "path"),
				    "sink \"%s\" appends to the file of sink \"%s\" (line %d); "
				    "expected a file of its own", config->sinks[i].name,
				    config->sinks[j].name, config->sinks[j].place.line);
			break;
		}
	}
}

static struct config_sink *
add_sink(struct parse *parse, const char *name)
{
	struct config_sink *sink = &parse->config->sinks[parse->config->n_sinks];

	sink->name = strdup(name);
	if (sink->name == NULL) {
		no_memory(parse);
		return NULL;
	}
	parse->config->n_sinks++;
	return sink;
}

static void
parse_sinks(struct parse *parse, const config_setting_t *root)
{
	const config_setting_t *group = member(root, "sinks");
	struct config *config = parse->config;
	int count, i;

	if (group != NULL && !is_group(parse, group, "{ NAME = { type = ...; }; ... }")) {
		parse->sinks_unknown = true;
		group = NULL;
	}
	count = group == NULL ? 0 : config_setting_length(group);
	config->sinks = calloc((size_t)count + 1, sizeof *config->sinks);
	if (config->sinks == NULL) {
		no_memory(parse);
		return;
	}
	for (i = 0; i < count; i++) {
		const config_setting_t *setting = element(group, i);
		struct config_sink *sink = add_sink(parse, config_setting_name(setting));

		if (sink == NULL)
			return;
		sink->place = source_place(parse->source, config_setting_source_line(setting));
		check_name(parse, setting, "sink");
		if (is_group(parse, setting, "{ type = ...; }"))
			parse_sink(parse, setting, sink);
	}
	if (member(group, "console") == NULL) {
		struct config_sink *sink = add_sink(parse, "console");

		if (sink != NULL)
			parse_sink(parse, NULL, sink);
	}
	check_paths(parse, group);
}

static bool
is_for(const struct config_row *row, enum framing_kind kind)
{
	return row->framings == 0 || (row->framings & 1U << kind) != 0;
}

/* The name of the framing that a row is for. */
static const char *
framing_of(const struct config_row *row)
{
	return framing_name((enum framing_kind)__builtin_ctz(row->framings));
}

static const config_setting_t *
own_or_group(const config_setting_t *group, const char *name)
{
	const config_setting_t *own = member(group, name);

	return own != NULL ? own : group;
}

/* The settings of a listener: its own, else those of the top level, else defaults. */
static void
parse_listener(struct parse *parse, const config_setting_t *group, const config_setting_t *top,
	       const struct listener_rows *top_rows, struct config_listener *listener,
	       struct listener_rows *mine)
{
	size_t count;
	const struct config_row *rows = config_table(&count);
	bool framing_known = true;

	mine->group = group;
	for (size_t i = 0; i < count; i++) {
		const struct config_row *row = &rows[i];
		const config_setting_t *setting = member(group, row->name);
		bool is_framing = row->offset == offsetof(struct config_listener, framing.kind);

		if (row->scope != TABLE_LISTENER)
			continue;
		if (setting != NULL && framing_known && !is_for(row, listener->framing.kind)) {
			parse_error(parse, setting, "\"%s\" is for framing = \"%s\", and the framing "
				    "here is \"%s\"", row->name, framing_of(row),
				    framing_name(listener->framing.kind));
			mine->bad[i] = true;
			continue;
		}
		if (setting == NULL && is_for(row, listener->framing.kind)) {
			setting = member(top, row->name);
			mine->bad[i] = setting != NULL && top_rows->bad[i];
		}
		if (!mine->bad[i])
			mine->bad[i] = !value_set(parse, row, setting, listener);
		if (is_framing)
			framing_known = !mine->bad[i];
		if (row->type == TABLE_DELIMITER && setting == NULL && framing_known &&
		    listener->framing.kind == FRAMING_DELIMITER)
			parse_error(parse, own_or_group(group, "framing"), "framing = \"delimiter\" "
				    "lacks \"delimiter\"; expected a string such as "
				    "delimiter = \"<EOF>\"");
	}
}

static void
check_members(struct parse *parse, const config_setting_t *group)
{
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = element(group, i);

		if (table_find(TABLE_LISTENER, config_setting_name(setting), 0) == NULL)
			unknown(parse, setting, 1U << TABLE_LISTENER, 0);
	}
}

/* Whether the rows that say where it listens were read. */
static bool
place_is_known(const struct listener_rows *rows)
{
	size_t count;
	const struct config_row *table = config_table(&count);

	return !rows->bad[table_find(TABLE_LISTENER, "address", 0) - table] &&
	       !rows->bad[table_find(TABLE_LISTENER, "port", 0) - table];
}

/* Whether two texts mean sockets that cannot both be bound. */
static bool
collide(const char *one, int port, const char *other, int other_port)
{
	struct types_address a[2], b[2];
	size_t n_a, n_b;

	if (types_address(one, a, &n_a) != NULL || types_address(other, b, &n_b) != NULL)
		return false;
	for (size_t i = 0; i < n_a; i++) {
		for (size_t j = 0; j < n_b; j++) {
			if (a[i].family != AF_UNIX && (port == 0 || port != other_port))
				continue;
			if (types_addresses_collide(&a[i], &b[j]))
				return true;
		}
	}
	return false;
}

/* The first pair of addresses of two listeners (or of one: then each pair once) of
 * which only one can be had. */
static bool
find_collision(const struct config_listener *a, const struct config_listener *b, const char **one,
	       const char **other)
{
	for (size_t i = 0; i < a->address.count; i++) {
		for (size_t j = 0; j < (a == b ? i : b->address.count); j++) {
			*one = a->address.items[i];
			*other = b->address.items[j];
			if (collide(*one, a->port, *other, b->port))
				return true;
		}
	}
	return false;
}

static void
check_collisions(struct parse *parse, const struct listener_rows *rows)
{
	const struct config_listener *listeners = parse->config->listeners;
	char quoted[REPORT_QUOTE_LEN], quoted_other[REPORT_QUOTE_LEN];
	const char *one, *other;

	for (size_t i = 0; i < parse->config->n_listeners; i++) {
		for (size_t j = 0; j <= i; j++) {
			if (!place_is_known(&rows[i]) || !place_is_known(&rows[j]) ||
			    !find_collision(&listeners[i], &listeners[j], &one, &other))
				continue;
			parse_error(parse, own_or_group(rows[i].group, member(rows[i].group, "port") ? "port" : "address"), "listener \"%s\" cannot have address %s, port %d beside "
				       "address %s of listener \"%s\" (line %d); expected another "
				       "address or port", listeners[i].name, report_quote(quoted, one),
				       listeners[i].port, report_quote(quoted_other, other),
				       listeners[j].name, listeners[j].place.line);
			break; /* one is enough for a listener */
		}
	}
}

/* What stands at the top level but is for a framing that no listener has. */
static void
check_common(struct parse *parse, const config_setting_t *root, const struct listener_rows *rows)
{
	const struct config *config = parse->config;
	size_t count, i, j;
	const struct config_row *table = config_table(&count);
	size_t framing = (size_t)(table_find(TABLE_LISTENER, "framing", 0) - table);

	for (i = 0; i < count; i++) {
		const config_setting_t *setting = member(root, table[i].name);

		if (table[i].framings == 0 || setting == NULL)
			continue;
		for (j = 0; j < config->n_listeners; j++) {
			if (rows[j].bad[framing] || is_for(&table[i], config->listeners[j].framing.kind))
				break;
		}
		if (j == config->n_listeners)
			parse_error(parse, setting, "\"%s\" is for framing = \"%s\", which no listener "
				    "has", table[i].name, framing_of(&table[i]));
	}
}

/* The common settings, each checked where it stands. */
static void
check_tops(struct parse *parse, const config_setting_t *root, struct listener_rows *tops)
{
	struct config_listener scratch = {0};
	size_t count;
	const struct config_row *rows = config_table(&count);

	for (size_t i = 0; i < count; i++) {
		const config_setting_t *setting = member(root, rows[i].name);

		if (rows[i].scope == TABLE_LISTENER && setting != NULL)
			tops->bad[i] = !value_set(parse, &rows[i], setting, &scratch);
	}
	release_listener(&scratch);
}

static struct config_listener *
add_listener(struct parse *parse, const char *name, unsigned line)
{
	struct config_listener *listener = &parse->config->listeners[parse->config->n_listeners];

	listener->name = strdup(name);
	if (listener->name == NULL) {
		no_memory(parse);
		return NULL;
	}
	listener->place = source_place(parse->source, line);
	listener->incomplete_to = -1;
	parse->config->n_listeners++;
	return listener;
}

static void
parse_named_listeners(struct parse *parse, const config_setting_t *root, const config_setting_t *group,
		      struct listener_rows *rows)
{
	struct listener_rows tops = {0};

	check_tops(parse, root, &tops);
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = element(group, i);
		struct config_listener *listener;

		check_name(parse, setting, "listener");
		if (!is_group(parse, setting, "{ port = ...; }"))
			continue;
		listener = add_listener(parse, config_setting_name(setting),
					config_setting_source_line(setting));
		if (listener == NULL)
			return;
		check_members(parse, setting);
		parse_listener(parse, setting, root, &tops, listener,
			       &rows[parse->config->n_listeners - 1]);
	}
	check_common(parse, root, rows);
}

/* Without "listeners" the top level is the one listener, main. */
static void
parse_main_listener(struct parse *parse, const config_setting_t *root, struct listener_rows *rows)
{
	unsigned line = 1;
	struct config_listener *listener;

	for (int i = config_setting_length(root); i-- > 0;) {
		if (table_find(TABLE_LISTENER, config_setting_name(element(root, i)), 0) != NULL)
			line = config_setting_source_line(element(root, i));
	}
	listener = add_listener(parse, "main", line);
	if (listener != NULL)
		parse_listener(parse, root, NULL, NULL, listener, rows);
}

static void
parse_listeners(struct parse *parse, const config_setting_t *root)
{
	const config_setting_t *group = member(root, "listeners");
	struct config *config = parse->config;
	struct listener_rows *rows;
	size_t count;

	if (group != NULL && !is_group(parse, group, "{ NAME = { ... }; ... }"))
		return;
	if (group != NULL && config_setting_length(group) == 0) {
		parse_error(parse, group, "\"listeners\" is empty; expected at least one listener: "
			    "NAME = { ... };");
		return;
	}
	count = group == NULL ? 1 : (size_t)config_setting_length(group);
	rows = calloc(count, sizeof *rows);
	config->listeners = calloc(count, sizeof *config->listeners);
	if (rows == NULL || config->listeners == NULL) {
		no_memory(parse);
	} else {
		if (group != NULL)
			parse_named_listeners(parse, root, group, rows);
		else
			parse_main_listener(parse, root, rows);
		check_collisions(parse, rows);
	}
	free(rows);
}

static int
sink_index(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_sinks; i++) {
		if (strcmp(config->sinks[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

/* What can only be done once everything is known to be good: names of sinks into
 * places, framings made ready. */
static void
resolve(struct parse *parse)
{
	struct config *config = parse->config;

	for (size_t i = 0; i < config->n_listeners; i++) {
		struct config_listener *listener = &config->listeners[i];

		listener->deliver_to = calloc(listener->deliver.count, sizeof *listener->deliver_to);
		if (listener->deliver_to == NULL || framing_prepare(&listener->framing) == -1) {
			no_memory(parse);
			return;
		}
		for (size_t j = 0; j < listener->deliver.count; j++)
			listener->deliver_to[j] = (size_t)sink_index(config, listener->deliver.items[j]);
		if (listener->incomplete != NULL)
			listener->incomplete_to = sink_index(config, listener->incomplete);
	}
}

void
parse_text(struct parse *parse)
{
	const config_setting_t *root;
	config_t tree;

	config_init(&tree);
	if (config_read_string(&tree, parse->source->text) == CONFIG_TRUE) {
		root = config_root_setting(&tree);
		parse_globals(parse, root);
		parse_sinks(parse, root);
		parse_listeners(parse, root);
		if (report_is_empty(parse->report))
			resolve(parse);
	} else {
		const char *text = config_error_text(&tree);

		parse_error_at(parse, (unsigned)config_error_line(&tree), "%s, here or just before",
			       text == NULL ? "syntax error" : text);
	}
	config_destroy(&tree);
}
