/*
 * daemon: the order of start, signals, and the order of stop.
 */
#ifndef DAEMON_H
#define DAEMON_H

#include <stdbool.h>

struct config;

/* HUP and USR1 would end a process that does not wait for them yet.  To be called first
 * of all: they wait from then on until the daemon runs, and are seen to then. */
void daemon_hold_signals(void);

/* Runs until told to stop; returns an exit code of sysexits.h.  Takes over the
 * reference to the configuration.  With background it detaches from the
 * terminal; the process that was started ends once the daemon is ready, with
 * 0, or with the exit code with which it failed to become so. */
int daemon_run(struct config *config, bool background);

#endif
