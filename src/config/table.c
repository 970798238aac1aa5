/*
 * table: see table.h.
 */
#include "config/table.h"

#include <string.h>

#include "base/log.h"
#include "config/config.h"
#include "config/types.h"
#include "message/format.h"

#ifndef CISTERN_STATE_DIR
#define CISTERN_STATE_DIR "/var/lib/cistern"
#endif

#define MEMBER(type, member) .offset = offsetof(struct type, member), \
			     .width = sizeof(((struct type *)NULL)->member)
#define GLOBAL(member) .scope = TABLE_GLOBAL, MEMBER(config, member)
#define LOG(member) .scope = TABLE_LOG, MEMBER(config_log, member)
#define LISTENER(member) .scope = TABLE_LISTENER, MEMBER(config_listener, member)
#define RATE_LIMIT(member) .scope = TABLE_RATE_LIMIT, MEMBER(config_rate_limit, member)
#define TLS(member) .scope = TABLE_TLS, MEMBER(config_tls, member)
#define STATUS(member) .scope = TABLE_STATUS, MEMBER(config_status, member)
#define CREATE(member) .scope = TABLE_CREATE, MEMBER(config_create, member)
#define CLIENT_TLS(member) .scope = TABLE_CLIENT_TLS, MEMBER(config_client_tls, member)
#define SINK(member) .scope = TABLE_SINK, MEMBER(config_sink, member)

#define CONSOLE (1U << CONFIG_SINK_CONSOLE)
#define FILES (1U << CONFIG_SINK_FILE)
#define SPOOL (1U << CONFIG_SINK_SPOOL)
#define COMMAND (1U << CONFIG_SINK_COMMAND)
#define KAFKA (1U << CONFIG_SINK_KAFKA)
#define NATS (1U << CONFIG_SINK_NATS)

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define YEAR (365 * 86400 * TYPES_SECOND)

static const char *const framings[] = {
	[FRAMING_EOF] = "eof",
	[FRAMING_LINE] = "line",
	[FRAMING_DELIMITER] = "delimiter",
	[FRAMING_LENGTH] = "length",
	[FRAMING_NETSTRING] = "netstring",
	[FRAMING_OCTET_COUNTED] = "octet-counted",
	[FRAMING_MLLP] = "mllp",
	NULL,
};
static const char *const formats[] = {
	[FORMAT_TEXT] = "text",
	[FORMAT_JSON] = "json",
	[FORMAT_RAW] = "raw",
	[FORMAT_LINE] = "line",
	NULL,
};
static const char *const levels[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_NOTICE] = "notice",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
	NULL,
};
static const char *const targets[] = {
	[CONFIG_LOG_STDERR] = "stderr",
	[CONFIG_LOG_SYSLOG] = "syslog",
	[CONFIG_LOG_JOURNAL] = "journal",
	NULL,
};
static const char *const replies[] = {
	[CONFIG_REPLY_NONE] = "none",
	[CONFIG_REPLY_ECHO] = "echo",
	[CONFIG_REPLY_RECEIPT] = "receipt",
	NULL,
};
static const char *const tls_versions[] = { "1.2", "1.3", NULL }; /* for a bool, only_1_3 */
static const char *const sink_types[] = {
	[CONFIG_SINK_CONSOLE] = "console",
	[CONFIG_SINK_FILE] = "file",
	[CONFIG_SINK_SPOOL] = "spool",
	[CONFIG_SINK_COMMAND] = "command",
	[CONFIG_SINK_KAFKA] = "kafka",
	[CONFIG_SINK_NATS] = "nats",
	NULL,
};
static const char *const keys[] = {
	[CONFIG_KEY_NONE] = "none",
	[CONFIG_KEY_PEER] = "peer",
	[CONFIG_KEY_ID] = "id",
	NULL,
};
static const char *const log_formats[] = { "text", "json", NULL }; /* for a bool, json */
static const char *const storages[] = { "file", "memory", NULL }; /* for a bool, memory */
static const char *const orders[] = { "big", "little", NULL };     /* for a bool, little */
static const char *const lengths[] = { "1", "2", "4", "8", NULL };

/* In the order in which they are read and dumped: framing before what depends on it. */
static const struct config_row rows[] = {
	{ "workers", GLOBAL(workers), .type = TABLE_INTEGER, .maximum = 1024, .fallback = "0",
	  .at_start = true, .help = "worker threads; 0: one per CPU available" },
	{ "user", GLOBAL(user), .type = TABLE_TEXT, .at_start = true,
	  .help = "whom to become once sockets are bound: a name or a number" },
	{ "group", GLOBAL(group), .type = TABLE_TEXT, .at_start = true,
	  .help = "its group, when it is not the user's own" },
	{ "pid_file", GLOBAL(pid_file), .type = TABLE_PATH, .at_start = true,
	  .help = "file that holds the daemon's process id" },
	{ "shutdown_timeout", GLOBAL(shutdown_timeout), .type = TABLE_DURATION, .maximum = YEAR,
	  .fallback = "30s", .help = "longest wait for messages in progress at a stop" },
	{ "memory_limit", GLOBAL(memory_limit), .type = TABLE_SIZE, .minimum = 64 * KIB,
	  .maximum = INT64_MAX, .fallback = "256M",
	  .help = "memory for message bytes, over all connections" },
	{ "spill_directory", GLOBAL(spill_directory), .type = TABLE_PATH,
	  .fallback = CISTERN_STATE_DIR, .help = "where large messages wait outside memory" },
	{ "log", GLOBAL(log), .type = TABLE_GROUP, .help = "where the log goes, and how" },
	{ "status", GLOBAL(status), .type = TABLE_GROUP, .inner = TABLE_STATUS, .optional = true,
	  .help = "the status service, by HTTP" },
	{ "listeners", GLOBAL(listeners), .type = TABLE_GROUP, .help = "the listeners, by name" },
	{ "sinks", GLOBAL(sinks), .type = TABLE_GROUP, .help = "the sinks, by name" },

	{ "target", LOG(target), .type = TABLE_TARGET, .choices = targets, .fallback = "stderr",
	  .help = "stderr, syslog, journal or a file's path" },
	{ "level", LOG(level), .type = TABLE_CHOICE, .choices = levels, .fallback = "info",
	  .help = "how much is logged" },
	{ "format", LOG(json), .type = TABLE_CHOICE, .choices = log_formats, .fallback = "text",
	  .help = "lines for people, or one JSON object a line" },

	{ "address", STATUS(address), .type = TABLE_TEXT, .fallback = "127.0.0.1",
	  .help = "address that the status service listens on" },
	{ "port", STATUS(port), .type = TABLE_INTEGER, .maximum = 65535, .fallback = "11080",
	  .help = "its TCP port; 0: one the kernel picks" },
	{ "hosts", STATUS(hosts), .type = TABLE_NAMES,
	  .help = "names that it may be asked by, besides addresses" },

	{ "address", LISTENER(address), .type = TABLE_ADDRESSES, .fallback = "*",
	  .help = "address to listen on, or a list of them" },
	{ "port", LISTENER(port), .type = TABLE_INTEGER, .maximum = 65535, .fallback = "11000",
	  .help = "TCP port; 0: one the kernel picks" },
	{ "backlog", LISTENER(backlog), .type = TABLE_INTEGER, .minimum = 1, .maximum = INT32_MAX,
	  .fallback = "1024", .help = "queue of connections not yet accepted" },
	{ "buffer_size", LISTENER(buffer_size), .type = TABLE_SIZE, .minimum = 256,
	  .maximum = 16 * MIB, .fallback = "65536",
	  .help = "bytes read from a connection in one go" },
	{ "framing", LISTENER(framing.kind), .type = TABLE_CHOICE, .choices = framings,
	  .fallback = "eof", .help = "how the end of a message is found" },
	{ "delimiter", LISTENER(framing.delimiter), .type = TABLE_DELIMITER, .minimum = 1,
	  .maximum = 1024, .framings = 1U << FRAMING_DELIMITER,
	  .help = "the bytes that end a message" },
	{ "keep_delimiter", LISTENER(framing.keep_delimiter), .type = TABLE_BOOL,
	  .fallback = "false", .framings = 1U << FRAMING_DELIMITER,
	  .help = "whether the message includes them" },
	{ "length_bytes", LISTENER(framing.length_bytes), .type = TABLE_INTEGER,
	  .choices = lengths, .fallback = "4", .framings = 1U << FRAMING_LENGTH,
	  .help = "width of the binary length" },
	{ "length_order", LISTENER(framing.length_little), .type = TABLE_CHOICE,
	  .choices = orders, .fallback = "big", .framings = 1U << FRAMING_LENGTH,
	  .help = "byte order of the binary length" },
	{ "length_includes_header", LISTENER(framing.length_includes_header), .type = TABLE_BOOL,
	  .fallback = "false", .framings = 1U << FRAMING_LENGTH,
	  .help = "whether the length counts its own bytes" },
	{ "max_message_size", LISTENER(framing.max_size), .type = TABLE_SIZE,
	  .maximum = INT64_MAX, .fallback = "16M",
	  .help = "a larger message is discarded; 0: no bound" },
	{ "max_messages", LISTENER(max_messages), .type = TABLE_INTEGER, .maximum = INT64_MAX,
	  .fallback = "0", .help = "end the connection after so many; 0: no bound" },
	{ "max_in_flight", LISTENER(max_in_flight), .type = TABLE_INTEGER, .minimum = 1,
	  .maximum = 1000000, .fallback = "1024",
	  .help = "messages of a connection that wait for the sinks" },
	{ "idle_timeout", LISTENER(idle_timeout), .type = TABLE_DURATION, .maximum = YEAR,
	  .fallback = "60s", .help = "longest silence of a client; 0: no bound" },
	{ "message_timeout", LISTENER(message_timeout), .type = TABLE_DURATION, .maximum = YEAR,
	  .fallback = "0", .help = "from a message's first byte to its last; 0: no bound" },
	{ "min_rate", LISTENER(min_rate), .type = TABLE_SIZE, .maximum = INT64_MAX,
	  .fallback = "0", .help = "bytes a second that a message must keep up; 0: none" },
	{ "quiet_timeout", LISTENER(quiet_timeout), .type = TABLE_DURATION, .maximum = YEAR,
	  .fallback = "0", .framings = 1U << FRAMING_EOF,
	  .help = "a silence that ends a message; 0: none does" },
	{ "incomplete", LISTENER(incomplete), .type = TABLE_SINK_NAME,
	  .help = "sink for messages that were cut short" },
	{ "max_connections", LISTENER(max_connections), .type = TABLE_INTEGER,
	  .maximum = INT32_MAX, .fallback = "0",
	  .help = "connections at a time; 0: no bound" },
	{ "max_connections_per_address", LISTENER(max_connections_per_address),
	  .type = TABLE_INTEGER, .maximum = INT32_MAX, .fallback = "0",
	  .help = "connections of one client address at a time; 0: no bound" },
	{ "allow", LISTENER(allow), .type = TABLE_BLOCKS,
	  .help = "blocks of addresses that may connect; none: all" },
	{ "deny", LISTENER(deny), .type = TABLE_BLOCKS,
	  .help = "blocks of addresses that may not" },
	{ "proxy_protocol", LISTENER(proxy_protocol), .type = TABLE_BOOL, .fallback = "false",
	  .help = "whether a PROXY header comes first and names the client" },
	{ "proxy_from", LISTENER(proxy_from), .type = TABLE_BLOCKS,
	  .help = "blocks of addresses that may connect and send one" },
	{ "rate_limit", LISTENER(rate_limit), .type = TABLE_GROUP, .inner = TABLE_RATE_LIMIT,
	  .help = "bytes a second that are read" },
	{ "tls", LISTENER(tls), .type = TABLE_GROUP, .inner = TABLE_TLS, .optional = true,
	  .help = "TLS, and which certificates" },
	{ "reply", LISTENER(reply), .type = TABLE_CHOICE, .choices = replies, .fallback = "none",
	  .help = "what the client is sent for a message" },
	{ "keepalive", LISTENER(keepalive), .type = TABLE_BOOL, .fallback = "true",
	  .help = "TCP keepalive" },
	{ "deliver", LISTENER(deliver), .type = TABLE_SINK_NAMES, .fallback = "console",
	  .help = "sinks that get the messages" },

	{ "connection", RATE_LIMIT(connection), .type = TABLE_SIZE, .maximum = 64 * GIB,
	  .fallback = "0", .help = "bytes a second from one connection; 0: no bound" },
	{ "listener", RATE_LIMIT(listener), .type = TABLE_SIZE, .maximum = 64 * GIB,
	  .fallback = "0", .help = "bytes a second from all connections; 0: no bound" },
	{ "certificate", TLS(certificate), .type = TABLE_PATH, .required = true,
	  .help = "file of the certificate and those it was issued by" },
	{ "key", TLS(key), .type = TABLE_PATH, .required = true,
	  .help = "file of the certificate's private key" },
	{ "client_ca", TLS(client_ca), .type = TABLE_PATH,
	  .help = "file of the authorities that may issue clients' certificates" },
	{ "require_client_certificate", TLS(require_client_certificate), .type = TABLE_BOOL,
	  .fallback = "false", .help = "whether a client without a certificate is turned away" },
	{ "min_version", TLS(only_1_3), .type = TABLE_CHOICE, .choices = tls_versions,
	  .fallback = "1.2", .help = "the oldest version of TLS that is spoken" },
	{ "ciphers", TLS(ciphers), .type = TABLE_TEXT,
	  .fallback = "ECDHE+AESGCM:ECDHE+CHACHA20", .help = "OpenSSL's names of ciphers" },
	{ "handshake_timeout", TLS(handshake_timeout), .type = TABLE_DURATION, .minimum = 1000,
	  .maximum = YEAR, .fallback = "10s",
	  .help = "longest time from a connection's begin to the end of its handshake" },

	{ "type", SINK(type), .type = TABLE_CHOICE, .choices = sink_types,
	  .sink_types = CONSOLE | FILES | SPOOL | COMMAND | KAFKA | NATS, .required = true,
	  .help = "the kind of sink" },
	{ "format", SINK(format), .type = TABLE_CHOICE, .choices = formats, .fallback = "text",
	  .sink_types = CONSOLE, .help = "how a message is written" },
	{ "path", SINK(path), .type = TABLE_PATH, .sink_types = FILES, .required = true,
	  .help = "the file that messages are appended to" },
	{ "format", SINK(format), .type = TABLE_CHOICE, .choices = formats, .fallback = "json",
	  .sink_types = FILES, .help = "how a message is written" },
	{ "directory", SINK(directory), .type = TABLE_PATH, .sink_types = SPOOL,
	  .required = true, .help = "the directory that gets a file for each message" },
	{ "sync", SINK(sync), .type = TABLE_BOOL, .fallback = "true",
	  .sink_types = FILES | SPOOL, .help = "accept only what is on stable storage" },
	{ "mode", SINK(mode), .type = TABLE_MODE, .fallback = "0640",
	  .sink_types = FILES | SPOOL, .help = "permissions of new files" },
	{ "min_free", SINK(min_free), .type = TABLE_SIZE, .maximum = INT64_MAX,
	  .fallback = "64M", .sink_types = SPOOL,
	  .help = "space to leave free on the filesystem" },
	{ "forward", SINK(forward), .type = TABLE_SINK_NAME, .sink_types = SPOOL,
	  .help = "the sink that messages are handed on to" },
	{ "keep", SINK(keep), .type = TABLE_BOOL, .fallback = "false", .sink_types = SPOOL,
	  .help = "keep what has been handed on, in done/" },
	{ "retry_min", SINK(retry_min), .type = TABLE_DURATION, .minimum = 10000, .maximum = YEAR,
	  .fallback = "1s", .sink_types = SPOOL, .help = "time until the first new try" },
	{ "retry_max", SINK(retry_max), .type = TABLE_DURATION, .minimum = 10000, .maximum = YEAR,
	  .fallback = "5m", .sink_types = SPOOL, .help = "longest time between two tries" },
	{ "max_age", SINK(max_age), .type = TABLE_DURATION, .maximum = 100 * YEAR, .fallback = "0",
	  .sink_types = SPOOL, .help = "give up on what is older; 0: never" },
	{ "argv", SINK(argv), .type = TABLE_ARGUMENTS, .sink_types = COMMAND, .required = true,
	  .help = "the program that gets a message, and its arguments" },
	{ "max_processes", SINK(max_processes), .type = TABLE_INTEGER, .minimum = 1,
	  .maximum = 1024, .fallback = "4", .sink_types = COMMAND,
	  .help = "how many of it run at a time" },
	{ "timeout", SINK(timeout), .type = TABLE_DURATION, .maximum = YEAR, .fallback = "60s",
	  .sink_types = COMMAND, .help = "how long it may take; 0: no bound" },
	{ "run_as_root", SINK(run_as_root), .type = TABLE_BOOL, .fallback = "false",
	  .sink_types = COMMAND, .help = "whether it may be run as root" },
	{ "brokers", SINK(brokers), .type = TABLE_BROKERS, .sink_types = KAFKA, .required = true,
	  .help = "brokers of the cluster to ask first" },
	{ "topic", SINK(topic), .type = TABLE_TOPIC, .sink_types = KAFKA, .required = true,
	  .help = "the topic that gets the messages" },
	{ "key", SINK(key), .type = TABLE_CHOICE, .choices = keys, .fallback = "none",
	  .sink_types = KAFKA, .help = "what decides a message's partition" },
	{ "properties", SINK(properties), .type = TABLE_PROPERTIES, .sink_types = KAFKA,
	  .help = "properties of librdkafka" },
	{ "timeout", SINK(timeout), .type = TABLE_DURATION, .minimum = TYPES_SECOND,
	  .maximum = 86400 * TYPES_SECOND, .fallback = "30s", .sink_types = KAFKA,
	  .help = "longest wait for the cluster's acknowledgement" },
	{ "servers", SINK(nats.servers), .type = TABLE_SERVERS, .sink_types = NATS,
	  .required = true, .help = "addresses of servers of the cluster" },
	{ "subject", SINK(nats.subject), .type = TABLE_TEXT, .sink_types = NATS,
	  .required = true, .help = "what messages are published as; {listener} and {peer} are filled in" },
	{ "stream", SINK(nats.stream), .type = TABLE_TEXT, .sink_types = NATS, .required = true,
	  .help = "the stream that has to acknowledge them" },
	{ "create", SINK(nats.create), .type = TABLE_GROUP, .inner = TABLE_CREATE, .optional = true,
	  .sink_types = NATS, .help = "how the stream is made where there is none" },
	{ "credentials", SINK(nats.credentials), .type = TABLE_PATH, .sink_types = NATS,
	  .help = "file with the user's JWT and seed" },
	{ "tls", SINK(nats.tls), .type = TABLE_GROUP, .inner = TABLE_CLIENT_TLS, .optional = true,
	  .sink_types = NATS, .help = "TLS to the servers, and which certificates" },
	{ "timeout", SINK(timeout), .type = TABLE_DURATION, .minimum = TYPES_SECOND, .maximum = YEAR,
	  .fallback = "30s", .sink_types = NATS,
	  .help = "how long a message may wait for the stream" },
	{ "claim_check", SINK(nats.claim_check), .type = TABLE_TEXT, .sink_types = NATS,
	  .help = "spool for messages that are too large for the stream" },

	{ "replicas", CREATE(replicas), .type = TABLE_INTEGER, .minimum = 1, .maximum = 5,
	  .fallback = "1", .help = "on how many servers each message is stored" },
	{ "storage", CREATE(memory), .type = TABLE_CHOICE, .choices = storages, .fallback = "file",
	  .help = "where servers keep messages" },
	{ "max_bytes", CREATE(max_bytes), .type = TABLE_SIZE, .maximum = INT64_MAX, .fallback = "0",
	  .help = "size at which the stream takes no more; 0: no bound" },
	{ "max_age", CREATE(max_age), .type = TABLE_DURATION, .maximum = YEAR, .fallback = "0",
	  .help = "age at which messages go; 0: never" },
	{ "duplicate_window", CREATE(duplicate_window), .type = TABLE_DURATION,
	  .minimum = TYPES_SECOND / 10, .maximum = YEAR, .fallback = "2m",
	  .help = "how long an id is remembered" },
	{ "ca", CLIENT_TLS(ca), .type = TABLE_PATH,
	  .help = "file of the authorities that may issue servers' certificates" },
	{ "certificate", CLIENT_TLS(certificate), .type = TABLE_PATH,
	  .help = "file of our certificate" },
	{ "key", CLIENT_TLS(key), .type = TABLE_PATH, .help = "file of its private key" },
	{ "ciphers", CLIENT_TLS(ciphers), .type = TABLE_TEXT,
	  .fallback = "ECDHE+AESGCM:ECDHE+CHACHA20", .help = "OpenSSL's names of ciphers" },
};

#define N_ROWS (sizeof rows / sizeof rows[0])

_Static_assert(N_ROWS <= TABLE_MAX, "TABLE_MAX is too small");

const struct config_row *
config_table(size_t *count)
{
	*count = N_ROWS;
	return rows;
}

const struct config_row *
table_find(enum table_scope scope, const char *name, unsigned types)
{
	for (size_t i = 0; i < N_ROWS; i++) {
		if (rows[i].scope == scope && strcmp(rows[i].name, name) == 0 &&
		    (scope != TABLE_SINK || (rows[i].sink_types & types) != 0))
			return &rows[i];
	}
	return NULL;
}

void
table_put(const struct config_row *row, void *base, uint64_t value)
{
	void *member = table_member(row, base);
	uint32_t narrow = (uint32_t)value;

	if (row->width == sizeof(bool))
		*(bool *)member = value != 0;
	else if (row->width == sizeof narrow)
		memcpy(member, &narrow, sizeof narrow);
	else
		memcpy(member, &value, sizeof value);
}

uint64_t
table_get(const struct config_row *row, const void *base)
{
	const char *member = (const char *)base + row->offset;
	uint32_t narrow;
	uint64_t value;

	if (row->width == sizeof(bool))
		return *(const bool *)member;
	if (row->width == sizeof narrow) {
		memcpy(&narrow, member, sizeof narrow);
		return narrow;
	}
	memcpy(&value, member, sizeof value);
	return value;
}
