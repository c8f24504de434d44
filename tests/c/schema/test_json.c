/* Values as JSON. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>

#include "rich.h"
#include "sink.h"
#include "wire_text.h"

static rich types;

static int setup(void **state)
{
    (void)state;
    return rich_create(&types, NULL) == ESCQRS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    rich_destroy(&types);
    return 0;
}

static ProtobufCMessage *unpack(wire *w)
{
    ProtobufCMessage *message = NULL;
    escqrs_error error = {0};
    if (escqrs_message_unpack(types.root, wire_slice(w), NULL, &message, &error) != ESCQRS_OK) {
        fail_msg("%s", error.message);
    }
    wire_fini(w);
    return message;
}

/* The field of a message with that wire format, as JSON. */
static void expect(wire *w, const char *name, const char *json)
{
    ProtobufCMessage *message = unpack(w);
    const escqrs_field *field = escqrs_schema_find(types.root, escqrs_slice_of(name));
    sink s = {0};
    assert_int_equal(escqrs_field_to_json(field, message, sink_write, &s, NULL), ESCQRS_OK);
    assert_string_equal(s.text, json);
    sink_fini(&s);
    escqrs_message_free(message);
}

static void test_numbers(void **state)
{
    (void)state;
    wire w = {0};
    expect(&w, "number", "null");
    wire_int(&w, 2, INT64_MIN);
    expect(&w, "number", "-9223372036854775808");
    wire_int(&w, 2, INT64_MAX);
    expect(&w, "number", "9223372036854775807");
    wire_int(&w, 4, 1);
    expect(&w, "flag", "true");
    wire_int(&w, 4, 0);
    expect(&w, "flag", "false");
    wire_int(&w, 7, 2);
    expect(&w, "color", "\"GREEN\"");
    wire_int(&w, 7, -7);
    expect(&w, "color", "\"DARK\"");
    wire_int(&w, 7, 99);
    expect(&w, "color", "99");
}

static void test_floats(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *json;
    } cases[] = {
        {0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {-2.5, "-2.5"},
        {0.1, "0.1"},
        {1e22, "1e+22"},
        {1e-7, "1e-07"},
        {123456789, "123456789.0"},
        {1.0 / 3, "0.3333333333333333"},
        {0.1 + 0.2, "0.30000000000000004"},
        {5e-324, "4.94065645841247e-324"},
        {1e15, "1e+15"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wire w = {0};
        wire_double(&w, 3, cases[i].value);
        expect(&w, "ratio", cases[i].json);
    }
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        wire w = {0};
        wire_data(&w, 33, &bad[i], 8);
        ProtobufCMessage *message = unpack(&w);
        sink s = {0};
        escqrs_error error = {0};
        assert_int_equal(escqrs_message_to_json(types.root, message, sink_write, &s, &error),
                         ESCQRS_INVALID);
        assert_non_null(strstr(error.message, "tests.Rich.ratios"));
        sink_fini(&s);
        escqrs_message_free(message);
    }
}

static void test_text(void **state)
{
    (void)state;
    wire w = {0};
    wire_data(&w, 1, "a\"b\\c\n\r\t\0\x1f\x7f \xc3\xa9", 14);
    expect(&w, "text", "\"a\\\"b\\\\c\\n\\r\\t\\u0000\\u001f\x7f \xc3\xa9\"");
    wire_str(&w, 1, "");
    expect(&w, "text", "\"\"");
    static const char *const base64[] = {"\"\"",         "\"Zg==\"",     "\"Zm8=\"",    "\"Zm9v\"",
                                         "\"Zm9vYg==\"", "\"Zm9vYmE=\"", "\"Zm9vYmFy\""};
    for (size_t i = 0; i < 7; i++) {
        wire_data(&w, 5, "foobar", i);
        expect(&w, "raw", base64[i]);
    }
    wire_data(&w, 5, "\xff\xfe\xfd", 3);
    expect(&w, "raw", "\"//79\"");
    /* longer than the writer's buffer, with an escape on every boundary */
    char *large = malloc(3000);
    memset(large, '"', 3000);
    wire_data(&w, 1, large, 3000);
    ProtobufCMessage *message = unpack(&w);
    sink s = {0};
    assert_int_equal(escqrs_field_to_json(escqrs_schema_find(types.root, escqrs_slice_of("text")),
                                          message, sink_write, &s, NULL),
                     ESCQRS_OK);
    assert_int_equal(s.size, 6002);
    sink_fini(&s);
    escqrs_message_free(message);
    memset(large, 'x', 3000);
    wire_data(&w, 1, large, 3000);
    message = unpack(&w);
    assert_int_equal(escqrs_field_to_json(escqrs_schema_find(types.root, escqrs_slice_of("text")),
                                          message, sink_write, &s, NULL),
                     ESCQRS_OK);
    assert_int_equal(s.size, 3002);
    sink_fini(&s);
    escqrs_message_free(message);
    free(large);
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        int64_t seconds;
        int64_t nanos;
        const char *json;
    } cases[] = {
        {0, 0, "\"1970-01-01T00:00:00.000000Z\""},
        {-1, 999999999, "\"1969-12-31T23:59:59.999999Z\""},
        {951782400, 1000, "\"2000-02-29T00:00:00.000001Z\""},
        {951868799, 0, "\"2000-02-29T23:59:59.000000Z\""},
        {951868800, 0, "\"2000-03-01T00:00:00.000000Z\""},
        {1356998400, 123456789, "\"2013-01-01T00:00:00.123456Z\""},
        {4107542399, 0, "\"2100-02-28T23:59:59.000000Z\""},
        {4107542400, 0, "\"2100-03-01T00:00:00.000000Z\""},
        {-62135596800, 0, "\"0001-01-01T00:00:00.000000Z\""},
        {253402300799, 999999000, "\"9999-12-31T23:59:59.999999Z\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        wire w = {0};
        wire time = {0};
        wire_int(&time, 1, cases[i].seconds);
        wire_int(&time, 2, cases[i].nanos);
        wire_message(&w, 6, &time);
        expect(&w, "time", cases[i].json);
    }
    wire w = {0};
    expect(&w, "time", "null");
}

static void test_lists(void **state)
{
    (void)state;
    wire w = {0};
    expect(&w, "numbers", "[]");
    wire_data(&w, 31, "\x01\x02", 2);
    expect(&w, "numbers", "[1,2]");
    wire_data(&w, 32, "\x01\x00", 2);
    expect(&w, "flags", "[true,false]");
    wire_str(&w, 34, "a");
    wire_str(&w, 34, "");
    expect(&w, "names", "[\"a\",\"\"]");
    wire_data(&w, 36, "\x01\x02", 2);
    expect(&w, "colors", "[\"RED\",\"GREEN\"]");
}

static void add_count(wire *w, const char *key, int64_t value)
{
    wire entry = {0};
    wire_str(&entry, 1, key);
    wire_int(&entry, 2, value);
    wire_message(w, 40, &entry);
}

static void test_maps(void **state)
{
    (void)state;
    wire w = {0};
    wire entry = {0};
    expect(&w, "counts", "{}");
    add_count(&w, "a\"", 1);
    add_count(&w, "b", 2);
    add_count(&w, "a\"", 3); /* the last of equal keys counts */
    expect(&w, "counts", "{\"b\":2,\"a\\\"\":3}");
    wire_message(&w, 41, &entry); /* neither key nor value */
    wire_int(&entry, 1, -5);
    wire leaf = {0};
    wire_str(&leaf, 1, "x");
    wire_message(&entry, 2, &leaf);
    wire_message(&w, 41, &entry);
    expect(&w, "leaves", "{\"0\":{},\"-5\":{\"label\":\"x\",\"weight\":null}}");
    /* enough for the hash map, each key twice */
    for (int i = 0; i < 200; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i % 100);
        add_count(&w, key, i);
    }
    ProtobufCMessage *message = unpack(&w);
    sink s = {0};
    const escqrs_field *field = escqrs_schema_find(types.root, escqrs_slice_of("counts"));
    assert_int_equal(escqrs_field_to_json(field, message, sink_write, &s, NULL), ESCQRS_OK);
    assert_non_null(strstr(s.text, "{\"k0\":100,\"k1\":101,"));
    assert_non_null(strstr(s.text, "\"k99\":199}"));
    size_t colons = 0;
    for (size_t i = 0; i < s.size; i++) {
        colons += s.text[i] == ':' ? 1 : 0;
    }
    assert_int_equal(colons, 100);
    sink_fini(&s);
    long failures = 0;
    for (long countdown = 1;; countdown++) {
        escqrs_error error = {0};
        escqrs_alloc_fail(countdown, true);
        escqrs_status status = escqrs_field_to_json(field, message, sink_write, &s, &error);
        escqrs_alloc_fail(0, false);
        sink_fini(&s);
        if (status == ESCQRS_OK) {
            break;
        }
        assert_int_equal(status, ESCQRS_NO_MEMORY);
        failures++;
    }
    assert_true(failures > 0);
    escqrs_message_free(message);
}

static void test_whole_message(void **state)
{
    (void)state;
    wire w = {0};
    wire child = {0};
    wire_str(&w, 1, "t");
    wire_int(&child, 2, 1);
    wire_message(&w, 30, &child);
    ProtobufCMessage *message = unpack(&w);
    sink s = {0};
    assert_int_equal(escqrs_message_to_json(types.root, message, sink_write, &s, NULL), ESCQRS_OK);
    assert_string_equal(
        s.text,
        "{\"text\":\"t\",\"number\":null,\"ratio\":null,\"flag\":null,\"raw\":null,\"time\":null,"
        "\"color\":null,\"maybe\":null,\"far\":null,\"numbers\":[],\"flags\":[],\"ratios\":[],"
        "\"names\":[],\"times\":[],\"colors\":[],\"counts\":{},\"leaf\":null,\"self\":null,"
        "\"children\":[{\"text\":null,\"number\":1,\"ratio\":null,\"flag\":null,\"raw\":null,"
        "\"time\":null,\"color\":null,\"maybe\":null,\"far\":null,\"numbers\":[],\"flags\":[],"
        "\"ratios\":[],\"names\":[],\"times\":[],\"colors\":[],\"counts\":{},\"leaf\":null,"
        "\"self\":null,\"children\":[],\"leaves\":{}}],\"leaves\":{}}");
    sink_fini(&s);
    s.calls_left = 1; /* the sink runs out of memory */
    escqrs_error error = {0};
    assert_int_equal(escqrs_message_to_json(types.root, message, sink_write, &s, &error),
                     ESCQRS_NO_MEMORY);
    assert_int_equal(error.status, ESCQRS_NO_MEMORY);
    sink_fini(&s);
    escqrs_message_free(message);
}

/* A message made by hand that nobody has measured. */
static void test_too_deep(void **state)
{
    (void)state;
    size_t size = escqrs_schema_struct_size(types.root);
    ProtobufCMessage *message = malloc(size);
    escqrs_message_init(types.root, message);
    *(ProtobufCMessage **)rich_at(types.root, message, "self") = message;
    sink s = {0};
    escqrs_error error = {0};
    assert_int_equal(escqrs_message_to_json(types.root, message, sink_write, &s, &error),
                     ESCQRS_TOO_LARGE);
    sink_fini(&s);
    free(message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),       cmocka_unit_test(test_floats),
        cmocka_unit_test(test_text),          cmocka_unit_test(test_times),
        cmocka_unit_test(test_lists),         cmocka_unit_test(test_maps),
        cmocka_unit_test(test_whole_message), cmocka_unit_test(test_too_deep),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
