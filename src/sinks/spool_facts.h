/*
 * spool_facts: what a spool keeps of a message besides its bytes.
 *
 * Id, listener and peer are the file's name.  What the name does not say (the time to
 * the microsecond, where the message came to, how it ended, who sent it) is kept in an
 * extended attribute, so that a message handed on after a restart is described as one
 * handed on at once.  Where the filesystem has no such attributes, or the file was put
 * there by somebody else, the name has to do.
 */
#ifndef SINKS_SPOOL_FACTS_H
#define SINKS_SPOOL_FACTS_H

#include <stdbool.h>

#include "message/message.h"

#define SPOOL_FACTS_LISTENER 256
#define SPOOL_FACTS_SUBJECT 3000 /* a longer one is not kept: half a name is another name */
#define SPOOL_FACTS_TEXT (SPOOL_FACTS_SUBJECT + 513) /* the attribute, with a NUL */

struct spool_facts {
	struct id id;
	uint64_t time; /* microseconds since 1970 */
	enum ended ended;
	struct net_address peer;
	struct net_address local;
	bool has_local;
	char listener[SPOOL_FACTS_LISTENER + 1];
	char subject[SPOOL_FACTS_SUBJECT + 1]; /* "": none */
};

/* Whether a spool could have given that name: an editor's copy, say, is another message's
 * bytes under its id. */
bool spool_facts_is_name(const char *name);

/* Takes the parts out of a file's name; the rest is as for a message of which no more is
 * known.  -1: it is no such name. */
int spool_facts_of_name(struct spool_facts *facts, const char *name);

/* Adds what the file's attribute says. */
void spool_facts_read(struct spool_facts *facts, int fd);

/* Sets the attribute; before the file is synced.  0 (also where there are none), or -1
 * with errno. */
int spool_facts_write(int fd, const struct batch *batch, const struct message *message,
		      const char *name);

/* The same without a file: the attribute's text, its length; and what such a text says, which
 * may be anything (it is changed).  Pure. */
size_t spool_facts_text(char text[SPOOL_FACTS_TEXT], const struct batch *batch,
			const struct message *message, const char *name);
void spool_facts_take(struct spool_facts *facts, char *text);

/* The certificate's subject as far as it is kept; NULL: none. */
const char *spool_facts_subject(const struct origin *origin);

#endif
