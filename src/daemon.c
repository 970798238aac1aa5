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
#include "base/inbox.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/config.h"
#include "daemon.h"
#include "figures.h"
#include "heartbeat.h"
#include "identity.h"
#include "intake/given.h"
#include "intake/intake.h"
#include "message/format.h"
#include "service.h"
#include "sinks/sink.h"
#include "worker.h"

#define LAST_WORDS 3   /* seconds for refusals to reach their senders */
#define STOP_MARGIN 10 /* for sinks to write what they have, and the rest of a stop */

struct daemon {
	struct config *config;
	struct identity identity;
	struct service service;
	struct heartbeat heartbeat;
	struct event_base *base;
	struct inbox inbox;
	struct event *signals;
	int signal_fd;
	struct event *patience; /* the stop's next step */
	struct sink **sinks;
	size_t n_sinks;
	struct listener_group *groups;
	size_t n_groups;
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

static int
open_sinks(struct daemon *d)
{
	int code;

	d->sinks = calloc(d->config->n_sinks, sizeof(*d->sinks));
	if (d->sinks == NULL)
		return EX_OSERR;
	for (; d->n_sinks < d->config->n_sinks; d->n_sinks++) {
		code = sink_open(&d->sinks[d->n_sinks], d->config, &d->config->sinks[d->n_sinks]);
		if (code != 0)
			return code;
	}
	return 0;
}

static bool
wants_local(const struct config_sink *sink)
{
	return sink->type != CONFIG_SINK_SPOOL && sink->format == FORMAT_JSON;
}

/* Large messages go straight to where a spool can give them a name. */
static int
choose_spill(struct daemon *d, struct listener_group *group)
{
	const struct config_listener *config = group->config;
	size_t i;

	for (i = 0; i < config->deliver.count; i++) {
		const struct config_sink *sink = &d->config->sinks[config->deliver_to[i]];

		if (sink->type != CONFIG_SINK_SPOOL)
			continue;
		group->spill_mode = sink->mode;
		return asprintf(&group->spill_directory, "%s/tmp", sink->directory) == -1 ? -1 : 0;
	}
	group->spill_mode = 0600;
	group->spill_directory = strdup(d->config->spill_directory);
	return group->spill_directory == NULL ? -1 : 0;
}

static int
open_group(struct daemon *d, struct listener_group *group, const struct config_listener *config)
{
	size_t i;

	if (limits_init(&group->limits, config->max_connections,
			config->max_connections_per_address) == -1)
		return EX_OSERR;
	group->deliver = calloc(config->deliver.count, sizeof(*group->deliver));
	group->members = calloc(d->n_workers, sizeof(*group->members));
	if (group->deliver == NULL || group->members == NULL || choose_spill(d, group) == -1)
		return EX_OSERR;
	for (i = 0; i < config->deliver.count; i++) {
		group->deliver[i] = d->sinks[config->deliver_to[i]];
		group->wants_local |= wants_local(group->deliver[i]->config);
	}
	if (config->incomplete_to != -1) {
		group->incomplete = d->sinks[config->incomplete_to];
		group->wants_local |= wants_local(group->incomplete->config);
	}
	return 0;
}

/* All that may take privileges; the groups are made ready without them. */
static int
bind_listeners(struct daemon *d)
{
	const struct config *config = d->config;
	int code;

	d->groups = calloc(config->n_listeners, sizeof(*d->groups));
	if (d->groups == NULL)
		return EX_OSERR;
	for (; d->n_groups < config->n_listeners; d->n_groups++) {
		struct listener_group *group = &d->groups[d->n_groups];

		*group = (struct listener_group){
			.config = &config->listeners[d->n_groups], .n_members = d->n_workers};
		code = socket_set_open(&group->sockets, group->config, d->n_workers);
		if (code != 0)
			return code;
	}
	return 0;
}

static int
open_listeners(struct daemon *d)
{
	size_t i;
	int code;

	for (i = 0; i < d->n_groups; i++)
		if ((code = open_group(d, &d->groups[i], d->groups[i].config)) != 0)
			return code;
	for (i = 0; i < d->n_groups; i++)
		if ((code = socket_set_listen(&d->groups[i].sockets, d->groups[i].config)) != 0)
			return code;
	return 0;
}

static void
daemon_on_worker_ended(struct inbox_item *item)
{
	(void)item;
	if (++the_daemon->n_ended == the_daemon->n_workers)
		event_base_loopbreak(the_daemon->base);
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
	d->intakes = calloc(d->n_workers, sizeof(*d->intakes));
	if (d->workers == NULL || d->intakes == NULL)
		return EX_OSERR;
	for (i = 0; i < d->n_workers; i++) {
		if (worker_open(&d->workers[i], i, &d->inbox, daemon_on_worker_ended) == -1 ||
		    intake_open(&d->intakes[i], &d->workers[i], d->groups, d->n_groups, d->n_sinks,
				d->intakes, d->n_workers) == -1) {
			log_event(LOG_LEVEL_ERROR, "start-failed", "worker %u: %s", i, strerror(errno));
			return EX_OSERR;
		}
	}
	return 0;
}

static int
start_threads(struct daemon *d)
{
	size_t i;
	int code;

	for (i = 0; i < d->n_sinks; i++)
		if ((code = sink_start(d->sinks[i])) != 0)
			return code;
	for (i = 0; i < d->n_workers; i++) {
		if (worker_start(&d->workers[i]) == 0)
			continue;
		log_event(LOG_LEVEL_ERROR, "start-failed", "worker %zu: %s", i, strerror(errno));
		/* Those that run already must end before their base is freed. */
		d->n_workers = (unsigned)i;
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
	unsigned i;
	size_t k;

	if (level <= d->stop)
		return;
	d->stop = level;
	for (i = 0; i < d->n_workers; i++)
		intake_stop(&d->intakes[i], level);
	if (level >= INTAKE_ABORT)
		for (k = 0; k < d->n_sinks; k++)
			sink_hurry(d->sinks[k]);
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
take_signal(struct daemon *d, uint32_t number)
{
	size_t i;

	switch (number) {
	case SIGTERM:
	case SIGINT:
		if (d->stop == INTAKE_RUNS) {
			log_event(LOG_LEVEL_NOTICE, "stopping",
				  "messages in progress may finish; a second signal stops at once");
			stop_to(d, INTAKE_STOP, d->config->shutdown_timeout);
			service_stopping(&d->service, stop_length(d->config));
		} else {
			log_event(LOG_LEVEL_NOTICE, "stopping", "at once");
			stop_to(d, INTAKE_KILL, 0);
		}
		break;
	case SIGHUP:
		log_event(LOG_LEVEL_WARNING, "reload-refused",
			  "HUP: log and files are opened anew, but the configuration is not read "
			  "again; restart to use a changed one");
		/* FALLTHROUGH */
	case SIGUSR1:
		if (log_reopen() == -1)
			log_event(LOG_LEVEL_ERROR, "log-reopen", "cannot reopen the log: %s",
				  strerror(errno));
		for (i = 0; i < d->n_sinks; i++)
			sink_reopen(d->sinks[i]);
		log_event(LOG_LEVEL_INFO, "reopened", "log and files are opened anew");
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

static int
open_main_loop(struct daemon *d)
{
	sigset_t set;

	d->base = event_base_new();
	if (d->base == NULL || inbox_open(&d->inbox, d->base) == -1)
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

	figures_sum(figures, d->intakes, d->n_workers);
}

static int
start(struct daemon *d, bool background)
{
	int code;

	signal(SIGPIPE, SIG_IGN);
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
	raise_limits();
	if ((code = open_main_loop(d)) != 0) {
		log_event(LOG_LEVEL_ERROR, "start-failed", "cannot make an event loop: %s",
			  strerror(errno));
		return code;
	}
	/* What may take privileges, ... */
	if ((code = given_assign(d->config)) != 0 || (code = bind_listeners(d)) != 0 ||
	    (code = belongings_open_pid_file(d->config, &d->identity, &d->pid_file)) != 0)
		return code;
	belongings_make_spill_directory(d->config, &d->identity);
	/* ... and what must not need any. */
	if ((code = identity_take(&d->identity)) != 0 ||
	    (code = belongings_check_spill_directory(d->config)) != 0 ||
	    (code = open_sinks(d)) != 0 || (code = open_listeners(d)) != 0 ||
	    (code = open_workers(d)) != 0)
		return code;
	if (heartbeat_open(&d->heartbeat, d->workers, d->n_workers) == -1 ||
	    service_start(&d->service, d->base, &d->heartbeat, daemon_look, d) == -1)
		return EX_OSERR;
	return start_threads(d);
}

static void
say_ready(struct daemon *d)
{
	char most[16] = "";
	size_t i, k;
	FILE *file = fopen("/proc/sys/net/core/somaxconn", "r");
	long clamp = 0;

	if (file != NULL) {
		if (fgets(most, sizeof(most), file) != NULL)
			clamp = strtol(most, NULL, 10);
		fclose(file);
	}
	for (i = 0; i < d->n_groups; i++) {
		const struct listener_group *group = &d->groups[i];

		for (k = 0; k < group->sockets.count; k++)
			socket_say(&group->sockets.items[k], group->config);
		if (group->sockets.count > 0 && group->sockets.items[0].given)
			continue; /* its backlog is the service manager's */
		if (clamp > 0 && group->config->backlog > clamp)
			log_event(LOG_LEVEL_WARNING, "backlog-clamped",
				  "listener %s: the kernel uses a backlog of %ld, not %d: raise the sysctl "
				  "net.core.somaxconn",
				  group->config->name, clamp, group->config->backlog);
	}
	log_event(LOG_LEVEL_INFO, "ready", "%s, %u worker%s", d->config->file, d->n_workers,
		  d->n_workers == 1 ? "" : "s");
}

static void
say_stopped(const struct daemon *d)
{
	struct figures sum;

	figures_sum(&sum, d->intakes, d->n_workers);
	log_event(LOG_LEVEL_INFO, "stopped",
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
	size_t k;

	for (i = 0; d->intakes != NULL && i < d->n_workers; i++)
		if (d->workers[i].base != NULL)
			intake_close(&d->intakes[i]);
	for (k = 0; k < d->n_sinks; k++)
		sink_close(d->sinks[k]);
	for (i = 0; d->workers != NULL && i < d->n_workers; i++)
		worker_close(&d->workers[i]);
	for (k = 0; k < d->n_groups; k++) {
		socket_set_close(&d->groups[k].sockets);
		limits_clear(&d->groups[k].limits);
		free(d->groups[k].spill_directory);
		free(d->groups[k].deliver);
		free(d->groups[k].members);
	}
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
	free(d->groups);
	free(d->sinks);
	config_unref(d->config);
	log_close();
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
	d.n_workers = count_workers(config);
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
