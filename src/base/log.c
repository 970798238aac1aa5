/*
 * log: lines, each written whole with one write, or counted as dropped.
 *
 *     2026-11-22T18:41:55.123Z warning EVENT main#17 192.0.2.1:5140: message
 *     2026-11-22T18:41:55.123Z notice EVENT: message
 *
 * To the journal (also where the standard error is the journal) the level goes as
 * "<4>" and the time is left out; syslog(3) gets what follows the level.  With
 * json a line is one object.  Controls and whatever else could deceive a reader are
 * shown as \xNN, so that nobody writes lines but cistern.
 *
 * Before a line goes to a pipe or a terminal, poll(2) says whether it can take
 * any; a terminal takes a part of a line then, and would have the rest waited for, so it is
 * opened anew, not to wait.  Sockets are written to without waiting.  Only syslog(3) may
 * wait for its daemon.  Nothing that fails here is fatal, and none of it touches errno.
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/utf8.h"

#define LINE_MAX_LEN 4096 /* with its newline; no more than PIPE_BUF */
#define FIELD_ROOM 128 /* for a field's name and number, and what comes after it */
#define IDENTITY "cisternd"

enum way { WAY_UNKNOWN, WAY_FILE, WAY_POLL, WAY_SOCKET, WAY_SYSLOG };

/* A line in the making.  What does not fit is cut off, with "..." in its place. */
struct line {
	size_t used;
	size_t limit;
	bool full;
	bool json;
	char text[1 + LINE_MAX_LEN]; /* the first is a newline, for the rest of a broken line */
};

/* Everything below is guarded by the lock, but for the threshold. */
static struct {
	pthread_mutex_t lock;
	enum log_target target;
	enum way way;
	int fd;
	bool owned; /* fd is the log's own */
	char *path;
	bool json;
	bool prefix; /* "<4>" instead of time and level */
	bool broken; /* the last line was cut short by a full disk or terminal */
	unsigned long long dropped;
	int level;
	int more; /* of -v */
} state = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.target = LOG_TARGET_STDERR,
	.fd = STDERR_FILENO,
	.level = LOG_LEVEL_INFO,
};

atomic_int log_threshold = LOG_LEVEL_INFO;

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error", [LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_NOTICE] = "notice", [LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

static const int priorities[] = {
	[LOG_LEVEL_ERROR] = LOG_ERR, [LOG_LEVEL_WARNING] = LOG_WARNING,
	[LOG_LEVEL_NOTICE] = LOG_NOTICE, [LOG_LEVEL_INFO] = LOG_INFO,
	[LOG_LEVEL_DEBUG] = LOG_DEBUG,
};

static void
set_threshold(void)
{
	int sum = state.level + state.more;

	if (sum > LOG_LEVEL_DEBUG)
		sum = LOG_LEVEL_DEBUG;
	if (sum < LOG_LEVEL_ERROR)
		sum = LOG_LEVEL_ERROR;
	atomic_store_explicit(&log_threshold, sum, memory_order_relaxed);
}

/* Making a line */

static void
line_start(struct line *line, bool json)
{
	line->json = json;
	line->full = false;
	line->text[0] = '\n';
	line->used = 1;
	/* Room is kept for dots, the end of an object and the newline. */
	line->limit = sizeof line->text - (sizeof "...\"}\n" - 1);
}

/* All or nothing. */
static void
line_put(struct line *line, const char *bytes, size_t len)
{
	if (line->full)
		return;
	if (len > line->limit - line->used) {
		line->full = true;
		bytes = "...";
		len = 3;
	}
	memcpy(line->text + line->used, bytes, len);
	line->used += len;
}

static void
line_string(struct line *line, const char *string)
{
	line_put(line, string, strlen(string));
}

static void
line_shown(struct line *line, const char *shown, size_t len)
{
	char escaped[JSON_ESCAPED_MAX(UTF8_SHOW_MAX(1))];

	if (line->json) {
		len = json_escape(escaped, (const unsigned char *)shown, len);
		shown = escaped;
	}
	line_put(line, shown, len);
}

/* Text from elsewhere, a byte at a time, so that it is cut between characters. */
static void
line_text(struct line *line, const char *text)
{
	struct utf8_show show = { 0 };
	char shown[UTF8_SHOW_MAX(1)];

	for (; *text != '\0' && !line->full; text++)
		line_shown(line, shown, utf8_show(&show, shown, (const unsigned char *)text, 1));
	line_shown(line, shown, utf8_show_end(&show, shown));
}

static void
line_member(struct line *line, const char *key, const char *value)
{
	line_string(line, key);
	line_text(line, value);
}

static void
line_fields(struct line *line, const struct log_field *field)
{
	char number[32];

	for (; field != NULL && field->name != NULL; field++) {
		/* Only the message may be cut: here that would be no object any more. */
		if (line->limit - line->used <
		    FIELD_ROOM + JSON_ESCAPED_MAX(field->text != NULL ? strlen(field->text) : 0))
			continue;
		line_member(line, ",\"", field->name);
		if (field->text != NULL) {
			line_member(line, "\":\"", field->text);
			line_string(line, "\"");
		} else {
			snprintf(number, sizeof number, "\":%llu", field->number);
			line_string(line, number);
		}
	}
}

static void
make_json(struct line *line, enum log_level level, const char *event,
	  const struct log_subject *subject, const struct log_field *first,
	  const struct log_field *fields, const char *message)
{
	char text[CLOCK_TEXT_LEN + 1];
	char number[48];

	clock_rfc3339(clock_wall(), text);
	line_member(line, "{\"time\":\"", text);
	line_member(line, "\",\"level\":\"", level_names[level]);
	line_member(line, "\",\"event\":\"", event);
	if (subject != NULL) {
		snprintf(number, sizeof number, "\",\"connection\":%llu", subject->connection);
		line_string(line, number);
		line_member(line, ",\"listener\":\"", subject->listener);
		line_member(line, "\",\"peer\":\"", subject->peer);
	}
	line_string(line, "\"");
	line_fields(line, first);
	if (subject != NULL)
		line_fields(line, subject->fields);
	line_fields(line, fields);
	line_member(line, ",\"message\":\"", message);
	memcpy(line->text + line->used, "\"}\n", 3);
	line->used += 3;
}

static void
make_text(struct line *line, enum log_level level, const char *event,
	  const struct log_subject *subject, const char *message)
{
	char number[32];
	char text[CLOCK_TEXT_LEN + 1];

	if (!state.prefix && state.way != WAY_SYSLOG) {
		clock_rfc3339(clock_wall(), text);
		line_put(line, text, CLOCK_TEXT_LEN - 4); /* milliseconds will do */
		line_string(line, "Z ");
		line_string(line, level_names[level]);
		line_string(line, " ");
	}
	line_text(line, event);
	if (subject != NULL) {
		line_string(line, " ");
		line_text(line, subject->listener);
		snprintf(number, sizeof number, "#%llu ", subject->connection);
		line_string(line, number);
		line_text(line, subject->peer);
	}
	line_string(line, ": ");
	line_text(line, message);
	line->text[line->used++] = '\n';
}

static void
make_line(struct line *line, enum log_level level, const char *event,
	  const struct log_subject *subject, const struct log_field *first,
	  const struct log_field *fields, const char *message)
{
	char number[8];

	line_start(line, state.json);
	if (state.prefix) {
		snprintf(number, sizeof number, "<%d>", priorities[level]);
		line_string(line, number);
	}
	if (state.json)
		make_json(line, level, event, subject, first, fields, message);
	else
		make_text(line, level, event, subject, message);
}

/* Writing it */

/* Whether the standard error leads to the journal: systemd says which file it is. */
static bool
is_journal(int fd)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
	       fstat(fd, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static enum way
way_of(int fd)
{
	struct stat st;

	if (fstat(fd, &st) == -1)
		return WAY_FILE; /* closed: each write will fail and count */
	if (S_ISSOCK(st.st_mode))
		return WAY_SOCKET;
	return S_ISREG(st.st_mode) ? WAY_FILE : WAY_POLL;
}

/* A description of our own: whoever else has the terminal does not want to be told EAGAIN.
 * -1: it is none, or may not be opened. */
static int
reopen_terminal(int fd)
{
	char path[32];

	if (!isatty(fd))
		return -1;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	return open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

static void
leave_target(void)
{
	if (state.owned)
		close(state.fd);
	if (state.way == WAY_SYSLOG)
		closelog();
	state.owned = false;
	state.fd = -1;
	state.way = WAY_UNKNOWN;
	state.prefix = false;
	state.broken = false;
}

/* file: the log's own descriptor, for LOG_TARGET_FILE. */
static void
enter_target(enum log_target target, int file)
{
	state.target = target;
	switch (target) {
	case LOG_TARGET_SYSLOG:
		openlog(IDENTITY, LOG_PID, LOG_DAEMON);
		state.way = WAY_SYSLOG;
		return;
	case LOG_TARGET_FILE:
		state.fd = file;
		state.owned = true;
		break;
	case LOG_TARGET_STDERR:
	case LOG_TARGET_JOURNAL:
		state.prefix = target == LOG_TARGET_JOURNAL || is_journal(STDERR_FILENO);
		state.fd = reopen_terminal(STDERR_FILENO);
		state.owned = state.fd != -1;
		if (!state.owned)
			state.fd = STDERR_FILENO;
		break;
	}
	state.way = way_of(state.fd);
}

static int
open_file(const char *path)
{
	return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
}

/* Whether half a line that a full disk has left stands before what is written to fd, too. */
static bool
stays_broken(int fd)
{
	struct stat now, before;

	return state.broken && fd != -1 && fstat(fd, &now) == 0 && fstat(state.fd, &before) == 0 &&
	       now.st_dev == before.st_dev && now.st_ino == before.st_ino;
}

static bool
has_room(void)
{
	struct pollfd poller = { .fd = state.fd, .events = POLLOUT };

	return poll(&poller, 1, 0) == 1 && (poller.revents & POLLOUT) != 0;
}

static ssize_t
write_once(const char *text, size_t len)
{
	ssize_t n;

	do {
		if (state.way == WAY_SOCKET)
			n = send(state.fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		else
			n = write(state.fd, text, len);
	} while (n == -1 && errno == EINTR);
	return n;
}

static bool
write_line(struct line *line, enum log_level level)
{
	size_t skip = state.broken ? 0 : 1; /* the newline in front */
	size_t len = line->used - skip;
	ssize_t n;

	if (state.way == WAY_SYSLOG) {
		syslog(priorities[level], "%.*s", (int)(line->used - 2), line->text + 1);
		return true;
	}
	if (state.way == WAY_POLL && !has_room())
		return false;
	n = write_once(line->text + skip, len);
	if (n == (ssize_t)len) {
		state.broken = false;
		return true;
	}
	if (n > 0)
		state.broken = true;
	return false;
}

/* Says how many lines are missing, once there is room again. */
static bool
write_dropped(struct line *line)
{
	char message[96];

	snprintf(message, sizeof message, "%llu %s dropped: the log could not be written to",
		 state.dropped, state.dropped == 1 ? "line" : "lines");
	make_line(line, LOG_LEVEL_WARNING, "log-dropped", NULL, NULL, NULL, message);
	if (!write_line(line, LOG_LEVEL_WARNING))
		return false;
	state.dropped = 0;
	return true;
}

static void
emit(enum log_level level, const char *event, const struct log_subject *subject,
     const struct log_field *first, const struct log_field *fields, const char *message)
{
	struct line line;

	pthread_mutex_lock(&state.lock);
	if (state.way == WAY_UNKNOWN)
		enter_target(LOG_TARGET_STDERR, -1);
	if (state.dropped > 0 && !write_dropped(&line)) {
		state.dropped++;
	} else {
		make_line(&line, level, event, subject, first, fields, message);
		if (!write_line(&line, level))
			state.dropped++;
	}
	pthread_mutex_unlock(&state.lock);
}

/* What a format begins with, as a field. */
static void
take_first(struct log_field *field, const char *format, va_list arguments)
{
	static const char *const names[] = { "listener", "sink", "user" };
	size_t i, len;

	if (strncmp(format, "worker %u", 9) == 0) {
		*field = (struct log_field)LOG_NUMBER("worker", va_arg(arguments, unsigned));
		return;
	}
	for (i = 0; i < sizeof names / sizeof names[0]; i++) {
		len = strlen(names[i]);
		if (strncmp(format, names[i], len) != 0 || strncmp(format + len, " %s", 3) != 0)
			continue;
		*field = (struct log_field)LOG_TEXT(names[i], va_arg(arguments, const char *));
		return;
	}
}

/* errno is what the caller had when its arguments are put together: %m may be
 * among them. */
static void __attribute__((format(printf, 5, 0)))
log_arguments(enum log_level level, const char *event, const struct log_subject *subject,
	      const struct log_field *fields, const char *format, va_list arguments)
{
	struct log_field first[2] = { { 0 } };
	int error = errno;
	va_list copy;
	char message[LINE_MAX_LEN + 1]; /* longer ones would be cut anyway */

	va_copy(copy, arguments);
	take_first(first, format, copy);
	va_end(copy);
	errno = error;
	if (vsnprintf(message, sizeof message, format, arguments) < 0)
		snprintf(message, sizeof message, "%s", format);
	emit(level, event, subject, first, fields, message);
	errno = error;
}

int
log_open(enum log_target target, const char *path, enum log_level level, bool json)
{
	int error = errno;
	int fd = -1;
	char *copy = NULL;
	bool broken;

	if (target == LOG_TARGET_FILE) {
		copy = strdup(path);
		fd = copy != NULL ? open_file(path) : -1;
		if (fd == -1) {
			error = errno;
			free(copy);
			errno = error;
			return -1;
		}
	}
	pthread_mutex_lock(&state.lock);
	broken = stays_broken(fd);
	leave_target();
	free(state.path);
	state.path = copy;
	state.json = json;
	state.level = (int)level;
	set_threshold();
	enter_target(target, fd);
	state.broken = broken;
	pthread_mutex_unlock(&state.lock);
	errno = error;
	return 0;
}

int
log_reopen(void)
{
	int error = errno;
	int result = 0;
	int fd = -1;
	bool broken;

	pthread_mutex_lock(&state.lock);
	if (state.target == LOG_TARGET_FILE) {
		fd = open_file(state.path);
		if (fd == -1) {
			error = errno;
			result = -1;
		}
	}
	if (result == 0) {
		broken = stays_broken(fd);
		leave_target();
		enter_target(state.target, fd);
		state.broken = broken;
	}
	pthread_mutex_unlock(&state.lock);
	errno = error;
	return result;
}

void
log_close(void)
{
	int error = errno;
	struct line line;

	pthread_mutex_lock(&state.lock);
	if (state.dropped > 0)
		(void)write_dropped(&line); /* the last chance to say so */
	leave_target();
	free(state.path);
	state.path = NULL;
	state.target = LOG_TARGET_STDERR;
	state.json = false;
	state.dropped = 0;
	state.fd = STDERR_FILENO;
	state.level = LOG_LEVEL_INFO;
	set_threshold();
	pthread_mutex_unlock(&state.lock);
	errno = error;
}

void
log_verbose(int levels)
{
	pthread_mutex_lock(&state.lock);
	state.more += levels;
	set_threshold();
	pthread_mutex_unlock(&state.lock);
}

void
log_event(enum log_level level, const char *event, const char *format, ...)
{
	va_list arguments;

	if (!log_enabled(level))
		return;
	va_start(arguments, format);
	log_arguments(level, event, NULL, NULL, format, arguments);
	va_end(arguments);
}

void
log_event_with(enum log_level level, const char *event, const struct log_field *fields,
	       const char *format, ...)
{
	va_list arguments;

	if (!log_enabled(level))
		return;
	va_start(arguments, format);
	log_arguments(level, event, NULL, fields, format, arguments);
	va_end(arguments);
}

void
log_connection(enum log_level level, const char *event, const struct log_subject *subject,
	       const char *format, ...)
{
	va_list arguments;

	if (!log_enabled(level))
		return;
	va_start(arguments, format);
	log_arguments(level, event, subject, NULL, format, arguments);
	va_end(arguments);
}
