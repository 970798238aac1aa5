/*
 * file: one file that is appended to.
 *
 * One writer thread takes all that waits, writes it, syncs once and answers all:
 * a group commit.  A message is accepted once its record is on stable storage
 * (with sync = false: once it is written).
 *
 * A group that could not be written or synced fails whole (OUTCOME_STORAGE), and
 * the file is cut back to where it ended before, so that no part of a record
 * stays and nothing is ever appended to one.  What a failed fdatasync left in
 * the cache is never synced again: the kernel takes it for written.  Cutting the
 * file drops those pages; the block that the group shared with older records is
 * written anew, as a new write, and that is synced.  Until this has worked nothing
 * else is written; it is tried again with each group, and once a second when
 * nobody sends.
 *
 * A target that is no regular file (a FIFO, a device, a pipe behind
 * /dev/stdout) is written to without waiting for ever, and neither synced nor
 * cut.  A FIFO that nobody reads is unavailable until somebody does.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/xattr.h>
#include <sysexits.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "sinks/file.h"
#include "sinks/kinds.h"
#include "sinks/queue.h"

#define GROUP_BYTES 8388608 /* of messages; then the group is committed */
#define TRY_AFTER 1000	    /* milliseconds between two looks at a file in trouble */
#define CLOSED_MARK "user.cistern.closed"

struct target {
	int fd;
	bool regular;
	dev_t device;
	ino_t inode;
};

struct file {
	struct queue queue;
	struct output output;
	struct target target; /* fd -1: a FIFO that nobody reads */
	off_t good;  /* where the file's last whole record ends, while torn */
	bool torn;   /* something may follow that */
	pthread_t thread;
	bool started;
	int wake; /* eventfd: hurry */
	bool hurried;
};

static int
sync_parent(const char *path)
{
	char copy[PATH_MAX];
	int fd, result, error;

	if (strlen(path) >= sizeof(copy)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(copy, path);
	fd = fault_open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd == -1)
		return -1;
	result = fault_fsync(fd);
	error = errno;
	fault_close(fd); /* a directory has nothing to lose */
	errno = error;
	return result;
}

/* raw: whether its last record is whole cannot be seen, only whether the file was
 * closed in order. */
static void
report_raw(struct sink *sink, int fd, off_t len)
{
	uint64_t closed = 0;

	if (len == 0)
		return;
	if (fgetxattr(fd, CLOSED_MARK, &closed, sizeof(closed)) == sizeof(closed) &&
	    closed == (uint64_t)len)
		return;
	log_event(LOG_LEVEL_WARNING, "file-tail",
		  "sink %s: %s was not closed in order: of its %lld bytes, those after the first "
		  "%llu may end with part of a record that was never acknowledged",
		  sink->config->name, sink->config->path, (long long)len,
		  (unsigned long long)(closed <= (uint64_t)len ? closed : 0));
}

/* Cuts off a record that a crash tore.  0, or -1 with errno. */
static int
cut_tail(struct sink *sink, int fd, off_t len)
{
	const struct config_sink *config = sink->config;
	enum format format = (enum format)config->format;
	bool ours;
	off_t good;

	if (format == FORMAT_RAW) {
		report_raw(sink, fd, len);
		return 0;
	}
	good = file_tail_find(fd, len, format, &ours);
	if (good == -1)
		return -1;
	if (good == len)
		return 0;
	if (!ours) {
		/* Somebody else's: ours begin on a line of their own. */
		log_event(LOG_LEVEL_WARNING, "file-tail",
			  "sink %s: %s does not end in a newline, and its last %lld bytes are no "
			  "record of format %s; they stay",
			  config->name, config->path, (long long)(len - good), format_name(format));
		return fault_write(fd, "\n", 1) == 1 ? 0 : -1;
	}
	if (file_tail_mend(fd, good, config->sync) == -1)
		return -1;
	log_event(LOG_LEVEL_WARNING, "file-tail",
		  "sink %s: %s ended in a torn record; its %lld bytes, never acknowledged, are cut off",
		  config->name, config->path, (long long)(len - good));
	return 0;
}

/* Opens without waiting for anybody; *created: it was not there. */
static int
open_path(const struct config_sink *config, bool *created)
{
	int flags = O_RDWR | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, fd;
	struct stat st;

	*created = false;
	/* A FIFO opened for reading too would have a reader always. */
	if (stat(config->path, &st) == 0 && !S_ISREG(st.st_mode))
		return fault_open(config->path, (flags & ~O_ACCMODE) | O_WRONLY, 0);
	fd = fault_open(config->path, flags | O_CREAT | O_EXCL, 0600);
	if (fd != -1) {
		*created = true;
		return fd;
	}
	return errno == EEXIST ? fault_open(config->path, flags, 0) : -1;
}

/* Opens the target; one that is open already (old, same file) is not looked at again.
 * -1: errno; nothing is left open. */
static int
target_open(struct sink *sink, struct target *target, const struct target *old)
{
	const struct config_sink *config = sink->config;
	struct stat st;
	bool created;
	int error;

	target->fd = open_path(config, &created);
	if (target->fd == -1)
		return -1;
	if (created && fault_fchmod(target->fd, config->mode) == -1)
		goto fail;
	if (fault_fstat(target->fd, &st) == -1)
		goto fail;
	target->regular = S_ISREG(st.st_mode);
	target->device = st.st_dev;
	target->inode = st.st_ino;
	if (created && config->sync && sync_parent(config->path) == -1)
		goto fail;
	if (old != NULL && old->fd != -1 && old->device == st.st_dev && old->inode == st.st_ino)
		return 0;
	if (target->regular && cut_tail(sink, target->fd, st.st_size) == -1)
		goto fail;
	return 0;
fail:
	error = errno != 0 ? errno : EIO;
	fault_close(target->fd);
	target->fd = -1;
	errno = error;
	return -1;
}

static void
target_close(struct sink *sink, struct target *target)
{
	struct stat st;
	uint64_t len;

	if (target->fd == -1)
		return;
	/* For report_raw; a filesystem without attributes goes without. */
	if (target->regular && sink->config->format == FORMAT_RAW &&
	    fault_fstat(target->fd, &st) == 0) {
		len = (uint64_t)st.st_size;
		(void)fsetxattr(target->fd, CLOSED_MARK, &len, sizeof(len), 0);
	}
	/* With sync all that was acknowledged is safe already. */
	if (fault_close(target->fd) == -1)
		log_event(LOG_LEVEL_ERROR, "sink-close", "sink %s: %s: %s", sink->config->name,
			  sink->config->path, strerror(errno));
	target->fd = -1;
}

/* The descriptor (no regular file) is full: waits for it, or for the order to hurry. */
static int
file_wait(struct output *output)
{
	struct file *file = output->wait_arg;
	struct pollfd fds[2] = {
		{.fd = output->fd, .events = POLLOUT},
		{.fd = file->wake, .events = POLLIN},
	};

	for (;;) {
		if (poll(fds, 2, -1) == -1) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		if (fds[0].revents != 0)
			return 0;
		if (fds[1].revents != 0) {
			file->hurried = true;
			errno = ECANCELED;
			return -1;
		}
	}
}

/* Cuts off what a group that failed may have left; not at once possible: later. */
static int
file_mend(struct sink *sink, struct file *file)
{
	if (!file->torn)
		return 0;
	if (file_tail_mend(file->target.fd, file->good, sink->config->sync) == -1)
		return -1;
	file->torn = false;
	return 0;
}

/* Something to write to, at a whole record's end. */
static int
file_ready(struct sink *sink, struct file *file)
{
	struct stat st;

	if (file->target.fd == -1 && target_open(sink, &file->target, NULL) == -1)
		return -1;
	if (!file->target.regular)
		return 0;
	if (file_mend(sink, file) == -1)
		return -1;
	/* Asked each time: others may truncate it (logrotate's copytruncate). */
	if (fault_fstat(file->target.fd, &st) == -1)
		return -1;
	file->good = st.st_size;
	return 0;
}

static void
file_reopen(struct sink *sink, struct file *file)
{
	struct target fresh;

	if (target_open(sink, &fresh, &file->target) == -1) {
		log_event(LOG_LEVEL_ERROR, "sink-reopen", "sink %s: %s: %s; %s", sink->config->name,
			  sink->config->path, strerror(errno),
			  file->target.fd != -1 ? "the file that was open stays in use"
						: "tried again with the next message");
		return;
	}
	/* A torn end stays torn only in a file that cannot be written to. */
	if (file->torn && (file->target.device != fresh.device || file->target.inode != fresh.inode)) {
		if (file_mend(sink, file) == -1)
			log_event(LOG_LEVEL_ERROR, "file-tail",
				  "sink %s: the old file of %s may end with messages that were "
				  "refused, after %lld bytes: %s", sink->config->name,
				  sink->config->path, (long long)file->good, strerror(errno));
		file->torn = false;
	}
	target_close(sink, &file->target);
	file->target = fresh;
	log_event(LOG_LEVEL_INFO, "sink-reopen", "sink %s: opened %s again", sink->config->name,
		  sink->config->path);
}

/* Answers with an error of the group. */
static enum outcome
file_failed(struct sink *sink, struct file *file, const char *what, int error)
{
	if (file->hurried)
		return OUTCOME_SHUTDOWN;
	sink_failing(sink, what, error);
	queue_patience(&file->queue, TRY_AFTER);
	if (error != EPIPE && error != ENXIO)
		return OUTCOME_STORAGE;
	/* The reader is gone; the next one is somebody else. */
	if (!file->target.regular)
		target_close(sink, &file->target);
	return OUTCOME_UNAVAILABLE;
}

/* Writes and syncs the deliveries from first to (not including) end. */
static enum outcome
file_commit(struct sink *sink, struct file *file, struct delivery *first, struct delivery *end)
{
	struct output *output = &file->output;
	struct delivery *delivery;
	const char *what = NULL;
	int error = 0;

	if (file_ready(sink, file) == -1)
		return file_failed(sink, file, sink->config->path, errno);
	output_reset(output, file->target.fd);
	for (delivery = first; delivery != end && what == NULL; delivery = delivery->next)
		if (format_batch((enum format)sink->config->format, delivery->batch, output) == -1)
			what = output->error != 0 ? "writing" : "reading a message back";
	error = errno;
	if (what == NULL && output_flush(output) == -1) {
		what = "writing";
		error = errno;
	}
	if (what == NULL && file->target.regular && sink->config->sync &&
	    fault_fdatasync(file->target.fd) == -1) {
		what = "syncing";
		error = errno;
	}
	if (what == NULL) {
		queue_patience(&file->queue, 0);
		sink_well(sink);
		return OUTCOME_ACCEPTED;
	}
	if (file->target.regular) {
		file->torn = true;
		if (file_mend(sink, file) == -1)
			log_event(LOG_LEVEL_ERROR, "file-tail",
				  "sink %s: %s cannot be cut back to %lld bytes: %s; nothing is "
				  "written to it until it can", sink->config->name,
				  sink->config->path, (long long)file->good, strerror(errno));
	}
	return file_failed(sink, file, what, error);
}

static uint64_t
batch_bytes(const struct batch *batch)
{
	uint64_t bytes = 0;
	unsigned i;

	for (i = 0; i < batch->count; i++)
		bytes += batch->messages[i].size;
	return bytes;
}

static void
note_accepted(const struct batch *batch, enum outcome outcome)
{
#ifdef FAULT_POINTS
	char id[ID_TEXT_LEN + 1];
	unsigned i;

	for (i = 0; outcome == OUTCOME_ACCEPTED && i < batch->count; i++) {
		id_text(&batch->messages[i].id, id);
		fault_note("accept %s", id);
	}
#else
	(void)batch;
	(void)outcome;
#endif
}

/* Nobody sends; is the trouble over?  Room for a block says so. */
static void
file_try(struct sink *sink, struct file *file)
{
	if (!sink_is_ready(sink)) {
		if (file_ready(sink, file) == -1)
			return;
		if (file->target.regular) {
			if (fallocate(file->target.fd, FALLOC_FL_KEEP_SIZE, file->good, GROUP_BYTES / 8) == -1 &&
			    errno != EOPNOTSUPP && errno != ENOSYS)
				return;
			file->torn = true; /* gives the room back */
			if (file_mend(sink, file) == -1)
				return;
		}
	}
	queue_patience(&file->queue, 0);
	sink_well(sink);
}

static void *
file_run(void *arg)
{
	struct sink *sink = arg;
	struct file *file = sink->state;
	struct delivery *first, *delivery, *end;
	bool reopen, closed = false;

	while (!closed) {
		first = queue_take(&file->queue, 0, &reopen, &closed);
		if (reopen)
			file_reopen(sink, file);
		else if (first == NULL && !closed)
			file_try(sink, file);
		while (first != NULL) {
			enum outcome outcome = OUTCOME_SHUTDOWN;
			uint64_t bytes = 0;

			for (end = first; end != NULL && bytes < GROUP_BYTES; end = end->next)
				bytes += batch_bytes(end->batch);
			if (!file->hurried)
				outcome = file_commit(sink, file, first, end);
			inbox_hold();
			while ((delivery = first) != end) {
				first = delivery->next;
				note_accepted(delivery->batch, outcome);
				sink_answer(delivery, outcome);
			}
			inbox_release();
		}
	}
	return NULL;
}

static int
exit_code(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return EX_NOPERM;
	case EIO:
		return EX_IOERR;
	case ENOMEM:
	case EMFILE:
	case ENFILE:
		return EX_OSERR;
	default:
		return EX_CANTCREAT;
	}
}

static void
file_free(struct file *file)
{
	output_clear(&file->output);
	if (file->wake != -1)
		close(file->wake);
	queue_clear(&file->queue);
	memory_free(file);
}

static int
file_open(struct sink *sink)
{
	struct file *file = memory_alloc(sizeof(*file));
	int code;

	if (file == NULL || queue_init(&file->queue) == -1) {
		memory_free(file);
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: out of memory", sink->config->name);
		return EX_OSERR;
	}
	file->target = (struct target){.fd = -1};
	file->torn = file->started = file->hurried = false;
	file->good = 0;
	file->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (file->wake == -1 || output_init(&file->output, -1) == -1) {
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s", sink->config->name,
			  strerror(errno));
		file->output.buffer = NULL;
		file_free(file);
		return EX_OSERR;
	}
	file->output.wait = file_wait;
	file->output.wait_arg = file;
	sink->state = file;
	if (target_open(sink, &file->target, NULL) == 0)
		return 0;
	/* ENXIO: a FIFO whose reader may come yet. */
	if (errno == ENXIO || errno == ENOSPC || errno == EDQUOT) {
		file_failed(sink, file, sink->config->path, errno);
		return 0;
	}
	code = exit_code(errno);
	log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s: %s", sink->config->name,
		  sink->config->path, strerror(errno));
	file_free(file);
	return code;
}

static int
file_start(struct sink *sink)
{
	struct file *file = sink->state;
	int code = sink_start_thread(sink, &file->thread, file_run, sink);

	file->started = code == 0;
	return code;
}

static void
file_deliver(struct sink *sink, struct delivery *first)
{
	struct file *file = sink->state;

	queue_put(&file->queue, first);
}

static void
file_order_reopen(struct sink *sink)
{
	struct file *file = sink->state;

	queue_reopen(&file->queue);
}

static void
file_hurry(struct sink *sink)
{
	struct file *file = sink->state;
	uint64_t one = 1;

	if (write(file->wake, &one, sizeof(one)) == -1)
		log_event(LOG_LEVEL_WARNING, "sink-hurry", "sink %s: %s", sink->config->name,
			  strerror(errno));
}

static void
file_close(struct sink *sink)
{
	struct file *file = sink->state;

	queue_close(&file->queue);
	if (file->started)
		pthread_join(file->thread, NULL);
	target_close(sink, &file->target);
	file_free(file);
}

const struct sink_kind sink_kind_file = {
	.name = "file",
	.open = file_open,
	.start = file_start,
	.deliver = file_deliver,
	.reopen = file_order_reopen,
	.hurry = file_hurry,
	.close = file_close,
};
