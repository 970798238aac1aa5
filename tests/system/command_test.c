/*
 * command: cisternd's command line, its exit codes, and the background.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"
#include "program.h"

static void
expect_text(const char *where, const char *what)
{
	ck_assert_msg(strstr(where, what) != NULL, "no \"%s\" in: %s", what, where);
}

/* A file with this configuration; its path. */
static char *
config_file(const char *text)
{
	char *directory = harness_directory();
	char *path = harness_text("%s/cistern.conf", directory);

	harness_write_file(path, text);
	free(directory);
	return path;
}

START_TEST(version_and_help)
{
	static const char *const versions[] = { "-V", "--version" };
	static const char *const helps[] = { "-h", "--help" };
	struct program_result result;
	size_t i, lines;
	char *at;

	for (i = 0; i < 2; i++) {
		result = program_run(versions[i], NULL);
		ck_assert_int_eq(result.code, 0);
		expect_text(result.output, "cisternd");
		expect_text(result.output, "libevent");
		ck_assert_str_eq(result.errors, "");
		program_result_free(&result);
		result = program_run(helps[i], NULL);
		ck_assert_int_eq(result.code, 0);
		expect_text(result.output, "--config");
		expect_text(result.output, "--daemon");
		for (lines = 0, at = result.output; (at = strchr(at, '\n')) != NULL; at++)
			lines++;
		ck_assert_uint_le(lines, 24);
		program_result_free(&result);
	}
}
END_TEST

START_TEST(usage)
{
	struct program_result result = program_run("--no-such-option", NULL);

	ck_assert_int_eq(result.code, 64);
	ck_assert_str_ne(result.errors, "");
	program_result_free(&result);
	result = program_run("operand", NULL);
	ck_assert_int_eq(result.code, 64);
	expect_text(result.errors, "operand");
	program_result_free(&result);
	result = program_run("-c", NULL);
	ck_assert_int_eq(result.code, 64);
	program_result_free(&result);
}
END_TEST

START_TEST(test_of_a_good_file)
{
	char *path = config_file("port = 11000; backlog = 1024; buffer_size = 65536;");
	char *expected = harness_text("%s: OK\n", path);
	struct program_result result = program_run("-t", "-c", path, NULL);

	ck_assert_int_eq(result.code, 0);
	ck_assert_str_eq(result.output, expected);
	program_result_free(&result);
	free(expected);
	free(path);
}
END_TEST

/* All errors in one run, each with its place. */
START_TEST(test_of_a_bad_file)
{
	char *path = config_file("port = 70000;\n"
				 "baklog = 5;\n"
				 "buffer_size = \"much\";\n"
				 "deliver = [ \"nowhere\" ];\n");
	static const char *const said[] = { "70000", "backlog", "much", "nowhere" };
	static const char *const ways[] = { "-t", "-T", NULL };
	struct program_result result;
	char *place, *all;
	int i;
	size_t way;

	for (way = 0; way < 3; way++) {
		result = program_run("-c", path, ways[way], NULL);
		ck_assert_int_eq(result.code, 78);
		all = harness_text("%s%s", result.output, result.errors);
		for (i = 0; i < 4; i++) {
			place = harness_text("%s:%d: ", path, i + 1);
			expect_text(all, place);
			expect_text(strstr(all, place), said[i]);
			free(place);
		}
		free(all);
		program_result_free(&result);
	}
	free(path);
}
END_TEST

START_TEST(dump_reads_back)
{
	char *path = config_file("framing = \"delimiter\"; delimiter = \"\\\\x00\\r\"; "
				 "port = 4000; max_message_size = \"3M\"; idle_timeout = \"5m\"; "
				 "user = \"1\"; group = \"1\"; "
				 "listeners = { a = { port = 0; }; b = { framing = \"line\"; }; };");
	struct program_result first = program_run("-T", "-c", path, NULL), second;
	char *again;

	ck_assert_int_eq(first.code, 0);
	expect_text(first.output, "idle_timeout");
	expect_text(first.output, "4000");
	again = config_file(first.output);
	second = program_run("-c", again, "--dump", NULL);
	ck_assert_int_eq(second.code, 0);
	ck_assert_str_eq(first.output, second.output);
	program_result_free(&first);
	program_result_free(&second);
	free(again);
	free(path);
}
END_TEST

START_TEST(missing_file)
{
	struct program_result result = program_run("-c", "/nonexistent/cistern.conf", NULL);

	ck_assert_int_eq(result.code, 78);
	expect_text(result.errors, "/nonexistent/cistern.conf");
	expect_text(result.errors, strerror(ENOENT));
	program_result_free(&result);
}
END_TEST

START_TEST(unreadable_file)
{
	struct program_result result;
	char *path;

	if (geteuid() == 0) {
		harness_skip("root may read every file");
		return;
	}
	path = config_file("port = 0;");
	ck_assert_int_eq(chmod(path, 0), 0);
	result = program_run("-c", path, NULL);
	ck_assert_int_eq(result.code, 77);
	expect_text(result.errors, path);
	program_result_free(&result);
	free(path);
}
END_TEST

START_TEST(pid_file_not_to_be_made)
{
	char *path = config_file("address = \"127.0.0.1\"; port = 0; "
				 "pid_file = \"/nonexistent/pid\";");
	struct program_result result = program_run("-c", path, NULL);

	ck_assert_int_eq(result.code, 73);
	expect_text(result.errors, "/nonexistent/pid");
	program_result_free(&result);
	free(path);
}
END_TEST

START_TEST(address_not_ours)
{
	/* TEST-NET-1 (RFC 5737) is nobody's. */
	char *path = config_file("address = \"192.0.2.1\"; port = 0;");
	struct program_result result = program_run("-c", path, NULL);

	ck_assert_int_eq(result.code, 71);
	expect_text(result.errors, "192.0.2.1");
	expect_text(result.errors, strerror(EADDRNOTAVAIL));
	program_result_free(&result);
	free(path);
}
END_TEST

START_TEST(verbose)
{
	const struct daemon_options options = { .argument = "-v" };
	struct daemon *quiet = daemon_start("%s", "");
	struct daemon *loud = daemon_start_with(&options, "%s", "");

	client_deliver(daemon_address(quiet, "main"), "x", 1, CLIENT_FIN);
	client_deliver(daemon_address(loud, "main"), "x", 1, CLIENT_FIN);
	ck_assert_uint_eq(daemon_count_log(quiet, NULL, "\"level\":\"debug\""), 0);
	ck_assert_uint_ge(daemon_count_log(loud, NULL, "\"level\":\"debug\""), 1);
	daemon_end(quiet);
	daemon_end(loud);
}
END_TEST

/* With -d the command returns when all is ready, and the pid file says who. */
START_TEST(background)
{
	const struct daemon_options options = { .background = true };
	struct daemon *daemon = daemon_start_with(&options, "sinks = { console = { type = "
							    "\"console\"; format = \"raw\"; }; };");
	char *path = harness_text("%s/pid", daemon->directory), *text, *end;
	struct stat st;

	ck_assert_int_ne(getpgid(daemon->pid), getpgid(0));
	text = harness_read_file(path, NULL);
	ck_assert_int_eq(strtol(text, &end, 10), daemon->pid);
	ck_assert_str_eq(end, "\n");
	free(text);
	client_deliver(daemon_address(daemon, "main"), "x", 1, CLIENT_FIN);

	/* While it runs nobody takes its place. */
	text = harness_text("address = \"127.0.0.1\"; port = 0; pid_file = \"%s\";", path);
	end = config_file(text);
	struct program_result second = program_run("-c", end, NULL);
	ck_assert_int_ne(second.code, 0);
	expect_text(second.errors, path);
	harness_note("a second one: %d, %.200s", second.code, second.errors);
	program_result_free(&second);
	free(end);
	free(text);

	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_int_eq(stat(path, &st), -1);
	free(path);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ version_and_help, 30 }, { usage, 30 },
		{ test_of_a_good_file, 30 }, { test_of_a_bad_file, 30 },
		{ dump_reads_back, 30 },  { missing_file, 30 },
		{ unreadable_file, 30 },  { pid_file_not_to_be_made, 30 },
		{ address_not_ours, 30 }, { verbose, 30 },
		{ background, 30 },
	};

	return harness_run("command", tests, sizeof tests / sizeof tests[0], argc, argv);
}
