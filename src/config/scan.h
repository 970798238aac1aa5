/*
 * scan: what must be known of a file's text before libconfig gets it.
 *
 * The scanner knows as many words of libconfig's language as it takes to tell
 * code from comments and strings, numbers from names, and where a string may
 * stand.  It is careful there because libconfig forgets (and leaks) a string
 * that comes where none may, and has no words for the likeliest mistakes.
 *
 * Private to source.c and scan.c.
 */
#ifndef CONFIG_SCAN_H
#define CONFIG_SCAN_H

#include <stdio.h>
#include <sys/types.h>

#include "config/source.h"

enum token {
	TOKEN_START,
	TOKEN_VALUE,
	TOKEN_STRING,
	TOKEN_EQUALS,
	TOKEN_COMMA,
	TOKEN_OPEN,
	TOKEN_OTHER
};

/* A file that is being read, and the one that includes it. */
struct frame {
	const struct frame *up;
	const char *path;
	dev_t device;
	ino_t inode;
	char *bytes; /* with a NUL after them */
	size_t len;
	size_t at;   /* scanned so far */
	size_t sent; /* passed on so far */
	size_t file;
	int line;
};

struct reader {
	struct source *source;
	struct report *report;
	FILE *out;
	unsigned line; /* of the whole */
	size_t size;   /* read so far */
	unsigned n_includes;
	enum token last;
	char open[SOURCE_NESTING_MAX];          /* brackets ... */
	unsigned open_line[SOURCE_NESTING_MAX]; /* ... and their lines */
	size_t n_open;
	bool broken;
};

/* Passes a file on to reader->out, includes in place, until its end or an error. */
void scan_file(struct reader *reader, struct frame *frame);

/* Room for one more item; NULL: none, and the reader is broken. */
void *scan_grow(struct reader *reader, void *items, size_t count, size_t size);

/* An error after which there is no point in going on. */
#define scan_fail(reader, frame, ...)                                                      \
	do {                                                                               \
		(reader)->broken = true;                                                   \
		report_add((reader)->report, (reader)->line, (frame)->path, (frame)->line, \
			   __VA_ARGS__);                                                   \
	} while (0)

/* In source.c, for includes: */
void source_read_file(struct reader *reader, const char *path, const struct frame *up);
void source_add_segment(struct reader *reader, const struct frame *frame);

#endif
