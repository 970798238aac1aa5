/*
 * target: see target.h.
 */
#include "tool/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *
parse_port(const char *text, struct target *target)
{
	size_t len = strlen(text);

	if (len == 0 || len > 5 || strspn(text, "0123456789") != len || atoi(text) < 1 ||
	    atoi(text) > 65535)
		return "expected a port from 1 to 65535 behind the colon";
	snprintf(target->port, sizeof target->port, "%d", atoi(text));
	return NULL;
}

/* What could not be a name, nor an address, and would look odd in a Host header. */
static bool
is_host(const char *host)
{
	const char *c;

	for (c = host; *c != '\0'; c++)
		if ((unsigned char)*c <= ' ' || *c == 0x7f || strchr("/@[]?#\"\\", *c) != NULL)
			return false;
	return c > host;
}

const char *
target_parse(const char *text, const char *default_port, struct target *target)
{
	const char *host = text, *end, *port;
	size_t len;

	*target = (struct target){0};
	if (strncmp(text, "unix:", 5) == 0) {
		if (text[5] != '/')
			return "expected an absolute path behind \"unix:\"";
		if (strlen(text + 5) > TARGET_PATH_MAX)
			return "expected a path of at most 107 bytes behind \"unix:\"";
		strcpy(target->path, text + 5);
		target->local = true;
		return NULL;
	}
	if (*text == '[') {
		host = text + 1;
		end = strchr(host, ']');
		if (end == NULL || (end[1] != ':' && end[1] != '\0'))
			return "expected [ADDRESS]:PORT";
		port = end[1] == ':' ? end + 2 : NULL;
	} else {
		end = strchr(text, ':');
		if (end != NULL && strchr(end + 1, ':') != NULL)
			return "expected an IPv6 address in brackets, [ADDRESS]:PORT";
		port = end != NULL ? end + 1 : NULL;
		if (end == NULL)
			end = text + strlen(text);
	}
	len = (size_t)(end - host);
	if (len == 0 || len > TARGET_HOST_MAX)
		return "expected a host name or an address before the colon";
	memcpy(target->host, host, len);
	if (!is_host(target->host))
		return "expected HOST:PORT, [ADDRESS]:PORT or unix:/path";
	if (port == NULL)
		port = default_port;
	if (port == NULL)
		return "expected a port, as in HOST:PORT";
	return parse_port(port, target);
}

const char *
target_parse_url(const char *text, const char *default_port, const char *default_path,
		 struct target *target, const char **path)
{
	char authority[TARGET_HOST_MAX + 16];
	const char *slash, *c;
	size_t len;

	*path = default_path;
	if (strncmp(text, "https://", 8) == 0)
		return "expected http://: the status service speaks no TLS";
	if (strncmp(text, "http://", 7) != 0)
		return target_parse(text, default_port, target);
	text += 7;
	slash = strchr(text, '/');
	len = slash != NULL ? (size_t)(slash - text) : strlen(text);
	if (len >= sizeof authority)
		return "expected a host name or an address behind http://";
	memcpy(authority, text, len);
	authority[len] = '\0';
	if (slash != NULL && slash[1] != '\0')
		*path = slash;
	for (c = *path; *c != '\0'; c++)
		if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
			return "expected a path without blanks and controls";
	if (strncmp(authority, "unix:", 5) == 0)
		return "expected http://HOST:PORT";
	return target_parse(authority, default_port, target);
}
