/*
 * page: a picture for people: /, one file of HTML with all that it needs in it.
 *
 * The daemon writes every figure and chart into it, so that it can be read without
 * scripts; with them it refreshes itself from /status.json.
 */
#ifndef STATUS_PAGE_H
#define STATUS_PAGE_H

#include <stddef.h>
#include <stdio.h>

struct picture;

/* The Content-Security-Policy of the page that page_write writes next, with a nonce of
 * its own for the page's style and script.  -1: there are no random numbers. */
int page_policy(char *policy, size_t size);
void page_write(FILE *to, const struct picture *picture);

#endif
