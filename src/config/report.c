/*
 * report: see report.h.
 */
#include "config/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/utf8.h"

/* Longer names are not worth a guess, which costs their length squared. */
#define NEAREST_LEN 48

static int
by_place(const void *a, const void *b)
{
	const struct report_item *one = a, *other = b;

	if (one->order != other->order)
		return one->order < other->order ? -1 : 1;
	return one->number < other->number ? -1 : 1;
}

static unsigned
least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How many letters must be changed, added, left out or swapped with their
 * neighbour (Damerau and Levenshtein's distance, each letter touched once). */
static unsigned
distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned rows[3][NEAREST_LEN + 1];
	unsigned *before = rows[0], *last = rows[1], *row = rows[2], *spare;
	size_t i, j;

	for (j = 0; j <= b_len; j++)
		last[j] = (unsigned)j;
	for (i = 1; i <= a_len; i++) {
		row[0] = (unsigned)i;
		for (j = 1; j <= b_len; j++) {
			unsigned change = last[j - 1] + (a[i - 1] != b[j - 1]);

			row[j] = least(change, least(last[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = least(row[j], before[j - 2] + 1);
		}
		spare = before;
		before = last;
		last = row;
		row = spare;
	}
	return last[b_len];
}

void
report_add(struct report *report, unsigned order, const char *file, int line, const char *format,
	   ...)
{
	struct report_item *item;
	va_list args;
	int n;

	if (report->count == report->room) {
		size_t room = report->room == 0 ? 16 : 2 * report->room;

		item = realloc(report->items, room * sizeof *item);
		if (item == NULL) {
			report->no_memory = true;
			return;
		}
		report->items = item;
		report->room = room;
	}
	item = &report->items[report->count];
	item->order = order;
	item->number = report->count;
	item->error.line = line;
	item->error.file = strdup(file);
	va_start(args, format);
	n = vasprintf(&item->error.text, format, args);
	va_end(args);
	if (n == -1)
		item->error.text = NULL;
	if (item->error.file == NULL || item->error.text == NULL) {
		free(item->error.file);
		free(item->error.text);
		report->no_memory = true;
		return;
	}
	report->count++;
}

bool
report_is_empty(const struct report *report)
{
	return report->count == 0 && !report->no_memory;
}

void
report_finish(struct report *report, struct config_errors *errors)
{
	size_t i;

	*errors = (struct config_errors){ .exit_code = report->no_memory ? EX_OSERR
									 : report->exit_code };
	if (report->count > 0) {
		qsort(report->items, report->count, sizeof *report->items, by_place);
		errors->items = calloc(report->count, sizeof *errors->items);
		if (errors->items == NULL)
			errors->exit_code = EX_OSERR;
	}
	for (i = 0; i < report->count; i++) {
		if (errors->items != NULL) {
			errors->items[errors->count++] = report->items[i].error;
		} else {
			free(report->items[i].error.file);
			free(report->items[i].error.text);
		}
	}
	free(report->items);
	*report = (struct report){ 0 };
}

const char *
report_quote(char quoted[REPORT_QUOTE_LEN], const char *text)
{
	struct utf8_show show = { 0 };
	size_t len = strnlen(text, REPORT_QUOTE_SHOWN + 1), n = 0;
	bool cut = len > REPORT_QUOTE_SHOWN;

	quoted[n++] = '"';
	n += utf8_show(&show, quoted + n, (const unsigned char *)text,
		       cut ? REPORT_QUOTE_SHOWN : len);
	n += utf8_show_end(&show, quoted + n);
	strcpy(quoted + n, cut ? "...\"" : "\"");
	return quoted;
}

void
report_nearest_offer(struct report_nearest *nearest, const char *candidate)
{
	size_t len = strlen(nearest->name), candidate_len = strlen(candidate);
	unsigned limit = len <= 4 ? 1 : len <= 8 ? 2 : 3, d;

	if (len > NEAREST_LEN || candidate_len > NEAREST_LEN)
		return;
	d = distance(nearest->name, len, candidate, candidate_len);
	if (d <= limit && (nearest->best == NULL || d < nearest->distance)) {
		nearest->best = candidate;
		nearest->distance = d;
	}
}

const char *
report_nearest_hint(const struct report_nearest *nearest, char hint[REPORT_QUOTE_LEN])
{
	hint[0] = '\0';
	if (nearest->best != NULL)
		snprintf(hint, REPORT_QUOTE_LEN, " (did you mean \"%s\"?)", nearest->best);
	return hint;
}
