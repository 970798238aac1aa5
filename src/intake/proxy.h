/*
 * proxy: the header that a proxy puts in front of a stream, to say whose it is.
 *
 * A pure parser of versions 1 (a line of text) and 2 (binary) of the PROXY protocol
 * (haproxy's proxy-protocol.txt).  It keeps nothing: the caller gathers the stream's
 * first bytes in one piece and asks again whenever there are more.  Strict, for who
 * sends a header says who is let in; and what is no header is known for one early,
 * mostly at the first byte.
 *
 * It includes no event headers and allocates nothing.
 */
#ifndef INTAKE_PROXY_H
#define INTAKE_PROXY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/net.h"

#define PROXY_MOST 4096 /* bytes of a header; one that announces more is malformed */

enum proxy_verdict {
	PROXY_MORE,      /* so far it is one; never said of PROXY_MOST bytes */
	PROXY_DONE,      /* and whole */
	PROXY_MALFORMED, /* no such header, whatever follows */
};

struct proxy_result {
	size_t used; /* PROXY_DONE: bytes of the header; the client's own follow */
	bool local;  /* PROXY_DONE: it names nobody (the proxy itself is asking, or does
		      * not know whom for), so the socket's addresses are the true ones */
	struct net_address source; /* PROXY_DONE and not local: the client, ... */
	struct net_address destination; /* ... and what it connected to; both AF_UNIX
					 * (without a pid) for a local socket of the proxy's */
	const char *why; /* PROXY_MALFORMED: static text, what was expected */
};

/* Looks at the first len bytes of a stream.  What has been said of them stays true
 * when more have come, apart from PROXY_MORE. */
enum proxy_verdict proxy_parse(const unsigned char *bytes, size_t len,
			       struct proxy_result *result);

#endif
