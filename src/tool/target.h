/*
 * target: whom a client speaks to, as written on a command line.  Pure.
 */
#ifndef TOOL_TARGET_H
#define TOOL_TARGET_H

#include <stdbool.h>

#define TARGET_HOST_MAX 255
#define TARGET_PATH_MAX 107 /* of a local socket */

struct target {
	bool local;
	char host[TARGET_HOST_MAX + 1]; /* a name or an address, without brackets */
	char port[6];
	char path[TARGET_PATH_MAX + 1]; /* of a local socket */
};

/* "HOST:PORT", "[ADDRESS]:PORT", "unix:/path"; without a port where default_port is
 * not NULL.  Returns NULL, or what was expected. */
const char *target_parse(const char *text, const char *default_port, struct target *target);

/* The same from "http://HOST:PORT/PATH" or what target_parse takes; *path points to the
 * path in the text, or to the default.  Returns NULL, or what was expected. */
const char *target_parse_url(const char *text, const char *default_port, const char *default_path,
			     struct target *target, const char **path);

#endif
