/*
 * spool_commit: a group of messages becomes files in DIRECTORY/new.
 *
 * The order is: the bytes of all files, one sync for all of them, the names, one
 * sync of the directory, and only then the answers.  So a name never stands for
 * bytes that a crash could take away, and an answer never for such a name.
 *
 * How the bytes are synced (measured: HACKING.md, "Group commit"): a single
 * file with fdatasync, so that a lone message waits for nothing but its own;
 * from two on with one syncfs, which costs about what one fdatasync does.  syncfs
 * tells (since Linux 5.8) of whatever the filesystem failed to write since the
 * description it is called with was last told, so each group has a description of
 * its own, opened before any of the group's bytes are written; older kernels say
 * nothing, and there each file is synced.  A body that was spilled may have lost bytes
 * before all that; it is asked on its own.
 *
 * What failed to sync is not synced again: the kernel takes it for clean.  Its
 * file goes, without ever having had a name.  Where the directory's sync fails,
 * the names are taken back: whether they would outlive a crash is unknown, they
 * are not going to be acknowledged, and the sender is told to send again.  A
 * consumer may have seen one of them; that delivery is then made twice.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/fault.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/config.h"
#include "message/body.h"
#include "sinks/spool.h"
#include "sinks/spool_facts.h"

#define LISTENER_LEN 128 /* of a listener's name; what is longer is cut */

static bool
name_allows(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '-' || c == '_';
}

/* The peer as it is printed, without brackets, a hyphen before its port.  Dots pass
 * only here: the first two of a name separate its parts. */
static char *
put_peer(char *to, const struct net_address *peer)
{
	char text[NET_TEXT_LEN], *port, *c;

	net_address_text(peer, text);
	port = strrchr(text, ':');
	if (port != NULL)
		*port = '-';
	for (c = text; *c != '\0'; c++)
		if (*c != '[' && *c != ']')
			*to++ = strchr(".:%", *c) != NULL || name_allows((unsigned char)*c) ? *c : '_';
	return to;
}

void
spool_name(const struct batch *batch, const struct message *message, char name[SPOOL_NAME_LEN + 1])
{
	const char *c = batch->origin->listener;
	char *to = name + ID_TEXT_LEN, *end;

	id_text(&message->id, name);
	*to++ = '.';
	for (end = to + LISTENER_LEN; *c != '\0' && to < end; c++)
		*to++ = name_allows((unsigned char)*c) ? *c : '_';
	*to++ = '.';
	*put_peer(to, &batch->origin->peer) = '\0';
}

static void
file_failed(struct spool_file *file, const char *what, int error)
{
	file->error = error != 0 ? error : EIO;
	file->what = what;
}

/* Closes the file and, where it had a name in tmp/, removes that. */
static void
file_discard(struct spool_group *group, struct spool_file *file)
{
	if (file->fd != -1 && !file->borrowed) {
		fault_close(file->fd); /* nothing in it is wanted */
		if (!group->unnamed && fault_unlinkat(group->tmp, file->name, 0) == -1 &&
		    errno != ENOENT)
			log_event(LOG_LEVEL_WARNING, "spool-left", "%s/tmp/%s: %s",
				  group->config->directory, file->name, strerror(errno));
	}
	file->fd = -1;
}

static int
write_message(struct spool_group *group, struct spool_file *file)
{
	struct cursor cursor;
	const unsigned char *piece;
	ptrdiff_t n;

	if (file->message->body == NULL)
		return body_write_all(file->fd, file->message->data, (size_t)file->message->size);
	cursor_start(&cursor, file->message);
	while ((n = cursor_next(&cursor, &piece, group->scratch, SPOOL_SCRATCH)) > 0)
		if (body_write_all(file->fd, piece, (size_t)n) == -1)
			return -1;
	return n == 0 ? 0 : -1;
}

bool
spool_group_links(const struct spool_group *group, const struct batch *batch,
		  const struct message *message)
{
	const struct body *body = message->body;

	return body != NULL && body->file != -1 && body->linkable && group->unnamed &&
	       body->device == group->device && body->size == message->size &&
	       batch->n_deliveries == 1;
}

static int
open_directory(const char *directory, const char *name)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/%s", directory, name) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return fault_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
}

/* After a failure: the directories may have been moved away and made again. */
static void
refresh(struct spool_group *group)
{
	int new = open_directory(group->config->directory, "new");
	int tmp = open_directory(group->config->directory, "tmp");
	struct stat st;

	if (new != -1 && tmp != -1 && fault_fstat(new, &st) == 0) {
		int swap = group->new;

		group->rooted &= st.st_dev == group->device && st.st_ino == group->inode;
		group->device = st.st_dev;
		group->inode = st.st_ino;
		group->new = new;
		new = swap;
		swap = group->tmp;
		group->tmp = tmp;
		tmp = swap;
	}
	if (new != -1)
		fault_close(new); /* directories have nothing to lose */
	if (tmp != -1)
		fault_close(tmp);
}

/* A directory that was moved away takes all that is written, and nobody looks there. */
void
spool_group_follow(struct spool_group *group)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "%s/new", group->config->directory); /* it fitted before */
	if (fstatat(AT_FDCWD, path, &st, 0) == 0 &&
	    (st.st_dev != group->device || st.st_ino != group->inode))
		refresh(group);
}

/* Makes the file; its mode is what the configuration says, whatever the umask. */
static int
file_open(struct spool_group *group, struct spool_file *file)
{
	if (group->unnamed)
		file->fd = fault_openat(group->tmp, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	else
		file->fd = fault_openat(group->tmp, file->name,
					O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	return file->fd == -1 ? -1 : 0;
}

/* The name has to do, then: the message is worth more than what is known of it. */
static void
say_no_facts(struct spool_group *group, int error)
{
	if (!group->facts_said)
		log_event(LOG_LEVEL_WARNING, "spool-facts",
			  "sink %s: %s: a message's facts cannot be kept: %s; after a restart it is "
			  "handed on with those of its name", group->config->name,
			  group->config->directory, strerror(error));
	group->facts_said = true;
}

static bool
out_of_descriptors(int error)
{
	return error == EMFILE || error == ENFILE;
}

enum spool_added
spool_group_add(struct spool_group *group, const struct batch *batch, struct message *message,
		unsigned owner)
{
	struct spool_file *file = &group->files[group->count];

	if (group->count == SPOOL_FILES || group->bytes >= SPOOL_GROUP_BYTES)
		return SPOOL_FULL;
	if (group->count == 0)
		spool_group_follow(group);
	file->message = message;
	file->owner = owner;
	file->error = 0;
	file->borrowed = file->synced = file->linked = false;
	file->fd = -1;
	spool_name(batch, message, file->name);
	if (spool_group_links(group, batch, message)) {
		file->fd = message->body->file;
		file->borrowed = true;
	} else if (file_open(group, file) == -1) {
		if (out_of_descriptors(errno) && group->count > 0)
			return SPOOL_FULL;
		file_failed(file, "creating a file", errno);
	}
	if (file->error == 0 && fault_fchmod(file->fd, group->config->mode) == -1)
		file_failed(file, "fchmod", errno);
	if (file->error == 0 && !file->borrowed) {
		if (write_message(group, file) == -1)
			file_failed(file, "writing a file", errno);
		group->bytes += message->size;
	}
	if (file->error == 0 && group->config->forward != NULL &&
	    spool_facts_write(file->fd, batch, message, file->name) == -1)
		say_no_facts(group, errno);
	if (file->error != 0)
		file_discard(group, file);
	group->count++;
	return SPOOL_ADDED;
}

static void
sync_each(struct spool_group *group, bool borrowed)
{
	struct spool_file *file, *end = group->files + group->count;

	for (file = group->files; file < end; file++) {
		int result;

		if (file->error != 0 || file->synced || file->borrowed != borrowed)
			continue;
		result = borrowed ? body_verify(file->message->body, true) : fault_fdatasync(file->fd);
		if (result == -1)
			file_failed(file, "syncing a file", errno);
		file->synced = true;
	}
}

static void
sync_data(struct spool_group *group)
{
	struct spool_file *file, *end = group->files + group->count;
	unsigned written = 0;

	sync_each(group, true);
	for (file = group->files; file < end; file++)
		written += file->error == 0 && !file->borrowed;
	if (written <= 1 || !group->syncfs_tells) {
		sync_each(group, false);
		return;
	}
	if (fault_syncfs(group->new) == 0)
		return;
	for (file = group->files; file < end; file++)
		if (file->error == 0 && !file->borrowed)
			file_failed(file, "syncing files", errno);
}

/* Gives a file its name.  What has one is closed: its bytes are safe, unless closing
 * says otherwise (as it may on NFS). */
static void
publish(struct spool_group *group, struct spool_file *file)
{
	char path[32];
	int result;

	if (group->unnamed) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
		result = fault_linkat(AT_FDCWD, path, group->new, file->name, AT_SYMLINK_FOLLOW);
	} else {
		/* Before the name is there, as NFS writes on close. */
		result = fault_close(file->fd);
		file->fd = -1;
		if (result == -1) {
			file_failed(file, "closing a file", errno);
			fault_unlinkat(group->tmp, file->name, 0);
			return;
		}
		result = fault_renameat(group->tmp, file->name, group->new, file->name);
		if (result == -1) {
			file_failed(file, "rename", errno);
			fault_unlinkat(group->tmp, file->name, 0);
			return;
		}
	}
	if (result == -1) {
		file_failed(file, "linking a file", errno);
		return;
	}
	file->linked = true;
	if (!file->borrowed && file->fd != -1) {
		if (fault_close(file->fd) == -1)
			file_failed(file, "closing a file", errno);
		file->fd = -1;
	}
}

/* Takes a name back. */
static void
withdraw(struct spool_group *group, struct spool_file *file)
{
	if (!file->linked)
		return;
	file->linked = false;
	/* A consumer may have taken it. */
	if (fault_unlinkat(group->new, file->name, 0) == -1 && errno != ENOENT)
		log_event(LOG_LEVEL_ERROR, "spool-left",
			  "%s/new/%s: %s; it was not acknowledged and may come twice",
			  group->config->directory, file->name, strerror(errno));
}

/* Makes the names of new/ durable, and its own, which somebody else may have made. */
static int
sync_names(struct spool_group *group)
{
	if (!group->rooted && fault_syncfs(group->new) == -1)
		return -1;
	group->rooted = true;
	return fault_fsync(group->new);
}

void
spool_group_commit(struct spool_group *group)
{
	struct spool_file *file, *end = group->files + group->count;
	unsigned linked = 0;
	bool failed = false;

	if (group->config->sync)
		sync_data(group);
	for (file = group->files; file < end; file++) {
		if (file->error == 0)
			publish(group, file);
		linked += file->linked;
		if (file->error != 0) {
			failed = true;
			withdraw(group, file);
			file_discard(group, file);
		}
	}
	if (linked > 0 && group->config->sync && sync_names(group) == -1) {
		int error = errno;

		for (file = group->files; file < end; file++) {
			withdraw(group, file);
			if (file->error == 0)
				file_failed(file, "syncing the directory new", error);
		}
		failed = true;
	}
	if (failed)
		refresh(group);
	group->bytes = 0;
}

void
spool_group_clear(struct spool_group *group)
{
	group->count = 0;
}

/* Whether the error says that the filesystem (or a system without /proc) cannot do it,
 * and not that it is full or broken at the moment. */
static bool
is_lacking(int error)
{
	return error == EOPNOTSUPP || error == EISDIR || error == ENOENT || error == EINVAL ||
	       error == EPERM || error == EXDEV || error == ENOSYS || error == EMLINK;
}

bool
spool_group_probe(struct spool_group *group)
{
	char path[32], name[64];
	struct timespec now;
	int fd = fault_openat(group->tmp, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
	bool linked, lacking;

	if (fd == -1)
		return !is_lacking(errno);
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	snprintf(name, sizeof(name), ".probe-%ld-%lld%09ld", (long)getpid(), (long long)now.tv_sec,
		 now.tv_nsec);
	linked = fault_linkat(AT_FDCWD, path, group->tmp, name, AT_SYMLINK_FOLLOW) == 0;
	lacking = !linked && is_lacking(errno);
	if (linked && fault_unlinkat(group->tmp, name, 0) == -1)
		log_event(LOG_LEVEL_WARNING, "spool-left", "%s/tmp/%s: %s", group->config->directory,
			  name, strerror(errno));
	fault_close(fd); /* nothing was written to it */
	return !lacking;
}

int
spool_group_try(struct spool_group *group)
{
	struct spool_file *file = &group->files[0];
	int result, error;

	refresh(group);
	file->borrowed = false;
	snprintf(file->name, sizeof(file->name), ".try-%p", (void *)group);
	if (file_open(group, file) == -1)
		return -1;
	result = body_write_all(file->fd, (const unsigned char *)"", 1);
	if (result == 0 && group->config->sync) {
		/* Takes what syncfs still has to tell of earlier groups, too. */
		result = fault_fdatasync(file->fd);
		if (result == 0)
			result = fault_syncfs(group->new);
		if (result == 0)
			result = fault_fsync(group->new);
		group->rooted |= result == 0;
	}
	error = errno;
	file_discard(group, file);
	errno = error;
	return result;
}

/* Since Linux 5.8 syncfs fails when something could not be written. */
static bool
kernel_tells(void)
{
	struct utsname name;
	unsigned long major, minor = 0;
	char *rest;

	if (uname(&name) == -1)
		return false;
	major = strtoul(name.release, &rest, 10);
	if (*rest == '.')
		minor = strtoul(rest + 1, NULL, 10);
	return major > 5 || (major == 5 && minor >= 8);
}

int
spool_group_open(struct spool_group *group, const struct config_sink *config)
{
	struct stat st;

	*group = (struct spool_group){.config = config, .new = -1, .tmp = -1};
	group->files = memory_alloc(sizeof(*group->files) * SPOOL_FILES);
	group->scratch = memory_alloc(SPOOL_SCRATCH);
	if (group->files == NULL || group->scratch == NULL) {
		errno = ENOMEM;
		return -1;
	}
	group->new = open_directory(config->directory, "new");
	group->tmp = open_directory(config->directory, "tmp");
	if (group->new == -1 || group->tmp == -1 || fault_fstat(group->new, &st) == -1)
		return -1;
	group->device = st.st_dev;
	group->inode = st.st_ino;
	group->syncfs_tells = kernel_tells();
	if (fault_fstat(group->tmp, &st) == -1)
		return -1;
	if (st.st_dev != group->device) {
		errno = EXDEV;
		return -1;
	}
	return 0;
}

void
spool_group_close(struct spool_group *group)
{
	if (group->new != -1)
		fault_close(group->new);
	if (group->tmp != -1)
		fault_close(group->tmp);
	memory_free(group->files);
	memory_free(group->scratch);
	*group = (struct spool_group){.new = -1, .tmp = -1};
}
