/*
 * body: see body.h.  The file is opened with O_TMPFILE, so that a crash leaves
 * nothing behind; where the filesystem lacks that, a named file is unlinked at
 * once (and cannot be linked again).  Writing goes to the page cache, in the
 * worker: no sync happens here.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <event2/buffer.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "message/body.h"
#include "message/chunk.h"

int
body_write_all(int fd, const unsigned char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = fault_write(fd, bytes, len);

		if (n == -1) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

int
body_open_unnamed(const char *directory, mode_t mode, bool *linkable)
{
	char path[PATH_MAX];
	int fd = fault_open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, mode);

	*linkable = fd != -1;
	if (fd != -1 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
		return fd;
	if (snprintf(path, sizeof(path), "%s/.spill.XXXXXX", directory) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = fault_mkostemp(path, O_CLOEXEC);
	/* A name that stays is removed at the next start, when it lies in a spool. */
	if (fd != -1 && fault_unlinkat(AT_FDCWD, path, 0) == -1)
		log_event(LOG_LEVEL_WARNING, "spill-left", "%s: %s", path, strerror(errno));
	return fd;
}

static void
unref_chunk(const void *data, size_t len, void *arg)
{
	(void)data;
	(void)len;
	chunk_unref(arg);
}

/* Brings the charge in line with what libevent holds more (or less) by now. */
static void
recharge(struct body *body, ptrdiff_t before)
{
	ptrdiff_t change = memory_balance() - before;

	if (change > 0) {
		memory_charge((size_t)change);
		body->charged += (size_t)change;
	} else if (change < 0) {
		size_t less = (size_t)-change;

		if (less > body->charged)
			less = body->charged;
		memory_release(less);
		body->charged -= less;
	}
}

struct body *
body_new(void)
{
	ptrdiff_t before = memory_balance();
	struct body *body = memory_alloc(sizeof(*body));

	if (body == NULL)
		return NULL;
	*body = (struct body){.memory = evbuffer_new(), .file = -1};
	if (body->memory == NULL) {
		memory_free(body);
		return NULL;
	}
	pthread_mutex_init(&body->lock, NULL); /* cannot fail with no attributes */
	body->charged = memory_size(body);
	memory_charge(body->charged);
	recharge(body, before);
	return body;
}

struct body *
body_of_file(int file, uint64_t size)
{
	struct body *body = memory_alloc(sizeof(*body));

	if (body == NULL)
		return NULL;
	*body = (struct body){.file = file, .size = size};
	pthread_mutex_init(&body->lock, NULL); /* cannot fail with no attributes */
	body->charged = memory_size(body);
	memory_charge(body->charged);
	return body;
}

void
body_free(struct body *body)
{
	if (body == NULL)
		return;
	if (body->memory != NULL)
		evbuffer_free(body->memory);
	if (body->file != -1)
		fault_close(body->file); /* nothing in it is wanted any more */
	pthread_mutex_destroy(&body->lock);
	memory_release(body->charged);
	memory_free(body);
}

int
body_append(struct body *body, const void *bytes, size_t len, struct chunk *chunk)
{
	ptrdiff_t before;
	int ok;

	if (len == 0)
		return 0;
	body->size += len;
	if (body->file != -1)
		return body_write_all(body->file, bytes, len);
	before = memory_balance();
	if (chunk != NULL) {
		ok = evbuffer_add_reference(body->memory, bytes, len, unref_chunk, chunk_ref(chunk));
		if (ok == -1)
			chunk_unref(chunk);
	} else {
		ok = evbuffer_add(body->memory, bytes, len);
	}
	recharge(body, before);
	if (ok == -1)
		errno = ENOMEM;
	return ok;
}

int
body_spill(struct body *body, const char *directory, mode_t mode)
{
	struct evbuffer_iovec piece;
	struct evbuffer_ptr at;
	struct stat st;
	ptrdiff_t before = memory_balance();
	bool linkable;
	uint64_t done = 0;
	int fd, error;

	if (body->file != -1)
		return 0;
	fd = body_open_unnamed(directory, mode, &linkable);
	if (fd == -1)
		return -1;
	if (fault_fstat(fd, &st) == -1)
		goto fail;
	evbuffer_ptr_set(body->memory, &at, 0, EVBUFFER_PTR_SET);
	while (done < body->size) {
		if (evbuffer_peek(body->memory, -1, &at, &piece, 1) < 1)
			break;
		if (body_write_all(fd, piece.iov_base, piece.iov_len) == -1)
			goto fail;
		done += piece.iov_len;
		if (done < body->size)
			evbuffer_ptr_set(body->memory, &at, piece.iov_len, EVBUFFER_PTR_ADD);
	}
	evbuffer_free(body->memory);
	body->memory = NULL;
	body->file = fd;
	body->linkable = linkable;
	body->device = st.st_dev;
	recharge(body, before);
	return 0;
fail:
	error = errno;
	fault_close(fd);
	errno = error;
	return -1;
}

int
body_verify(struct body *body, bool durable)
{
	int error;

	if (body->file == -1)
		return 0;
	pthread_mutex_lock(&body->lock);
	if (body->error == 0) {
		if (durable) {
			if (fault_fdatasync(body->file) == -1)
				body->error = errno;
		} else if (fault_sync_file_range(body->file, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE) == -1 &&
			   errno != ESPIPE && errno != EINVAL && errno != ENOSYS) {
			body->error = errno;
		}
	}
	error = body->error;
	pthread_mutex_unlock(&body->lock);
	errno = error;
	return error == 0 ? 0 : -1;
}
