/*
 * forward_scan: what lies in new/.
 *
 * One look brings the FORWARD_NAMES smallest names that are not known yet, kept in a
 * heap whose greatest gives way; what is left is for the next look, when those have been
 * handed on.  So a million files cost some sixteen looks and a few MiB.
 *
 * Between looks the directory's time tells whether it has changed.  As a change within
 * the same tick of the kernel's clock would not show, a time that is younger than that
 * is not believed.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "sinks/forward_work.h"

#define YOUNG 100000	 /* microseconds */
#define REST 50		 /* times as long as a look took, before another for a change alone */
#define ASK_EVERY 4096	 /* names, between two looks at whether it is time to go */
#define DIRECTORY_FLAGS (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define DIRECTORY_MODE 0750

static int
open_directory(const struct forward *forward, const char *name)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", forward->config->directory, name) >=
	    (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return fault_open(path, DIRECTORY_FLAGS, 0);
}

void
forward_directories_close(struct forward *forward)
{
	int *fds[] = {&forward->new, &forward->failed, &forward->done};
	size_t i;

	for (i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (*fds[i] != -1)
			fault_close(*fds[i]); /* directories have nothing to lose */
		*fds[i] = -1;
	}
}

int
forward_directories_open(struct forward *forward)
{
	struct stat st;
	int error;

	forward->new = open_directory(forward, "new");
	forward->failed = open_directory(forward, "failed");
	forward->done = forward->config->keep ? open_directory(forward, "done") : -1;
	if (forward->new != -1 && forward->failed != -1 &&
	    (forward->done != -1 || !forward->config->keep) && fault_fstat(forward->new, &st) == 0) {
		forward->device = st.st_dev;
		forward->inode = st.st_ino;
		forward->seen.tv_nsec = -1;
		return 0;
	}
	error = errno;
	forward_directories_close(forward);
	errno = error;
	return -1;
}

int
forward_directory_renew(struct forward *forward, int *fd, const char *name, bool make)
{
	char path[PATH_MAX];
	int again;

	snprintf(path, sizeof(path), "%s/%s", forward->config->directory, name); /* it fitted before */
	if (make && fault_mkdirat(AT_FDCWD, path, DIRECTORY_MODE) == -1 && errno != EEXIST)
		return -1;
	again = fault_open(path, DIRECTORY_FLAGS, 0);
	if (again == -1)
		return -1;
	fault_close(*fd); /* directories have nothing to lose */
	*fd = again;
	return 0;
}

/* One that was moved away, or removed, and made again: what comes goes there. */
static void
look_at(struct forward *forward, int *fd, const char *name)
{
	char path[PATH_MAX];
	struct stat known, st;

	snprintf(path, sizeof(path), "%s/%s", forward->config->directory, name); /* it fitted before */
	if (*fd == -1 || fstatat(AT_FDCWD, path, &st, 0) == -1 || fault_fstat(*fd, &known) == -1 ||
	    (st.st_dev == known.st_dev && st.st_ino == known.st_ino))
		return;
	(void)forward_directory_renew(forward, fd, name, false); /* or at the next look */
}

void
forward_look(struct forward *forward, uint64_t now)
{
	char path[PATH_MAX];
	struct stat st;

	look_at(forward, &forward->failed, "failed");
	look_at(forward, &forward->done, "done");

	snprintf(path, sizeof(path), "%s/new", forward->config->directory); /* it fitted before */
	if (fstatat(AT_FDCWD, path, &st, 0) == -1)
		return;
	if (st.st_dev != forward->device || st.st_ino != forward->inode) {
		/* Moved away, and made again: the lock is another one, too. */
		forward_directories_close(forward);
		forward->in_charge = false;
		forward->lock_due = now;
		return;
	}
	if (st.st_mtim.tv_sec != forward->seen.tv_sec || st.st_mtim.tv_nsec != forward->seen.tv_nsec)
		forward->unseen = true;
}

/* Whether the directory's time before the look tells of changes after it. */
static bool
is_old(const struct timespec *time)
{
	int64_t age = (int64_t)clock_wall() -
		      ((int64_t)time->tv_sec * 1000000 + time->tv_nsec / 1000);

	return age > YOUNG || age < -YOUNG;
}

static int
compare(const void *a, const void *b)
{
	return forward_entry_compare(*(struct forward_entry *const *)a,
				     *(struct forward_entry *const *)b);
}

static void
say_foreign(struct forward *forward, const char *name)
{
	if (forward->foreign_said)
		return;
	forward->foreign_said = true;
	log_event_with(LOG_LEVEL_WARNING, "forward-foreign", LOG_FIELDS(LOG_TEXT("file", name)),
		       "sink %s: %s/new/%s is no ID.LISTENER.PEER: it is left alone, as are others like it",
		       forward->config->name, forward->config->directory, name);
}

static bool
is_ours(const struct dirent *entry, struct id *id)
{
	return (entry->d_type == DT_REG || entry->d_type == DT_UNKNOWN) &&
	       spool_facts_is_name(entry->d_name) && id_parse(entry->d_name, id) == 0;
}

/* Takes a name in, if it is one of the smallest.  1: something had to be left out; -1: no
 * memory. */
static int
consider(struct forward *forward, struct forward_heap *heap, const struct id *id, const char *name)
{
	struct forward_entry *entry;
	const struct forward_entry *top = forward_heap_top(heap);
	bool full = heap->count == FORWARD_NAMES;

	if (forward_table_has(&forward->known, id, name))
		return 0;
	if (full && (id->high > top->id.high || (id->high == top->id.high && id->low >= top->id.low)))
		return 1;
	entry = forward_entry_new(id, name);
	if (entry == NULL)
		return -1;
	if (full)
		forward_entry_free(forward_heap_take(heap));
	forward_heap_put(heap, entry);
	return full;
}

/* All of the directory; *left: there is more than what the heap holds. */
static int
read_names(struct forward *forward, DIR *dir, struct forward_heap *heap, bool *left)
{
	uint64_t count = 0, asked = 0;
	struct dirent *entry;
	struct id id;
	int result;

	for (;;) {
		errno = 0;
		entry = readdir(dir);
		if (entry == NULL)
			break;
		if (entry->d_name[0] == '.')
			continue;
		if (++asked % ASK_EVERY == 0 && atomic_load(&forward->hasty)) {
			errno = ECANCELED;
			return -1;
		}
		if (!is_ours(entry, &id)) {
			say_foreign(forward, entry->d_name);
			continue;
		}
		count++;
		result = consider(forward, heap, &id, entry->d_name);
		if (result == -1) {
			errno = ENOMEM;
			return -1;
		}
		*left |= result == 1;
	}
	forward->waiting = count;
	return errno == 0 ? 0 : -1;
}

/* From the heap to ready; what its writer is just telling of is left to the writer. */
static void
take_over(struct forward *forward, struct forward_heap *heap, bool left)
{
	size_t i, n = 0;

	qsort(heap->items, heap->count, sizeof(struct forward_entry *), compare);
	forward_inlet_lock(forward);
	/* More has come meanwhile than there was room for: what is in memory may lie
	 * behind something that is not. */
	for (i = 0; i < heap->count; i++) {
		struct forward_entry *entry = heap->items[i];

		if (!forward_inlet_concerns(forward, &entry->id))
			forward->seen.tv_nsec = -1;
		else if (!forward_table_has(&forward->known, &entry->id, entry->name)) {
			heap->items[n++] = entry;
			continue;
		}
		forward_entry_free(entry);
	}
	forward_inlet_unlock(forward);
	heap->count = 0;
	forward->n_ready = n;
	forward->ready_at = 0;
	forward->more |= left;
}

int
forward_scan(struct forward *forward)
{
	struct forward_heap heap = {.items = forward->ready, .room = FORWARD_NAMES,
				    .before = forward_by_id_last};
	uint64_t began = clock_now();
	bool left = false;
	struct stat st;
	DIR *dir = NULL;
	int fd, error;

	/* A description of its own: reading moves its offset. */
	fd = fault_openat(forward->new, ".", DIRECTORY_FLAGS, 0);
	if (fd == -1)
		return -1;
	if (fault_fstat(fd, &st) == -1 || (dir = fdopendir(fd)) == NULL) {
		error = errno;
		fault_close(fd);
		errno = error;
		return -1;
	}
	if (forward->more)
		forward_inlet_reset(forward);
	else
		forward_inlet_look(forward);
	forward->more = false;
	forward->unseen = false;
	forward->seen = st.st_mtim;
	if (!is_old(&forward->seen))
		forward->seen.tv_nsec = -1;
	if (read_names(forward, dir, &heap, &left) == -1) {
		error = errno;
		closedir(dir);
		while (heap.count > 0)
			forward_entry_free(heap.items[--heap.count]);
		forward->more = true;
		errno = error;
		return -1;
	}
	closedir(dir);
	take_over(forward, &heap, left);
	if (forward->more)
		forward_inlet_shut(forward);
	forward->scan_due = clock_now() + (clock_now() - began) * REST;
	return 0;
}
