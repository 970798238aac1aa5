/*
 * chart: a line over the last minutes, as SVG.
 */
#ifndef STATUS_CHART_H
#define STATUS_CHART_H

#include <stddef.h>
#include <stdio.h>

struct history;
struct history_sample;

#define CHART_WIDTH 600
#define CHART_HEIGHT 120

struct chart {
	const char *id;
	const char *title;
	double (*value)(const struct history_sample *sample);
	void (*print)(FILE *to, double value); /* for people */
	double top; /* at least; 0: by the values alone */
};

/* A figure with its caption; says in words what it shows. */
void chart_write(FILE *to, const struct chart *chart, const struct history *history);

#endif
