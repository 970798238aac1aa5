/*
 * group: see group.h.
 *
 * All that is wrong in it is reported, what is unknown included.
 */
#include "config/group.h"

#include "config/value.h"

bool
group_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	  void *inner)
{
	size_t count;
	const struct config_row *rows = config_table(&count);
	bool good = true;

	if (setting != NULL && !parse_is_group(parse, setting, "{ NAME = ...; }"))
		return false;
	for (size_t i = 0; i < count; i++) {
		if (rows[i].scope == row->inner)
			good &= value_set(parse, &rows[i], parse_member(setting, rows[i].name),
					  inner);
	}
	for (int i = 0; setting != NULL && i < config_setting_length(setting); i++) {
		const config_setting_t *one = parse_element(setting, i);

		if (table_find(row->inner, config_setting_name(one), 0) != NULL)
			continue;
		parse_unknown(parse, one, 1U << row->inner, 0);
		good = false;
	}
	return good;
}
