/*
 * metrics: a picture as Prometheus reads it, by one table of what there is.
 */
#ifndef STATUS_METRICS_H
#define STATUS_METRICS_H

#include <stdbool.h>
#include <stdio.h>

struct picture;

#define METRICS_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_OPEN "application/openmetrics-text; version=1.0.0; charset=utf-8"

/* Whether an Accept header wants OpenMetrics rather than text of version 0.0.4. */
bool metrics_wants_open(const char *accept);

void metrics_write(FILE *to, const struct picture *picture, bool open);

#endif
