/*
 * limit: what limit.c and limit_commit.c share.
 */
#ifndef BENCH_LIMIT_H
#define BENCH_LIMIT_H

#include <stdbool.h>
#include <stddef.h>

struct limit_options {
	const char *path; /* of a file or a directory */
	size_t threads;
	bool sync;
};

/* Opens the path and starts the threads that commit.  spool: one file a message,
 * otherwise all messages in one file. */
void commit_start(const struct limit_options *options, bool spool);

/* Between these two, lines that have been read are handed over. */
void commit_round_begin(void);
void commit_line(int fd, const unsigned char *line, size_t len); /* with its newline */
void commit_round_end(void);

#endif
