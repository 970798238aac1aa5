/*
 * forward_load: from a message of a writer, or a file of new/, to a batch for the target.
 *
 * A batch of one message, with an origin of its own, as both outlive the connection.
 * What is small lies in memory; what is large, or comes when memory is short, stays in
 * its file, which is open until the target has answered.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "message/body.h"
#include "sinks/forward_work.h"

/* The batch; the body, if there is one, is the batch's from now on.  -1: no memory. */
static int
build(struct forward *forward, struct forward_entry *entry, const struct origin *origin,
      uint64_t time, const struct message *message)
{
	const char *subject = spool_facts_subject(origin);
	size_t listener_len = strlen(origin->listener) + 1;
	size_t subject_len = subject != NULL ? strlen(subject) + 1 : 0;
	struct forward_letter *letter = memory_alloc(sizeof(*letter) + listener_len + subject_len);
	struct batch *batch;

	if (letter == NULL)
		return -1;
	if (message->body == NULL)
		batch = batch_new(message, 1, 1, NULL, message->data, message->data + message->size);
	else
		batch = batch_new(message, 1, 1, NULL, NULL, NULL);
	if (batch == NULL) {
		memory_free(letter);
		return -1;
	}
	*letter = (struct forward_letter){.origin = *origin, .forward = forward, .entry = entry};
	memcpy(letter->text, origin->listener, listener_len);
	letter->origin.listener = letter->text;
	letter->origin.tls_subject = NULL;
	if (subject != NULL)
		letter->origin.tls_subject = memcpy(letter->text + listener_len, subject, subject_len);
	if (origin->local != NULL) {
		letter->local = *origin->local;
		letter->origin.local = &letter->local;
	}
	batch->origin = &letter->origin;
	batch->time = time;
	batch->home = &forward->inbox;
	batch->item.run = forward_on_home;
	if (message->body == NULL)
		batch->held = (uint32_t)message->size;
	entry->letter = letter;
	entry->batch = batch;
	return 0;
}

/* A small message's bytes in one piece; NULL: it is better read from its file. */
static const unsigned char *
bytes_of(const struct message *message, unsigned char *scratch)
{
	struct cursor cursor;
	const unsigned char *piece;
	size_t len = 0;
	ptrdiff_t n;

	if (message->body == NULL)
		return message->data;
	if (message->body->memory == NULL)
		return NULL;
	cursor_start(&cursor, message);
	while ((n = cursor_next(&cursor, &piece, NULL, 0)) > 0) {
		memcpy(scratch + len, piece, (size_t)n);
		len += (size_t)n;
	}
	return n == 0 ? scratch : NULL;
}

void
forward_fresh(struct forward *forward, struct forward_list *list, const struct batch *batch,
	      const struct message *message, const char *name, unsigned char *scratch)
{
	struct forward_entry *entry = forward_entry_new(&message->id, name);
	struct message copy = {.id = message->id, .size = message->size, .ended = message->ended};

	if (entry == NULL) {
		forward_inlet_missed(forward, &message->id);
		return;
	}
	*list->last = entry;
	list->last = &entry->next;
	if (message->size > FORWARD_SMALL || !memory_room() || !forward_inlet_has_room(forward))
		return;
	copy.data = bytes_of(message, scratch);
	if (copy.data != NULL)
		(void)build(forward, entry, batch->origin, batch->time, &copy); /* or from disk */
}

static bool
is_small(const struct forward *forward, uint64_t size)
{
	return size <= FORWARD_SMALL &&
	       (forward->in_flight_bytes == 0 ||
		(forward->in_flight_bytes + size <= forward_bytes(FORWARD_WINDOW_BYTES) &&
		 !memory_over()));
}

/* -1: errno.  A file that is shorter than it was is no message of ours. */
static int
read_all(struct forward *forward, int fd, size_t size)
{
	size_t done = 0;
	ssize_t n;

	while (done < size) {
		n = fault_pread(fd, forward->scratch + done, size - done, (off_t)done);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == 0)
			errno = EIO;
		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

static enum forward_loaded
judge(int error)
{
	switch (error) {
	case ENOENT:
		return FORWARD_GONE;
	case ELOOP: /* a symbolic link */
	case ENXIO: /* a socket */
		return FORWARD_FOREIGN;
	case EMFILE:
	case ENFILE:
	case ENOMEM:
		return FORWARD_SHORT;
	default:
		return FORWARD_BROKEN;
	}
}

static enum forward_loaded
load_file(struct forward *forward, struct forward_entry *entry, int *fd)
{
	struct spool_facts *facts = &forward->facts;
	struct message message = {.id = entry->id};
	struct origin origin = {0};
	struct stat st;
	bool built;

	if (fault_fstat(*fd, &st) == -1)
		return FORWARD_BROKEN;
	if (!S_ISREG(st.st_mode) || spool_facts_of_name(facts, entry->name) == -1)
		return FORWARD_FOREIGN;
	spool_facts_read(facts, *fd);
	message.size = (uint64_t)st.st_size;
	message.ended = facts->ended;
	origin.listener = facts->listener;
	origin.tls_subject = facts->subject[0] != '\0' ? facts->subject : NULL;
	origin.peer = facts->peer;
	if (facts->has_local)
		origin.local = &facts->local;
	if (is_small(forward, message.size)) {
		if (read_all(forward, *fd, (size_t)message.size) == -1)
			return FORWARD_BROKEN;
		message.data = forward->scratch;
	} else {
		message.body = body_of_file(*fd, message.size);
		if (message.body == NULL) {
			errno = ENOMEM;
			return FORWARD_SHORT;
		}
		*fd = -1;
	}
	built = build(forward, entry, &origin, facts->time, &message) == 0;
	if (!built) {
		body_free(message.body);
		errno = ENOMEM;
	}
	return built ? FORWARD_LOADED : FORWARD_SHORT;
}

enum forward_loaded
forward_load(struct forward *forward, struct forward_entry *entry)
{
	enum forward_loaded loaded;
	struct stat st;
	int fd, error;

	/* It may have waited here while somebody put it aside, or removed it. */
	if (entry->batch != NULL) {
		if (fstatat(forward->new, entry->name, &st, AT_SYMLINK_NOFOLLOW) == -1 &&
		    errno == ENOENT)
			return FORWARD_GONE;
		return FORWARD_LOADED;
	}
	/* No link, and no waiting for whoever writes to a FIFO. */
	fd = fault_openat(forward->new, entry->name,
			  O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
	if (fd == -1)
		return judge(errno);
	loaded = load_file(forward, entry, &fd);
	error = errno;
	if (fd != -1)
		fault_close(fd); /* it was only read */
	errno = error;
	return loaded;
}

/* A command runs so many at a time: what waits for it need not wait there. */
unsigned
forward_window(const struct config_sink *target)
{
	unsigned window = FORWARD_WINDOW;

	if (target->type == CONFIG_SINK_COMMAND)
		window = 2 * target->max_processes;
	return window < FORWARD_WINDOW ? window : FORWARD_WINDOW;
}
