/*
 * spool: one file a message, in DIRECTORY/new.
 *
 * Two writer threads take turns: while one waits for the disk, what arrives
 * meanwhile gathers for the other.  A message is accepted once its file and its
 * name are durable (spool_commit.c; with sync = false once it has its name).
 *
 * Whatever fails concerns the messages of its group only: they are answered
 * with OUTCOME_STORAGE and leave nothing in new/.  While the sink is failing and
 * nobody sends, a writer tries the disk once a second, so that readiness comes
 * back by itself.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sysexits.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "sinks/forward.h"
#include "sinks/kinds.h"
#include "sinks/queue.h"
#include "sinks/spool.h"

#define WRITERS 2
#define DIRECTORY_MODE 0750
#define BLOCK 4096u
#define TRY_AFTER 1000        /* milliseconds between two looks at a disk in trouble */
#define SPACE_FRESH 1000000u  /* free space is believed for so long (microseconds), ... */
#define SPACE_RECHECK 100000u /* ... and that there is too little for so long */

/* A delivery of which some messages are in the writer's group. */
struct owner {
	struct delivery *delivery;
	unsigned n_failed;
	bool whole; /* all its messages have been added, or have failed */
};

struct writer {
	struct sink *sink;
	unsigned number;
	struct spool_group group;
	pthread_t thread;
	bool started;
	unsigned n_owners;
	struct owner owners[SPOOL_FILES];
	struct id ids[SPOOL_FILES]; /* of the group, for the forwarder */
};

struct spool {
	struct queue queue;
	atomic_bool hurried;
	int lock; /* DIRECTORY/tmp, locked: its leftovers are somebody's */
	pthread_mutex_t space_lock;
	uint64_t space_checked;
	uint64_t space; /* bytes that may be written before the next look */
	bool low;       /* then a little more than min_free must be free again */
	struct forward *forward; /* NULL: consumers take the messages */
	struct writer writers[WRITERS];
};

static void
spool_failed(struct writer *writer, struct owner *owner, struct message *message, const char *what,
	     int error)
{
	struct sink *sink = writer->sink;
	struct spool *spool = sink->state;

	message_settle(message, OUTCOME_STORAGE);
	owner->n_failed++;
	sink_failing(sink, what, error);
	queue_patience(&spool->queue, TRY_AFTER);
}

static void
spool_works(struct writer *writer)
{
	struct spool *spool = writer->sink->state;

	/* In this order: a failure in the other thread sets them in the reverse one,
	 * so that no failing sink is left without patience. */
	queue_patience(&spool->queue, 0);
	sink_well(writer->sink);
}

/* Whether so many bytes more leave min_free.  Asks the filesystem now and then. */
static int
spool_take_space(struct writer *writer, uint64_t size)
{
	struct spool *spool = writer->sink->state;
	uint64_t least = writer->sink->config->min_free, now, free;
	uint64_t cost = size == 0 ? 0 : (size / BLOCK + 1) * BLOCK;
	struct statvfs st;
	int result = 0;

	if (least == 0)
		return 0;
	pthread_mutex_lock(&spool->space_lock);
	now = clock_now();
	if (spool->space_checked == 0 || now - spool->space_checked >= SPACE_FRESH ||
	    (spool->space < cost + BLOCK && now - spool->space_checked >= SPACE_RECHECK)) {
		if (fault_fstatvfs(writer->group.new, &st) == 0) {
			free = (uint64_t)st.f_bavail * st.f_frsize;
			if (spool->low)
				least += least / 16;
			spool->space = free > least ? free - least : 0;
			spool->space_checked = now;
		} else {
			result = -1;
		}
	}
	if (result == 0) {
		if (spool->space >= cost + BLOCK) {
			spool->space -= cost + BLOCK;
			spool->low = false;
		} else {
			spool->low = true;
			errno = ENOSPC;
			result = -1;
		}
	}
	pthread_mutex_unlock(&spool->space_lock);
	return result;
}

/* With a forwarder, which is told what is about to be in new/, and what is. */
static void
commit_and_tell(struct writer *writer)
{
	struct forward *forward = ((struct spool *)writer->sink->state)->forward;
	struct spool_group *group = &writer->group;
	struct forward_list list = {.last = &list.first};
	unsigned i;

	for (i = 0; i < group->count; i++)
		writer->ids[i] = group->files[i].message->id;
	forward_commit_begins(forward, writer->number, writer->ids, group->count);
	spool_group_commit(group);
	for (i = 0; i < group->count; i++) {
		const struct spool_file *file = &group->files[i];
		const struct batch *batch = writer->owners[file->owner].delivery->batch;

		if (file->error == 0)
			forward_fresh(forward, &list, batch, file->message, file->name,
				      group->scratch);
	}
	forward_commit_ends(forward, writer->number, list.first);
}

/* Commits the group and answers the deliveries that are whole. */
static void
writer_commit(struct writer *writer)
{
	struct spool_group *group = &writer->group;
	unsigned i, rest = 0, failed = 0;

	if (((struct spool *)writer->sink->state)->forward != NULL)
		commit_and_tell(writer);
	else
		spool_group_commit(group);
	for (i = 0; i < group->count; i++) {
		struct spool_file *file = &group->files[i];

		if (file->error == 0) {
			fault_note("accept %s", file->name);
			continue;
		}
		failed++;
		spool_failed(writer, &writer->owners[file->owner], file->message, file->what,
			     file->error);
	}
	if (group->count > 0 && failed == 0)
		spool_works(writer);
	spool_group_clear(group);
	sink_answers_begin();
	for (i = 0; i < writer->n_owners; i++) {
		struct owner *owner = &writer->owners[i];

		if (owner->whole)
			sink_answer_mixed(owner->delivery, owner->n_failed, 0);
		else
			writer->owners[rest++] = *owner; /* the last one at most */
	}
	sink_answers_end();
	writer->n_owners = rest;
}

static void
writer_add(struct writer *writer, struct delivery *delivery)
{
	struct batch *batch = delivery->batch;
	struct spool_group *group = &writer->group;
	unsigned i;

	if (writer->n_owners == SPOOL_FILES)
		writer_commit(writer);
	writer->owners[writer->n_owners++] = (struct owner){.delivery = delivery};
	for (i = 0; i < batch->count; i++) {
		struct message *message = &batch->messages[i];
		uint64_t copied = spool_group_links(group, batch, message) ? 0 : message->size;

		if (spool_take_space(writer, copied) == -1) {
			spool_failed(writer, &writer->owners[writer->n_owners - 1], message,
				     "free space against min_free", errno);
			continue;
		}
		while (spool_group_add(group, batch, message, writer->n_owners - 1) == SPOOL_FULL)
			writer_commit(writer);
	}
	writer->owners[writer->n_owners - 1].whole = true;
}

/* Nobody sends; is the trouble over? */
static void
writer_try(struct writer *writer)
{
	if (!sink_is_ready(writer->sink) &&
	    (spool_take_space(writer, 1) == -1 || spool_group_try(&writer->group) == -1))
		return;
	spool_works(writer);
}

static void *
writer_run(void *arg)
{
	struct writer *writer = arg;
	struct spool *spool = writer->sink->state;
	struct delivery *delivery, *next;
	bool reopen, closed = false, took;
	uint64_t turn;

	while (!closed) {
		next = queue_take_turn(&spool->queue, SPOOL_FILES, &reopen, &closed, &turn);
		took = next != NULL && spool->forward != NULL;
		if (took)
			forward_turn_begins(spool->forward, writer->number, turn);
		if (next == NULL && !closed)
			writer_try(writer);
		while ((delivery = next) != NULL) {
			next = delivery->next;
			if (atomic_load(&spool->hurried))
				sink_answer(delivery, OUTCOME_SHUTDOWN);
			else
				writer_add(writer, delivery);
		}
		if (writer->n_owners > 0)
			writer_commit(writer);
		if (took)
			forward_turn_ends(spool->forward, writer->number);
	}
	return NULL;
}

/* Makes a directory where there is none, and makes that durable.  0 or -1, with errno. */
static int
make_directory(const char *directory, const char *name)
{
	char path[PATH_MAX], parent[PATH_MAX];
	int fd, result;

	if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path) ||
	    snprintf(parent, sizeof(parent), "%s%s", directory, *name == '\0' ? "/.." : "") >=
		(int)sizeof(parent)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (fault_mkdirat(AT_FDCWD, path, DIRECTORY_MODE) == -1)
		return errno == EEXIST ? 0 : -1;
	fd = fault_open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	result = fault_fsync(fd);
	fault_close(fd); /* a directory has nothing to lose */
	return result;
}

/* Removes what a crash left in tmp/, unless another spool of the same directory (the
 * one before a reload) is at work there. */
static void
remove_leftovers(struct spool *spool, const char *directory)
{
	unsigned long removed = 0;
	struct dirent *entry;
	DIR *dir;
	int fd;

	if (flock(spool->lock, LOCK_EX | LOCK_NB) == 0) {
		fd = fault_openat(spool->lock, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
		dir = fd != -1 ? fdopendir(fd) : NULL;
		if (dir == NULL && fd != -1)
			close(fd);
		while (dir != NULL && (entry = readdir(dir)) != NULL)
			if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			    fault_unlinkat(spool->lock, entry->d_name, 0) == 0)
				removed++;
		if (dir != NULL)
			closedir(dir);
	}
	/* Without it leftovers of ours might be taken for a crash's; no more than that. */
	if (flock(spool->lock, LOCK_SH | LOCK_NB) == -1)
		log_event(LOG_LEVEL_DEBUG, "spool-lock", "%s/tmp: %s", directory, strerror(errno));
	if (removed > 0)
		log_event(LOG_LEVEL_NOTICE, "spool-leftovers",
			  "%s/tmp: removed %lu unfinished files; none of them was acknowledged",
			  directory, removed);
}

static void
spool_free(struct spool *spool)
{
	unsigned i;

	forward_close(spool->forward);
	for (i = 0; i < WRITERS; i++)
		spool_group_close(&spool->writers[i].group);
	if (spool->lock != -1)
		close(spool->lock);
	pthread_mutex_destroy(&spool->space_lock);
	queue_clear(&spool->queue);
	memory_free(spool);
}

/* The directories, and each writer's hold on them. */
static int
spool_prepare(struct sink *sink, struct spool *spool)
{
	static const char *const names[] = {"", "new", "tmp", "failed", "done"};
	const char *directory = sink->config->directory;
	char path[PATH_MAX];
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]) - !sink->config->keep; i++)
		if (make_directory(directory, names[i]) == -1)
			return -1;
	for (i = 0; i < WRITERS; i++) {
		spool->writers[i].sink = sink;
		spool->writers[i].number = i;
		if (spool_group_open(&spool->writers[i].group, sink->config) == -1)
			return -1;
	}
	snprintf(path, sizeof(path), "%s/tmp", directory); /* it fitted above */
	spool->lock = fault_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (spool->lock == -1 || sink->config->forward == NULL)
		return spool->lock == -1 ? -1 : 0;
	spool->forward = forward_open(sink);
	return spool->forward == NULL ? -1 : 0;
}

static int
spool_open(struct sink *sink)
{
	const struct config_sink *config = sink->config;
	struct spool *spool = memory_alloc(sizeof(*spool));
	bool unnamed;
	unsigned i;
	int code;

	if (spool == NULL || queue_init(&spool->queue) == -1) {
		memory_free(spool);
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: out of memory", config->name);
		return EX_OSERR;
	}
	atomic_init(&spool->hurried, false);
	spool->lock = -1;
	spool->space_checked = spool->space = 0;
	spool->low = false;
	spool->forward = NULL;
	pthread_mutex_init(&spool->space_lock, NULL); /* cannot fail with no attributes */
	for (i = 0; i < WRITERS; i++)
		spool->writers[i] = (struct writer){.group = {.new = -1, .tmp = -1}};
	sink->state = spool;
	if (spool_prepare(sink, spool) == -1) {
		code = sink_exit_code(errno);
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s: %s", config->name,
			  config->directory, strerror(errno));
		spool_free(spool);
		return code;
	}
	remove_leftovers(spool, config->directory);
	unnamed = spool_group_probe(&spool->writers[0].group);
	for (i = 0; i < WRITERS; i++)
		spool->writers[i].group.unnamed = unnamed;
	/* A disk that is full or broken now may not be so later. */
	if (spool_group_try(&spool->writers[0].group) == -1) {
		code = sink_exit_code(errno);
		if (code == EX_NOPERM) {
			log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s: %s", config->name,
				  config->directory, strerror(errno));
			spool_free(spool);
			return code;
		}
		sink_failing(sink, config->directory, errno);
		queue_patience(&spool->queue, TRY_AFTER);
	}
	for (i = 1; i < WRITERS; i++)
		spool->writers[i].group.rooted = spool->writers[0].group.rooted;
	return 0;
}

static int
spool_start(struct sink *sink)
{
	struct spool *spool = sink->state;
	unsigned i;

	for (i = 0; i < WRITERS; i++) {
		struct writer *writer = &spool->writers[i];
		int code = sink_start_thread(sink, &writer->thread, "spool", writer_run, writer);

		if (code != 0)
			return code;
		writer->started = true;
	}
	return spool->forward != NULL ? forward_start(spool->forward) : 0;
}

static void
spool_begin(struct sink *sink)
{
	struct spool *spool = sink->state;

	if (spool->forward != NULL)
		forward_begin(spool->forward);
}

static bool
spool_leave(struct sink *sink, struct inbox *home, struct inbox_item *left)
{
	struct spool *spool = sink->state;

	if (spool->forward == NULL)
		return false;
	forward_leave(spool->forward, home, left);
	return true;
}

static void
spool_deliver(struct sink *sink, struct delivery *first)
{
	struct spool *spool = sink->state;

	queue_put(&spool->queue, first);
}

static void
spool_hurry(struct sink *sink)
{
	struct spool *spool = sink->state;

	atomic_store(&spool->hurried, true);
}

static void
spool_close(struct sink *sink)
{
	struct spool *spool = sink->state;
	unsigned i;

	queue_close(&spool->queue);
	for (i = 0; i < WRITERS; i++)
		if (spool->writers[i].started)
			pthread_join(spool->writers[i].thread, NULL);
	spool_free(spool);
}

const struct sink_kind sink_kind_spool = {
	.name = "spool",
	.open = spool_open,
	.start = spool_start,
	.begin = spool_begin,
	.leave = spool_leave,
	.deliver = spool_deliver,
	.hurry = spool_hurry,
	.close = spool_close,
};
