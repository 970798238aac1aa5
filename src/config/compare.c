/*
 * compare: see compare.h.
 */
#include "config/compare.h"

#include <stdlib.h>
#include <string.h>

#include "config/dump.h"
#include "config/table.h"

/* A text in the making; NULL: no memory. */
struct text {
	char *bytes;
	size_t len;
	FILE *file;
};

static void
text_open(struct text *text)
{
	*text = (struct text){ 0 };
	text->file = open_memstream(&text->bytes, &text->len);
}

/* Whether it is whole; to be freed in any case. */
static bool
text_close(struct text *text)
{
	bool failed = text->file == NULL || ferror(text->file);

	if (text->file != NULL && fclose(text->file) == EOF)
		failed = true;
	return !failed && text->bytes != NULL; /* glibc's fclose does not say it */
}

static enum comparison
compare_texts(struct text *one, struct text *other)
{
	bool whole = text_close(one);
	enum comparison result = COMPARE_NO_MEMORY;

	if (text_close(other) && whole)
		result = strcmp(one->bytes, other->bytes) == 0 ? COMPARE_SAME : COMPARE_DIFFERENT;
	free(one->bytes);
	free(other->bytes);
	return result;
}

enum comparison
compare_listeners(const struct config_listener *one, const struct config_listener *other)
{
	struct text a, b;

	if (strcmp(one->name, other->name) != 0)
		return COMPARE_DIFFERENT;
	text_open(&a);
	text_open(&b);
	if (a.file != NULL)
		dump_listener(a.file, "", one);
	if (b.file != NULL)
		dump_listener(b.file, "", other);
	return compare_texts(&a, &b);
}

enum comparison
compare_sinks(const struct config_sink *one, const struct config_sink *other)
{
	enum comparison result = COMPARE_SAME;
	struct text a, b;

	if (strcmp(one->name, other->name) != 0 || one->type != other->type)
		return COMPARE_DIFFERENT;
	/* Who hands on to another sink is another one when that is. */
	if ((one->forward_to == NULL) != (other->forward_to == NULL))
		return COMPARE_DIFFERENT;
	if (one->forward_to != NULL)
		result = compare_sinks(one->forward_to, other->forward_to);
	if (result != COMPARE_SAME)
		return result;
	text_open(&a);
	text_open(&b);
	if (a.file != NULL)
		dump_sink(a.file, "", one);
	if (b.file != NULL)
		dump_sink(b.file, "", other);
	result = compare_texts(&a, &b);
	/* One writes into the directory of the other. */
	if (result == COMPARE_SAME && one->nats.claim != NULL && other->nats.claim != NULL)
		result = compare_sinks(one->nats.claim, other->nats.claim);
	return result;
}

void
compare_fixed(const struct config *old, const struct config *new,
	      void (*differs)(const char *name, const char *old_value, const char *new_value))
{
	size_t count;
	const struct config_row *rows = config_table(&count);
	struct text a, b;

	for (size_t i = 0; i < count; i++) {
		bool whole;

		if (rows[i].scope != TABLE_GLOBAL || !rows[i].at_start)
			continue;
		text_open(&a);
		text_open(&b);
		if (a.file != NULL)
			dump_value(a.file, &rows[i], old);
		if (b.file != NULL)
			dump_value(b.file, &rows[i], new);
		whole = text_close(&a);
		if (text_close(&b) && whole && strcmp(a.bytes, b.bytes) != 0)
			differs(rows[i].name, *a.bytes != '\0' ? a.bytes : "none",
				*b.bytes != '\0' ? b.bytes : "none");
		free(a.bytes);
		free(b.bytes);
	}
}
