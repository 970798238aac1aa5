/*
 * program: cisternd as a command: $CISTERND, or ./cisternd.
 */
#ifndef SYSTEM_PROGRAM_H
#define SYSTEM_PROGRAM_H

#include <stdbool.h>
#include <sys/resource.h>

struct program_result {
	int code;
	char *output;
	char *errors;
};

/* Runs it to its end.  The arguments end with NULL; the result is to be freed with
 * program_result_free. */
struct program_result program_run(const char *first, ...) __attribute__((sentinel));
void program_result_free(struct program_result *result);

const char *program_path(void);

/* A file that a child may write its output to. */
int program_open(const char *path);

/* In a child: becomes the program.  It may have so many descriptors (0: as many
 * as we), and dies with us unless it is to leave us. */
_Noreturn void program_exec(char *const *arguments, int output, int errors, rlim_t descriptors,
			    bool leaves);

/* Fails the test when a sanitizer has complained in this file. */
void program_check_sanitizers(const char *path);

#endif
