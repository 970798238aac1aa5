/*
 * config_kafka_test: the settings of a kafka sink.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config_file.h"
#include "sinks/kafka.h"
#include "unit.h"

/* What stands around the settings; they begin on line 2. */
#define SINK(settings) "sinks = { k = { type = \"kafka\"; \n" settings " }; };"
#define MUST "brokers = \"b\"; topic = \"t\"; "

#ifdef HAVE_RDKAFKA
START_TEST(settings)
{
	struct config_errors errors;
	struct config *config = config_file_load(
		SINK("brokers = [ \"a\", \"b:1\", \"[::1]:9092\", \"192.0.2.1:65535\" ]; topic = \"a.B_-9\"; "
		     "key = \"peer\"; timeout = \"1500ms\"; "
		     "properties = [ \"linger.ms=5\", \"sasl.password=a=b \" ];"), &errors);
	const struct config_sink *sink;

	config_errors_print(&errors, stderr);
	ck_assert_ptr_nonnull(config);
	sink = &config->sinks[0];
	ck_assert_int_eq(sink->type, CONFIG_SINK_KAFKA);
	ck_assert_uint_eq(sink->brokers.count, 4);
	ck_assert_str_eq(sink->brokers.items[3], "192.0.2.1:65535");
	ck_assert_str_eq(sink->topic, "a.B_-9");
	ck_assert_int_eq(sink->key, CONFIG_KEY_PEER);
	ck_assert_uint_eq(sink->timeout, 1500000);
	ck_assert_uint_eq(sink->properties.count, 2);
	ck_assert_str_eq(sink->properties.items[1], "sasl.password=a=b ");
	config_unref(config);
	config_errors_free(&errors);
}
END_TEST

START_TEST(defaults)
{
	struct config_errors errors;
	struct config *config = config_file_load(SINK(MUST), &errors);

	ck_assert_ptr_nonnull(config);
	ck_assert_int_eq(config->sinks[0].key, CONFIG_KEY_NONE);
	ck_assert_uint_eq(config->sinks[0].timeout, 30000000);
	ck_assert_uint_eq(config->sinks[0].properties.count, 0);
	config_unref(config);
	config_errors_free(&errors);
}
END_TEST

static const struct {
	const char *text;
	const char *expected;
} wrong[] = {
	{ SINK("topic = \"t\";"), "lacks \"brokers\"" },
	{ SINK("brokers = \"b\";"), "lacks \"topic\"" },
	{ SINK(MUST "key = \"peers\";"), "(did you mean \"peer\"?)" },
	{ SINK(MUST "timeout = 0;"), "from \"1s\" to \"1d\"" },
	{ SINK(MUST "timeout = \"2d\";"), "from \"1s\" to \"1d\"" },
	{ SINK(MUST "format = \"json\";"), "\"format\" is no setting of a sink of type \"kafka\"" },
	{ SINK("brokers = [ ]; topic = \"t\";"), "an empty list" },
	{ SINK("brokers = [ \"a\", \"a\" ]; topic = \"t\";"), "twice" },
	{ SINK("brokers = \"\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"a b\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"a,b\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"a:\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"a:0\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"a:65536\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"a:9k\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"::1\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"[::1\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"[a]:1\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"ssl://a:1\"; topic = \"t\";"), "expected a host and a port" },
	{ SINK("brokers = \"b\"; topic = \"\";"), "expected a topic's name" },
	{ SINK("brokers = \"b\"; topic = \"a b\";"), "expected a topic's name" },
	{ SINK("brokers = \"b\"; topic = \"..\";"), "expected a topic's name" },
	{ SINK(MUST "properties = \"linger.ms=5\";"), "expected a list of strings" },
	{ SINK(MUST "properties = { linger = 5; };"), "expected a list of strings" },
	{ SINK(MUST "properties = ( 5 );"), "has 5 in it; expected strings only" },
	{ SINK(MUST "properties = [ \"linger.ms\" ];"), "expected \"NAME=VALUE\"" },
	{ SINK(MUST "properties = [ \"=5\" ];"), "expected \"NAME=VALUE\"" },
	{ SINK(MUST "properties = [ \"linger.ms=5\", \"linger.ms=6\" ];"), "has \"linger.ms\" twice" },
	{ SINK(MUST "properties = [ \"acks=1\" ];"), "cannot have \"acks\": a message counts as" },
	{ SINK(MUST "properties = [ \"enable.idempotence=false\" ];"), "all replicas in sync have it" },
	{ SINK(MUST "properties = [ \"max.in.flight=5\" ];"), "may report what no broker has" },
	{ SINK(MUST "properties = [ \"max.in.flight.requests.per.connection=5\" ];"), "no broker has" },
	{ SINK(MUST "properties = [ \"message.timeout.ms=5\" ];"), "the setting \"timeout\"" },
	{ SINK(MUST "properties = [ \"bootstrap.servers=x\" ];"), "the setting \"brokers\"" },
	{ SINK(MUST "properties = [ \"test.mock.num.brokers=3\" ];"), "messages would go nowhere" },
	{ SINK(MUST "properties = [ \"plugin.library.paths=x\" ];"), "others' code" },
	{ SINK(MUST "properties = [ \"lingre.ms=5\" ];"), "No such configuration property" },
	{ SINK(MUST "properties = [ \"linger.ms=soon\" ];"), "Invalid value" },
	{ SINK(MUST "properties = [ \"linger.ms=-1\" ];"), "outside allowed range" },
	{ SINK(MUST "properties = [ \"dr_msg_cb=1\" ];"), "cannot have \"dr_msg_cb\"" },
	{ "properties = [ \"a=b\" ];", "which stands in a sink" },
};

START_TEST(errors_say_what_is_wrong)
{
	struct config_errors errors;
	struct config *config = config_file_load(wrong[_i].text, &errors);

	ck_assert_msg(config == NULL, "%s is taken", wrong[_i].text);
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_msg(strstr(errors.items[0].text, wrong[_i].expected) != NULL, "%s: \"%s\" lacks \"%s\"",
		      wrong[_i].text, errors.items[0].text, wrong[_i].expected);
	ck_assert_int_le(errors.items[0].line, 2);
	config_errors_free(&errors);
}
END_TEST

#else

START_TEST(a_build_without_kafka_says_so)
{
	struct config_errors errors;
	struct config *config = config_file_load(SINK(MUST), &errors);

	ck_assert_ptr_null(config);
	ck_assert_uint_eq(errors.count, 1);
	ck_assert_int_eq(errors.items[0].line, 1);
	ck_assert_ptr_nonnull(strstr(errors.items[0].text, "built without Kafka"));
	config_errors_free(&errors);
}
END_TEST

#endif

int
main(void)
{
	Suite *suite = suite_create("config_kafka");
	TCase *tcase = tcase_create("config_kafka");

	kafka_init();
#ifdef HAVE_RDKAFKA
	tcase_add_test(tcase, settings);
	tcase_add_test(tcase, defaults);
	tcase_add_loop_test(tcase, errors_say_what_is_wrong, 0, sizeof wrong / sizeof wrong[0]);
#else
	tcase_add_test(tcase, a_build_without_kafka_says_so);
#endif
	suite_add_tcase(suite, tcase);
	return unit_run(suite);
}
