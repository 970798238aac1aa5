/*
 * config_place_test: addresses and files that two settings of a file cannot both have; and
 * more errors than anybody makes.
 */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "config_file.h"
#include "unit.h"

/* A text and what its one error says: its line, and a part of the text. */
static const struct {
	const char *text;
	int line;
	const char *said;
} taken[] = {
	/* by listeners */
	{ "address = [ \"*\", \"127.0.0.1\" ];", 1,
	  "cannot have address \"127.0.0.1\", port 11000" },
	{ "listeners = { a = { };\nb = { }; };", 2,
	  "cannot have address \"*\", port 11000 beside" },
	{ "listeners = { a = { port = 1; address = \"0.0.0.0\"; };\nb = {\nport = 1; }; };", 3,
	  "listener \"b\" cannot have" },
	{ "listeners = { a = { address = \"[::1]\"; }; b = { address = \"localhost\"; }; };", 1,
	  "listener \"b\" cannot have address \"localhost\"" },
	{ "listeners = { a = { address = \"unix:/x\"; port = 1; };\n"
	  "b = { address = \"unix:/x\"; port = 2; }; };",
	  2, "listener \"b\" cannot have" },
	{ "listeners = { a = { address = \"unix:/x/s\"; };\n"
	  "b = { address = \"unix:/x/.//s\"; }; };", 2, "listener \"b\" cannot have" },
	/* the status service beside them */
	{ "address = \"127.0.0.1\";\n\nstatus = {\nport = 11000; };", 4,
	  "the status service cannot have address \"127.0.0.1\", port 11000 beside address "
	  "\"127.0.0.1\" of listener \"main\" (" },
	{ "status = { address = \"localhost\"; };\nlisteners = { a = { port = 1; };\n"
	  "b = { port = 11080; address = \"::\"; }; };", 1,
	  "of listener \"b\" (" },
	{ "status = { address = \"*\"; port = 11000; };", 1, "cannot have address \"*\", port 11000" },
	/* files that are written to in other ways */
	{ "deliver = \"f\";\npid_file = \"/x/f\"; sinks = { f = { type = \"file\"; "
	  "path = \"/x//f\"; }; };", 2, "\"pid_file\" is the file of sink \"f\" (" },
	{ "log = {\ntarget = \"/x/f\"; }; sinks = { f = { type = \"file\"; path = \"/x/f\"; }; };", 2,
	  "\"target\" is the file of sink \"f\" (" },
	{ "log = { target = \"/x/f\"; };\npid_file = \"/x/./f\";", 2,
	  "\"pid_file\" is the file that the log goes to (" },
};

START_TEST(collision)
{
	struct config_errors errors;
	struct config *config = config_file_load(taken[_i].text, &errors);

	ck_assert_msg(config == NULL, "accepted: %s", taken[_i].text);
	if (errors.count != 1)
		config_errors_print(&errors, stderr);
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_int_eq(errors.exit_code, 78);
	ck_assert_msg(strstr(errors.items[0].text, taken[_i].said) != NULL, "%s: %s",
		      taken[_i].text, errors.items[0].text);
	ck_assert_int_eq(errors.items[0].line, taken[_i].line);
	config_errors_free(&errors);
}
END_TEST

/* What looks alike and yet can all be had. */
static const char *const apart[] = {
	"listeners = { a = { port = 0; }; b = { port = 0; }; };",
	"listeners = { a = { address = \"127.0.0.1\"; }; b = { address = \"::1\"; }; };",
	"listeners = { a = { address = \"0.0.0.0\"; }; b = { address = \"::\"; }; };",
	"listeners = { a = { port = 1; }; b = { address = \"unix:/x\"; port = 1; }; };",
	"listeners = { a = { address = \"fe80::1%a\"; }; b = { address = \"fe80::1%b\"; }; };",
	"listeners = { a = { address = \"127.0.0.1\"; }; b = { address = \"127.0.0.2\"; }; };",
	"listeners = { a = { address = \"unix:/x/s\"; }; b = { address = \"unix:/x/s/s\"; }; };",
	"port = 0; status = { port = 0; };",
	"address = \"127.0.0.1\"; port = 11080; status = { address = \"::1\"; };",
	"address = \"unix:/x\"; port = 11080; status = { };",
	"status = false; port = 11080;",
	"log = { target = \"/dev/null\"; }; sinks = { f = { type = \"file\"; path = \"/dev/null\"; }; };",
	"pid_file = \"/x/f\"; log = { target = \"/x/g\"; };",
	"pid_file = \"/x/f\"; sinks = { f = { type = \"file\"; path = \"/x/h\"; }; };",
};

START_TEST(no_collision)
{
	struct config_errors errors;
	struct config *config = config_file_load(apart[_i], &errors);

	ck_assert_msg(config != NULL, "refused: %s", apart[_i]);
	config_unref(config);
}
END_TEST

/* All of very many, in their order. */
START_TEST(errors_by_the_dozen)
{
	char text[100 * 12] = "", expected[40];
	struct config_errors errors;
	size_t i, n = 0;

	for (i = 0; i < 100; i++)
		n += (size_t)snprintf(text + n, sizeof text - n, "q%zu = 1;\n", i);
	ck_assert_ptr_null(config_file_load(text, &errors));
	ck_assert_uint_eq(errors.count, 100);
	for (i = 0; i < 100; i++) {
		snprintf(expected, sizeof expected, "unknown setting \"q%zu\"", i);
		ck_assert_int_eq(errors.items[i].line, (int)i + 1);
		ck_assert_str_eq(errors.items[i].text, expected);
	}
	config_errors_free(&errors);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("config_place");
	TCase *tc = tcase_create("config_place");

	tcase_add_loop_test(tc, collision, 0, sizeof taken / sizeof taken[0]);
	tcase_add_loop_test(tc, no_collision, 0, sizeof apart / sizeof apart[0]);
	tcase_add_test(tc, errors_by_the_dozen);
	suite_add_tcase(suite, tc);
	return unit_run(suite);
}
