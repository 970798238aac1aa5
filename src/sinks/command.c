/*
 * command: a program for each message, with the message as its standard input.
 *
 * One thread with a poll(2) of its own starts programs, as long as fewer than
 * max_processes run; what comes meanwhile waits, bounded by max_in_flight and
 * memory_limit.  A program that exits with 0 has accepted its message; 75
 * (EX_TEMPFAIL), a death by signal and the timeout are RETRY, anything else is REJECT.
 * A batch is answered when the programs of all its messages have ended.
 *
 * A program that cannot be run is trouble of the sink, said once an episode, and its
 * message is RETRY unavailable; while it lasts and nobody sends, the thread looks once
 * a second whether it is over.  When the time for a stop is over, what has not been
 * started is refused, and what runs gets TERM and a second later KILL.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "message/body.h"
#include "sinks/command.h"
#include "sinks/kinds.h"

#define GRACE UINT64_C(5000000)	      /* between TERM and KILL, ... */
#define LAST_GRACE UINT64_C(1000000)  /* ... and when the daemon stops */
#define TRY_AFTER UINT64_C(1000000)   /* between two looks at a program in trouble */
#define POLL_PAUSE 10000000L	      /* nanoseconds */
#define OUTPUT_LINES 1000	      /* of a sink's programs in ten seconds */
#define FAILURE_LINES 5

/* A delivery of which some messages have been started. */
struct command_work {
	struct delivery *delivery; /* NULL: free */
	unsigned started;
	unsigned running;
	unsigned n_failed;
	unsigned n_refused;
};

struct command {
	struct sink *sink;
	struct command_setup setup;
	pthread_t thread;
	bool started;
	int wake; /* eventfd: something below has changed */
	pthread_mutex_t lock; /* of first, last and closed */
	struct delivery *first;
	struct delivery **last;
	bool closed;
	atomic_bool hurried;

	/* The thread's own. */
	struct delivery *waiting;
	struct command_work *head; /* the one whose messages are being started */
	struct command_work *works; /* one more than processes */
	struct command_process *processes;
	struct pollfd *fds; /* wake, then two a process */
	unsigned most; /* processes */
	unsigned running;
	int *errors; /* one a process, shared with children */
	size_t errors_size;
	bool hurries;
	uint64_t next_try; /* 0: no trouble */
	struct valve output_valve;
	struct valve failure_valve;
	unsigned char *scratch;
};

/* ---------------------------------------------------------------- outcomes */

static void
say_failed(struct command *c, const struct command_label *label, const char *how,
	   enum outcome outcome)
{
	char peer[NET_TEXT_LEN];
	struct log_subject subject = {.connection = label->origin->connection,
				      .listener = label->origin->listener, .peer = peer};

	if (!valve_pass(&c->failure_valve, clock_now()))
		return;
	net_address_text(&label->origin->peer, peer);
	log_connection(LOG_LEVEL_WARNING, "command-failed", &subject,
		       "sink %s: message %s: %s: %s", label->sink, label->id, how,
		       outcome_name(outcome));
}

static void
say_sum(struct command *c, struct valve *valve, enum log_level level, const char *event,
	const char *what)
{
	log_event(level, event, "sink %s: %llu more %s", c->sink->config->name,
		  (unsigned long long)valve_sum(valve), what);
}

static void
say_sums(struct command *c, uint64_t now, bool last)
{
	uint64_t due = valve_due(&c->failure_valve);

	if (due != 0 && (last || now >= due))
		say_sum(c, &c->failure_valve, LOG_LEVEL_WARNING, "command-failed",
			"commands failed");
	due = valve_due(&c->output_valve);
	if (due != 0 && (last || now >= due))
		say_sum(c, &c->output_valve, LOG_LEVEL_INFO, "command-output",
			"lines were not logged");
}

static void
settle(struct command_work *work, struct message *message, enum outcome outcome)
{
	message_settle(message, outcome);
	if (outcome == OUTCOME_ACCEPTED)
		return;
	if (outcome_is_temporary(outcome))
		work->n_failed++;
	else
		work->n_refused++;
}

static void
answer_if_done(struct command *c, struct command_work *work)
{
	struct delivery *delivery = work->delivery;

	if (work->running > 0 || work->started < delivery->batch->count)
		return;
	if (c->head == work)
		c->head = NULL;
	work->delivery = NULL;
	sink_answer_mixed(delivery, work->n_failed, work->n_refused);
}

static void
trouble(struct command *c, const char *what, int error)
{
	sink_failing(c->sink, what, error);
	c->next_try = clock_now() + TRY_AFTER;
}

/* What a program's end means for its message. */
static enum outcome
judge(struct command *c, const struct command_process *process, int status)
{
	struct body *body = process->message->body;
	char how[64];
	enum outcome outcome;

	if (process->stage != COMMAND_RUNS) {
		outcome = process->why;
		snprintf(how, sizeof(how), "ended after %.1f seconds",
			 (double)(clock_now() - process->began) / 1e6);
	} else if (WIFSIGNALED(status)) {
		outcome = OUTCOME_UNAVAILABLE;
		snprintf(how, sizeof(how), "killed by signal %d", WTERMSIG(status));
	} else if (WEXITSTATUS(status) != 0) {
		outcome = WEXITSTATUS(status) == EX_TEMPFAIL ? OUTCOME_UNAVAILABLE
							     : OUTCOME_REFUSED;
		snprintf(how, sizeof(how), "exit status %d", WEXITSTATUS(status));
	} else if (body != NULL && body_verify(body, false) == -1) {
		/* What it read may not have been what was sent. */
		outcome = OUTCOME_STORAGE;
		snprintf(how, sizeof(how), "the message's file is damaged");
	} else {
		return OUTCOME_ACCEPTED;
	}
	say_failed(c, &process->label, how, outcome);
	return outcome;
}

static void
take_end(struct command *c, struct command_process *process)
{
	struct command_work *work = process->work;
	enum outcome outcome;
	int status;

	if (command_process_reap(process, c->scratch, &status) == -1) {
		trouble(c, c->sink->config->argv.items[0], errno);
		outcome = OUTCOME_UNAVAILABLE;
	} else {
		outcome = judge(c, process, status);
		c->next_try = 0;
		sink_well(c->sink);
	}
	settle(work, process->message, outcome);
	c->running--;
	work->running--;
	answer_if_done(c, work);
}

/* ---------------------------------------------------------------- starting */

static void
take_deliveries(struct command *c)
{
	struct delivery **end = &c->waiting;

	while (*end != NULL)
		end = &(*end)->next;
	pthread_mutex_lock(&c->lock);
	*end = c->first;
	c->first = NULL;
	c->last = &c->first;
	pthread_mutex_unlock(&c->lock);
}

/* The next message to be started; NULL: none. */
static struct message *
next_message(struct command *c)
{
	struct command_work *work = c->works;

	if (c->head == NULL) {
		if (c->waiting == NULL)
			return NULL;
		while (work->delivery != NULL) /* each has a process, so one is free */
			work++;
		*work = (struct command_work){.delivery = c->waiting};
		c->waiting = c->waiting->next;
		c->head = work;
	}
	work = c->head;
	return &work->delivery->batch->messages[work->started++];
}

static void
start_one(struct command *c, struct message *message)
{
	struct command_work *work = c->head;
	struct command_process *process = c->processes;
	const char *what;
	enum outcome outcome = OUTCOME_SHUTDOWN;

	if (work->started == work->delivery->batch->count)
		c->head = NULL;
	while (!c->hurries && process->pid != 0)
		process++;
	if (!c->hurries && command_process_start(process, &c->setup, work->delivery->batch, message,
						 &what, &outcome) == 0) {
		process->work = work;
		work->running++;
		c->running++;
		return;
	}
	if (outcome == OUTCOME_REFUSED)
		say_failed(c, &process->label, what, outcome);
	else if (outcome != OUTCOME_SHUTDOWN)
		trouble(c, what, errno);
	settle(work, message, outcome);
	answer_if_done(c, work);
}

static void
start_all(struct command *c)
{
	struct message *message;

	while ((c->hurries || c->running < c->most) && (message = next_message(c)) != NULL)
		start_one(c, message);
}

static void
hurry(struct command *c)
{
	unsigned i;

	c->hurries = true;
	for (i = 0; i < c->most; i++) {
		struct command_process *process = &c->processes[i];

		if (process->pid == 0)
			continue;
		if (process->stage == COMMAND_RUNS)
			command_process_end(process, OUTCOME_SHUTDOWN, LAST_GRACE);
		else if (process->stage == COMMAND_TERMINATED)
			process->deadline = clock_now(); /* it had its time */
	}
}

/* ----------------------------------------------------------------- waiting */

static void
keep_deadlines(struct command *c, uint64_t now)
{
	unsigned i;

	for (i = 0; i < c->most; i++) {
		struct command_process *process = &c->processes[i];

		if (process->pid == 0 || process->deadline == 0 || now < process->deadline)
			continue;
		if (process->stage == COMMAND_RUNS)
			command_process_end(process, OUTCOME_TIMEOUT, GRACE);
		else
			command_process_kill(process);
	}
	if (c->next_try != 0 && now >= c->next_try) {
		c->next_try = now + TRY_AFTER;
		if (command_process_try(&c->setup)) {
			c->next_try = 0;
			sink_well(c->sink);
		}
	}
	say_sums(c, now, false);
}

static void
sooner(uint64_t *first, uint64_t when)
{
	if (when != 0 && (*first == 0 || when < *first))
		*first = when;
}

/* Milliseconds until something is due; -1: nothing is. */
static int
patience(const struct command *c)
{
	uint64_t first = c->next_try, now = clock_now();
	unsigned i;

	sooner(&first, valve_due(&c->failure_valve));
	sooner(&first, valve_due(&c->output_valve));
	for (i = 0; i < c->most; i++)
		if (c->processes[i].pid != 0)
			sooner(&first, c->processes[i].deadline);
	if (first == 0)
		return -1;
	if (first <= now)
		return 0;
	first = (first - now + 999) / 1000;
	return first > 3600000 ? 3600000 : (int)first;
}

/* poll(2) takes no more descriptors at a time than may be open (EINVAL), and somebody may
 * have lowered that limit below what is: then each by itself, now and again. */
static void
poll_each(struct pollfd *fds, unsigned count)
{
	const struct timespec pause = {.tv_nsec = POLL_PAUSE};
	unsigned i;

	nanosleep(&pause, NULL);
	for (i = 0; i < count; i++)
		if (poll(&fds[i], 1, 0) == -1)
			fds[i].revents = 0; /* not even one: until there may be */
}

static void
wait_for_events(struct command *c)
{
	struct pollfd *fds = c->fds + 1;
	uint64_t count;
	unsigned i;

	/* None for what does not run: that is less than may be open. */
	for (i = 0; i < c->most; i++) {
		if (c->processes[i].pid == 0)
			continue;
		*fds++ = (struct pollfd){.fd = c->processes[i].pidfd, .events = POLLIN};
		*fds++ = (struct pollfd){.fd = c->processes[i].output.fd, .events = POLLIN};
	}
	if (poll(c->fds, (nfds_t)(fds - c->fds), patience(c)) == -1) {
		if (errno != EINVAL)
			return; /* EINTR, or no memory for now */
		poll_each(c->fds, (unsigned)(fds - c->fds));
	}
	if (c->fds[0].revents != 0)
		(void)!read(c->wake, &count, sizeof(count));
	inbox_hold();
	for (i = 0, fds = c->fds + 1; i < c->most; i++) {
		struct command_process *process = &c->processes[i];

		if (process->pid == 0)
			continue;
		if (fds[1].revents != 0)
			command_output_read(&process->output, &process->label, c->scratch);
		if (fds[0].revents != 0)
			take_end(c, process);
		fds += 2;
	}
	inbox_release();
}

static bool
is_closed(struct command *c)
{
	bool closed;

	pthread_mutex_lock(&c->lock);
	closed = c->closed && c->first == NULL;
	pthread_mutex_unlock(&c->lock);
	return closed;
}

static void *
command_run(void *arg)
{
	struct command *c = arg;

	c->fds[0] = (struct pollfd){.fd = c->wake, .events = POLLIN};
	for (;;) {
		if (!c->hurries && atomic_load(&c->hurried))
			hurry(c);
		take_deliveries(c);
		inbox_hold();
		start_all(c);
		inbox_release();
		if (c->running == 0 && is_closed(c))
			break;
		wait_for_events(c);
		keep_deadlines(c, clock_now());
	}
	say_sums(c, clock_now(), true);
	return NULL;
}

static void
wake(struct command *c)
{
	uint64_t one = 1;

	if (write(c->wake, &one, sizeof(one)) == -1 && errno != EAGAIN)
		log_event(LOG_LEVEL_WARNING, "sink-hurry", "sink %s: %s", c->sink->config->name,
			  strerror(errno));
}

/* ------------------------------------------------------------ open and close */

static void
command_free(struct command *c)
{
	if (c->errors != NULL)
		munmap(c->errors, c->errors_size);
	if (c->wake != -1)
		close(c->wake);
	command_setup_close(&c->setup);
	free(c->works);
	free(c->processes);
	free(c->fds);
	free(c->scratch);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* All that the thread will need.  -1: errno. */
static int
prepare(struct command *c)
{
	void *shared;
	unsigned i;

	c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->works = calloc(c->most + 1, sizeof(*c->works));
	c->processes = calloc(c->most, sizeof(*c->processes));
	c->fds = calloc(2 * (size_t)c->most + 1, sizeof(*c->fds));
	c->scratch = malloc(COMMAND_SCRATCH);
	if (c->wake == -1 || c->works == NULL || c->processes == NULL || c->fds == NULL || c->scratch == NULL)
		return -1;
	c->errors_size = c->most * sizeof(*c->errors);
	shared = mmap(NULL, c->errors_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		return -1;
	c->errors = shared;
	for (i = 0; i < c->most; i++) {
		c->processes[i].error = &c->errors[i];
		c->processes[i].output.fd = -1;
		c->processes[i].output.valve = &c->output_valve;
	}
	return 0;
}

static int
command_open(struct sink *sink)
{
	const struct config_sink *config = sink->config;
	struct command *c;
	int code = command_setup_check(config);

	if (code != 0)
		return code;
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		goto failed;
	c->sink = sink;
	c->wake = -1;
	c->most = config->max_processes;
	c->last = &c->first;
	c->output_valve.most = OUTPUT_LINES;
	c->failure_valve.most = FAILURE_LINES;
	pthread_mutex_init(&c->lock, NULL); /* cannot fail with no attributes */
	if (command_setup_open(&c->setup, config, sink->config_reference->spill_directory) == -1 ||
	    prepare(c) == -1) {
		int error = errno;

		command_free(c);
		errno = error;
		goto failed;
	}
	/* Who started us may ignore it; then nobody would be told how a child ended. */
	signal(SIGCHLD, SIG_DFL);
	sink->state = c;
	return 0;
failed:
	log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s", config->name, strerror(errno));
	return EX_OSERR;
}

static int
command_start(struct sink *sink)
{
	struct command *c = sink->state;
	int code = sink_start_thread(sink, &c->thread, "cmd", command_run, c);

	c->started = code == 0;
	return code;
}

static void
command_deliver(struct sink *sink, struct delivery *first)
{
	struct command *c = sink->state;
	struct delivery *last = first;
	bool was_empty;

	while (last->next != NULL)
		last = last->next;
	pthread_mutex_lock(&c->lock);
	was_empty = c->first == NULL;
	*c->last = first;
	c->last = &last->next;
	pthread_mutex_unlock(&c->lock);
	if (was_empty)
		wake(c);
}

static void
command_hurry(struct sink *sink)
{
	struct command *c = sink->state;

	atomic_store(&c->hurried, true);
	wake(c);
}

static void
command_close(struct sink *sink)
{
	struct command *c = sink->state;

	pthread_mutex_lock(&c->lock);
	c->closed = true;
	pthread_mutex_unlock(&c->lock);
	if (c->started) {
		wake(c);
		pthread_join(c->thread, NULL);
	}
	command_free(c);
}

const struct sink_kind sink_kind_command = {
	.name = "command",
	.open = command_open,
	.start = command_start,
	.deliver = command_deliver,
	.hurry = command_hurry,
	.close = command_close,
};
