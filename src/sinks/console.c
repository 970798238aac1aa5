/*
 * console: messages on standard output.
 *
 * One writer thread, so that a terminal or pipe that stops reading stalls
 * nobody else; what waits for it is bounded by max_in_flight and memory_limit.
 * Sinks of this kind (an old one and a new one, after a reload) share the writer.
 * A message is accepted once written.  When the reader is gone (EPIPE), or the
 * time for a stop is over while standard output is full, messages fail with
 * RETRY unavailable or RETRY shutdown.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "message/format.h"
#include "sinks/kinds.h"
#include "sinks/queue.h"

struct console {
	unsigned users; /* sinks; the main thread's */
	struct sink_trouble trouble;
	struct queue queue;
	struct output output;
	pthread_t thread;
	bool started;
	int fd;
	bool own;    /* a description of our own, which we close */
	int wake;    /* eventfd: hurry */
	bool hurried; /* the writer's own memory of it */
};

static struct console *the_console; /* main thread */

/* Standard output without blocking, so that the writer can be told to stop.  A
 * flag set on the shared description would change the shell's terminal too, so
 * a new description is opened where that is possible. */
static int
console_descriptor(bool *own)
{
	struct stat st;
	int fd = -1, flags;

	*own = false;
	if (fstat(STDOUT_FILENO, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode) || S_ISSOCK(st.st_mode))) {
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		if (fd != -1) {
			*own = true;
			return fd;
		}
		flags = fcntl(STDOUT_FILENO, F_GETFL);
		if (flags != -1)
			fcntl(STDOUT_FILENO, F_SETFL, flags | O_NONBLOCK);
	}
	return STDOUT_FILENO;
}

/* The descriptor is full: waits for it, or for the order to hurry. */
static int
console_wait(struct output *output)
{
	struct console *console = output->wait_arg;
	struct pollfd fds[2] = {
		{.fd = output->fd, .events = POLLOUT},
		{.fd = console->wake, .events = POLLIN},
	};

	for (;;) {
		if (poll(fds, 2, -1) == -1) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		if (fds[0].revents != 0)
			return 0;
		if (fds[1].revents != 0) {
			console->hurried = true;
			errno = ECANCELED;
			return -1;
		}
	}
}

static void *
console_run(void *arg)
{
	struct console *console = arg;
	struct output *output = &console->output;
	struct delivery *first, *delivery, *next;
	bool reopen, closed = false;

	while (!closed) {
		first = queue_take(&console->queue, 4096, &reopen, &closed);
		if (first == NULL)
			continue;
		output_reset(output, console->fd);
		for (delivery = first; delivery != NULL; delivery = delivery->next)
			if (format_batch((enum format)delivery->sink->config->format,
					 delivery->batch, output) == -1)
				break;
		if (delivery != NULL && output->error == 0)
			output->error = errno; /* a message could not be read back */
		if (output_flush(output) == 0)
			sink_well(first->sink);
		else if (!console->hurried)
			sink_failing(first->sink, "standard output", errno);
		/* All or none of a group: what of it has reached the reader cannot be
		 * told apart once a write has failed. */
		sink_answers_begin();
		for (next = first; (delivery = next) != NULL;) {
			next = delivery->next;
			sink_answer(delivery, output->error == 0 ? OUTCOME_ACCEPTED
					      : console->hurried ? OUTCOME_SHUTDOWN
								 : OUTCOME_UNAVAILABLE);
		}
		sink_answers_end();
	}
	return NULL;
}

static int
console_open(struct sink *sink)
{
	struct console *console = the_console;

	if (console != NULL) {
		console->users++;
		sink->state = console;
		sink->trouble = &console->trouble;
		return 0;
	}
	console = memory_alloc(sizeof(*console));
	if (console == NULL)
		goto no_memory;
	*console = (struct console){.users = 1, .wake = -1};
	if (queue_init(&console->queue) == -1) {
		memory_free(console);
		goto no_memory;
	}
	console->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	console->fd = console_descriptor(&console->own);
	if (console->wake == -1 || output_init(&console->output, console->fd) == -1) {
		if (console->wake != -1)
			close(console->wake);
		if (console->own)
			close(console->fd);
		queue_clear(&console->queue);
		memory_free(console);
		goto no_memory;
	}
	console->output.wait = console_wait;
	console->output.wait_arg = console;
	pthread_mutex_init(&console->trouble.lock, NULL); /* cannot fail with no attributes */
	sink->state = the_console = console;
	sink->trouble = &console->trouble;
	return 0;
no_memory:
	log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: %s", sink->config->name, strerror(errno));
	return EX_OSERR;
}

static int
console_start(struct sink *sink)
{
	struct console *console = sink->state;
	int code;

	if (console->started)
		return 0;
	code = sink_start_thread(sink, &console->thread, "cons", console_run, console);
	console->started = code == 0;
	return code;
}

static void
console_deliver(struct sink *sink, struct delivery *first)
{
	struct console *console = sink->state;

	queue_put(&console->queue, first);
}

static void
console_hurry(struct sink *sink)
{
	struct console *console = sink->state;
	uint64_t one = 1;

	if (write(console->wake, &one, sizeof(one)) == -1)
		log_event(LOG_LEVEL_WARNING, "sink-hurry", "sink %s: %s", sink->config->name,
			  strerror(errno));
}

static void
console_close(struct sink *sink)
{
	struct console *console = sink->state;

	if (--console->users > 0)
		return;
	the_console = NULL;
	if (console->started) {
		queue_close(&console->queue);
		pthread_join(console->thread, NULL);
	}
	output_clear(&console->output);
	if (console->own)
		close(console->fd);
	close(console->wake);
	queue_clear(&console->queue);
	pthread_mutex_destroy(&console->trouble.lock);
	memory_free(console);
}

const struct sink_kind sink_kind_console = {
	.name = "console",
	.open = console_open,
	.start = console_start,
	.deliver = console_deliver,
	.hurry = console_hurry,
	.close = console_close,
};
