/*
 * preface: what comes before a connection's first byte: the header of the PROXY
 * protocol, which says whose connection it is.
 *
 * A connection is in CONNECTION_PREFACE for as long as its header is not whole, and has
 * a preface for just as long.  Then it has the addresses that the header names, it is
 * looked at as others are when they connect (allow, deny, the places of its address),
 * and goes on with connection_greet.  Whatever else comes, or nothing in time, ends it
 * with a reset, counted and logged as refused.
 *
 * Nothing behind the header is taken from the socket.
 */
#ifndef INTAKE_PREFACE_H
#define INTAKE_PREFACE_H

#include <stdint.h>

struct connection;
struct preface;

/* Gives the connection its preface and reads what there is.  Out of memory it is
 * refused. */
void preface_start(struct connection *connection);

/* Reads what there is; ends the preface, or the connection, or neither. */
void preface_run(struct connection *connection);

/* When the header has to be whole. */
uint64_t preface_deadline(const struct connection *connection);

/* The same when that time has come. */
void preface_on_deadline(struct connection *connection);

void preface_free(struct preface *preface); /* NULL is fine */

#endif
