/*
 * belongings: what the daemon has on disk of its own: its log, its pid file, the
 * directory where large messages wait.
 *
 * As root and with a user to become, they are opened and made as that user where
 * that user may; the log only so, for it has to be opened anew later on.
 */
#ifndef BELONGINGS_H
#define BELONGINGS_H

#include <stdbool.h>

struct config;
struct identity;

/* These return 0, or an exit code, having said why. */
int belongings_open_log(const struct config *config, const struct identity *identity,
			bool background);

/* The file is locked for as long as *fd is open. */
int belongings_open_pid_file(const struct config *config, const struct identity *identity, int *fd);

/* Removes it; where this user may not, leaves it empty.  fd may be -1. */
void belongings_close_pid_file(const struct config *config, int fd);

/* Before and after identity_take: makes the directory where it is missing, and looks
 * whether it can be used. */
void belongings_make_spill_directory(const struct config *config, const struct identity *identity);
int belongings_check_spill_directory(const struct config *config);

#endif
