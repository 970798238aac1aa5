/*
 * fetch: see fetch.h.
 */
#include "tool/fetch.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>

#include "base/clock.h"
#include "tool/link.h"
#include "tool/tool.h"

#define PIECE 65536
#define ALL_MOST (FETCH_HEAD_MAX + 2 * FETCH_BODY_MAX) /* chunks may be small */

static enum fetch_verdict
bad(struct fetch_response *response, const char *why)
{
	response->why = why;
	return FETCH_BAD;
}

/* Behind the empty line; NULL: it has not come yet. */
static char *
head_end(char *bytes, size_t len)
{
	char *end = memmem(bytes, len, "\r\n\r\n", 4);

	return end == NULL ? NULL : end + 4;
}

/* A number, in the base, and nothing else but what `stop` begins. */
static bool
parse_number(const char *text, const char *end, int base, const char *stop, size_t *number)
{
	const char *from = text;

	*number = 0;
	for (; text < end; text++) {
		int digit = *text >= '0' && *text <= '9' ? *text - '0' :
			    *text >= 'a' && *text <= 'f' ? *text - 'a' + 10 :
			    *text >= 'A' && *text <= 'F' ? *text - 'A' + 10 : 99;

		if (digit >= base)
			break;
		if (*number > FETCH_BODY_MAX)
			return false;
		*number = *number * (size_t)base + (size_t)digit;
	}
	return text > from && (text == end || strchr(stop, *text) != NULL);
}

static bool
is_field(const char *line, const char *end, const char *name, const char **value)
{
	size_t len = strlen(name);

	if ((size_t)(end - line) <= len || strncasecmp(line, name, len) != 0 || line[len] != ':')
		return false;
	for (*value = line + len + 1; *value < end && (**value == ' ' || **value == '\t'); ++*value)
		;
	return true;
}

static enum fetch_verdict
parse_head(const char *bytes, const char *end, struct fetch_response *response)
{
	const char *line = bytes, *next, *value;

	if (end - bytes < 12 || strncmp(bytes, "HTTP/1.", 7) != 0 || bytes[8] != ' ')
		return bad(response, "what answers there is no HTTP");
	response->status = atoi(bytes + 9);
	for (; line < end; line = next + 2) {
		next = memmem(line, (size_t)(end - line), "\r\n", 2);
		if (next == NULL)
			break;
		if (is_field(line, next, "Content-Length", &value)) {
			if (response->has_length ||
			    !parse_number(value, next, 10, " \t", &response->length))
				return bad(response, "its Content-Length is none");
			response->has_length = true;
		} else if (is_field(line, next, "Transfer-Encoding", &value)) {
			if (next - value != 7 || strncasecmp(value, "chunked", 7) != 0)
				return bad(response, "its Transfer-Encoding is not known");
			response->chunked = true;
		}
	}
	if (response->chunked && response->has_length)
		return bad(response, "it has both a length and chunks");
	return FETCH_MORE;
}

/* Walks over the chunks; when all are there, puts them together. */
static enum fetch_verdict
parse_chunks(char *body, char *end, struct fetch_response *response)
{
	bool whole = false;
	char *to = body, *at, *line;
	size_t size;
	int round;

	for (round = 0; round < 2; round++) {
		for (at = body;; at = line + 2 + size + 2) {
			if (at >= end)
				return FETCH_MORE;
			line = memmem(at, (size_t)(end - at), "\r\n", 2);
			if (line == NULL)
				return end - at > 1024 ? bad(response, "a chunk has no size") : FETCH_MORE;
			if (!parse_number(at, line, 16, "; \t", &size))
				return bad(response, "a chunk's size is none");
			if (size == 0)
				break;
			if ((size_t)(end - line) < size + 4)
				return FETCH_MORE;
			if (line[2 + size] != '\r' || line[3 + size] != '\n')
				return bad(response, "a chunk does not end where it should");
			if (whole) {
				memmove(to, line + 2, size);
				to += size;
			}
		}
		/* No trailers are asked for; what follows is the last empty line. */
		if (end - line < 4)
			return FETCH_MORE;
		whole = true;
	}
	response->length = (size_t)(to - body);
	return FETCH_WHOLE;
}

enum fetch_verdict
fetch_parse(char *bytes, size_t len, bool closed, struct fetch_response *response)
{
	enum fetch_verdict verdict;
	char *end;

	*response = (struct fetch_response){0};
	end = head_end(bytes, len);
	if (end == NULL || end - bytes > FETCH_HEAD_MAX) {
		if (len > FETCH_HEAD_MAX)
			return bad(response, "its head is too long");
		return closed ? bad(response, "the answer was cut off") : FETCH_MORE;
	}
	response->head = (size_t)(end - bytes);
	verdict = parse_head(bytes, end, response);
	if (verdict == FETCH_MORE && response->chunked) {
		verdict = parse_chunks(end, bytes + len, response);
	} else if (verdict == FETCH_MORE && !response->has_length) {
		response->length = len - response->head;
		verdict = closed ? FETCH_WHOLE : FETCH_MORE;
	} else if (verdict == FETCH_MORE && len - response->head >= response->length) {
		verdict = FETCH_WHOLE;
	}
	if ((response->has_length || verdict == FETCH_WHOLE) && response->length > FETCH_BODY_MAX)
		return bad(response, "it is too large");
	return verdict == FETCH_MORE && closed ? bad(response, "the answer was cut off") : verdict;
}

static int
fail(char *bytes, char why[FETCH_WHY_MAX], int code, const char *text)
{
	snprintf(why, FETCH_WHY_MAX, "%s", text);
	free(bytes);
	return code;
}

/* Sends the request and reads the answer. */
static int
talk(struct link *link, const char *request, uint64_t until, char **body, size_t *body_len,
     char why[FETCH_WHY_MAX])
{
	size_t len = 0, room = 0, sent = 0, todo = strlen(request);
	struct fetch_response response;
	enum fetch_verdict verdict = FETCH_MORE;
	char *bytes = NULL;
	ssize_t n;

	while (verdict == FETCH_MORE) {
		short events = POLLIN;

		if (sent < todo) {
			n = link_write(link, request + sent, todo - sent);
			if (n == LINK_FAILED)
				return fail(bytes, why, EX_UNAVAILABLE, link->why);
			sent += n > 0 ? (size_t)n : 0;
			events = sent < todo ? POLLOUT : POLLIN;
		}
		if (link_wait(link, events, link_left(until)) <= 0 || clock_now() >= until)
			return fail(bytes, why, EX_UNAVAILABLE, "no answer in time");
		if (sent < todo)
			continue;
		if (room - len <= PIECE) {
			room = room == 0 ? 4 * PIECE : 2 * room;
			if (room > ALL_MOST)
				return fail(bytes, why, EX_PROTOCOL, "the answer is too large");
			bytes = tool_grow(bytes, room, 1);
		}
		n = link_read(link, bytes + len, room - len - 1);
		if (n == LINK_AGAIN)
			continue;
		if (n == LINK_FAILED)
			return fail(bytes, why, EX_UNAVAILABLE, link->why);
		len += (size_t)n;
		verdict = fetch_parse(bytes, len, n == 0, &response);
	}
	if (verdict == FETCH_BAD)
		return fail(bytes, why, EX_PROTOCOL, response.why);
	if (response.status != 200) {
		snprintf(why, FETCH_WHY_MAX, "HTTP status %d; is that the status service?",
			 response.status);
		free(bytes);
		return EX_UNAVAILABLE;
	}
	memmove(bytes, bytes + response.head, response.length);
	bytes[response.length] = '\0';
	*body = bytes;
	*body_len = response.length;
	return 0;
}

int
fetch(const struct target *target, const char *path, uint64_t timeout, char **body, size_t *len,
      char why[FETCH_WHY_MAX])
{
	static const struct link_tls no_tls;
	uint64_t until = clock_now() + timeout;
	bool v6 = strchr(target->host, ':') != NULL;
	struct link link;
	char *request;
	int code = link_open(&link, target, &no_tls, timeout);

	if (code != 0)
		return fail(NULL, why, code, link.why);
	if (asprintf(&request,
		     "GET %s HTTP/1.1\r\nHost: %s%s%s:%s\r\nAccept: application/json\r\n"
		     "User-Agent: cistern\r\nConnection: close\r\n\r\n",
		     path, v6 ? "[" : "", target->local ? "localhost" : target->host, v6 ? "]" : "",
		     target->local ? "80" : target->port) == -1)
		code = fail(NULL, why, EX_OSERR, "out of memory");
	else
		code = talk(&link, request, until, body, len, why);
	if (code != EX_OSERR)
		free(request);
	link_close(&link);
	return code;
}
