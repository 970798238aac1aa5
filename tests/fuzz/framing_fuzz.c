/*
 * framing_fuzz: a framing says the same of a stream however it is split, and
 * never hands out more than it was given (framing_trace checks each step).
 *
 * An input is
 *   1 byte   the framing; ignored when compiled with -DFRAMING_FUZZ_KIND=FRAMING_LINE
 *            or another, which spends all of the search on one
 *   1 byte   settings: 1 keep_delimiter, 2 length_little, 4 length_includes_header,
 *            8 and 16 length_bytes (1, 2, 4, 8), 32 and 64 max_size (0, 1, 16, 1000)
 *   1 byte   how to split
 *   for FRAMING_DELIMITER: 1 byte, the delimiter's length less 1 (modulo 16), and
 *            the delimiter
 *   the stream
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/framing_trace.h"
#include "framing/framing.h"

#define FUZZ_KINDS (FRAMING_MLLP + 1)

const char *const fuzz_corpus[] = { "eof",       "line",          "delimiter", "length",
				    "netstring", "octet-counted", "mllp",      NULL };

/* Reads the settings off the input's front.  Returns the bytes used, or 0 if the
 * input is too short to hold them. */
static size_t
fuzz_config(struct framing_config *config, uint8_t *split, const uint8_t *data, size_t size)
{
	static const uint64_t max_sizes[] = { 0, 1, 16, 1000 };
	size_t used = 3;

	if (size < used)
		return 0;
#ifdef FRAMING_FUZZ_KIND
	config->kind = FRAMING_FUZZ_KIND;
#else
	config->kind = (enum framing_kind)(data[0] % FUZZ_KINDS);
#endif
	config->keep_delimiter = data[1] & 1;
	config->length_little = data[1] & 2;
	config->length_includes_header = data[1] & 4;
	config->length_bytes = 1U << (data[1] >> 3 & 3);
	config->max_size = max_sizes[data[1] >> 5 & 3];
	*split = data[2];

	if (config->kind == FRAMING_DELIMITER) {
		if (size < used + 1)
			return 0;
		config->delimiter_len = 1 + data[used++] % 16;
		if (size - used < config->delimiter_len)
			return 0;
		config->delimiter = malloc(config->delimiter_len);
		if (config->delimiter == NULL)
			abort();
		memcpy(config->delimiter, data + used, config->delimiter_len);
		used += config->delimiter_len;
	}
	if (framing_prepare(config) == -1)
		abort();
	return used;
}

static void
fuzz_compare(const struct trace *whole, const struct trace *split, const char *how)
{
	if (strcmp(whole->text, split->text) != 0) {
		fprintf(stderr, "whole: %s\n%s: %s\n", whole->text, how, split->text);
		abort();
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct framing_config config = {0};
	struct trace whole = {0}, split = {0};
	uint8_t chance = 0;
	size_t used = fuzz_config(&config, &chance, data, size);
	size_t two = chance;
	uint64_t random = chance;

	if (used > 0) {
		data += used;
		size -= used;
		trace_run(&whole, &config, data, size, trace_cut_whole, NULL);
		trace_run(&split, &config, data, size, trace_cut_bytes, NULL);
		fuzz_compare(&whole, &split, "byte by byte");
		split.len = 0;
		trace_run(&split, &config, data, size, trace_cut_two, &two);
		fuzz_compare(&whole, &split, "in two");
		split.len = 0;
		trace_run(&split, &config, data, size, trace_cut_random, &random);
		fuzz_compare(&whole, &split, "by chance");
	}
	trace_clear(&whole);
	trace_clear(&split);
	framing_clear(&config);
	return 0;
}
