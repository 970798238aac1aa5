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
 * Sinks of one file share its writer: after a reload the old connections' sink and
 * the new ones' are two, with formats of their own.  What concerns the file itself
 * (path, mode) goes by the sink that was opened last.
 *
 * A target that is no regular file (a FIFO, a device, a pipe behind
 * /dev/stdout) is written to without waiting for ever, and neither synced nor
 * cut.  A FIFO that nobody reads is unavailable until somebody does.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
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

struct file_user {
	struct file_user *next;
	struct file *file;
	struct sink *sink;
};

struct file {
	struct file *next;       /* of all; the main thread's, as the users */
	struct file_user *users; /* the newest first */
	pthread_mutex_t lock;    /* of these: */
	const struct config_sink *config; /* the newest user's */
	struct config *reference;
	dev_t device; /* of the target, as far as it is a regular file */
	ino_t inode;
	struct sink_trouble trouble;
	struct queue queue;
	struct output output;
	struct file_target target; /* fd -1: a FIFO that nobody reads */
	off_t good;  /* where the file's last whole record ends, while torn */
	bool torn;   /* something may follow that */
	bool synced; /* some of its records are to be safe */
	pthread_t thread;
	bool started;
	int wake; /* eventfd: hurry */
	bool hurried;
};

static struct file *files; /* main thread */

/* The settings that go for the file, and a reference that keeps them. */
static const struct config_sink *
file_settings(struct file *file, struct config **reference)
{
	const struct config_sink *config;

	pthread_mutex_lock(&file->lock);
	config = file->config;
	*reference = config_ref(file->reference);
	pthread_mutex_unlock(&file->lock);
	return config;
}

/* What the target is, for those who look for it. */
static void
file_identify(struct file *file)
{
	pthread_mutex_lock(&file->lock);
	file->device = file->target.regular ? file->target.device : 0;
	file->inode = file->target.regular ? file->target.inode : 0;
	pthread_mutex_unlock(&file->lock);
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
file_mend(struct file *file)
{
	if (!file->torn)
		return 0;
	if (file_tail_mend(file->target.fd, file->good, file->synced) == -1)
		return -1;
	file->torn = false;
	return 0;
}

/* Whether nobody will find what is written to it.  (What has no name may be open under
 * one all the same, as /dev/stdout.) */
static bool
is_removed(const struct config_sink *config, const struct stat *st)
{
	struct stat there;

	return st->st_nlink == 0 && (stat(config->path, &there) == -1 ||
				     there.st_ino != st->st_ino || there.st_dev != st->st_dev);
}

/* Something to write to, at a whole record's end. */
static int
file_ready(const struct config_sink *config, struct file *file)
{
	struct stat st;

	for (;;) {
		if (file->target.fd == -1) {
			if (file_target_open(config, &file->target, NULL) == -1)
				return -1;
			file_identify(file);
		}
		if (!file->target.regular)
			return 0;
		if (fault_fstat(file->target.fd, &st) == -1)
			return -1;
		if (!is_removed(config, &st))
			break;
		log_event(LOG_LEVEL_WARNING, "sink-reopen", "sink %s: %s was removed; it is made anew",
			  config->name, config->path);
		file_target_close(config, &file->target);
		file->torn = false;
	}
	/* Asked each time: others may truncate it (logrotate's copytruncate). */
	if (!file->torn)
		file->good = st.st_size;
	return file_mend(file);
}

static void
file_reopen(const struct config_sink *config, struct file *file)
{
	struct file_target fresh;

	if (file_target_open(config, &fresh, &file->target) == -1) {
		log_event(LOG_LEVEL_ERROR, "sink-reopen", "sink %s: %s: %s; %s", config->name,
			  config->path, strerror(errno),
			  file->target.fd != -1 ? "the file that was open stays in use"
						: "tried again with the next message");
		return;
	}
	/* A torn end stays torn only in a file that cannot be written to. */
	if (file->torn && (file->target.device != fresh.device || file->target.inode != fresh.inode)) {
		if (file_mend(file) == -1)
			log_event(LOG_LEVEL_ERROR, "file-tail",
				  "sink %s: the old file of %s may end with messages that were "
				  "refused, after %lld bytes: %s", config->name,
				  config->path, (long long)file->good, strerror(errno));
		file->torn = false;
	}
	file_target_close(config, &file->target);
	file->target = fresh;
	file_identify(file);
	log_event(LOG_LEVEL_INFO, "sink-reopen", "sink %s: opened %s again", config->name,
		  config->path);
}

/* Answers with an error of the group. */
static enum outcome
file_failed(const struct config_sink *config, struct file *file, const char *what, int error)
{
	if (file->hurried)
		return OUTCOME_SHUTDOWN;
	sink_trouble_begins(&file->trouble, config->name, what, error);
	queue_patience(&file->queue, TRY_AFTER);
	if (error != EPIPE && error != ENXIO)
		return OUTCOME_STORAGE;
	/* The reader is gone; the next one is somebody else. */
	if (!file->target.regular)
		file_target_close(config, &file->target);
	return OUTCOME_UNAVAILABLE;
}

/* Writes and syncs the deliveries from first to (not including) end. */
static enum outcome
file_commit(const struct config_sink *config, struct file *file, struct delivery *first,
	    struct delivery *end)
{
	struct output *output = &file->output;
	struct delivery *delivery;
	const char *what = NULL;
	bool sync = false;
	int error = 0;

	if (file_ready(config, file) == -1)
		return file_failed(config, file, config->path, errno);
	output_reset(output, file->target.fd);
	for (delivery = first; delivery != end; delivery = delivery->next)
		sync |= delivery->sink->config->sync;
	file->synced |= sync;
	for (delivery = first; delivery != end && what == NULL; delivery = delivery->next)
		if (format_batch((enum format)delivery->sink->config->format, delivery->batch,
				 output) == -1)
			what = output->error != 0 ? "writing" : "reading a message back";
	error = errno;
	if (what == NULL && output_flush(output) == -1) {
		what = "writing";
		error = errno;
	}
	if (what == NULL && file->target.regular && sync &&
	    (fault_fdatasync(file->target.fd) == -1 ||
	     file_target_name(config, &file->target) == -1)) {
		what = "syncing";
		error = errno;
	}
	if (what == NULL) {
		queue_patience(&file->queue, 0);
		sink_trouble_ends(&file->trouble, config->name);
		return OUTCOME_ACCEPTED;
	}
	if (file->target.regular) {
		file->torn = true;
		if (file_mend(file) == -1)
			log_event(LOG_LEVEL_ERROR, "file-tail",
				  "sink %s: %s cannot be cut back to %lld bytes: %s; nothing is "
				  "written to it until it can", config->name,
				  config->path, (long long)file->good, strerror(errno));
	}
	return file_failed(config, file, what, error);
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
file_try(const struct config_sink *config, struct file *file)
{
	if (sink_trouble_lasts(&file->trouble)) {
		if (file_ready(config, file) == -1)
			return;
		if (file->target.regular) {
			if (fallocate(file->target.fd, FALLOC_FL_KEEP_SIZE, file->good, GROUP_BYTES / 8) == -1 &&
			    errno != EOPNOTSUPP && errno != ENOSYS)
				return;
			file->torn = true; /* gives the room back */
			if (file_mend(file) == -1)
				return;
		}
	}
	queue_patience(&file->queue, 0);
	sink_trouble_ends(&file->trouble, config->name);
}

static void *
file_run(void *arg)
{
	struct file *file = arg;
	const struct config_sink *config;
	struct config *reference;
	struct delivery *first, *delivery, *end;
	bool reopen, closed = false;

	while (!closed) {
		first = queue_take(&file->queue, 0, &reopen, &closed);
		config = file_settings(file, &reference);
		if (reopen)
			file_reopen(config, file);
		else if (first == NULL && !closed)
			file_try(config, file);
		while (first != NULL) {
			enum outcome outcome = OUTCOME_SHUTDOWN;
			uint64_t bytes = 0;

			for (end = first; end != NULL && bytes < GROUP_BYTES; end = end->next)
				bytes += batch_bytes(end->batch);
			if (!file->hurried)
				outcome = file_commit(config, file, first, end);
			sink_answers_begin();
			while ((delivery = first) != end) {
				first = delivery->next;
				note_accepted(delivery->batch, outcome);
				sink_answer(delivery, outcome);
			}
			sink_answers_end();
		}
		config_unref(reference);
	}
	return NULL;
}

/* Whoever was opened last says what goes for the file. */
static void
file_follow(struct file *file)
{
	struct sink *sink = file->users->sink;
	struct config *before;

	pthread_mutex_lock(&file->lock);
	before = file->reference;
	file->config = sink->config;
	file->reference = config_ref(sink->config_reference);
	pthread_mutex_unlock(&file->lock);
	config_unref(before);
}

static void
file_free(struct file *file)
{
	struct file **at;

	for (at = &files; *at != NULL; at = &(*at)->next)
		if (*at == file) {
			*at = file->next;
			break;
		}
	output_clear(&file->output);
	if (file->wake != -1)
		close(file->wake);
	queue_clear(&file->queue);
	config_unref(file->reference);
	pthread_mutex_destroy(&file->trouble.lock);
	pthread_mutex_destroy(&file->lock);
	memory_free(file);
}

static struct file *
file_new(struct sink *sink)
{
	struct file *file = memory_alloc(sizeof(*file));

	if (file == NULL || queue_init(&file->queue) == -1) {
		memory_free(file);
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: out of memory", sink->config->name);
		return NULL;
	}
	pthread_mutex_init(&file->lock, NULL); /* cannot fail with no attributes */
	file->trouble = (struct sink_trouble){0};
	pthread_mutex_init(&file->trouble.lock, NULL);
	file->users = NULL;
	file->next = NULL;
	file->config = sink->config;
	file->reference = config_ref(sink->config_reference);
	file->device = 0;
	file->inode = 0;
	file->target = (struct file_target){.fd = -1};
	file->torn = file->started = file->hurried = false;
	file->synced = sink->config->sync;
	file->good = 0;
	file->output.buffer = NULL;
	file->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (file->wake == -1 || output_init(&file->output, -1) == -1) {
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s", sink->config->name,
			  strerror(errno));
		file->output.buffer = NULL;
		file_free(file);
		return NULL;
	}
	file->output.wait = file_wait;
	file->output.wait_arg = file;
	return file;
}

/* The file of this path, if a sink has it already, under whatever name. */
static struct file *
file_find(const char *path)
{
	struct file *file;
	struct stat st;
	bool there = stat(path, &st) == 0 && S_ISREG(st.st_mode), same;

	for (file = files; file != NULL; file = file->next) {
		pthread_mutex_lock(&file->lock);
		same = strcmp(file->config->path, path) == 0 ||
		       (there && file->inode == st.st_ino && file->device == st.st_dev);
		pthread_mutex_unlock(&file->lock);
		if (same)
			return file;
	}
	return NULL;
}

/* Opens what no other sink has open.  0, or an exit code; then the file is freed. */
static int
file_begin(struct sink *sink, struct file *file)
{
	const struct config_sink *config = sink->config;
	int code;

	if (file_target_open(config, &file->target, NULL) == 0) {
		file_identify(file);
	} else if (errno == ENXIO || errno == ENOSPC || errno == EDQUOT) {
		/* ENXIO: a FIFO whose reader may come yet. */
		file_failed(config, file, config->path, errno);
	} else {
		code = sink_exit_code(errno);
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s: %s", config->name,
			  config->path, strerror(errno));
		file_free(file);
		return code;
	}
	file->next = files;
	files = file;
	return 0;
}

static int
file_open(struct sink *sink)
{
	struct file *file = file_find(sink->config->path);
	struct file_user *user = memory_alloc(sizeof(*user));
	int code;

	if (user == NULL) {
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: out of memory", sink->config->name);
		return EX_OSERR;
	}
	if (file == NULL) {
		file = file_new(sink);
		code = file != NULL ? file_begin(sink, file) : EX_OSERR;
		if (code != 0) {
			memory_free(user);
			return code;
		}
	}
	*user = (struct file_user){.next = file->users, .file = file, .sink = sink};
	file->users = user;
	file_follow(file);
	sink->state = user;
	sink->trouble = &file->trouble;
	return 0;
}

static struct file *
file_of(struct sink *sink)
{
	struct file_user *user = sink->state;

	return user->file;
}

static int
file_start(struct sink *sink)
{
	struct file *file = file_of(sink);
	int code;

	if (file->started)
		return 0;
	code = sink_start_thread(sink, &file->thread, "file", file_run, file);
	file->started = code == 0;
	return code;
}

static void
file_deliver(struct sink *sink, struct delivery *first)
{
	struct file *file = file_of(sink);

	queue_put(&file->queue, first);
}

static void
file_order_reopen(struct sink *sink)
{
	struct file *file = file_of(sink);

	queue_reopen(&file->queue);
}

static void
file_hurry(struct sink *sink)
{
	struct file *file = file_of(sink);
	uint64_t one = 1;

	if (write(file->wake, &one, sizeof(one)) == -1)
		log_event(LOG_LEVEL_WARNING, "sink-hurry", "sink %s: %s", sink->config->name,
			  strerror(errno));
}

static void
file_close(struct sink *sink)
{
	struct file_user *user = sink->state, **at;
	struct file *file = user->file;

	for (at = &file->users; *at != user; at = &(*at)->next)
		;
	*at = user->next;
	memory_free(user);
	if (file->users != NULL) {
		file_follow(file);
		return;
	}
	queue_close(&file->queue);
	if (file->started)
		pthread_join(file->thread, NULL);
	file_target_close(file->config, &file->target);
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
