/*
 * spool_facts: see spool_facts.h.
 *
 * The attribute is text: "time=1795459315123456 local=192.0.2.1:11000 ended=fin", where
 * the name in the file is not the listener's own " listener=NAME", and last
 * " subject=..." to the end.  It is short because an inode of ext4 has room for some 60
 * bytes of it; what is longer costs a block.  What is not understood is passed over.
 */
#include "sinks/spool_facts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define ATTRIBUTE "user.cistern"

static void
take_peer(struct spool_facts *facts, const char *name)
{
	char text[NET_TEXT_LEN];
	const char *hyphen = strrchr(name, '-');
	int host = hyphen != NULL ? (int)(hyphen - name) : 0;
	bool long_one = hyphen != NULL && memchr(name, ':', (size_t)host) != NULL;

	facts->peer = (struct net_address){0};
	if (strlen(name) + 3 > sizeof(text))
		return;
	if (hyphen == NULL)
		snprintf(text, sizeof(text), "%s", name);
	else
		snprintf(text, sizeof(text), long_one ? "[%.*s]:%s" : "%.*s:%s", host, name, hyphen + 1);
	(void)net_address_parse(text, &facts->peer); /* what is none is "unknown" */
}

#define PLAIN "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_"

bool
spool_facts_is_name(const char *name)
{
	const char *at = name + ID_TEXT_LEN;
	struct id id;
	size_t len;

	if (id_parse(name, &id) == -1 || *at++ != '.')
		return false;
	len = strspn(at, PLAIN);
	if (len == 0 || len > SPOOL_FACTS_LISTENER || at[len] != '.')
		return false;
	at += len + 1;
	return *at != '\0' && at[strspn(at, PLAIN ".:%")] == '\0';
}

int
spool_facts_of_name(struct spool_facts *facts, const char *name)
{
	const char *listener = name + ID_TEXT_LEN + 1, *dot;

	if (id_parse(name, &facts->id) == -1 || name[ID_TEXT_LEN] != '.')
		return -1;
	dot = strchr(listener, '.');
	if (dot == NULL || dot == listener || dot[1] == '\0' ||
	    (size_t)(dot - listener) > SPOOL_FACTS_LISTENER)
		return -1;
	memcpy(facts->listener, listener, (size_t)(dot - listener));
	facts->listener[dot - listener] = '\0';
	take_peer(facts, dot + 1);
	facts->time = (facts->id.high >> 16) * 1000;
	facts->ended = ENDED_FIN;
	facts->has_local = false;
	facts->subject[0] = '\0';
	return 0;
}

static void
take_ended(struct spool_facts *facts, const char *value)
{
	int ended;

	for (ended = 0; ended < ENDED_COUNT; ended++)
		if (strcmp(value, ended_name((enum ended)ended)) == 0)
			facts->ended = (enum ended)ended;
}

/* It goes into headers as it is. */
static bool
is_listener(const char *value)
{
	size_t len = 0;

	while (value[len] > ' ' && value[len] <= '~')
		len++;
	return len > 0 && len <= SPOOL_FACTS_LISTENER && value[len] == '\0';
}

/* Decimal digits and nothing else; what does not fit is no time. */
static bool
parse_time(const char *value, uint64_t *time)
{
	size_t len = strspn(value, "0123456789");

	if (len == 0 || len > 19 || value[len] != '\0')
		return false;
	*time = strtoull(value, NULL, 10);
	return true;
}

/* What has no room is left out: half a name is another name. */
static void
take_text(char *to, size_t size, const char *value)
{
	if (strlen(value) < size)
		strcpy(to, value);
}

static void
take_fact(struct spool_facts *facts, const char *name, const char *value)
{
	uint64_t time;

	if (strcmp(name, "time") == 0) {
		if (parse_time(value, &time))
			facts->time = time;
	} else if (strcmp(name, "local") == 0) {
		facts->has_local = net_address_parse(value, &facts->local) == 0;
	} else if (strcmp(name, "ended") == 0) {
		take_ended(facts, value);
	} else if (strcmp(name, "listener") == 0) {
		if (is_listener(value))
			strcpy(facts->listener, value);
	} else if (strcmp(name, "subject") == 0) {
		take_text(facts->subject, sizeof(facts->subject), value);
	}
}

void
spool_facts_take(struct spool_facts *facts, char *text)
{
	char *name, *value, *next;

	for (name = text; *name != '\0'; name = next) {
		value = strchr(name, '=');
		if (value == NULL)
			return;
		*value++ = '\0';
		/* The subject goes on to the end, spaces and all. */
		next = strcmp(name, "subject") == 0 ? strchr(value, '\0') : value + strcspn(value, " ");
		if (*next != '\0')
			*next++ = '\0';
		take_fact(facts, name, value);
	}
}

void
spool_facts_read(struct spool_facts *facts, int fd)
{
	char text[SPOOL_FACTS_TEXT];
	ssize_t n = fgetxattr(fd, ATTRIBUTE, text, sizeof(text) - 1);

	if (n <= 0)
		return;
	text[n] = '\0';
	spool_facts_take(facts, text);
}

const char *
spool_facts_subject(const struct origin *origin)
{
	if (origin->tls_subject == NULL || strlen(origin->tls_subject) > SPOOL_FACTS_SUBJECT)
		return NULL;
	return origin->tls_subject;
}

size_t
spool_facts_text(char text[SPOOL_FACTS_TEXT], const struct batch *batch,
		 const struct message *message, const char *name)
{
	const struct origin *origin = batch->origin;
	const char *subject = spool_facts_subject(origin), *in_name = name + ID_TEXT_LEN + 1;
	char local[NET_TEXT_LEN];
	size_t len = strlen(origin->listener);
	int n;

	n = snprintf(text, SPOOL_FACTS_TEXT, "time=%llu", (unsigned long long)batch->time);
	if (origin->local != NULL) {
		net_address_text(origin->local, local);
		n += snprintf(text + n, SPOOL_FACTS_TEXT - (size_t)n, " local=%s", local);
	}
	n += snprintf(text + n, SPOOL_FACTS_TEXT - (size_t)n, " ended=%s",
		      ended_name(message->ended));
	if (len <= SPOOL_FACTS_LISTENER && (strcspn(in_name, ".") != len ||
					    strncmp(in_name, origin->listener, len) != 0))
		n += snprintf(text + n, SPOOL_FACTS_TEXT - (size_t)n, " listener=%s",
			      origin->listener);
	if (subject != NULL)
		n += snprintf(text + n, SPOOL_FACTS_TEXT - (size_t)n, " subject=%s", subject);
	return (size_t)n;
}

int
spool_facts_write(int fd, const struct batch *batch, const struct message *message, const char *name)
{
	char text[SPOOL_FACTS_TEXT];
	size_t len = spool_facts_text(text, batch, message, name);

	return fsetxattr(fd, ATTRIBUTE, text, len, 0) == 0 || errno == EOPNOTSUPP ? 0 : -1;
}
