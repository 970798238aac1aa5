/*
 * brokers: see brokers.h.
 *
 * Properties go to librdkafka as they are, but for those that are settings here, those
 * that the promises rest upon, and those that are for programs, not for files.
 */
#include "config/brokers.h"

#include <stdlib.h>
#include <string.h>

#include "config/types.h"
#include "config/value.h"

#define TOPIC_MAX 249

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

const char *(*brokers_property)(const char *name, const char *value, char error[BROKERS_ERROR_LEN]);

#define SETTING_BROKERS "expected it as the setting \"brokers\""
#define SETTING_TIMEOUT "expected it as the setting \"timeout\""
#define ACCEPTED_MEANS "a message counts as accepted when all replicas in sync have it, once"
#define ONE_AT_A_TIME "with more than one librdkafka may report what no broker has"
#define FOR_PROGRAMS "it is for programs, not for a file"

/* What may not be set, and why. */
static const struct {
	const char *name;
	const char *why;
} reserved[] = {
	{ "acks", ACCEPTED_MEANS },
	{ "bootstrap.servers", SETTING_BROKERS },
	{ "delivery.report.only.error", ACCEPTED_MEANS },
	{ "delivery.timeout.ms", SETTING_TIMEOUT },
	{ "enable.idempotence", ACCEPTED_MEANS },
	{ "enabled_events", FOR_PROGRAMS },
	{ "internal.termination.signal", FOR_PROGRAMS },
	{ "log.queue", FOR_PROGRAMS },
	{ "max.in.flight", ONE_AT_A_TIME },
	{ "max.in.flight.requests.per.connection", ONE_AT_A_TIME },
	{ "message.send.max.retries", "how often is bounded by the setting \"timeout\"" },
	{ "message.timeout.ms", SETTING_TIMEOUT },
	{ "metadata.broker.list", SETTING_BROKERS },
	{ "plugin.library.paths", "it would run others' code in this daemon" },
	{ "request.required.acks", ACCEPTED_MEANS },
	{ "retries", "how often is bounded by the setting \"timeout\"" },
	{ "test.mock.num.brokers", "messages would go nowhere" },
	{ "transactional.id", "there are no transactions here" },
};

bool
brokers_can_be_had(struct parse *parse, const config_setting_t *setting,
		   const struct config_sink *sink)
{
#ifdef HAVE_RDKAFKA
	(void)parse;
	(void)setting;
	(void)sink;
	return true;
#else
	if (sink->type != CONFIG_SINK_KAFKA)
		return true;
	parse_error(parse, setting,
		    "\"type\" is \"kafka\", which cannot be had: this cisternd was built without "
		    "Kafka; expected another, or a build with librdkafka (configure --with-rdkafka)");
	return false;
#endif
}

/* The part behind a host: nothing, or a port. */
static bool
is_port(const char *text)
{
	uint64_t port;

	if (*text == '\0')
		return true;
	return *text == ':' && text[1] >= '0' && text[1] <= '9' &&
	       strspn(text + 1, "0123456789") == strlen(text + 1) && types_size(text + 1, &port) &&
	       port >= 1 && port <= 65535;
}

static bool
is_broker(const char *text)
{
	size_t len = strspn(text, letters);
	struct types_address addresses[2];
	char inside[64];
	size_t count;

	if (*text != '[')
		return len > 0 && len <= 253 && is_port(text + len);
	len = strcspn(++text, "]");
	if (text[len] != ']' || len >= sizeof inside || memchr(text, ':', len) == NULL)
		return false;
	memcpy(inside, text, len);
	inside[len] = '\0';
	return types_address(inside, addresses, &count) == NULL && is_port(text + len + 1);
}

bool
brokers_check(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	      const char *text)
{
	char quoted[REPORT_QUOTE_LEN];

	if (is_broker(text))
		return true;
	parse_error(parse, setting,
		    "\"%s\" is %s; expected a host and a port, as in \"kafka.example.com:9092\", "
		    "\"192.0.2.1:9092\" or \"[2001:db8::1]:9092\"",
		    row->name, report_quote(quoted, text));
	return false;
}

bool
brokers_is_topic(const char *text)
{
	size_t len = strlen(text);

	return len > 0 && len <= TOPIC_MAX && strspn(text, letters) == len &&
	       strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}

/* Why a property cannot be set; NULL: it can. */
static const char *
fault_of(const char *name, const char *value, char error[BROKERS_ERROR_LEN])
{
	for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
		if (strcmp(reserved[i].name, name) == 0)
			return reserved[i].why;
	return brokers_property == NULL ? NULL : brokers_property(name, value, error);
}

/* Whether it can be set, and is not set already. */
static bool
check_property(struct parse *parse, const struct config_row *row, const config_setting_t *one,
	       char *text, const struct config_strings *before)
{
	char *equals = strchr(text, '='), quoted[REPORT_QUOTE_LEN], error[BROKERS_ERROR_LEN];
	const char *fault;
	size_t len;

	if (equals == NULL || equals == text) {
		parse_error(parse, one, "\"%s\" has %s in it; expected \"NAME=VALUE\"", row->name,
			    report_quote(quoted, text));
		return false;
	}
	len = (size_t)(equals - text) + 1;
	for (size_t i = 0; i < before->count; i++) {
		if (strncmp(before->items[i], text, len) != 0)
			continue;
		*equals = '\0';
		parse_error(parse, one, "\"%s\" has %s twice", row->name,
			    report_quote(quoted, text));
		return false;
	}
	*equals = '\0';
	fault = fault_of(text, equals + 1, error);
	if (fault != NULL)
		parse_error(parse, one, "\"%s\" cannot have %s: %s", row->name,
			    report_quote(quoted, text), fault);
	*equals = '=';
	return fault == NULL;
}

bool
brokers_properties(struct parse *parse, const struct config_row *row,
		   const config_setting_t *setting, struct config_strings *properties)
{
	bool many = config_setting_is_array(setting) || config_setting_is_list(setting), good = true;
	int count = many ? config_setting_length(setting) : 0;
	char found[REPORT_QUOTE_LEN + 16];

	if (!many) {
		parse_error(parse, setting, "\"%s\" is %s; expected a list of strings: "
			    "[ \"NAME=VALUE\", ... ]", row->name, value_found(found, setting));
		return false;
	}
	properties->items = calloc((size_t)count + 1, sizeof *properties->items);
	for (int i = 0; properties->items != NULL && i < count; i++) {
		const config_setting_t *one = parse_element(setting, i);
		const char *text = config_setting_get_string(one);
		char *copy;

		if (config_setting_type(one) != CONFIG_TYPE_STRING) {
			parse_error(parse, one, "\"%s\" has %s in it; expected strings only: "
				    "\"NAME=VALUE\"", row->name, value_found(found, one));
			good = false;
			continue;
		}
		copy = strdup(text == NULL ? "" : text);
		if (copy == NULL) {
			parse->report->no_memory = true;
			return false;
		}
		if (check_property(parse, row, one, copy, properties)) {
			properties->items[properties->count++] = copy;
		} else {
			good = false;
			free(copy);
		}
	}
	if (properties->items == NULL)
		parse->report->no_memory = true;
	return good && properties->items != NULL;
}
