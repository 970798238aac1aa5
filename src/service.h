/*
 * service: what the daemon tells the service manager that started it.
 *
 * State (ready, reloading, stopping), a line of live figures every few seconds, and
 * signs of life for its watchdog: those only as long as the main loop and every
 * worker's loop turn.  Without a manager all of this does nothing, and nothing
 * ticks.  Main thread.
 */
#ifndef SERVICE_H
#define SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/systemd.h"
#include "figures.h"

struct event;
struct event_base;
struct heartbeat;

struct service {
	struct systemd systemd;
	struct event *timer;
	struct heartbeat *heartbeat;
	void (*look)(struct figures *figures, void *arg);
	void *arg;
	uint64_t received; /* when the rate was last looked at, ... */
	uint64_t looked;   /* ... which was then */
	double rate;       /* messages a second */
	char status[256];  /* what was told last */
	bool mute; /* it could not be told the last thing */
	bool stopping;
	uint64_t stop_end; /* when the stop will be over; 0: that is not known */
};

/* Finds the manager.  Before going to the background and before any thread. */
void service_open(struct service *service);
void service_close(struct service *service);

/* Begins to tick, if there is a manager.  look fills in the figures.  -1: no memory. */
int service_start(struct service *service, struct event_base *base, struct heartbeat *heartbeat,
		  void (*look)(struct figures *figures, void *arg), void *arg);

/* In the background this is not the process that was started, and says so. */
void service_ready(struct service *service, bool background);

/* Followed by service_ready, also if the reload failed. */
void service_reloading(struct service *service);

/* The stop takes so many microseconds at most; 0: as long as it takes. */
void service_stopping(struct service *service, uint64_t patience);

#endif
