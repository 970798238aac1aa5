/*
 * kinds: the kinds of sinks there are, for the list in sink.c.
 */
#ifndef SINKS_KINDS_H
#define SINKS_KINDS_H

#include "sinks/sink.h"

extern const struct sink_kind sink_kind_command; /* command.c */
extern const struct sink_kind sink_kind_console; /* console.c */
extern const struct sink_kind sink_kind_kafka;   /* kafka.c, with librdkafka only */
extern const struct sink_kind sink_kind_file;    /* file.c */
extern const struct sink_kind sink_kind_nats;    /* nats.c */
extern const struct sink_kind sink_kind_spool;   /* spool.c */

#endif
