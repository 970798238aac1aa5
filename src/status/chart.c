/*
 * chart: see chart.h.  Coordinates are whole tenths, so that a page of four charts stays
 * small.  page.html draws the same from JSON; what is changed here is changed there.
 */
#include "status/chart.h"
#include "status/history.h"
#include "status/text.h"

static double
place(size_t i, size_t count)
{
	/* The newest is at the right edge, and what is not known yet is on the left. */
	return CHART_WIDTH - (double)(count - 1 - i) * CHART_WIDTH / (HISTORY_SAMPLES - 1);
}

static void
write_line(FILE *to, const struct chart *chart, const struct history *h, double top)
{
	size_t i;

	for (i = 0; i < h->count; i++)
		fprintf(to, "%s%.1f %.1f", i == 0 ? "M" : "L", place(i, h->count),
			CHART_HEIGHT - chart->value(history_sample(h, i)) / top * (CHART_HEIGHT - 4));
}

void
chart_write(FILE *to, const struct chart *chart, const struct history *h)
{
	double highest = 0, now = 0, top;
	size_t i;

	for (i = 0; i < h->count; i++) {
		now = chart->value(history_sample(h, i));
		if (now > highest)
			highest = now;
	}
	top = highest > chart->top ? highest : chart->top;
	if (top <= 0)
		top = 1;
	fprintf(to, "<figure class=\"chart\" id=\"chart-%s\">\n<figcaption><span>%s</span> "
		"<span class=\"peak\">highest <b>", chart->id, chart->title);
	chart->print(to, highest);
	fprintf(to, "</b></span></figcaption>\n<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" "
		"role=\"img\" aria-label=\"%s over the last ten minutes: now ",
		CHART_WIDTH, CHART_HEIGHT, chart->title);
	chart->print(to, now);
	fputs(", highest ", to);
	chart->print(to, highest);
	fprintf(to, "\">\n<path class=\"grid\" d=\"M0 %dH%dM0 %dH%d\"/>\n", CHART_HEIGHT / 3, CHART_WIDTH,
		CHART_HEIGHT * 2 / 3, CHART_WIDTH);
	fputs("<path class=\"area\" d=\"", to);
	write_line(to, chart, h, top);
	if (h->count > 0)
		fprintf(to, "V%dH%.1fZ", CHART_HEIGHT, place(0, h->count));
	fputs("\"/>\n<path class=\"line\" d=\"", to);
	write_line(to, chart, h, top);
	fputs("\"/>\n</svg>\n</figure>\n", to);
}
