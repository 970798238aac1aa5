/*
 * kafka_producer: what the parts of the kafka sink share: its loop (kafka.c), a producer of
 * librdkafka's (kafka_producer.c, kafka_conf.c), a message as its record (kafka_record.c)
 * and what became of it (kafka_answer.c).
 *
 * Two threads.  The writer takes deliveries, hands their messages to the producer, waits
 * when it is full, and makes another producer when one is beyond use.  The reporter belongs
 * to a producer: it takes its reports and answers.  librdkafka's own threads call nothing
 * of ours but the log.
 */
#ifndef SINKS_KAFKA_PRODUCER_H
#define SINKS_KAFKA_PRODUCER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <librdkafka/rdkafka.h>

#include "sinks/queue.h"
#include "sinks/sink.h"
#include "sinks/valve.h"

#define KAFKA_ERROR_LEN 512

/* What librdkafka allocates for a record besides its bytes: its own struct, key, headers.
 * Seen from outside (mallinfo2, 2.0.2) 976 bytes, 1,088 with a certificate's subject of 40;
 * charged to memory. */
#define KAFKA_RECORD_COST 1152

/* The library's lines on their way to our log.  Any thread. */
struct kafka_log {
	pthread_mutex_t lock;
	struct valve valve;
	const char *sink;
};

enum kafka_ticket_state { KAFKA_WAITS, KAFKA_IN_FLIGHT, KAFKA_DONE };

/* A message's place in its work. */
struct kafka_ticket {
	struct kafka_work *work;
	void *copy; /* its bytes, where they did not lie in one piece of memory */
	enum kafka_ticket_state state;
};

/* A delivery that has not been answered. */
struct kafka_work {
	struct kafka_work *next; /* in kafka.works */
	struct kafka_work **at;
	struct delivery *delivery;
	atomic_uint pending; /* messages that are not done; one more while it is sent */
	atomic_uint n_failed;
	atomic_uint n_refused;
	size_t charged;
	struct kafka_ticket tickets[];
};

struct kafka {
	struct sink *sink;
	struct queue queue;
	struct kafka_log log;
	char what[300]; /* in messages: the topic */
	pthread_t thread;
	bool started;
	atomic_bool hurried;
	atomic_bool fatal;  /* the producer is beyond use */
	atomic_bool shrink; /* its batches are larger than the topic takes */
	atomic_bool succeeded; /* something was accepted since the writer looked */
	atomic_bool down;   /* no broker can be reached, as far as is known */
	_Atomic uint64_t last_failure; /* clock_now; 0: none since the last success */

	pthread_mutex_t lock; /* of the following */
	pthread_cond_t reported;
	uint64_t reports; /* so far */
	uint64_t in_flight; /* messages */
	struct kafka_work *works;
	char why[200]; /* the last thing that a producer complained of */

	/* The writer's own. */
	struct kafka_producer *producer; /* NULL: none could be made */
	bool unopened; /* the last attempt to make one failed */
	size_t batch_size; /* 0: as configured */
	uint64_t next_open; /* not before; clock_now */
	uint64_t next_probe; /* 0: none is due */
	uint64_t probe_delay;
};

/* kafka_conf.c: settings and properties as librdkafka takes them; without the brokers it
 * connects to nobody.  NULL: error says why. */
rd_kafka_conf_t *kafka_conf_new(const struct config_sink *config, bool brokers,
				char error[KAFKA_ERROR_LEN]);
/* A property that is a number; 0 where it cannot be told. */
size_t kafka_conf_number(const rd_kafka_conf_t *conf, const char *name);
/* Says how many lines were held back. */
void kafka_log_end(struct kafka_log *log);

/* kafka_producer.c */
struct kafka_producer {
	struct kafka *kafka;
	rd_kafka_t *rk;
	rd_kafka_topic_t *topic;
	rd_kafka_queue_t *queue; /* of reports and errors */
	size_t max_size; /* of a record */
	size_t batch_size;
	pthread_t reporter;
	atomic_bool stop;
};

/* A condition that waits by CLOCK_MONOTONIC.  An error of errno.h. */
int kafka_cond_init(pthread_cond_t *cond);

/* Makes one and starts its threads; brokers need not be there.  NULL: error says why.
 * Writer, or main before there is one. */
struct kafka_producer *kafka_producer_open(struct kafka *kafka, char error[KAFKA_ERROR_LEN]);
/* Ends it and all that is in flight (with reports, as far as they come), within seconds.
 * The same threads. */
void kafka_producer_close(struct kafka_producer *producer);
/* Whether it finds brokers and the topic; waits a second at most.  NULL: it does, else why
 * not, in error. */
const char *kafka_producer_probe(struct kafka_producer *producer, char error[KAFKA_ERROR_LEN]);

/* kafka_record.c: hands a message over; its ticket will be reported, unless the result
 * is an error.  Writer. */
enum kafka_sent {
	KAFKA_SENT,
	KAFKA_FULL,      /* try again once something was reported */
	KAFKA_FATAL,     /* the producer is beyond use */
	KAFKA_TOO_LARGE,
	KAFKA_LOST,      /* its bytes could not be read: errno */
	KAFKA_FAILED,    /* error says why */
};
enum kafka_sent kafka_record_send(struct kafka_producer *producer, struct kafka_ticket *ticket,
				  const struct batch *batch, const struct message *message,
				  char error[KAFKA_ERROR_LEN]);

/* kafka_answer.c.  A work is answered when all its messages are done and it was released. */
struct kafka_work *kafka_work_new(struct kafka *kafka, struct delivery *delivery); /* NULL: no memory */
void kafka_work_release(struct kafka *kafka, struct kafka_work *work);
/* The verdict on one message.  The thread that has its ticket. */
void kafka_settle(struct kafka *kafka, struct kafka_ticket *ticket, enum outcome outcome);
/* A report or an error.  Reporter; frees the event. */
void kafka_take_event(struct kafka_producer *producer, rd_kafka_event_t *event);
/* All that was in flight in a producer that is no more.  Writer. */
void kafka_settle_all(struct kafka *kafka, enum outcome outcome);

#endif
