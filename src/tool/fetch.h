/*
 * fetch: one document by HTTP/1.1, as much as a status service needs: GET, a length,
 * chunks or the close.  Bounded in time and size; no redirections.
 */
#ifndef TOOL_FETCH_H
#define TOOL_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tool/target.h"

#define FETCH_HEAD_MAX 16384
#define FETCH_BODY_MAX ((size_t)64 << 20)
#define FETCH_WHY_MAX 640

enum fetch_verdict { FETCH_MORE, FETCH_WHOLE, FETCH_BAD };

/* What has arrived so far. */
struct fetch_response {
	int status;
	size_t head; /* length of the head, with its empty line */
	bool chunked;
	bool has_length;
	size_t length; /* of the body, when it says so or is whole */
	const char *why; /* of FETCH_BAD */
};

/* Looks at all that has arrived; closed: no more will.  Pure.  In front of FETCH_WHOLE it
 * has taken the chunks apart: the body is `length` bytes at `bytes + head`. */
enum fetch_verdict fetch_parse(char *bytes, size_t len, bool closed,
			       struct fetch_response *response);

/* 0 and the body, NUL-terminated, to be freed; or an exit status and why. */
int fetch(const struct target *target, const char *path, uint64_t timeout, char **body,
	  size_t *len, char why[FETCH_WHY_MAX]);

#endif
