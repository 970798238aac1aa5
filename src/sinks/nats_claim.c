/*
 * nats_claim: see nats_claim.h.
 *
 * The file is in the spool before the reference is published, so a reference never
 * stands for bytes that could go.  A crash between the two leaves a file that nothing
 * refers to.
 */
#include "sinks/nats_claim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/fault.h"
#include "base/json.h"
#include "base/memory.h"
#include "config/config.h"

int
nats_claim_open(struct nats_claim *claim, const struct config_sink *spool)
{
	int error;

	claim->spool = spool;
	if (spool_group_open(&claim->group, spool) == -1) {
		error = errno;
		spool_group_close(&claim->group);
		errno = error;
		return -1;
	}
	claim->group.unnamed = spool_group_probe(&claim->group);
	return 0;
}

void
nats_claim_close(struct nats_claim *claim)
{
	spool_group_close(&claim->group);
}

void
nats_claim_path(const struct nats_claim *claim, const struct batch *batch,
		const struct message *message, char path[NATS_CLAIM_PATH])
{
	char name[SPOOL_NAME_LEN + 1];

	spool_name(batch, message, name);
	snprintf(path, NATS_CLAIM_PATH, "%s/new/%s", claim->spool->directory, name);
}

/* The spool's own promise, min_free, holds for its guests. */
static int
check_space(const struct nats_claim *claim, uint64_t size)
{
	struct statvfs st;

	if (claim->spool->min_free == 0)
		return 0;
	if (fault_fstatvfs(claim->group.new, &st) == -1)
		return -1;
	if ((uint64_t)st.f_bavail * st.f_frsize >= claim->spool->min_free + size)
		return 0;
	errno = ENOSPC;
	return -1;
}

/* What has the message's name: the message, as far as can be seen, or something else. */
enum holder { HOLDER_NONE, HOLDER_OTHER, HOLDER_WHOLE };

static enum holder
look_up(const struct nats_claim *claim, const struct batch *batch, const struct message *message)
{
	char name[SPOOL_NAME_LEN + 1];
	struct stat st;

	spool_name(batch, message, name);
	if (fstatat(claim->group.new, name, &st, AT_SYMLINK_NOFOLLOW) == -1)
		return HOLDER_NONE;
	return S_ISREG(st.st_mode) && (uint64_t)st.st_size == message->size ? HOLDER_WHOLE : HOLDER_OTHER;
}

int
nats_claim_store(struct nats_claim *claim, const struct batch *batch, struct message *message)
{
	struct spool_group *group = &claim->group;
	enum holder holder;
	int error;

	spool_group_follow(group);
	holder = look_up(claim, batch, message);
	/* An earlier try has stored it, and the end of that may have come before its sync. */
	if (holder == HOLDER_WHOLE)
		return claim->spool->sync && fault_fsync(group->new) == -1 ? -1 : 1;
	/* Or it has left the name without the bytes: a loss of power does so, without sync. */
	if (holder == HOLDER_OTHER && nats_claim_withdraw(claim, batch, message) == -1)
		return -1;
	if (check_space(claim, message->size) == -1)
		return -1;
	spool_group_add(group, batch, message, 0); /* the group was empty */
	spool_group_commit(group);
	error = group->files[0].error;
	spool_group_clear(group);
	errno = error;
	return error != 0 ? -1 : holder == HOLDER_OTHER;
}

int
nats_claim_withdraw(struct nats_claim *claim, const struct batch *batch,
		    const struct message *message)
{
	char name[SPOOL_NAME_LEN + 1];

	spool_name(batch, message, name);
	/* A consumer may have taken it. */
	return fault_unlinkat(claim->group.new, name, 0) == -1 && errno != ENOENT ? -1 : 0;
}

char *
nats_claim_text(const struct nats_claim *claim, const struct facts *facts,
		const struct batch *batch, const struct message *message)
{
	char path[NATS_CLAIM_PATH];
	size_t room = 256, n = 0;
	char *text;

	nats_claim_path(claim, batch, message, path);
	for (unsigned fact = 0; fact < FACT_COUNT; fact++)
		if (facts->value[fact] != NULL)
			room += 32 + JSON_ESCAPED_MAX(4 * strlen(facts->value[fact]) + 16);
	text = memory_alloc(room + JSON_ESCAPED_MAX(4 * strlen(path) + 16));
	if (text == NULL)
		return NULL;
	text[n++] = '{';
	for (unsigned fact = 0; fact < FACT_COUNT; fact++) {
		if (facts->value[fact] == NULL)
			continue;
		n += (size_t)sprintf(text + n, "\"%s\":", fact_name(fact));
		if (fact == FACT_SIZE) {
			n += (size_t)sprintf(text + n, "%s,", facts->value[fact]);
			continue;
		}
		text[n++] = '"';
		n += json_text(text + n, facts->value[fact]);
		text[n++] = '"';
		text[n++] = ',';
	}
	n += (size_t)sprintf(text + n, "\"claim\":\"");
	n += json_text(text + n, path);
	strcpy(text + n, "\"}");
	return text;
}
