/*
 * memory: counts, by relaxed atomics, what message bytes cost.  The sum may
 * pass the limit by what workers hold between asking and charging (one read
 * each); see HACKING.md, "Memory".
 */
#include <limits.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <event2/event.h>

#include "base/fault.h"
#include "base/memory.h"

static _Atomic uint64_t used;
static _Atomic uint64_t limit;
static _Thread_local ptrdiff_t balance;

/* A bufferevent for TLS is made of 12 pieces, a connection of evhttp of 24, of 1.2 KiB at the
 * most; and there may be one more before who asks can stop to do so. */
#define STOCK_PIECES 64
#define STOCK_SIZE 2048
static _Thread_local bool stock_open;
static _Thread_local unsigned n_stock;
static _Thread_local void *stock[STOCK_PIECES];

static void *
stocked_malloc(size_t size)
{
	void *p = malloc(size);

	if (p == NULL && stock_open && size <= STOCK_SIZE && n_stock > 0)
		p = stock[--n_stock];
	return p;
}

static void *
counted_malloc(size_t size)
{
	void *p = stocked_malloc(size);

	if (p != NULL)
		balance += (ptrdiff_t)malloc_usable_size(p);
	return p;
}

static void *
counted_realloc(void *old, size_t size)
{
	ptrdiff_t before = (ptrdiff_t)malloc_usable_size(old);
	void *p = realloc(old, size);

	if (p != NULL)
		balance += (ptrdiff_t)malloc_usable_size(p) - before;
	return p;
}

static void
counted_free(void *p)
{
	balance -= (ptrdiff_t)malloc_usable_size(p);
	free(p);
}

void
memory_init(uint64_t bytes)
{
	/* What is given back here is soon wanted again: without these, buffers of a few
	 * chunks go to the kernel and come back as fresh pages all the time (measured:
	 * 10 page faults a MB in bulk, none with them, and a quarter less CPU). */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	mallopt(M_MMAP_THRESHOLD, 32 << 20);
	event_set_mem_functions(counted_malloc, counted_realloc, counted_free);
	memory_set_limit(bytes);
}

void
memory_set_threads(unsigned threads)
{
	/* glibc makes eight heaps a processor, if there are as many threads, and what is at the
	 * end of one keeps all of it: with a reload every three seconds and all kinds of sinks
	 * what was resident went on to grow for half an hour, with no more in use. */
	mallopt(M_ARENA_MAX, threads < INT_MAX ? (int)threads : INT_MAX);
	/* Where a sanitizer's malloc stands before glibc's, the first of these sets glibc's up,
	 * which it does not do for two threads at once (memory_give_back). */
	malloc_trim(0);
}

void
memory_set_limit(uint64_t bytes)
{
	atomic_store_explicit(&limit, bytes, memory_order_relaxed);
}

void *
memory_alloc(size_t size)
{
	return fault_malloc(size);
}

void
memory_free(void *memory)
{
	free(memory);
}

bool
memory_stock(void)
{
	void *p;

	while (n_stock < STOCK_PIECES && (p = malloc(STOCK_SIZE)) != NULL)
		stock[n_stock++] = p;
	stock_open = true;
	return n_stock == STOCK_PIECES;
}

void
memory_stock_close(void)
{
	stock_open = false;
}

void
memory_unstock(void)
{
	while (n_stock > 0)
		free(stock[--n_stock]);
}

bool
memory_is_there(size_t size)
{
	void *volatile memory = malloc(size); /* or it would be optimized away */
	bool there = memory != NULL;

	free(memory);
	return there;
}

void
memory_give_back(void)
{
	malloc_trim(0);
}

size_t
memory_size(void *memory)
{
	return malloc_usable_size(memory);
}

void
memory_charge(size_t size)
{
	atomic_fetch_add_explicit(&used, size, memory_order_relaxed);
}

void
memory_release(size_t size)
{
	atomic_fetch_sub_explicit(&used, size, memory_order_relaxed);
}

uint64_t
memory_used(void)
{
	return atomic_load_explicit(&used, memory_order_relaxed);
}

uint64_t
memory_limit(void)
{
	return atomic_load_explicit(&limit, memory_order_relaxed);
}

bool
memory_over(void)
{
	uint64_t most = memory_limit();

	return most != 0 && memory_used() >= most;
}

bool
memory_room(void)
{
	uint64_t most = memory_limit();

	return most == 0 || memory_used() < most - most / 8;
}

ptrdiff_t
memory_balance(void)
{
	return balance;
}
