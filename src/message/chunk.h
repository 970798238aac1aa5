/*
 * chunk: the memory that connections read into.
 *
 * A worker reads into one chunk, over and over (intake/reads.h).  When what a
 * read brought is worth more than copying, it is referred to where it lies (by a
 * batch, by a message in progress, by the unparsed rest of a connection), the
 * next reads go behind it, and when there is no room left, to another chunk.  References are counted, by the worker alone:
 * all that refers to a chunk is freed there.
 *
 * A chunk is charged to memory from chunk_get to its last chunk_unref.
 */
#ifndef MESSAGE_CHUNK_H
#define MESSAGE_CHUNK_H

#include <stddef.h>

struct chunk {
	struct chunk *next; /* while it is spare */
	struct chunk_pool *pool;
	size_t references;
	size_t size; /* of data */
	unsigned char data[];
};

struct chunk_pool {
	struct chunk *spare;
	unsigned n_spare;
	size_t size;
};

void chunk_pool_init(struct chunk_pool *pool, size_t size);
void chunk_pool_clear(struct chunk_pool *pool); /* all its chunks have come home */

struct chunk *chunk_get(struct chunk_pool *pool); /* one reference; NULL: no memory */
struct chunk *chunk_ref(struct chunk *chunk);
void chunk_unref(struct chunk *chunk);

/* The size of chunks for reads of so many bytes.  Some fit one behind the other, so
 * that most messages that go on from one read to the next lie in one piece. */
size_t chunk_size(size_t read_size);

/* Whether so many bytes of the chunk are better pointed to than copied, by a message
 * in progress: what is held stays within a small multiple of what is asked for. */
static inline int
chunk_is_worth(const struct chunk *chunk, size_t bytes)
{
	return bytes >= chunk->size / 32;
}

/* The same by a batch, which the sinks give back soon. */
static inline int
chunk_is_worth_batch(const struct chunk *chunk, size_t bytes)
{
	return bytes >= chunk->size / 128;
}

#endif
