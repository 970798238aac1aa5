/*
 * chunk: a few spare ones are kept, so that a steady stream allocates nothing.
 */
#include "base/memory.h"
#include "message/chunk.h"

#define READS 32            /* that fit into a chunk, ... */
#define CHUNK_MOST 524288   /* ... unless it were larger than this */
#define SPARE_BYTES 2097152 /* at most so much is kept spare a pool, or one chunk */

size_t
chunk_size(size_t read_size)
{
	if (read_size >= CHUNK_MOST)
		return read_size;
	return read_size < CHUNK_MOST / READS ? read_size * READS : CHUNK_MOST;
}

void
chunk_pool_init(struct chunk_pool *pool, size_t size)
{
	*pool = (struct chunk_pool){.size = size};
}

void
chunk_pool_clear(struct chunk_pool *pool)
{
	struct chunk *chunk;

	while ((chunk = pool->spare) != NULL) {
		pool->spare = chunk->next;
		memory_free(chunk);
	}
	pool->n_spare = 0;
}

struct chunk *
chunk_get(struct chunk_pool *pool)
{
	struct chunk *chunk = pool->spare;

	if (chunk != NULL) {
		pool->spare = chunk->next;
		pool->n_spare--;
	} else {
		chunk = memory_alloc(sizeof(*chunk) + pool->size);
		if (chunk == NULL)
			return NULL;
		chunk->pool = pool;
		chunk->size = pool->size;
	}
	chunk->next = NULL;
	chunk->references = 1;
	memory_charge(memory_size(chunk));
	return chunk;
}

struct chunk *
chunk_ref(struct chunk *chunk)
{
	chunk->references++;
	return chunk;
}

void
chunk_unref(struct chunk *chunk)
{
	struct chunk_pool *pool = chunk->pool;

	if (--chunk->references > 0)
		return;
	memory_release(memory_size(chunk));
	if (pool->n_spare > 0 && (pool->n_spare + 1) * pool->size > SPARE_BYTES) {
		memory_free(chunk);
		return;
	}
	chunk->next = pool->spare;
	pool->spare = chunk;
	pool->n_spare++;
}
