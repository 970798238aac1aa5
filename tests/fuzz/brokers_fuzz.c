/*
 * brokers_fuzz: what goes to brokers and comes back.  Whatever a server of NATS answers, only
 * an acknowledgement of this stream accepts, and what is said of it is text; whatever a
 * listener and a peer are called, a subject keeps its tokens and a header its line.
 *
 * An input is 1 byte for the kind, and the answer, or a template and a value with a NUL
 * between them.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "message/facts.h"
#include "message/subject.h"
#include "sinks/nats_answer.h"

#define FUZZ_MOST 2048

const char *const fuzz_corpus[] = { "brokers", NULL };

#ifdef HAVE_NATS

/* Printable, and whole characters. */
static void
fuzz_why(const char *why)
{
	struct utf8 utf8 = {0};
	size_t len = strlen(why);

	for (size_t i = 0; i < len; i++)
		fuzz_require((unsigned char)why[i] >= 0x20 && why[i] != 0x7f);
	fuzz_require(utf8_feed(&utf8, (const unsigned char *)why, len) && utf8_is_whole(&utf8));
}

static void
fuzz_answer(const char *bytes, size_t len)
{
	struct nats_answer answer, again;
	char text[100];

	nats_answer_read(&answer, bytes, len, "S");
	fuzz_why(answer.why);
	fuzz_require((answer.verdict == NATS_STORED) == (answer.outcome == OUTCOME_ACCEPTED));
	fuzz_require((answer.verdict == NATS_STORED) == (answer.why[0] == '\0'));
	fuzz_require(!answer.too_large || answer.verdict == NATS_NEVER);
	if (answer.verdict != NATS_STORED) {
		fuzz_require(answer.sequence == 0 && !answer.duplicate);
		return;
	}
	fuzz_require(answer.sequence > 0);
	snprintf(text, sizeof text, "{\"stream\":\"S\",\"seq\":%llu,\"duplicate\":%s}",
		 (unsigned long long)answer.sequence, answer.duplicate ? "true" : "false");
	nats_answer_read(&again, text, strlen(text), "S");
	fuzz_require(again.verdict == NATS_STORED && again.sequence == answer.sequence &&
		     again.duplicate == answer.duplicate);
	nats_answer_read(&again, bytes, len, "T"); /* another sink's */
	fuzz_require(again.verdict == NATS_NEVER);
	fuzz_why(again.why);
}

#else

static void
fuzz_answer(const char *bytes, size_t len)
{
	(void)bytes;
	(void)len;
}

#endif

static size_t
fuzz_count(const char *text, char c)
{
	size_t n = 0;

	for (; *text != '\0'; text++)
		n += *text == c;
	return n;
}

static void
fuzz_subject(const char *template, const char *value)
{
	char subject[SUBJECT_SIZE], pattern[SUBJECT_SIZE];

	if (subject_check(template) != NULL)
		return;
	subject_fill(template, value, value, subject);
	fuzz_require(strlen(subject) < sizeof subject);
	fuzz_require(fuzz_count(template, '.') == fuzz_count(subject, '.'));
	fuzz_require(subject[0] != '.' && strstr(subject, "..") == NULL &&
		     subject[strlen(subject) - 1] != '.');
	for (const char *c = subject; *c != '\0'; c++)
		fuzz_require(*c > ' ' && *c < 0x7f && strchr("*>{}", *c) == NULL);
	subject_pattern(template, pattern);
	fuzz_require(subject_matches(pattern, subject) && subject_matches(subject, subject) &&
		     subject_matches(">", subject));
}

static void
fuzz_header(const char *value)
{
	size_t room = FACT_HEADER_MAX(strlen(value)), len;
	char *written = malloc(room);

	fuzz_require(written != NULL);
	len = fact_header_value(written, value);
	fuzz_require(len < room && strlen(written) == len);
	for (size_t i = 0; i < len; i++)
		fuzz_require((unsigned char)written[i] >= 0x20 && written[i] != 0x7f);
	free(written);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text, *value;

	if (size < 1 || size > FUZZ_MOST)
		return 0;
	text = malloc(size); /* of its size, so that a byte too many is noticed */
	fuzz_require(text != NULL);
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	value = memchr(text, '\0', size);
	value = value < text + size - 1 ? value + 1 : value;
	if (data[0] % 3 == 0)
		fuzz_answer(text, size - 1);
	else if (data[0] % 3 == 1)
		fuzz_subject(text, value);
	else
		fuzz_header(text);
	free(text);
	return 0;
}
