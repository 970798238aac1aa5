/*
 * batches: a sink under test, and what a worker would hand to it.
 *
 * The sink is opened and started as the daemon does it.  Batches are made by hand,
 * their answers come home to an inbox on an event base of the test's own.
 */
#ifndef TESTS_UNIT_BATCHES_H
#define TESTS_UNIT_BATCHES_H

#include "sinks/sink.h"

struct event_base;

/* A fresh directory under $TMPDIR, for the whole program; removed by batches_clean. */
const char *batches_directory(void);
/* A name in it, in static memory: good for the next four calls. */
const char *batches_path(const char *name);
void batches_clean(void);

struct batches {
	struct event_base *base;
	struct inbox inbox;
	struct sink *sink;
	struct config *config;
	struct config_sink settings;
	struct origin origin;
	struct id_generator ids;
	unsigned waiting; /* batches that are not home yet */
};

/* settings: as the configuration would hold them; they are copied. */
void batches_open(struct batches *batches, const struct config_sink *settings);
/* The exit code of sink_open, for those that are to fail. */
int batches_open_code(struct batches *batches, const struct config_sink *settings);
void batches_close(struct batches *batches);

/* A batch of count messages of these bytes and lengths; "%u" in text becomes the
 * message's number. */
struct batch *batches_make(struct batches *batches, unsigned count, const char *text);
struct batch *batches_make_bytes(struct batches *batches, const void *bytes, size_t len);
/* A batch of one message whose bytes lie in a body, spilled to a directory (NULL: in
 * memory). */
struct batch *batches_make_body(struct batches *batches, const void *bytes, size_t len,
				const char *directory);

void batches_deliver(struct batches *batches, struct batch *batch);
/* Turns the loop until all are home, 30 seconds at most. */
void batches_wait(struct batches *batches);
/* Delivers, waits, frees; the outcome of the first message. */
enum outcome batches_send(struct batches *batches, struct batch *batch);
enum outcome batches_outcome(const struct batch *batch, unsigned message);

/* Files. */
/* To be freed; fails the test when there is none. */
char *batches_read(const char *path, size_t *len);
void batches_write(const char *path, const void *bytes, size_t len);
/* How many entries a directory has, "." and ".." not counted; *last: one of them. */
unsigned batches_count(const char *path, char last[256]);

/* Turns the loop until the sink is ready again (or is not), 30 seconds at most. */
void batches_wait_ready(struct batches *batches, bool ready);

#endif
