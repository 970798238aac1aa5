/*
 * format: a message as a record of text, json, raw or line.
 *
 * json is one object a line; its `data` is the message when that is valid
 * UTF-8, else `data_base64` (two passes over the message; no printf).  text is
 * for eyes: bytes that could drive a terminal are shown as \xNN.
 */
#ifndef MESSAGE_FORMAT_H
#define MESSAGE_FORMAT_H

#include "base/output.h"
#include "message/message.h"

enum format { FORMAT_TEXT, FORMAT_JSON, FORMAT_RAW, FORMAT_LINE };

const char *format_name(enum format format);

/* Puts all messages of a batch to the output, which points to their bytes: the
 * batch must stay until the next output_flush returns.  Returns 0, or -1 with errno
 * when the output failed or a message could not be read back; what was put before
 * that stays (part of a record, too: whoever cannot cut the file back loses a line). */
int format_batch(enum format format, const struct batch *batch, struct output *output);

#endif
