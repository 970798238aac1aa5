/*
 * spool: what the sink's thread handling (spool.c) and its committing of groups
 * (spool_commit.c) share.
 */
#ifndef SINKS_SPOOL_H
#define SINKS_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "message/message.h"

struct config_sink;

#define SPOOL_FILES 256		  /* of a group; that many descriptors are open at once */
#define SPOOL_GROUP_BYTES 8388608 /* a group that has written so much is committed */
#define SPOOL_SCRATCH 65536
#define SPOOL_NAME_LEN 255 /* NAME_MAX of every filesystem worth using */

/* A message on its way into the spool. */
struct spool_file {
	struct message *message;
	unsigned owner; /* whose message it is: the caller's */
	int fd;         /* -1: failed, or closed */
	bool borrowed;  /* the file is the message's body: not ours to close */
	bool synced;
	bool linked;
	int error; /* 0: all is well so far */
	const char *what;
	char name[SPOOL_NAME_LEN + 1];
};

/* One writer's group.  Its descriptors of the spool are its own: the kernel tells
 * each open description once of what failed to be written. */
struct spool_group {
	const struct config_sink *config;
	bool unnamed;    /* files without a name can be made and linked */
	bool syncfs_tells; /* of errors */
	bool facts_said;
	dev_t device;    /* the spool's */
	ino_t inode;     /* of new/ */
	bool rooted;     /* its own name, and those above it, are durable */
	int new;
	int tmp;
	unsigned count;
	uint64_t bytes;   /* written since the last commit */
	struct spool_file *files;
	unsigned char *scratch;
};

/* -1: errno.  What it needs is all allocated here. */
int spool_group_open(struct spool_group *group, const struct config_sink *config);
void spool_group_close(struct spool_group *group);

/* Whether files can be made without a name and linked into DIRECTORY/new: tried, as
 * nothing else tells. */
bool spool_group_probe(struct spool_group *group);

/* Once another directory has the name, that is the spool. */
void spool_group_follow(struct spool_group *group);

enum spool_added { SPOOL_ADDED, SPOOL_FULL };

/* Writes one message's file.  SPOOL_FULL: not yet, the group is to be committed
 * first.  A failure is noted in the file. */
enum spool_added spool_group_add(struct spool_group *group, const struct batch *batch,
				 struct message *message, unsigned owner);

/* Makes all that was added durable, then gives it its names, then makes those
 * durable.  Afterwards each file either is in the spool, or has an error and no
 * name.  The files stay to be looked at until spool_group_clear. */
void spool_group_commit(struct spool_group *group);
void spool_group_clear(struct spool_group *group);

/* Writes and syncs a byte, to see whether the trouble is over.  0, or -1 with errno. */
int spool_group_try(struct spool_group *group);

/* Whether the message's body is a file that this spool gives a name instead of copying
 * it: it lies on its filesystem, and no other sink reads or names it. */
bool spool_group_links(const struct spool_group *group, const struct batch *batch,
		       const struct message *message);

/* ID.LISTENER.PEER */
void spool_name(const struct batch *batch, const struct message *message,
		char name[SPOOL_NAME_LEN + 1]);

#endif
