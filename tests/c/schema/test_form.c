/* Texts that have a form, and the kinds of numbers, durations and unions: what passes the check and
 * what it becomes. What is unpacked is compared with what protobuf-c unpacks itself. */
#include "support/test.h"

#include <stdio.h>

#include "forms.h"
#include "rich.h"
#include "schema/form.h"
#include "schema/wire.h"
#include "sink.h"
#include "wire_text.h"

static forms types;

static int setup(void **state)
{
    (void)state;
    return forms_create(&types, NULL) == ESCQRS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    forms_destroy(&types);
    return 0;
}

/* ---- the forms -------------------------------------------------------------------------------- */

static void assert_form(escqrs_kind kind, const char *text, bool valid)
{
    size_t size = strlen(text);
    uint8_t *exact = malloc(size + 1); /* so that a sanitizer sees what is read beyond it */
    memcpy(exact, text, size);
    uint8_t *data = realloc(exact, size > 0 ? size : 1);
    if (esc_form_valid(kind, data, size) != valid) {
        fail_msg("kind %d: `%s`", kind, text);
    }
    free(data);
}

static void test_forms(void **state)
{
    (void)state;
    static const struct {
        escqrs_kind kind;
        const char *good[12];
        const char *bad[24];
    } cases[] = {
        {ESCQRS_KIND_DATE,
         {"2024-02-29", "2000-02-29", "0001-01-01", "9999-12-31", "1900-02-28"},
         {"", "2023-02-29", "1900-02-29", "2024-00-01", "2024-13-01", "2024-01-00", "2024-04-31",
          "0000-01-01", "2024-1-01", "2024-01-1", "20240101", "2024/01/01", "2024-01-01 ",
          " 2024-01-1", "+024-01-01", "2024-01-0a", "2024-01-01T"}},
        {ESCQRS_KIND_CLOCK,
         {"00:00:00", "23:59:59", "23:59:59.1", "00:00:00.000001"},
         {"", "24:00:00", "23:60:00", "23:59:60", "23:59", "23:59:59.", "23:59:59.1234567",
          "23:59:59,1", "23:59:59.-1", "23:59:59Z", "23:59:59+01", "1:00:00", "aa:bb:cc"}},
        {ESCQRS_KIND_LOCAL,
         {"2024-02-29T23:59:59", "0001-01-01T00:00:00.5"},
         {"", "T", "2024-02-29", "2024-02-29T", "2024-02-29 23:59:59", "2023-02-29T00:00:00",
          "2024-02-29T24:00:00", "2024-02-29T23:59:59Z", "2024-02-29t23:59:59"}},
        {ESCQRS_KIND_DECIMAL,
         {"0", "-0", "+1", "1.", ".5", "-12.50", "1E5", "1e-999999", "1.5E+000001", "007"},
         {"",    "-",   ".",   "-.",   "E5", ".E5", "1E",  "1E+", "1E1000000", "1E5.",
          "1,5", "NaN", "Inf", "sNaN", "1 ", " 1",  "0x1", "1_0", "--1",       "1.2.3"}},
        {ESCQRS_KIND_UUID,
         {"00000000-0000-0000-0000-000000000000", "0123abcd-89AB-cdef-FEDC-ba9876543210"},
         {"", "0123abcd89abcdeffedcba9876543210", "0123abcd-89ab-cdef-fedc-ba987654321",
          "0123abcd-89ab-cdef-fedc-ba98765432100", "0123abcd-89ab-cdef-fedc-ba987654321g",
          "0123abcd-89ab-cdef-fedc0ba9876543210", "{123abcd-89ab-cdef-fedc-ba987654321}"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t k = 0; k < 12 && cases[i].good[k] != NULL; k++) {
            assert_form(cases[i].kind, cases[i].good[k], true);
        }
        for (size_t k = 0; k < 24 && cases[i].bad[k] != NULL; k++) {
            assert_form(cases[i].kind, cases[i].bad[k], false);
        }
        assert_non_null(strstr(esc_form_fault(cases[i].kind), "text that is not"));
    }
    assert_form(ESCQRS_KIND_STRING, "anything", true);
}

static void test_longest_decimal(void **state)
{
    (void)state;
    uint8_t digits[ESCQRS_DECIMAL_SIZE_MAX + 1];
    memset(digits, '9', sizeof digits);
    assert_true(esc_form_valid(ESCQRS_KIND_DECIMAL, digits, ESCQRS_DECIMAL_SIZE_MAX));
    assert_false(esc_form_valid(ESCQRS_KIND_DECIMAL, digits, ESCQRS_DECIMAL_SIZE_MAX + 1));
}

static void test_zigzag(void **state)
{
    (void)state;
    static const struct {
        int64_t value;
        uint64_t written;
    } cases[] = {{0, 0},
                 {-1, 1},
                 {1, 2},
                 {-2, 3},
                 {INT32_MAX, 4294967294},
                 {INT32_MIN, 4294967295},
                 {INT64_MAX, UINT64_MAX - 1},
                 {INT64_MIN, UINT64_MAX}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(esc_wire_zigzag(cases[i].value) == cases[i].written);
        assert_true(esc_wire_unzigzag(cases[i].written) == cases[i].value);
    }
}

/* ---- messages --------------------------------------------------------------------------------- */

static ProtobufCMessage *unpack(const wire *w)
{
    ProtobufCMessage *message = NULL;
    escqrs_error error = {0};
    if (escqrs_message_unpack(types.root, wire_slice(w), NULL, &message, &error) != ESCQRS_OK) {
        fail_msg("%s", error.message);
    }
    return message;
}

/* Empties `w`. */
static void assert_corrupt(wire *w, const char *text)
{
    escqrs_error error = {0};
    assert_int_equal(escqrs_message_check(types.root, wire_slice(w), NULL, &error), ESCQRS_CORRUPT);
    if (strstr(error.message, text) == NULL) {
        fail_msg("`%s` is not in: %s", text, error.message);
    }
    wire_fini(w);
}

static void test_numbers(void **state)
{
    (void)state;
    wire w = {0};
    wire_int(&w, 1, INT32_MIN); /* ten bytes, as protobuf writes negative ones */
    wire_int(&w, 2, UINT32_MAX);
    wire_int(&w, 3, -1);
    wire_int(&w, 4, (int64_t)esc_wire_zigzag(INT32_MIN));
    wire_int(&w, 5, (int64_t)esc_wire_zigzag(INT64_MIN));
    ProtobufCMessage *message = unpack(&w);
    assert_int_equal(*(int32_t *)rich_at(types.root, message, "int32"), INT32_MIN);
    assert_int_equal(*(uint32_t *)rich_at(types.root, message, "uint32"), UINT32_MAX);
    assert_true(*(uint64_t *)rich_at(types.root, message, "uint64") == UINT64_MAX);
    assert_int_equal(*(int32_t *)rich_at(types.root, message, "sint32"), INT32_MIN);
    assert_true(*(int64_t *)rich_at(types.root, message, "sint64") == INT64_MIN);
    escqrs_message_free(message);
    wire_fini(&w);
}

/* What another writer's wider type leaves of a number is its low half, in protobuf's own reading.
 */
static void test_numbers_too_wide(void **state)
{
    (void)state;
    wire w = {0};
    wire_int(&w, 1, INT64_C(0x123456789));
    wire_int(&w, 2, INT64_C(0x123456789));
    wire_int(&w, 4, (int64_t)esc_wire_zigzag(INT64_C(0x123456789)));
    ProtobufCMessage *ours = unpack(&w);
    ProtobufCMessage *theirs =
        protobuf_c_message_unpack(escqrs_schema_descriptor(types.root), NULL, w.size, w.data);
    static const char *const names[] = {"int32", "uint32", "sint32"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(*(int32_t *)rich_at(types.root, ours, names[i]),
                         *(int32_t *)rich_at(types.root, theirs, names[i]));
    }
    assert_int_equal(*(int32_t *)rich_at(types.root, ours, "int32"), 0x23456789);
    protobuf_c_message_free_unpacked(theirs, NULL);
    escqrs_message_free(ours);
    wire_fini(&w);
}

static void test_packed_and_unpacked_lists(void **state)
{
    (void)state;
    wire packed = {0};
    wire w = {0};
    wire_varint(&packed, esc_wire_zigzag(-3));
    wire_varint(&packed, esc_wire_zigzag(300));
    wire_message(&w, FORMS_LISTS + 3, &packed);
    wire_int(&w, FORMS_LISTS + 3, (int64_t)esc_wire_zigzag(INT32_MAX)); /* one by itself behind */
    ProtobufCMessage *message = unpack(&w);
    assert_int_equal(*rich_count(types.root, message, "sint32_list"), 3);
    const int32_t *items = *(int32_t **)rich_at(types.root, message, "sint32_list");
    assert_int_equal(items[0], -3);
    assert_int_equal(items[1], 300);
    assert_int_equal(items[2], INT32_MAX);
    escqrs_message_free(message);
    wire_fini(&w);
}

static void put_duration(wire *w, int64_t seconds, int64_t nanos)
{
    wire nested = {0};
    wire_int(&nested, 1, seconds);
    wire_int(&nested, 2, nanos);
    wire_message(w, 6, &nested);
}

static void test_durations(void **state)
{
    (void)state;
    static const int64_t good[][2] = {
        {0, 0}, {-1, -999999999}, {315576000000, 999999999}, {-315576000000, 0}, {5, -5}};
    static const char *const json[] = {"0.000000", "-1.999999", "315576000000.999999",
                                       "-315576000000.000000", "5.000000"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        wire w = {0};
        put_duration(&w, good[i][0], good[i][1]);
        ProtobufCMessage *message = unpack(&w);
        const escqrs_duration *span = *(escqrs_duration **)rich_at(types.root, message, "span");
        assert_true(span->seconds == good[i][0] && span->nanos == good[i][1]);
        assert_ptr_equal(span->base.descriptor, &escqrs_duration_descriptor);
        sink s = {0};
        assert_int_equal(
            escqrs_field_to_json(escqrs_schema_find(types.root, escqrs_slice_of("span")), message,
                                 sink_write, &s, NULL),
            ESCQRS_OK);
        assert_string_equal(s.text, json[i]);
        sink_fini(&s);
        escqrs_message_free(message);
        wire_fini(&w);
    }
    static const int64_t bad[][2] = {{315576000001, 0}, {-315576000001, 0}, {INT64_MIN, 0},
                                     {INT64_MAX, 0},    {0, 1000000000},    {0, -1000000000},
                                     {0, INT32_MIN}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        wire w = {0};
        put_duration(&w, bad[i][0], bad[i][1]);
        assert_corrupt(&w, "a duration beyond 10,000 years");
    }
}

static void test_texts_in_every_place(void **state)
{
    (void)state;
    for (int kind = ESCQRS_KIND_DATE; kind <= ESCQRS_KIND_UUID; kind++) {
        uint32_t index = forms_index((escqrs_kind)kind);
        const char *fault = esc_form_fault((escqrs_kind)kind);
        wire w = {0};
        wire_str(&w, index + 1, "wrong");
        assert_corrupt(&w, fault);
        wire_str(&w, FORMS_LISTS + index, "wrong");
        assert_corrupt(&w, fault);
        for (uint32_t part = 1; part <= 2; part++) { /* key, value */
            wire entry = {0};
            wire_str(&entry, part, "wrong");
            wire_message(&w, FORMS_MAPS + index, &entry);
            assert_corrupt(&w, fault);
        }
        wire_data(&w, index + 1, "\xff", 1);
        assert_corrupt(&w, "text that is not UTF-8");
    }
}

static void test_unions(void **state)
{
    (void)state;
    wire card = {0};
    wire holder = {0};
    wire w = {0};
    wire_str(&card, 1, "4711");
    wire_message(&holder, 1, &card);
    wire_message(&w, 60, &holder);
    ProtobufCMessage *message = unpack(&w);
    ProtobufCMessage *paid = *(ProtobufCMessage **)rich_at(types.root, message, "paid");
    assert_ptr_equal(paid->descriptor, escqrs_schema_descriptor(types.paid));
    assert_non_null(*(ProtobufCMessage **)rich_at(types.paid, paid, "card"));
    assert_null(*(ProtobufCMessage **)rich_at(types.paid, paid, "cash"));
    sink s = {0};
    assert_int_equal(escqrs_field_to_json(escqrs_schema_find(types.root, escqrs_slice_of("paid")),
                                          message, sink_write, &s, NULL),
                     ESCQRS_OK);
    assert_string_equal(s.text, "{\"card\":{\"number\":\"4711\"}}");
    sink_fini(&s);
    escqrs_message_free(message);
    wire_fini(&w);
}

/* ---- definitions ------------------------------------------------------------------------------ */

static void test_no_memory(void **state)
{
    (void)state;
    long failures = 0;
    for (long countdown = 1;; countdown++) {
        forms f;
        escqrs_alloc_fail(countdown, false);
        escqrs_status status = forms_create(&f, NULL);
        escqrs_alloc_fail(0, false);
        if (status == ESCQRS_OK) {
            forms_destroy(&f);
            break;
        }
        assert_int_equal(status, ESCQRS_NO_MEMORY);
        failures++;
    }
    assert_true(failures > 5);
}

/* The record of a definition tells its unions and kinds. */
static void test_record(void **state)
{
    (void)state;
    void *record = NULL;
    size_t size = 0;
    escqrs_schema *loaded = NULL;
    assert_int_equal(escqrs_schema_record(types.root, &record, &size, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_load((escqrs_slice){record, size}, &loaded, NULL), ESCQRS_OK);
    size_t count = escqrs_schema_field_count(types.root);
    assert_int_equal(escqrs_schema_field_count(loaded), count);
    for (size_t i = 0; i < count; i++) {
        const escqrs_field *was = escqrs_schema_field(types.root, i);
        const escqrs_field *is = escqrs_schema_find(loaded, escqrs_slice_of(was->name));
        assert_int_equal(is->kind, was->kind);
        assert_int_equal(is->key_kind, was->key_kind);
        assert_int_equal(is->label, was->label);
    }
    const escqrs_field *paid = escqrs_schema_find(loaded, escqrs_slice_of("paid"));
    assert_true(escqrs_schema_is_union(paid->message));
    assert_false(escqrs_schema_is_union(loaded));
    assert_int_equal(escqrs_schema_compare(types.root, (escqrs_slice){record, size}, NULL),
                     ESCQRS_OK);
    escqrs_schema_destroy(loaded);
    escqrs_free(record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_longest_decimal),
        cmocka_unit_test(test_zigzag),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_numbers_too_wide),
        cmocka_unit_test(test_packed_and_unpacked_lists),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_texts_in_every_place),
        cmocka_unit_test(test_unions),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_record),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
