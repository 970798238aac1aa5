/*
 * logging: the log as the configuration wants it.
 */
#ifndef LOGGING_H
#define LOGGING_H

#include <stdbool.h>

struct config_log;

/* Opens it, or changes to it: 0, or -1 with errno when its file cannot be opened (then
 * nothing has changed). */
int logging_open(const struct config_log *log, bool background);

#endif
