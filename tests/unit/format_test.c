/*
 * Tests of message/format: records in every format, of messages in one piece, in
 * many, and in files; json as a real parser reads it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/output.h"
#include "message/body.h"
#include "message/format.h"
#include "unit.h"

#define TIME UINT64_C(1795372915123456)
#define ID "01ARZ3NDEKTSV4RRFFQ69G5FAV"
#define MESSAGES 400

static struct origin origin;
static struct net_address local;
static struct batch batch;
static struct message messages[MESSAGES];
static unsigned char *data[MESSAGES]; /* what each message is */
static struct output output;
static char directory[128];
static int file;

static void
setup(void)
{
	const char *tmp = getenv("TMPDIR");
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(5140) };

	memory_init(0);
	snprintf(directory, sizeof directory, "%s/format.XXXXXX", tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	file = memfd_create("records", MFD_CLOEXEC);
	ck_assert_int_ne(file, -1);
	ck_assert_int_eq(output_init(&output, file), 0);
	origin = (struct origin){ .connection = 17, .listener = "main" };
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	net_address_set(&origin.peer, (struct sockaddr *)&in);
	in.sin_port = htons(11000);
	net_address_set(&local, (struct sockaddr *)&in);
	origin.local = &local;
	batch = (struct batch){ .origin = &origin, .time = TIME, .messages = messages };
}

static void
teardown(void)
{
	for (unsigned i = 0; i < batch.count; i++) {
		body_free(messages[i].body);
		free(data[i]);
	}
	output_clear(&output);
	close(file);
	ck_assert_int_eq(rmdir(directory), 0);
}

/* Adds a message of its own memory. */
static struct message *
add(const void *bytes, size_t len)
{
	struct message *message = &messages[batch.count];

	ck_assert_uint_lt(batch.count, MESSAGES);
	data[batch.count] = malloc(len + 1);
	ck_assert_ptr_nonnull(data[batch.count]);
	memcpy(data[batch.count], bytes, len);
	*message = (struct message){ .data = data[batch.count], .size = len };
	ck_assert_int_eq(id_parse(ID, &message->id), 0);
	message->id.low += batch.count++;
	return message;
}

/* Moves the last message's bytes into a body made of pieces of that size. */
static void
into_body(size_t piece, bool spill)
{
	struct message *message = &messages[batch.count - 1];
	size_t len = (size_t)message->size;

	message->body = body_new();
	ck_assert_ptr_nonnull(message->body);
	for (size_t at = 0; at < len; at += piece)
		ck_assert_int_eq(body_append(message->body, message->data + at,
					     len - at < piece ? len - at : piece, NULL),
				 0);
	if (spill)
		ck_assert_int_eq(body_spill(message->body, directory, 0600), 0);
	message->data = NULL;
}

/* All that has been written, with a NUL behind it; the caller frees it. */
static char *
records(size_t *len)
{
	char *text;
	off_t end;

	ck_assert_int_eq(output_flush(&output), 0);
	end = lseek(file, 0, SEEK_END);
	ck_assert_int_eq((long long)output.written, (long long)end);
	text = calloc(1, (size_t)end + 1);
	ck_assert_ptr_nonnull(text);
	ck_assert_int_eq(pread(file, text, (size_t)end, 0), end);
	*len = (size_t)end;
	return text;
}

static void
expect(enum format format, const char *bytes, size_t len)
{
	size_t found_len;
	char *found;

	ck_assert_int_eq(ftruncate(file, 0), 0);
	lseek(file, 0, SEEK_SET);
	output_reset(&output, file);
	ck_assert_int_eq(format_batch(format, &batch, &output), 0);
	found = records(&found_len);
	if (found_len != len || memcmp(found, bytes, len) != 0)
		ck_abort_msg("\"%.400s\" instead of \"%.400s\"", found, bytes);
	free(found);
}

#define expect_text(format, text) expect(format, text, sizeof(text) - 1)

#define HEAD "{\"id\":\"" ID "\",\"time\":\"2026-11-22T18:41:55.123456Z\",\"listener\":\"main\"," \
	     "\"peer\":\"127.0.0.1:5140\",\"local\":\"127.0.0.1:11000\","

START_TEST(json_record)
{
	add("This is a test\r\n\"<EOF>", 22);
	expect_text(FORMAT_JSON, HEAD "\"size\":22,\"ended\":\"fin\","
				      "\"data\":\"This is a test\\r\\n\\\"<EOF>\"}\n");
}
END_TEST

START_TEST(json_record_of_nothing)
{
	struct message *message = add("", 0);

	message->data = NULL;
	message->ended = ENDED_FRAME;
	expect_text(FORMAT_JSON, HEAD "\"size\":0,\"ended\":\"frame\",\"data\":\"\"}\n");
}
END_TEST

START_TEST(json_record_of_bytes)
{
	struct message *message = add("\xff\x00", 2);

	message->ended = ENDED_TOO_LARGE;
	origin.tls_subject = "CN=caf\xc3\xa9, O=\"A\\B\"\xff\n";
	expect_text(FORMAT_JSON, HEAD "\"size\":2,\"ended\":\"too-large\",\"tls_subject\":"
				      "\"CN=caf\xc3\xa9, O=\\\"A\\\\B\\\"\\\\xFF\\\\x0A\","
				      "\"data_base64\":\"/wA=\"}\n");
}
END_TEST

/* Names longer than what is set aside for them. */
START_TEST(json_with_a_long_subject)
{
	char subject[3001], escaped[6001], listener[301];
	char *expected;
	int len;

	for (size_t i = 0; i < sizeof subject - 1; i++) {
		subject[i] = '"';
		memcpy(escaped + 2 * i, "\\\"", 2);
	}
	subject[sizeof subject - 1] = '\0';
	escaped[sizeof escaped - 1] = '\0';
	memset(listener, 'l', sizeof listener);
	listener[sizeof listener - 1] = '\0';
	origin.tls_subject = subject;
	origin.listener = listener;
	add("x", 1);
	len = asprintf(&expected,
		       "{\"id\":\"" ID "\",\"time\":\"2026-11-22T18:41:55.123456Z\",\"listener\":\"%s\","
		       "\"peer\":\"127.0.0.1:5140\",\"local\":\"127.0.0.1:11000\",\"size\":1,"
		       "\"ended\":\"fin\",\"tls_subject\":\"%s\",\"data\":\"x\"}\n",
		       listener, escaped);
	ck_assert_int_gt(len, 0);
	expect(FORMAT_JSON, expected, (size_t)len);
	free(expected);
}
END_TEST

START_TEST(text_record)
{
	add("This is a test<EOF>", 19);
	add("\x1b[2J\xc2\x9b\xff\ttab\n\\", 13);
	add("", 0);
	expect_text(FORMAT_TEXT, "Read 19 bytes from socket.\n Data : This is a test<EOF>\n"
				 "Read 13 bytes from socket.\n Data : "
				 "\\x1B[2J\\xC2\\x9B\\xFF\ttab\n\\\n"
				 "Read 0 bytes from socket.\n Data : \n");
}
END_TEST

START_TEST(raw_and_line)
{
	add("one\0", 4);
	add("", 0);
	add("\r\ntwo\n", 6);
	add("three pieces", 12);
	into_body(5, false);
	add("in a file", 9);
	into_body(5, true);
	add("last", 4);
	expect_text(FORMAT_RAW, "one\0\r\ntwo\nthree piecesin a filelast");
	expect_text(FORMAT_LINE, "one\0\n\n\r\ntwo\n\nthree pieces\nin a file\nlast\n");
}
END_TEST

/* A batch as a framing leaves it: messages in one memory, each with its newline. */
START_TEST(lines_of_a_chunk_are_one_piece)
{
	static unsigned char chunk[65536];

	for (unsigned i = 0; i < MESSAGES; i++) {
		unsigned char *at = chunk + i * 100;

		memset(at, 'a' + (int)(i % 26), 99);
		at[99] = '\n';
		messages[i] = (struct message){ .data = at, .size = 99 };
	}
	/* What lies behind the last message is not looked at. */
	chunk[MESSAGES * 100 - 1] = '!';
	batch.count = MESSAGES;
	ck_assert_int_eq(format_batch(FORMAT_LINE, &batch, &output), 0);
	ck_assert_uint_eq(output.n_pieces, 2);
	ck_assert_ptr_eq(output.pieces[0].iov_base, chunk);
	ck_assert_uint_eq(output.pieces[0].iov_len, MESSAGES * 100 - 1);
	ck_assert_uint_eq(output.used, 1);
	output_reset(&output, file);
	chunk[MESSAGES * 100 - 1] = '\n';
	expect(FORMAT_LINE, (char *)chunk, MESSAGES * 100);
}
END_TEST

START_TEST(lines_that_do_not_follow)
{
	static const char bytes[] = "crlf\r\nadjoining\n\n\nskipped,none";

	messages[0] = (struct message){ .data = (const unsigned char *)bytes, .size = 4 };
	messages[1] = (struct message){ .data = (const unsigned char *)bytes + 6, .size = 4 };
	messages[2] = (struct message){ .data = (const unsigned char *)bytes + 10, .size = 5 };
	messages[3] = (struct message){ .data = (const unsigned char *)bytes + 18, .size = 7 };
	messages[4] = (struct message){ .size = 0 };
	messages[5] = (struct message){ .data = (const unsigned char *)bytes + 26, .size = 4 };
	batch.count = 6;
	expect_text(FORMAT_LINE, "crlf\nadjo\nining\nskipped\n\nnone\n");
	expect_text(FORMAT_RAW, "crlfadjoiningskippednone");
}
END_TEST

/* Cuts through characters and triples. */
START_TEST(pieces_do_not_matter)
{
	static const char utf8[] = "a\xc3\xbc\xe2\x82\xac\"\n\xf0\x9f\x98\x80\x1b\xc2\x9b end";
	char *whole[2][4];
	size_t len[2][4];

	for (int kind = 0; kind < 2; kind++)
		for (size_t piece = 0; piece <= sizeof utf8; piece++)
			for (int format = FORMAT_TEXT; format <= FORMAT_LINE; format++) {
				batch.count = 0;
				/* The second kind ends within a character. */
				add(utf8, kind == 0 ? sizeof utf8 - 1 : 5);
				if (piece > 0)
					into_body(piece, piece % 2 == 0);
				if (piece > 0) {
					expect((enum format)format, whole[kind][format], len[kind][format]);
				} else {
					ck_assert_int_eq(ftruncate(file, 0), 0);
					lseek(file, 0, SEEK_SET);
					output_reset(&output, file);
					ck_assert_int_eq(format_batch((enum format)format, &batch, &output), 0);
					whole[kind][format] = records(&len[kind][format]);
				}
				body_free(messages[0].body);
				free(data[0]);
			}
	batch.count = 0;
	ck_assert_ptr_nonnull(strstr(whole[0][FORMAT_JSON], "\"data\":\"a"));
	ck_assert_ptr_nonnull(strstr(whole[1][FORMAT_JSON], "\"data_base64\":\"YcO84oI=\""));
	for (int kind = 0; kind < 2; kind++)
		for (int format = FORMAT_TEXT; format <= FORMAT_LINE; format++)
			free(whole[kind][format]);
}
END_TEST

START_TEST(failures)
{
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	unsigned char *large = calloc(1, 1000000);

	ck_assert_int_ne(full, -1);
	ck_assert_ptr_nonnull(large);
	add(large, 1000000);
	for (int format = FORMAT_TEXT; format <= FORMAT_JSON; format++) {
		output_reset(&output, full);
		ck_assert_int_eq(format_batch((enum format)format, &batch, &output), -1);
		ck_assert_int_eq(errno, ENOSPC);
		ck_assert_int_eq(output.error, ENOSPC);
	}
	/* A file that has become shorter cannot be read back. */
	into_body(65536, true);
	ck_assert_int_eq(ftruncate(messages[0].body->file, 999999), 0);
	for (int format = FORMAT_TEXT; format <= FORMAT_LINE; format++) {
		output_reset(&output, file);
		ck_assert_int_eq(format_batch((enum format)format, &batch, &output), -1);
		ck_assert_int_eq(errno, EIO);
		ck_assert_int_eq(output.error, 0);
	}
	free(large);
	close(full);
}
END_TEST

/* A real parser */

static const char script[] =
	"import sys, json, base64\n"
	"keys = 'id time listener peer local size ended tls_subject'.split()\n"
	"records = open(sys.argv[1], 'rb').read().split(b'\\n')\n"
	"wanted = open(sys.argv[2]).read().split('\\n')\n"
	"assert records.pop() == b'' and wanted.pop() == '' and len(records) == len(wanted)\n"
	"for record, want in zip(records, wanted):\n"
	"    want = bytes.fromhex(want)\n"
	"    r = json.loads(record.decode('utf-8', 'strict'))\n"
	"    try:\n"
	"        want.decode('utf-8', 'strict')\n"
	"        last = 'data'\n"
	"        data = r[last].encode('utf-8', 'strict')\n"
	"    except UnicodeDecodeError:\n"
	"        last = 'data_base64'\n"
	"        data = base64.b64decode(r[last], validate=True)\n"
	"    assert list(r) == keys + [last], list(r)\n"
	"    assert data == want, record\n"
	"    assert r['size'] == len(want) and type(r['size']) is int\n"
	"    assert r['tls_subject'] == 'CN=\"M\\u00fcller\\\\\\\\\"' and r['listener'] == 'main'\n"
	"    assert r['time'] == '2026-11-22T18:41:55.123456Z' and r['ended'] == 'fin'\n"
	"    assert r['peer'] == '127.0.0.1:5140' and r['local'] == '127.0.0.1:11000'\n";

/* Whether python3 takes the script, run with two files, to its end; 77 when there
 * is none. */
static int
run_script(const char *text, const char *first, const char *second)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ne(pid, -1);
	if (pid == 0) {
		execlp("python3", "python3", "-c", text, first, second, (char *)NULL);
		_exit(77);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* Random bytes, random characters (surrogates among them now and then), plain
 * text with a few escapes, the characters at every boundary. */
static size_t
make_data(unsigned char *to, size_t max, int kind)
{
	static const uint32_t edges[] = { 0,      0x1f,   0x20,   0x7f,    0x80,    0x7ff,    0x800,
					  0xd7ff, 0xe000, 0xfffd, 0xffff,  0x10000, 0x10ffff, '"',
					  '\\',   0x2028, 0xd800, 0xdfff, 0x110000 };
	size_t len = 0, wanted = (size_t)rand() % (max - 4);
	uint32_t code;

	while (len < wanted) {
		switch (kind) {
		case 0:
			to[len++] = (unsigned char)rand();
			break;
		case 1:
			do
				code = (uint32_t)rand() % (rand() % 2 ? 0x3000 : 0x110000);
			while (code >= 0xd800 && code < 0xe000);
			len += unit_utf8(code, to + len);
			break;
		case 2:
			code = (uint32_t)rand();
			to[len++] = (unsigned char)(rand() % 20 ? 0x20 + code % 0x60 : code % 0x30);
			break;
		default:
			/* The wrong ones come last, and seldom. */
			len += unit_utf8(edges[(size_t)rand() % (rand() % 40 ? 16 : 19)], to + len);
			break;
		}
	}
	return len;
}

static void
put_hex_line(FILE *to, const unsigned char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		fprintf(to, "%02x", bytes[i]);
	fputc('\n', to);
}

START_TEST(json_as_a_parser_reads_it)
{
	static unsigned char bytes[300004];
	char got[160], wanted[160];
	FILE *hex;
	size_t len;
	char *text;
	int result;

	origin.tls_subject = "CN=\"M\xc3\xbcller\\\\\"";
	snprintf(got, sizeof got, "%s/records", directory);
	snprintf(wanted, sizeof wanted, "%s/wanted", directory);
	hex = fopen(wanted, "we");
	ck_assert_ptr_nonnull(hex);
	srand(11000);
	for (int i = 0; i < MESSAGES; i++) {
		len = make_data(bytes, i % 40 == 39 ? 300000 : i % 20 == 19 ? 20000 : 200, i / 3 % 4);
		put_hex_line(hex, bytes, len);
		add(bytes, len);
		if (i % 3 != 0)
			into_body(i % 20 == 19 ? 5001 : 1 + (size_t)rand() % 30, i % 3 == 2);
	}
	ck_assert_int_eq(fclose(hex), 0);
	ck_assert_int_eq(format_batch(FORMAT_JSON, &batch, &output), 0);
	text = records(&len);
	hex = fopen(got, "we");
	ck_assert_ptr_nonnull(hex);
	ck_assert_uint_eq(fwrite(text, 1, len, hex), len);
	ck_assert_int_eq(fclose(hex), 0);
	free(text);
	result = run_script(script, got, wanted);
	unlink(got);
	unlink(wanted);
	if (result == 77)
		printf("# json_as_a_parser_reads_it: skipped, python3 was not found\n");
	else
		ck_assert_int_eq(result, 0);
}
END_TEST

static Suite *
format_suite(void)
{
	Suite *s = suite_create("format");
	TCase *tc = tcase_create("format");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, json_record);
	tcase_add_test(tc, json_record_of_nothing);
	tcase_add_test(tc, json_record_of_bytes);
	tcase_add_test(tc, json_with_a_long_subject);
	tcase_add_test(tc, text_record);
	tcase_add_test(tc, raw_and_line);
	tcase_add_test(tc, lines_of_a_chunk_are_one_piece);
	tcase_add_test(tc, lines_that_do_not_follow);
	tcase_add_test(tc, pieces_do_not_matter);
	tcase_add_test(tc, failures);
	tcase_add_test(tc, json_as_a_parser_reads_it);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(format_suite());
}
