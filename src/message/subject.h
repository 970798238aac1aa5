/*
 * subject: what a message is called where it is published, from a template.
 *
 * A template is a subject of NATS (tokens with dots between them) with placeholders:
 * {listener} is the listener's name, {peer} the client's address without its port.
 * What is filled in never adds a token, a wildcard or a space: whatever is not a letter,
 * a digit, - or _ becomes _.  Pure.
 */
#ifndef MESSAGE_SUBJECT_H
#define MESSAGE_SUBJECT_H

#include <stdbool.h>

#define SUBJECT_TEMPLATE_MAX 200    /* bytes */
#define SUBJECT_PLACEHOLDERS_MAX 4
#define SUBJECT_VALUE_MAX 64	    /* of what is filled in; the rest is cut off */
#define SUBJECT_SIZE 512	    /* room for a subject and a NUL */

/* NULL, or what is wrong with a template. */
const char *subject_check(const char *template);

/* Fills a good template in.  peer is as net_address_text writes it. */
void subject_fill(const char *template, const char *listener, const char *peer,
		  char subject[SUBJECT_SIZE]);

/* The pattern that all its subjects match: tokens with a placeholder become *. */
void subject_pattern(const char *template, char pattern[SUBJECT_SIZE]);

/* Whether a subject matches a pattern, which may have * and, at its end, >. */
bool subject_matches(const char *pattern, const char *subject);

#endif
