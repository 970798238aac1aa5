/*
 * output: buffered, vectored writing to a descriptor.
 *
 * Pieces go out in the order they came, whether copied or pointed to.  The first
 * failure is kept in `error`; from then on everything is dropped and every call
 * fails with that errno, so a caller may look once, at output_flush.  `written`
 * counts what the descriptor took, up to the last byte before a failure.
 */
#include "base/output.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

/* Up to here a copy costs less than a piece of its own. */
#define COPY_MAX 1024

static int
fail(struct output *output, int error)
{
	output->error = error != 0 ? error : EIO;
	output->used = 0;
	output->n_pieces = 0;
	errno = output->error;
	return -1;
}

static int
failed_before(const struct output *output)
{
	if (output->error == 0)
		return 0;
	errno = output->error;
	return -1;
}

static int
wait_writable(struct output *output)
{
	struct pollfd poller = { .fd = output->fd, .events = POLLOUT };

	if (output->wait != NULL)
		return output->wait(output);
	while (poll(&poller, 1, -1) == -1)
		if (errno != EINTR)
			return -1;
	/* A hang-up or an error is told by the next write. */
	return 0;
}

static unsigned char *
last_end(const struct output *output)
{
	const struct iovec *last;

	if (output->n_pieces == 0)
		return NULL;
	last = &output->pieces[output->n_pieces - 1];
	return (unsigned char *)last->iov_base + last->iov_len;
}

/* Adds a piece, joined to the last one when it follows it in memory.  There must
 * be a slot left. */
static void
add_piece(struct output *output, const void *bytes, size_t len)
{
	struct iovec *piece;

	if (last_end(output) == bytes) {
		output->pieces[output->n_pieces - 1].iov_len += len;
		return;
	}
	piece = &output->pieces[output->n_pieces++];
	piece->iov_base = (void *)(uintptr_t)bytes;
	piece->iov_len = len;
}

int
output_init(struct output *output, int fd)
{
	memset(output, 0, sizeof *output);
	output->fd = fd;
	output->buffer = fault_malloc(OUTPUT_BUFFER);
	return output->buffer != NULL ? 0 : -1;
}

void
output_clear(struct output *output)
{
	free(output->buffer);
	output->buffer = NULL;
	output->used = 0;
	output->n_pieces = 0;
}

void
output_reset(struct output *output, int fd)
{
	output->fd = fd;
	output->error = 0;
	output->written = 0;
	output->used = 0;
	output->n_pieces = 0;
}

int
output_flush(struct output *output)
{
	struct iovec *piece = output->pieces;
	unsigned left = output->n_pieces;

	if (failed_before(output) == -1)
		return -1;
	while (left > 0) {
		ssize_t n = fault_writev(output->fd, piece, (int)left);

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && errno == EAGAIN) {
			if (wait_writable(output) == -1)
				return fail(output, errno);
			continue;
		}
		if (n <= 0)
			return fail(output, n == 0 ? EIO : errno);
		output->written += (uint64_t)n;
		for (size_t done = (size_t)n; left > 0; piece++, left--) {
			if (done < piece->iov_len) {
				piece->iov_base = (unsigned char *)piece->iov_base + done;
				piece->iov_len -= done;
				break;
			}
			done -= piece->iov_len;
		}
	}
	output->used = 0;
	output->n_pieces = 0;
	return 0;
}

int
output_refer(struct output *output, const void *bytes, size_t len)
{
	if (failed_before(output) == -1)
		return -1;
	if (len == 0)
		return 0;
	if (last_end(output) != bytes) {
		if (len <= COPY_MAX)
			return output_put(output, bytes, len);
		if (output->n_pieces == OUTPUT_PIECES && output_flush(output) == -1)
			return -1;
	}
	add_piece(output, bytes, len);
	return 0;
}

int
output_put(struct output *output, const void *bytes, size_t len)
{
	void *to;

	if (len == 0)
		return failed_before(output);
	/* Nothing is won by a copy that fills the buffer. */
	if (len > OUTPUT_BUFFER / 2)
		return output_refer(output, bytes, len) == -1 ? -1 : output_flush(output);
	to = output_reserve(output, len);
	if (to == NULL)
		return -1;
	memcpy(to, bytes, len);
	output_commit(output, len);
	return 0;
}

void *
output_reserve(struct output *output, size_t len)
{
	unsigned char *to = output->buffer + output->used;

	if (failed_before(output) == -1)
		return NULL;
	if (len > OUTPUT_BUFFER - output->used ||
	    (output->n_pieces == OUTPUT_PIECES && last_end(output) != to)) {
		if (len > OUTPUT_BUFFER) {
			errno = EINVAL;
			return NULL;
		}
		if (output_flush(output) == -1)
			return NULL;
		to = output->buffer;
	}
	return to;
}

void
output_commit(struct output *output, size_t len)
{
	if (len == 0)
		return;
	add_piece(output, output->buffer + output->used, len);
	output->used += len;
}
