/*
 * failing: how the daemon of a test tells the program that makes its system calls fail
 * where main begins and ends: getpriority(FAILING_MARK, moment), which fails everywhere.
 */
#ifndef TESTS_CRASH_FAILING_H
#define TESTS_CRASH_FAILING_H

#define FAILING_MARK 0x53574550
#define FAILING_BEGIN 1
#define FAILING_END 2

#endif
