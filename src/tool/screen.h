/*
 * screen: a terminal taken over, and given back however the process ends.
 */
#ifndef TOOL_SCREEN_H
#define TOOL_SCREEN_H

#include <stdbool.h>
#include <stdint.h>

enum screen_key {
	SCREEN_NONE = -1, /* the time is over */
	SCREEN_REDRAW = -2, /* the terminal's size may have changed */
	SCREEN_END = -3, /* the terminal is gone */
	SCREEN_UP = 256,
	SCREEN_DOWN,
	SCREEN_LEFT,
	SCREEN_RIGHT,
	SCREEN_PAGE_UP,
	SCREEN_PAGE_DOWN,
	SCREEN_HOME,
	SCREEN_BOTTOM,
};

/* Marks a line as a heading; first byte of it. */
#define SCREEN_HEADING '\1'

bool screen_open(void); /* false, with errno: not on this terminal */
void screen_close(void);
void screen_size(int *rows, int *columns);

/* Shows lines of harmless text, cut at the right and at the bottom. */
void screen_draw(const char *text);

/* A character or one of the above, after at most so many microseconds. */
int screen_key(uint64_t timeout);

#endif
