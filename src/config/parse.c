/*
 * parse: see parse.h.
 *
 * Sinks come before listeners, whose settings name them.
 */
#include "config/parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/privileges.h"
#include "config/brokers.h"
#include "config/listeners.h"
#include "config/nats_sinks.h"
#include "config/table.h"
#include "config/types.h"
#include "config/value.h"

/* Part of file names in a spool, beside much else. */
#define NAME_MAX_LEN 64

/* The most that libconfig takes for a setting, without its name, and for its scanner. */
#define TREE_SETTING 512
#define TREE_SCANNER ((size_t)256 * 1024)

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

config_setting_t *
parse_element(const config_setting_t *group, int i)
{
	return config_setting_get_elem(group, (unsigned)i);
}

const config_setting_t *
parse_member(const config_setting_t *group, const char *name)
{
	return group == NULL ? NULL : config_setting_get_member(group, name);
}

int
parse_find_sink(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_sinks; i++) {
		if (strcmp(config->sinks[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

bool
parse_is_group(struct parse *parse, const config_setting_t *setting, const char *expected)
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
bool
parse_check_name(struct parse *parse, const config_setting_t *setting, const char *what)
{
	char quoted[REPORT_QUOTE_LEN];

	if (strlen(config_setting_name(setting)) <= NAME_MAX_LEN)
		return true;
	parse_error(parse, setting, "the %s's name %s is too long; expected at most %d characters",
		    what, report_quote(quoted, config_setting_name(setting)), NAME_MAX_LEN);
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
	if (table_find(TABLE_RATE_LIMIT, name, 0) != NULL)
		return ", which stands in the group \"rate_limit\"";
	if (table_find(TABLE_STATUS, name, 0) != NULL)
		return ", which stands in the group \"status\"";
	if (table_find(TABLE_CREATE, name, 0) != NULL)
		return ", which stands in the group \"create\" of a sink";
	if (table_find(TABLE_TLS, name, 0) != NULL)
		return ", which stands in a group \"tls\"";
	return "";
}

void
parse_unknown(struct parse *parse, const config_setting_t *setting, unsigned scopes,
	      unsigned sink_types)
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
		    report_nearest_hint(&nearest, hint), nearest.best == NULL ? belongs(name) : "");
}

static void
parse_log(struct parse *parse, const config_setting_t *root)
{
	const config_setting_t *group = parse_member(root, "log");
	size_t count;
	const struct config_row *rows = config_table(&count);

	if (group != NULL &&
	    !parse_is_group(parse, group, "{ target = ...; level = ...; format = ...; }"))
		return;
	for (size_t i = 0; i < count; i++) {
		if (rows[i].scope == TABLE_LOG)
			(void)value_set(parse, &rows[i], parse_member(group, rows[i].name),
					&parse->config->log);
	}
	for (int i = 0; group != NULL && i < config_setting_length(group); i++) {
		if (table_find(TABLE_LOG, config_setting_name(parse_element(group, i)), 0) == NULL)
			parse_unknown(parse, parse_element(group, i), 1U << TABLE_LOG, 0);
	}
}

/* A user that nobody knows would only be found out by the next start. */
static void
check_user(struct parse *parse, const config_setting_t *root)
{
	const struct config *config = parse->config;
	const config_setting_t *user = parse_member(root, "user"), *group = parse_member(root, "group");
	struct privileges privileges;
	const char *why;

	/* What is there and could not be read has been told. */
	if ((user != NULL && config->user == NULL) || (group != NULL && config->group == NULL) ||
	    privileges_find(config->user, config->group, &privileges, &why) == 0)
		return;
	parse_error(parse, user != NULL ? user : group, "user %s%s%s: %s",
		    config->user != NULL ? config->user : "none",
		    config->group != NULL ? ", group " : "",
		    config->group != NULL ? config->group : "", why);
}

static void
parse_globals(struct parse *parse, const config_setting_t *root)
{
	size_t count;
	const struct config_row *rows = config_table(&count);

	for (size_t i = 0; i < count; i++) {
		if (rows[i].scope == TABLE_GLOBAL && rows[i].type != TABLE_GROUP)
			(void)value_set(parse, &rows[i], parse_member(root, rows[i].name),
					parse->config);
	}
	parse->config->spill_directory_given = parse_member(root, "spill_directory") != NULL;
	check_user(parse, root);
	parse_log(parse, root);
	(void)value_set(parse, table_find(TABLE_GLOBAL, "status", 0), parse_member(root, "status"),
			parse->config);
	for (int i = 0; i < config_setting_length(root); i++) {
		const config_setting_t *setting = parse_element(root, i);
		const char *name = config_setting_name(setting);

		if (table_find(TABLE_GLOBAL, name, 0) == NULL &&
		    table_find(TABLE_LISTENER, name, 0) == NULL)
			parse_unknown(parse, setting, 1U << TABLE_GLOBAL | 1U << TABLE_LISTENER, 0);
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
		parse_error_at(parse, line, "sink \"%s\" lacks \"%s\"; expected %s", name,
			       row->name, expected);
	free(expected);
}

/* The settings of a sink; group is NULL for the console that is there by default. */
static void
parse_sink(struct parse *parse, const config_setting_t *group, struct config_sink *sink)
{
	const struct config_row *type = table_find(TABLE_SINK, "type", ~0U);
	const config_setting_t *given = parse_member(group, "type");
	size_t count;
	const struct config_row *rows = config_table(&count);
	unsigned types = ~0U; /* any, as long as its own is not known */

	if (group == NULL)
		types = 1U << CONFIG_SINK_CONSOLE;
	else if (given == NULL)
		need(parse, config_setting_source_line(group), type, sink->name);
	else if (value_set(parse, type, given, sink) && brokers_can_be_had(parse, given, sink))
		types = 1U << sink->type;

	for (size_t i = 0; i < count && types != ~0U; i++) {
		const config_setting_t *setting = parse_member(group, rows[i].name);

		if (rows[i].scope != TABLE_SINK || (rows[i].sink_types & types) == 0 ||
		    &rows[i] == type)
			continue;
		if (setting == NULL && rows[i].required)
			need(parse, config_setting_source_line(group), &rows[i], sink->name);
		else
			(void)value_set(parse, &rows[i], setting, sink);
	}
	for (int i = 0; group != NULL && i < config_setting_length(group); i++) {
		const config_setting_t *setting = parse_element(group, i);
		unsigned have = sink_types_of(config_setting_name(setting));

		if (have == 0)
			parse_unknown(parse, setting, 1U << TABLE_SINK, types);
		else if ((have & types) == 0)
			misplaced(parse, setting, have, type->choices[sink->type]);
	}
}

/* Two writers in one file would cut off each other's records. */
static void
check_paths(struct parse *parse, const config_setting_t *group)
{
	const struct config_sink *sinks = parse->config->sinks, *a, *b;

	for (size_t i = 0; i < parse->config->n_sinks; i++) {
		for (size_t j = 0; j < i; j++) {
			a = &sinks[i];
			b = &sinks[j];
			if (a->path == NULL || b->path == NULL || strcmp(a->path, b->path) != 0)
				continue;
			parse_error(parse, parse_member(parse_member(group, a->name), "path"),
				    "sink \"%s\" appends to the file of sink \"%s\" (%s:%d); "
				    "expected a file of its own",
				    a->name, b->name, b->place.file, b->place.line);
			break;
		}
	}
}

/* By name, as either may have to be made yet, and by what is there, as there are links. */
static bool
same_place(const char *one, const char *other)
{
	struct stat st, st_other;

	if (stat(one, &st) == 0 && stat(other, &st_other) == 0)
		return st.st_dev == st_other.st_dev && st.st_ino == st_other.st_ino;
	return types_same_path(one, other);
}

/* What is no file, as a pipe or /dev/null, may well be shared. */
static bool
same_file(const char *one, const char *other)
{
	struct stat st;

	return one != NULL && other != NULL && same_place(one, other) &&
	       (stat(one, &st) == -1 || S_ISREG(st.st_mode));
}

/* A pid file is emptied, and removed at the end; lines of a log would be in the midst of
 * messages. */
static void
check_own_files(struct parse *parse, const config_setting_t *root)
{
	const struct config *config = parse->config;
	const config_setting_t *log = parse_member(parse_member(root, "log"), "target");
	const struct {
		const char *path;
		const config_setting_t *setting;
		const char *name;
	} own[] = {
		{ config->pid_file, parse_member(root, "pid_file"), "pid_file" },
		{ config->log.path, log, "target" },
	};
	struct config_place place;

	if (same_file(own[0].path, own[1].path)) {
		place = source_place(parse->source, config_setting_source_line(log));
		parse_error(parse, own[0].setting, "\"pid_file\" is the file that the log goes to "
			    "(%s:%d); expected a file of its own", place.file, place.line);
	}
	for (size_t i = 0; i < config->n_sinks; i++) {
		const struct config_sink *sink = &config->sinks[i];

		for (size_t j = 0; j < sizeof own / sizeof own[0]; j++)
			if (same_file(own[j].path, sink->path))
				parse_error(parse, own[j].setting, "\"%s\" is the file of sink "
					    "\"%s\" (%s:%d); expected a file of its own",
					    own[j].name, sink->name, sink->place.file,
					    sink->place.line);
	}
}

/* One that hands on from a directory would take what is another's. */
static void
check_directory(struct parse *parse, const config_setting_t *group, const struct config_sink *sink)
{
	const struct config_sink *other;

	for (size_t i = 0; i < parse->config->n_sinks; i++) {
		other = &parse->config->sinks[i];
		if (other == sink || other->directory == NULL || sink->directory == NULL ||
		    !same_place(other->directory, sink->directory))
			continue;
		parse_error(parse, parse_member(group, "forward"),
			    "sink \"%s\" hands on what is in the directory of sink \"%s\" (%s:%d); "
			    "expected a directory of its own",
			    sink->name, other->name, other->place.file, other->place.line);
		return;
	}
}

static void
check_forward(struct parse *parse, const config_setting_t *group, const struct config_sink *sink)
{
	int to;

	if (sink->type == CONFIG_SINK_SPOOL && sink->retry_max < sink->retry_min)
		parse_error(parse, parse_member(group, "retry_max") != NULL
					   ? parse_member(group, "retry_max")
					   : parse_member(group, "retry_min"),
			    "sink \"%s\": \"retry_max\" is less than \"retry_min\"", sink->name);
	if (sink->forward == NULL)
		return;
	to = parse_find_sink(parse->config, sink->forward);
	if (to != -1 && parse->config->sinks[to].type == CONFIG_SINK_SPOOL)
		parse_error(parse, parse_member(group, "forward"),
			    "\"forward\" names \"%s\", which is a spool%s; expected a sink of another type",
			    sink->forward, &parse->config->sinks[to] == sink ? " (this one)" : "");
	check_directory(parse, group, sink);
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
	const config_setting_t *group = parse_member(root, "sinks");
	struct config *config = parse->config;
	struct config_sink *console;
	int count, i;

	if (group != NULL && !parse_is_group(parse, group, "{ NAME = { type = ...; }; ... }")) {
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
		const config_setting_t *setting = parse_element(group, i);
		struct config_sink *sink = add_sink(parse, config_setting_name(setting));

		if (sink == NULL)
			return;
		sink->place = source_place(parse->source, config_setting_source_line(setting));
		parse_check_name(parse, setting, "sink");
	}
	console = parse_member(group, "console") == NULL ? add_sink(parse, "console") : NULL;
	/* All names are known by now: sinks may name each other. */
	for (i = 0; i < count; i++)
		if (parse_is_group(parse, parse_element(group, i), "{ type = ...; }"))
			parse_sink(parse, parse_element(group, i), &config->sinks[i]);
	if (console != NULL)
		parse_sink(parse, NULL, console);
	check_paths(parse, group);
	check_own_files(parse, root);
	nats_sinks_check(parse, group);
	for (i = 0; i < count; i++)
		check_forward(parse, parse_element(group, i), &config->sinks[i]);
}

/* What can only be done once everything is known to be good: names of sinks into
 * places, framings made ready. */
static void
resolve(struct parse *parse)
{
	struct config *config = parse->config;

	for (size_t i = 0; i < config->n_sinks; i++) {
		struct config_sink *sink = &config->sinks[i];

		if (sink->forward != NULL)
			sink->forward_to = &config->sinks[parse_find_sink(config, sink->forward)];
	}
	for (size_t i = 0; i < config->n_listeners; i++) {
		struct config_listener *listener = &config->listeners[i];

		listener->deliver_to =
			calloc(listener->deliver.count, sizeof *listener->deliver_to);
		if (listener->deliver_to == NULL || framing_prepare(&listener->framing) == -1) {
			no_memory(parse);
			return;
		}
		for (size_t j = 0; j < listener->deliver.count; j++)
			listener->deliver_to[j] =
				(size_t)parse_find_sink(config, listener->deliver.items[j]);
		if (listener->incomplete != NULL)
			listener->incomplete_to = parse_find_sink(config, listener->incomplete);
	}
}

/* libconfig 1.5 looks at none of its allocations, so it is asked only when there is memory for
 * all that the text can make it allocate: each setting has at least one of these characters
 * before it. */
static bool
tree_has_memory(const char *text)
{
	size_t size = TREE_SCANNER + 4 * strlen(text);

	for (; *text != '\0'; text++)
		if (strchr("=:,([{", *text) != NULL)
			size += TREE_SETTING;
	return memory_is_there(size);
}

void
parse_text(struct parse *parse)
{
	const config_setting_t *root;
	config_t tree;

	if (!tree_has_memory(parse->source->text)) {
		no_memory(parse);
		return;
	}
	config_init(&tree);
	if (config_read_string(&tree, parse->source->text) == CONFIG_TRUE) {
		root = config_root_setting(&tree);
		parse_globals(parse, root);
		parse_sinks(parse, root);
		listeners_parse(parse, root);
		if (report_is_empty(parse->report))
			resolve(parse);
	} else {
		const char *text = config_error_text(&tree);

		parse_error_at(parse, (unsigned)config_error_line(&tree), "%s, here or just before",
			       text == NULL ? "syntax error" : text);
	}
	config_destroy(&tree);
}
