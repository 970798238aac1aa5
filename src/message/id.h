/*
 * id: ULIDs (https://github.com/ulid/spec), 48 bits of time and 80 of chance,
 * written as 26 characters of Crockford's base 32 that sort as the time does.
 *
 * Each worker has a generator of its own.  Within a millisecond, and when the
 * clock steps back, an id is its predecessor plus one; a new millisecond draws
 * anew.  80 bits of chance keep workers and restarts apart.
 */
#ifndef MESSAGE_ID_H
#define MESSAGE_ID_H

#include <stdint.h>

#define ID_TEXT_LEN 26

struct id {
	uint64_t high; /* 48 bits of milliseconds, 16 of chance */
	uint64_t low;  /* 64 bits of chance */
};

struct id_generator {
	struct id last;
	uint64_t random[4]; /* xoshiro256++ */
};

/* Seeds from getrandom(2); returns 0, or -1 with errno. */
int id_generator_init(struct id_generator *generator);

/* The next id for a message complete at `time` (microseconds since 1970). */
struct id id_next(struct id_generator *generator, uint64_t time);

/* Writes ID_TEXT_LEN characters and a NUL. */
void id_text(const struct id *id, char text[ID_TEXT_LEN + 1]);

/* Reads them back, exactly as id_text writes them; looks at no more than ID_TEXT_LEN
 * characters, so more may follow.  0, or -1 when they are no ULID. */
int id_parse(const char *text, struct id *id);

#endif
