/*
 * forward_entry: a message that a forwarder knows of, and the orders it stands in.
 *
 * An entry is an id and a file's name; while it is on its way to the target, or fresh
 * from a writer, a batch of one message as well.  All are the forwarder's thread's, but
 * for those that a writer is just making.
 */
#ifndef SINKS_FORWARD_ENTRY_H
#define SINKS_FORWARD_ENTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "message/message.h"

struct forward;

/* What is to be done with it next. */
enum forward_step {
	FORWARD_SEND,
	FORWARD_DONE, /* the target has it: out of new/ */
	FORWARD_FAIL, /* it never will: to failed/ */
};

struct forward_entry {
	struct id id;
	uint64_t due;  /* its own next try */
	uint64_t turn; /* of the writer that brought it */
	struct forward_entry *chain; /* in the table */
	struct forward_entry *next;  /* in a list */
	struct batch *batch;         /* NULL: to be read from disk */
	struct forward_letter *letter; /* the batch's origin */
	const char *why; /* of FORWARD_FAIL */
	uint32_t attempts;
	uint8_t step;
	bool tried; /* handed on before */
	bool probe; /* handed on to see whether the target works again */
	bool known; /* in the table */
	bool broken; /* it could not be read */
	bool early;  /* failed while the target was in trouble: next when that is over, ... */
	bool blamed; /* ... which it was once, and failed again: it waits by itself now */
	char name[];
};

/* Where a batch came from, by value: its connection may be long gone. */
struct forward_letter {
	struct origin origin;
	struct forward *forward;
	struct forward_entry *entry;
	struct net_address local;
	char text[]; /* the listener's name and the certificate's subject */
};

struct forward_entry *forward_entry_new(const struct id *id, const char *name); /* NULL: no memory */
void forward_entry_free(struct forward_entry *entry); /* its batch, too */
void forward_entry_unload(struct forward_entry *entry); /* its batch alone */
size_t forward_entry_held(const struct forward_entry *entry); /* bytes of memory in its batch */

/* By id, then by name: below 0, 0, above. */
int forward_entry_compare(const struct forward_entry *one, const struct forward_entry *other);

/* A heap; what comes before all others is on top. */
struct forward_heap {
	struct forward_entry **items;
	size_t count;
	size_t room;
	bool (*before)(const struct forward_entry *one, const struct forward_entry *other);
};

bool forward_by_id(const struct forward_entry *one, const struct forward_entry *other);
bool forward_by_id_last(const struct forward_entry *one, const struct forward_entry *other);
bool forward_by_due(const struct forward_entry *one, const struct forward_entry *other);

/* Room is made once, for all that will ever be in it.  -1: no memory. */
int forward_heap_open(struct forward_heap *heap, size_t room,
		      bool (*before)(const struct forward_entry *, const struct forward_entry *));
void forward_heap_close(struct forward_heap *heap); /* frees the entries, too */
void forward_heap_put(struct forward_heap *heap, struct forward_entry *entry);
struct forward_entry *forward_heap_take(struct forward_heap *heap);

static inline struct forward_entry *
forward_heap_top(const struct forward_heap *heap)
{
	return heap->count > 0 ? heap->items[0] : NULL;
}

/* Those that a look at the directory is to pass over. */
#define FORWARD_BUCKETS 8192
struct forward_table {
	struct forward_entry **buckets;
	size_t count;
};

int forward_table_open(struct forward_table *table); /* -1: no memory */
void forward_table_close(struct forward_table *table);
bool forward_table_has(const struct forward_table *table, const struct id *id, const char *name);
void forward_table_put(struct forward_table *table, struct forward_entry *entry);
void forward_table_drop(struct forward_table *table, struct forward_entry *entry);

#endif
