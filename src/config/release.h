/*
 * release: the end of a configuration, complete or not.
 */
#ifndef CONFIG_RELEASE_H
#define CONFIG_RELEASE_H

#include "config/config.h"

/* Both free what is owned; the listener itself belongs to others. */
void release_config(struct config *config);
void release_listener(struct config_listener *listener);

#endif
