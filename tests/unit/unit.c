/*
 * unit: runs a suite and says how it went as TAP.
 */
#include "unit.h"

int
unit_run(Suite *s)
{
	SRunner *sr = srunner_create(s);
	int failures;

	srunner_set_tap(sr, "-");
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures ? 1 : 0;
}

size_t
unit_utf8(uint32_t code, unsigned char *to)
{
	if (code < 0x80) {
		to[0] = (unsigned char)code;
		return 1;
	}
	if (code < 0x800) {
		to[0] = (unsigned char)(0xc0 | code >> 6);
		to[1] = (unsigned char)(0x80 | (code & 63));
		return 2;
	}
	if (code < 0x10000) {
		to[0] = (unsigned char)(0xe0 | code >> 12);
		to[1] = (unsigned char)(0x80 | (code >> 6 & 63));
		to[2] = (unsigned char)(0x80 | (code & 63));
		return 3;
	}
	to[0] = (unsigned char)(0xf0 | code >> 18);
	to[1] = (unsigned char)(0x80 | (code >> 12 & 63));
	to[2] = (unsigned char)(0x80 | (code >> 6 & 63));
	to[3] = (unsigned char)(0x80 | (code & 63));
	return 4;
}
