/*
 * nats_options: what the library has to know before it connects.
 */
#ifndef SINKS_NATS_OPTIONS_H
#define SINKS_NATS_OPTIONS_H

#include <nats/nats.h>
#include <stddef.h>

struct config_sink;

const char *nats_version(void);

/* The library's last words in this thread, without the place in its sources. */
const char *nats_last_words(natsStatus status);

/* Reads files, connects to nothing.  0, or an exit code with `why` (what, and the reason).
 * Starts the library's first threads, with all signals blocked. */
int nats_options_new(natsOptions **options, const struct config_sink *config, char *why,
		     size_t size);

#endif
