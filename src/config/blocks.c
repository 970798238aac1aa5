/*
 * blocks: see blocks.h.
 *
 * Every block that is wrong is reported at its line.  Out of memory is told in the
 * report.  An empty list is an error for `allow`: a file of blocks that was left
 * empty must not let everybody in.
 */
#include "config/blocks.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/acl.h"
#include "config/value.h"

static bool
no_memory(struct parse *parse)
{
	parse->report->no_memory = true;
	return false;
}

/* The line of one; only the last of a list can be said to stand where it does not. */
static unsigned
line_of(struct parse *parse, const config_setting_t *one, bool last)
{
	unsigned line = config_setting_source_line(one);

	return last ? source_last_line(parse->source, line) : line;
}

static bool
add(struct parse *parse, const struct config_row *row, const config_setting_t *one, bool last,
    struct config_blocks *blocks)
{
	const char *text = config_setting_get_string(one), *why;
	char found[REPORT_QUOTE_LEN + 16];

	if (config_setting_type(one) != CONFIG_TYPE_STRING) {
		parse_error(parse, one, "\"%s\" is %s; expected a string, or a list of strings: "
			    "addresses or blocks (\"192.0.2.0/24\", \"2001:db8::/32\")",
			    row->name, value_found(found, one));
		return false;
	}
	if (text == NULL)
		text = "";
	if (acl_add(blocks->acl, text, &why) == -1) {
		if (why == NULL)
			return no_memory(parse);
		parse_error_at(parse, line_of(parse, one, last), "\"%s\" has %s; expected %s",
			       row->name, value_found(found, one), why);
		return false;
	}
	blocks->text.items[blocks->text.count] = strdup(text);
	if (blocks->text.items[blocks->text.count] == NULL)
		return no_memory(parse);
	blocks->text.count++;
	return true;
}

bool
blocks_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	   struct config_blocks *blocks)
{
	bool many = config_setting_is_array(setting) || config_setting_is_list(setting);
	int count = many ? config_setting_length(setting) : 1;
	bool good = true;

	if (count == 0 && row->offset == offsetof(struct config_listener, allow)) {
		parse_error(parse, setting, "\"%s\" is an empty list; expected at least one block: "
			    "[ \"0.0.0.0/0\", \"::/0\" ] is everybody",
			    row->name);
		return false;
	}
	if (count == 0)
		return true;
	blocks->text.items = calloc((size_t)count, sizeof *blocks->text.items);
	blocks->acl = acl_new();
	if (blocks->text.items == NULL || blocks->acl == NULL)
		return no_memory(parse);
	for (int i = 0; i < count; i++)
		good &= add(parse, row, many ? parse_element(setting, i) : setting,
			    i == count - 1, blocks);
	if (good && acl_finish(blocks->acl) == -1)
		return no_memory(parse);
	return good;
}
