/*
 * background: see background.h.  The word is a byte in a pipe; a daemon that dies
 * without one closes the pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "background.h"
#include "base/log.h"

bool
background_lost(const struct config *config, struct background_loss *loss)
{
	size_t i, k;

	for (i = 0; i < config->n_listeners; i++) {
		const struct config_listener *l = &config->listeners[i];

		for (k = 0; k < l->deliver.count; k++) {
			if (config->sinks[l->deliver_to[k]].type != CONFIG_SINK_CONSOLE)
				continue;
			*loss = (struct background_loss){"listener", l->name, "deliver", l->place};
			return true;
		}
	}
	/* What is handed on is removed from the spool. */
	for (i = 0; i < config->n_sinks; i++) {
		const struct config_sink *sink = &config->sinks[i];

		if (sink->forward_to == NULL || sink->forward_to->type != CONFIG_SINK_CONSOLE)
			continue;
		*loss = (struct background_loss){"sink", sink->name, "forward", sink->place};
		return true;
	}
	return false;
}

int
background_check(const struct config *config)
{
	struct background_loss loss;

	if (!isatty(STDOUT_FILENO) || !background_lost(config, &loss))
		return 0;
	fprintf(stderr,
		"cisternd: %s %s delivers to the console, which is lost in the background "
		"(-d): name another sink in `%s`, or redirect standard output\n",
		loss.kind, loss.name, loss.setting);
	return EX_CONFIG;
}

/* In the process that was started. */
static _Noreturn void
wait_for_word(int fd, pid_t child)
{
	unsigned char code;
	ssize_t n;
	int status;

	do
		n = read(fd, &code, 1);
	while (n == -1 && errno == EINTR);
	if (n == 1)
		_exit(code);
	/* It died without a word. */
	if (waitpid(child, &status, 0) == child && WIFEXITED(status))
		_exit(WEXITSTATUS(status));
	_exit(EX_SOFTWARE);
}

int
background_go(void)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) == -1)
		return -1;
	child = fork();
	if (child == -1)
		return -1;
	if (child > 0) {
		close(fds[1]);
		wait_for_word(fds[0], child);
	}
	close(fds[0]);
	setsid(); /* fails only for a group leader, which a child is not */
	/* What it was started in may be unmounted: all paths are absolute by now. */
	return chdir("/") == -1 ? -1 : fds[1];
}

void
background_tell(int told, int code)
{
	unsigned char byte = (unsigned char)code;
	int null;

	if (told == -1)
		return;
	if (write(told, &byte, 1) != 1)
		log_event(LOG_LEVEL_DEBUG, "nobody-waits", "the process that started us is gone");
	close(told);
	if (code != 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null == -1)
		return;
	dup2(null, STDIN_FILENO);
	if (isatty(STDOUT_FILENO))
		dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
}
