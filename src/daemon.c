/*
 * daemon: from a checked configuration to a daemon that listens, and back.
 *
 * Start: everything that can fail fails before the first connection is
 * accepted, in the order log, sockets, pid file, privileges, directories, sinks,
 * threads: what may take root before, and what must not need it after.
 * Stop: listeners close, messages in progress finish for shutdown_timeout,
 * then the rest is refused and the sinks are hurried; the workers end when
 * their last connection has, and the sinks after the workers, so that every
 * answer finds somebody to take it.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

#include <event2/event.h>

#include "background.h"
#include "belongings.h"
#include "base/deadline.h"
#include "base/inbox.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/memory.h"
#include "config/config.h"
#include "daemon.h"
#include "figures.h"
#include "generation.h"
#include "heartbeat.h"
#include "identity.h"
#include "intake/given.h"
#include "intake/intake.h"
#include "reload.h"
#include "service.h"
#include "sinks/sink.h"
#include "status/status.h"
#include "worker.h"

#define OTHER_THREADS 2 /* besides workers, that allocate all the time: the main thread, a sink's */

#define LAST_WORDS 3   /* seconds for refusals to reach their senders */
#define STOP_MARGIN 10 /* for sinks to write what they have, and the rest of a stop */

struct daemon {
	struct config *config; /* that it was started with */
	struct identity identity;
	struct service service;
	struct heartbeat heartbeat;
	struct event_base *base;
	struct inbox inbox;
	struct event *signals;
	int signal_fd;
	struct event *patience; /* the stop's next step */
	struct reign reign;
	struct reload reload;
	struct status *status;
	struct worker *workers;
	struct intake *intakes;
	unsigned n_workers;
	unsigned n_ended;
	enum intake_stop stop;
	int pid_file;
	int tell; /* pipe to the process that was started; -1: foreground */
};

static struct daemon *the_daemon; /* for the workers' last item, which has no room for it */

/* ------------------------------------------------------------------ start */

static void
raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) == -1)
			log_event(LOG_LEVEL_WARNING, "limit", "cannot raise the limit of open files: %s",
				  strerror(errno));
	}
}

/* All workers have ended, and no sink has anything at another one. */
static void
end_if_done(struct daemon *d)
{
	if (d->n_ended == d->n_workers && !reign_is_leaving(&d->reign))
		event_base_loopbreak(d->base);
}

static void
daemon_on_left(struct reign *reign)
{
	(void)reign;
	if (the_daemon->stop != INTAKE_RUNS)
		end_if_done(the_daemon);
}

static void
daemon_on_worker_ended(struct inbox_item *item)
{
	(void)item;
	the_daemon->n_ended++;
	end_if_done(the_daemon);
}

static unsigned
count_workers(const struct config *config)
{
	cpu_set_t cpus;

	if (config->workers > 0)
		return (unsigned)config->workers;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		return (unsigned)CPU_COUNT(&cpus);
	return 1;
}

static int
open_workers(struct daemon *d)
{
	unsigned i;

	d->workers = calloc(d->n_workers, sizeof(*d->workers));
	d->intakes = d->reign.intakes = calloc(d->n_workers, sizeof(*d->intakes));
	if (d->workers == NULL || d->intakes == NULL) {
		log_event(LOG_LEVEL_ERROR, "out-of-memory", "out of memory");
		return EX_OSERR;
	}
	for (i = 0; i < d->n_workers; i++) {
		if (worker_open(&d->workers[i], i, &d->inbox, daemon_on_worker_ended) == -1 ||
		    intake_open(&d->intakes[i], &d->workers[i], d->intakes, d->n_workers) == -1) {
			log_event(LOG_LEVEL_ERROR, "start-failed", "worker %u: %s", i, strerror(errno));
			return EX_OSERR;
		}
	}
	return 0;
}

static int
start_workers(struct daemon *d)
{
	unsigned i;

	for (i = 0; i < d->n_workers; i++) {
		if (worker_start(&d->workers[i]) == 0)
			continue;
		log_event(LOG_LEVEL_ERROR, "start-failed", "worker %u: %s", i, strerror(errno));
		return EX_OSERR;
	}
	return 0;
}

/* ----------------------------------------------------------------- signals */

static void
stop_to(struct daemon *d, enum intake_stop level, uint64_t patience)
{
	struct timeval tv = {.tv_sec = (time_t)(patience / 1000000),
			     .tv_usec = (suseconds_t)(patience % 1000000)};
	struct sink *sink;
	unsigned i;

	if (level <= d->stop)
		return;
	d->stop = level;
	reign_leave(&d->reign);
	for (i = 0; i < d->n_workers; i++)
		intake_stop(&d->intakes[i], level);
	if (level >= INTAKE_ABORT)
		for (sink = d->reign.sinks; sink != NULL; sink = sink->next)
			sink_hurry(sink);
	if (patience > 0)
		event_add(d->patience, &tv);
}

/* How long a stop can take; 0: as long as it takes. */
static uint64_t
stop_length(const struct config *config)
{
	return config->shutdown_timeout == 0
		       ? 0
		       : config->shutdown_timeout + (LAST_WORDS + STOP_MARGIN) * UINT64_C(1000000);
}

static void
daemon_on_patience(evutil_socket_t fd, short what, void *arg)
{
	struct daemon *d = arg;

	(void)fd;
	(void)what;
	if (d->stop == INTAKE_STOP) {
		log_event(LOG_LEVEL_NOTICE, "stop-timeout",
			  "shutdown_timeout is over; what is still in progress is refused");
		stop_to(d, INTAKE_ABORT, LAST_WORDS * UINT64_C(1000000));
	} else {
		stop_to(d, INTAKE_KILL, 0);
	}
}

static void
reopen(struct daemon *d)
{
	bool logged = log_reopen() == 0;
	struct sink *sink;

	if (!logged)
		log_event(LOG_LEVEL_ERROR, "log-reopen", "cannot reopen the log: %s",
			  strerror(errno));
	for (sink = d->reign.sinks; sink != NULL; sink = sink->next)
		sink_reopen(sink);
	log_event(LOG_LEVEL_INFO, "reopened", "%sfiles are opened anew", logged ? "log and " : "");
}

static void
reload(struct daemon *d)
{
	service_reloading(&d->service);
	reload_now(&d->reload);
	if (!d->reload.under_way) /* it was refused */
		service_ready(&d->service, d->reload.background);
}

static void
daemon_on_taken(struct generation *generation)
{
	struct daemon *d = the_daemon;

	reload_taken(&d->reload, generation, d->stop != INTAKE_RUNS);
	if (!d->reload.under_way && d->stop == INTAKE_RUNS)
		service_ready(&d->service, d->reload.background);
}

static void
take_signal(struct daemon *d, uint32_t number)
{
	switch (number) {
	case SIGTERM:
	case SIGINT:
		if (d->stop == INTAKE_RUNS) {
			log_event(LOG_LEVEL_NOTICE, "stopping",
				  "messages in progress may finish; a second signal stops at once");
			stop_to(d, INTAKE_STOP, d->reign.newest->config->shutdown_timeout);
			service_stopping(&d->service, stop_length(d->reign.newest->config));
			status_stopping(d->status);
		} else {
			log_event(LOG_LEVEL_NOTICE, "stopping", "at once");
			stop_to(d, INTAKE_KILL, 0);
		}
		break;
	case SIGHUP:
		reopen(d);
		if (d->stop == INTAKE_RUNS)
			reload(d);
		else
			log_event(LOG_LEVEL_WARNING, "reload-refused",
				  "HUP: the configuration is not read again, as the daemon stops");
		break;
	case SIGUSR1:
		reopen(d);
		break;
	}
}

/* Signals are read like anything else: no handler interrupts anybody. */
static void
daemon_on_signal(evutil_socket_t fd, short what, void *arg)
{
	struct signalfd_siginfo info;

	(void)what;
	while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		take_signal(arg, info.ssi_signo);
}

void
daemon_hold_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
}

static int
open_main_loop(struct daemon *d)
{
	sigset_t set;

	d->base = loop_new();
	if (d->base == NULL || deadlines_reserve_timers(d->base) == -1 || inbox_open(&d->inbox, d->base) == -1)
		return EX_OSERR;
	d->patience = evtimer_new(d->base, daemon_on_patience, d);
	if (d->patience == NULL)
		return EX_OSERR;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	if (sigprocmask(SIG_BLOCK, &set, NULL) == -1)
		return EX_OSERR;
	d->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (d->signal_fd == -1)
		return EX_OSERR;
	d->signals = event_new(d->base, d->signal_fd, EV_READ | EV_PERSIST, daemon_on_signal, d);
	if (d->signals == NULL || event_add(d->signals, NULL) == -1)
		return EX_OSERR;
	return 0;
}

/* ---------------------------------------------------------- start and stop */

static void
daemon_look(struct figures *figures, void *arg)
{
	const struct daemon *d = arg;

	figures_sum(figures, &d->reign);
}

static int
open_generation(struct daemon *d, struct generation **g)
{
	int code = generation_new(g, &d->reign, d->config);

	/* What may take privileges, ... */
	if (code != 0 || (code = generation_bind(*g)) != 0 ||
	    (code = status_bind(d->status, d->config)) != 0 ||
	    (code = belongings_open_pid_file(d->config, &d->identity, &d->pid_file)) != 0)
		return code;
	belongings_make_spill_directory(d->config, &d->identity);
	/* ... and what must not need any. */
	if ((code = identity_take(&d->identity)) != 0 || (code = generation_open(*g)) != 0 || (code = open_workers(d)) != 0 ||
	    (code = generation_attach(*g)) != 0 || (code = generation_start(*g)) != 0)
		return code;
	return generation_listen(*g);
}

static int
start(struct daemon *d, bool background)
{
	struct generation *generation = NULL;
	int code;

	if (reload_open(&d->reload, &d->reign, d->config->file) == -1) {
		perror("cisternd: the configuration file's path");
		return EX_OSERR;
	}
	d->reload.background = background;
	d->reload.silent = background && isatty(STDOUT_FILENO);

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a limit of a file's size refuses what does not fit, as a full disk does */
	if (background && (code = background_check(d->config)) != 0)
		return code;
	service_open(&d->service);
	if ((code = given_open()) != 0 || (code = identity_find(&d->identity, d->config)) != 0)
		return code;
	if (background && (d->tell = background_go()) == -1) {
		perror("cisternd: cannot go to the background");
		return EX_OSERR;
	}
	if ((code = belongings_open_log(d->config, &d->identity, background)) != 0)
		return code;
	memory_init(d->config->memory_limit);
	memory_set_threads(d->n_workers + OTHER_THREADS);
	raise_limits();
	if ((code = open_main_loop(d)) != 0) {
		log_event(LOG_LEVEL_ERROR, "start-failed", "cannot make an event loop: %s",
			  strerror(errno));
		return code;
	}
	d->status = d->reload.status = status_open(d->base, &d->reign, &d->heartbeat);
	if (d->status == NULL) {
		log_event(LOG_LEVEL_ERROR, "out-of-memory", "out of memory");
		return EX_OSERR;
	}
	if ((code = open_generation(d, &generation)) != 0) {
		generation_free(generation);
		return code;
	}
	generation_begin(generation);
	if (heartbeat_open(&d->heartbeat, d->workers, d->n_workers) == -1 ||
	    service_start(&d->service, d->base, &d->heartbeat, daemon_look, d) == -1)
		return EX_OSERR;
	status_begin(d->status, generation->config);
	return start_workers(d);
}

static void
say_ready(struct daemon *d)
{
	reload_announce(d->reign.newest);
	log_event(LOG_LEVEL_INFO, "ready", "%s, %u worker%s", d->config->file, d->n_workers,
		  d->n_workers == 1 ? "" : "s");
}

static void
say_stopped(const struct daemon *d)
{
	struct figures sum;

	figures_sum(&sum, &d->reign);
	log_event_with(LOG_LEVEL_INFO, "stopped",
		  LOG_FIELDS(LOG_NUMBER("received", sum.received), LOG_NUMBER("accepted", sum.accepted),
			     LOG_NUMBER("refused", sum.refused), LOG_NUMBER("failed", sum.failed),
			     LOG_NUMBER("in_flight", sum.in_flight),
			     LOG_NUMBER("discarded", sum.discarded)),
		  "received %llu messages: %llu accepted, %llu refused, %llu failed, %llu in flight; "
		  "discarded %llu",
		  (unsigned long long)sum.received, (unsigned long long)sum.accepted,
		  (unsigned long long)sum.refused, (unsigned long long)sum.failed,
		  (unsigned long long)sum.in_flight, (unsigned long long)sum.discarded);
}

static void
clean_up(struct daemon *d)
{
	unsigned i;

	status_close(d->status);
	for (i = 0; d->workers != NULL && d->intakes != NULL && i < d->n_workers; i++)
		if (d->workers[i].base != NULL)
			intake_close(&d->intakes[i]);
	/* Sinks that close answer what they still have to the workers' inboxes. */
	reign_close(&d->reign);
	for (i = 0; d->workers != NULL && i < d->n_workers; i++)
		worker_close(&d->workers[i]);
	heartbeat_close(&d->heartbeat);
	belongings_close_pid_file(d->config, d->pid_file);
	given_close();
	service_close(&d->service);
	if (d->signals != NULL)
		event_free(d->signals);
	if (d->signal_fd != -1)
		close(d->signal_fd);
	if (d->patience != NULL)
		event_free(d->patience);
	inbox_close(&d->inbox);
	if (d->base != NULL)
		event_base_free(d->base);
	free(d->intakes);
	free(d->workers);
	reload_close(&d->reload);
	config_unref(d->config);
	log_close();
	memory_unstock();
	libevent_global_shutdown();
}

int
daemon_run(struct config *config, bool background)
{
	struct daemon d = {.config = config, .signal_fd = -1, .pid_file = -1, .tell = -1};
	unsigned i;
	int code;

	d.inbox.fd = -1;
	d.service.systemd.fd = -1;
	d.n_workers = d.reign.n_workers = count_workers(config);
	d.reign.taken = daemon_on_taken;
	d.reign.left = daemon_on_left;
	d.reign.inbox = &d.inbox;
	the_daemon = &d;
	code = start(&d, background);
	if (code != 0) {
		for (i = 0; i < d.n_workers; i++)
			if (d.workers != NULL && d.workers[i].started)
				intake_stop(&d.intakes[i], INTAKE_KILL);
	} else {
		say_ready(&d);
		service_ready(&d.service, background);
		background_tell(d.tell, 0);
		d.tell = -1;
		if (event_base_dispatch(d.base) == -1) {
			log_event(LOG_LEVEL_ERROR, "loop-failed", "the main event loop failed");
			code = EX_SOFTWARE;
		}
	}
	for (i = 0; d.workers != NULL && i < d.n_workers; i++)
		worker_join(&d.workers[i]);
	if (code == 0)
		say_stopped(&d);
	background_tell(d.tell, code);
	clean_up(&d);
	return code;
}
