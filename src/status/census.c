/*
 * census: see census.h.  A directory that cannot be read counts as empty: what is wrong
 * with it is the spool's to say.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread.h"
#include "config/config.h"
#include "status/census.h"

#define INTERVAL UINT64_C(10000000)
#define SHARE 20 /* the thread rests so many times as long as it has worked */

struct spool_count {
	char *sink;
	char *directory;
	bool known;
	uint64_t counts[CENSUS_STATES];
};

struct list {
	struct spool_count *items;
	size_t count;
};

struct census {
	pthread_t thread;
	pthread_mutex_t lock; /* of all that follows; held for moments */
	pthread_cond_t wake;
	struct list list;
	unsigned version; /* of the list */
	bool wanted, closed;
	uint64_t due; /* no count before this */
};

static const char *const names[] = {
	[CENSUS_NEW] = "new", [CENSUS_FAILED] = "failed", [CENSUS_HOLD] = "hold",
	[CENSUS_DONE] = "done",
};

const char *
census_state_name(enum census_state state)
{
	return names[state];
}

static void
list_clear(struct list *list)
{
	size_t i;

	for (i = 0; i < list->count; i++) {
		free(list->items[i].sink);
		free(list->items[i].directory);
	}
	free(list->items);
	*list = (struct list){0};
}

static bool
is_closed(struct census *census)
{
	bool closed;

	pthread_mutex_lock(&census->lock);
	closed = census->closed;
	pthread_mutex_unlock(&census->lock);
	return closed;
}

static uint64_t
count_files(struct census *census, const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	uint64_t count = 0;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		count += entry->d_name[0] != '.';
		if (count % 65536 == 0 && is_closed(census))
			break;
	}
	if (dir != NULL)
		closedir(dir);
	return count;
}

/* Without the lock, which is taken for each spool's figures. */
static void
count_all(struct census *census)
{
	uint64_t counts[CENSUS_STATES];
	char directory[PATH_MAX - 16], path[PATH_MAX];
	unsigned version;
	size_t i;
	int s;

	pthread_mutex_lock(&census->lock);
	version = census->version;
	for (i = 0; !census->closed && version == census->version && i < census->list.count; i++) {
		snprintf(directory, sizeof(directory), "%s", census->list.items[i].directory);
		pthread_mutex_unlock(&census->lock);
		for (s = 0; s < CENSUS_STATES; s++) {
			snprintf(path, sizeof(path), "%s/%s", directory, names[s]);
			counts[s] = count_files(census, path);
		}
		pthread_mutex_lock(&census->lock);
		if (census->closed || version != census->version)
			break;
		memcpy(census->list.items[i].counts, counts, sizeof(counts));
		census->list.items[i].known = true;
	}
	pthread_mutex_unlock(&census->lock);
}

static void *
census_run(void *arg)
{
	struct census *census = arg;
	uint64_t begin, took;

	pthread_mutex_lock(&census->lock);
	for (;;) {
		while (!census->wanted && !census->closed)
			pthread_cond_wait(&census->wake, &census->lock);
		if (census->closed)
			break;
		census->wanted = false;
		pthread_mutex_unlock(&census->lock);
		begin = clock_now();
		count_all(census);
		took = clock_now() - begin;
		pthread_mutex_lock(&census->lock);
		census->due = clock_now() + (took * SHARE > INTERVAL ? took * SHARE : INTERVAL);
	}
	pthread_mutex_unlock(&census->lock);
	return NULL;
}

struct census *
census_open(void)
{
	struct census *census = calloc(1, sizeof(*census));
	int error;

	if (census == NULL)
		return NULL;
	pthread_mutex_init(&census->lock, NULL); /* cannot fail with no attributes */
	pthread_cond_init(&census->wake, NULL);
	error = thread_start(&census->thread, "census", NULL, census_run, census);
	if (error == 0)
		return census;
	pthread_cond_destroy(&census->wake);
	pthread_mutex_destroy(&census->lock);
	free(census);
	errno = error;
	return NULL;
}

void
census_close(struct census *census)
{
	if (census == NULL)
		return;
	pthread_mutex_lock(&census->lock);
	census->closed = true;
	pthread_mutex_unlock(&census->lock);
	pthread_cond_signal(&census->wake);
	pthread_join(census->thread, NULL);
	list_clear(&census->list);
	pthread_cond_destroy(&census->wake);
	pthread_mutex_destroy(&census->lock);
	free(census);
}

/* What is known of those that stay is kept. */
int
census_set(struct census *census, const struct config *config)
{
	struct list list = {0}, old;
	size_t i, k;

	list.items = calloc(config->n_sinks + 1, sizeof(*list.items));
	if (list.items == NULL)
		return -1;
	for (i = 0; i < config->n_sinks; i++) {
		struct spool_count *item = &list.items[list.count];

		if (config->sinks[i].type != CONFIG_SINK_SPOOL)
			continue;
		item->sink = strdup(config->sinks[i].name);
		item->directory = strdup(config->sinks[i].directory);
		list.count++;
		if (item->sink == NULL || item->directory == NULL) {
			list_clear(&list);
			return -1;
		}
	}
	pthread_mutex_lock(&census->lock);
	old = census->list;
	for (i = 0; i < list.count; i++)
		for (k = 0; k < old.count; k++)
			if (strcmp(list.items[i].sink, old.items[k].sink) == 0 &&
			    strcmp(list.items[i].directory, old.items[k].directory) == 0) {
				memcpy(list.items[i].counts, old.items[k].counts,
				       sizeof(old.items[k].counts));
				list.items[i].known = old.items[k].known;
			}
	census->list = list;
	census->version++;
	census->due = 0;
	census->wanted = list.count > 0;
	pthread_mutex_unlock(&census->lock);
	pthread_cond_signal(&census->wake);
	list_clear(&old);
	return 0;
}

void
census_tell(struct census *census,
	    void (*each)(const char *sink, const uint64_t counts[CENSUS_STATES], void *arg), void *arg)
{
	size_t i;

	pthread_mutex_lock(&census->lock);
	for (i = 0; i < census->list.count; i++)
		if (census->list.items[i].known)
			each(census->list.items[i].sink, census->list.items[i].counts, arg);
	if (census->list.count > 0 && clock_now() >= census->due && !census->wanted) {
		census->wanted = true;
		pthread_cond_signal(&census->wake);
	}
	pthread_mutex_unlock(&census->lock);
}
