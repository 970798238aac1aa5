/*
 * table: one row a setting.
 *
 * From the rows come the parser, its checks and messages, the defaults and
 * config_dump; a test holds cistern.conf(5) against them.  A new setting is a
 * member of a struct in config.h, a row here and an item in the man page.
 */
#ifndef CONFIG_TABLE_H
#define CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* More rows than there will ever be. */
#define TABLE_MAX 128

enum table_scope {
	TABLE_GLOBAL,
	TABLE_LOG,      /* inside log = { ... } */
	TABLE_LISTENER, /* inside a listener, or at the top level as a default */
	TABLE_SINK,
	TABLE_RATE_LIMIT, /* inside rate_limit = { ... } of a listener */
	TABLE_TLS,        /* inside tls = { ... } of a listener */
	TABLE_STATUS,     /* inside status = { ... } */
	TABLE_CREATE,     /* inside create = { ... } of a sink */
	TABLE_CLIENT_TLS, /* inside tls = { ... } of a sink */
};

enum table_type {
	TABLE_INTEGER,
	TABLE_SIZE,
	TABLE_DURATION,
	TABLE_BOOL,
	TABLE_MODE,
	TABLE_CHOICE,
	TABLE_TEXT, /* any but the empty one */
	TABLE_PATH,
	TABLE_TARGET,    /* of the log: a choice or a path */
	TABLE_DELIMITER,
	TABLE_ADDRESSES, /* one or a list */
	TABLE_BLOCKS,    /* of addresses: one or a list */
	TABLE_ARGUMENTS, /* of a program: a list, the program's path first */
	TABLE_NAMES,     /* of hosts: one or a list */
	TABLE_BROKERS,   /* "HOST[:PORT]": one or a list */
	TABLE_TOPIC,	 /* of Kafka */
	TABLE_PROPERTIES, /* a list of "NAME=VALUE" */
	TABLE_SERVERS,   /* of NATS: one or a list */
	TABLE_SINK_NAME,
	TABLE_SINK_NAMES, /* one or a list */
	TABLE_GROUP,      /* has rows of its own, or names that the operator gives */
};

struct config_row {
	const char *name;
	enum table_scope scope;
	enum table_type type;
	size_t offset; /* of its member in the struct of its scope ... */
	size_t width;  /* ... and its size */
	uint64_t minimum;
	uint64_t maximum;
	enum table_scope inner; /* of a group: its own rows' */
	bool optional;          /* a group that may be left out, and that false undoes */
	const char *fallback; /* the default, as text; NULL: none */
	const char *const *choices; /* their values are their places; ends with NULL.  Of an
				     * integer: the numbers that it may be */
	unsigned sink_types; /* a bit for each type of sink that has it */
	unsigned framings;   /* a bit for each framing that it is for; 0: all */
	bool required;
	bool at_start; /* read then, and not by a reload */
	const char *help; /* one line */
};

const struct config_row *config_table(size_t *count);

/* The row of a scope by its name; sink_types narrows sinks (~0U: any).  NULL: none. */
const struct config_row *table_find(enum table_scope scope, const char *name, unsigned sink_types);

/* Members that hold a number, whatever their size. */
void table_put(const struct config_row *row, void *base, uint64_t value);
uint64_t table_get(const struct config_row *row, const void *base);

/* Any other member. */
static inline void *
table_member(const struct config_row *row, void *base)
{
	return (char *)base + row->offset;
}

#endif
