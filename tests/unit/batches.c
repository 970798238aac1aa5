/*
 * batches: see batches.h.  What goes wrong here fails the test.
 */
#include "batches.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/memory.h"
#include "message/body.h"

static char directory[PATH_MAX];

const char *
batches_directory(void)
{
	const char *tmp = getenv("TMPDIR");

	if (directory[0] == '\0') {
		snprintf(directory, sizeof(directory), "%s/cistern-unit.XXXXXX",
			 tmp != NULL ? tmp : "/tmp");
		if (mkdtemp(directory) == NULL)
			abort();
	}
	return directory;
}

const char *
batches_path(const char *name)
{
	static char paths[4][PATH_MAX];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, PATH_MAX, "%s/%.200s", batches_directory(), name);
	return path;
}

static int
remove_entry(const char *path, const struct stat *st, int kind, struct FTW *place)
{
	(void)st;
	(void)kind;
	(void)place;
	return remove(path);
}

void
batches_clean(void)
{
	if (directory[0] != '\0')
		nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	directory[0] = '\0';
}

static void
came_home(struct inbox_item *item)
{
	struct batch *batch = (struct batch *)item; /* its first member */
	struct batches *batches = batch->home == NULL ? NULL
	    : (struct batches *)((char *)batch->home - offsetof(struct batches, inbox));

	ck_assert_ptr_nonnull(batches);
	ck_assert(!batch->answered);
	batch->answered = true;
	batches->waiting--;
}

int
batches_open_code(struct batches *batches, const struct config_sink *settings)
{
	int code;

	memset(batches, 0, sizeof(*batches));
	batches->settings = *settings;
	batches->config = calloc(1, sizeof(*batches->config));
	ck_assert_ptr_nonnull(batches->config);
	atomic_init(&batches->config->references, 1000); /* ours to free */
	batches->config->spill_directory = (char *)(uintptr_t)batches_directory();
	code = sink_open(&batches->sink, batches->config, &batches->settings);
	if (code != 0)
		free(batches->config);
	return code;
}

void
batches_open(struct batches *batches, const struct config_sink *settings)
{
	static bool prepared;

	if (!prepared)
		memory_init(0);
	prepared = true;
	ck_assert_int_eq(batches_open_code(batches, settings), 0);
	batches->base = event_base_new();
	ck_assert_ptr_nonnull(batches->base);
	ck_assert_int_eq(inbox_open(&batches->inbox, batches->base), 0);
	ck_assert_int_eq(id_generator_init(&batches->ids), 0);
	batches->origin.connection = 1;
	batches->origin.listener = "main";
	batches->origin.peer.in.sin_family = AF_INET;
	batches->origin.peer.in.sin_port = htons(5140);
	batches->origin.peer.in.sin_addr.s_addr = htonl(0xc0000201);
	batches->origin.local = &batches->origin.peer;
	ck_assert_int_eq(sink_start(batches->sink), 0);
}

void
batches_close(struct batches *batches)
{
	sink_close(batches->sink);
	inbox_run(&batches->inbox);
	ck_assert_uint_eq(batches->waiting, 0);
	inbox_close(&batches->inbox);
	event_base_free(batches->base);
	free(batches->config);
}

static struct batch *
make(struct batches *batches, struct message *messages, unsigned count, const unsigned char *from,
     const unsigned char *to)
{
	struct batch *batch;
	unsigned i;
	uint64_t now = clock_wall();

	for (i = 0; i < count; i++) {
		messages[i].id = id_next(&batches->ids, now);
		messages[i].ended = ENDED_FRAME;
	}
	batch = batch_new(messages, count, 1, NULL, from, to);
	ck_assert_ptr_nonnull(batch);
	batch->item.run = came_home;
	batch->home = &batches->inbox;
	batch->origin = &batches->origin;
	batch->time = now;
	batch->deliveries[0].sink = batches->sink;
	return batch;
}

struct batch *
batches_make(struct batches *batches, unsigned count, const char *text)
{
	struct message *messages = calloc(count, sizeof(*messages));
	size_t room = strlen(text) + 16, used = 0;
	char *bytes = malloc(room * count);
	const char *number = strstr(text, "%u");
	struct batch *batch;
	unsigned i;

	ck_assert(messages != NULL && bytes != NULL);
	for (i = 0; i < count; i++) {
		int n = number == NULL ? sprintf(bytes + used, "%s", text)
				       : sprintf(bytes + used, "%.*s%u%s", (int)(number - text), text,
						 i, number + 2);

		messages[i].data = (unsigned char *)bytes + used;
		messages[i].size = (uint64_t)n;
		used += (size_t)n;
	}
	batch = make(batches, messages, count, (unsigned char *)bytes, (unsigned char *)bytes + used);
	free(messages);
	free(bytes);
	return batch;
}

struct batch *
batches_make_bytes(struct batches *batches, const void *bytes, size_t len)
{
	struct message message = {.data = bytes, .size = len};

	return make(batches, &message, 1, bytes, (const unsigned char *)bytes + len);
}

struct batch *
batches_make_body(struct batches *batches, const void *bytes, size_t len, const char *spill)
{
	struct message message = {.size = len};
	const unsigned char *at = bytes;
	size_t left, n;

	message.body = body_new();
	ck_assert_ptr_nonnull(message.body);
	for (left = len; left > 0; left -= n, at += n) {
		n = left < 5000 ? left : 5000;
		ck_assert_int_eq(body_append(message.body, at, n, NULL), 0);
		if (spill != NULL && left < len / 2)
			ck_assert_int_eq(body_spill(message.body, spill, 0600), 0);
	}
	if (spill != NULL)
		ck_assert_int_eq(body_spill(message.body, spill, 0600), 0);
	return make(batches, &message, 1, bytes, bytes);
}

void
batches_deliver(struct batches *batches, struct batch *batch)
{
	batches->waiting++;
	sink_deliver(batches->sink, &batch->deliveries[0]);
}

static void
turn(struct batches *batches, bool (*done)(struct batches *batches))
{
	struct timeval moment = {.tv_usec = 20000};
	uint64_t until = clock_now() + 30000000;

	while (!done(batches)) {
		ck_assert_msg(clock_now() < until, "nothing came within 30 seconds");
		event_base_loopexit(batches->base, &moment);
		event_base_loop(batches->base, EVLOOP_ONCE);
	}
}

static bool
all_home(struct batches *batches)
{
	return batches->waiting == 0;
}

void
batches_wait(struct batches *batches)
{
	turn(batches, all_home);
}

enum outcome
batches_outcome(const struct batch *batch, unsigned message)
{
	return (enum outcome)atomic_load(&batch->messages[message].outcome);
}

enum outcome
batches_send(struct batches *batches, struct batch *batch)
{
	enum outcome outcome;

	batches_deliver(batches, batch);
	batches_wait(batches);
	outcome = batches_outcome(batch, 0);
	batch_free(batch);
	return outcome;
}

static bool
is_ready(struct batches *batches)
{
	return sink_is_ready(batches->sink);
}

static bool
is_not_ready(struct batches *batches)
{
	return !sink_is_ready(batches->sink);
}

void
batches_wait_ready(struct batches *batches, bool ready)
{
	turn(batches, ready ? is_ready : is_not_ready);
}

char *
batches_read(const char *path, size_t *len)
{
	FILE *file = fopen(path, "rb");
	char *bytes;
	long size;

	ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
	ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
	size = ftell(file);
	rewind(file);
	bytes = malloc((size_t)size + 1);
	ck_assert_ptr_nonnull(bytes);
	*len = fread(bytes, 1, (size_t)size, file);
	ck_assert_uint_eq(*len, (size_t)size);
	bytes[*len] = '\0';
	fclose(file);
	return bytes;
}

void
batches_write(const char *path, const void *bytes, size_t len)
{
	FILE *file = fopen(path, "wb");

	ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
	ck_assert_uint_eq(fwrite(bytes, 1, len, file), len);
	ck_assert_int_eq(fclose(file), 0);
}

unsigned
batches_count(const char *path, char last[256])
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	unsigned count = 0;

	ck_assert_msg(dir != NULL, "%s: %s", path, strerror(errno));
	while ((entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		count++;
		if (last != NULL)
			strcpy(last, entry->d_name);
	}
	closedir(dir);
	return count;
}
