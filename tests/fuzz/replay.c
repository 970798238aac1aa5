/*
 * replay: feeds files to a fuzz harness without a fuzzer.
 *
 *   HARNESS [FILE | DIRECTORY]...
 *
 * Without arguments the harness's own corpus is taken, from $srcdir (or the
 * working directory) /tests/fuzz/corpus.  Says what it did as TAP.  A file that
 * cannot be read, and having found none at all, is a failure; a property that
 * does not hold aborts, the line before says on which file.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

static unsigned replay_tests, replay_failures;

static void
replay_result(const char *path, const char *error)
{
	replay_tests++;
	if (error != NULL)
		replay_failures++;
	printf("%sok %u - %s%s%s\n", error != NULL ? "not " : "", replay_tests, path,
	       error != NULL ? ": " : "", error != NULL ? error : "");
}

/* Reads a file into memory of exactly its size, so that a byte too many is noticed. */
static uint8_t *
replay_read(const char *path, size_t size)
{
	FILE *file = fopen(path, "rb");
	uint8_t *bytes;

	if (file == NULL)
		return NULL;
	bytes = malloc(size > 0 ? size : 1);
	if (bytes != NULL && fread(bytes, 1, size, file) != size) {
		free(bytes);
		bytes = NULL;
		errno = EIO;
	}
	fclose(file);
	return bytes;
}

static void
replay_file(const char *path, size_t size)
{
	uint8_t *bytes = replay_read(path, size);

	if (bytes == NULL) {
		replay_result(path, strerror(errno));
		return;
	}
	printf("# %s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(bytes, size);
	replay_result(path, NULL);
	free(bytes);
}

static int
replay_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* A file, or all files in a directory, in the order of their names. */
static void
replay_path(const char *path)
{
	struct dirent **entries = NULL;
	struct stat status;
	int n;

	if (stat(path, &status) == -1) {
		replay_result(path, strerror(errno));
		return;
	}
	if (!S_ISDIR(status.st_mode)) {
		replay_file(path, (size_t)status.st_size);
		return;
	}
	n = scandir(path, &entries, replay_visible, alphasort);
	if (n <= 0)
		replay_result(path, n == 0 ? "no files" : strerror(errno));
	for (int i = 0; i < n; i++) {
		char *name = NULL;

		if (asprintf(&name, "%s/%s", path, entries[i]->d_name) == -1) {
			replay_result(path, strerror(ENOMEM));
		} else {
			replay_path(name);
			free(name);
		}
		free(entries[i]);
	}
	free(entries);
}

static void
replay_corpus(void)
{
	const char *srcdir = getenv("srcdir");

	for (size_t i = 0; fuzz_corpus[i] != NULL; i++) {
		char *path = NULL;

		if (asprintf(&path, "%s/tests/fuzz/corpus/%s", srcdir != NULL ? srcdir : ".",
			     fuzz_corpus[i]) == -1) {
			replay_result(fuzz_corpus[i], strerror(ENOMEM));
			continue;
		}
		replay_path(path);
		free(path);
	}
}

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay_path(argv[i]);
	if (argc < 2)
		replay_corpus();
	if (replay_tests == 0)
		replay_result("corpus", "nothing to replay");
	printf("1..%u\n", replay_tests);
	return replay_failures > 0;
}
