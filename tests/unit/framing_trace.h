/*
 * framing_trace: what a framing makes of a stream, as text that can be compared
 * and read.
 *
 *   [hello]        a message
 *   malformed@3[x] the stream was given up after 3 bytes, x being payload so far;
 *                  too-large likewise
 *   ~              a frame was open at the close (only before $)
 *   $              the close; what follows it is its verdict: nothing, [a message]
 *                  or incomplete[x]
 *
 * Bytes that do not print, and those with a meaning above, are shown as \xNN.
 *
 * Each step is checked on the way: pointers, lengths, and that payload and what
 * the framing adds to it are together what was consumed.  A step that is wrong
 * aborts, as does the lack of memory.
 */
#ifndef TESTS_UNIT_FRAMING_TRACE_H
#define TESTS_UNIT_FRAMING_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "framing/framing.h"

struct trace {
	char *text; /* ends with a NUL */
	size_t len, size;
};

/* How a stream is cut: returns the size of the next piece, 1 to left. */
typedef size_t trace_cut(void *arg, size_t left);

/* The whole at once, byte by byte, in two at *(size_t *)arg (which becomes 0),
 * and by chance from *(uint64_t *)arg. */
size_t trace_cut_whole(void *arg, size_t left);
size_t trace_cut_bytes(void *arg, size_t left);
size_t trace_cut_two(void *arg, size_t left);
size_t trace_cut_random(void *arg, size_t left);

/* Feeds a stream in such pieces, each in memory of its own, and then the close. */
void trace_run(struct trace *trace, const struct framing_config *config,
	       const unsigned char *stream, size_t len, trace_cut *cut, void *arg);

void trace_clear(struct trace *trace);

/* For building what is expected. */
void trace_text(struct trace *trace, const char *text);
void trace_bytes(struct trace *trace, const unsigned char *bytes, size_t len);
void trace_message(struct trace *trace, const unsigned char *bytes, size_t len);

/* Random numbers that are the same everywhere (splitmix64). */
uint64_t trace_random(uint64_t *state);

#endif
