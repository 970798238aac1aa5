/*
 * fuzz: what a fuzz harness is.
 *
 * Linked with libFuzzer it searches; linked with replay.c it looks at its corpus
 * again, which is how `make check` runs it.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* Aborts when the property does not hold; else returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The harness's directories in tests/fuzz/corpus; NULL ends them. */
extern const char *const fuzz_corpus[];

static inline void
fuzz_require(bool holds)
{
	if (!holds)
		abort();
}

#endif
