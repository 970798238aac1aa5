/*
 * config_fuzz: whatever a configuration file says is refused with a reason or understood,
 * and what is understood can be written down (-T) and means the same again.
 *
 * An input is the file.  It may include itself; other files are none of the fuzzer's.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config/config.h"

#define FUZZ_MOST 16384

const char *const fuzz_corpus[] = { "config", NULL };

static struct config *
fuzz_load(const void *text, size_t size)
{
	int fd = memfd_create("cistern.conf", MFD_CLOEXEC);
	struct config_errors errors;
	struct config *config;
	char path[40];

	if (fd == -1 || write(fd, text, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	config = config_load(path, &errors);
	if ((config == NULL) != (errors.count > 0))
		abort();
	for (size_t i = 0; i < errors.count; i++)
		if (errors.items[i].text[0] == '\0' || strchr(errors.items[i].text, '\n') != NULL)
			abort();
	config_errors_free(&errors);
	close(fd);
	return config;
}

static char *
fuzz_dump(const struct config *config, size_t *size)
{
	char *text = NULL;
	FILE *to = open_memstream(&text, size);

	if (to == NULL || config_dump(config, to) == -1 || fclose(to) == EOF)
		abort();
	return text;
}

/* What is written names the file that it was made from, in comments. */
static char *
fuzz_settings(char *text)
{
	return text[0] == '#' ? strchr(text, '\n') : text;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t one_size = 0, other_size = 0;
	struct config *config, *again;
	char *one, *other;

	if (size > FUZZ_MOST || memmem(data, size, "include", 7) != NULL)
		return 0;
	config = fuzz_load(data, size);
	if (config == NULL)
		return 0;
	one = fuzz_dump(config, &one_size);
	again = fuzz_load(one, one_size);
	if (again == NULL)
		abort();
	other = fuzz_dump(again, &other_size);
	if (strcmp(fuzz_settings(one), fuzz_settings(other)) != 0)
		abort();
	free(one);
	free(other);
	config_unref(config);
	config_unref(again);
	return 0;
}
