/*
 * subject: see subject.h.
 */
#include "message/subject.h"

#include <stddef.h>
#include <string.h>

/* The placeholder at a brace, or NULL. */
static const char *
placeholder(const char *at)
{
	static const char *const names[] = {"{listener}", "{peer}"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strncmp(at, names[i], strlen(names[i])) == 0)
			return names[i];
	return NULL;
}

const char *
subject_check(const char *template)
{
	const char *at = template, *name;
	unsigned count = 0;

	if (strlen(template) > SUBJECT_TEMPLATE_MAX)
		return "it is longer than 200 bytes";
	if (*template == '$')
		return "what begins with $ is the servers' own";
	if (*template == '.' || strstr(template, "..") != NULL || *template == '\0' ||
	    template[strlen(template) - 1] == '.')
		return "there is nothing beside one of its dots";
	while (*at != '\0') {
		if (*at == '*' || *at == '>')
			return "it has a wildcard";
		if (*at <= ' ' || *at > '~')
			return "it has a space, or what is not ASCII";
		if (*at == '}')
			return "it has a } without its {";
		if (*at != '{') {
			at++;
			continue;
		}
		name = placeholder(at);
		if (name == NULL)
			return "it has a placeholder other than {listener} and {peer}";
		if (++count > SUBJECT_PLACEHOLDERS_MAX)
			return "it has more than four placeholders";
		at += strlen(name);
	}
	return NULL;
}

static bool
allows(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       c == '-' || c == '_';
}

static char *
put_value(char *to, const char *value, size_t len)
{
	if (len > SUBJECT_VALUE_MAX)
		len = SUBJECT_VALUE_MAX;
	if (len == 0)
		*to++ = '_';
	for (size_t i = 0; i < len; i++)
		*to++ = allows(value[i]) ? value[i] : '_';
	return to;
}

/* "192.0.2.1:5140", "[2001:db8::1]:5140", "unix:PID": what stands before the port. */
static char *
put_peer(char *to, const char *peer)
{
	const char *end = strrchr(peer, ':');
	size_t len = end != NULL ? (size_t)(end - peer) : strlen(peer);

	if (len >= 2 && peer[0] == '[' && peer[len - 1] == ']')
		return put_value(to, peer + 1, len - 2);
	return put_value(to, peer, len);
}

void
subject_fill(const char *template, const char *listener, const char *peer,
	     char subject[SUBJECT_SIZE])
{
	const char *at = template, *name;
	char *to = subject;

	while (*at != '\0') {
		if (*at != '{') {
			*to++ = *at++;
			continue;
		}
		name = placeholder(at);
		to = name[1] == 'l' ? put_value(to, listener, strlen(listener)) : put_peer(to, peer);
		at += strlen(name);
	}
	*to = '\0';
}

void
subject_pattern(const char *template, char pattern[SUBJECT_SIZE])
{
	char *to = pattern;

	for (;;) {
		size_t len = strcspn(template, ".");

		if (memchr(template, '{', len) != NULL) {
			*to++ = '*';
		} else {
			memcpy(to, template, len);
			to += len;
		}
		template += len;
		if (*template == '\0')
			break;
		*to++ = *template++;
	}
	*to = '\0';
}

bool
subject_matches(const char *pattern, const char *subject)
{
	for (;;) {
		size_t p = strcspn(pattern, "."), s = strcspn(subject, ".");

		if (p == 1 && *pattern == '>' && pattern[1] == '\0')
			return s > 0;
		if (!(p == 1 && *pattern == '*' && s > 0) &&
		    (p != s || memcmp(pattern, subject, p) != 0))
			return false;
		pattern += p;
		subject += s;
		if (*pattern != *subject || *pattern == '\0')
			return *pattern == *subject;
		pattern++;
		subject++;
	}
}
