/*
 * background: -d.  The process that was started waits for the daemon's word and
 * ends with the exit code of its start.
 */
#ifndef BACKGROUND_H
#define BACKGROUND_H

#include <stdbool.h>

#include "config/config.h"

/* Who sends messages to the console, and by which setting. */
struct background_loss {
	const char *kind;
	const char *name;
	const char *setting;
	struct config_place place;
};

/* The first listener that delivers there, or spool that forwards.  False: there is none. */
bool background_lost(const struct config *config, struct background_loss *loss);

/* Messages in the background must not go where nobody can find them: 0, or
 * EX_CONFIG, having said on standard error why. */
int background_check(const struct config *config);

/* Detaches.  Returns, in the daemon, what background_tell takes; -1 with errno. */
int background_go(void);

/* Tells the process that was started how the start went.  With 0, terminals are let
 * go of.  A told of -1 (foreground, or told already) does nothing. */
void background_tell(int told, int code);

#endif
