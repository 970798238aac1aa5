/*
 * file: what the file sink (file.c) asks of a file (file_target.c) and of its end
 * (file_tail.c).
 */
#ifndef SINKS_FILE_H
#define SINKS_FILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "message/format.h"

struct config_sink;

struct file_target {
	int fd;
	bool regular;
	dev_t device;
	ino_t inode;
	bool named; /* its name is durable */
};

/* Opens the target; one that is open already (old, same file) is not looked at again.
 * -1: errno; nothing is left open. */
int file_target_open(const struct config_sink *config, struct file_target *target,
		     const struct file_target *old);
/* Makes its name durable, whoever made it.  -1: errno. */
int file_target_name(const struct config_sink *config, struct file_target *target);
void file_target_close(const struct config_sink *config, struct file_target *target);

/* Where the last whole record of a file of len bytes ends: len, unless a crash tore
 * the last one.  *ours: whether what follows looks like the beginning of a record.
 * -1: errno. */
off_t file_tail_find(int fd, off_t len, enum format format, bool *ours);

/* Makes a file len bytes long, durably: what was appended is gone, and the last
 * block, of which a failed sync may have lost the older part too, is written anew.
 * 0, or -1 with errno. */
int file_tail_mend(int fd, off_t len, bool sync);

#endif
