/*
 * mock: a cluster of librdkafka's mock brokers, outside the daemon, that tests command.
 *
 *   mock BROKERS
 *
 * Says "brokers HOST:PORT,..." and then, for each line of standard input, "ok" or "failed".
 * The lines:
 *
 *   topic NAME PARTITIONS         makes it
 *   consume NAME PARTITIONS FILE  from now on, all that comes into it is written to FILE
 *   errors KEY CODE...            the next requests of that kind (0: Produce) fail with these
 *   slow BROKER KEY CODE MS       the next one to that broker is answered so late
 *   clear KEY
 *   topic_error NAME CODE         what its metadata says
 *   leader NAME PARTITION BROKER  -1: nobody
 *   down BROKER, up BROKER        -1: all
 *   rtt BROKER MS
 *
 * A record is a line of FILE, its parts separated by tabs: partition, time, key, value
 * (hexadecimal, "-" where there is none), NAME=VALUE of each header, likewise.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

#define WORDS 64

static rd_kafka_mock_cluster_t *cluster;
static atomic_bool stop;

struct reader {
	pthread_t thread;
	rd_kafka_t *rk;
	FILE *to;
};

static struct reader readers[8];
static unsigned n_readers;

static void
die(const char *what)
{
	fprintf(stderr, "mock: %s\n", what);
	exit(1);
}

static void
print_hex(FILE *to, const void *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *at = bytes;

	if (at == NULL)
		putc_unlocked('-', to);
	for (; at != NULL && len > 0; len--, at++) {
		putc_unlocked(digits[*at >> 4], to);
		putc_unlocked(digits[*at & 15], to);
	}
}

static void
print_record(FILE *to, const rd_kafka_message_t *message)
{
	rd_kafka_timestamp_type_t kind;
	rd_kafka_headers_t *headers;
	const char *name;
	const void *value;
	size_t size;

	fprintf(to, "%d\t%lld\t", (int)message->partition,
		(long long)rd_kafka_message_timestamp(message, &kind));
	print_hex(to, message->key, message->key_len);
	putc_unlocked('\t', to);
	print_hex(to, message->payload, message->len);
	if (rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
		for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) ==
				   RD_KAFKA_RESP_ERR_NO_ERROR; i++) {
			fprintf(to, "\t%s=", name);
			print_hex(to, value, size);
		}
	putc_unlocked('\n', to);
}

static void *
reader_run(void *arg)
{
	struct reader *reader = arg;

	while (!atomic_load(&stop)) {
		rd_kafka_message_t *message = rd_kafka_consumer_poll(reader->rk, 20);

		if (message == NULL) {
			fflush(reader->to);
			continue;
		}
		if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			print_record(reader->to, message);
		rd_kafka_message_destroy(message);
	}
	return NULL;
}

static void
set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
	char error[512];

	if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != RD_KAFKA_CONF_OK)
		die(error);
}

static bool
consume(const char *topic, int partitions, const char *path)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
	struct reader *reader = &readers[n_readers++];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char error[512];

	if (n_readers > sizeof readers / sizeof readers[0])
		die("too many readers");
	set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(cluster));
	set(conf, "group.id", "mock");
	set(conf, "log_level", "0");
	set(conf, "enable.auto.commit", "false");
	set(conf, "fetch.wait.max.ms", "20");
	set(conf, "fetch.error.backoff.ms", "20");
	set(conf, "reconnect.backoff.max.ms", "200");
	set(conf, "auto.offset.reset", "error");
	reader->to = fopen(path, "w");
	reader->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof error);
	if (reader->to == NULL || reader->rk == NULL)
		die(error);
	rd_kafka_poll_set_consumer(reader->rk);
	for (int i = 0; i < partitions; i++)
		rd_kafka_topic_partition_list_add(list, topic, i)->offset = 0;
	rd_kafka_assign(reader->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (pthread_create(&reader->thread, NULL, reader_run, reader) != 0)
		die("no thread");
	return true;
}

static bool
obey(char *words[WORDS], int n)
{
	const char *what = words[0];
	long a = n > 1 ? strtol(words[1], NULL, 10) : 0;
	long b = n > 2 ? strtol(words[2], NULL, 10) : 0;
	long c = n > 3 ? strtol(words[3], NULL, 10) : 0;

	if (strcmp(what, "topic") == 0 && n == 3)
		return rd_kafka_mock_topic_create(cluster, words[1], (int)b, 1) == 0;
	if (strcmp(what, "consume") == 0 && n == 4)
		return consume(words[1], (int)b, words[3]);
	if (strcmp(what, "errors") == 0 && n > 2) {
		rd_kafka_resp_err_t errors[WORDS];

		for (int i = 2; i < n; i++)
			errors[i - 2] = (rd_kafka_resp_err_t)strtol(words[i], NULL, 10);
		rd_kafka_mock_push_request_errors_array(cluster, (int16_t)a, (size_t)n - 2, errors);
		return true;
	}
	if (strcmp(what, "slow") == 0 && n == 5)
		return rd_kafka_mock_broker_push_request_error_rtts(
			       cluster, (int32_t)a, (int16_t)b, 1, (rd_kafka_resp_err_t)c,
			       (int)strtol(words[4], NULL, 10)) == 0;
	if (strcmp(what, "clear") == 0 && n == 2) {
		rd_kafka_mock_clear_request_errors(cluster, (int16_t)a);
		return true;
	}
	if (strcmp(what, "topic_error") == 0 && n == 3) {
		rd_kafka_mock_topic_set_error(cluster, words[1], (rd_kafka_resp_err_t)b);
		return true;
	}
	if (strcmp(what, "leader") == 0 && n == 4)
		return rd_kafka_mock_partition_set_leader(cluster, words[1], (int32_t)b,
							  (int32_t)c) == 0;
	if (strcmp(what, "down") == 0 && n == 2)
		return rd_kafka_mock_broker_set_down(cluster, (int32_t)a) == 0;
	if (strcmp(what, "up") == 0 && n == 2)
		return rd_kafka_mock_broker_set_up(cluster, (int32_t)a) == 0;
	if (strcmp(what, "rtt") == 0 && n == 3)
		return rd_kafka_mock_broker_set_rtt(cluster, (int32_t)a, (int)b) == 0;
	return false;
}

int
main(int argc, char **argv)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char line[4096], error[512], *words[WORDS], *rest;
	rd_kafka_t *rk;
	int n;

	if (argc != 2)
		die("usage: mock BROKERS");
	set(conf, "log_level", "0");
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error);
	if (rk == NULL)
		die(error);
	cluster = rd_kafka_mock_cluster_new(rk, (int)strtol(argv[1], NULL, 10));
	if (cluster == NULL)
		die("no cluster");
	printf("brokers %s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	fflush(stdout);
	while (fgets(line, sizeof line, stdin) != NULL) {
		n = 0;
		for (char *word = strtok_r(line, " \n", &rest); word != NULL && n < WORDS;
		     word = strtok_r(NULL, " \n", &rest))
			words[n++] = word;
		puts(n > 0 && obey(words, n) ? "ok" : "failed");
		fflush(stdout);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < n_readers; i++) {
		pthread_join(readers[i].thread, NULL);
		fclose(readers[i].to);
		rd_kafka_consumer_close(readers[i].rk);
		rd_kafka_destroy(readers[i].rk);
	}
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(rk);
	return 0;
}
