/*
 * reads: the memory that a worker's listeners read into.
 *
 * All that read in pieces of one size share one: a read is over before the next one
 * begins, whoever it is for.  So what waits for reads is a fixed cost of a worker, and not
 * one of each listener.
 *
 * Its worker's alone, once it is shared; before, its maker's.
 */
#ifndef INTAKE_READS_H
#define INTAKE_READS_H

#include <stddef.h>

#include "message/chunk.h"

struct reads {
	struct reads *next;
	size_t users; /* listeners */
	struct chunk_pool pool;
	struct chunk *landing; /* what reads go into ... */
	size_t landed;         /* ... from here on; what lies before is somebody's */
};

/* For reads of so many bytes, with one user.  NULL: no memory. */
struct reads *reads_new(size_t read_size);

/* The one in `all` for pieces of that size instead of the caller's, which is put there if
 * there is none. */
struct reads *reads_share(struct reads **all, struct reads *reads);

/* A user fewer, to whose chunks nobody refers any more; the last one frees it.  It need not
 * have been shared. */
void reads_leave(struct reads **all, struct reads *reads);

/* A chunk to read into that nobody else refers to.  It begins with the given bytes, which
 * may lie in the one that it replaces.  NULL: no memory. */
struct chunk *reads_landing(struct reads *reads, const void *bytes, size_t len);

/* Gives back what is kept for the next reads; they find new memory.  Not within a read. */
void reads_rest(struct reads *reads);

#endif
