/*
 * unit: what every unit test program's main does.
 */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <check.h>

/* Runs a suite, TAP on the standard output; returns 1 when a test failed, else 0. */
int unit_run(Suite *s);

#endif
