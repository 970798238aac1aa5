/*
 * queue: a list under a mutex.  It is locked once a batch on the way in and
 * once a group on the way out; the writer is signalled only when it sleeps.
 */
#include <errno.h>

#include "message/message.h"
#include "sinks/queue.h"

int
queue_init(struct queue *queue)
{
	*queue = (struct queue){0};
	queue->last = &queue->first;
	if ((errno = pthread_mutex_init(&queue->lock, NULL)) != 0)
		return -1;
	if ((errno = pthread_cond_init(&queue->wake, NULL)) != 0) {
		pthread_mutex_destroy(&queue->lock);
		return -1;
	}
	return 0;
}

void
queue_clear(struct queue *queue)
{
	pthread_cond_destroy(&queue->wake);
	pthread_mutex_destroy(&queue->lock);
}

void
queue_put(struct queue *queue, struct delivery *delivery)
{
	bool wake;

	delivery->next = NULL;
	pthread_mutex_lock(&queue->lock);
	*queue->last = delivery;
	queue->last = &delivery->next;
	wake = queue->sleepers > 0;
	pthread_mutex_unlock(&queue->lock);
	if (wake)
		pthread_cond_signal(&queue->wake);
}

struct delivery *
queue_take(struct queue *queue, unsigned most, bool *reopen, bool *closed)
{
	struct delivery *first, *last;

	pthread_mutex_lock(&queue->lock);
	while (queue->first == NULL && !queue->closed && !queue->reopen) {
		queue->sleepers++;
		pthread_cond_wait(&queue->wake, &queue->lock);
		queue->sleepers--;
	}
	first = last = queue->first;
	if (first != NULL) {
		while (last->next != NULL && (most == 0 || --most > 0))
			last = last->next;
		queue->first = last->next;
		last->next = NULL;
		if (queue->first == NULL)
			queue->last = &queue->first;
	}
	*reopen = queue->reopen;
	queue->reopen = false;
	*closed = queue->closed && first == NULL;
	pthread_mutex_unlock(&queue->lock);
	return first;
}

static void
queue_tell(struct queue *queue, bool *what)
{
	pthread_mutex_lock(&queue->lock);
	*what = true;
	pthread_mutex_unlock(&queue->lock);
	pthread_cond_broadcast(&queue->wake);
}

void
queue_reopen(struct queue *queue)
{
	queue_tell(queue, &queue->reopen);
}

void
queue_close(struct queue *queue)
{
	queue_tell(queue, &queue->closed);
}
