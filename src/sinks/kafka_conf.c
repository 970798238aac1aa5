/*
 * kafka_conf: a sink's settings as librdkafka takes them, and its lines in our log.
 *
 * What the promises rest upon (idempotence, acks, one request at a time, the timeout) is set
 * last and cannot be set by properties (config/brokers.c).  The library says nothing on standard error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "config/brokers.h"
#include "sinks/kafka.h"
#include "sinks/kafka_producer.h"

_Static_assert(KAFKA_ERROR_LEN == BROKERS_ERROR_LEN, "errors go from one to the other");

/* Ours, which properties may change.  Nothing waits for a batch to fill up: one gathers
 * while the one before it is on its way.  Without a time of its own, a message without a
 * key would choose its partition alone, and batches would be small. */
static const char *const defaults[][2] = {
	{ "client.id", "cisternd" },
	{ "linger.ms", "0" },
	{ "sticky.partitioning.linger.ms", "10" },
};

static void
say_sum(const struct kafka_log *log, uint64_t held)
{
	if (held > 0)
		log_event(LOG_LEVEL_NOTICE, "kafka-library", "sink %s: %llu more lines", log->sink,
			  (unsigned long long)held);
}

/* Syslog's levels.  What is an error to the library is a warning here: it goes on trying,
 * and sink-failing tells of messages that are refused. */
static void
take_line(const rd_kafka_t *rk, int level, const char *facility, const char *line)
{
	struct kafka_log *log = rk == NULL ? NULL : rd_kafka_opaque(rk);
	enum log_level ours = level <= 4   ? LOG_LEVEL_WARNING
			      : level == 5 ? LOG_LEVEL_NOTICE
			      : level == 6 ? LOG_LEVEL_INFO
					   : LOG_LEVEL_DEBUG;
	uint64_t now, due, held = 0;
	bool passes;

	if (log == NULL || !log_enabled(ours))
		return;
	pthread_mutex_lock(&log->lock);
	now = clock_now();
	due = valve_due(&log->valve);
	if (due != 0 && now >= due)
		held = valve_sum(&log->valve);
	passes = ours == LOG_LEVEL_DEBUG || valve_pass(&log->valve, now);
	pthread_mutex_unlock(&log->lock);
	say_sum(log, held); /* the log has a lock of its own */
	if (passes)
		log_event(ours, "kafka-library", "sink %s: %s: %s", log->sink, facility, line);
}

void
kafka_log_end(struct kafka_log *log)
{
	uint64_t held;

	pthread_mutex_lock(&log->lock);
	held = valve_sum(&log->valve);
	pthread_mutex_unlock(&log->lock);
	say_sum(log, held);
}

static bool
set(rd_kafka_conf_t *conf, const char *name, const char *value, char error[KAFKA_ERROR_LEN])
{
	return rd_kafka_conf_set(conf, name, value, error, KAFKA_ERROR_LEN) == RD_KAFKA_CONF_OK;
}

static bool
set_properties(rd_kafka_conf_t *conf, const struct config_strings *properties,
	       char error[KAFKA_ERROR_LEN])
{
	bool good = true;

	for (size_t i = 0; good && i < properties->count; i++) {
		char *name = strdup(properties->items[i]), *value;

		if (name == NULL) {
			snprintf(error, KAFKA_ERROR_LEN, "out of memory");
			return false;
		}
		value = strchr(name, '=');
		*value++ = '\0';
		good = set(conf, name, value, error);
		free(name);
	}
	return good;
}

static bool
set_brokers(rd_kafka_conf_t *conf, const struct config_strings *brokers,
	    char error[KAFKA_ERROR_LEN])
{
	char *list = NULL;
	size_t size;
	FILE *to = open_memstream(&list, &size);
	bool good;

	for (size_t i = 0; to != NULL && i < brokers->count; i++)
		fprintf(to, "%s%s", i > 0 ? "," : "", brokers->items[i]);
	good = to != NULL && !ferror(to);
	if (to != NULL && fclose(to) == EOF)
		good = false;
	if (!good)
		snprintf(error, KAFKA_ERROR_LEN, "out of memory");
	good = good && set(conf, "bootstrap.servers", list, error);
	free(list);
	return good;
}

/* One request at a time to a broker: when the first of several has to be sent again, one behind it
 * may be the first that a partition has of this producer, and is taken (Kafka does so since
 * 2.5); librdkafka then reports the first as stored, too, which it is not.  Or it is refused,
 * and librdkafka begins a new epoch, in which other partitions take again what they have. */
rd_kafka_conf_t *
kafka_conf_new(const struct config_sink *config, bool brokers, char error[KAFKA_ERROR_LEN])
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool good = true;
	char timeout[24];

	rd_kafka_conf_set_log_cb(conf, take_line);
	for (size_t i = 0; good && i < sizeof defaults / sizeof defaults[0]; i++)
		good = set(conf, defaults[i][0], defaults[i][1], error);
	snprintf(timeout, sizeof timeout, "%llu", (unsigned long long)(config->timeout / 1000));
	good = good && set_properties(conf, &config->properties, error) &&
	       set(conf, "enable.idempotence", "true", error) && set(conf, "acks", "all", error) &&
	       set(conf, "max.in.flight.requests.per.connection", "1", error) &&
	       set(conf, "message.timeout.ms", timeout, error) &&
	       (!brokers || set_brokers(conf, &config->brokers, error));
	if (good)
		return conf;
	rd_kafka_conf_destroy(conf);
	return NULL;
}

size_t
kafka_conf_number(const rd_kafka_conf_t *conf, const char *name)
{
	char text[32];
	size_t size = sizeof text;

	if (rd_kafka_conf_get(conf, name, text, &size) != RD_KAFKA_CONF_OK)
		return 0;
	return strtoul(text, NULL, 10);
}

static const char *
property(const char *name, const char *value, char error[BROKERS_ERROR_LEN])
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	bool good = set(conf, name, value, error);

	rd_kafka_conf_destroy(conf);
	return good ? NULL : error;
}

void
kafka_init(void)
{
	brokers_property = property;
}

const char *
kafka_version(void)
{
	static char text[64];

	snprintf(text, sizeof text, "librdkafka %s", rd_kafka_version_str());
	return text;
}

size_t
kafka_check(const struct config *config, FILE *to)
{
	size_t errors = 0;

	for (size_t i = 0; i < config->n_sinks; i++) {
		const struct config_sink *sink = &config->sinks[i];
		char error[KAFKA_ERROR_LEN];
		rd_kafka_conf_t *conf;
		rd_kafka_t *rk = NULL;

		if (sink->type != CONFIG_SINK_KAFKA)
			continue;
		conf = kafka_conf_new(sink, false, error);
		if (conf != NULL)
			rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error);
		if (rk != NULL) {
			rd_kafka_destroy(rk);
			continue;
		}
		if (conf != NULL)
			rd_kafka_conf_destroy(conf); /* rd_kafka_new takes it only when it works */
		fprintf(to, "%s:%d: sink \"%s\": %s\n", sink->place.file, sink->place.line,
			sink->name, error);
		errors++;
	}
	return errors;
}
