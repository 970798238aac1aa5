/*
 * damper: see damper.h.
 */
#include "intake/damper.h"

bool
damper_pass(struct damper *damper, uint64_t now)
{
	if (damper->since == 0 || now - damper->since >= DAMPER_INTERVAL) {
		damper->since = now;
		damper->said = 0;
	}
	if (damper->held == 0 && damper->said < DAMPER_LINES) {
		damper->said++;
		return true;
	}
	damper->held++;
	return false;
}

uint64_t
damper_sum(struct damper *damper)
{
	uint64_t held = damper->held;

	damper->held = 0;
	damper->said = 0;
	damper->since = 0;
	return held;
}
