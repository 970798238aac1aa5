/*
 * queue: a list under a mutex.  It is locked once a batch on the way in and
 * once a group on the way out; the writer is signalled only when it sleeps.
 */
#include <errno.h>
#include <time.h>

#include "message/message.h"
#include "sinks/queue.h"

int
queue_init(struct queue *queue)
{
	pthread_condattr_t attributes;
	int error;

	*queue = (struct queue){0};
	queue->last = &queue->first;
	if ((errno = pthread_mutex_init(&queue->lock, NULL)) != 0)
		return -1;
	error = pthread_condattr_init(&attributes);
	if (error == 0) {
		pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* is a clock */
		error = pthread_cond_init(&queue->wake, &attributes);
		pthread_condattr_destroy(&attributes);
	}
	if (error != 0) {
		pthread_mutex_destroy(&queue->lock);
		errno = error;
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
queue_put(struct queue *queue, struct delivery *first)
{
	struct delivery *last = first;
	bool wake;

	while (last->next != NULL)
		last = last->next;
	pthread_mutex_lock(&queue->lock);
	*queue->last = first;
	queue->last = &last->next;
	wake = queue->sleepers > 0;
	pthread_mutex_unlock(&queue->lock);
	if (wake)
		pthread_cond_signal(&queue->wake);
}

/* False: the time is up. */
static bool
queue_wait(struct queue *queue)
{
	struct timespec until;
	int error;

	if (queue->patience == 0)
		return pthread_cond_wait(&queue->wake, &queue->lock) == 0;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += queue->patience / 1000;
	until.tv_nsec += (long)(queue->patience % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	error = pthread_cond_timedwait(&queue->wake, &queue->lock, &until);
	return error != ETIMEDOUT;
}

struct delivery *
queue_take(struct queue *queue, unsigned most, bool *reopen, bool *closed)
{
	uint64_t turn;

	return queue_take_turn(queue, most, reopen, closed, &turn);
}

struct delivery *
queue_take_turn(struct queue *queue, unsigned most, bool *reopen, bool *closed, uint64_t *turn)
{
	struct delivery *first, *last;
	bool patient = true;
	unsigned taken;

	pthread_mutex_lock(&queue->lock);
	while (patient && queue->first == NULL && !queue->closed && !queue->reopen) {
		queue->sleepers++;
		patient = queue_wait(queue);
		queue->sleepers--;
	}
	first = last = queue->first;
	if (first != NULL) {
		taken = first->batch->count;
		while (last->next != NULL && (most == 0 || taken < most)) {
			taken += last->next->batch->count;
			if (most != 0 && taken > most)
				break;
			last = last->next;
		}
		queue->first = last->next;
		last->next = NULL;
		if (queue->first == NULL)
			queue->last = &queue->first;
		*turn = ++queue->turns;
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
queue_patience(struct queue *queue, unsigned patience)
{
	pthread_mutex_lock(&queue->lock);
	queue->patience = patience;
	pthread_mutex_unlock(&queue->lock);
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
