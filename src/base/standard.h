/*
 * standard: the descriptors 0, 1 and 2 are what everybody takes them for.
 *
 * Who starts a program may have closed them.  The next file or socket that is opened
 * would then be standard output or standard error: a sink's file, the log, a client.
 */
#ifndef BASE_STANDARD_H
#define BASE_STANDARD_H

/* To be called before anything is opened.  What is missing becomes a descriptor that
 * fails to be read and written as a closed one does: what is printed there is not
 * taken for printed. */
void standard_hold(void);

#endif
