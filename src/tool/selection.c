/*
 * selection: see selection.h.
 */
#include "tool/selection.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "tool/tool.h"

bool
selection_is_given(const struct selection *selection)
{
	return selection->all || selection->n_patterns > 0 || selection->older > 0 ||
	       selection->newer > 0 || selection->listener != NULL || selection->peer != NULL ||
	       selection->states != 0;
}

static bool
is_glob(const char *pattern)
{
	return strpbrk(pattern, "*?[") != NULL;
}

/* An id is written in any case, and not to its end. */
static bool
begins(const char *id, const char *pattern)
{
	for (; *pattern != '\0'; id++, pattern++)
		if (toupper((unsigned char)*pattern) != *id)
			return false;
	return true;
}

static bool
matches(const struct spools_message *message, const char *pattern)
{
	if (is_glob(pattern))
		return fnmatch(pattern, message->name, 0) == 0;
	if (strcmp(pattern, message->name) == 0)
		return true;
	return message->id[0] != '\0' && begins(message->id, pattern);
}

/* The peer as it is shown, as it stands in the name, or its host alone. */
static bool
matches_peer(const struct spools_message *message, const char *pattern)
{
	const char *dot = strchr(message->name + strlen(message->id), '.');
	const char *raw = dot == NULL ? "" : strchr(dot + 1, '.');
	const char *hyphen;
	char *host;
	bool found;

	if (message->id[0] == '\0' || raw == NULL)
		return false;
	raw++;
	if (fnmatch(pattern, message->peer, 0) == 0 || fnmatch(pattern, raw, 0) == 0 ||
	    strcmp(pattern, message->peer) == 0)
		return true;
	hyphen = strrchr(raw, '-');
	host = tool_copy(raw);
	if (hyphen != NULL)
		host[hyphen - raw] = '\0';
	found = fnmatch(pattern, host, 0) == 0;
	free(host);
	return found;
}

static bool
is_meant(const struct selection *selection, const struct spools_message *message, uint64_t now)
{
	uint64_t age = now > message->time ? now - message->time : 0;

	if (selection->older > 0 && age < selection->older)
		return false;
	if (selection->newer > 0 && age >= selection->newer)
		return false;
	/* A file with another name than the daemon gives has no listener. */
	if (selection->listener != NULL &&
	    (message->id[0] == '\0' || fnmatch(selection->listener, message->listener, 0) != 0))
		return false;
	if (selection->peer != NULL && !matches_peer(message, selection->peer))
		return false;
	for (size_t i = 0; i < selection->n_patterns; i++)
		if (matches(message, selection->patterns[i]))
			return true;
	return selection->n_patterns == 0;
}

/* Each pattern that names one message names one. */
static int
check_pattern(const struct spools *spools, const char *pattern)
{
	const struct spools_message *found = NULL;

	if (is_glob(pattern))
		return 0;
	for (size_t i = 0; i < spools->n_messages; i++) {
		const struct spools_message *message = &spools->messages[i];

		if (!matches(message, pattern))
			continue;
		/* One id may lie in two states for a moment, and for good in two spools. */
		if (found != NULL && strcmp(found->name, message->name) != 0) {
			tool_complain("%s: more than one message begins so, as %s and %s do; "
				      "write more of it, or \"%s*\"", pattern, found->id, message->id,
				      pattern);
			return EX_USAGE;
		}
		found = message;
	}
	if (found != NULL)
		return 0;
	tool_complain("%s: there is no such message (it may have been taken meanwhile)", pattern);
	return EX_NOINPUT;
}

int
selection_apply(const struct selection *selection, struct spools *spools, uint64_t now)
{
	size_t from, to = 0;
	int code = 0, wrong;

	for (size_t i = 0; i < selection->n_patterns; i++) {
		wrong = check_pattern(spools, selection->patterns[i]);
		if (wrong == EX_USAGE)
			return wrong; /* whoever was meant, nobody is touched */
		if (wrong != 0)
			code = wrong;
	}
	for (from = 0; from < spools->n_messages; from++) {
		struct spools_message *message = &spools->messages[from];

		if (is_meant(selection, message, now)) {
			spools->messages[to++] = *message;
			continue;
		}
		free(message->name);
		free(message->listener);
		free(message->peer);
	}
	spools->n_messages = to;
	return code;
}
