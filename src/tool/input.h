/*
 * input: the files to be sent, as messages, in order, again if need be.
 *
 * What cannot be read twice (a pipe) is copied to an unnamed file first.  All files
 * are looked at before anything is sent: they are there, and their bytes can be
 * carried by the framing.  One that changes after that is an error, not a message.
 *
 * Functions that fail have said why, and left the exit status in `code`.
 */
#ifndef TOOL_INPUT_H
#define TOOL_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "framing/framing.h"

struct input_file {
	char *name;
	int copy; /* -1: it is read where it lies */
	uint64_t size;
	struct stat seen;
};

/* A message. */
struct input_item {
	size_t file;
	uint64_t at; /* in the file */
	uint64_t size;
	uint64_t line;    /* its number, with framing line; else 0 */
	uint64_t arrives; /* the size that it is received with: no CR before the LF */
};

struct input {
	const struct framing_config *framing;
	struct input_file *files;
	size_t n_files;
	uint64_t bytes; /* of all */
	int code;
	/* The next message */
	size_t file;
	uint64_t at;
	uint64_t line;
	/* What is read from */
	size_t open;
	int fd;
	unsigned char *window;
	uint64_t window_at;
	size_t window_len;
};

/* "-" and no names at all are standard input.  0 or the exit status. */
int input_open(struct input *input, const struct framing_config *framing, char **names,
	       size_t n_names);
void input_close(struct input *input);

/* 1: item is the next message, 0: there is none, -1. */
int input_next(struct input *input, struct input_item *item);

/* Bytes of a message from an offset on, at least one and as many as are at hand.
 * -1: it cannot be read, or it has changed. */
ssize_t input_read(struct input *input, const struct input_item *item, uint64_t from,
		   unsigned char *bytes, size_t len);

/* "report.pdf", or "calls.txt, line 12"; the caller frees it. */
char *input_name(const struct input *input, const struct input_item *item);

#endif
