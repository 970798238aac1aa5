/*
 * identity: as whom the daemon works: `user` and `group`.
 *
 * What only root may do (bind, make directories) is done first; then the change is
 * for good.  What can be done as that user already, is: root opens and makes nothing
 * in places where that user could have put a link.  Main thread, before any other.
 */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdbool.h>

#include "base/privileges.h"

struct config;

struct identity {
	struct privileges privileges;
	bool changes; /* started as root, to become somebody else */
};

/* 0, or an exit code, having logged why. */
int identity_find(struct identity *identity, const struct config *config);

/* Between these two this process is that user as far as files are concerned; where
 * nobody is to be become, they do nothing.  false: it could not be done. */
bool identity_borrow(const struct identity *identity, struct privileges_loan *loan);
bool identity_return(const struct identity *identity, struct privileges_loan *loan);

/* For good.  0, or an exit code, having logged why. */
int identity_take(const struct identity *identity);

#endif
