/*
 * daemon: from a checked configuration to a daemon that listens, and back.
 *
 * Start: everything that can fail fails before the first connection is
 * accepted, in the order log, directories, sinks, sockets, pid file, threads.
 * Stop: listeners close, messages in progress finish for shutdown_timeout,
 * then the rest is refused and the sinks are hurried; the workers end when
 * their last connection has, and the sinks after the workers, so that every
 * answer finds somebody to take it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include <event2/event.h>

#include "background.h"
#include "base/inbox.h"
#include "base/log.h"
#include "base/memory.h"
#include "config/config.h"
#include "daemon.h"
#include "intake/intake.h"
#include "intake/tls.h"
#include "message/format.h"
#include "sinks/sink.h"
#include "worker.h"

#define LAST_WORDS 3 /* seconds for refusals to reach their senders */

struct daemon {
	struct config *config;
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

static int
open_log(struct daemon *d, bool background)
{
	static const enum log_target targets[] = {
		[CONFIG_LOG_STDERR] = LOG_TARGET_STDERR,
		[CONFIG_LOG_SYSLOG] = LOG_TARGET_SYSLOG,
		[CONFIG_LOG_JOURNAL] = LOG_TARGET_JOURNAL,
		[CONFIG_LOG_FILE] = LOG_TARGET_FILE,
	};
	const struct config_log *log = &d->config->log;
	enum log_target target = targets[log->target];

	/* In the background nobody reads standard error. */
	if (background && (target == LOG_TARGET_STDERR || target == LOG_TARGET_JOURNAL))
		target = LOG_TARGET_SYSLOG;
	if (log_open(target, log->path, (enum log_level)log->level, log->json) == 0)
		return 0;
	fprintf(stderr, "cisternd: cannot open the log %s: %s\n",
		log->path != NULL ? log->path : "", strerror(errno));
	return errno == EACCES ? EX_NOPERM : EX_CANTCREAT;
}

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

/* The directory where large messages wait.  One that was asked for must be
 * usable; the default one is only needed once a message is large. */
static int
open_spill_directory(const struct config *config)
{
	const char *path = config->spill_directory;
	enum log_level level = config->spill_directory_given ? LOG_LEVEL_ERROR : LOG_LEVEL_WARNING;

	if (mkdir(path, 0700) == -1 && errno == ENOENT) {
		/* The state directory's parent, on a machine without packages. */
		char parent[4096];
		char *slash;

		snprintf(parent, sizeof(parent), "%s", path);
		slash = strrchr(parent, '/');
		if (slash != NULL && slash != parent) {
			*slash = '\0';
			(void)mkdir(parent, 0755);
		}
		(void)mkdir(path, 0700);
	}
	if (access(path, W_OK | X_OK) == 0)
		return 0;
	log_event(level, "spill-directory", "spill_directory %s: %s; %s", path, strerror(errno),
		  config->spill_directory_given
			  ? "make it, writable for this user, or name another one"
			  : "messages over 1 MiB are refused until it can be written to "
			    "(set spill_directory to one that can)");
	if (!config->spill_directory_given)
		return 0;
	return errno == EACCES ? EX_NOPERM : EX_CANTCREAT;
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
	int code;

	*group = (struct listener_group){.config = config, .n_members = d->n_workers};
	if ((code = tls_open(&group->tls, config)) != 0 ||
	    (code = socket_set_open(&group->sockets, config, d->n_workers)) != 0)
		return code;
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

static int
open_listeners(struct daemon *d)
{
	const struct config *config = d->config;
	size_t i;
	int code;

	d->groups = calloc(config->n_listeners, sizeof(*d->groups));
	if (d->groups == NULL)
		return EX_OSERR;
	for (; d->n_groups < config->n_listeners; d->n_groups++) {
		code = open_group(d, &d->groups[d->n_groups], &config->listeners[d->n_groups]);
		if (code != 0) {
			d->n_groups++; /* what it has is freed with the others */
			return code;
		}
	}
	for (i = 0; i < d->n_groups; i++)
		if ((code = socket_set_listen(&d->groups[i].sockets, d->groups[i].config)) != 0)
			return code;
	return 0;
}

static int
open_pid_file(struct daemon *d)
{
	const char *path = d->config->pid_file;
	char text[24];
	int len;

	if (path == NULL)
		return 0;
	d->pid_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (d->pid_file == -1) {
		log_event(LOG_LEVEL_ERROR, "pid-file", "pid_file %s: %s", path, strerror(errno));
		return errno == EACCES ? EX_NOPERM : EX_CANTCREAT;
	}
	if (flock(d->pid_file, LOCK_EX | LOCK_NB) == -1) {
		log_event(LOG_LEVEL_ERROR, "pid-file",
			  "pid_file %s: locked: a cisternd with this file is running already", path);
		close(d->pid_file);
		d->pid_file = -1;
		return EX_CANTCREAT;
	}
	len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
	if (ftruncate(d->pid_file, 0) == -1 || write(d->pid_file, text, (size_t)len) != len) {
		log_event(LOG_LEVEL_ERROR, "pid-file", "pid_file %s: %s", path, strerror(errno));
		return EX_IOERR;
	}
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

static int
start(struct daemon *d, bool background)
{
	int code;

	signal(SIGPIPE, SIG_IGN);
	if (background && (code = background_check(d->config)) != 0)
		return code;
	if (background && (d->tell = background_go()) == -1) {
		perror("cisternd: cannot go to the background");
		return EX_OSERR;
	}
	if ((code = open_log(d, background)) != 0)
		return code;
	memory_init(d->config->memory_limit);
	raise_limits();
	if ((code = open_main_loop(d)) != 0) {
		log_event(LOG_LEVEL_ERROR, "start-failed", "cannot make an event loop: %s",
			  strerror(errno));
		return code;
	}
	if ((code = open_spill_directory(d->config)) != 0 || (code = open_sinks(d)) != 0 ||
	    (code = open_listeners(d)) != 0 || (code = open_pid_file(d)) != 0 ||
	    (code = open_workers(d)) != 0)
		return code;
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
			log_event(LOG_LEVEL_INFO, "listening", "listener %s on %s (backlog %d)",
				  group->config->name, group->sockets.items[k].text,
				  group->config->backlog);
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
	uint64_t received = 0, accepted = 0, refused = 0, failed = 0, in_flight = 0, discarded = 0;
	unsigned i;
	size_t k;
	int e;

	for (i = 0; i < d->n_workers; i++)
		for (k = 0; k < d->intakes[i].n_listeners; k++) {
			const struct counters *c = &d->intakes[i].listeners[k].counters;

			received += counter_get(&c->received);
			accepted += counter_get(&c->accepted);
			refused += counter_get(&c->refused);
			failed += counter_get(&c->failed);
			in_flight += counter_get(&c->in_flight);
			for (e = 0; e < ENDED_COUNT; e++)
				discarded += counter_get(&c->discarded[e]);
		}
	log_event(LOG_LEVEL_INFO, "stopped",
		  "received %llu messages: %llu accepted, %llu refused, %llu failed, %llu in flight; "
		  "discarded %llu",
		  (unsigned long long)received, (unsigned long long)accepted,
		  (unsigned long long)refused, (unsigned long long)failed,
		  (unsigned long long)in_flight, (unsigned long long)discarded);
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
		tls_context_free(d->groups[k].tls);
		free(d->groups[k].spill_directory);
		free(d->groups[k].deliver);
		free(d->groups[k].members);
	}
	if (d->pid_file != -1) {
		unlink(d->config->pid_file);
		close(d->pid_file);
	}
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
	d.n_workers = count_workers(config);
	the_daemon = &d;
	code = start(&d, background);
	if (code != 0) {
		for (i = 0; i < d.n_workers; i++)
			if (d.workers != NULL && d.workers[i].started)
				intake_stop(&d.intakes[i], INTAKE_KILL);
	} else {
		say_ready(&d);
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
