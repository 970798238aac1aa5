/*
 * outbox: the messages that have been read from the input and not been answered for
 * for good.  Bounded: OUTBOX_MOST, however many there are to send.
 */
#ifndef TOOL_OUTBOX_H
#define TOOL_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tool/input.h"

#define OUTBOX_MOST 4096

struct outbox_item {
	struct input_item item;
	bool done; /* accepted or rejected: never to be sent again */
};

struct outbox {
	struct input *input;
	struct outbox_item *items; /* in the order of the input */
	size_t count;
	bool drained; /* the input has no more */
	uint64_t accepted;
	uint64_t rejected;
	uint64_t bytes; /* of those */
};

void outbox_open(struct outbox *outbox, struct input *input);
void outbox_close(struct outbox *outbox);

/* The item of that number, read from the input where need be.  1; 0: there is none, or no
 * room for it; -1: the input has failed. */
int outbox_at(struct outbox *outbox, size_t number, struct outbox_item **item);

void outbox_done(struct outbox *outbox, struct outbox_item *item, bool accepted);

/* Forgets what is done among the first `most` items; returns how many those were. */
size_t outbox_compact(struct outbox *outbox, size_t most);

/* Whether all is done. */
int outbox_is_empty(struct outbox *outbox);

#endif
