/*
 * forward_work: what the forwarder's loop (forward.c), its look at the directory
 * (forward_scan.c), the way from a file to a batch (forward_load.c), what becomes of a
 * file (forward_settle.c), its patience (forward_retry.c) and the writers' side
 * (forward_inlet.c) share.  All of it is the forwarder's thread's, but for the inlet and
 * what is atomic.
 */
#ifndef SINKS_FORWARD_WORK_H
#define SINKS_FORWARD_WORK_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/inbox.h"
#include "base/memory.h"
#include "sinks/forward.h"
#include "sinks/forward_entry.h"
#include "sinks/sink.h"
#include "sinks/spool_facts.h"

#define FORWARD_WRITERS 2
#define FORWARD_WINDOW 1024         /* messages with the target at a time, ... */
#define FORWARD_WINDOW_BYTES 8388608 /* ... and bytes of them in memory */
#define FORWARD_FILES 64            /* of them that are read from open files */
#define FORWARD_SMALL 65536         /* a larger message is left in its file */
#define FORWARD_FRESH 4096          /* messages in memory that wait, ... */
#define FORWARD_FRESH_BYTES 4194304 /* ... and their bytes */
#define FORWARD_NAMES 65536         /* that one look at the directory brings */
#define FORWARD_ASIDE 4096          /* messages that wait for a next try of their own */
#define FORWARD_KNOWN (FORWARD_ASIDE + FORWARD_WINDOW)
#define FORWARD_BROKEN_MOST 65536   /* messages that cannot be read, and are passed over */

struct event;
struct event_base;

/* The writers' side. */
struct forward_lane {
	uint64_t turn;   /* that the writer is at; 0: none */
	const struct id *ids; /* that it is giving names to; NULL: none */
	unsigned n_ids;
	struct id lowest, highest; /* of what waits in it, and perhaps of more */
	struct forward_entry *first, **last;
};

struct forward_inlet {
	pthread_mutex_t lock; /* of all that follows */
	bool shut;            /* what comes is on disk only */
	bool overflowed;      /* something was, since the inlet was opened: from ... */
	struct id floor;      /* ... this id on, perhaps */
	bool ahead;           /* something of a turn behind the open one is on disk only: from ... */
	struct id ahead_floor; /* ... this id on, perhaps */
	uint64_t open;        /* the first turn that has not ended; ... */
	uint64_t ended;       /* ... those after it have, up to this one */
	uint64_t arrived; /* messages in new/, since it was last asked */
	struct forward_lane lanes[FORWARD_WRITERS];
	unsigned count; /* entries in lanes and in the forwarder's queue */
	size_t bytes;
	bool poked;
	bool begun, closed;
	struct inbox *home; /* where to say that it has left; NULL: it need not leave */
	struct inbox_item *left;
};

/* The target is in trouble: all wait, and one is tried now and then. */
struct forward_trouble {
	bool lasts;
	bool unready;      /* the target said so itself */
	bool trying;       /* a probe is with it */
	bool woken;        /* it said that it works again, and nothing has been tried since */
	unsigned attempts;
	unsigned row;      /* failures without a success between them */
	uint64_t due;
	uint64_t failures; /* since it began */
	uint64_t since;
};

struct forward {
	struct sink *sink; /* the spool */
	const struct config_sink *config;
	struct event_base *base;
	struct inbox inbox;
	struct inbox_item poke;
	struct event *pump;
	struct event *timer;
	uint64_t armed; /* the timer's time; 0: not set */
	pthread_t thread;
	bool started;
	struct forward_inlet inlet;
	atomic_bool hasty; /* leaves or closes: a look at the directory is broken off */

	bool begun, leaving, left, closing;
	bool in_charge; /* holds the directory's lock */
	unsigned window;
	int new, failed, done; /* -1: not open */
	dev_t device;
	ino_t inode; /* of new/ */
	uint64_t lock_wait; /* until the next attempt to take the lock */
	uint64_t lock_due, lock_since;

	struct forward_table known;
	struct forward_heap front;  /* to be handed on before all others */
	struct forward_heap aside;  /* wait for their own next try */
	struct forward_entry **ready; /* what the last look brought, in order; not in the table */
	size_t n_ready, ready_at;
	struct forward_entry *fresh, **fresh_last;
	bool more;         /* there may be more on disk than is known */
	bool ahead;        /* what was ahead of an open turn when the last look began: from ... */
	struct id ahead_floor; /* ... this id on */
	bool held;         /* that turn is open still: no look before it has ended */
	bool unseen;       /* new/ has changed since the last look */
	struct timespec seen; /* its time then; of no use with tv_nsec -1 */
	uint64_t tick_due;
	uint64_t scan_due; /* no look because of a change before this */
	uint64_t waiting;  /* messages in new/, about */
	bool was_again;    /* what was taken last had failed before, on its own account */
	size_t n_broken;   /* in front and aside, of those that could not be read */

	unsigned in_flight, files;
	size_t in_flight_bytes;
	struct delivery *outgoing, **outgoing_last;
	unsigned n_outgoing;

	struct forward_trouble trouble;
	uint64_t pause_due; /* we are in trouble ourselves: no descriptors, no memory */
	uint64_t pause;
	bool disk_said, foreign_said, lock_said, read_said, many_said;
	uint64_t said_since, unsaid;
	unsigned said;
	struct spool_facts facts; /* scratch */
	unsigned char scratch[FORWARD_SMALL];
};

/* No more of memory_limit than a part of it. */
static inline size_t
forward_bytes(size_t most)
{
	uint64_t limit = memory_limit() / 16;

	return limit != 0 && limit < most ? (size_t)limit : most;
}

static inline void
forward_set_broken(struct forward *forward, struct forward_entry *entry, bool broken)
{
	forward->n_broken += (size_t)broken - (size_t)entry->broken;
	entry->broken = broken;
}

/* forward_inlet.c */
void forward_inlet_init(struct forward_inlet *inlet);
void forward_inlet_clear(struct forward_inlet *inlet); /* frees what waits in lanes */
/* Before a look at the directory.  reset: what comes from now on is to come in memory; what
 * lies in the inlet already is dropped, as the look will find it. */
void forward_inlet_reset(struct forward *forward);
void forward_inlet_look(struct forward *forward);
void forward_inlet_shut(struct forward *forward);
/* Takes over what has arrived, in order; what has arrived on disk only is noted in more. */
void forward_inlet_drain(struct forward *forward);
/* The last step of a look: locked until _unlock, says of a name that was found whether it
 * is for this look.  One that is ahead of an open turn is not, and what comes is on disk
 * only until that turn has ended. */
void forward_inlet_lock(struct forward *forward);
bool forward_inlet_concerns(struct forward *forward, const struct id *id);
void forward_inlet_unlock(struct forward *forward);
/* For writers: whether a message is worth copying; and one that could not be told of. */
bool forward_inlet_has_room(struct forward *forward);
void forward_inlet_missed(struct forward *forward, const struct id *id);
/* An entry that came through the inlet is no longer in the queue. */
void forward_inlet_gone(struct forward *forward, size_t held);

/* forward_scan.c: fills ready.  -1: errno; then nothing has changed. */
int forward_scan(struct forward *forward);
/* Whether new/ has changed, or is another one by now. */
void forward_look(struct forward *forward, uint64_t now);
int forward_directories_open(struct forward *forward); /* -1: errno */
void forward_directories_close(struct forward *forward);
/* Opens failed/ or done/ anew; where it is gone, and `make` says so, it is made.  -1: errno. */
int forward_directory_renew(struct forward *forward, int *fd, const char *name, bool make);

/* forward_load.c: makes the entry's batch, if it has none. */
enum forward_loaded {
	FORWARD_LOADED,
	FORWARD_GONE,    /* somebody took it */
	FORWARD_FOREIGN, /* no file of ours */
	FORWARD_BROKEN,  /* it cannot be read: errno */
	FORWARD_SHORT,   /* of descriptors, memory: errno */
};
enum forward_loaded forward_load(struct forward *forward, struct forward_entry *entry);
void forward_on_home(struct inbox_item *item); /* forward.c: a batch has been answered */
unsigned forward_window(const struct config_sink *target); /* how many are with it at a time */

/* forward_settle.c: takes its step with the file (FORWARD_DONE or FORWARD_FAIL), and
 * forgets the entry; where that fails, puts it aside. */
void forward_settle(struct forward *forward, struct forward_entry *entry);
void forward_forget(struct forward *forward, struct forward_entry *entry);
void forward_forget_all(struct forward *forward); /* but for what is with the target */
bool forward_is_expired(struct forward *forward, const struct forward_entry *entry);
void forward_say_sum(struct forward *forward, uint64_t now, bool last);

/* forward_retry.c */
void forward_put_aside(struct forward *forward, struct forward_entry *entry);
/* One that cannot be read: it waits by itself.  False: so many do that nothing can go on. */
bool forward_pass_over(struct forward *forward, struct forward_entry *entry, int error);
void forward_failed(struct forward *forward, struct forward_entry *entry, enum outcome outcome);
void forward_answered(struct forward *forward, const struct forward_entry *entry);
bool forward_may_try(struct forward *forward, uint64_t now); /* while the trouble lasts */
void forward_nothing_to_try(struct forward *forward, uint64_t now);
void forward_pause(struct forward *forward, const char *what, int error);

#endif
