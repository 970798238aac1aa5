/*
 * config_file: a directory of its own with configuration files, for tests.
 */
#ifndef TESTS_UNIT_CONFIG_FILE_H
#define TESTS_UNIT_CONFIG_FILE_H

#include <stddef.h>

#include "config/config.h"

/* A file of a new directory, up to CONFIG_FILES_MAX. */
#define CONFIG_FILES_MAX 16

struct config_files {
	char directory[256];
	char *paths[CONFIG_FILES_MAX];
	size_t count;
};

void config_files_open(struct config_files *files);
/* name may have one folder in it; the path stays until config_files_close. */
const char *config_files_add(struct config_files *files, const char *name, const void *bytes,
			     size_t len);
void config_files_close(struct config_files *files);

/* Loads a text as a file that is gone again afterwards. */
struct config *config_file_load(const char *text, struct config_errors *errors);

/* The same for a text without errors. */
struct config *config_file_read(const char *text);

/* What cisternd -T prints; the caller frees it. */
char *config_file_dump(const struct config *config);

/* That what it prints is read back to what is printed the same way. */
void config_file_check_dump(const struct config *config);

#endif
