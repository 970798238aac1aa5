/*
 * id: ULIDs, in order and without a lock.
 *
 * Only seeding can fail.  A generator belongs to one thread and never gives the
 * same id twice, nor a smaller one than before, whatever the clock does.
 */
#include "message/id.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>

#define TIME_SHIFT 16 /* of id.high, below it chance */
#define TIME_MAX ((UINT64_C(1) << 48) - 1)
#define CHANCE_MASK ((UINT64_C(1) << TIME_SHIFT) - 1)
#define HALF_MASK ((UINT64_C(1) << 40) - 1)

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/* One more than the value of each character; 0: not a digit. */
static const unsigned char values[256] = {
	['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,
	['7'] = 8,  ['8'] = 9,  ['9'] = 10, ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14,
	['E'] = 15, ['F'] = 16, ['G'] = 17, ['H'] = 18, ['J'] = 19, ['K'] = 20, ['M'] = 21,
	['N'] = 22, ['P'] = 23, ['Q'] = 24, ['R'] = 25, ['S'] = 26, ['T'] = 27, ['V'] = 28,
	['W'] = 29, ['X'] = 30, ['Y'] = 31, ['Z'] = 32,
};

static uint64_t
rotate(uint64_t value, int by)
{
	return value << by | value >> (64 - by);
}

/* xoshiro256++ of Blackman and Vigna. */
static uint64_t
draw(uint64_t s[4])
{
	uint64_t drawn = rotate(s[0] + s[3], 23) + s[0];
	uint64_t shifted = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= shifted;
	s[3] = rotate(s[3], 45);
	return drawn;
}

static void
draw_chance(struct id_generator *generator, uint64_t milliseconds)
{
	generator->last.high = milliseconds << TIME_SHIFT | draw(generator->random) >> 48;
	generator->last.low = draw(generator->random);
}

/* n digits of five bits each. */
static void
put_digits(char *to, uint64_t value, int n)
{
	while (n-- > 0) {
		to[n] = digits[value & 31];
		value >>= 5;
	}
}

/* -1: not a digit among them (the end of the text is none either). */
static int
get_digits(const char *from, int n, uint64_t *value)
{
	*value = 0;
	for (int i = 0; i < n; i++) {
		unsigned char digit = values[(unsigned char)from[i]];

		if (digit == 0)
			return -1;
		*value = *value << 5 | (uint64_t)(digit - 1);
	}
	return 0;
}

int
id_generator_init(struct id_generator *generator)
{
	ssize_t n;

	do
		n = getrandom(generator->random, sizeof generator->random, 0);
	while (n == -1 && errno == EINTR);
	if (n == -1)
		return -1;
	if (n != (ssize_t)sizeof generator->random) {
		errno = EIO;
		return -1;
	}
	/* With chance even before the first millisecond, should the clock be unset. */
	draw_chance(generator, 0);
	return 0;
}

struct id
id_next(struct id_generator *generator, uint64_t time)
{
	uint64_t milliseconds = time / 1000;

	if (milliseconds > TIME_MAX)
		milliseconds = TIME_MAX;
	if (milliseconds > generator->last.high >> TIME_SHIFT) {
		draw_chance(generator, milliseconds);
	} else if (++generator->last.low == 0) {
		/* Past the last chance of a millisecond comes the first of the next. */
		generator->last.high++;
	}
	return generator->last;
}

void
id_text(const struct id *id, char text[ID_TEXT_LEN + 1])
{
	put_digits(text, id->high >> TIME_SHIFT, 10);
	put_digits(text + 10, (id->high & CHANCE_MASK) << 24 | id->low >> 40, 8);
	put_digits(text + 18, id->low & HALF_MASK, 8);
	text[ID_TEXT_LEN] = '\0';
}

int
id_parse(const char *text, struct id *id)
{
	uint64_t time, upper, lower;

	if (get_digits(text, 10, &time) == -1 || time > TIME_MAX)
		return -1;
	if (get_digits(text + 10, 8, &upper) == -1 || get_digits(text + 18, 8, &lower) == -1)
		return -1;
	id->high = time << TIME_SHIFT | upper >> 24;
	id->low = upper << 40 | lower;
	return 0;
}
