/*
 * privileges: see privileges.h.
 *
 * Every step is checked, and the outcome once more by what the kernel says: a
 * daemon that believes itself harmless and is not would be the worst outcome.
 */
#include "base/privileges.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_BYTES 1048576 /* a database's entry; a group can have many members */

/* A number as an id; -1, which means "leave as it is" to the kernel, is none. */
static bool
parse_id(const char *text, unsigned *id)
{
	unsigned long value;
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno != 0 || *end != '\0' || value >= UINT_MAX)
		return false;
	*id = (unsigned)value;
	return true;
}

/* Twice the room for an entry; false: no memory, or enough is enough. */
static bool
grow(char **buffer, size_t *size)
{
	char *bigger = *size < MOST_BYTES ? realloc(*buffer, *size * 2) : NULL;

	if (bigger == NULL)
		return false;
	*buffer = bigger;
	*size *= 2;
	return true;
}

/* Why a database has no entry to show; databases disagree on how they say "none". */
static const char *
explain(int error, const char *none)
{
	switch (error) {
	case 0:
	case ENOENT:
	case ESRCH:
	case EBADF:
	case EPERM:
		return none;
	case ENOMEM:
		return "out of memory";
	default:
		return "the users' database cannot be read";
	}
}

static int
take_user(struct privileges *privileges, const struct passwd *entry, const char **why)
{
	if (strlen(entry->pw_name) >= sizeof privileges->user) {
		*why = "the user's name is too long";
		return -1;
	}
	strcpy(privileges->user, entry->pw_name);
	privileges->uid = entry->pw_uid;
	privileges->gid = entry->pw_gid;
	return 0;
}

static int
find_user(const char *user, bool with_group, struct privileges *privileges, const char **why)
{
	struct passwd entry, *found = NULL;
	size_t size = 1024;
	char *buffer = malloc(size);
	unsigned id;
	bool is_id = parse_id(user, &id);
	int error = buffer == NULL ? ENOMEM : ERANGE, result = -1;

	while (error == ERANGE) {
		error = is_id ? getpwuid_r(id, &entry, buffer, size, &found)
			      : getpwnam_r(user, &entry, buffer, size, &found);
		if (error == ERANGE && !grow(&buffer, &size))
			error = ENOMEM;
	}
	if (found != NULL) {
		result = take_user(privileges, &entry, why);
	} else if (is_id && with_group) {
		/* A number needs no name, but then it has no groups of its own. */
		privileges->uid = id;
		result = 0;
	} else if (is_id) {
		*why = "no user has this number, so it has no group: name one with `group`";
	} else {
		*why = explain(error, "there is no such user");
	}
	free(buffer);
	return result;
}

static int
find_group(const char *group, struct privileges *privileges, const char **why)
{
	struct group entry, *found = NULL;
	size_t size = 1024;
	char *buffer;
	unsigned id;
	int error = ERANGE;

	if (parse_id(group, &id)) {
		privileges->gid = id;
		return 0;
	}
	buffer = malloc(size);
	if (buffer == NULL)
		error = ENOMEM;
	while (error == ERANGE) {
		error = getgrnam_r(group, &entry, buffer, size, &found);
		if (error == ERANGE && !grow(&buffer, &size))
			error = ENOMEM;
	}
	if (found != NULL)
		privileges->gid = entry.gr_gid;
	else
		*why = explain(error, "there is no such group");
	free(buffer);
	return found != NULL ? 0 : -1;
}

int
privileges_find(const char *user, const char *group, struct privileges *privileges,
		const char **why)
{
	*privileges = (struct privileges){ .given = false };
	if (user == NULL && group == NULL)
		return 0;
	if (user == NULL) {
		*why = "a group needs a `user` too";
		return -1;
	}
	if (find_user(user, group != NULL, privileges, why) == -1 ||
	    (group != NULL && find_group(group, privileges, why) == -1))
		return -1;
	if (privileges->uid == 0) {
		*why = "this is root: to stay root, leave `user` out";
		return -1;
	}
	privileges->given = true;
	return 0;
}

bool
privileges_are_root(void)
{
	return getuid() == 0 || geteuid() == 0;
}

/* User and group ids of all three kinds. */
bool
privileges_are(const struct privileges *privileges)
{
	uid_t uid[3];
	gid_t gid[3];

	return getresuid(&uid[0], &uid[1], &uid[2]) == 0 &&
	       getresgid(&gid[0], &gid[1], &gid[2]) == 0 && uid[0] == privileges->uid &&
	       uid[1] == privileges->uid && uid[2] == privileges->uid &&
	       gid[0] == privileges->gid && gid[1] == privileges->gid && gid[2] == privileges->gid;
}

/* The kernel takes them away with the last user id of root, unless somebody told
 * it not to before we were started. */
static int
drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = { { 0 } };
	int i;

	if (syscall(SYS_capset, &header, sets) == -1 || syscall(SYS_capget, &header, sets) == -1)
		return -1;
	for (i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		if (sets[i].effective != 0 || sets[i].permitted != 0 || sets[i].inheritable != 0) {
			errno = ENOTRECOVERABLE;
			return -1;
		}
	return 0;
}

/* Tries to be root again, which must fail. */
static bool
has_way_back(const struct privileges *privileges)
{
	return setuid(0) == 0 || seteuid(0) == 0 || setresuid(0, 0, 0) == 0 ||
	       (privileges->gid != 0 && (setgid(0) == 0 || setegid(0) == 0)) ||
	       !privileges_are(privileges);
}

static int
set_groups(const struct privileges *privileges)
{
	return privileges->user[0] != '\0' ? initgroups(privileges->user, privileges->gid)
					   : setgroups(1, &privileges->gid);
}

int
privileges_return(struct privileges_loan *loan)
{
	int result = 0;

	if (seteuid(0) == -1 || setegid(loan->gid) == -1 ||
	    setgroups((size_t)loan->n_groups, loan->groups) == -1)
		result = -1;
	free(loan->groups);
	*loan = (struct privileges_loan){ .taken = false };
	return result;
}

int
privileges_borrow(const struct privileges *privileges, struct privileges_loan *loan)
{
	int count = getgroups(0, NULL), error;

	*loan = (struct privileges_loan){ .taken = true, .gid = getegid() };
	if (count == -1)
		return -1;
	loan->groups = calloc((size_t)count + 1, sizeof(*loan->groups));
	if (loan->groups == NULL)
		return -1;
	loan->n_groups = getgroups(count, loan->groups);
	if (loan->n_groups == -1) {
		free(loan->groups);
		return -1;
	}
	if (set_groups(privileges) == 0 && setegid(privileges->gid) == 0 &&
	    seteuid(privileges->uid) == 0)
		return 0;
	error = errno;
	(void)privileges_return(loan);
	errno = error;
	return -1;
}

static int
become(const struct privileges *privileges)
{
	/* Groups first: they can only be changed as long as we are root. */
	if (set_groups(privileges) == -1)
		return -1;
	if (setresgid(privileges->gid, privileges->gid, privileges->gid) == -1 ||
	    prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) == -1 ||
	    setresuid(privileges->uid, privileges->uid, privileges->uid) == -1 ||
	    drop_capabilities() == -1 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == -1)
		return -1;
	if (has_way_back(privileges)) {
		errno = ENOTRECOVERABLE;
		return -1;
	}
	return 0;
}

int
privileges_drop(const struct privileges *privileges)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return -1;
	if (privileges != NULL && privileges->given) {
		if (privileges_are_root()) {
			if (become(privileges) == -1)
				return -1;
		} else if (!privileges_are(privileges)) {
			errno = EPERM;
			return -1;
		}
	}
	/* EINVAL: a kernel that does not know them, so there are none. */
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) == -1 && errno != EINVAL)
		return -1;
	return 0;
}
