/*
 * survey: what the live connections of a worker are doing, for people.
 *
 * The main thread hands a worker a part (survey_ask), of a fixed size; the worker copies
 * what it has into it when its loop comes round, and sends it back.  No lock, and no
 * connection is held up for longer than the copying takes.
 */
#ifndef INTAKE_SURVEY_H
#define INTAKE_SURVEY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "base/inbox.h"
#include "base/net.h"

struct intake;

#define SURVEY_SUBJECT 128 /* bytes of a client's subject that are kept */

struct survey_entry {
	uint64_t id;
	uint64_t age; /* microseconds */
	uint64_t bytes;
	uint64_t messages;
	uint32_t in_flight;
	uint32_t listener; /* place of its name in the part's text */
	uint32_t subject;  /* of the subject; 0: none */
	struct net_address peer;
	const char *waits_for; /* "client", "sinks", "memory", "replies", "rate", "close",
				* "handshake" or "proxy-header" */
};

struct survey_part {
	struct inbox_item ask;
	struct inbox_item answer; /* its run is the asker's */
	struct intake *intake;
	struct survey_entry *entries;
	size_t room, count;
	size_t left_out;
	char *text; /* begins with a NUL */
	size_t text_room, text_used;
	void *owner;
};

/* Room for so many connections; -1: no memory. */
int survey_open(struct survey_part *part, struct intake *intake, size_t room,
		void (*answered)(struct inbox_item *item));
void survey_close(struct survey_part *part);

/* Main thread; until the answer the part is the worker's. */
void survey_ask(struct survey_part *part);

#endif
