/*
 * file_target: the file that messages are appended to, opened at a whole record's end.
 *
 * A record that a crash tore is cut off; what is no record of ours stays.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/fault.h"
#include "base/log.h"
#include "config/config.h"
#include "sinks/file.h"

#define CLOSED_MARK "user.cistern.closed"

static int
sync_directory(const char *path)
{
	char copy[PATH_MAX];
	struct stat st;
	int fd, result, error;

	if (strlen(path) >= sizeof(copy)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (lstat(path, &st) == 0 && S_ISLNK(st.st_mode)) {
		errno = ELOOP; /* its name is elsewhere */
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

int
file_target_name(const struct config_sink *config, struct file_target *target)
{
	int result;

	if (!target->regular || target->named)
		return 0;
	result = sync_directory(config->path);
	/* A link; one that we may write to and not read; or that is none, as /dev/fd. */
	if (result == -1 && (errno == ELOOP || errno == EACCES || errno == EINVAL))
		result = fault_syncfs(target->fd);
	target->named = result == 0;
	return result;
}

/* raw: whether its last record is whole cannot be seen, only whether the file was
 * closed in order. */
static void
report_raw(const struct config_sink *config, int fd, off_t len)
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
		  config->name, config->path, (long long)len,
		  (unsigned long long)(closed <= (uint64_t)len ? closed : 0));
}

/* Cuts off a record that a crash tore.  0, or -1 with errno. */
static int
cut_tail(const struct config_sink *config, int fd, off_t len)
{
	enum format format = (enum format)config->format;
	bool ours;
	off_t good;

	if (format == FORMAT_RAW) {
		report_raw(config, fd, len);
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

int
file_target_open(const struct config_sink *config, struct file_target *target,
		 const struct file_target *old)
{
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
	target->named = false;
	/* Also of a file that is there: the last try to open it may have come no further. */
	if (config->sync && file_target_name(config, target) == -1)
		goto fail;
	if (old != NULL && old->fd != -1 && old->device == st.st_dev && old->inode == st.st_ino)
		return 0;
	if (target->regular && cut_tail(config, target->fd, st.st_size) == -1)
		goto fail;
	return 0;
fail:
	error = errno != 0 ? errno : EIO;
	fault_close(target->fd);
	target->fd = -1;
	errno = error;
	return -1;
}

void
file_target_close(const struct config_sink *config, struct file_target *target)
{
	struct stat st;
	uint64_t len;

	if (target->fd == -1)
		return;
	/* For report_raw; a filesystem without attributes goes without. */
	if (target->regular && config->format == FORMAT_RAW &&
	    fault_fstat(target->fd, &st) == 0) {
		len = (uint64_t)st.st_size;
		(void)fsetxattr(target->fd, CLOSED_MARK, &len, sizeof(len), 0);
	}
	/* With sync all that was acknowledged is safe already. */
	if (fault_close(target->fd) == -1)
		log_event(LOG_LEVEL_ERROR, "sink-close", "sink %s: %s: %s", config->name,
			  config->path, strerror(errno));
	target->fd = -1;
}
