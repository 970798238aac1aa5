/*
 * body: the bytes of a message that did not come in one piece.
 *
 * In memory as an evbuffer: small reads are copied together, large ones moved
 * (the evbuffer points into the chunk they were read into).  Spilled, they lie
 * in a file without a name, in spill_directory or straight in a spool's
 * directory, where the spool links it instead of copying.
 *
 * Made, grown and freed by the worker that owns the connection; once it is part
 * of a batch the sinks only read it (cursor_next, body_file).
 */
#ifndef MESSAGE_BODY_H
#define MESSAGE_BODY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct chunk;
struct evbuffer;

struct body {
	struct evbuffer *memory; /* NULL once spilled */
	int file;                /* -1: not spilled */
	bool linkable;           /* the file may be given a name by linkat(2) */
	dev_t device;            /* of the file */
	uint64_t size;
	size_t charged;
	pthread_mutex_t lock; /* of error: what the file lost, once anyone was told */
	int error;
};

struct body *body_new(void); /* NULL: no memory */
void body_free(struct body *body);

/* One over a file that is there already, of that size: the descriptor is the body's
 * from now on, and nobody is to give it another name.  NULL: no memory, and the
 * descriptor is the caller's still. */
struct body *body_of_file(int file, uint64_t size);

/* Adds bytes: by reference to the chunk that they lie in, or (NULL) as a copy.
 * Returns 0, or -1 with errno; then the body is beyond use but for body_free. */
int body_append(struct body *body, const void *bytes, size_t len, struct chunk *chunk);

/* Moves what it holds from memory to a new file without a name in directory;
 * nothing to do where it is there already.  0, or -1 with errno: then the
 * body is as it was. */
int body_spill(struct body *body, const char *directory, mode_t mode);

/* Whether all that was written to its file (if it has one) is there: the kernel tells
 * of bytes that it failed to write out once, so the first sink that asks is told and
 * the answer kept for the others.  Ask after reading.  durable: syncs it, too.  0, or
 * -1 with errno.  Any thread. */
int body_verify(struct body *body, bool durable);

/* A new file without a name; *linkable: it can be given one.  -1: errno. */
int body_open_unnamed(const char *directory, mode_t mode, bool *linkable);

/* Writes all of the bytes, whatever a call of write(2) takes.  0, or -1 with errno. */
int body_write_all(int fd, const unsigned char *bytes, size_t len);

#endif
