/*
 * background: -d.  The process that was started waits for the daemon's word and
 * ends with the exit code of its start.
 */
#ifndef BACKGROUND_H
#define BACKGROUND_H

struct config;
struct config_listener;

/* The first listener that delivers to the console; NULL: none does. */
const struct config_listener *background_lost(const struct config *config);

/* Messages in the background must not go where nobody can find them: 0, or
 * EX_CONFIG, having said on standard error why. */
int background_check(const struct config *config);

/* Detaches.  Returns, in the daemon, what background_tell takes; -1 with errno. */
int background_go(void);

/* Tells the process that was started how the start went.  With 0, terminals are let
 * go of.  A told of -1 (foreground, or told already) does nothing. */
void background_tell(int told, int code);

#endif
