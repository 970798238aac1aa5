/*
 * identity: see identity.h.
 */
#include <errno.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/log.h"
#include "config/config.h"
#include "identity.h"

static int
complain(const char *what)
{
	log_event(LOG_LEVEL_ERROR, "user", "%s: %s", what, strerror(errno));
	return errno == EPERM ? EX_NOPERM : EX_OSERR;
}

int
identity_find(struct identity *identity, const struct config *config)
{
	struct privileges *privileges = &identity->privileges;
	const char *why;

	*identity = (struct identity){.changes = false};
	if (privileges_find(config->user, config->group, privileges, &why) == -1) {
		log_event(LOG_LEVEL_ERROR, "user", "user %s: %s", config->user, why);
		return EX_CONFIG;
	}
	if (!privileges->given)
		return 0;
	identity->changes = privileges_are_root();
	if (identity->changes || privileges_are(privileges))
		return 0;
	log_event(LOG_LEVEL_ERROR, "user",
		  "user %s: cisternd was started by user %u, group %u, and only root can become "
		  "somebody else: start it as root, or as that user, or leave `user` out",
		  config->user, (unsigned)getuid(), (unsigned)getgid());
	return EX_NOPERM;
}

bool
identity_borrow(const struct identity *identity, struct privileges_loan *loan)
{
	*loan = (struct privileges_loan){.taken = false};
	if (!identity->changes || privileges_borrow(&identity->privileges, loan) == 0)
		return true;
	(void)complain("cannot become the user for a moment");
	return false;
}

bool
identity_return(const struct identity *identity, struct privileges_loan *loan)
{
	(void)identity;
	if (!loan->taken || privileges_return(loan) == 0)
		return true;
	(void)complain("cannot become root again");
	return false;
}

int
identity_take(const struct identity *identity)
{
	if (privileges_drop(&identity->privileges) == -1)
		return complain("cannot give up privileges");
	if (privileges_are_root())
		log_event(LOG_LEVEL_WARNING, "running-as-root",
			  "cisternd runs as root, which it does not need to: set `user`, to become "
			  "somebody else once sockets are bound");
	return 0;
}
