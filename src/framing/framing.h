/*
 * framing: where messages begin and end in a stream of bytes.
 *
 * A framing is a pure incremental parser.  It is fed the bytes of one
 * connection in whatever pieces they arrive, holds no bytes of its own and
 * never looks at one twice: what it must remember fits in framing_state.
 * Its verdicts do not depend on how the bytes were split.
 *
 * It includes no event headers and allocates only in framing_prepare.
 *
 * What a frame announces is held against max_size here.  Payload that merely
 * grows (eof, line, delimiter, mllp) is counted by the caller.
 */
#ifndef FRAMING_FRAMING_H
#define FRAMING_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum framing_kind {
	FRAMING_EOF,
	FRAMING_LINE,
	FRAMING_DELIMITER,
	FRAMING_LENGTH,
	FRAMING_NETSTRING,
	FRAMING_OCTET_COUNTED,
	FRAMING_MLLP,
};

/* The settings of a framing; immutable once prepared, shared by threads. */
struct framing_config {
	enum framing_kind kind;
	unsigned char *delimiter; /* owned; may hold NULs */
	size_t delimiter_len;     /* at least 1 for FRAMING_DELIMITER */
	uint32_t *fallback;       /* owned; Knuth-Morris-Pratt table, from framing_prepare */
	bool keep_delimiter;
	unsigned length_bytes; /* 1, 2, 4 or 8 */
	bool length_little;
	bool length_includes_header;
	uint64_t max_size; /* max_message_size; 0: none */
};

/* What a framing remembers between two feeds of one connection.  All zero is
 * the start of a stream. */
struct framing_state {
	uint64_t remaining; /* payload bytes still to come, or a length being read */
	uint32_t matched;   /* bytes of a delimiter (or a header) seen so far */
	uint8_t phase;      /* the framing's own */
	bool open;          /* a byte of an unfinished frame has been seen */
};

enum framing_verdict {
	FRAMING_MORE,       /* all input is used; no message ended in it */
	FRAMING_MESSAGE,    /* a message ends here; input after `used` is the next one's */
	FRAMING_MALFORMED,  /* no frame of this kind; `why` says what was expected */
	FRAMING_TOO_LARGE,  /* a frame announces more than max_size (known before its bytes) */
	FRAMING_INCOMPLETE, /* framing_finish only: the close came inside a frame */
	FRAMING_NOTHING,    /* framing_finish only: the close came between frames */
};

/* One verdict.  The payload that it adds to the current message is head (bytes
 * held back by earlier feeds, static or in the configuration), then data (which
 * points into the input). */
struct framing_step {
	enum framing_verdict verdict;
	size_t used; /* bytes of input consumed; == len for FRAMING_MORE; up to and
		      * with the offending one for MALFORMED and TOO_LARGE */
	const unsigned char *head;
	size_t head_len;
	const unsigned char *data;
	size_t data_len;
	const char *why; /* static text, set for MALFORMED, TOO_LARGE and INCOMPLETE */
};

/* Computes what a framing needs from its settings (the delimiter's table).
 * Returns 0, or -1 when memory runs out. */
int framing_prepare(struct framing_config *config);

/* Frees what the configuration owns (delimiter and table), not itself. */
void framing_clear(struct framing_config *config);

/* Looks at len (> 0) bytes of input.  One call yields one verdict; the caller
 * comes again with the rest of the input until it is told FRAMING_MORE.  After
 * MALFORMED or TOO_LARGE the stream is beyond use. */
void framing_feed(const struct framing_config *config, struct framing_state *state,
		  const unsigned char *input, size_t len, struct framing_step *step);

/* The client has closed in order: says whether that ends a message (eof with
 * bytes received, an unterminated last line), finds nothing open, or cuts a frame
 * short.  head holds the last bytes of what was open, if any were held back. */
void framing_finish(const struct framing_config *config, struct framing_state *state,
		    struct framing_step *step);

/* The name of a framing in the configuration file, and back; -1: no such. */
const char *framing_name(enum framing_kind kind);
int framing_from_name(const char *name);

#endif
