/*
 * belongings: see belongings.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/log.h"
#include "belongings.h"
#include "config/config.h"
#include "identity.h"
#include "logging.h"

#define PID_FILE_TRIES 100 /* while others remove what was opened */
#define PID_LEN 23 /* a number and a newline, and then some */

/* Whether nobody but root decides where a path leads: then root may make something
 * there.  In any other place a link could lead it anywhere. */
static bool
is_roots(const char *path)
{
	char prefix[PATH_MAX];
	const char *slash;
	struct stat st;

	for (slash = path; slash != NULL; slash = strchr(slash + 1, '/')) {
		snprintf(prefix, sizeof(prefix), "%.*s", slash == path ? 1 : (int)(slash - path), path);
		if (lstat(prefix, &st) == -1)
			return errno == ENOENT; /* to be made, by root */
		if (st.st_uid != 0)
			return false;
		if (!S_ISLNK(st.st_mode) && (st.st_mode & (S_IWGRP | S_IWOTH)) != 0 &&
		    (st.st_mode & S_ISVTX) == 0)
			return false;
	}
	return true;
}

/* --------------------------------------------------------------------- log */

int
belongings_open_log(const struct config *config, const struct identity *identity, bool background)
{
	const struct config_log *log = &config->log;
	struct privileges_loan loan;
	int result, error;

	if (!identity_borrow(identity, &loan))
		return EX_OSERR;
	result = logging_open(log, background);
	error = errno;
	if (!identity_return(identity, &loan))
		return EX_OSERR;
	if (result == 0)
		return 0;
	fprintf(stderr, "cisternd: cannot open the log %s: %s%s%s%s\n",
		log->path != NULL ? log->path : "", strerror(error),
		identity->changes ? "; the user " : "", identity->changes ? config->user : "",
		identity->changes ? " must be able to open it, now and anew" : "");
	return error == EACCES ? EX_NOPERM : EX_CANTCREAT;
}

/* ---------------------------------------------------------------- pid file */

static int
pid_file_failed(const char *path)
{
	log_event(LOG_LEVEL_ERROR, "pid-file", "pid_file %s: %s", path, strerror(errno));
	return errno == EACCES ? EX_NOPERM : EX_CANTCREAT;
}

/* As the user, so that it can be removed again; where only root may (/run), as root. */
static int
open_pid_file(const char *path, const struct identity *identity)
{
	const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
	struct privileges_loan loan;
	int fd = -1, error;

	if (!identity_borrow(identity, &loan))
		return -1;
	fd = open(path, flags, 0644);
	error = errno;
	if (!identity_return(identity, &loan)) {
		if (fd != -1)
			close(fd);
		return -1;
	}
	if (fd == -1 && error == EACCES && identity->changes && is_roots(path))
		return open(path, flags, 0644);
	errno = error;
	return fd;
}

/* Whether the path still leads to the file that is open: whoever held it before removes it
 * at its end, and the lock on a file without a name keeps nobody out. */
static bool
is_named(const char *path, int fd)
{
	struct stat there, here;

	if (lstat(path, &there) == -1)
		return errno != ENOENT; /* who may not look may not remove either */
	return fstat(fd, &here) == 0 && there.st_dev == here.st_dev && there.st_ino == here.st_ino;
}

/* Whether nothing is lost when it is written to: it is empty, or holds a number. */
static bool
is_pid_file(int fd)
{
	char text[PID_LEN + 1];
	ssize_t n = pread(fd, text, sizeof(text), 0), i;

	for (i = 0; i < n; i++)
		if ((text[i] < '0' || text[i] > '9') && text[i] != '\n')
			return false;
	return n >= 0 && n <= PID_LEN;
}

/* A file that is ours alone: the descriptor, or -1 and the exit code. */
static int
hold_pid_file(const char *path, const struct identity *identity, int *code)
{
	struct stat st;
	int fd, tries;

	for (tries = 0; tries < PID_FILE_TRIES; tries++) {
		fd = open_pid_file(path, identity);
		if (fd == -1) {
			*code = pid_file_failed(path);
			return -1;
		}
		/* A second name, or a device, is somebody's trap. */
		if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode) || st.st_nlink > 1) {
			close(fd);
			errno = EPERM;
			*code = pid_file_failed(path);
			return -1;
		}
		if (!is_pid_file(fd)) {
			close(fd);
			log_event(LOG_LEVEL_ERROR, "pid-file", "pid_file %s: what lies there is no "
				  "pid file; remove it, or name another one", path);
			*code = EX_CANTCREAT;
			return -1;
		}
		if (flock(fd, LOCK_EX | LOCK_NB) == -1)
			break;
		if (is_named(path, fd))
			return fd;
		close(fd);
	}
	log_event(LOG_LEVEL_ERROR, "pid-file",
		  "pid_file %s: locked: a cisternd with this file is running already", path);
	if (tries < PID_FILE_TRIES)
		close(fd);
	*code = EX_CANTCREAT;
	return -1;
}

int
belongings_open_pid_file(const struct config *config, const struct identity *identity, int *fd)
{
	const char *path = config->pid_file;
	char text[PID_LEN + 1];
	int len, code;

	if (path == NULL)
		return 0;
	*fd = hold_pid_file(path, identity, &code);
	if (*fd == -1)
		return code;
	len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(*fd, 0) == -1 || write(*fd, text, (size_t)len) != len) {
		log_event(LOG_LEVEL_ERROR, "pid-file", "pid_file %s: %s", path, strerror(errno));
		return EX_IOERR;
	}
	return 0;
}

void
belongings_close_pid_file(const struct config *config, int fd)
{
	if (fd == -1)
		return;
	/* Where somebody has removed it, it may be another cisternd's by now. */
	if (is_named(config->pid_file, fd) && unlink(config->pid_file) == -1 &&
	    ftruncate(fd, 0) == -1)
		log_event(LOG_LEVEL_WARNING, "pid-file", "pid_file %s: cannot be emptied: %s",
			  config->pid_file, strerror(errno));
	close(fd);
}

/* --------------------------------------------------------- spill directory */

/* One directory, of root's making, for the user. */
static void
give_away(const char *path, const struct identity *identity)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd == -1 ||
	    fchown(fd, identity->privileges.uid, identity->privileges.gid) == -1)
		log_event(LOG_LEVEL_WARNING, "spill-directory",
			  "spill_directory %s: cannot be given to the user: %s", path,
			  strerror(errno));
	if (fd != -1)
		close(fd);
}

/* Whether it was missing and could be made, its parent included: the state directory's
 * parent is missing on a machine without packages. */
static bool
make_directory(const char *path)
{
	char parent[PATH_MAX];
	char *slash;

	if (mkdir(path, 0700) == 0)
		return true;
	if (errno != ENOENT)
		return false;
	snprintf(parent, sizeof(parent), "%s", path);
	slash = strrchr(parent, '/');
	if (slash != NULL && slash != parent) {
		*slash = '\0';
		(void)mkdir(parent, 0755);
	}
	return mkdir(path, 0700) == 0;
}

void
belongings_make_spill_directory(const struct config *config, const struct identity *identity)
{
	const char *path = config->spill_directory;
	struct privileges_loan loan;
	bool made;

	if (!identity_borrow(identity, &loan))
		return;
	made = make_directory(path);
	if (!identity_return(identity, &loan))
		return;
	if (!made && identity->changes && is_roots(path) && make_directory(path))
		give_away(path, identity);
}

/* One that was asked for must be usable; the default one is only needed once a
 * message is large. */
int
belongings_check_spill_directory(const struct config *config)
{
	const char *path = config->spill_directory;
	enum log_level level = config->spill_directory_given ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING;

	if (access(path, W_OK | X_OK) == 0)
		return 0;
	log_event(level, "spill-directory", "spill_directory %s: %s; %s", path, strerror(errno),
		  config->spill_directory_given
			  ? "make it, writable for this user, or name another one"
			  : "messages over 1 MiB are refused until it can be written to "
			    "(set spill_directory to one that can)");
	if (!config->spill_directory_given)
		return 0;
	return errno == EACCES ? EX_NOPERM : EX_CANTCREAT;
}
