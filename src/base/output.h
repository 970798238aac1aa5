/*
 * output: buffered, vectored writing to a descriptor.
 *
 * Small pieces are copied into a buffer, large ones (and pieces that follow
 * one another in memory) are only pointed to, and all goes out by writev(2).
 * What is pointed to must stay until the next flush.  Used by writer threads:
 * it may block in write.
 */
#ifndef BASE_OUTPUT_H
#define BASE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define OUTPUT_BUFFER 262144
#define OUTPUT_PIECES 512

struct output {
	int fd;
	int error;          /* errno of the first failure; then all is dropped until output_reset */
	uint64_t written;   /* bytes that reached the descriptor since output_reset */
	size_t used;        /* of buffer */
	unsigned n_pieces;
	struct iovec pieces[OUTPUT_PIECES];
	unsigned char *buffer;
	/* Called when a non-blocking descriptor is full: waits until it is writable
	 * again and returns 0, or -1 with errno to give up.  NULL: poll(2). */
	int (*wait)(struct output *output);
	void *wait_arg;
};

int output_init(struct output *output, int fd); /* -1: no memory */
void output_clear(struct output *output);       /* frees the buffer; leaves fd alone */

/* Forgets what has not been written and any error, and counts anew. */
void output_reset(struct output *output, int fd);

/* Copies. */
int output_put(struct output *output, const void *bytes, size_t len);

/* Points to bytes, which stay until the next output_flush returns; short ones are
 * copied all the same, ones that follow the last piece in memory are joined to it. */
int output_refer(struct output *output, const void *bytes, size_t len);

/* len contiguous bytes of the buffer (at most OUTPUT_BUFFER) to be written by
 * the caller, who then says how many they were with output_commit; NULL on an error. */
void *output_reserve(struct output *output, size_t len);
void output_commit(struct output *output, size_t len);

/* Writes all; loops over short writes and EINTR.  0, or -1 with errno.  All of the
 * above flush on their own when the buffer or the pieces are full. */
int output_flush(struct output *output);

#endif
