/*
 * valve: see valve.h.
 */
#include "sinks/valve.h"

#define INTERVAL UINT64_C(10000000)

bool
valve_pass(struct valve *valve, uint64_t now)
{
	if (valve->held == 0 && (valve->since == 0 || now - valve->since >= INTERVAL)) {
		valve->since = now;
		valve->said = 0;
	}
	if (valve->held == 0 && valve->said < valve->most) {
		valve->said++;
		return true;
	}
	valve->held++;
	return false;
}

uint64_t
valve_due(const struct valve *valve)
{
	return valve->held == 0 ? 0 : valve->since + INTERVAL;
}

uint64_t
valve_sum(struct valve *valve)
{
	uint64_t held = valve->held;

	valve->held = 0;
	valve->said = 0;
	valve->since = 0;
	return held;
}
