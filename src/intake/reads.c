/*
 * reads: see reads.h.  There are as many as there are values of buffer_size in force, so
 * a list does.
 */
#include "intake/reads.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

static void
leave_landing(struct reads *reads)
{
	if (reads->landing == NULL)
		return;
	memory_charge(memory_size(reads->landing));
	chunk_unref(reads->landing);
	reads->landing = NULL;
}

struct reads *
reads_new(size_t read_size)
{
	struct reads *reads = calloc(1, sizeof(*reads));

	if (reads == NULL)
		return NULL;
	reads->users = 1;
	chunk_pool_init(&reads->pool, chunk_size(read_size));
	return reads;
}

struct reads *
reads_share(struct reads **all, struct reads *reads)
{
	struct reads *one;

	for (one = *all; one != NULL; one = one->next)
		if (one->pool.size == reads->pool.size) {
			one->users++;
			free(reads);
			return one;
		}
	reads->next = *all;
	*all = reads;
	return reads;
}

void
reads_leave(struct reads **all, struct reads *reads)
{
	if (--reads->users > 0)
		return;
	while (*all != NULL && *all != reads)
		all = &(*all)->next;
	if (*all == reads)
		*all = reads->next;
	reads_rest(reads);
	free(reads);
}

struct chunk *
reads_landing(struct reads *reads, const void *bytes, size_t len)
{
	struct chunk *fresh;

	if (reads->landing == NULL || reads->landing->references > 1) {
		fresh = chunk_get(&reads->pool);
		if (fresh == NULL)
			return NULL;
		/* The chunk that waits for the next read is a fixed cost, and not charged;
		 * it is once only others hold it. */
		memory_release(memory_size(fresh));
		if (len > 0)
			memcpy(fresh->data, bytes, len);
		leave_landing(reads);
		reads->landing = fresh;
	} else if (len > 0) {
		memmove(reads->landing->data, bytes, len);
	}
	reads->landed = len;
	return reads->landing;
}

void
reads_rest(struct reads *reads)
{
	leave_landing(reads);
	chunk_pool_clear(&reads->pool);
}
