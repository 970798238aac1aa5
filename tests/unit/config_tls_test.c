/*
 * config_tls_test: the group "tls" of a listener.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config_file.h"
#include "unit.h"

#define FILES "certificate = \"/c\"; key = \"/k\";"

static struct config_files files;

static void
setup(void)
{
	config_files_open(&files);
}

static void
teardown(void)
{
	config_files_close(&files);
}

#ifdef HAVE_OPENSSL
static struct config *
load(const char *text)
{
	struct config_errors errors;
	struct config *config = config_load(
		config_files_add(&files, files.count == 0 ? "f.conf" : "again.conf", text, strlen(text)),
		&errors);

	config_errors_print(&errors, stderr);
	ck_assert_ptr_nonnull(config);
	config_errors_free(&errors);
	return config;
}

/* What is dumped is read back to the same thing. */
static struct config *
again(struct config *config)
{
	char *text = NULL;
	size_t size;
	FILE *to = open_memstream(&text, &size);

	ck_assert_int_eq(config_dump(config, to), 0);
	fclose(to);
	config_unref(config);
	config = load(text);
	free(text);
	return config;
}

START_TEST(inheritance)
{
	struct config *config = load(
		"tls = { " FILES " handshake_timeout = 3; min_version = \"1.3\"; };\n"
		"listeners = { a = { port = 1; }; b = { port = 2;\n"
		"tls = { certificate = \"/d\"; key = \"/l\"; client_ca = \"/a\"; ciphers = \"HIGH\";\n"
		"        require_client_certificate = true; }; };\n"
		"c = { port = 3; tls = false; }; };");

	for (int round = 0; round < 2; round++) {
		const struct config_tls *a = &config->listeners[0].tls;
		const struct config_tls *b = &config->listeners[1].tls;

		ck_assert_str_eq(a->certificate, "/c");
		ck_assert_str_eq(a->key, "/k");
		ck_assert_ptr_null(a->client_ca);
		ck_assert(!a->require_client_certificate);
		ck_assert(a->only_1_3);
		ck_assert_str_eq(a->ciphers, "ECDHE+AESGCM:ECDHE+CHACHA20");
		ck_assert_uint_eq(a->handshake_timeout, 3000000);
		ck_assert_str_eq(b->certificate, "/d");
		ck_assert_str_eq(b->key, "/l");
		ck_assert_str_eq(b->client_ca, "/a");
		ck_assert(b->require_client_certificate);
		ck_assert(!b->only_1_3); /* nothing of the group above */
		ck_assert_str_eq(b->ciphers, "HIGH");
		ck_assert_uint_eq(b->handshake_timeout, 10000000);
		ck_assert_ptr_null(config->listeners[2].tls.certificate);
		if (round == 0) {
			ck_assert_int_eq(a->place.line, 1);
			ck_assert_int_eq(b->place.line, 3);
			config = again(config);
		}
	}
	config_unref(config);
}
END_TEST

static const struct {
	const char *text;
	int line;
	const char *expected;
} wrong[] = {
	{ "\ntls = { };", 2, "\"tls\" lacks \"certificate\"; expected certificate = an absolute path" },
	{ "\ntls = { certificate = \"/c\"; };", 2, "\"tls\" lacks \"key\"" },
	{ "listeners = { a = {\ntls = { key = \"/k\"; }; }; };", 2, "\"tls\" lacks \"certificate\"" },
	{ "tls = { key = \"k\"; certificate = \"/c\"; };", 1, "\"key\" is the string \"k\"; expected" },
	{ "tls = { " FILES "\nrequire_client_certificate = true; };", 2, "lacks \"client_ca\"" },
	{ "tls = { " FILES "\nmin_version = \"1.1\"; };", 2, "expected \"1.2\" or \"1.3\"" },
	{ "tls = { " FILES "\nhandshake_timeout = 0; };", 2, "from \"1ms\" to \"365d\"" },
	{ "tls = { " FILES "\nciphers = \"\"; };", 2, "a string that is not empty" },
	{ "tls = { " FILES "\ncertficate = \"/c\"; };", 2, "unknown setting \"certficate\"" },
	{ "tls = true;", 1, "expected a group" },
	{ "tls = \"/c\";", 1, "expected a group" },
	{ "certificate = \"/c\";", 1, "which stands in a group \"tls\"" },
};

START_TEST(errors_have_their_place)
{
	struct config_errors errors;
	struct config *config = config_load(
		config_files_add(&files, "f.conf", wrong[_i].text, strlen(wrong[_i].text)), &errors);

	ck_assert_ptr_null(config);
	ck_assert_msg(strstr(errors.items[0].text, wrong[_i].expected) != NULL, "%s: \"%s\" lacks \"%s\"",
		      wrong[_i].text, errors.items[0].text, wrong[_i].expected);
	ck_assert_int_eq(errors.items[0].line, wrong[_i].line);
	config_errors_free(&errors);
}
END_TEST

#else

START_TEST(a_build_without_tls_says_so)
{
	struct config_errors errors;
	static const char text[] = "\ntls = { " FILES " };";
	struct config *config = config_load(
		config_files_add(&files, "f.conf", text, sizeof(text) - 1), &errors);

	ck_assert_ptr_null(config);
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_int_eq(errors.items[0].line, 2);
	ck_assert_ptr_nonnull(strstr(errors.items[0].text, "built without TLS"));
	config_errors_free(&errors);
}
END_TEST

#endif

int
main(void)
{
	Suite *suite = suite_create("config_tls");
	TCase *tcase = tcase_create("tls");

	tcase_add_checked_fixture(tcase, setup, teardown);
#ifdef HAVE_OPENSSL
	tcase_add_test(tcase, inheritance);
	tcase_add_loop_test(tcase, errors_have_their_place, 0,
			    (int)(sizeof(wrong) / sizeof(wrong[0])));
#else
	tcase_add_test(tcase, a_build_without_tls_says_so);
#endif
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
