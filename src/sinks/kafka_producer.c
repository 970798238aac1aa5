/*
 * kafka_producer: a producer of librdkafka's, from its making to its end.
 *
 * The end must not take long whatever the network does: what is in flight is purged, the
 * reports that this brings are waited for (they come in milliseconds, but for a thread of
 * the library that waits for a name server), and rd_kafka_destroy, which joins all of the
 * library's threads, has a thread of its own that is left behind when it hangs.  A client
 * that is ending sends nothing any more, so by then nobody reads what is answered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "sinks/kafka_producer.h"

#define REPORTS_WAIT 2 /* seconds for reports of what was purged, ... */
#define DESTROY_WAIT 3 /* ... and for the library's threads */
#define POLL 10000     /* milliseconds; the reporter is woken when there is something */
#define PROBE_WAIT 1000

int
kafka_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;
	int error = pthread_condattr_init(&attributes);

	if (error != 0)
		return error;
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* is a clock */
	error = pthread_cond_init(cond, &attributes);
	pthread_condattr_destroy(&attributes);
	return error;
}

static void *
report(void *arg)
{
	struct kafka_producer *producer = arg;
	rd_kafka_event_t *event;

	while (!atomic_load(&producer->stop))
		if ((event = rd_kafka_queue_poll(producer->queue, POLL)) != NULL)
			kafka_take_event(producer, event);
	while ((event = rd_kafka_queue_poll(producer->queue, 0)) != NULL)
		kafka_take_event(producer, event);
	return NULL;
}

/* ----------------------------------------------------------------- its end */

/* Who comes last frees it: the thread that destroys, or who waits for it. */
struct grave {
	rd_kafka_t *rk;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool done;
	bool left;
};

static void
grave_free(struct grave *grave)
{
	pthread_cond_destroy(&grave->wake);
	pthread_mutex_destroy(&grave->lock);
	free(grave);
}

static void *
bury(void *arg)
{
	struct grave *grave = arg;
	bool left;

	rd_kafka_destroy(grave->rk);
	pthread_mutex_lock(&grave->lock);
	grave->done = true;
	left = grave->left;
	pthread_cond_signal(&grave->wake);
	pthread_mutex_unlock(&grave->lock);
	if (left)
		grave_free(grave);
	return NULL;
}

/* NULL: no memory, or no thread. */
static struct grave *
dig(rd_kafka_t *rk, pthread_t *thread)
{
	struct grave *grave = calloc(1, sizeof(*grave));

	if (grave == NULL)
		return NULL;
	grave->rk = rk;
	if (kafka_cond_init(&grave->wake) != 0) {
		free(grave);
		return NULL;
	}
	pthread_mutex_init(&grave->lock, NULL); /* cannot fail with no attributes */
	if (thread_start(thread, "kafka-end", NULL, bury, grave) == 0)
		return grave;
	grave_free(grave);
	return NULL;
}

/* False: it did not end in time, and is left. */
static bool
destroy(rd_kafka_t *rk)
{
	struct timespec until;
	pthread_t thread;
	struct grave *grave = dig(rk, &thread);
	bool done;

	if (grave == NULL) {
		rd_kafka_destroy(rk);
		return true;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += DESTROY_WAIT;
	pthread_mutex_lock(&grave->lock);
	while (!grave->done &&
	       pthread_cond_timedwait(&grave->wake, &grave->lock, &until) != ETIMEDOUT)
		;
	done = grave->done;
	grave->left = !done;
	pthread_mutex_unlock(&grave->lock);
	if (!done) {
		pthread_detach(thread);
		return false;
	}
	pthread_join(thread, NULL);
	grave_free(grave);
	return true;
}

/* Until nothing is in flight any more, or for so many seconds. */
static void
wait_for_reports(struct kafka *k, time_t seconds)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&k->lock);
	while (k->in_flight > 0 &&
	       pthread_cond_timedwait(&k->reported, &k->lock, &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&k->lock);
}

void
kafka_producer_close(struct kafka_producer *producer)
{
	struct kafka *k = producer->kafka;

	/* Without NON_BLOCKING it would wait for each of the library's threads. */
	rd_kafka_purge(producer->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
					     RD_KAFKA_PURGE_F_NON_BLOCKING);
	wait_for_reports(k, REPORTS_WAIT);
	atomic_store(&producer->stop, true);
	rd_kafka_queue_yield(producer->queue);
	pthread_join(producer->reporter, NULL);
	rd_kafka_queue_destroy(producer->queue);
	rd_kafka_topic_destroy(producer->topic);
	if (!destroy(producer->rk))
		log_event(LOG_LEVEL_WARNING, "kafka-left",
			  "sink %s: %s: the client did not end within %d seconds, and is left to "
			  "itself", k->sink->config->name, k->what, DESTROY_WAIT);
	free(producer);
}

/* --------------------------------------------------------------- its begin */

/* Each broker has a thread of the library's.  Where none could be made the client would never
 * connect again; rd_kafka_new says nothing of it, but this counts those that there are. */
static bool
has_brokers(struct kafka_producer *producer)
{
	const struct config_strings *brokers = &producer->kafka->sink->config->brokers;
	int count = 0;

	for (size_t i = 0; i < brokers->count; i++)
		count += rd_kafka_brokers_add(producer->rk, brokers->items[i]);
	return count > 0;
}

static bool
start(struct kafka_producer *producer, char error[KAFKA_ERROR_LEN])
{
	int code;

	if (!has_brokers(producer)) {
		snprintf(error, KAFKA_ERROR_LEN, "no thread for a broker");
		return false;
	}
	producer->topic = rd_kafka_topic_new(producer->rk, producer->kafka->sink->config->topic,
					     NULL);
	if (producer->topic == NULL) {
		snprintf(error, KAFKA_ERROR_LEN, "%s", rd_kafka_err2str(rd_kafka_last_error()));
		return false;
	}
	producer->queue = rd_kafka_queue_get_main(producer->rk);
	code = thread_start(&producer->reporter, "report", producer->kafka->sink->config->name,
			    report, producer);
	if (code == 0)
		return true;
	snprintf(error, KAFKA_ERROR_LEN, "%s", strerror(code));
	rd_kafka_queue_destroy(producer->queue);
	rd_kafka_topic_destroy(producer->topic);
	return false;
}

struct kafka_producer *
kafka_producer_open(struct kafka *k, char error[KAFKA_ERROR_LEN])
{
	struct kafka_producer *producer = calloc(1, sizeof(*producer));
	rd_kafka_conf_t *conf;
	char size[24];

	if (producer == NULL) {
		snprintf(error, KAFKA_ERROR_LEN, "%s", strerror(errno));
		return NULL;
	}
	conf = kafka_conf_new(k->sink->config, true, error);
	if (conf == NULL)
		goto failed;
	producer->kafka = k;
	snprintf(size, sizeof size, "%zu", k->batch_size);
	if (k->batch_size != 0 && rd_kafka_conf_set(conf, "batch.size", size, error,
						    KAFKA_ERROR_LEN) != RD_KAFKA_CONF_OK)
		goto failed;
	producer->max_size = kafka_conf_number(conf, "message.max.bytes");
	producer->batch_size = kafka_conf_number(conf, "batch.size");
	if (producer->batch_size > producer->max_size)
		producer->batch_size = producer->max_size;
	rd_kafka_conf_set_opaque(conf, &k->log);
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
	producer->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, KAFKA_ERROR_LEN);
	if (producer->rk == NULL)
		goto failed;
	if (start(producer, error))
		return producer;
	rd_kafka_destroy(producer->rk); /* it knows no broker yet */
	free(producer);
	return NULL;
failed:
	if (conf != NULL)
		rd_kafka_conf_destroy(conf);
	free(producer);
	return NULL;
}

const char *
kafka_producer_probe(struct kafka_producer *producer, char error[KAFKA_ERROR_LEN])
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t code = rd_kafka_metadata(producer->rk, 0, producer->topic, &metadata,
						     PROBE_WAIT);
	bool led = false;

	if (code != RD_KAFKA_RESP_ERR_NO_ERROR) {
		snprintf(error, KAFKA_ERROR_LEN, "%s", rd_kafka_err2str(code));
		return error;
	}
	if (metadata->topic_cnt != 1)
		code = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
	else if (metadata->topics[0].err != RD_KAFKA_RESP_ERR_NO_ERROR)
		code = metadata->topics[0].err;
	else
		for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
			led = led || metadata->topics[0].partitions[i].leader != -1;
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR && !led)
		code = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
	rd_kafka_metadata_destroy(metadata);
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
		return NULL;
	snprintf(error, KAFKA_ERROR_LEN, "%s", rd_kafka_err2str(code));
	return error;
}
