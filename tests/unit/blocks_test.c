/*
 * Tests of config/blocks and config/group: what a listener's file says of who may
 * connect, behind which proxies, and how fast.
 */
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/acl.h"
#include "base/net.h"
#include "config/config.h"
#include "config_file.h"
#include "unit.h"

static struct net_address
address(const char *text)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	struct net_address made;

	if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
		net_address_set(&made, (const struct sockaddr *)&in);
	} else {
		ck_assert_int_eq(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
		net_address_set(&made, (const struct sockaddr *)&in6);
	}
	return made;
}

/* The blocks hold the one and not the other. */
static void
check_blocks(const struct config_blocks *blocks, const char *within, const char *without)
{
	struct net_address one = address(within), other = address(without);

	ck_assert_ptr_nonnull(blocks->acl);
	ck_assert(acl_match(blocks->acl, &one));
	ck_assert(!acl_match(blocks->acl, &other));
}

START_TEST(all_is_read)
{
	struct config *config =
		config_file_read("listeners = { one = {\n"
		     "  allow = [ \"192.0.2.0/24\", \"2001:db8::/32\" ]; deny = \"192.0.2.1\";\n"
		     "  proxy_protocol = true; proxy_from = ( \"10.0.0.0/8\" );\n"
		     "  rate_limit = { connection = \"1M\"; listener = 5000000000L; }; }; };");
	const struct config_listener *one = &config->listeners[0];

	check_blocks(&one->allow, "192.0.2.255", "192.0.3.0");
	check_blocks(&one->allow, "2001:db8::1", "2001:db9::");
	check_blocks(&one->deny, "::ffff:192.0.2.1", "192.0.2.2");
	check_blocks(&one->proxy_from, "10.255.0.1", "11.0.0.0");
	ck_assert(one->proxy_protocol);
	ck_assert_uint_eq(one->rate_limit.connection, 1 << 20);
	ck_assert_uint_eq(one->rate_limit.listener, UINT64_C(5000000000));
	config_file_check_dump(config);
	config_unref(config);
}
END_TEST

/* A listener undoes what the top level says, or says something else; what is for proxies
 * is for those who have one. */
START_TEST(blocks_of_listeners)
{
	struct config *config =
		config_file_read("allow = \"192.0.2.0/24\"; deny = \"192.0.2.1\"; proxy_from = \"10.0.0.1\";\n"
		     "rate_limit = { listener = 1; };\n"
		     "listeners = { a = {}; b = { port = 1; deny = []; allow = \"::/0\";\n"
		     "proxy_protocol = true; rate_limit = {}; };\n"
		     "c = { address = \"unix:/s\"; proxy_protocol = true; proxy_from = []; }; };");
	const struct config_listener *a = &config->listeners[0], *b = &config->listeners[1];

	check_blocks(&a->allow, "192.0.2.1", "192.0.3.1");
	check_blocks(&a->deny, "192.0.2.1", "192.0.2.2");
	ck_assert_ptr_null(a->proxy_from.acl);
	ck_assert_uint_eq(a->rate_limit.listener, 1);
	check_blocks(&b->allow, "2001::", "192.0.2.2");
	ck_assert_ptr_null(b->deny.acl);
	check_blocks(&b->proxy_from, "10.0.0.1", "10.0.0.2");
	ck_assert_uint_eq(b->rate_limit.listener, 0);
	ck_assert_ptr_null(config->listeners[2].proxy_from.acl);
	config_file_check_dump(config);
	config_unref(config);
}
END_TEST

/* A text and what its one error says: "LINE: TEXT", with part of the text. */
static const struct {
	const char *text;
	int line;
	const char *said;
} errors_said[] = {
	/* blocks of addresses */
	{ "allow = [ ];", 1, "\"allow\" is an empty list; expected at least one block" },
	{ "allow = \"example.org\";", 1,
	  "\"allow\" has the string \"example.org\"; expected an address or a block" },
	{ "deny = [ \"192.0.2.0/24\",\n\"192.0.2.1/24\" ];", 2,
	  "\"deny\" has the string \"192.0.2.1/24\"; expected 192.0.2.0/24: no bits" },
	{ "deny = [ \"192.0.2.0/24\",\n\"::/129\"\n\n# last\n];", 2, "expected a prefix from /0" },
	{ "deny = [ \"::/129\",\n\"::\"\n];", 1, "expected a prefix from /0" },
	{ "deny = [ \"192.0.2.0/33\" ]; port = 0;", 1, "expected a prefix from /0 to /32" },
	{ "deny = ( \"192.0.2.0/24\",\n5 );", 2, "\"deny\" is 5; expected a string, or a list" },
	{ "deny = { };", 1, "\"deny\" is a group; expected a string, or a list of strings" },
	{ "proxy_protocol = true;", 1, "\"proxy_protocol\" lacks \"proxy_from\"" },
	{ "proxy_protocol = true;\nproxy_from = [ ];", 2, "lacks \"proxy_from\"" },
	{ "proxy_from = \"192.0.2.1\";", 1, "means nothing where \"proxy_protocol\" is false" },
	{ "proxy_from = \"192.0.2.1\"; proxy_protocol = true;\n"
	  "listeners = { a = { proxy_protocol = false;\nproxy_from = \"192.0.2.2\"; }; };",
	  3, "means nothing" },
	{ "proxy_from = \"192.0.2.1\"; listeners = { a = { };\n"
	  "b = { port = 1; proxy_protocol = true; proxy_from = [ ]; }; };",
	  2, "lacks \"proxy_from\"" },
	/* rate_limit */
	{ "rate_limit = \"1M\";", 1, "\"rate_limit\" is the string \"1M\"; expected a group" },
	{ "rate_limit = { connection = true; };", 1, "\"connection\" is true; expected a size" },
	{ "rate_limit = {\nlistner = 5; };", 2, "(did you mean \"listener\"?)" },
	{ "rate_limit = { listener = \"65G\"; };", 1, "from 0 to \"64G\"" },
	{ "connection = 5;", 1, "which stands in the group \"rate_limit\"" },
	{ "rate_limit = { listener = \"x\"; };\nlisteners = { a = { }; b = { port = 1; }; };", 1,
	  "\"listener\" is the string" },
};

START_TEST(error_is_said)
{
	struct config_errors errors;

	ck_assert_ptr_null(config_file_load(errors_said[_i].text, &errors));
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_int_eq(errors.items[0].line, errors_said[_i].line);
	ck_assert_msg(strstr(errors.items[0].text, errors_said[_i].said) != NULL, "%s",
		      errors.items[0].text);
	config_errors_free(&errors);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("blocks");
	TCase *tc = tcase_create("blocks");

	tcase_add_test(tc, all_is_read);
	tcase_add_test(tc, blocks_of_listeners);
	tcase_add_loop_test(tc, error_is_said, 0,
			    (int)(sizeof errors_said / sizeof errors_said[0]));
	suite_add_tcase(s, tc);
	return unit_run(s);
}
