/*
 * message: batches are one allocation: the batch, its deliveries, its
 * messages and, where they are small, their bytes.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/memory.h"
#include "message/body.h"
#include "message/chunk.h"
#include "message/message.h"

static const char *const outcome_names[] = {
	[OUTCOME_ACCEPTED] = "accepted",     [OUTCOME_UNAVAILABLE] = "unavailable",
	[OUTCOME_STORAGE] = "storage",       [OUTCOME_SHUTDOWN] = "shutdown",
	[OUTCOME_TIMEOUT] = "timeout",       [OUTCOME_TOO_LARGE] = "too-large",
	[OUTCOME_MALFORMED] = "malformed",   [OUTCOME_INCOMPLETE] = "incomplete",
	[OUTCOME_REFUSED] = "refused",
};

static const char *const ended_names[] = {
	[ENDED_FIN] = "fin",
	[ENDED_FRAME] = "frame",
	[ENDED_QUIET] = "quiet",
	[ENDED_RESET] = "reset",
	[ENDED_TIMEOUT] = "timeout",
	[ENDED_TOO_LARGE] = "too-large",
	[ENDED_MALFORMED] = "malformed",
	[ENDED_INCOMPLETE] = "incomplete",
	[ENDED_SHUTDOWN] = "shutdown",
	[ENDED_STORAGE] = "storage",
	[ENDED_MEMORY] = "memory",
};

const char *
outcome_name(enum outcome outcome)
{
	return outcome_names[outcome];
}

bool
outcome_is_temporary(enum outcome outcome)
{
	return outcome > OUTCOME_ACCEPTED && outcome < OUTCOME_TOO_LARGE;
}

const char *
ended_name(enum ended ended)
{
	return ended_names[ended];
}

enum outcome
ended_outcome(enum ended ended)
{
	switch (ended) {
	case ENDED_TIMEOUT:
		return OUTCOME_TIMEOUT;
	case ENDED_TOO_LARGE:
		return OUTCOME_TOO_LARGE;
	case ENDED_MALFORMED:
		return OUTCOME_MALFORMED;
	case ENDED_INCOMPLETE:
		return OUTCOME_INCOMPLETE;
	case ENDED_SHUTDOWN:
		return OUTCOME_SHUTDOWN;
	case ENDED_STORAGE:
		return OUTCOME_STORAGE;
	default:
		return OUTCOME_UNAVAILABLE;
	}
}

struct batch *
batch_new(const struct message *messages, unsigned count, unsigned n_deliveries, struct chunk *chunk,
	  const unsigned char *from, const unsigned char *to)
{
	size_t deliveries = sizeof(struct delivery) * n_deliveries;
	size_t fixed = sizeof(struct batch) + deliveries + sizeof(struct message) * count;
	size_t bytes = chunk == NULL ? (size_t)(to - from) : 0;
	struct batch *batch = memory_alloc(fixed + bytes);
	unsigned i;

	if (batch == NULL)
		return NULL;
	*batch = (struct batch){.count = count, .n_deliveries = n_deliveries};
	atomic_init(&batch->pending, n_deliveries);
	batch->deliveries = (struct delivery *)(batch + 1);
	batch->messages = (struct message *)(batch->deliveries + n_deliveries);
	memcpy(batch->messages, messages, sizeof(struct message) * count);
	if (chunk != NULL) {
		batch->chunk = chunk_ref(chunk);
	} else if (bytes > 0) {
		unsigned char *copy = (unsigned char *)(batch->messages + count);

		memcpy(copy, from, bytes);
		for (i = 0; i < count; i++)
			if (batch->messages[i].data != NULL)
				batch->messages[i].data = copy + (batch->messages[i].data - from);
	}
	for (i = 0; i < count; i++)
		batch->n_bodies += messages[i].body != NULL;
	for (i = 0; i < n_deliveries; i++)
		batch->deliveries[i] = (struct delivery){.batch = batch};
	batch->charged = memory_size(batch);
	memory_charge(batch->charged);
	return batch;
}

void
batch_free(struct batch *batch)
{
	unsigned i;

	for (i = 0; batch->n_bodies > 0 && i < batch->count; i++) {
		if (batch->messages[i].body == NULL)
			continue;
		body_free(batch->messages[i].body);
		batch->n_bodies--;
	}
	if (batch->chunk != NULL)
		chunk_unref(batch->chunk);
	memory_release(batch->charged);
	memory_free(batch);
}

void
batch_answered(struct batch *batch)
{
	if (atomic_fetch_sub_explicit(&batch->pending, 1, memory_order_acq_rel) == 1)
		inbox_post(batch->home, &batch->item);
}

void
message_settle(struct message *message, enum outcome outcome)
{
	uint8_t now = atomic_load_explicit(&message->outcome, memory_order_relaxed);

	while (outcome > now && !atomic_compare_exchange_weak_explicit(&message->outcome, &now,
				    (uint8_t)outcome, memory_order_relaxed, memory_order_relaxed))
		;
}

void
cursor_start(struct cursor *cursor, const struct message *message)
{
	cursor->message = message;
	cursor->at = 0;
	if (message->body != NULL && message->body->memory != NULL)
		evbuffer_ptr_set(message->body->memory, &cursor->place, 0, EVBUFFER_PTR_SET);
}

ptrdiff_t
cursor_next(struct cursor *cursor, const unsigned char **piece, void *scratch, size_t scratch_size)
{
	const struct message *message = cursor->message;
	const struct body *body = message->body;
	struct evbuffer_iovec part;
	ssize_t n;

	if (cursor->at == message->size)
		return message->body != NULL ? body_verify(message->body, false) : 0;
	if (body == NULL) {
		*piece = message->data;
		n = (ssize_t)message->size;
	} else if (body->memory != NULL) {
		if (evbuffer_peek(body->memory, -1, &cursor->place, &part, 1) < 1) {
			errno = EIO;
			return -1;
		}
		*piece = part.iov_base;
		n = (ssize_t)part.iov_len;
		if (cursor->at + part.iov_len < message->size)
			evbuffer_ptr_set(body->memory, &cursor->place, part.iov_len, EVBUFFER_PTR_ADD);
	} else {
		do
			n = fault_pread(body->file, scratch, scratch_size, (off_t)cursor->at);
		while (n == -1 && errno == EINTR);
		if (n == 0) /* shorter than what was written to it */
			errno = EIO;
		if (n <= 0)
			return -1;
		*piece = scratch;
	}
	cursor->at += (uint64_t)n;
	return n;
}
