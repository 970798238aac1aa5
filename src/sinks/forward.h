/*
 * forward: hands what lies in a spool on to another sink.
 *
 * Each spool with `forward` has a forwarder: one thread with an event base.  What the
 * spool's writers have just made durable comes to it in memory, while there is room;
 * all else it finds in DIRECTORY/new, in the order of ids, some thousand names at a
 * time.  A message leaves new/ when the target has answered for it, and not before: so
 * whatever ends the process, each is handed on at least once, under the same id.
 *
 * One forwarder at a time is in charge of a directory: the others wait for its lock.
 */
#ifndef SINKS_FORWARD_H
#define SINKS_FORWARD_H

#include <stdbool.h>

#include "message/message.h"

struct forward;
struct forward_entry;
struct inbox;
struct inbox_item;
struct sink;

/* Main thread.  The target (sink->target) must be there from forward_begin on, and must
 * outlive the forwarder. */
struct forward *forward_open(struct sink *sink); /* NULL: errno */
int forward_start(struct forward *forward);      /* its thread; 0 or an exit code, having logged why */
void forward_begin(struct forward *forward);     /* may hand on from now on */

/* Hands nothing on any more, and posts `left` once the target has answered for all that
 * was handed on.  Main thread; asynchronous. */
void forward_leave(struct forward *forward, struct inbox *home, struct inbox_item *left);

/* Ends the thread; at once after it has left, or never begun.  NULL is fine. */
void forward_close(struct forward *forward);

/* A writer of the spool takes messages over, one turn after another; turns are the order
 * of messages, numbered from 1 without gaps over all writers, of which there are two.  Between the two it commits groups, and tells of each before its names
 * are given and after (then with what is now in new/, in order). */
void forward_turn_begins(struct forward *forward, unsigned writer, uint64_t turn);
void forward_turn_ends(struct forward *forward, unsigned writer);
void forward_commit_begins(struct forward *forward, unsigned writer, const struct id *ids,
			   unsigned count); /* the ids stay as they are until the end */
void forward_commit_ends(struct forward *forward, unsigned writer, struct forward_entry *first);

/* What a writer tells with: adds a message that is in new/ under that name to a list, with
 * its bytes if it is small and there is room for them.  scratch: SPOOL_SCRATCH bytes. */
struct forward_list {
	struct forward_entry *first, **last;
};

void forward_fresh(struct forward *forward, struct forward_list *list, const struct batch *batch,
		   const struct message *message, const char *name, unsigned char *scratch);

#endif
