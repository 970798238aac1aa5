/*
 * spools: the directories of cistern-spool(5), as an operator's tool looks at them.
 *
 * Everything goes by descriptors of the directories: no symbolic link is followed
 * below DIRECTORY, and nothing outside is touched.  A running daemon and consumers
 * are not disturbed, and do not disturb: what is gone is gone.
 *
 * Functions that fail have said why and return an exit status.
 */
#ifndef TOOL_SPOOLS_H
#define TOOL_SPOOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "message/id.h"

enum spools_state { SPOOLS_NEW, SPOOLS_HOLD, SPOOLS_FAILED, SPOOLS_DONE, SPOOLS_STATES };

#define SPOOLS_BIT(state) (1U << (state))
#define SPOOLS_ALL (SPOOLS_BIT(SPOOLS_STATES) - 1)

struct spools_directory {
	char *path;
	int fd;
	int states[SPOOLS_STATES]; /* -1: there is none */
	bool changed[SPOOLS_STATES]; /* to be synced */
};

struct spools_message {
	size_t directory;
	enum spools_state state;
	char *name;
	char id[ID_TEXT_LEN + 1]; /* "": the name is none of the daemon's */
	char *listener;		  /* "" then, as is the peer */
	char *peer;		  /* as people write it: "[2001:db8::1]:5140" */
	uint64_t time;		  /* microseconds since 1970: the id's, or the file's */
	uint64_t size;
	mode_t mode;
	uid_t owner;
};

struct spools {
	struct spools_directory *directories;
	size_t n_directories;
	struct spools_message *messages; /* sorted by name, which is by time */
	size_t n_messages;
};

const char *spools_state_name(enum spools_state state);
int spools_state_from_name(const char *name); /* -1 */

/* Takes the parts out of a file's name; false: it has none.  The strings are allocated. */
bool spools_parse(const char *name, char id[ID_TEXT_LEN + 1], uint64_t *time, char **listener,
		  char **peer);

/* Adds a spool's directory.  0 or an exit status. */
int spools_open(struct spools *spools, const char *path);
void spools_close(struct spools *spools);

/* Adds the messages in these states (bits).  0 or an exit status. */
int spools_read(struct spools *spools, unsigned states);

enum spools_result { SPOOLS_DID, SPOOLS_GONE, SPOOLS_FAILED_TO };

/* Moves or removes; durable after spools_sync. */
enum spools_result spools_move(struct spools *spools, struct spools_message *message,
			       enum spools_state to, int *code);
enum spools_result spools_remove(struct spools *spools, struct spools_message *message, int *code);

/* A descriptor to read it by; -1: GONE or FAILED_TO in *result. */
int spools_message_open(struct spools *spools, const struct spools_message *message,
			enum spools_result *result, int *code);

int spools_sync(struct spools *spools);

/* Complains of a call that failed, with what to do; the exit status. */
int spools_complain(const char *path, const char *what, int error);

#endif
