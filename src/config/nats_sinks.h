/*
 * nats_sinks: what the table's rows cannot say of nats sinks.
 */
#ifndef CONFIG_NATS_SINKS_H
#define CONFIG_NATS_SINKS_H

#include <libconfig.h>

#include "config/parse.h"

/* One of "servers".  False: the report says why. */
bool nats_sinks_check_server(struct parse *parse, const config_setting_t *setting, const char *text);

/* All nats sinks of the group "sinks" (NULL: there is none), once every sink is known;
 * resolves claim_check. */
void nats_sinks_check(struct parse *parse, const config_setting_t *group);

#endif
