/*
 * produce: what librdkafka does without us, for make bench-kafka.
 *
 *	produce BROKERS TOPIC MESSAGES SIZE HEADERS [NAME=VALUE...]
 *
 * An idempotent producer, acks=all, delivery reports taken as events, as cisternd does, with
 * so many headers of 20 bytes.  Prints messages a second; exit 1 when one was not delivered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

static char error[512];

static void
die(const char *what)
{
	fprintf(stderr, "produce: %s\n", what);
	exit(1);
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != RD_KAFKA_CONF_OK)
		die(error);
}

/* How many were delivered. */
static long
take_reports(rd_kafka_queue_t *queue, int patience)
{
	rd_kafka_event_t *event = rd_kafka_queue_poll(queue, patience);
	const rd_kafka_message_t *message;
	long n = 0;

	while (event != NULL && (message = rd_kafka_event_message_next(event)) != NULL) {
		if (message->err != RD_KAFKA_RESP_ERR_NO_ERROR)
			die(rd_kafka_err2str(message->err));
		n++;
	}
	if (event != NULL)
		rd_kafka_event_destroy(event);
	return n;
}

static rd_kafka_resp_err_t
produce(rd_kafka_t *rk, rd_kafka_topic_t *topic, char *bytes, size_t size, int n_headers)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)n_headers);
	rd_kafka_resp_err_t code;

	for (int i = 0; i < n_headers; i++)
		rd_kafka_header_add(headers, "Bench-Header", -1, "twenty-bytes-of-text", 20);
	code = rd_kafka_producev(rk, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_VALUE(bytes, size),
				 RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END);
	if (code != RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_headers_destroy(headers);
	return code;
}

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue;
	rd_kafka_t *rk;
	long messages, delivered = 0;
	size_t size;
	double begun;
	char *bytes;

	if (argc < 6)
		die("usage: produce BROKERS TOPIC MESSAGES SIZE HEADERS [NAME=VALUE...]");
	messages = strtol(argv[3], NULL, 10);
	size = strtoul(argv[4], NULL, 10);
	bytes = calloc(1, size + 1);
	if (bytes == NULL)
		die("out of memory");
	memset(bytes, 'x', size);
	set(conf, "bootstrap.servers", argv[1]);
	set(conf, "enable.idempotence", "true");
	for (int i = 6; i < argc; i++) {
		char *value = strchr(argv[i], '=');

		if (value == NULL)
			die(argv[i]);
		*value++ = '\0';
		set(conf, argv[i], value);
	}
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error);
	if (rk == NULL)
		die(error);
	topic = rd_kafka_topic_new(rk, argv[2], NULL);
	queue = rd_kafka_queue_get_main(rk);
	begun = now();
	for (long sent = 0; sent < messages;) {
		rd_kafka_resp_err_t code = produce(rk, topic, bytes, size, (int)strtol(argv[5], NULL, 10));

		if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
			sent++;
		else if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL)
			die(rd_kafka_err2str(code));
		delivered += take_reports(queue, code == RD_KAFKA_RESP_ERR__QUEUE_FULL ? 1000 : 0);
	}
	while (delivered < messages)
		delivered += take_reports(queue, 1000);
	printf("%.0f\n", (double)messages / (now() - begun));
	rd_kafka_queue_destroy(queue);
	rd_kafka_topic_destroy(topic);
	rd_kafka_destroy(rk);
	free(bytes);
	return 0;
}
