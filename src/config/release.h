/*
 * release: the end of a configuration, complete or not.
 */
#ifndef CONFIG_RELEASE_H
#define CONFIG_RELEASE_H

#include "config/config.h"

/* All free what is owned; the listener itself belongs to others, as do the blocks. */
void release_config(struct config *config);
void release_blocks(struct config_blocks *blocks);
void release_listener(struct config_listener *listener);

#endif
