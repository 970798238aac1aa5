/*
 * acl: a set of CIDR blocks, and whether an address lies in one of them.
 *
 * Filled by one thread, then finished; a finished list does not change any more
 * and may be read by any number of threads.  A look-up is a binary search among
 * disjoint ranges, so its cost grows with the logarithm of their number.
 *
 * An IPv4-mapped IPv6 address is the IPv4 address that it stands for, in blocks as
 * in peers.  So 0.0.0.0/0 is all of IPv4 and nothing else, ::/0 all the rest.
 */
#ifndef BASE_ACL_H
#define BASE_ACL_H

#include <stdbool.h>

#include "base/net.h"

struct acl;

struct acl *acl_new(void); /* NULL: no memory */
void acl_free(struct acl *acl);

/* Adds an address or a block: "192.0.2.1", "192.0.2.0/24", "2001:db8::/32",
 * "::ffff:192.0.2.0/120" (as 192.0.2.0/24).  Returns 0, or -1: then *why is what was
 * expected instead, as types_address says it, good until the next call or acl_free;
 * or NULL, when there is no memory.  Not after acl_finish. */
int acl_add(struct acl *acl, const char *text, const char **why);

/* Makes a list ready for acl_match, once.  Returns 0, or -1 without memory; then the
 * list is as it was. */
int acl_finish(struct acl *acl);

/* Whether a block holds the peer's address.  False for all that is not an internet
 * address: callers let local peers (AF_UNIX) pass without asking, be the list one of
 * those allowed or of those denied. */
bool acl_match(const struct acl *acl, const struct net_address *peer);

#endif
