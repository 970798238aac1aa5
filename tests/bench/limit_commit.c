/*
 * limit_commit: the least that durable messages with receipts cost.
 *
 * Everything that arrived while the last group was being committed is the next
 * group.  log: one write and one fdatasync a group, by one thread.  spool: each
 * line becomes an unnamed file; one syncfs for the bytes of all (fdatasync for a
 * single one), then the names, then one fsync of the directory.  Groups of several
 * threads overlap.  Whatever fails ends the process.
 */
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define SPOOL_GROUP 256 /* files; past it groups of several threads overlap better */

struct entry {
	int fd;
	size_t at, len;
};

struct group {
	struct entry *entries;
	size_t count, room;
	unsigned char *bytes;
	size_t len, size;
};

static struct {
	struct limit_options options;
	bool spool;
	int fd; /* the log, or the directory */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	unsigned sleepers;
	struct group next; /* being gathered */
	atomic_ullong names;
} commit = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

/* More room where there is none left; a group that was taken begins with none. */
static void *
grown(void *memory, size_t *room, size_t wanted, size_t size)
{
	if (wanted <= *room)
		return memory;
	*room = wanted < 1024 ? 1024 : 2 * wanted;
	memory = realloc(memory, *room * size);
	if (memory == NULL)
		bench_fail("%zu times %zu bytes", *room, size);
	return memory;
}

static void
write_all(int fd, const unsigned char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n == -1)
			bench_fail("write");
		bytes += n;
		len -= (size_t)n;
	}
}

/* Of the length that cistern's have.  Who is gone needs none. */
static void
answer(const struct entry *entry)
{
	char receipt[64];
	int len = snprintf(receipt, sizeof(receipt), "OK 01ARZ3NDEKTSV4RRFFQ69G5FAV %zu\n",
			   entry->len - 1);

	if (write(entry->fd, receipt, (size_t)len) != len && errno != EPIPE && errno != ECONNRESET)
		bench_fail("write of a receipt");
}

static void
commit_log(const struct group *group)
{
	write_all(commit.fd, group->bytes, group->len);
	if (commit.options.sync && fdatasync(commit.fd) == -1)
		bench_fail("fdatasync");
}

static void
commit_files(const struct group *group)
{
	static _Thread_local int files[SPOOL_GROUP];
	char path[32], name[32];
	size_t i;

	for (i = 0; i < group->count; i++) {
		const struct entry *entry = &group->entries[i];

		files[i] = openat(commit.fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0640);
		if (files[i] == -1)
			bench_fail("O_TMPFILE in %s", commit.options.path);
		write_all(files[i], group->bytes + entry->at, entry->len - 1);
	}
	if (commit.options.sync && (group->count > 1 ? syncfs(commit.fd) : fdatasync(files[0])) == -1)
		bench_fail("sync");
	for (i = 0; i < group->count; i++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", files[i]);
		snprintf(name, sizeof(name), "%026llu", atomic_fetch_add(&commit.names, 1));
		if (linkat(AT_FDCWD, path, commit.fd, name, AT_SYMLINK_FOLLOW) == -1 ||
		    close(files[i]) == -1)
			bench_fail("%s", name);
	}
	if (commit.options.sync && fsync(commit.fd) == -1)
		bench_fail("fsync");
}

/* Takes what has been gathered, in exchange for an empty group; of a spool's at most
 * SPOOL_GROUP messages. */
static void
take(struct group *group)
{
	struct group taken;
	size_t most = commit.spool ? SPOOL_GROUP : SIZE_MAX, at, i;

	pthread_mutex_lock(&commit.lock);
	while (commit.next.count == 0) {
		commit.sleepers++;
		pthread_cond_wait(&commit.wake, &commit.lock);
		commit.sleepers--;
	}
	taken = commit.next;
	group->count = group->len = 0;
	if (taken.count > most) {
		at = taken.entries[most].at;
		group->entries = grown(group->entries, &group->room, taken.count - most,
				       sizeof(struct entry));
		group->bytes = grown(group->bytes, &group->size, taken.len - at, 1);
		group->count = taken.count - most;
		group->len = taken.len - at;
		memcpy(group->bytes, taken.bytes + at, group->len);
		for (i = 0; i < group->count; i++) {
			group->entries[i] = taken.entries[most + i];
			group->entries[i].at -= at;
		}
		taken.count = most;
		taken.len = at;
	}
	commit.next = *group;
	pthread_mutex_unlock(&commit.lock);
	*group = taken;
}

static void *
commit_run(void *arg)
{
	struct group group = {0};
	size_t i;

	(void)arg;
	for (;;) {
		take(&group);
		if (commit.spool)
			commit_files(&group);
		else
			commit_log(&group);
		for (i = 0; i < group.count; i++)
			answer(&group.entries[i]);
	}
	return NULL;
}

void
commit_start(const struct limit_options *options, bool spool)
{
	size_t threads = spool ? options->threads : 1;
	pthread_t thread;

	commit.options = *options;
	commit.spool = spool;
	if (spool)
		commit.fd = open(options->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	else
		commit.fd = open(options->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (commit.fd == -1)
		bench_fail("%s", options->path);
	while (threads-- > 0) {
		errno = pthread_create(&thread, NULL, commit_run, NULL);
		if (errno != 0)
			bench_fail("pthread_create");
	}
}

void
commit_round_begin(void)
{
	pthread_mutex_lock(&commit.lock);
}

void
commit_line(int fd, const unsigned char *line, size_t len)
{
	struct group *group = &commit.next;
	struct entry *entry;

	group->entries = grown(group->entries, &group->room, group->count + 1, sizeof(*entry));
	group->bytes = grown(group->bytes, &group->size, group->len + len, 1);
	entry = &group->entries[group->count++];
	*entry = (struct entry){.fd = fd, .at = group->len, .len = len};
	memcpy(group->bytes + group->len, line, len);
	group->len += len;
}

void
commit_round_end(void)
{
	bool wake = commit.sleepers > 0 && commit.next.count > 0;

	pthread_mutex_unlock(&commit.lock);
	if (wake)
		pthread_cond_signal(&commit.wake);
}
