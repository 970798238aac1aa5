/*
 * kafka: what the rest of the daemon knows of librdkafka.
 */
#ifndef SINKS_KAFKA_H
#define SINKS_KAFKA_H

#include <stddef.h>
#include <stdio.h>

#include "config/config.h"

#ifdef HAVE_RDKAFKA

/* From here on properties of kafka sinks are checked when a file is read.  Before any is;
 * main thread. */
void kafka_init(void);

/* Makes a client of each kafka sink, one that connects to nobody, for nothing but the
 * errors: files that cannot be read, properties that do not go together.  They are printed
 * as "FILE:LINE: TEXT".  How many there are.  Starts threads and ends them. */
size_t kafka_check(const struct config *config, FILE *to);

/* The library that is used, for people; or that there is none. */
const char *kafka_version(void);

#else

static inline void
kafka_init(void)
{
}

static inline size_t
kafka_check(const struct config *config, FILE *to)
{
	(void)config;
	(void)to;
	return 0;
}

static inline const char *
kafka_version(void)
{
	return "without Kafka";
}

#endif
#endif
