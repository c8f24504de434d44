/* Definitions as bytes: canonical, loaded again, refused when damaged. */
#include "support/test.h"

#include <stdio.h>

#include "rich.h"
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

static escqrs_slice record_of(const escqrs_schema *schema)
{
    void *data = NULL;
    size_t size = 0;
    escqrs_error error = {0};
    if (escqrs_schema_record(schema, &data, &size, &error) != ESCQRS_OK) {
        fail_msg("%s", error.message);
    }
    return (escqrs_slice){data, size};
}

static escqrs_schema *two_fields(bool swapped, const char *second)
{
    escqrs_schema *schema = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("Item"), &schema, NULL), ESCQRS_OK);
    for (int i = 0; i < 2; i++) {
        bool first = (i == 0) != swapped;
        assert_int_equal(rich_add(schema, first ? "a" : second, first ? 1 : 2, ESCQRS_KIND_ENUM,
                                  ESCQRS_ONE, NULL, NULL),
                         ESCQRS_OK);
    }
    assert_int_equal(escqrs_schema_seal(schema, NULL), ESCQRS_OK);
    return schema;
}

static void test_canonical(void **state)
{
    (void)state;
    escqrs_schema *schemas[] = {two_fields(false, "b"), two_fields(true, "b"),
                                two_fields(false, "c")};
    escqrs_slice records[3];
    for (int i = 0; i < 3; i++) {
        records[i] = record_of(schemas[i]);
    }
    assert_true(escqrs_slice_equal(records[0], records[1]));
    assert_false(escqrs_slice_equal(records[0], records[2]));
    assert_true(escqrs_schema_fingerprint(schemas[0]) != 0);
    assert_true(escqrs_schema_fingerprint(schemas[0]) == escqrs_schema_fingerprint(schemas[1]));
    assert_true(escqrs_schema_fingerprint(schemas[0]) != escqrs_schema_fingerprint(schemas[2]));
    assert_true(escqrs_schema_fingerprint(schemas[0]) == escqrs_schema_fingerprint(schemas[0]));
    for (int i = 0; i < 3; i++) {
        escqrs_free((void *)records[i].data);
        escqrs_schema_destroy(schemas[i]);
    }
}

static void test_load(void **state)
{
    (void)state;
    escqrs_slice record = record_of(types.root);
    escqrs_schema *loaded = NULL;
    assert_int_equal(escqrs_schema_load(record, &loaded, NULL), ESCQRS_OK);
    escqrs_slice again = record_of(loaded);
    assert_true(escqrs_slice_equal(record, again));
    assert_true(escqrs_schema_fingerprint(loaded) == escqrs_schema_fingerprint(types.root));
    assert_int_equal(escqrs_schema_field_count(loaded), escqrs_schema_field_count(types.root));
    const escqrs_field *self = escqrs_schema_find(loaded, escqrs_slice_of("self"));
    assert_ptr_equal(self->message, loaded);
    const escqrs_field *leaves = escqrs_schema_find(loaded, escqrs_slice_of("leaves"));
    assert_string_equal(escqrs_schema_name(leaves->message), "tests.Leaf");
    assert_int_equal(escqrs_schema_compare(types.root, record, NULL), ESCQRS_OK);

    /* It reads what the first one wrote. */
    wire w = {0};
    wire leaf = {0};
    wire_str(&leaf, 1, "x");
    wire_message(&w, 8, &leaf);
    wire_int(&w, 7, -7);
    ProtobufCMessage *message = NULL;
    assert_int_equal(escqrs_message_unpack(loaded, wire_slice(&w), NULL, &message, NULL),
                     ESCQRS_OK);
    assert_int_equal(*(int *)rich_at(loaded, message, "color"), -7);
    escqrs_message_free(message);
    wire_fini(&w);

    escqrs_free((void *)record.data);
    escqrs_free((void *)again.data);
    escqrs_schema_destroy(loaded);
}

static void refuse(const wire *w, const char *text)
{
    escqrs_schema *loaded = NULL;
    escqrs_error error = {0};
    assert_int_equal(escqrs_schema_load(wire_slice(w), &loaded, &error), ESCQRS_CORRUPT);
    assert_int_equal(error.status, ESCQRS_CORRUPT);
    assert_null(loaded);
    if (strstr(error.message, text) == NULL) {
        fail_msg("`%s` is not in: %s", text, error.message);
    }
}

static wire message_with(wire *field)
{
    wire message = {0};
    wire record = {0};
    wire_str(&message, 1, "Item");
    wire_message(&message, 2, field);
    wire_message(&record, 1, &message);
    return record;
}

static void test_damaged(void **state)
{
    (void)state;
    wire record = {0};
    refuse(&record, "does not decode");
    wire_str(&record, 1, "\xff\xff\xff");
    refuse(&record, "does not decode");
    wire_fini(&record);
    wire nested = {0};
    wire_str(&nested, 1, "no name");
    wire_message(&record, 1, &nested);
    refuse(&record, "a recorded definition is damaged: `no name`");
    wire_fini(&record);

    wire field = {0};
    wire_str(&field, 1, "a");
    wire_int(&field, 2, 1);
    wire_int(&field, 3, 77);
    wire_int(&field, 4, 1);
    record = message_with(&field);
    refuse(&record, "unknown kind");
    wire_fini(&record);

    wire_str(&field, 1, "a");
    wire_int(&field, 2, 1);
    wire_int(&field, 3, ESCQRS_KIND_MESSAGE);
    wire_int(&field, 4, 1);
    wire_int(&field, 7, 1);
    record = message_with(&field);
    refuse(&record, "nested message 1 of 1");
    wire_fini(&record);

    wire_str(&field, 1, "a");
    wire_int(&field, 2, 1);
    wire_int(&field, 3, ESCQRS_KIND_ENUM);
    wire_int(&field, 4, 1);
    record = message_with(&field);
    refuse(&record, "a recorded definition is damaged");
    wire_fini(&record);

    uint8_t *large = calloc(1, 2000000);
    wire too_large = {.data = large, .size = 2000000};
    refuse(&too_large, "larger");
    free(large);
}

/* Any change of a byte: loaded as something, or CORRUPT; never a crash or another status. */
static void test_flipped(void **state)
{
    (void)state;
    escqrs_slice record = record_of(types.root);
    uint8_t *copy = malloc(record.size);
    for (size_t i = 0; i < record.size; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(copy, record.data, record.size);
            copy[i] ^= (uint8_t)(1u << bit);
            escqrs_schema *loaded = NULL;
            escqrs_status status =
                escqrs_schema_load((escqrs_slice){copy, record.size}, &loaded, NULL);
            assert_true(status == ESCQRS_OK || status == ESCQRS_CORRUPT);
            escqrs_schema_destroy(loaded);
        }
        escqrs_schema *loaded = NULL;
        escqrs_status status = escqrs_schema_load((escqrs_slice){copy, i}, &loaded, NULL);
        assert_true(status == ESCQRS_OK || status == ESCQRS_CORRUPT);
        escqrs_schema_destroy(loaded);
    }
    free(copy);
    escqrs_free((void *)record.data);
}

static void test_clash(void **state)
{
    (void)state;
    escqrs_schema *first = two_fields(false, "b");
    escqrs_schema *same = two_fields(true, "b");
    escqrs_schema *other = two_fields(false, "c");
    for (int i = 0; i < 2; i++) {
        escqrs_schema *outer = NULL;
        assert_int_equal(escqrs_schema_create(escqrs_slice_of("Outer"), &outer, NULL), ESCQRS_OK);
        assert_int_equal(rich_add(outer, "x", 1, ESCQRS_KIND_MESSAGE, ESCQRS_ONE, first, NULL),
                         ESCQRS_OK);
        assert_int_equal(
            rich_add(outer, "y", 2, ESCQRS_KIND_MESSAGE, ESCQRS_ONE, i == 0 ? same : other, NULL),
            ESCQRS_OK);
        assert_int_equal(escqrs_schema_seal(outer, NULL), ESCQRS_OK);
        void *record = NULL;
        size_t size = 0;
        escqrs_error error = {0};
        assert_int_equal(escqrs_schema_record(outer, &record, &size, &error),
                         i == 0 ? ESCQRS_OK : ESCQRS_NAME_CLASH);
        assert_true(i == 0 || strstr(error.message, "are named Item") != NULL);
        escqrs_free(record);
        escqrs_schema_destroy(outer);
    }
    escqrs_schema_destroy(first);
    escqrs_schema_destroy(same);
    escqrs_schema_destroy(other);
}

static void test_no_memory(void **state)
{
    (void)state;
    escqrs_slice record = record_of(types.root);
    long failures[3] = {0};
    for (int what = 0; what < 3; what++) {
        for (long countdown = 1;; countdown++) {
            escqrs_schema *loaded = NULL;
            void *data = NULL;
            size_t size = 0;
            escqrs_error error = {0};
            escqrs_status status;
            escqrs_alloc_fail(countdown, false);
            switch (what) {
            case 0:
                status = escqrs_schema_record(types.root, &data, &size, &error);
                break;
            case 1:
                status = escqrs_schema_load(record, &loaded, &error);
                break;
            default:
                status = escqrs_schema_compare(types.root, record, &error);
                break;
            }
            escqrs_alloc_fail(0, false);
            escqrs_free(data);
            escqrs_schema_destroy(loaded);
            if (status == ESCQRS_OK) {
                break;
            }
            assert_int_equal(status, ESCQRS_NO_MEMORY);
            assert_int_equal(error.status, ESCQRS_NO_MEMORY);
            failures[what]++;
        }
        assert_true(failures[what] >= 2);
    }
    rich fresh;
    assert_int_equal(rich_create(&fresh, NULL), ESCQRS_OK);
    escqrs_alloc_fail(1, true);
    assert_true(escqrs_schema_fingerprint(fresh.root) == 0);
    escqrs_alloc_fail(0, false);
    assert_true(escqrs_schema_fingerprint(fresh.root) != 0);
    rich_destroy(&fresh);
    escqrs_free((void *)record.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_canonical), cmocka_unit_test(test_load),
        cmocka_unit_test(test_damaged),   cmocka_unit_test(test_flipped),
        cmocka_unit_test(test_clash),     cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
