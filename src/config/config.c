/*
 * config: see config.h.
 *
 * A file is read as a text with its includes (source), that text is parsed into
 * a configuration (parse), and everything wrong on the way is collected
 * (report).  One error, and the configuration is dropped.
 */
#include "config/config.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "config/parse.h"
#include "config/release.h"
#include "config/report.h"
#include "config/source.h"

static struct config *
config_new(const char *file)
{
	struct config *config = calloc(1, sizeof *config);

	if (config == NULL)
		return NULL;
	atomic_init(&config->references, 1);
	config->file = strdup(file);
	if (config->file == NULL) {
		free(config);
		return NULL;
	}
	return config;
}

struct config *
config_load(const char *file, struct config_errors *errors)
{
	struct report report = { .exit_code = EX_CONFIG };
	struct config *config = config_new(file);
	struct source source = { 0 };

	if (config == NULL) {
		report.no_memory = true;
	} else if (source_read(&source, file, &report)) {
		struct parse parse = { .config = config, .source = &source, .report = &report };

		parse_text(&parse);
		/* Places in the configuration point to the files' names. */
		config->files = source.files;
		source.files = (struct config_strings){ 0 };
	}
	source_clear(&source);
	if (report_is_empty(&report)) {
		*errors = (struct config_errors){ 0 };
		return config;
	}
	report_finish(&report, errors);
	config_unref(config);
	return NULL;
}

void
config_errors_free(struct config_errors *errors)
{
	for (size_t i = 0; i < errors->count; i++) {
		free(errors->items[i].file);
		free(errors->items[i].text);
	}
	free(errors->items);
	*errors = (struct config_errors){ 0 };
}

void
config_errors_print(const struct config_errors *errors, FILE *to)
{
	for (size_t i = 0; i < errors->count; i++) {
		const struct config_error *error = &errors->items[i];

		if (error->line == 0)
			fprintf(to, "%s: %s\n", error->file, error->text);
		else
			fprintf(to, "%s:%d: %s\n", error->file, error->line, error->text);
	}
	if (errors->exit_code == EX_OSERR)
		fputs("out of memory\n", to);
}

struct config *
config_ref(struct config *config)
{
	atomic_fetch_add_explicit(&config->references, 1, memory_order_relaxed);
	return config;
}

void
config_unref(struct config *config)
{
	if (config != NULL &&
	    atomic_fetch_sub_explicit(&config->references, 1, memory_order_acq_rel) == 1)
		release_config(config);
}
