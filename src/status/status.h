/*
 * status: the status service: /, /metrics, /status.json, /healthz and /readyz.
 *
 * Off unless the configuration has the group `status`; then it costs a look at the
 * counters every two seconds.  Main thread; what takes time is done elsewhere (census.h)
 * or bounded (survey.h).
 */
#ifndef STATUS_STATUS_H
#define STATUS_STATUS_H

struct config;
struct event_base;
struct heartbeat;
struct reign;
struct status;

/* NULL: no memory.  What it is given has to stay until status_close. */
struct status *status_open(struct event_base *base, struct reign *reign,
			   struct heartbeat *heartbeat);

/* Makes all ready for another configuration: 0, or an exit code, having logged why, and
 * all is as before.  Then status_begin puts it in force and cannot fail, or
 * status_abandon undoes it. */
int status_bind(struct status *status, const struct config *config);
void status_begin(struct status *status, const struct config *config);
void status_abandon(struct status *status);

/* The daemon stops: not ready any more, until the end. */
void status_stopping(struct status *status);

/* After the workers have ended.  NULL is fine. */
void status_close(struct status *status);

#endif
