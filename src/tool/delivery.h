/*
 * delivery: one connection's worth of messages: sent, and answered for.
 *
 * A message counts as accepted only by its receipt (`OK id size`, of the size that was
 * sent), or where there are none by the orderly close of the connection.
 * Everything else leaves it in the outbox.
 */
#ifndef TOOL_DELIVERY_H
#define TOOL_DELIVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "tool/link.h"
#include "tool/outbox.h"
#include "tool/progress.h"
#include "tool/target.h"

#define DELIVERY_WHY_MAX (LINK_WHY_MAX + 128)

struct delivery_options {
	struct target target;
	const char *target_text;
	struct link_tls tls;
	struct framing_config framing;
	bool receipt;
	bool print_ids;
	bool verbose;
	uint64_t timeout;	 /* microseconds without anything happening; 0: none */
	uint64_t per_connection; /* messages; 0: as many as there are */
};

enum delivery_verdict {
	DELIVERY_GONE_WELL, /* all that was begun is done; there may be more */
	DELIVERY_TEMPORARY, /* what is left may be sent again, later */
	DELIVERY_FINAL,	    /* sending again is of no use */
};

struct delivery_result {
	enum delivery_verdict verdict;
	int code;     /* exit status, unless all has gone well */
	bool unknown; /* some of what is left may have been accepted all the same */
	bool silent;  /* orderly, but without the receipts that were asked for */
	bool spoken;  /* some receipt has come */
	char why[DELIVERY_WHY_MAX];
};

/* Complains of what was rejected; of all else the result tells. */
void delivery_run(const struct delivery_options *options, struct outbox *outbox,
		  struct progress *progress, struct delivery_result *result);

#endif
