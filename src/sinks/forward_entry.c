/*
 * forward_entry: see forward_entry.h.
 */
#include "sinks/forward_entry.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct forward_entry *
forward_entry_new(const struct id *id, const char *name)
{
	size_t len = strlen(name) + 1;
	struct forward_entry *entry = memory_alloc(sizeof(*entry) + len);

	if (entry == NULL)
		return NULL;
	*entry = (struct forward_entry){.id = *id};
	memcpy(entry->name, name, len);
	return entry;
}

void
forward_entry_unload(struct forward_entry *entry)
{
	if (entry->batch != NULL)
		batch_free(entry->batch);
	if (entry->letter != NULL)
		memory_free(entry->letter);
	entry->batch = NULL;
	entry->letter = NULL;
}

void
forward_entry_free(struct forward_entry *entry)
{
	forward_entry_unload(entry);
	memory_free(entry);
}

size_t
forward_entry_held(const struct forward_entry *entry)
{
	return entry->batch != NULL ? entry->batch->charged : 0;
}

static int
compare_ids(const struct id *one, const struct id *other)
{
	if (one->high != other->high)
		return one->high < other->high ? -1 : 1;
	if (one->low != other->low)
		return one->low < other->low ? -1 : 1;
	return 0;
}

int
forward_entry_compare(const struct forward_entry *one, const struct forward_entry *other)
{
	int order = compare_ids(&one->id, &other->id);

	return order != 0 ? order : strcmp(one->name, other->name);
}

bool
forward_by_id(const struct forward_entry *one, const struct forward_entry *other)
{
	return forward_entry_compare(one, other) < 0;
}

bool
forward_by_id_last(const struct forward_entry *one, const struct forward_entry *other)
{
	return forward_entry_compare(one, other) > 0;
}

bool
forward_by_due(const struct forward_entry *one, const struct forward_entry *other)
{
	return one->due < other->due;
}

/* -------------------------------------------------------------------- heap */

int
forward_heap_open(struct forward_heap *heap, size_t room,
		  bool (*before)(const struct forward_entry *, const struct forward_entry *))
{
	*heap = (struct forward_heap){.room = room, .before = before};
	heap->items = calloc(room, sizeof(struct forward_entry *));
	return heap->items == NULL ? -1 : 0;
}

void
forward_heap_close(struct forward_heap *heap)
{
	while (heap->count > 0)
		forward_entry_free(heap->items[--heap->count]);
	free(heap->items);
	heap->items = NULL;
}

void
forward_heap_put(struct forward_heap *heap, struct forward_entry *entry)
{
	size_t at = heap->count++, parent;

	for (; at > 0; at = parent) {
		parent = (at - 1) / 2;
		if (!heap->before(entry, heap->items[parent]))
			break;
		heap->items[at] = heap->items[parent];
	}
	heap->items[at] = entry;
}

struct forward_entry *
forward_heap_take(struct forward_heap *heap)
{
	struct forward_entry *top = heap->items[0], *last = heap->items[--heap->count];
	size_t at = 0, child;

	while ((child = 2 * at + 1) < heap->count) {
		if (child + 1 < heap->count &&
		    heap->before(heap->items[child + 1], heap->items[child]))
			child++;
		if (!heap->before(heap->items[child], last))
			break;
		heap->items[at] = heap->items[child];
		at = child;
	}
	heap->items[at] = last;
	return top;
}

/* ------------------------------------------------------------------- table */

/* The low half of an id is chance, and counts up within a millisecond. */
static struct forward_entry **
bucket(const struct forward_table *table, const struct id *id)
{
	return &table->buckets[(id->low ^ id->low >> 32) % FORWARD_BUCKETS];
}

int
forward_table_open(struct forward_table *table)
{
	table->count = 0;
	table->buckets = calloc(FORWARD_BUCKETS, sizeof(struct forward_entry *));
	return table->buckets == NULL ? -1 : 0;
}

void
forward_table_close(struct forward_table *table)
{
	free(table->buckets);
	table->buckets = NULL;
}

bool
forward_table_has(const struct forward_table *table, const struct id *id, const char *name)
{
	const struct forward_entry *entry;

	for (entry = *bucket(table, id); entry != NULL; entry = entry->chain)
		if (compare_ids(&entry->id, id) == 0 && strcmp(entry->name, name) == 0)
			return true;
	return false;
}

void
forward_table_put(struct forward_table *table, struct forward_entry *entry)
{
	struct forward_entry **at = bucket(table, &entry->id);

	entry->chain = *at;
	*at = entry;
	entry->known = true;
	table->count++;
}

void
forward_table_drop(struct forward_table *table, struct forward_entry *entry)
{
	struct forward_entry **at;

	if (!entry->known)
		return;
	at = bucket(table, &entry->id);
	while (*at != entry)
		at = &(*at)->chain;
	*at = entry->chain;
	entry->known = false;
	table->count--;
}
