/*
 * fault: see fault.h.  In an ordinary build this file is empty.
 *
 * The trace is text, a line as a call begins and one as it ends, each written
 * whole with one write:
 *
 *	> NUMBER THREAD NAME ARGUMENTS
 *	< NUMBER RESULT [ERRNO]
 *	! NAME/K ACTION			the fault struck
 *	= TEXT				a note
 *
 * A call's effect may be there from its beginning and is there from its end; a
 * sync covers what had ended before it began.  Directories and files are given by
 * descriptor, paths as they were, bytes as offset, length and hexadecimal digits
 * ("-" where they are more than TRACE_BYTES).
 */
#include "base/fault.h"

#ifdef FAULT_POINTS

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>

#define TRACE_BYTES 262144 /* of one call */

enum point {
	POINT_OPEN, POINT_TMPFILE, POINT_MKDIR, POINT_WRITE, POINT_WRITEV, POINT_PWRITE, POINT_PREAD,
	POINT_FDATASYNC, POINT_FSYNC, POINT_SYNCFS, POINT_SYNC_FILE_RANGE, POINT_FSTAT, POINT_FSTATVFS,
	POINT_FCHMOD, POINT_FTRUNCATE, POINT_LINK, POINT_RENAME, POINT_UNLINK, POINT_CLOSE,
	POINT_MALLOC, POINT_COUNT,
};

enum action { ACTION_NONE, ACTION_FAIL, ACTION_SHORT, ACTION_KILL, ACTION_KILL_AFTER };

static const char *const point_names[POINT_COUNT] = {
	[POINT_OPEN] = "open", [POINT_TMPFILE] = "tmpfile", [POINT_MKDIR] = "mkdir",
	[POINT_WRITE] = "write", [POINT_WRITEV] = "writev", [POINT_PWRITE] = "pwrite",
	[POINT_PREAD] = "pread", [POINT_FDATASYNC] = "fdatasync", [POINT_FSYNC] = "fsync",
	[POINT_SYNCFS] = "syncfs", [POINT_SYNC_FILE_RANGE] = "sync_file_range",
	[POINT_FSTAT] = "fstat", [POINT_FSTATVFS] = "fstatvfs", [POINT_FCHMOD] = "fchmod",
	[POINT_FTRUNCATE] = "ftruncate", [POINT_LINK] = "link", [POINT_RENAME] = "rename",
	[POINT_UNLINK] = "unlink", [POINT_CLOSE] = "close", [POINT_MALLOC] = "malloc",
};

static const struct {
	const char *name;
	int number;
} errors[] = {
	{"ENOSPC", ENOSPC}, {"EIO", EIO}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
	{"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"ENOMEM", ENOMEM}, {"EACCES", EACCES},
	{"EINTR", EINTR}, {"EINVAL", EINVAL}, {"EOPNOTSUPP", EOPNOTSUPP}, {"ENOENT", ENOENT},
};

static struct {
	pthread_once_t once;
	int point; /* -1: any */
	unsigned long long first;
	unsigned long long last;
	enum action action;
	const char *action_name;
	int error;
	int trace; /* -1: none */
} plan = {.once = PTHREAD_ONCE_INIT, .point = -1, .trace = -1};

static _Atomic unsigned long long counts[POINT_COUNT];
static _Atomic unsigned long long all;

/* A call under way. */
struct call {
	unsigned long long number;
	enum point point;
	enum action action;
};

_Noreturn static void
fault_misused(const char *what)
{
	dprintf(STDERR_FILENO, "CISTERN_FAULT: %s\n", what);
	_exit(64);
}

static void
parse_action(char *text)
{
	char *times = strchr(text, ':');
	size_t i;

	plan.last = plan.first;
	if (times != NULL) {
		*times++ = '\0';
		if (strcmp(times, "on") == 0)
			plan.last = UINT64_MAX;
		else if (strcmp(times, "once") != 0)
			plan.last = plan.first + strtoull(times, NULL, 10) - 1;
	}
	plan.action_name = text;
	if (strcmp(text, "short") == 0)
		plan.action = ACTION_SHORT;
	else if (strcmp(text, "kill") == 0)
		plan.action = ACTION_KILL;
	else if (strcmp(text, "kill-after") == 0)
		plan.action = ACTION_KILL_AFTER;
	for (i = 0; plan.action == ACTION_NONE && i < sizeof(errors) / sizeof(errors[0]); i++) {
		if (strcmp(text, errors[i].name) == 0) {
			plan.action = ACTION_FAIL;
			plan.error = errors[i].number;
		}
	}
	if (plan.action == ACTION_NONE)
		fault_misused("no such action");
}

static void
parse_plan(void)
{
	static char text[128];
	const char *given = getenv("CISTERN_FAULT"), *trace = getenv("CISTERN_FAULT_TRACE");
	char *number = text, *action;
	int i;

	if (trace != NULL) {
		plan.trace = open(trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
		if (plan.trace == -1)
			fault_misused("the trace cannot be opened");
	}
	if (given == NULL || *given == '\0')
		return;
	if (snprintf(text, sizeof(text), "%s", given) >= (int)sizeof(text))
		fault_misused("too long");
	if ((number = strchr(text, '/')) != NULL) {
		*number++ = '\0';
		for (i = 0; i < POINT_COUNT && strcmp(text, point_names[i]) != 0; i++)
			;
		if (i == POINT_COUNT)
			fault_misused("no such point");
		plan.point = i;
	} else {
		number = text;
	}
	plan.first = strtoull(number, &action, 10);
	if (plan.first == 0 || *action != ':')
		fault_misused("expected [NAME/]K:ACTION[:TIMES]");
	parse_action(action + 1);
}

static void __attribute__((format(printf, 2, 3)))
trace_line(char kind, const char *format, ...)
{
	char line[512];
	va_list args;
	int n;

	if (plan.trace == -1)
		return;
	line[0] = kind;
	line[1] = ' ';
	va_start(args, format);
	n = vsnprintf(line + 2, sizeof(line) - 3, format, args);
	va_end(args);
	if (n < 0 || n > (int)sizeof(line) - 4)
		n = (int)sizeof(line) - 4;
	line[2 + n] = '\n';
	if (write(plan.trace, line, (size_t)n + 3) != n + 3)
		fault_misused("the trace cannot be written");
}

/* The same with bytes behind it, in as many pieces as they come. */
static void
trace_bytes(unsigned long long number, enum point point, int fd, off_t at,
	    const struct iovec *pieces, int count)
{
	static const char digits[] = "0123456789abcdef";
	size_t total = 0, used;
	char *line;
	int i;

	if (plan.trace == -1)
		return;
	for (i = 0; i < count; i++)
		total += pieces[i].iov_len;
	line = malloc((total <= TRACE_BYTES ? 2 * total : 0) + 128);
	if (line == NULL)
		fault_misused("no memory for the trace");
	used = (size_t)sprintf(line, "> %llu %ld %s %d %lld %zu ", number, syscall(SYS_gettid),
			       point_names[point], fd, (long long)at, total);
	if (total > TRACE_BYTES)
		line[used++] = '-';
	for (i = 0; total <= TRACE_BYTES && i < count; i++) {
		const unsigned char *byte = pieces[i].iov_base, *end = byte + pieces[i].iov_len;

		for (; byte < end; byte++) {
			line[used++] = digits[*byte >> 4];
			line[used++] = digits[*byte & 15];
		}
	}
	line[used++] = '\n';
	if (write(plan.trace, line, used) != (ssize_t)used)
		fault_misused("the trace cannot be written");
	free(line);
}

static struct call
call_count(enum point point)
{
	struct call call = {.point = point};
	unsigned long long nth;

	pthread_once(&plan.once, parse_plan);
	call.number = atomic_fetch_add(&all, 1) + 1;
	nth = atomic_fetch_add(&counts[point], 1) + 1;
	if (plan.point == -1)
		nth = call.number;
	else if ((int)point != plan.point)
		return call;
	if (plan.action != ACTION_NONE && nth >= plan.first && nth <= plan.last)
		call.action = plan.action;
	return call;
}

/* Strikes before the call.  True: it is not to take place. */
static bool
call_strikes(const struct call *call)
{
	if (call->action == ACTION_NONE)
		return false;
	trace_line('!', "%s/%llu %s", point_names[call->point], call->number, plan.action_name);
	if (call->action == ACTION_KILL)
		raise(SIGKILL);
	return call->action == ACTION_FAIL;
}

static long long
call_end(const struct call *call, long long result)
{
	int error = errno;

	if (call->action == ACTION_KILL_AFTER)
		raise(SIGKILL);
	if (result == -1)
		trace_line('<', "%llu -1 %d", call->number, error);
	else
		trace_line('<', "%llu %lld", call->number, result);
	errno = error;
	return result;
}

/* A call that fails or takes place, and whose result is an integer. */
#define TAKE_PLACE(point, expression, ...)                                                        \
	do {                                                                                      \
		struct call call_ = call_count(point);                                            \
		char arguments_[400];                                                             \
		if (plan.trace != -1) {                                                           \
			snprintf(arguments_, sizeof(arguments_), __VA_ARGS__);                    \
			trace_line('>', "%llu %ld %s %s", call_.number, syscall(SYS_gettid),      \
				   point_names[point], arguments_);                               \
		}                                                                                 \
		if (call_strikes(&call_)) {                                                       \
			errno = plan.error;                                                       \
			return (int)call_end(&call_, -1);                                         \
		}                                                                                 \
		return (int)call_end(&call_, (expression));                                       \
	} while (0)

static enum point
open_point(int flags)
{
	return (flags & O_TMPFILE) == O_TMPFILE ? POINT_TMPFILE : POINT_OPEN;
}

int
fault_open(const char *path, int flags, mode_t mode)
{
	TAKE_PLACE(open_point(flags), open(path, flags, mode), "%d %x %s", AT_FDCWD, flags, path);
}

int
fault_openat(int directory, const char *path, int flags, mode_t mode)
{
	TAKE_PLACE(open_point(flags), openat(directory, path, flags, mode), "%d %x %s", directory,
		   flags, path);
}

int
fault_mkostemp(char *path, int flags)
{
	TAKE_PLACE(POINT_OPEN, mkostemp(path, flags), "%d %x %s", AT_FDCWD, O_CREAT | flags, path);
}

int
fault_mkdirat(int directory, const char *path, mode_t mode)
{
	TAKE_PLACE(POINT_MKDIR, mkdirat(directory, path, mode), "%d %s", directory, path);
}

static ssize_t
write_pieces(enum point point, int fd, const struct iovec *pieces, int count, off_t at)
{
	struct call call = call_count(point);
	struct iovec half = pieces[0];

	trace_bytes(call.number, point, fd, at, pieces, count);
	if (call_strikes(&call)) {
		errno = plan.error;
		return (ssize_t)call_end(&call, -1);
	}
	if (call.action == ACTION_SHORT && (half.iov_len > 1 || count > 1)) {
		if (half.iov_len > 1)
			half.iov_len /= 2;
		pieces = &half;
		count = 1;
	}
	if (point == POINT_PWRITE)
		return (ssize_t)call_end(&call, pwrite(fd, pieces->iov_base, pieces->iov_len, at));
	return (ssize_t)call_end(&call, writev(fd, pieces, count));
}

/* Where the next write goes: of a file opened with O_APPEND its end. */
static off_t
position(int fd)
{
	int flags;

	if (plan.trace == -1)
		return 0;
	flags = fcntl(fd, F_GETFL);
	return lseek(fd, 0, flags != -1 && (flags & O_APPEND) != 0 ? SEEK_END : SEEK_CUR);
}

ssize_t
fault_write(int fd, const void *bytes, size_t len)
{
	struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};

	return write_pieces(POINT_WRITE, fd, &piece, 1, position(fd));
}

ssize_t
fault_writev(int fd, const struct iovec *pieces, int count)
{
	return write_pieces(POINT_WRITEV, fd, pieces, count, position(fd));
}

ssize_t
fault_pwrite(int fd, const void *bytes, size_t len, off_t at)
{
	struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};

	return write_pieces(POINT_PWRITE, fd, &piece, 1, at);
}

ssize_t
fault_pread(int fd, void *bytes, size_t len, off_t at)
{
	struct call call = call_count(POINT_PREAD);

	if (call_strikes(&call)) {
		errno = plan.error;
		return -1;
	}
	return pread(fd, bytes, len, at);
}

int
fault_fdatasync(int fd)
{
	TAKE_PLACE(POINT_FDATASYNC, fdatasync(fd), "%d", fd);
}

int
fault_fsync(int fd)
{
	TAKE_PLACE(POINT_FSYNC, fsync(fd), "%d", fd);
}

int
fault_syncfs(int fd)
{
	TAKE_PLACE(POINT_SYNCFS, syncfs(fd), "%d", fd);
}

int
fault_sync_file_range(int fd, off_t at, off_t len, unsigned flags)
{
	TAKE_PLACE(POINT_SYNC_FILE_RANGE, sync_file_range(fd, at, len, flags), "%d", fd);
}

int
fault_fstat(int fd, struct stat *st)
{
	TAKE_PLACE(POINT_FSTAT, fstat(fd, st), "%d", fd);
}

int
fault_fstatvfs(int fd, struct statvfs *st)
{
	TAKE_PLACE(POINT_FSTATVFS, fstatvfs(fd, st), "%d", fd);
}

int
fault_fchmod(int fd, mode_t mode)
{
	TAKE_PLACE(POINT_FCHMOD, fchmod(fd, mode), "%d %o", fd, mode);
}

int
fault_ftruncate(int fd, off_t len)
{
	TAKE_PLACE(POINT_FTRUNCATE, ftruncate(fd, len), "%d %lld", fd, (long long)len);
}

int
fault_linkat(int from, const char *old, int to, const char *new, int flags)
{
	TAKE_PLACE(POINT_LINK, linkat(from, old, to, new, flags), "%d %s %d %s", from, old, to, new);
}

int
fault_renameat(int from, const char *old, int to, const char *new)
{
	TAKE_PLACE(POINT_RENAME, renameat(from, old, to, new), "%d %s %d %s", from, old, to, new);
}

int
fault_unlinkat(int directory, const char *path, int flags)
{
	TAKE_PLACE(POINT_UNLINK, unlinkat(directory, path, flags), "%d %s", directory, path);
}

int
fault_close(int fd)
{
	struct call call = call_count(POINT_CLOSE);
	int result;

	trace_line('>', "%llu %ld close %d", call.number, syscall(SYS_gettid), fd);
	if (call_strikes(&call)) {
		close(fd);
		errno = plan.error;
		return (int)call_end(&call, -1);
	}
	/* Ends in the trace first: the number is free for others from now on. */
	if (call.action == ACTION_NONE)
		trace_line('<', "%llu 0", call.number);
	result = close(fd);
	if (call.action == ACTION_KILL_AFTER)
		raise(SIGKILL);
	return result;
}

void *
fault_malloc(size_t size)
{
	struct call call = call_count(POINT_MALLOC);

	if (call_strikes(&call)) {
		errno = ENOMEM;
		return NULL;
	}
	return malloc(size);
}

void
fault_note(const char *format, ...)
{
	char text[400];
	va_list args;

	pthread_once(&plan.once, parse_plan);
	if (plan.trace == -1)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	trace_line('=', "%s", text);
}

#endif
