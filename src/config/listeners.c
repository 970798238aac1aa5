/*
 * listeners: the group "listeners", or the top level in its place.
 *
 * A listener setting at the top level is checked once, where it stands, and then
 * stored again for each listener that has none of its own.
 */
#include "config/listeners.h"

#include <stdlib.h>
#include <string.h>

#include "config/group.h"
#include "config/release.h"
#include "config/table.h"
#include "config/types.h"
#include "config/value.h"

struct listener_rows {
	const config_setting_t *group; /* its own settings */
	bool bad[TABLE_MAX];           /* rows whose value could not be read */
};

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
	const config_setting_t *own = parse_member(group, name);

	return own != NULL ? own : group;
}

static bool
is_local(const struct config_listener *listener)
{
	for (size_t i = 0; i < listener->address.count; i++) {
		if (strncmp(listener->address.items[i], "unix:", 5) != 0)
			return false;
	}
	return true;
}

/* Who may name a client decides who is let in: that is said, not assumed. */
static void
check_proxy(struct parse *parse, const config_setting_t *group,
	    struct config_listener *listener)
{
	const config_setting_t *own = parse_member(group, "proxy_from");

	if (listener->proxy_protocol && listener->proxy_from.acl == NULL && !is_local(listener)) {
		parse_error(parse, own_or_group(group, own != NULL ? "proxy_from" : "proxy_protocol"),
			    "\"proxy_protocol\" lacks \"proxy_from\"; expected the addresses of the "
			    "proxies, such as [ \"192.0.2.1\" ]; whoever connects from elsewhere is "
			    "refused");
	} else if (!listener->proxy_protocol && own != NULL) {
		parse_error(parse, own,
			    "\"proxy_from\" means nothing where \"proxy_protocol\" is false");
	} else if (!listener->proxy_protocol) {
		/* What the top level says is for others. */
		release_blocks(&listener->proxy_from);
		listener->proxy_from = (struct config_blocks){ 0 };
	}
}

static bool
rows_are_good(const struct listener_rows *rows, const char *one, const char *other)
{
	size_t count;
	const struct config_row *table = config_table(&count);

	return !rows->bad[table_find(TABLE_LISTENER, one, 0) - table] &&
	       !rows->bad[table_find(TABLE_LISTENER, other, 0) - table];
}

/* The settings of a listener: its own, else those of the top level, else defaults. */
static void
read_listener(struct parse *parse, const config_setting_t *group, const config_setting_t *top,
	      const struct listener_rows *top_rows, struct config_listener *listener,
	      struct listener_rows *mine)
{
	size_t count;
	const struct config_row *rows = config_table(&count);
	bool framing_known = true;

	mine->group = group;
	for (size_t i = 0; i < count; i++) {
		const struct config_row *row = &rows[i];
		const config_setting_t *setting = parse_member(group, row->name);
		bool is_framing = row->offset == offsetof(struct config_listener, framing.kind);

		if (row->scope != TABLE_LISTENER)
			continue;
		if (setting != NULL && framing_known && !is_for(row, listener->framing.kind)) {
			parse_error(parse, setting,
				    "\"%s\" is for framing = \"%s\", and the framing "
				    "here is \"%s\"",
				    row->name, framing_of(row),
				    framing_name(listener->framing.kind));
			mine->bad[i] = true;
			continue;
		}
		if (setting == NULL && is_for(row, listener->framing.kind)) {
			setting = parse_member(top, row->name);
			mine->bad[i] = setting != NULL && top_rows->bad[i];
		}
		if (!mine->bad[i])
			mine->bad[i] = !value_set(parse, row, setting, listener);
		if (is_framing)
			framing_known = !mine->bad[i];
		if (row->type == TABLE_DELIMITER && setting == NULL && framing_known &&
		    listener->framing.kind == FRAMING_DELIMITER)
			parse_error(parse, own_or_group(group, "framing"),
				    "framing = \"delimiter\" "
				    "lacks \"delimiter\"; expected a string such as "
				    "delimiter = \"<EOF>\"");
	}
	if (rows_are_good(mine, "proxy_protocol", "proxy_from") &&
	    rows_are_good(mine, "address", "address"))
		check_proxy(parse, group, listener);
}

static void
check_members(struct parse *parse, const config_setting_t *group)
{
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = parse_element(group, i);

		if (table_find(TABLE_LISTENER, config_setting_name(setting), 0) == NULL)
			parse_unknown(parse, setting, 1U << TABLE_LISTENER, 0);
	}
}

/* Whether the rows that say where it listens were read. */
static bool
place_is_known(const struct listener_rows *rows)
{
	return rows_are_good(rows, "address", "port");
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
report_collision(struct parse *parse, const config_setting_t *group,
		 const struct config_listener *a, const char *one, const struct config_listener *b,
		 const char *other)
{
	char quoted[REPORT_QUOTE_LEN], quoted_other[REPORT_QUOTE_LEN];
	bool has_port = parse_member(group, "port") != NULL;

	parse_error(parse, own_or_group(group, has_port ? "port" : "address"),
		    "listener \"%s\" cannot have address %s, port %d beside address %s of listener "
		    "\"%s\" (%s:%d); expected another address or port",
		    a->name, report_quote(quoted, one), a->port, report_quote(quoted_other, other),
		    b->name, b->place.file, b->place.line);
}

static void
check_collisions(struct parse *parse, const struct listener_rows *rows)
{
	const struct config_listener *listeners = parse->config->listeners;
	const char *one, *other;

	for (size_t i = 0; i < parse->config->n_listeners; i++) {
		for (size_t j = 0; j <= i; j++) {
			if (!place_is_known(&rows[i]) || !place_is_known(&rows[j]) ||
			    !find_collision(&listeners[i], &listeners[j], &one, &other))
				continue;
			report_collision(parse, rows[i].group, &listeners[i], one, &listeners[j],
					 other);
			break; /* one is enough for a listener */
		}
	}
}

/* Nor can the status service have what a listener has. */
static void
check_status(struct parse *parse, const config_setting_t *root, const struct listener_rows *rows)
{
	const struct config_status *status = &parse->config->status;
	const config_setting_t *group = parse_member(root, "status");
	char quoted[REPORT_QUOTE_LEN], quoted_other[REPORT_QUOTE_LEN];

	for (size_t i = 0; status->address != NULL && i < parse->config->n_listeners; i++) {
		const struct config_listener *listener = &parse->config->listeners[i];

		for (size_t j = 0; place_is_known(&rows[i]) && j < listener->address.count; j++) {
			if (!collide(status->address, status->port, listener->address.items[j],
				     listener->port))
				continue;
			parse_error(parse, own_or_group(group, parse_member(group, "port") != NULL ?
								       "port" : "address"),
				    "the status service cannot have address %s, port %d beside "
				    "address %s of listener \"%s\" (%s:%d); expected another "
				    "address or port",
				    report_quote(quoted, status->address), status->port,
				    report_quote(quoted_other, listener->address.items[j]),
				    listener->name, listener->place.file, listener->place.line);
			return;
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
		const config_setting_t *setting = parse_member(root, table[i].name);

		if (table[i].framings == 0 || setting == NULL)
			continue;
		for (j = 0; j < config->n_listeners; j++) {
			if (rows[j].bad[framing] ||
			    is_for(&table[i], config->listeners[j].framing.kind))
				break;
		}
		if (j == config->n_listeners)
			parse_error(parse, setting,
				    "\"%s\" is for framing = \"%s\", which no listener "
				    "has",
				    table[i].name, framing_of(&table[i]));
	}
}

/* The common settings, each checked where it stands. */
static void
check_tops(struct parse *parse, const config_setting_t *root, struct listener_rows *tops)
{
	struct config_listener scratch = { 0 };
	size_t count;
	const struct config_row *rows = config_table(&count);

	for (size_t i = 0; i < count; i++) {
		const config_setting_t *setting = parse_member(root, rows[i].name);

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
		parse->report->no_memory = true;
		return NULL;
	}
	listener->place = source_place(parse->source, line);
	listener->incomplete_to = -1;
	parse->config->n_listeners++;
	return listener;
}

static void
read_named_listeners(struct parse *parse, const config_setting_t *root,
		     const config_setting_t *group, struct listener_rows *rows)
{
	struct listener_rows tops = { 0 };

	check_tops(parse, root, &tops);
	for (int i = 0; i < config_setting_length(group); i++) {
		const config_setting_t *setting = parse_element(group, i);
		struct config_listener *listener;

		parse_check_name(parse, setting, "listener");
		if (!parse_is_group(parse, setting, "{ port = ...; }"))
			continue;
		listener = add_listener(parse, config_setting_name(setting),
					config_setting_source_line(setting));
		if (listener == NULL)
			return;
		check_members(parse, setting);
		read_listener(parse, setting, root, &tops, listener,
			      &rows[parse->config->n_listeners - 1]);
	}
	check_common(parse, root, rows);
}

/* Without "listeners" the top level is the one listener, main. */
static void
read_main_listener(struct parse *parse, const config_setting_t *root, struct listener_rows *rows)
{
	unsigned line = 1;
	struct config_listener *listener;

	for (int i = config_setting_length(root); i-- > 0;) {
		if (table_find(TABLE_LISTENER, config_setting_name(parse_element(root, i)), 0) !=
		    NULL)
			line = config_setting_source_line(parse_element(root, i));
	}
	listener = add_listener(parse, "main", line);
	if (listener != NULL)
		read_listener(parse, root, NULL, NULL, listener, rows);
}

void
listeners_parse(struct parse *parse, const config_setting_t *root)
{
	const config_setting_t *group = parse_member(root, "listeners");
	struct config *config = parse->config;
	struct listener_rows *rows;
	size_t count;

	if (group != NULL && !parse_is_group(parse, group, "{ NAME = { ... }; ... }"))
		return;
	if (group != NULL && config_setting_length(group) == 0) {
		parse_error(parse, group,
			    "\"listeners\" is empty; expected at least one listener: "
			    "NAME = { ... };");
		return;
	}
	count = group == NULL ? 1 : (size_t)config_setting_length(group);
	rows = calloc(count, sizeof *rows);
	config->listeners = calloc(count, sizeof *config->listeners);
	if (rows == NULL || config->listeners == NULL) {
		parse->report->no_memory = true;
	} else {
		if (group != NULL)
			read_named_listeners(parse, root, group, rows);
		else
			read_main_listener(parse, root, rows);
		check_collisions(parse, rows);
		check_status(parse, root, rows);
	}
	free(rows);
}
