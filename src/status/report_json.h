/*
 * report_json: a picture as JSON, with the live connections: /status.json.
 */
#ifndef STATUS_REPORT_JSON_H
#define STATUS_REPORT_JSON_H

#include <stdio.h>

struct picture;

void report_json_write(FILE *to, const struct picture *picture);

#endif
