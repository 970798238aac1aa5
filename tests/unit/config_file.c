/*
 * config_file: see config_file.h.  What cannot be made fails the test.
 */
#include "config_file.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void
config_files_open(struct config_files *files)
{
	const char *tmp = getenv("TMPDIR");

	files->count = 0;
	snprintf(files->directory, sizeof files->directory, "%s/config-XXXXXX",
		 tmp == NULL ? "/tmp" : tmp);
	ck_assert_ptr_nonnull(mkdtemp(files->directory));
}

const char *
config_files_add(struct config_files *files, const char *name, const void *bytes, size_t len)
{
	char *path, *slash;
	FILE *to;

	ck_assert_uint_lt(files->count, CONFIG_FILES_MAX);
	ck_assert_int_ne(asprintf(&path, "%s/%s", files->directory, name), -1);
	slash = strrchr(path, '/');
	*slash = '\0';
	(void)mkdir(path, 0700);
	*slash = '/';
	to = fopen(path, "we");
	ck_assert_msg(to != NULL, "cannot write %s", path);
	ck_assert_uint_eq(fwrite(bytes, 1, len, to), len);
	ck_assert_int_eq(fclose(to), 0);
	files->paths[files->count++] = path;
	return path;
}

void
config_files_close(struct config_files *files)
{
	while (files->count > 0) {
		char *path = files->paths[--files->count];

		ck_assert_int_eq(unlink(path), 0);
		*strrchr(path, '/') = '\0';
		if (strcmp(path, files->directory) != 0)
			(void)rmdir(path);
		free(path);
	}
	ck_assert_int_eq(rmdir(files->directory), 0);
}

struct config *
config_file_load(const char *text, struct config_errors *errors)
{
	struct config_files files;
	struct config *config;

	config_files_open(&files);
	config = config_load(config_files_add(&files, "cistern.conf", text, strlen(text)), errors);
	config_files_close(&files);
	return config;
}

struct config *
config_file_read(const char *text)
{
	struct config_errors errors;
	struct config *config = config_file_load(text, &errors);

	if (config == NULL)
		config_errors_print(&errors, stderr);
	ck_assert_msg(config != NULL, "refused: %s", text);
	ck_assert_uint_eq(errors.count, 0);
	ck_assert_int_eq(errors.exit_code, 0);
	return config;
}

char *
config_file_dump(const struct config *config)
{
	char *text;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	ck_assert_ptr_nonnull(to);
	ck_assert_int_eq(config_dump(config, to), 0);
	ck_assert_int_eq(fclose(to), 0);
	return text;
}

void
config_file_check_dump(const struct config *config)
{
	char *text = config_file_dump(config), *again;
	struct config *other = config_file_read(text);

	again = config_file_dump(other);
	ck_assert_str_eq(text, again);
	ck_assert_int_eq(config->spill_directory_given, other->spill_directory_given);
	config_unref(other);
	free(again);
	free(text);
}
