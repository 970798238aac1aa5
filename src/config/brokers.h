/*
 * brokers: what a kafka sink says of its cluster.
 */
#ifndef CONFIG_BROKERS_H
#define CONFIG_BROKERS_H

#include <libconfig.h>

#include "config/parse.h"
#include "config/table.h"

/* Whether the client's library takes a property; NULL: it does, else error says why not.
 * Set by a program that has the library (kafka_init); where it is NULL (cistern(1)), only
 * what can be seen without it is checked. */
#define BROKERS_ERROR_LEN 512
extern const char *(*brokers_property)(const char *name, const char *value,
				       char error[BROKERS_ERROR_LEN]);

/* Whether this build has sinks of that type at all; where not, the report says so. */
bool brokers_can_be_had(struct parse *parse, const config_setting_t *setting,
			const struct config_sink *sink);

/* A broker: "HOST", "HOST:PORT", "[IPv6]:PORT". */
bool brokers_check(struct parse *parse, const struct config_row *row,
		   const config_setting_t *setting, const char *text);

/* Whether Kafka would have it as the name of a topic. */
bool brokers_is_topic(const char *text);

/* A list of "NAME=VALUE" into properties, which is all zero.  False: the report says why. */
bool brokers_properties(struct parse *parse, const struct config_row *row,
			const config_setting_t *setting, struct config_strings *properties);

#endif
