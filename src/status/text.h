/*
 * text: what comes from outside (names, addresses, subjects, reasons), made harmless
 * for where it goes.  Bytes that are not fit to be seen are shown as \xNN.
 */
#ifndef STATUS_TEXT_H
#define STATUS_TEXT_H

#include <stdint.h>
#include <stdio.h>

/* With its quotes. */
void text_json(FILE *to, const char *text);

/* For an element's content and for an attribute in double quotes. */
void text_html(FILE *to, const char *text);

/* The value of a label, with its quotes, as Prometheus reads it. */
void text_label(FILE *to, const char *text);

/* For people: "1.25 MiB"; "1,234,567"; "2 h 5 min". */
void text_bytes(FILE *to, double bytes);
void text_count(FILE *to, uint64_t count);
void text_age(FILE *to, double seconds);

#endif
