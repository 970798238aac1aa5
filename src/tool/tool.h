/*
 * tool: what the subcommands of cistern(1) share: how they speak to people.
 *
 * Complaints go to standard error, begin with the command's name, and never hold
 * bytes that could drive a terminal.  One thread, and only ever a client: all
 * here may block, and dies (EX_OSERR) without memory.
 */
#ifndef TOOL_TOOL_H
#define TOOL_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TOOL_SHORT 16 /* of an age or a size as people read them */

/* "cistern send", for complaints and hints. */
extern const char *tool_name;

/* The subcommands; argv[0] is their name.  They return the exit status. */
int send_command(int argc, char **argv);
int queue_command(int argc, char **argv);
int top_command(int argc, char **argv);

void tool_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same, with a hint at --help; returns EX_USAGE. */
int tool_misused(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The hint alone; returns EX_USAGE. */
int tool_hint(void);

void *tool_alloc(size_t size); /* zeroed */
void *tool_grow(void *memory, size_t count, size_t size);
char *tool_copy(const char *text);

/* Text as a terminal may see it; the caller frees it. */
char *tool_show(const char *text);
char *tool_show_bytes(const char *bytes, size_t len);

/* "12s", "5m", "3h", "2d"; "1234", "1.2K", "56M". */
void tool_age(uint64_t microseconds, char text[TOOL_SHORT]);
void tool_size(double bytes, char text[TOOL_SHORT]);

/* A duration option; complains and returns false. */
bool tool_duration(const char *option, const char *text, uint64_t *microseconds);

/* A number option. */
bool tool_number(const char *option, const char *text, uint64_t most, uint64_t *number);

/* What was printed must have arrived: code, or EX_IOERR. */
int tool_printed(int code);

#endif
