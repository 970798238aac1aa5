/*
 * ledger: what the name of a listener keeps while configurations come and go.
 *
 * Its limits, what listeners that are gone have counted, and for each worker a
 * seat: the listener that accepts there now, its dampers, and the item that tells
 * it of a free place.  A ledger stays until the daemon ends.
 */
#ifndef INTAKE_LEDGER_H
#define INTAKE_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/inbox.h"
#include "intake/counters.h"
#include "intake/damper.h"
#include "intake/limits.h"

struct listener;

struct seat {
	struct inbox *inbox;       /* of its worker */
	struct inbox_item place;   /* posted when a place may be free */
	atomic_bool place_posted;
	struct listener *listener; /* who sits here; the worker's */
	struct damper dampers[ENDED_COUNT];
	struct damper refusals[REFUSAL_COUNT];
	struct damper tls_failures[TLS_FAILURE_COUNT];
	struct damper accept_errors;
};

struct ledger {
	struct ledger *next;
	char *name;
	bool in_use; /* some configuration with it has been in force */
	struct limits limits;
	_Atomic unsigned n_parked; /* connections that wait at max_connections */
	struct counters gone;      /* of listeners that are gone; the main thread's */
	unsigned n_seats;
	struct seat *seats; /* one a worker */
};

/* Main thread.  NULL: no memory. */
struct ledger *ledger_new(const char *name, unsigned n_seats);
void ledger_free(struct ledger *ledger); /* NULL is fine */

/* A listener is gone: what it has counted stays. */
void ledger_add(struct counters *to, const struct counters *from);

/* The same of one that its worker goes on with meanwhile: waits a moment for received =
 * accepted + refused + failed + in flight, which the worker may be between the parts of. */
void ledger_add_balanced(struct counters *to, const struct counters *from);

/* A place is free again: whoever waits for one looks.  Any thread. */
void ledger_give_place(struct ledger *ledger);

#endif
