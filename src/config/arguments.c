/*
 * arguments: see arguments.h.
 *
 * A single string is refused: it would look as if a shell took it apart.  Whether
 * the program is there is asked here, so that `-t` and a reload find out; whether the
 * daemon's user may run it, only the sink can know.  Out of memory is told in the
 * report.
 */
#include "config/arguments.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "config/value.h"

/* What is wrong with a program, as far as everybody can see it; NULL: nothing. */
static const char *
fault_of(const char *path)
{
	struct stat st;

	if (stat(path, &st) == -1)
		return errno == ENOENT || errno == ENOTDIR ? "which is not there" : NULL;
	if (!S_ISREG(st.st_mode))
		return "which is no file";
	if ((st.st_mode & (S_IXUSR | S_IXGRP | S_IXOTH)) == 0)
		return "which is not executable";
	return NULL;
}

static bool
check_program(struct parse *parse, const struct config_row *row, const config_setting_t *one,
	      const char *path)
{
	char found[REPORT_QUOTE_LEN + 16];
	const char *fault;

	if (path[0] != '/' || strlen(path) >= PATH_MAX) {
		parse_error(parse, one, "\"%s\" begins with %s; expected a program's absolute path "
			    "(\"/...\"): nothing is searched for, and there is no shell",
			    row->name, value_found(found, one));
		return false;
	}
	fault = fault_of(path);
	if (fault != NULL)
		parse_error(parse, one, "\"%s\" begins with %s, %s; expected a program", row->name,
			    value_found(found, one), fault);
	return fault == NULL;
}

bool
arguments_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	      struct config_strings *arguments)
{
	bool many = config_setting_is_array(setting) || config_setting_is_list(setting);
	int count = many ? config_setting_length(setting) : 0;
	char found[REPORT_QUOTE_LEN + 16];

	if (count == 0) {
		parse_error(parse, setting, "\"%s\" is %s; expected a list of strings: a program's "
			    "absolute path (\"/...\") and its arguments",
			    row->name, many ? "an empty list" : value_found(found, setting));
		return false;
	}
	/* One more: it goes to execve(2) as it is. */
	arguments->items = calloc((size_t)count + 1, sizeof *arguments->items);
	for (int i = 0; arguments->items != NULL && i < count; i++) {
		const config_setting_t *one = parse_element(setting, i);
		const char *text = config_setting_get_string(one);

		if (config_setting_type(one) != CONFIG_TYPE_STRING) {
			parse_error(parse, one, "\"%s\" has %s in it; expected strings only",
				    row->name, value_found(found, one));
			return false;
		}
		if (text == NULL)
			text = "";
		if (i == 0 && !check_program(parse, row, one, text))
			return false;
		arguments->items[i] = strdup(text);
		if (arguments->items[i] == NULL)
			break;
		arguments->count++;
	}
	if (arguments->count == (size_t)count)
		return true;
	parse->report->no_memory = true;
	return false;
}
