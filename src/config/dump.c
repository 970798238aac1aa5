/*
 * dump: the effective configuration, as a file.
 *
 * All that the table knows is printed, each listener and sink in full, so that
 * what is read back does not depend on defaults.  Settings that mean nothing
 * where they are (another framing's) are left out, as the parser refuses them.
 */
#include <errno.h>

#include "config/config.h"
#include "config/dump.h"
#include "config/table.h"
#include "config/types.h"

static void
print_strings(FILE *to, const struct config_strings *strings)
{
	fputs("[ ", to);
	for (size_t i = 0; i < strings->count; i++) {
		if (i > 0)
			fputs(", ", to);
		types_print_string(to, strings->items[i]);
	}
	fputs(" ]", to);
}

/* A string that may be NULL, in base. */
static const char *
string(const struct config_row *row, const void *base)
{
	return *(char *const *)(const void *)((const char *)base + row->offset);
}

static const struct config_blocks *
blocks(const struct config_row *row, const void *base)
{
	return (const void *)((const char *)base + row->offset);
}

static void print_inner(FILE *to, enum table_scope scope, const void *base);

static void
print_value(FILE *to, const struct config_row *row, const void *base)
{
	const struct config_listener *listener = base;
	const struct config_log *log = base;

	switch (row->type) {
	case TABLE_INTEGER:
		types_print_integer(to, table_get(row, base));
		break;
	case TABLE_SIZE:
		types_print_size(to, table_get(row, base));
		break;
	case TABLE_DURATION:
		types_print_duration(to, table_get(row, base));
		break;
	case TABLE_BOOL:
		fputs(table_get(row, base) != 0 ? "true" : "false", to);
		break;
	case TABLE_MODE:
		types_print_mode(to, (unsigned)table_get(row, base));
		break;
	case TABLE_CHOICE:
		types_print_string(to, row->choices[table_get(row, base)]);
		break;
	case TABLE_TARGET:
		types_print_string(to, log->target == CONFIG_LOG_FILE ? log->path
								      : row->choices[log->target]);
		break;
	case TABLE_DELIMITER:
		types_print_delimiter(to, listener->framing.delimiter,
				      listener->framing.delimiter_len);
		break;
	case TABLE_ADDRESSES:
	case TABLE_ARGUMENTS:
	case TABLE_SINK_NAMES:
	case TABLE_NAMES:
	case TABLE_BROKERS:
	case TABLE_PROPERTIES:
	case TABLE_SERVERS:
		print_strings(to, (const void *)((const char *)base + row->offset));
		break;
	case TABLE_BLOCKS:
		print_strings(to, &blocks(row, base)->text);
		break;
	case TABLE_TEXT:
	case TABLE_TOPIC:
	case TABLE_PATH:
	case TABLE_SINK_NAME:
		types_print_string(to, string(row, base));
		break;
	case TABLE_GROUP:
		print_inner(to, row->inner, (const char *)base + row->offset);
		break;
	}
}

static bool
is_zero(const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

/* Whether there is nothing to print; of a group, whether it was left out: then nothing
 * in it has a value, else at least one of its settings has a default. */
static bool
is_absent(const struct config_row *row, const void *base)
{
	if (row->type == TABLE_GROUP)
		return row->optional && is_zero((const char *)base + row->offset, row->width);
	if (row->type == TABLE_NAMES || row->type == TABLE_PROPERTIES)
		return ((const struct config_strings *)(const void *)((const char *)base +
								      row->offset))->count == 0;
	if (row->type == TABLE_BLOCKS)
		return blocks(row, base)->acl == NULL;
	return (row->type == TABLE_TEXT || row->type == TABLE_PATH || row->type == TABLE_SINK_NAME) &&
	       string(row, base) == NULL;
}

void
dump_value(FILE *to, const struct config_row *row, const void *base)
{
	if (!is_absent(row, base))
		print_value(to, row, base);
}

/* The rows of a group, on one line. */
static void
print_inner(FILE *to, enum table_scope scope, const void *base)
{
	size_t count;
	const struct config_row *rows = config_table(&count);

	fputs("{ ", to);
	for (size_t i = 0; i < count; i++) {
		if (rows[i].scope != scope || is_absent(&rows[i], base))
			continue;
		fprintf(to, "%s = ", rows[i].name);
		print_value(to, &rows[i], base);
		fputs("; ", to);
	}
	fputs("}", to);
}

static void
print_row(FILE *to, const char *indent, const struct config_row *row, const void *base)
{
	if (is_absent(row, base))
		return;
	fprintf(to, "%s%s = ", indent, row->name);
	print_value(to, row, base);
	fputs(";\n", to);
}

/* All rows of a scope; of sinks those of the types in the bits. */
static void
print_scope(FILE *to, const char *indent, enum table_scope scope, unsigned sink_types,
	    const void *base)
{
	const struct config_listener *listener = base;
	size_t count;
	const struct config_row *rows = config_table(&count);

	for (size_t i = 0; i < count; i++) {
		const struct config_row *row = &rows[i];

		if (row->scope != scope)
			continue;
		if (scope == TABLE_SINK && (row->sink_types & sink_types) == 0)
			continue;
		if (scope == TABLE_LISTENER && row->framings != 0 &&
		    (row->framings & 1U << listener->framing.kind) == 0)
			continue;
		print_row(to, indent, row, base);
	}
}

/* A spill_directory that is there by default gives way to a spool's own, one that
 * is given does not: so the default is only remarked on. */
static void
print_globals(FILE *to, const struct config *config)
{
	size_t count;
	const struct config_row *rows = config_table(&count);

	for (size_t i = 0; i < count; i++) {
		const struct config_row *row = &rows[i];

		if (row->scope != TABLE_GLOBAL || row->type == TABLE_GROUP)
			continue;
		if (row->offset == offsetof(struct config, spill_directory) &&
		    !config->spill_directory_given)
			print_row(to, "# by default: ", row, config);
		else
			print_row(to, "", row, config);
	}
}

void
dump_listener(FILE *to, const char *indent, const struct config_listener *listener)
{
	print_scope(to, indent, TABLE_LISTENER, 0, listener);
}

void
dump_sink(FILE *to, const char *indent, const struct config_sink *sink)
{
	print_scope(to, indent, TABLE_SINK, 1U << sink->type, sink);
}

int
config_dump(const struct config *config, FILE *to)
{
	errno = 0;
	print_globals(to, config);
	fputs("log = {\n", to);
	print_scope(to, "\t", TABLE_LOG, 0, &config->log);
	fputs("};\n", to);
	print_row(to, "", table_find(TABLE_GLOBAL, "status", 0), config);
	fputs("listeners = {\n", to);
	for (size_t i = 0; i < config->n_listeners; i++) {
		fprintf(to, "\t%s = {\n", config->listeners[i].name);
		dump_listener(to, "\t\t", &config->listeners[i]);
		fputs("\t};\n", to);
	}
	fputs("};\nsinks = {\n", to);
	for (size_t i = 0; i < config->n_sinks; i++) {
		fprintf(to, "\t%s = {\n", config->sinks[i].name);
		dump_sink(to, "\t\t", &config->sinks[i]);
		fputs("\t};\n", to);
	}
	fputs("};\n", to);
	return fflush(to) == EOF || ferror(to) ? -1 : 0;
}
