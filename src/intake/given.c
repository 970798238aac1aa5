/*
 * given: see given.h.  What a process is given at its start there is once, hence
 * no struct to pass around.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/log.h"
#include "base/systemd.h"
#include "config/config.h"
#include "intake/given.h"

static struct {
	struct systemd_fd *fds;
	char **listeners; /* whom each is for; NULL: nobody */
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
	if (given.count == 0)
		return 0;
	given.listeners = calloc(given.count, sizeof(*given.listeners));
	return given.listeners == NULL ? EX_OSERR : 0;
}

void
given_close(void)
{
	size_t i;

	for (i = 0; given.listeners != NULL && i < given.count; i++)
		free(given.listeners[i]);
	free(given.listeners);
	systemd_listen_fds_free(given.fds, given.count);
	memset(&given, 0, sizeof(given));
}

static int
assign(const struct config *config, size_t i)
{
	const struct systemd_fd *fd = &given.fds[i];
	const struct config_listener *listener = find_listener(config, fd->name);

	free(given.listeners[i]);
	given.listeners[i] = NULL;
	if (fd->why != NULL) {
		log_event(LOG_LEVEL_ERROR, "socket-given",
			  "socket \"%s\" of the service manager (descriptor %d) cannot be used: %s",
			  fd->name, fd->fd, fd->why);
		return EX_CONFIG;
	}
	if (listener == NULL) {
		/* Clients could connect, and would wait for ever. */
		log_event(LOG_LEVEL_ERROR, "socket-given",
			  "socket \"%s\" of the service manager (descriptor %d) is for no listener: "
			  "set FileDescriptorName= of its unit to the name of one",
			  fd->name, fd->fd);
		return EX_CONFIG;
	}
	given.listeners[i] = strdup(listener->name);
	if (given.listeners[i] == NULL)
		return EX_OSERR;
	log_event(LOG_LEVEL_INFO, "socket-given",
		  "listener %s takes a socket of the service manager; what its address, port and "
		  "backlog say is not used",
		  listener->name);
	return 0;
}

int
given_assign(const struct config *config)
{
	int result = 0, code;
	size_t i;

	for (i = 0; i < given.count; i++)
		if ((code = assign(config, i)) != 0)
			result = code;
	return result;
}

int
given_next(const char *listener, size_t *at)
{
	size_t i;

	while (*at < given.count) {
		i = (*at)++;
		if (given.listeners[i] != NULL && strcmp(given.listeners[i], listener) == 0)
			return given.fds[i].fd;
	}
	return -1;
}
