/*
 * progress: see progress.h.
 */
#include "tool/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/types.h"
#include "tool/tool.h"

#define PATIENCE TYPES_SECOND
#define INTERVAL (TYPES_SECOND / 5)
#define NAME_SHOWN 30

void
progress_start(struct progress *progress, bool wanted)
{
	*progress = (struct progress){.on = wanted && isatty(STDERR_FILENO)};
	progress->begun = clock_now();
}

void
progress_show(struct progress *progress, const char *name, uint64_t done, uint64_t total)
{
	char size[TOOL_SHORT], of[TOOL_SHORT], rate[TOOL_SHORT], left[TOOL_SHORT] = "-";
	uint64_t now, took;
	char *shown;
	double speed;

	if (!progress->on)
		return;
	now = clock_now();
	took = now - progress->begun;
	if (took < PATIENCE || now - progress->drawn < INTERVAL)
		return;
	progress->drawn = now;
	progress->shown = true;
	speed = (double)done / ((double)took / (double)TYPES_SECOND);
	if (speed >= 1 && total >= done)
		tool_age((uint64_t)((double)(total - done) / speed * (double)TYPES_SECOND), left);
	tool_size((double)done, size);
	tool_size((double)total, of);
	tool_size(speed, rate);
	shown = tool_show(name);
	fprintf(stderr, "\r%-.*s %3u%%  %s of %s  %s/s  %s left\033[K", NAME_SHOWN, shown,
		total == 0 ? 100U : (unsigned)((double)done * 100 / (double)total), size, of, rate,
		left);
	fflush(stderr);
	free(shown);
}

void
progress_clear(struct progress *progress)
{
	if (!progress->shown)
		return;
	progress->shown = false;
	fputs("\r\033[K", stderr);
	fflush(stderr);
}
