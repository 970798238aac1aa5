/*
 * group: see group.h.
 *
 * All that is wrong in it is reported, what is unknown included.
 */
#include "config/group.h"

#include <stdlib.h>

#include "config/types.h"
#include "config/value.h"

/* What the rows of tls cannot say. */
static bool
check_tls(struct parse *parse, const config_setting_t *setting, struct config_tls *tls)
{
	tls->place = source_place(parse->source, config_setting_source_line(setting));
#ifndef HAVE_OPENSSL
	parse_error(parse, setting,
		    "\"tls\" cannot be had: this cisternd was built without TLS; expected none, or "
		    "a build with OpenSSL (configure --with-openssl)");
	return false;
#else
	if (!tls->require_client_certificate || tls->client_ca != NULL)
		return true;
	parse_error(parse, parse_member(setting, "require_client_certificate"),
		    "\"tls\" lacks \"client_ca\", without which no client's certificate can be "
		    "checked; expected client_ca = \"/path\", or no require_client_certificate");
	return false;
#endif
}

/* Nor those of status. */
static bool
check_status(struct parse *parse, const config_setting_t *setting, struct config_status *status)
{
	struct types_address addresses[2];
	const char *expected;
	char quoted[REPORT_QUOTE_LEN];
	size_t count;

	status->place = source_place(parse->source, config_setting_source_line(setting));
	if (status->address == NULL)
		return false;
	expected = types_address(status->address, addresses, &count);
	if (expected == NULL && addresses[0].family != AF_UNIX)
		return true;
	parse_error(parse, parse_member(setting, "address"),
		    "\"address\" is %s; expected \"*\", \"localhost\", an IPv4 or an IPv6 address",
		    report_quote(quoted, status->address));
	return false;
}

static bool
has_required(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	     const struct config_row *member)
{
	char *expected;

	if (!member->required || parse_member(setting, member->name) != NULL)
		return true;
	expected = value_expected(parse, member);
	if (expected != NULL)
		parse_error(parse, setting, "\"%s\" lacks \"%s\"; expected %s = %s", row->name,
			    member->name, member->name, expected);
	free(expected);
	return false;
}

static bool
is_false(const config_setting_t *setting)
{
	return config_setting_type(setting) == CONFIG_TYPE_BOOL && !config_setting_get_bool(setting);
}

bool
group_set(struct parse *parse, const struct config_row *row, const config_setting_t *setting,
	  void *inner)
{
	size_t count;
	const struct config_row *rows = config_table(&count);
	bool optional = row->optional, good = true;

	if (optional && (setting == NULL || is_false(setting)))
		return true;
	if (setting != NULL &&
	    !parse_is_group(parse, setting, optional ? "{ NAME = ...; }, or false" : "{ NAME = ...; }"))
		return false;
	for (size_t i = 0; i < count; i++) {
		if (rows[i].scope != row->inner)
			continue;
		good &= has_required(parse, row, setting, &rows[i]);
		good &= value_set(parse, &rows[i], parse_member(setting, rows[i].name), inner);
	}
	for (int i = 0; setting != NULL && i < config_setting_length(setting); i++) {
		const config_setting_t *one = parse_element(setting, i);

		if (table_find(row->inner, config_setting_name(one), 0) != NULL)
			continue;
		parse_unknown(parse, one, 1U << row->inner, 0);
		good = false;
	}
	if (row->inner == TABLE_TLS)
		good = check_tls(parse, setting, inner) && good;
	else if (row->inner == TABLE_STATUS)
		good = check_status(parse, setting, inner) && good;
	return good;
}
