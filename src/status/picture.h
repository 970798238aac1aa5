/*
 * picture: all figures at one moment, for whoever writes them down (metrics, JSON, the
 * page).  It refers to names of the reign, and is to be written before the main loop
 * goes on.  Main thread.
 */
#ifndef STATUS_PICTURE_H
#define STATUS_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "intake/counters.h"

struct account;
struct census;
struct history;
struct listener_group;
struct reign;
struct survey_part;

struct picture_listener {
	const char *name;
	const struct listener_group *group; /* in force; NULL: it is no more */
	struct counters counters;
};

struct picture_sink {
	const char *name;
	const char *type;             /* NULL: none of that name is open any more */
	const struct account *account;
	uint64_t waiting;
	bool trouble;
	char why[160];
};

struct picture {
	const struct reign *reign;
	const struct history *history;
	struct census *census; /* NULL: none */
	uint64_t started;    /* wall time */
	uint64_t started_at; /* clock_now */
	bool stopping;
	bool stuck;          /* a worker */
	bool short_of_memory; /* for a while */
	const struct survey_part *parts; /* of live connections; NULL: not asked for */
	unsigned n_parts;
	size_t left_out; /* by workers that did not answer in time, and for want of room */

	/* Filled in by picture_take: */
	struct picture_listener *listeners;
	size_t n_listeners;
	struct picture_sink *sinks;
	size_t n_sinks;
	struct counters total;
};

/* -1: no memory. */
int picture_take(struct picture *picture);
void picture_clear(struct picture *picture);

/* Reasons why no messages are accepted, one after another; 0: ready. */
size_t picture_reasons(const struct picture *picture, void (*each)(const char *text, void *arg),
		       void *arg);

/* The words of metrics and JSON for places in struct counters. */
#define PICTURE_DISCARDS (ENDED_COUNT - ENDED_RESET)
const char *picture_refusal(unsigned i);
const char *picture_discard(unsigned i);
const char *picture_tls_failure(unsigned i);

#endif
