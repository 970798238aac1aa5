/*
 * input: see input.h.
 *
 * Everything is read through one window, so that lines cost a system call for many,
 * and large files one for every 64 KiB.
 */
#include "tool/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "tool/envelope.h"
#include "tool/tool.h"

#define WINDOW 65536
#define STANDARD_INPUT "standard input"

static int
failed(struct input *input, int code)
{
	input->code = code;
	return -1;
}

static bool
is_standard_input(const struct input_file *file)
{
	return strcmp(file->name, "-") == 0;
}

static const char *
file_name(const struct input_file *file)
{
	return is_standard_input(file) ? STANDARD_INPUT : file->name;
}

char *
input_name(const struct input *input, const struct input_item *item)
{
	const char *name = file_name(&input->files[item->file]);
	char *text;
	int n;

	if (item->line == 0)
		return tool_copy(name);
	n = asprintf(&text, "%s, line %llu", name, (unsigned long long)item->line);
	return n == -1 ? tool_copy(name) : text;
}

static bool
is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* A file without a name, where temporary files go. */
static int
temporary(void)
{
	const char *directory = getenv("TMPDIR");
	char *path;
	int fd;

	if (directory == NULL || *directory == '\0')
		directory = "/tmp";
	fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd != -1)
		return fd;
	if (asprintf(&path, "%s/cistern-send.XXXXXX", directory) == -1) {
		errno = ENOMEM;
		return -1;
	}
	fd = mkostemp(path, O_CLOEXEC);
	if (fd != -1)
		unlink(path);
	free(path);
	return fd;
}

static int
write_all(int fd, const unsigned char *bytes, size_t len)
{
	while (len > 0) {
		ssize_t n = write(fd, bytes, len);

		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1)
			return -1;
		bytes += n;
		len -= (size_t)n;
	}
	return 0;
}

/* What comes from a pipe may have to be sent again, and its size told first. */
static int
copy_stream(struct input *input, struct input_file *file, int from)
{
	ssize_t n;

	file->copy = temporary();
	if (file->copy == -1) {
		tool_complain("a temporary file for %s: %s (TMPDIR says where)", file_name(file),
			      strerror(errno));
		return failed(input, EX_CANTCREAT);
	}
	for (;;) {
		n = read(from, input->window, WINDOW);
		if (n == 0)
			break;
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1) {
			tool_complain("%s: %s", file_name(file), strerror(errno));
			return failed(input, EX_IOERR);
		}
		if (write_all(file->copy, input->window, (size_t)n) == -1) {
			tool_complain("a temporary file for %s: %s (TMPDIR says where)",
				      file_name(file), strerror(errno));
			return failed(input, EX_IOERR);
		}
		file->size += (uint64_t)n;
	}
	if (fstat(file->copy, &file->seen) == 0)
		return 0;
	tool_complain("%s: %s", file_name(file), strerror(errno));
	return failed(input, EX_IOERR);
}

/* Looks at a file for the first time. */
static int
file_look(struct input *input, struct input_file *file)
{
	int fd = is_standard_input(file) ? STDIN_FILENO : open(file->name, O_RDONLY | O_CLOEXEC);
	int result = 0;

	if (fd == -1 || fstat(fd, &file->seen) == -1) {
		tool_complain("%s: %s", file_name(file), strerror(errno));
		result = failed(input, EX_NOINPUT);
	} else if (S_ISDIR(file->seen.st_mode)) {
		tool_complain("%s: it is a directory", file_name(file));
		result = failed(input, EX_NOINPUT);
	} else if (is_standard_input(file) || !S_ISREG(file->seen.st_mode)) {
		result = copy_stream(input, file, fd);
	} else {
		file->size = (uint64_t)file->seen.st_size;
	}
	if (fd != -1 && fd != STDIN_FILENO)
		close(fd);
	return result;
}

/* Makes a file the one that is read from; it must be what it was. */
static int
file_open(struct input *input, size_t number)
{
	const struct input_file *file = &input->files[number];
	struct stat now;

	if (input->open == number)
		return 0;
	if (input->fd != -1)
		close(input->fd);
	input->open = SIZE_MAX;
	input->window_len = 0;
	input->fd = file->copy != -1 ? fcntl(file->copy, F_DUPFD_CLOEXEC, 3) :
				       open(file->name, O_RDONLY | O_CLOEXEC);
	if (input->fd == -1 || fstat(input->fd, &now) == -1) {
		tool_complain("%s: %s", file_name(file), strerror(errno));
		return failed(input, EX_NOINPUT);
	}
	if (!is_same(&now, &file->seen)) {
		tool_complain("%s: it has changed since it was first looked at; send it again",
			      file_name(file));
		return failed(input, EX_DATAERR);
	}
	input->open = number;
	return 0;
}

/* Bytes of a file at an offset before its end, as many as are at hand. */
static int
look(struct input *input, size_t number, uint64_t at, const unsigned char **bytes, size_t *len)
{
	ssize_t n;

	if (file_open(input, number) == -1)
		return -1;
	if (at < input->window_at || at - input->window_at >= input->window_len) {
		do
			n = pread(input->fd, input->window, WINDOW, (off_t)at);
		while (n == -1 && errno == EINTR);
		input->window_len = 0;
		if (n == -1) {
			tool_complain("%s: %s", file_name(&input->files[number]), strerror(errno));
			return failed(input, EX_IOERR);
		}
		if (n == 0) {
			tool_complain("%s: it has become shorter while it was read; send it again",
				      file_name(&input->files[number]));
			return failed(input, EX_DATAERR);
		}
		input->window_at = at;
		input->window_len = (size_t)n;
	}
	*bytes = input->window + (at - input->window_at);
	*len = input->window_len - (size_t)(at - input->window_at);
	if (*len > input->files[number].size - at)
		*len = (size_t)(input->files[number].size - at);
	return 0;
}

/* Before its last bytes go out: they are those that were looked at. */
static int
file_verify(struct input *input)
{
	const struct input_file *file = &input->files[input->open];
	struct stat now;

	if (fstat(input->fd, &now) == 0 && is_same(&now, &file->seen))
		return 0;
	tool_complain("%s: it has changed while it was sent, and was not accepted; send it again",
		      file_name(file));
	return failed(input, EX_DATAERR);
}

/* Whether the framing can carry the file at all. */
static int
file_check(struct input *input, size_t number)
{
	const struct input_file *file = &input->files[number];
	unsigned char head[ENVELOPE_HEAD_MAX];
	struct envelope_check check;
	const unsigned char *bytes;
	const char *why;
	uint64_t at;
	size_t len;

	if (input->framing->kind == FRAMING_LINE)
		return 0; /* its lines are the messages */
	why = envelope_head(input->framing, file->size, head, &len);
	if (why == NULL && envelope_is_picky(input->framing)) {
		why = envelope_check_start(&check, input->framing);
		for (at = 0; why == NULL && at < file->size; at += len) {
			if (look(input, number, at, &bytes, &len) == -1)
				return -1;
			why = envelope_check_feed(&check, bytes, len);
		}
		if (why == NULL)
			why = envelope_check_end(&check);
	}
	if (why == NULL)
		return 0;
	tool_complain("%s: framing %s cannot carry it: %s; nothing was sent", file_name(file),
		      framing_name(input->framing->kind), why);
	return failed(input, EX_DATAERR);
}

int
input_open(struct input *input, const struct framing_config *framing, char **names,
	   size_t n_names)
{
	static char standard[] = "-";
	char *only[] = {standard};
	size_t i;

	if (n_names == 0) {
		names = only;
		n_names = 1;
	}
	*input = (struct input){.framing = framing, .open = SIZE_MAX, .fd = -1};
	input->window = tool_alloc(WINDOW);
	input->files = tool_alloc(n_names * sizeof *input->files);
	for (i = 0; i < n_names; i++) {
		struct input_file *file = &input->files[input->n_files++];

		file->name = tool_copy(names[i]);
		file->copy = -1;
		if (file_look(input, file) == -1 || file_check(input, i) == -1)
			return input->code;
		input->bytes += file->size;
	}
	return 0;
}

void
input_close(struct input *input)
{
	for (size_t i = 0; i < input->n_files; i++) {
		if (input->files[i].copy != -1)
			close(input->files[i].copy);
		free(input->files[i].name);
	}
	if (input->fd != -1)
		close(input->fd);
	free(input->files);
	free(input->window);
}

/* The next line with anything in it. */
static int
next_line(struct input *input, struct input_item *item)
{
	uint64_t end = input->files[input->file].size;
	const unsigned char *bytes, *lf = NULL;
	unsigned char last = '\0';
	size_t len;

	while (input->at < end) {
		item->at = input->at;
		item->size = 0;
		item->line = ++input->line;
		for (lf = NULL; lf == NULL && input->at < end; input->at += len) {
			if (look(input, input->file, input->at, &bytes, &len) == -1)
				return -1;
			lf = memchr(bytes, '\n', len);
			if (lf != NULL)
				len = (size_t)(lf - bytes);
			if (len > 0)
				last = bytes[len - 1];
			item->size += len;
		}
		input->at += lf != NULL;
		item->arrives = item->size - (item->size > 0 && last == '\r');
		if (item->arrives > 0)
			return 1;
	}
	return 0;
}

int
input_next(struct input *input, struct input_item *item)
{
	int result;

	for (; input->file < input->n_files; input->file++, input->at = 0, input->line = 0) {
		*item = (struct input_item){.file = input->file};
		if (input->framing->kind != FRAMING_LINE) {
			item->size = item->arrives = input->files[input->file].size;
			input->file++;
			return 1;
		}
		result = next_line(input, item);
		if (result != 0)
			return result;
	}
	return 0;
}

ssize_t
input_read(struct input *input, const struct input_item *item, uint64_t from,
	   unsigned char *bytes, size_t len)
{
	const unsigned char *found;
	size_t n;

	if (look(input, item->file, item->at + from, &found, &n) == -1)
		return -1;
	if (n > len)
		n = len;
	if (n > item->size - from)
		n = (size_t)(item->size - from);
	if (from + n == item->size && item->line == 0 && file_verify(input) == -1)
		return -1;
	memcpy(bytes, found, n);
	return (ssize_t)n;
}
