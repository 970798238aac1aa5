/*
 * chunk: the memory that connections read into.
 *
 * Each listener of a worker reads into one chunk, over and over.  When what a
 * read brought is worth more than copying, the chunk itself is handed on (to a
 * batch, to a message in progress, to the unparsed rest of a connection) and
 * the next read takes another.  References are counted, by the worker alone:
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

/* Whether so many bytes of the chunk are better pointed to than copied: what is
 * held stays within a small multiple of what is asked for. */
static inline int
chunk_is_worth(const struct chunk *chunk, size_t bytes)
{
	return bytes >= chunk->size / 4;
}

#endif
