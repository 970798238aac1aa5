/*
 * privileges: from root, for what only root may do, to an ordinary user for good.
 *
 * Privileges are a thread's, and threads inherit them: all this is for the main
 * thread before it starts any other.
 */
#ifndef BASE_PRIVILEGES_H
#define BASE_PRIVILEGES_H

#include <stdbool.h>
#include <sys/types.h>

struct privileges {
	bool given; /* false: nobody else to become */
	uid_t uid;
	gid_t gid;
	char user[256]; /* whose supplementary groups to take; "": none */
};

/* Looks up a user and a group, names or numbers; without a group (NULL) it is the
 * user's own, without a user (NULL) there is nothing to become.  On -1 *why says
 * for people what is wrong, to be put after "user U, group G: ". */
int privileges_find(const char *user, const char *group, struct privileges *privileges,
		    const char **why);

/* Whether this process may do what only root may: command sinks ask. */
bool privileges_are_root(void);

/* Whether this process is that user, all of its ids, already. */
bool privileges_are(const struct privileges *privileges);

/* Becomes that user, its groups included, as far as files are concerned, until
 * privileges_return.  As root, and before any thread.  -1 with errno; after a
 * failed privileges_return the caller must end. */
struct privileges_loan {
	bool taken;
	gid_t *groups; /* root's own */
	int n_groups;
	gid_t gid;
};
int privileges_borrow(const struct privileges *privileges, struct privileges_loan *loan);
int privileges_return(struct privileges_loan *loan);

/* Becomes that user, with its groups and without any capability, and makes sure
 * that there is no way back.  The memory is no longer anybody's to read or dump.
 * One who is that user already need not be root; that is how systemd starts us.
 *
 * In any case (also for NULL and for !given): no program run from here on gains
 * privileges by being run, and capabilities that were given to us as an ordinary
 * user (for ports below 1024) remain ours, but are not passed on.
 *
 * -1 with errno: the caller must end, as it may have changed in part.  EPERM: not
 * root, and somebody else; ENOTRECOVERABLE: there is a way back. */
int privileges_drop(const struct privileges *privileges);

#endif
