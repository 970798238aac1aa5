/*
 * config: good files, what they become, how they are printed and read back.
 * What is wrong with bad ones is for config_error_test.
 */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "config/config.h"
#include "config/table.h"
#include "config/types.h"
#include "config_file.h"
#include "message/format.h"
#include "unit.h"

START_TEST(empty_file_is_all_defaults)
{
	struct config *config = config_file_read("");
	const struct config_listener *main = &config->listeners[0];

	ck_assert_int_eq(config->workers, 0);
	ck_assert_ptr_null(config->pid_file);
	ck_assert_uint_eq(config->shutdown_timeout, 30000000);
	ck_assert_uint_eq(config->memory_limit, 256 << 20);
	ck_assert_ptr_nonnull(config->spill_directory);
	ck_assert(!config->spill_directory_given);
	ck_assert_int_eq(config->log.target, CONFIG_LOG_STDERR);
	ck_assert_int_eq(config->log.level, LOG_LEVEL_INFO);
	ck_assert(!config->log.json);

	ck_assert_uint_eq(config->n_listeners, 1);
	ck_assert_str_eq(main->name, "main");
	ck_assert_uint_eq(main->address.count, 1);
	ck_assert_str_eq(main->address.items[0], "*");
	ck_assert_int_eq(main->port, 11000);
	ck_assert_int_eq(main->backlog, 1024);
	ck_assert_uint_eq(main->buffer_size, 65536);
	ck_assert_int_eq(main->framing.kind, FRAMING_EOF);
	ck_assert_ptr_null(main->framing.delimiter);
	ck_assert_uint_eq(main->framing.length_bytes, 4);
	ck_assert_uint_eq(main->framing.max_size, 16 << 20);
	ck_assert_uint_eq(main->max_messages, 0);
	ck_assert_uint_eq(main->max_in_flight, 1024);
	ck_assert_uint_eq(main->idle_timeout, 60000000);
	ck_assert_uint_eq(main->message_timeout, 0);
	ck_assert_uint_eq(main->min_rate, 0);
	ck_assert_uint_eq(main->quiet_timeout, 0);
	ck_assert_ptr_null(main->incomplete);
	ck_assert_int_eq(main->incomplete_to, -1);
	ck_assert_uint_eq(main->max_connections, 0);
	ck_assert_uint_eq(main->max_connections_per_address, 0);
	ck_assert_int_eq(main->reply, CONFIG_REPLY_NONE);
	ck_assert(main->keepalive);
	ck_assert_uint_eq(main->deliver.count, 1);
	ck_assert_uint_eq(main->deliver_to[0], 0);

	ck_assert_uint_eq(config->n_sinks, 1);
	ck_assert_str_eq(config->sinks[0].name, "console");
	ck_assert_int_eq(config->sinks[0].type, CONFIG_SINK_CONSOLE);
	ck_assert_int_eq(config->sinks[0].format, FORMAT_TEXT);
	config_file_check_dump(config);
	config_unref(config);
}
END_TEST

START_TEST(all_settings_are_read)
{
	struct config *config = config_file_read(
		"workers = 3; pid_file = \"/p\"; shutdown_timeout = 1.5; memory_limit = \"1G\";\n"
		"spill_directory = \"/spill\";\n"
		"log = { target = \"/log\"; level = \"debug\"; format = \"json\"; };\n"
		"listeners = { one = {\n"
		"  address = ( \"127.0.0.1\", \"::1\" ); port = 1; backlog = 2;\n"
		"  buffer_size = 256; framing = \"length\"; length_bytes = 8;\n"
		"  length_order = \"little\"; length_includes_header = true;\n"
		"  max_message_size = 5000000000L; max_messages = 4; max_in_flight = 5;\n"
		"  idle_timeout = \"6m\"; message_timeout = \"7h\"; min_rate = \"8K\";\n"
		"  incomplete = \"s\"; max_connections = 9;\n"
		"  max_connections_per_address = 10; reply = \"receipt\"; keepalive = false;\n"
		"  deliver = [ \"s\", \"f\" ]; }; };\n"
		"sinks = { f = { type = \"file\"; path = \"/f\"; format = \"line\"; sync = false;\n"
		"                mode = 0600; };\n"
		"          s = { type = \"spool\"; directory = \"/s\"; mode = \"0660\";\n"
		"                min_free = 0; }; };");
	const struct config_listener *one = &config->listeners[0];

	ck_assert_int_eq(config->workers, 3);
	ck_assert_str_eq(config->pid_file, "/p");
	ck_assert_uint_eq(config->shutdown_timeout, 1500000);
	ck_assert_uint_eq(config->memory_limit, 1 << 30);
	ck_assert_str_eq(config->spill_directory, "/spill");
	ck_assert(config->spill_directory_given);
	ck_assert_int_eq(config->log.target, CONFIG_LOG_FILE);
	ck_assert_str_eq(config->log.path, "/log");
	ck_assert_int_eq(config->log.level, LOG_LEVEL_DEBUG);
	ck_assert(config->log.json);
	ck_assert_str_eq(one->name, "one");
	ck_assert_int_eq(one->place.line, 4);
	ck_assert_str_eq(one->place.file, config->file);
	ck_assert_uint_eq(one->address.count, 2);
	ck_assert_str_eq(one->address.items[1], "::1");
	ck_assert_int_eq(one->port, 1);
	ck_assert_int_eq(one->backlog, 2);
	ck_assert_uint_eq(one->buffer_size, 256);
	ck_assert_int_eq(one->framing.kind, FRAMING_LENGTH);
	ck_assert_uint_eq(one->framing.length_bytes, 8);
	ck_assert(one->framing.length_little);
	ck_assert(one->framing.length_includes_header);
	ck_assert_uint_eq(one->framing.max_size, UINT64_C(5000000000));
	ck_assert_uint_eq(one->max_messages, 4);
	ck_assert_uint_eq(one->max_in_flight, 5);
	ck_assert_uint_eq(one->idle_timeout, 6 * 60 * TYPES_SECOND);
	ck_assert_uint_eq(one->message_timeout, 7 * 3600 * TYPES_SECOND);
	ck_assert_uint_eq(one->min_rate, 8192);
	ck_assert_str_eq(one->incomplete, "s");
	ck_assert_int_eq(one->incomplete_to, 1);
	ck_assert_uint_eq(one->max_connections, 9);
	ck_assert_uint_eq(one->max_connections_per_address, 10);
	ck_assert_int_eq(one->reply, CONFIG_REPLY_RECEIPT);
	ck_assert(!one->keepalive);
	ck_assert_uint_eq(one->deliver.count, 2);
	ck_assert_uint_eq(one->deliver_to[0], 1);
	ck_assert_uint_eq(one->deliver_to[1], 0);
	ck_assert_uint_eq(config->n_sinks, 3);
	ck_assert_int_eq(config->sinks[0].format, FORMAT_LINE);
	ck_assert(!config->sinks[0].sync);
	ck_assert_uint_eq(config->sinks[0].mode, 0600);
	ck_assert_uint_eq(config->sinks[1].mode, 0660);
	ck_assert(config->sinks[1].sync);
	ck_assert_str_eq(config->sinks[1].directory, "/s");
	ck_assert_uint_eq(config->sinks[1].min_free, 0);
	config_file_check_dump(config);
	config_unref(config);
}
END_TEST

START_TEST(top_level_is_the_default_of_listeners)
{
	struct config *config =
		config_file_read("port = 4000; framing = \"delimiter\"; delimiter = \";\"; quiet_timeout = 2;\n"
		     "incomplete = \"console\";\n"
		     "listeners = { a = {}; b = { port = 0; framing = \"eof\"; incomplete = \"\"; "
		     "}; };");
	const struct config_listener *a = &config->listeners[0], *b = &config->listeners[1];

	ck_assert_int_eq(a->port, 4000);
	ck_assert_int_eq(a->framing.kind, FRAMING_DELIMITER);
	ck_assert_uint_eq(a->framing.delimiter_len, 1);
	ck_assert_ptr_nonnull(a->framing.fallback);
	ck_assert_uint_eq(a->quiet_timeout, 0);
	ck_assert_int_eq(a->incomplete_to, 0);
	ck_assert_int_eq(b->port, 0);
	ck_assert_ptr_null(b->framing.delimiter);
	ck_assert_uint_eq(b->quiet_timeout, 2000000);
	ck_assert_ptr_null(b->incomplete);
	config_file_check_dump(config);
	config_unref(config);
}
END_TEST

START_TEST(console_may_be_redefined)
{
	struct config *config = config_file_read("sinks = { console = { type = \"file\"; path = \"/c\"; }; };");

	ck_assert_uint_eq(config->n_sinks, 1);
	ck_assert_int_eq(config->sinks[0].type, CONFIG_SINK_FILE);
	ck_assert_uint_eq(config->listeners[0].deliver_to[0], 0);
	config_unref(config);
}
END_TEST

static const struct {
	const char *text; /* as in the file */
	const char *bytes;
	size_t len;
} delimiters[] = {
	{ "<EOF>", "<EOF>", 5 },
	{ "\\x1c\\r", "\x1c\r", 2 },
	{ "\\\\0", "\0", 1 },
	{ "\\\\x00a\\\\x00", "\0a\0", 3 },
	{ "\\\\r\\\\n\\\\t\\\\\\\\", "\r\n\t\\", 4 },
	{ "\\\\377\\\\17x\\\"", "\377\17x\"", 4 },
	{ "\xc3\xa9\\x7f\\\\xff", "\xc3\xa9\x7f\xff", 4 },
};

START_TEST(delimiter_bytes)
{
	struct config *config;
	char *text;
	int n;

	n = asprintf(&text, "framing = \"delimiter\"; delimiter = \"%s\";", delimiters[_i].text);
	ck_assert_int_ne(n, -1);
	config = config_file_read(text);
	ck_assert_uint_eq(config->listeners[0].framing.delimiter_len, delimiters[_i].len);
	ck_assert_mem_eq(config->listeners[0].framing.delimiter, delimiters[_i].bytes,
			 delimiters[_i].len);
	config_file_check_dump(config);
	config_unref(config);
	free(text);
}
END_TEST

/* Strings and delimiters of chance, made of the nastiest bytes. */
START_TEST(dump_reads_back_whatever_it_holds)
{
	static const char nasty[] = "\"\\\n\r\t\x01\x1f\x7f\xc3\xa9\xff/ ax0{}#@;'%*";
	char path[40] = "/", delimiter[40], *text;
	struct config *config;
	FILE *to;
	size_t size, i, len;

	srand((unsigned)_i);
	len = 1 + (size_t)rand() % 30;
	for (i = 1; i <= len; i++)
		path[i] = nasty[(size_t)rand() % (sizeof nasty - 1)];
	path[i] = '\0';
	for (i = 0; i < len; i++)
		delimiter[i] = rand() % 4 == 0 ? '\0' : nasty[(size_t)rand() % (sizeof nasty - 1)];
	to = open_memstream(&text, &size);
	ck_assert_ptr_nonnull(to);
	fputs("framing = \"delimiter\"; delimiter = ", to);
	types_print_delimiter(to, (unsigned char *)delimiter, len);
	fputs("; address = [ \"*\", ", to);
	types_print_string(to, "unix:/a \"b\"\\\n");
	fputs(" ]; pid_file = ", to);
	types_print_string(to, path);
	fprintf(to, "; idle_timeout = \"%dus\"; max_message_size = %d;", rand() % 100000, rand());
	ck_assert_int_eq(fclose(to), 0);

	config = config_file_read(text);
	ck_assert_str_eq(config->pid_file, path);
	ck_assert_uint_eq(config->listeners[0].framing.delimiter_len, len);
	ck_assert_mem_eq(config->listeners[0].framing.delimiter, delimiter, len);
	config_file_check_dump(config);
	config_unref(config);
	free(text);
}
END_TEST

static const struct {
	const char *text;
	uint64_t value;
	bool good;
} durations[] = {
	{ "0", 0, true },
	{ "1", 1000000, true },
	{ "1.5", 1500000, true },
	{ "250ms", 250000, true },
	{ "0.5ms", 500, true },
	{ "7us", 7, true },
	{ "30s", 30000000, true },
	{ "5m", 300000000, true },
	{ "1.5h", UINT64_C(5400000000), true },
	{ "1d", UINT64_C(86400000000), true },
	{ "0.0000001", 0, false },
	{ "", 0, false },
	{ "s", 0, false },
	{ "-1s", 0, false },
	{ " 1s", 0, false },
	{ "1 s", 0, false },
	{ "1.s", 0, false },
	{ "1M", 0, false },
	{ "99999999999999999999", 0, false },
	{ "999999999999d", 0, false },
};

START_TEST(duration_text)
{
	uint64_t value = 0;

	ck_assert_int_eq(types_duration(durations[_i].text, &value), durations[_i].good);
	if (durations[_i].good)
		ck_assert_uint_eq(value, durations[_i].value);
}
END_TEST

static const struct {
	const char *text;
	uint64_t value;
	bool good;
} sizes[] = {
	{ "0", 0, true },
	{ "65536", 65536, true },
	{ "64K", 65536, true },
	{ "64k", 65536, true },
	{ "16M", 16 << 20, true },
	{ "2G", UINT64_C(2) << 30, true },
	{ "3T", UINT64_C(3) << 40, true },
	{ "", 0, false },
	{ "K", 0, false },
	{ "1.5K", 0, false },
	{ "-1", 0, false },
	{ "1KB", 0, false },
	{ "1E", 0, false },
	{ "99999999T", 0, false },
};

START_TEST(size_text)
{
	uint64_t value = 0;

	ck_assert_int_eq(types_size(sizes[_i].text, &value), sizes[_i].good);
	if (sizes[_i].good)
		ck_assert_uint_eq(value, sizes[_i].value);
}
END_TEST

START_TEST(mode_text)
{
	unsigned mode;

	ck_assert(types_mode("0640", &mode));
	ck_assert_uint_eq(mode, 0640);
	ck_assert(types_mode("00777", &mode));
	ck_assert_uint_eq(mode, 0777);
	ck_assert(!types_mode("01777", &mode));
	ck_assert(!types_mode("0680", &mode));
	ck_assert(!types_mode("", &mode));
	ck_assert(!types_mode("u+r", &mode));
}
END_TEST

static const struct {
	const char *text;
	size_t count; /* 0: refused */
} addresses[] = {
	{ "*", 2 },
	{ "localhost", 2 },
	{ "127.0.0.1", 1 },
	{ "::1", 1 },
	{ "[::1]", 1 },
	{ "fe80::1%eth0", 1 },
	{ "[fe80::1%2]", 1 },
	{ "unix:/run/x", 1 },
	{ "", 0 },
	{ "example.org", 0 },
	{ "1.2.3", 0 },
	{ "[1.2.3.4]", 0 },
	{ "[", 0 },
	{ "[]", 0 },
	{ "::1]", 0 },
	{ "fe80::1%", 0 },
	{ "fe80::1%muchtoolonganame", 0 },
	{ "::ffff:1.2.3.4", 0 },
	{ "0000:0000:0000:0000:0000:0000:0000:0000:0000:0000", 0 },
	{ "unix:x", 0 },
	{ "unix:/", 0 },
};

START_TEST(address_text)
{
	struct types_address parsed[2];
	size_t count;
	const char *expected = types_address(addresses[_i].text, parsed, &count);

	ck_assert_int_eq(expected == NULL, addresses[_i].count != 0);
	if (expected == NULL)
		ck_assert_uint_eq(count, addresses[_i].count);
}
END_TEST

/* The longest path that a socket takes, and one byte more. */
START_TEST(unix_path_length)
{
	char text[5 + TYPES_UNIX_MAX + 2] = "unix:/";
	struct types_address parsed[2];
	size_t count;

	memset(text + 6, 'x', TYPES_UNIX_MAX - 1);
	ck_assert_ptr_null(types_address(text, parsed, &count));
	ck_assert_str_eq(parsed[0].path, text + 5);
	text[5 + TYPES_UNIX_MAX] = 'x';
	ck_assert_ptr_nonnull(types_address(text, parsed, &count));
}
END_TEST

START_TEST(references)
{
	struct config *config = config_file_read(""), *same = config_ref(config);

	ck_assert_ptr_eq(config, same);
	config_unref(config);
	ck_assert_int_eq(same->listeners[0].port, 11000);
	config_unref(same);
	config_unref(NULL);
}
END_TEST

START_TEST(table_is_sound)
{
	size_t count, i, j;
	const struct config_row *rows = config_table(&count);
	const struct config_row *framing = table_find(TABLE_LISTENER, "framing", 0);

	ck_assert_uint_le(count, TABLE_MAX);
	for (i = 0; i < count; i++) {
		const struct config_row *row = &rows[i];

		ck_assert_msg(row->help != NULL, "%s has no help", row->name);
		ck_assert_msg((row->sink_types != 0) == (row->scope == TABLE_SINK), "%s",
			      row->name);
		if (row->type == TABLE_CHOICE)
			ck_assert_ptr_nonnull(row->choices);
		for (j = 0; j < i; j++)
			ck_assert_msg(rows[j].scope != row->scope ||
					      strcmp(rows[j].name, row->name) != 0 ||
					      (rows[j].sink_types & row->sink_types) == 0,
				      "%s is there twice", row->name);
	}
	for (i = 0; framing->choices[i] != NULL; i++)
		ck_assert_str_eq(framing->choices[i], framing_name((enum framing_kind)i));
	ck_assert_uint_eq(i, FRAMING_MLLP + 1);
}
END_TEST

static char *
read_document(const char *name)
{
	const char *directory = getenv("srcdir");
	char *path, *text;
	FILE *from;
	size_t size = 1 << 20, n;

	ck_assert_int_ne(asprintf(&path, "%s/%s", directory == NULL ? "." : directory, name), -1);
	from = fopen(path, "re");
	ck_assert_msg(from != NULL, "cannot read %s", path);
	text = malloc(size);
	ck_assert_ptr_nonnull(text);
	n = fread(text, 1, size - 1, from);
	text[n] = '\0';
	fclose(from);
	free(path);
	return text;
}

/* Whether a line is the item of a row: its name and its default. */
static bool
is_item(const char *line, const struct config_row *row)
{
	char *item;
	bool is;

	ck_assert_int_ne(asprintf(&item, ".It Ic %s", row->name), -1);
	is = strncmp(line, item, strlen(item)) == 0 &&
	     (line[strlen(item)] == ' ' || line[strlen(item)] == '\0');
	free(item);
	/* Where the state directory lies is the build's choice. */
	if (!is || row->fallback == NULL || row->type == TABLE_PATH)
		return is;
	ck_assert_int_ne(asprintf(&item, "%s", row->fallback), -1);
	is = strstr(line, item) != NULL;
	free(item);
	return is;
}

/* Every setting has an item in cistern.conf(5) that says its default. */
START_TEST(manual_is_complete)
{
	size_t count;
	const struct config_row *rows = config_table(&count);
	bool *found = calloc(count, sizeof *found);
	char *text = read_document("man/cistern.conf.5"), *rest = text, *line;

	ck_assert_ptr_nonnull(found);
	while ((line = strsep(&rest, "\n")) != NULL) {
		for (size_t i = 0; i < count; i++)
			found[i] = found[i] || is_item(line, &rows[i]);
	}
	for (size_t i = 0; i < count; i++)
		ck_assert_msg(found[i], "cistern.conf(5) lacks \".It Ic %s\" with its default %s",
			      rows[i].name, rows[i].fallback == NULL ? "(none)" : rows[i].fallback);
	free(found);
	free(text);
}
END_TEST

/* What the page shows as examples are files that work. */
START_TEST(examples_of_the_manual_work)
{
	static const char begin[] = ".Bd -literal -offset indent\n", end[] = ".Ed\n";
	char *text = read_document("man/cistern.conf.5"), *example, *after;
	size_t count = 0;

	example = strstr(text, ".Sh EXAMPLES\n");
	ck_assert_ptr_nonnull(example);
	while ((example = strstr(example, begin)) != NULL) {
		example += strlen(begin);
		after = strstr(example, end);
		ck_assert_ptr_nonnull(after);
		*after = '\0';
		config_unref(config_file_read(example));
		example = after + 1;
		count++;
	}
	ck_assert_uint_ge(count, 4);
	free(text);
}
END_TEST

/* The sample is what the system was first drawn with. */
START_TEST(sample_runs_as_it_is)
{
	char *text = read_document("etc/cistern.conf");
	struct config *config = config_file_read(text), *bare = config_file_read("");
	char *one = config_file_dump(config), *other = config_file_dump(bare);

	ck_assert_str_eq(one, other);
	config_unref(config);
	config_unref(bare);
	free(one);
	free(other);
	free(text);
}
END_TEST

static Suite *
config_suite(void)
{
	Suite *suite = suite_create("config");
	TCase *tc = tcase_create("config");

	tcase_add_test(tc, empty_file_is_all_defaults);
	tcase_add_test(tc, all_settings_are_read);
	tcase_add_test(tc, top_level_is_the_default_of_listeners);
	tcase_add_test(tc, console_may_be_redefined);
	tcase_add_loop_test(tc, delimiter_bytes, 0, sizeof delimiters / sizeof delimiters[0]);
	tcase_add_loop_test(tc, dump_reads_back_whatever_it_holds, 0, 200);
	tcase_add_loop_test(tc, duration_text, 0, sizeof durations / sizeof durations[0]);
	tcase_add_loop_test(tc, size_text, 0, sizeof sizes / sizeof sizes[0]);
	tcase_add_test(tc, mode_text);
	tcase_add_loop_test(tc, address_text, 0, sizeof addresses / sizeof addresses[0]);
	tcase_add_test(tc, unix_path_length);
	tcase_add_test(tc, references);
	tcase_add_test(tc, table_is_sound);
	tcase_add_test(tc, manual_is_complete);
	tcase_add_test(tc, examples_of_the_manual_work);
	tcase_add_test(tc, sample_runs_as_it_is);
	suite_add_tcase(suite, tc);
	return suite;
}

int
main(void)
{
	return unit_run(config_suite());
}
