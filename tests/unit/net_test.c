/*
 * Tests of base/net: addresses as text, and the reset.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/net.h"
#include "unit.h"

static struct sockaddr_storage
ipv4(const char *text, uint16_t port)
{
	struct sockaddr_storage storage = { 0 };
	struct sockaddr_in *in = (struct sockaddr_in *)&storage;

	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	ck_assert_int_eq(inet_pton(AF_INET, text, &in->sin_addr), 1);
	return storage;
}

static struct sockaddr_storage
ipv6(const char *text, uint16_t port, uint32_t scope)
{
	struct sockaddr_storage storage = { 0 };
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&storage;

	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	in6->sin6_scope_id = scope;
	ck_assert_int_eq(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
	return storage;
}

static void
expect(struct sockaddr_storage storage, const char *text)
{
	const struct sockaddr *sa = (const struct sockaddr *)&storage;
	struct net_address address;
	char found[NET_TEXT_LEN], listening[NET_TEXT_LEN];

	memset(&address, 0xaa, sizeof address);
	net_address_set(&address, sa);
	ck_assert_int_eq(net_address_text(&address, found), (int)strlen(text));
	ck_assert_str_eq(found, text);
	net_sockaddr_text(sa, listening, sizeof listening);
	ck_assert_str_eq(listening, text);
}

START_TEST(internet_addresses)
{
	expect(ipv4("192.0.2.1", 5140), "192.0.2.1:5140");
	expect(ipv4("0.0.0.0", 0), "0.0.0.0:0");
	expect(ipv4("255.255.255.255", 65535), "255.255.255.255:65535");
	expect(ipv4("10.100.9.99", 80), "10.100.9.99:80");
	expect(ipv6("2001:db8::1", 5140, 0), "[2001:db8::1]:5140");
	expect(ipv6("::", 11000, 0), "[::]:11000");
	expect(ipv6("fe80::1", 9, 3), "[fe80::1%3]:9");
	expect(ipv6("123:4567:89ab:cdef:123:4567:89ab:cdef", 65535, UINT32_MAX),
	       "[123:4567:89ab:cdef:123:4567:89ab:cdef%4294967295]:65535");
}
END_TEST

START_TEST(mapped_addresses_are_ipv4)
{
	struct sockaddr_storage storage = ipv6("::ffff:192.0.2.7", 25, 0);
	struct net_address address;

	expect(storage, "192.0.2.7:25");
	net_address_set(&address, (struct sockaddr *)&storage);
	ck_assert_int_eq(address.family, AF_INET);
	ck_assert_uint_eq(ntohs(address.in.sin_port), 25);
	/* Compatible addresses are something else. */
	expect(ipv6("::192.0.2.7", 25, 0), "[::192.0.2.7]:25");
}
END_TEST

START_TEST(local_peers)
{
	struct sockaddr_storage storage = { .ss_family = AF_UNIX };
	struct net_address address;
	char text[NET_TEXT_LEN];

	net_address_set(&address, (struct sockaddr *)&storage);
	ck_assert_int_eq(net_address_text(&address, text), 4);
	ck_assert_str_eq(text, "unix");
	address.unix_peer.pid = 4294967295;
	ck_assert_int_eq(net_address_text(&address, text), 15);
	ck_assert_str_eq(text, "unix:4294967295");
	storage.ss_family = AF_APPLETALK;
	net_address_set(&address, (struct sockaddr *)&storage);
	net_address_text(&address, text);
	ck_assert_str_eq(text, "unknown");
}
END_TEST

START_TEST(local_sockets)
{
	struct sockaddr_storage storage = { 0 };
	struct sockaddr_un *un = (struct sockaddr_un *)&storage;
	char text[256], longest[6 + sizeof un->sun_path];

	un->sun_family = AF_UNIX;
	net_sockaddr_text((struct sockaddr *)un, text, sizeof text);
	ck_assert_str_eq(text, "unix");
	strcpy(un->sun_path, "/run/cistern.sock");
	net_sockaddr_text((struct sockaddr *)un, text, sizeof text);
	ck_assert_str_eq(text, "unix:/run/cistern.sock");
	net_sockaddr_text((struct sockaddr *)un, text, 10);
	ck_assert_str_eq(text, "unix:/run");
	memcpy(un->sun_path, "\0abstract", 10);
	net_sockaddr_text((struct sockaddr *)un, text, sizeof text);
	ck_assert_str_eq(text, "unix:@abstract");
	/* A path as long as can be has no NUL behind it. */
	memset(un->sun_path, 'p', sizeof un->sun_path);
	net_sockaddr_text((struct sockaddr *)un, text, sizeof text);
	memset(longest, 'p', sizeof longest);
	memcpy(longest, "unix:", 5);
	longest[sizeof longest - 1] = '\0';
	ck_assert_str_eq(text, longest);
}
END_TEST

/* Connects two sockets over the loopback. */
static void
connect_pair(int pair[2])
{
	struct sockaddr_storage storage = ipv4("127.0.0.1", 0);
	struct sockaddr *sa = (struct sockaddr *)&storage;
	socklen_t len = sizeof(struct sockaddr_in);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_ne(listener, -1);
	ck_assert_int_eq(bind(listener, sa, len), 0);
	ck_assert_int_eq(listen(listener, 1), 0);
	ck_assert_int_eq(getsockname(listener, sa, &len), 0);
	pair[0] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(pair[0], sa, len), 0);
	pair[1] = accept(listener, NULL, NULL);
	ck_assert_int_ne(pair[1], -1);
	close(listener);
}

START_TEST(reset_is_no_fin)
{
	char byte;
	int pair[2];

	connect_pair(pair);
	close(pair[1]);
	ck_assert_int_eq(recv(pair[0], &byte, 1, 0), 0);
	close(pair[0]);

	connect_pair(pair);
	net_reset(pair[1]);
	ck_assert_int_eq(recv(pair[0], &byte, 1, 0), -1);
	ck_assert_int_eq(errno, ECONNRESET);
	ck_assert_int_eq(close(pair[1]), -1);
	close(pair[0]);
}
END_TEST

START_TEST(addresses_are_read_back)
{
	static const char *const good[] = {"192.0.2.1:5140", "0.0.0.0:0", "[2001:db8::1]:65535",
					   "[fe80::1%7]:1", "unix", "unix:4711"};
	static const char *const bad[] = {"", "unknown", "192.0.2.1", "192.0.2.1:", "192.0.2.1:65536",
					  "192.0.2.1:1x", "192.0.2:1", "[2001:db8::1:1", "[]:1", "[:1",
					  "2001:db8::1:5", "[fe80::1%]:1", "[fe80::1%x]:1", "unix:", "unix:x",
					  "unix:4294967296", "unixx"};
	char text[NET_TEXT_LEN], long_one[300];
	struct net_address address;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		ck_assert_int_eq(net_address_parse(good[i], &address), 0);
		net_address_text(&address, text);
		ck_assert_str_eq(text, good[i]);
	}
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		ck_assert_msg(net_address_parse(bad[i], &address) == -1, "%s", bad[i]);
		ck_assert_uint_eq(address.family, 0);
	}
	memset(long_one, '1', sizeof(long_one) - 1);
	long_one[sizeof(long_one) - 1] = '\0';
	ck_assert_int_eq(net_address_parse(long_one, &address), -1);
}
END_TEST

static Suite *
net_suite(void)
{
	Suite *s = suite_create("net");
	TCase *tc = tcase_create("net");

	tcase_add_test(tc, internet_addresses);
	tcase_add_test(tc, mapped_addresses_are_ipv4);
	tcase_add_test(tc, local_peers);
	tcase_add_test(tc, local_sockets);
	tcase_add_test(tc, addresses_are_read_back);
	tcase_add_test(tc, reset_is_no_fin);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(net_suite());
}
