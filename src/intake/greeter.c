/*
 * greeter: see greeter.h.  A list under a mutex, which is held for a few instructions.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/inbox.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "intake/greeter.h"

/* NULL: it is to end, and nothing is left. */
static struct inbox_item *
take(struct greeter *g)
{
	struct inbox_item *item;

	pthread_mutex_lock(&g->lock);
	while (g->first == NULL && !g->ended)
		pthread_cond_wait(&g->wake, &g->lock);
	item = g->first;
	if (item != NULL && (g->first = item->next) == NULL)
		g->last = &g->first;
	pthread_mutex_unlock(&g->lock);
	return item;
}

static void *
greeter_run(void *arg)
{
	struct inbox_item *item;

	if (thread_stand_back() == -1)
		log_event(LOG_LEVEL_DEBUG, "tls-greeter", "TLS handshakes do not stand back behind other work: %s",
			  strerror(errno));

	while ((item = take(arg)) != NULL)
		item->run(item);
	memory_unstock();
	return NULL;
}

int
greeter_start(struct greeter *g, unsigned number)
{
	char text[11];
	int error;

	if (g->started)
		return 0;
	*g = (struct greeter){.last = &g->first};
	pthread_mutex_init(&g->lock, NULL); /* these two cannot fail without attributes */
	pthread_cond_init(&g->wake, NULL);
	snprintf(text, sizeof(text), "%u", number);
	error = thread_start(&g->thread, "greeter", text, greeter_run, g);
	if (error != 0) {
		pthread_cond_destroy(&g->wake);
		pthread_mutex_destroy(&g->lock);
		errno = error;
		return -1;
	}
	g->started = true;
	return 0;
}

void
greeter_post(struct greeter *g, struct inbox_item *item)
{
	bool idle;

	item->next = NULL;
	pthread_mutex_lock(&g->lock);
	idle = g->first == NULL;
	*g->last = item;
	g->last = &item->next;
	pthread_mutex_unlock(&g->lock);
	if (idle)
		pthread_cond_signal(&g->wake);
}

void
greeter_end(struct greeter *g)
{
	if (!g->started)
		return;
	pthread_mutex_lock(&g->lock);
	g->ended = true;
	pthread_mutex_unlock(&g->lock);
	pthread_cond_signal(&g->wake);
	pthread_join(g->thread, NULL);
	pthread_cond_destroy(&g->wake);
	pthread_mutex_destroy(&g->lock);
	g->started = false;
}
