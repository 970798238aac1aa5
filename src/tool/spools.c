/*
 * spools: see spools.h.
 */
#include "tool/spools.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "tool/tool.h"

#define DIRECTORY_MODE 0750

static const char *const state_names[SPOOLS_STATES] = {"new", "hold", "failed", "done"};

const char *
spools_state_name(enum spools_state state)
{
	return state_names[state];
}

int
spools_state_from_name(const char *name)
{
	for (int i = 0; i < SPOOLS_STATES; i++)
		if (strcmp(name, state_names[i]) == 0)
			return i;
	return -1;
}

int
spools_complain(const char *path, const char *what, int error)
{
	if (error == EACCES || error == EPERM) {
		tool_complain("%s: %s: %s; do it as root, or as the user that cisternd runs as", path,
			      what, strerror(error));
		return EX_NOPERM;
	}
	tool_complain("%s: %s: %s", path, what, strerror(error));
	return error == ENOENT || error == ENOTDIR || error == ELOOP ? EX_NOINPUT : EX_IOERR;
}

/* "192.0.2.1-5140" as people write it. */
static char *
peer_text(const char *name)
{
	const char *hyphen = strrchr(name, '-');
	size_t len = hyphen != NULL ? (size_t)(hyphen - name) : 0;
	char *text;
	int n;

	if (hyphen == NULL)
		return tool_copy(name);
	n = asprintf(&text, memchr(name, ':', len) != NULL ? "[%.*s]:%s" : "%.*s:%s", (int)len, name,
		     hyphen + 1);
	return n == -1 ? tool_copy(name) : text;
}

bool
spools_parse(const char *name, char id[ID_TEXT_LEN + 1], uint64_t *time, char **listener,
	     char **peer)
{
	const char *dot;
	struct id parsed;

	if (id_parse(name, &parsed) == -1 || name[ID_TEXT_LEN] != '.')
		return false;
	dot = strchr(name + ID_TEXT_LEN + 1, '.');
	if (dot == NULL || dot == name + ID_TEXT_LEN + 1 || dot[1] == '\0')
		return false;
	memcpy(id, name, ID_TEXT_LEN);
	id[ID_TEXT_LEN] = '\0';
	*time = (parsed.high >> 16) * 1000;
	*listener = tool_copy(name + ID_TEXT_LEN + 1);
	(*listener)[dot - name - ID_TEXT_LEN - 1] = '\0';
	*peer = peer_text(dot + 1);
	return true;
}

static int
open_state(const struct spools_directory *directory, enum spools_state state)
{
	return openat(directory->fd, state_names[state],
		      O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int
spools_open(struct spools *spools, const char *path)
{
	struct spools_directory *directory;
	int code;

	spools->directories = tool_grow(spools->directories, spools->n_directories + 1,
					sizeof *spools->directories);
	directory = &spools->directories[spools->n_directories++];
	*directory = (struct spools_directory){.path = tool_copy(path)};
	for (int i = 0; i < SPOOLS_STATES; i++)
		directory->states[i] = -1;
	directory->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory->fd == -1)
		return spools_complain(path, "opening the spool", errno);
	for (int i = 0; i < SPOOLS_STATES; i++) {
		directory->states[i] = open_state(directory, (enum spools_state)i);
		if (directory->states[i] != -1 || (errno == ENOENT && i != SPOOLS_NEW))
			continue;
		if (errno == ENOENT) {
			tool_complain("%s: there is no directory \"new\" in it: is it a spool of "
				      "cisternd?", path);
			return EX_NOINPUT;
		}
		code = errno;
		directory = &spools->directories[spools->n_directories - 1];
		return spools_complain(path, state_names[i], code);
	}
	return 0;
}

void
spools_close(struct spools *spools)
{
	for (size_t i = 0; i < spools->n_directories; i++) {
		struct spools_directory *directory = &spools->directories[i];

		for (int state = 0; state < SPOOLS_STATES; state++)
			if (directory->states[state] != -1)
				close(directory->states[state]);
		if (directory->fd != -1)
			close(directory->fd);
		free(directory->path);
	}
	for (size_t i = 0; i < spools->n_messages; i++) {
		free(spools->messages[i].name);
		free(spools->messages[i].listener);
		free(spools->messages[i].peer);
	}
	free(spools->directories);
	free(spools->messages);
}

static void
add_message(struct spools *spools, size_t *room, size_t directory, enum spools_state state,
	    const char *name, const struct stat *st)
{
	struct spools_message *message;

	if (spools->n_messages == *room) {
		*room = *room == 0 ? 64 : *room * 2;
		spools->messages = tool_grow(spools->messages, *room, sizeof *spools->messages);
	}
	message = &spools->messages[spools->n_messages++];
	*message = (struct spools_message){
		.directory = directory,
		.state = state,
		.name = tool_copy(name),
		.size = (uint64_t)st->st_size,
		.mode = st->st_mode,
		.owner = st->st_uid,
	};
	if (spools_parse(name, message->id, &message->time, &message->listener, &message->peer))
		return;
	message->time = st->st_mtim.tv_sec < 0 ? 0 : (uint64_t)st->st_mtim.tv_sec * 1000000;
	message->listener = tool_copy("");
	message->peer = tool_copy("");
}

static int
read_state(struct spools *spools, size_t *room, size_t number, enum spools_state state)
{
	struct spools_directory *directory = &spools->directories[number];
	struct dirent *entry;
	struct stat st;
	DIR *dir;
	int fd, error;

	if (directory->states[state] == -1)
		return 0;
	/* A description of its own: reading moves its offset. */
	fd = openat(directory->states[state], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd == -1 ? NULL : fdopendir(fd);
	if (dir == NULL) {
		error = errno;
		if (fd != -1)
			close(fd);
		return spools_complain(directory->path, state_names[state], error);
	}
	for (;;) {
		errno = 0;
		entry = readdir(dir);
		if (entry == NULL)
			break;
		/* Names of the daemon's begin with an id; what begins with a dot is somebody's
		 * file in the making. */
		if (entry->d_name[0] == '.')
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == -1) {
			if (errno == ENOENT)
				continue; /* gone meanwhile */
			break;
		}
		if (S_ISREG(st.st_mode))
			add_message(spools, room, number, state, entry->d_name, &st);
		else
			tool_complain("%s/%s/%s: passed over, as it is no regular file",
				      directory->path, state_names[state], entry->d_name);
	}
	error = errno;
	closedir(dir);
	return error == 0 ? 0 : spools_complain(directory->path, state_names[state], error);
}

static int
compare(const void *a, const void *b)
{
	const struct spools_message *left = a, *right = b;

	if (left->directory != right->directory)
		return left->directory < right->directory ? -1 : 1;
	if (left->time != right->time)
		return left->time < right->time ? -1 : 1;
	return strcmp(left->name, right->name);
}

int
spools_read(struct spools *spools, unsigned states)
{
	size_t room = 0;

	for (size_t i = 0; i < spools->n_directories; i++)
		for (int state = 0; state < SPOOLS_STATES; state++)
			if ((states & SPOOLS_BIT(state)) != 0) {
				int code = read_state(spools, &room, i, (enum spools_state)state);

				if (code != 0)
					return code;
			}
	if (spools->n_messages > 0)
		qsort(spools->messages, spools->n_messages, sizeof *spools->messages, compare);
	return 0;
}

/* A directory for a state, made where there is none, as new/ is. */
static int
need_state(struct spools_directory *directory, enum spools_state state)
{
	struct stat st;
	int fd;

	if (directory->states[state] != -1)
		return 0;
	if (fstat(directory->states[SPOOLS_NEW], &st) == -1)
		return -1;
	if (mkdirat(directory->fd, state_names[state], DIRECTORY_MODE) == -1 && errno != EEXIST)
		return -1;
	fd = open_state(directory, state);
	if (fd == -1)
		return -1;
	/* Made by root, it is the daemon's all the same. */
	if (geteuid() == 0 && st.st_uid != 0 && fchown(fd, st.st_uid, st.st_gid) == -1) {
		close(fd);
		return -1;
	}
	if (fchmod(fd, st.st_mode & 07777) == -1 || fsync(directory->fd) == -1) {
		close(fd);
		return -1;
	}
	directory->states[state] = fd;
	return 0;
}

static enum spools_result
failed(struct spools *spools, const struct spools_message *message, const char *what, int error,
       int *code)
{
	char *path;

	if (error == ENOENT)
		return SPOOLS_GONE;
	if (asprintf(&path, "%s/%s/%s", spools->directories[message->directory].path,
		     state_names[message->state], message->name) == -1)
		path = NULL;
	*code = spools_complain(path != NULL ? path : message->name, what, error);
	free(path);
	return SPOOLS_FAILED_TO;
}

/* Never over another file. */
static int
rename_new(int from, int to, const char *name)
{
	if (renameat2(from, name, to, name, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	if (linkat(from, name, to, name, 0) == -1)
		return -1;
	return unlinkat(from, name, 0);
}

enum spools_result
spools_move(struct spools *spools, struct spools_message *message, enum spools_state to, int *code)
{
	struct spools_directory *directory = &spools->directories[message->directory];

	if (need_state(directory, to) == -1) {
		*code = spools_complain(directory->path, state_names[to], errno);
		return SPOOLS_FAILED_TO;
	}
	if (rename_new(directory->states[message->state], directory->states[to], message->name) == -1)
		return failed(spools, message, "moving it", errno, code);
	directory->changed[message->state] = directory->changed[to] = true;
	message->state = to;
	return SPOOLS_DID;
}

enum spools_result
spools_remove(struct spools *spools, struct spools_message *message, int *code)
{
	struct spools_directory *directory = &spools->directories[message->directory];

	if (unlinkat(directory->states[message->state], message->name, 0) == -1)
		return failed(spools, message, "deleting it", errno, code);
	directory->changed[message->state] = true;
	return SPOOLS_DID;
}

int
spools_message_open(struct spools *spools, const struct spools_message *message,
		    enum spools_result *result, int *code)
{
	const struct spools_directory *directory = &spools->directories[message->directory];
	struct stat st;
	int fd = openat(directory->states[message->state], message->name,
			O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

	*result = SPOOLS_DID;
	if (fd == -1) {
		*result = failed(spools, message, "opening it", errno, code);
	} else if (fstat(fd, &st) == -1 || !S_ISREG(st.st_mode)) {
		close(fd);
		fd = -1;
		*result = failed(spools, message, "opening it", EINVAL, code);
	}
	return fd;
}

int
spools_sync(struct spools *spools)
{
	/* Where names were added first: in between they are in both, or in the old one. */
	static const enum spools_state order[] = {SPOOLS_HOLD, SPOOLS_FAILED, SPOOLS_DONE,
						  SPOOLS_NEW};
	int code = 0;

	for (size_t i = 0; i < spools->n_directories; i++)
		for (size_t at = 0; at < sizeof order / sizeof order[0]; at++) {
			struct spools_directory *directory = &spools->directories[i];
			enum spools_state state = order[at];

			if (directory->changed[state] && fsync(directory->states[state]) == -1)
				code = spools_complain(directory->path, "fsync", errno);
			directory->changed[state] = false;
		}
	return code;
}
