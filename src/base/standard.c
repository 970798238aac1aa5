/*
 * standard: see standard.h.
 */
#include "base/standard.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void
standard_hold(void)
{
	int fd;

	/* Not /dev/null: a console would lose its messages there and call them accepted.
	 * The lowest free number is the one that is missing, as those below are held. */
	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/", O_PATH) == -1)
			return; /* not even that: it goes on as it would have */
}
