/*
 * reload: a changed configuration takes the place of the one in force.
 *
 * The file is read and checked whole, and all that is new in it is opened, before
 * anything in force is touched; whatever fails is logged (reload-refused) and undone.
 * Main thread.
 */
#ifndef RELOAD_H
#define RELOAD_H

#include <stdbool.h>

struct generation;
struct reign;
struct status;

struct reload {
	struct reign *reign;
	struct status *status;
	char *file;      /* absolute; owned */
	bool background; /* the daemon is there: nobody reads its standard error ... */
	bool silent;     /* ... nor its standard output */
	bool under_way;  /* the workers are taking one over */
	bool again;      /* asked for meanwhile */
	char summary[1024]; /* what it changes */
};

/* -1: errno */
int reload_open(struct reload *reload, struct reign *reign, const char *file);
void reload_close(struct reload *reload);

/* Reads the file and puts it in force; asynchronous where it was not refused. */
void reload_now(struct reload *reload);

/* All workers have taken it over.  With stopping, no other is begun. */
void reload_taken(struct reload *reload, const struct generation *generation, bool stopping);

/* Where the listeners of a generation listen, as far as the log does not know. */
void reload_announce(const struct generation *generation);

#endif
