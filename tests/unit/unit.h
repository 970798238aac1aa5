/*
 * unit: what every unit test program's main does.
 */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <check.h>
#include <stddef.h>
#include <stdint.h>

/* Runs a suite, TAP on the standard output; returns 1 when a test failed, else 0. */
int unit_run(Suite *s);

/* Encodes a character without asking whether one should: surrogates, too.  Its bytes. */
size_t unit_utf8(uint32_t code, unsigned char *to);

#endif
