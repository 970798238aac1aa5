/*
 * given: see given.h.  What a process is given at its start there is once, hence
 * no struct to pass around.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sysexits.h>

#include "base/log.h"
#include "base/systemd.h"
#include "config/config.h"
#include "intake/given.h"

static struct {
	struct systemd_fd *fds;
	size_t count;
} given;

/* What a socket unit without FileDescriptorName= says, and who says nothing. */
static bool
is_no_name(const char *name)
{
	size_t len = strlen(name);

	return len == 0 || strcmp(name, "unknown") == 0 ||
	       (len > 7 && strcmp(name + len - 7, ".socket") == 0);
}

static const struct config_listener *
find_listener(const struct config *config, const char *name)
{
	size_t i;

	for (i = 0; i < config->n_listeners; i++)
		if (strcmp(config->listeners[i].name, name) == 0)
			return &config->listeners[i];
	return is_no_name(name) && config->n_listeners == 1 ? &config->listeners[0] : NULL;
}

int
given_open(void)
{
	const char *why;

	if (systemd_listen_fds(&given.fds, &given.count, &why) == -1) {
		log_event(LOG_LEVEL_ERROR, "socket-given", "sockets of the service manager: %s (%s)",
			  why, strerror(errno));
		return EX_OSERR;
	}
	return 0;
}

void
given_close(void)
{
	systemd_listen_fds_free(given.fds, given.count);
	memset(&given, 0, sizeof(given));
}

int
given_check(const struct config *config)
{
	int code = 0;
	size_t i;

	for (i = 0; i < given.count; i++) {
		const struct systemd_fd *fd = &given.fds[i];

		if (fd->why != NULL)
			log_event(LOG_LEVEL_ERROR, "socket-given",
				  "socket \"%s\" of the service manager (descriptor %d) cannot be "
				  "used: %s",
				  fd->name, fd->fd, fd->why);
		else if (find_listener(config, fd->name) == NULL)
			/* Clients could connect, and would wait for ever. */
			log_event(LOG_LEVEL_ERROR, "socket-given",
				  "socket \"%s\" of the service manager (descriptor %d) is for no "
				  "listener: set FileDescriptorName= of its unit to the name of one",
				  fd->name, fd->fd);
		else
			continue;
		code = EX_CONFIG;
	}
	return code;
}

int
given_next(const struct config *config, const struct config_listener *listener, size_t *at)
{
	size_t i;

	while (*at < given.count) {
		i = (*at)++;
		if (find_listener(config, given.fds[i].name) == listener)
			return given.fds[i].fd;
	}
	return -1;
}
