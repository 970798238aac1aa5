/*
 * config: the configuration file as one immutable struct.
 *
 * config_load reads a file whole, collects every error in it, and either gives
 * a complete configuration or none.  What it gives never changes; a reload
 * builds another one.  References are counted, by any thread.
 */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "framing/framing.h"

struct acl;

/* A place in a configuration file, for messages about what it says. */
struct config_place {
	const char *file; /* NULL: a default */
	int line;
};

enum config_reply { CONFIG_REPLY_NONE, CONFIG_REPLY_ECHO, CONFIG_REPLY_RECEIPT };
enum config_log_target { CONFIG_LOG_STDERR, CONFIG_LOG_SYSLOG, CONFIG_LOG_JOURNAL, CONFIG_LOG_FILE };

struct config_strings {
	char **items;
	size_t count;
};

/* CIDR blocks, and what acl_match asks; acl is NULL where there are none. */
struct config_blocks {
	struct config_strings text; /* as written */
	struct acl *acl;
};

struct config_rate_limit {
	uint64_t connection; /* bytes a second; 0: any */
	uint64_t listener;
};

/* TLS of a listener; certificate NULL: none. */
struct config_tls {
	struct config_place place;
	char *certificate; /* files */
	char *key;
	char *client_ca; /* NULL: clients are not asked for certificates */
	bool require_client_certificate;
	bool only_1_3; /* min_version */
	char *ciphers;
	uint64_t handshake_timeout;
};

/* Durations are microseconds, sizes bytes; 0 switches off where that makes sense. */
struct config_listener {
	char *name;
	struct config_place place;
	struct config_strings address; /* as written: "*", "localhost", an address, "unix:/path" */
	int port;
	int backlog;
	uint64_t buffer_size;
	struct framing_config framing; /* framing, delimiter, ..., max_message_size; prepared */
	uint64_t max_messages;
	uint64_t max_in_flight;
	uint64_t idle_timeout;
	uint64_t message_timeout;
	uint64_t min_rate;
	uint64_t quiet_timeout;
	char *incomplete; /* name of a sink, or NULL */
	uint64_t max_connections;
	uint64_t max_connections_per_address;
	struct config_blocks allow;
	struct config_blocks deny;
	bool proxy_protocol;
	struct config_blocks proxy_from;
	struct config_rate_limit rate_limit;
	struct config_tls tls;
	enum config_reply reply;
	bool keepalive;
	struct config_strings deliver;
	/* Resolved from the names once all sinks are known; indexes into sinks. */
	size_t *deliver_to; /* deliver.count of them */
	int incomplete_to;  /* -1: none */
};

enum config_key { CONFIG_KEY_NONE, CONFIG_KEY_PEER, CONFIG_KEY_ID };
/* TLS towards servers that we connect to; ciphers NULL: none. */
struct config_client_tls {
	char *ca; /* files; NULL: the system's authorities */
	char *certificate;
	char *key;
	char *ciphers;
};

/* A stream that is made where there is none; replicas 0: it has to be there. */
struct config_create {
	unsigned replicas;
	bool memory; /* storage */
	uint64_t max_bytes;
	uint64_t max_age;
	uint64_t duplicate_window;
};

struct config_nats {
	struct config_strings servers;
	char *subject; /* see message/subject.h */
	char *stream;
	struct config_create create;
	char *credentials; /* a file; NULL: none */
	struct config_client_tls tls;
	char *claim_check; /* name of a spool, or NULL; ... */
	const struct config_sink *claim; /* ... and that, of the same configuration */
};

enum config_sink_type {
	CONFIG_SINK_CONSOLE,
	CONFIG_SINK_FILE,
	CONFIG_SINK_SPOOL,
	CONFIG_SINK_COMMAND,
	CONFIG_SINK_KAFKA,
	CONFIG_SINK_NATS,
};

struct config_sink {
	char *name;
	struct config_place place;
	enum config_sink_type type;
	int format; /* enum format; console and file */
	char *path; /* file */
	char *directory; /* spool */
	bool sync;
	mode_t mode;
	uint64_t min_free;
	char *forward; /* spool: the sink that messages are handed on to; NULL: none ... */
	const struct config_sink *forward_to; /* ... and its settings, in this configuration */
	bool keep;
	uint64_t retry_min, retry_max, max_age;
	struct config_strings argv; /* command, and what follows */
	unsigned max_processes;
	uint64_t timeout; /* nats, too */
	bool run_as_root;
	struct config_strings brokers; /* kafka: "HOST[:PORT]", and what follows */
	char *topic;
	enum config_key key;
	struct config_strings properties; /* "NAME=VALUE" */
	struct config_nats nats;
};

struct config_log {
	enum config_log_target target;
	char *path; /* for CONFIG_LOG_FILE */
	int level;  /* enum log_level */
	bool json;
};

/* The status service; address NULL: none. */
struct config_status {
	struct config_place place;
	char *address;
	int port;
	struct config_strings hosts; /* names that it may be asked by, besides addresses */
};

struct config {
	atomic_uint references;
	char *file;
	struct config_strings files; /* it and what it includes */
	int workers;                 /* 0: one per CPU available */
	char *user, *group;          /* whom to become; NULL: nobody, the user's own */
	char *pid_file;              /* or NULL */
	uint64_t shutdown_timeout;
	uint64_t memory_limit;
	char *spill_directory;
	bool spill_directory_given; /* in the file, not by default */
	struct config_log log;
	struct config_status status;
	struct config_listener *listeners; /* in the order of the file */
	size_t n_listeners;
	struct config_sink *sinks; /* in the order of the file; "console" added when not redefined */
	size_t n_sinks;
};

/* One error of a file; text says what was found, what was expected, and the
 * nearest name for a misspelt one.  Printed as "FILE:LINE: TEXT". */
struct config_error {
	char *file;
	int line; /* 0: the file as a whole */
	char *text;
};

struct config_errors {
	struct config_error *items;
	size_t count;
	int exit_code; /* 78 (EX_CONFIG); 77 (EX_NOPERM) when the file may not be read */
};

/* Reads FILE.  Returns a configuration with one reference, or NULL and at least
 * one error.  The errors are the caller's to free. */
struct config *config_load(const char *file, struct config_errors *errors);
void config_errors_free(struct config_errors *errors);
void config_errors_print(const struct config_errors *errors, FILE *to);

struct config *config_ref(struct config *config);
void config_unref(struct config *config); /* NULL is fine */

/* Prints the effective configuration, all defaults filled in, as a file that
 * config_load reads back to the same thing. */
int config_dump(const struct config *config, FILE *to);

#endif
