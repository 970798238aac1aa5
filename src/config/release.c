/*
 * release: see release.h.
 *
 * What was never filled in is all zero, so half a configuration is no special case.
 */
#include "config/release.h"

#include <stdlib.h>

#include "base/acl.h"

static void
release_strings(struct config_strings *strings)
{
	for (size_t i = 0; i < strings->count; i++)
		free(strings->items[i]);
	free(strings->items);
}

void
release_blocks(struct config_blocks *blocks)
{
	release_strings(&blocks->text);
	acl_free(blocks->acl);
}

void
release_listener(struct config_listener *listener)
{
	free(listener->name);
	release_strings(&listener->address);
	framing_clear(&listener->framing);
	free(listener->incomplete);
	release_blocks(&listener->allow);
	release_blocks(&listener->deny);
	release_blocks(&listener->proxy_from);
	release_strings(&listener->deliver);
	free(listener->tls.certificate);
	free(listener->tls.key);
	free(listener->tls.client_ca);
	free(listener->tls.ciphers);
	free(listener->deliver_to);
}

static void
release_nats(struct config_nats *nats)
{
	release_strings(&nats->servers);
	free(nats->subject);
	free(nats->stream);
	free(nats->credentials);
	free(nats->tls.ca);
	free(nats->tls.certificate);
	free(nats->tls.key);
	free(nats->tls.ciphers);
	free(nats->claim_check);
}

void
release_config(struct config *config)
{
	for (size_t i = 0; i < config->n_listeners; i++)
		release_listener(&config->listeners[i]);
	for (size_t i = 0; i < config->n_sinks; i++) {
		free(config->sinks[i].name);
		free(config->sinks[i].path);
		free(config->sinks[i].directory);
		free(config->sinks[i].forward);
		release_strings(&config->sinks[i].argv);
		release_strings(&config->sinks[i].brokers);
		free(config->sinks[i].topic);
		release_strings(&config->sinks[i].properties);
		release_nats(&config->sinks[i].nats);
	}
	free(config->listeners);
	free(config->sinks);
	release_strings(&config->files);
	free(config->file);
	free(config->user);
	free(config->group);
	free(config->pid_file);
	free(config->spill_directory);
	free(config->log.path);
	free(config->status.address);
	release_strings(&config->status.hosts);
	free(config);
}
