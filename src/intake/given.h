/*
 * given: listening sockets that a service manager opened and handed over
 * (LISTEN_FDS), by the names of the listeners that they are for.
 *
 * They are the manager's: held here for the daemon's life, whatever a reload does,
 * so that what waits in their backlogs is never lost; never shut down, and what
 * they are bound to never removed.  Main thread.
 */
#ifndef INTAKE_GIVEN_H
#define INTAKE_GIVEN_H

#include <stddef.h>

struct config;
struct config_listener;

/* Takes them from the environment, before going to the background and before any
 * thread.  0, or an exit code, having logged why. */
int given_open(void);
void given_close(void);

/* Each is for the listener of its name; where it has none, or only its socket unit's,
 * for the only one there is.  0, or EX_CONFIG, having logged each that nobody would
 * accept from, for a configuration has no listener for it, or it does not listen. */
int given_check(const struct config *config);

/* The next one for a listener; *at is 0 at first.  -1: no more.  It stays ours. */
int given_next(const struct config *config, const struct config_listener *listener, size_t *at);

#endif
