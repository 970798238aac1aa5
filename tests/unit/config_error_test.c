/*
 * config_error: what is said of bad files, and that nothing else happens.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"
#include "config_file.h"
#include "unit.h"

/* A text and what its one error says: "LINE: TEXT", with part of the text. */
static const struct {
	const char *text;
	int line;
	const char *said;
} errors_said[] = {
	/* names */
	{ "prot = 1;", 1, "unknown setting \"prot\" (did you mean \"port\"?)" },
	{ "\n\nbaklog = 1;", 3, "unknown setting \"baklog\" (did you mean \"backlog\"?)" },
	{ "ferming = 1;", 1, "(did you mean \"framing\"?)" },
	{ "xyzzy = { a = 1; };", 1, "unknown setting \"xyzzy\"" },
	{ "path = \"/x\";", 1, "which stands in a sink" },
	{ "listeners = { a = { workers = 1; }; };", 1, "which stands at the top level" },
	{ "target = \"stderr\";", 1, "which stands in the group \"log\"" },
	{ "hosts = \"a\";", 1, "which stands in the group \"status\"" },
	{ "replicas = 1;", 1, "which stands in the group \"create\" of a sink" },
	{ "log = { backlog = 1; };", 1, "which stands at the top level or in a listener" },
	{ "log = { levle = \"info\"; };", 1, "(did you mean \"level\"?)" },
	{ "sinks = { a = { type = \"file\"; path = \"/x\"; snyc = true; }; };", 1,
	  "(did you mean \"sync\"?)" },
	{ "sinks = { a = { type = \"console\"; path = \"/x\"; }; };", 1,
	  "\"path\" is no setting of a sink of type \"console\"; only \"file\" has it" },
	{ "sinks = { a = { type = \"console\"; mode = 0640; }; };", 1,
	  "only \"file\" and \"spool\" has it" },
	{ "sinks = { a = { }; };", 1, "sink \"a\" lacks \"type\"; expected \"console\"" },
	{ "sinks = { a = { type = \"file\"; }; };", 1, "sink \"a\" lacks \"path\"" },
	{ "sinks = { a = { type = \"spool\"; }; };", 1, "sink \"a\" lacks \"directory\"" },
	/* types */
	{ "port = \"1\";", 1, "\"port\" is the string \"1\"; expected an integer" },
	{ "port = 1.5;", 1, "\"port\" is the number 1.5; expected an integer from 0 to 65535" },
	{ "port = true;", 1, "\"port\" is true" },
	{ "port = { };", 1, "\"port\" is a group" },
	{ "keepalive = 1;", 1, "\"keepalive\" is 1; expected true or false" },
	{ "keepalive = \"yes\";", 1, "expected true or false" },
	{ "framing = 1;", 1, "\"framing\" is 1; expected \"eof\"" },
	{ "framing = \"lines\";", 1, "(did you mean \"line\"?)" },
	{ "framing = line;", 1, "\"line\" is no value; strings stand in quotes" },
	{ "log = \"syslog\";", 1, "\"log\" is the string \"syslog\"; expected a group" },
	{ "log = { target = \"sysolg\"; };", 1, "(did you mean \"syslog\"?)" },
	{ "listeners = ( { port = 1; } );", 1, "\"listeners\" is a list; expected a group" },
	{ "listeners = { a = 1; };", 1, "\"a\" is 1; expected a group" },
	{ "listeners = { };", 1, "\"listeners\" is empty" },
	{ "sinks = [ ];", 1, "\"sinks\" is an array; expected a group" },
	{ "sinks = { a = \"console\"; };", 1, "\"a\" is the string \"console\"" },
	{ "pid_file = \"\";", 1, "expected an absolute path" },
	{ "status = { hosts = 1; };", 1, "expected a host's name (\"cistern.example.com\")" },
	{ "status = { hosts = \"a b\"; };", 1, "\"hosts\" is \"a b\"; expected a host's name alone" },
	{ "status = { address = \"unix:/x\"; };", 1, "\"address\" is \"unix:/x\"; expected \"*\"" },
	{ "status = { address = \"here\"; };", 1, "\"address\" is \"here\"; expected \"*\"" },
	{ "deliver = 1;", 1, "\"deliver\" is 1; expected the name of a sink, or a list" },
	{ "incomplete = 1;", 1, "\"incomplete\" is 1; expected the name of a sink" },
	{ "sinks = { a = { type = \"command\"; }; };", 1,
	  "sink \"a\" lacks \"argv\"; expected a list of strings: a program's absolute path" },
	{ "sinks = { a = { type = \"file\"; path = \"/x\"; mode = \"88\"; }; };", 1,
	  "expected permissions as an octal number" },
	/* ranges */
	{ "port = 65536;", 1, "\"port\" is 65536; expected an integer from 0 to 65535" },
	{ "port = -1;", 1, "\"port\" is -1" },
	{ "memory_limit = 1;", 1, "of at least \"64K\"" },
	{ "idle_timeout = 1e+9;", 1, "\"idle_timeout\" is the number 1e+09" },
	{ "backlog = 0;", 1, "expected an integer from 1 to 2147483647" },
	{ "buffer_size = 255;", 1, "from 256 to \"16M\"" },
	{ "buffer_size = \"17M\";", 1, "from 256 to \"16M\"" },
	{ "max_in_flight = 0;", 1, "from 1 to 1000000" },
	{ "idle_timeout = -1;", 1, "\"idle_timeout\" is -1" },
	{ "idle_timeout = -0.5;", 1, "\"idle_timeout\" is the number -0.5" },
	{ "idle_timeout = \"366d\";", 1, "from 0 to \"365d\"" },
	{ "idle_timeout = 9223372036854775807L;", 1, "expected a duration" },
	{ "framing = \"length\"; length_bytes = 3;", 1, "expected 1, 2, 4 or 8" },
	{ "sinks = { a = { type = \"file\"; path = \"/x\"; mode = 0800; }; };", 1,
	  "\"mode\" is 800" },
	{ "sinks = { a = { type = \"file\"; path = \"/x\"; mode = 0x1a0; }; };", 1, "\"mode\" is" },
	/* integers that libconfig wraps, trap of 1.5 */
	{ "\nmemory_limit = 5000000000;", 2,
	  "5000000000 does not fit into 32 bits; write it as 5000000000L" },
	{ "port = 2147483648;", 1, "2147483648 does not fit into 32 bits" },
	{ "port = -2147483649;", 1, "does not fit into 32 bits" },
	{ "memory_limit = 0xffffffff;", 1, "0xffffffff does not fit into 32 bits" },
	{ "memory_limit = 9223372036854775808;", 1, "does not fit into 64 bits" },
	{ "memory_limit = 9223372036854775808L;", 1, "does not fit into 64 bits" },
	{ "memory_limit = 0xffffffffffffffffL;", 1, "does not fit into 64 bits" },
	/* framings */
	{ "framing = \"delimiter\";", 1, "lacks \"delimiter\"" },
	{ "delimiter = \";\";", 1, "\"delimiter\" is for framing = \"delimiter\"" },
	{ "framing = \"line\"; quiet_timeout = 1;", 1,
	  "\"quiet_timeout\" is for framing = \"eof\"" },
	{ "framing = \"line\";\nlisteners = { a = { length_bytes = 2; }; };", 2,
	  "\"length_bytes\" is for framing = \"length\", and the framing here is \"line\"" },
	{ "delimiter = \";\";\nlisteners = { a = { framing = \"line\"; }; };", 1,
	  "\"delimiter\" is for framing = \"delimiter\", which no listener has" },
	{ "framing = \"delimiter\";\nlisteners = {\na = { }; };", 3, "lacks \"delimiter\"" },
	{ "framing = \"delimiter\"; delimiter = \"\";", 1, "\"delimiter\" is empty" },
	{ "framing = \"delimiter\"; delimiter = \"a\\\\q\";", 1, "\"delimiter\" has a backslash" },
	{ "framing = \"delimiter\"; delimiter = \"a\\\\\";", 1, "\"delimiter\" has a backslash" },
	{ "framing = \"delimiter\"; delimiter = \"\\\\x0\";", 1, "\"delimiter\" has a backslash" },
	{ "framing = \"delimiter\"; delimiter = \"\\\\400\";", 1, "\"delimiter\" has a backslash" },
	{ "framing = \"delimiter\"; delimiter = \"a\\x00b\";", 1, "a string cannot hold a NUL" },
	/* addresses */
	{ "address = \"example.org\";", 1, "not a host's name" },
	{ "address = [ ];", 1, "\"address\" is an empty list" },
	{ "address = ( );", 1, "\"address\" is an empty list" },
	{ "address = [ 1 ];", 1, "\"address\" is 1" },
	{ "address = ( \"*\",\n\"x\" );", 2, "\"address\" is \"x\"" },
	{ "address = \"unix:sock\";", 1, "an absolute path" },
	{ "address = [ \"::1\", \"::1\" ];", 1, "\"address\" has \"::1\" twice" },
	/* sinks by name */
	{ "deliver = \"nowhere\";", 1, "\"deliver\" names \"nowhere\", which is no sink" },
	{ "deliver = [ ];", 1, "\"deliver\" is an empty list" },
	{ "deliver = [ \"console\", \"console\" ];", 1, "\"deliver\" has \"console\" twice" },
	{ "incomplete = \"consoel\";", 1, "(did you mean \"console\"?)" },
	{ "sinks = { s = { type = \"spool\"; directory = \"/s\";\nforward = \"lables\"; };\n"
	  "labels = { type = \"file\"; path = \"/x\"; }; };", 2,
	  "\"forward\" names \"lables\", which is no sink (did you mean \"labels\"?)" },
	{ "sinks = { s = { type = \"spool\"; directory = \"/s\";\nforward = \"s\"; }; };", 2,
	  "\"forward\" names \"s\", which is a spool (this one)" },
	{ "sinks = { t = { type = \"spool\"; directory = \"/s\"; };\n"
	  "s = { type = \"spool\"; directory = \"/s\"; forward = \"console\"; }; };", 2,
	  "is in the directory of sink \"t\"" },
	{ "sinks = { s = { type = \"spool\"; directory = \"/s\";\nretry_max = \"500ms\"; }; };", 2,
	  "\"retry_max\" is less than \"retry_min\"" },
	{ "deliver = \"nowhere\";\nlisteners = { a = { }; b = { port = 1; }; };", 1, "nowhere" },
	{ "sinks = { s = { type = \"spool\"; directory = \"/s\"; };\n"
	  "a = { type = \"file\"; path = \"/x\"; }; b = { type = \"console\"; };\n"
	  "c = { type = \"file\"; path = \"/x\"; }; };",
	  3, "of sink \"a\"" },
	{ "sinks = { a = { type = \"file\"; path = \"/x\"; };\nb = { type = \"file\"; path = "
	  "\"/x\"; }; };",
	  2, "sink \"b\" appends to the file of sink \"a\"" },
	/* paths */
	{ "pid_file = \"run/pid\";", 1, "expected an absolute path" },
	{ "spill_directory = \"x\";", 1, "expected an absolute path" },
	{ "sinks = { a = { type = \"spool\"; directory = \"x\"; }; };", 1,
	  "expected an absolute path" },
	/* syntax */
	{ "port = 1;\nport = 2;", 2, "duplicate setting name" },
	{ "port == 1;", 1, "syntax error" },
	{ "listeners = {\na = { port = 1; };\n", 1, "the { that stands here has no end" },
	{ "x = 1;\ny = [ 1,\n2", 2, "the [ that stands here has no end" },
	{ "}", 1, "syntax error" },
	{ "port = 1 \"x\";", 1, "syntax error: a string where none can be" },
	{ "port = 1, \"x\";", 1, "syntax error: a string where none can be" },
	{ "address = [ \"x\", 1 ];", 1, "mismatched element type" },
	{ "\npid_file = \"/x\n\n", 2, "the string that begins here has no end" },
	{ "port = 1;\n/* oh\n\n", 2, "the comment that begins here has no end" },
	{ "@include \"no\\\\such \\\"file\"", 1, "cannot include" },
	{ "a = @include \"x\";", 1, "expected @include \"FILE\" on a line of its own" },
	{ "@include x", 1, "expected @include \"FILE\"" },
	{ "@include \"\"", 1, "expected @include \"FILE\"" },
	{ "\n@include \"nothing\"", 2, "cannot include" },
	{ "port = 1; \xff", 1, "syntax error" },
};

START_TEST(one_error)
{
	struct config_errors errors;
	struct config *config = config_file_load(errors_said[_i].text, &errors);

	ck_assert_msg(config == NULL, "accepted: %s", errors_said[_i].text);
	if (errors.count != 1)
		config_errors_print(&errors, stderr);
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_int_eq(errors.exit_code, 78);
	ck_assert_msg(strstr(errors.items[0].text, errors_said[_i].said) != NULL, "%s: %s",
		      errors_said[_i].text, errors.items[0].text);
	ck_assert_int_eq(errors.items[0].line, errors_said[_i].line);
	ck_assert_ptr_nonnull(strstr(errors.items[0].file, "/cistern.conf"));
	config_errors_free(&errors);
}
END_TEST

/* Integers that are none of libconfig's business, and one that just fits. */
START_TEST(integers_elsewhere)
{
	struct config_errors errors;
	struct config *config =
		config_file_load("# 5000000000\n// 5000000000\n/* 5000000000 */\n"
				 "pid_file = \"/5000000000\"; /* \" */\n"
				 "backlog = 2147483647; memory_limit = 5000000000L;\n"
				 "idle_timeout = 1e3; message_timeout = .5;\n"
				 "listeners = { x5000000000 = { }; };",
				 &errors);

	config_errors_print(&errors, stderr);
	ck_assert_ptr_nonnull(config);
	ck_assert_int_eq(config->listeners[0].backlog, 2147483647);
	ck_assert_uint_eq(config->memory_limit, UINT64_C(5000000000));
	ck_assert_uint_eq(config->listeners[0].idle_timeout, UINT64_C(1000000000));
	ck_assert_uint_eq(config->listeners[0].message_timeout, 500000);
	config_unref(config);
}
END_TEST

START_TEST(all_errors_in_order)
{
	static const char *const said[] = { "70000",    "backlog",          "5000000000",
					    "nowhere",  "\"idle_timeout\"", "\"level\"",
					    "\"type\"", "\"address\"" };
	struct config_errors errors;
	struct config *config = config_file_load("port = 70000;\n"
						 "baklog = 5;\n"
						 "max_messages = 5000000000;\n"
						 "deliver = [ \"nowhere\" ];\n"
						 "idle_timeout = \"soon\";\n"
						 "log = {\nlevel = 1; };\n"
						 "sinks = { a = {\ntype = \"x\"; }; };\n"
						 "listeners = { a = {\naddress = 1; }; };\n",
						 &errors);
	static const int lines[] = { 1, 2, 3, 4, 5, 7, 9, 11 };

	ck_assert_ptr_null(config);
	config_errors_print(&errors, stderr);
	ck_assert_uint_eq(errors.count, 8);
	for (size_t i = 0; i < 8; i++) {
		ck_assert_int_eq(errors.items[i].line, lines[i]);
		ck_assert_msg(strstr(errors.items[i].text, said[i]) != NULL, "%s",
			      errors.items[i].text);
	}
	config_errors_free(&errors);
}
END_TEST

START_TEST(errors_are_printed_with_their_place)
{
	struct config_errors errors;
	char *text, *expected;
	size_t size;
	FILE *to;

	ck_assert_ptr_null(config_file_load("\nport = \"\\x1b[31m\\r\";", &errors));
	ck_assert_int_ne(asprintf(&expected, "%s:2: \"port\" is the string \"\\x1B[31m\\x0D\"; ",
				  errors.items[0].file),
			 -1);
	to = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(to);
	config_errors_print(&errors, to);
	ck_assert_int_eq(fclose(to), 0);
	ck_assert_msg(strncmp(text, expected, strlen(expected)) == 0, "%s", text);
	config_errors_free(&errors);
	free(expected);
	free(text);
}
END_TEST

START_TEST(file_that_cannot_be_read)
{
	struct config_files files;
	struct config_errors errors;
	const char *path;

	config_files_open(&files);
	ck_assert_ptr_null(config_load(files.directory, &errors));
	ck_assert_int_eq(errors.exit_code, 78);
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_int_eq(errors.items[0].line, 0);
	ck_assert_ptr_nonnull(strstr(errors.items[0].text, strerror(EISDIR)));
	config_errors_free(&errors);

	path = config_files_add(&files, "cistern.conf", "", 0);
	ck_assert_int_eq(chmod(path, 0), 0);
	if (geteuid() != 0) {
		ck_assert_ptr_null(config_load(path, &errors));
		ck_assert_int_eq(errors.exit_code, 77);
		config_errors_free(&errors);
	}
	config_files_close(&files);

	ck_assert_ptr_null(config_load("/nonexistent/cistern.conf", &errors));
	ck_assert_int_eq(errors.exit_code, 78);
	ck_assert_str_eq(errors.items[0].file, "/nonexistent/cistern.conf");
	ck_assert_ptr_nonnull(strstr(errors.items[0].text, strerror(ENOENT)));
	config_errors_free(&errors);
}
END_TEST

static const char *
add(struct config_files *files, const char *name, const char *text)
{
	return config_files_add(files, name, text, strlen(text));
}

/* Each include is looked for beside the file that has it. */
START_TEST(includes)
{
	struct config_files files;
	struct config_errors errors;
	struct config *config;

	config_files_open(&files);
	add(&files, "deep/b.conf", "backlog = 7;");
	add(&files, "deep/a.conf",
	    "\xef\xbb\xbfport = 5;\n@include \"b.conf\"\nbuffer_size = 300;");
	config = config_load(add(&files, "cistern.conf",
				 "workers = 1;\n \t@include \"deep/a.conf\" ;;"
				 "\nlisteners = {\n@include \"l.conf\"\n};"),
			     &errors);
	ck_assert_ptr_null(config);
	ck_assert_int_eq(errors.items[0].line, 4);
	config_errors_free(&errors);

	add(&files, "l.conf", "\n\nl = { };");
	config = config_load(add(&files, "other.conf",
				 "workers = 1;\n \t@include \"deep/a.conf\" "
				 "\nlisteners = {\n@include \"l.conf\"\n};"),
			     &errors);
	config_errors_print(&errors, stderr);
	ck_assert_ptr_nonnull(config);
	ck_assert_int_eq(config->listeners[0].port, 5);
	ck_assert_int_eq(config->listeners[0].backlog, 7);
	ck_assert_uint_eq(config->listeners[0].buffer_size, 300);
	ck_assert_uint_eq(config->files.count, 4);
	ck_assert_ptr_nonnull(strstr(config->listeners[0].place.file, "/l.conf"));
	ck_assert_int_eq(config->listeners[0].place.line, 3);
	config_unref(config);
	config_files_close(&files);
}
END_TEST

START_TEST(errors_in_includes_name_their_file)
{
	static const struct {
		const char *file;
		int line;
	} places[] = { { "/cistern.conf", 1 },
		       { "/a.conf", 2 },
		       { "/b.conf", 1 },
		       { "/a.conf", 4 },
		       { "/cistern.conf", 3 } };
	struct config_files files;
	struct config_errors errors;

	config_files_open(&files);
	add(&files, "b.conf", "port = 5000000000;");
	add(&files, "a.conf", "\nerr1 = 1;\n@include \"b.conf\"\nerr2 = 2;");
	ck_assert_ptr_null(config_load(
		add(&files, "cistern.conf", "err3 = 1;\n@include \"a.conf\"\nerr4 = 1;"), &errors));
	ck_assert_uint_eq(errors.count, 5);
	for (size_t i = 0; i < 5; i++) {
		ck_assert_ptr_nonnull(strstr(errors.items[i].file, places[i].file));
		ck_assert_int_eq(errors.items[i].line, places[i].line);
	}
	config_errors_free(&errors);

	/* libconfig's own errors, too. */
	add(&files, "c.conf", "\nport = = 1;");
	ck_assert_ptr_null(
		config_load(add(&files, "d.conf", "workers = 1;\n@include \"c.conf\"\n"), &errors));
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_ptr_nonnull(strstr(errors.items[0].file, "/c.conf"));
	ck_assert_int_eq(errors.items[0].line, 2);
	config_errors_free(&errors);
	config_files_close(&files);
}
END_TEST

START_TEST(includes_without_end)
{
	struct config_files files;
	struct config_errors errors;
	struct config *config;
	char name[16], text[32];

	config_files_open(&files);
	add(&files, "a.conf", "@include \"b.conf\"");
	ck_assert_ptr_null(config_load(add(&files, "b.conf", "\n@include \"a.conf\""), &errors));
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_ptr_nonnull(strstr(errors.items[0].text, "includes itself"));
	ck_assert_ptr_nonnull(strstr(errors.items[0].file, "/a.conf"));
	config_errors_free(&errors);

	for (int i = 0; i < 12; i++) {
		snprintf(name, sizeof name, "%d", i);
		snprintf(text, sizeof text, "@include \"%d\"", i + 1);
		add(&files, name, i < 11 ? text : "");
	}
	ck_assert_ptr_null(config_load(files.paths[2], &errors));
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_ptr_nonnull(strstr(errors.items[0].text, "nested more than 10 deep"));
	config_errors_free(&errors);
	config = config_load(files.paths[3], &errors);
	ck_assert_ptr_nonnull(config);
	config_unref(config);
	config_files_close(&files);
}
END_TEST

/* Each file includes the one before it twice. */
START_TEST(includes_that_multiply)
{
	struct config_files files;
	struct config_errors errors;
	char name[16], text[64];
	const char *path = NULL;

	config_files_open(&files);
	for (int i = 0; i < 10; i++) {
		snprintf(name, sizeof name, "%d", i);
		snprintf(text, sizeof text, "@include \"%d\"\n@include \"%d\"", i - 1, i - 1);
		path = add(&files, name, i == 0 ? "#" : text);
	}
	ck_assert_ptr_null(config_load(path, &errors));
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_ptr_nonnull(strstr(errors.items[0].text, "more than 1000 files"));
	config_errors_free(&errors);
	config_files_close(&files);
}
END_TEST

/* A byte many times over, between two texts: neither crash nor leak. */
static const struct {
	const char *before;
	char byte;
	size_t count;
	const char *after;
	bool good;
} floods[] = {
	{ "x = ", '(', 200000, "", false },
	{ "x = ", '[', 200000, "", false },
	{ "", '{', 100, "", false },
	{ "", '}', 200000, "", false },
	{ "#", 'x', 1 << 20, "", true },
	{ "//", '"', 3, "", true },
	{ "pid_file = \"/", 'x', 1 << 20, "\";", false },
	{ "", 'x', 1 << 20, " = 1;", false },
	{ "port = 1", '1', 1 << 20, ";", false },
	{ "framing = \"delimiter\"; delimiter = \"", 'x', 1025, "\";", false },
	{ "framing = \"delimiter\"; delimiter = \"", 'x', 1024, "\";", true },
	{ "", '\0', 1, "", false },
	{ "port = 1;", '\0', 1, "backlog = 0;", false },
	{ "", '\n', 1 << 20, "port = 1;", true },
	{ "", ' ', (size_t)17 << 20, "", false },
	{ "listeners = { ", 'x', 65, " = { }; };", false },
	{ "listeners = { ", 'x', 64, " = { }; };", true },
};

START_TEST(flood)
{
	size_t before = strlen(floods[_i].before), after = strlen(floods[_i].after);
	size_t len = before + floods[_i].count + after;
	struct config_files files;
	struct config_errors errors;
	struct config *config;
	char *bytes = malloc(len);

	ck_assert_ptr_nonnull(bytes);
	memcpy(bytes, floods[_i].before, before);
	memset(bytes + before, floods[_i].byte, floods[_i].count);
	memcpy(bytes + before + floods[_i].count, floods[_i].after, after);
	config_files_open(&files);
	config = config_load(config_files_add(&files, "cistern.conf", bytes, len), &errors);
	ck_assert_int_eq(config != NULL, floods[_i].good);
	ck_assert_int_eq(errors.count != 0, !floods[_i].good);
	config_unref(config);
	config_errors_free(&errors);
	config_files_close(&files);
	free(bytes);
}
END_TEST

/* Files of chance from the language's own words. */
START_TEST(words_of_chance)
{
	static const char *const words[] = {
		"port",
		" = ",
		"=",
		";",
		";\n",
		"{",
		"}",
		"(",
		")",
		"[",
		"]",
		",",
		"\"",
		"\"x\"",
		"\\",
		"1",
		"-1",
		"0x10",
		"5000000000",
		"1.5",
		"1e9",
		"L",
		"true",
		"framing",
		"delimiter",
		"\"delimiter\"",
		"listeners",
		"sinks",
		"a",
		"b",
		"type",
		"\"file\"",
		"path",
		"\"/x\"",
		"log",
		"level",
		"deliver",
		"address",
		"\"*\"",
		"/*",
		"*/",
		"#",
		"//",
		"\n",
		" ",
		"@include",
		"\n@include \"x\"",
		"\\x00",
		"\xff",
		"\x01",
		"incomplete",
		"\"console\"",
		"port = 1;",
		"listeners = { a = { port = 0; }; };",
		"\"a\" \"b\"",
		"quiet_timeout = 1;",
	};
	struct config_errors errors;
	struct config *config;
	char text[1024];
	size_t good = 0;

	srand((unsigned)_i);
	for (int round = 0; round < 50; round++) {
		int n = 1 + rand() % 40;
		size_t len = 0;

		for (int i = 0; i < n; i++)
			len += (size_t)snprintf(
				text + len, sizeof text - len, "%s",
				words[(size_t)rand() % (sizeof words / sizeof words[0])]);
		config = config_file_load(text, &errors);
		good += config != NULL;
		ck_assert_int_eq(config == NULL, errors.count > 0);
		config_unref(config);
		config_errors_free(&errors);
	}
	ck_assert_uint_lt(good, 50);
}
END_TEST

static Suite *
config_error_suite(void)
{
	Suite *suite = suite_create("config_error");
	TCase *tc = tcase_create("config_error");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, one_error, 0, sizeof errors_said / sizeof errors_said[0]);
	tcase_add_test(tc, integers_elsewhere);
	tcase_add_test(tc, all_errors_in_order);
	tcase_add_test(tc, errors_are_printed_with_their_place);
	tcase_add_test(tc, file_that_cannot_be_read);
	tcase_add_test(tc, includes);
	tcase_add_test(tc, errors_in_includes_name_their_file);
	tcase_add_test(tc, includes_without_end);
	tcase_add_test(tc, includes_that_multiply);
	tcase_add_loop_test(tc, flood, 0, sizeof floods / sizeof floods[0]);
	tcase_add_loop_test(tc, words_of_chance, 0, 40);
	suite_add_tcase(suite, tc);
	return suite;
}

int
main(void)
{
	return unit_run(config_error_suite());
}
