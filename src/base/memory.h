/*
 * memory: what message bytes cost, as allocated.
 *
 * Everything that holds bytes of messages is charged here for as long as it
 * holds them, at the size the allocator gave, not at the size asked for: an
 * evbuffer chain is 1 KiB for one byte.  Charging never fails: whoever is about
 * to hold more asks memory_over first, and spills or stops reading.
 *
 * libevent allocates through this module, so what an evbuffer operation cost
 * is the difference of memory_balance before and after it, in the same thread.
 */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Takes over libevent's allocation; before any other call of libevent. */
void memory_init(uint64_t limit);
void memory_set_limit(uint64_t limit);

/* So many threads allocate all the time; the others, which come and go with what is
 * configured, share their heaps.  Before any other thread. */
void memory_set_threads(unsigned threads);

/* Memory for what clients cause to be held; NULL when there is none. */
void *memory_alloc(size_t size);
void memory_free(void *memory);

/* Whether so much could be allocated now, in pieces.  What was free for a moment stays in
 * the heap, so that the kernel need not be asked again: for libraries that do not look
 * at what malloc(3) returns. */
bool memory_is_there(size_t size);

/* To the system, what is free: after much of it was freed, and seldom, as it takes a while. */
void memory_give_back(void);

/* A reserve of this thread's for libevent, which does not survive that an allocation fails
 * where it makes a bufferevent for TLS or accepts a connection for evhttp (2.1.12: it
 * frees what it has not made yet, or goes on without a callback).  Whoever is about to
 * ask for such a thing fills and opens it; false: it is not full, so do not ask, or not
 * more than once.  Between memory_stock and memory_stock_close what malloc(3) has not comes
 * from there.  memory_unstock gives it back as the thread ends. */
bool memory_stock(void);
void memory_stock_close(void);
void memory_unstock(void);

/* What the allocator gave for it. */
size_t memory_size(void *memory);

void memory_charge(size_t size);
void memory_release(size_t size);

uint64_t memory_used(void);
uint64_t memory_limit(void);
bool memory_over(void); /* at or past the limit: hold no more */
bool memory_room(void); /* below 7/8 of it: those who wait may go on */

/* Bytes that libevent holds on behalf of this thread (allocated minus freed). */
ptrdiff_t memory_balance(void);

#endif
