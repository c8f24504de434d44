/* Definitions: what is accepted, what is refused with which words, and what is laid out where. */
#include "support/test.h"

#include <stdio.h>

#include "rich.h"

static escqrs_schema *new_schema(const char *name)
{
    escqrs_schema *schema = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of(name), &schema, NULL), ESCQRS_OK);
    return schema;
}

static void test_names(void **state)
{
    (void)state;
    static const char *const good[] = {"A", "shop.ItemAdded", "_x.y1",
                                       "Gr\xc3\xb6\xc3\x9f"
                                       "e",
                                       "a.b.c.d"};
    static const char *const bad[] = {"",   ".",   "a.",  ".a",   "a..b",
                                      "1a", "a b", "a-b", "a.1b", "a\xff"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        escqrs_schema *schema = new_schema(good[i]);
        assert_string_equal(escqrs_schema_name(schema), good[i]);
        escqrs_schema_destroy(schema);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        escqrs_schema *schema = NULL;
        escqrs_error error = {0};
        assert_int_equal(escqrs_schema_create(escqrs_slice_of(bad[i]), &schema, &error),
                         ESCQRS_INVALID);
        assert_null(schema);
        assert_true(error.message[0] != '\0');
    }
    char longest[257];
    memset(longest, 'a', sizeof longest);
    escqrs_schema *schema = NULL;
    assert_int_equal(escqrs_schema_create((escqrs_slice){longest, 255}, &schema, NULL), ESCQRS_OK);
    escqrs_schema_destroy(schema);
    assert_int_equal(escqrs_schema_create((escqrs_slice){longest, 256}, &schema, NULL),
                     ESCQRS_INVALID);
    assert_int_equal(escqrs_schema_create((escqrs_slice){"a\0b", 3}, &schema, NULL),
                     ESCQRS_INVALID);
    escqrs_schema_destroy(NULL);
}

static void refuse(escqrs_schema *schema, escqrs_field_spec spec, escqrs_status status,
                   const char *text)
{
    escqrs_error error = {0};
    assert_int_equal(escqrs_schema_add(schema, &spec, &error), status);
    assert_int_equal(error.status, status);
    if (strstr(error.message, text) == NULL) {
        fail_msg("`%s` is not in: %s", text, error.message);
    }
}

static void test_fields_refused(void **state)
{
    (void)state;
    escqrs_schema *schema = new_schema("shop.Item");
    escqrs_field_spec good = {
        .name = "a", .number = 1, .kind = ESCQRS_KIND_INT, .label = ESCQRS_ONE};
    assert_int_equal(escqrs_schema_add(schema, &good, NULL), ESCQRS_OK);
    escqrs_field_spec spec = good;
    spec.number = 2;
    refuse(schema, spec, ESCQRS_INVALID, "two fields named `a`");
    spec = good;
    spec.name = "b";
    refuse(schema, spec, ESCQRS_INVALID, "`a` and `b` both have the number 1");
    static const char *const names[] = {"_a", "", "1", "a.b", "a b", NULL};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        spec.name = names[i];
        spec.number = 2;
        refuse(schema, spec, ESCQRS_INVALID, "name of a field");
    }
    static const uint32_t numbers[] = {0, 19000, 19999, 536870912, UINT32_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        spec.name = "b";
        spec.number = numbers[i];
        refuse(schema, spec, ESCQRS_INVALID, "shop.Item.b");
    }
    spec.number = 2;
    spec.kind = ESCQRS_KIND_LAST + 1;
    refuse(schema, spec, ESCQRS_INVALID, "shop.Item.b");
    spec.kind = ESCQRS_KIND_INT;
    spec.label = 5;
    refuse(schema, spec, ESCQRS_INVALID, "shop.Item.b");
    spec.label = ESCQRS_MAP;
    spec.key_kind = ESCQRS_KIND_FLOAT;
    refuse(schema, spec, ESCQRS_INVALID, "integers, `bool` or text");
    spec.label = ESCQRS_ONE;
    spec.kind = ESCQRS_KIND_MESSAGE;
    refuse(schema, spec, ESCQRS_INVALID, "schema");
    static const uint32_t ends[] = {18999, 20000, 536870911};
    static const char *const end_names[] = {"x", "y", "z"};
    for (size_t i = 0; i < 3; i++) {
        spec = good;
        spec.name = end_names[i];
        spec.number = ends[i];
        assert_int_equal(escqrs_schema_add(schema, &spec, NULL), ESCQRS_OK);
    }
    assert_int_equal(escqrs_schema_field_count(schema), 4);
    escqrs_schema_destroy(schema);
}

static void test_enums_refused(void **state)
{
    (void)state;
    escqrs_schema *schema = new_schema("Item");
    escqrs_enum_value values[] = {{"A", 1}, {"B", 2}};
    escqrs_field_spec spec = {.name = "color",
                              .number = 1,
                              .kind = ESCQRS_KIND_ENUM,
                              .label = ESCQRS_ONE,
                              .enum_values = values,
                              .enum_value_count = 2};
    refuse(schema, spec, ESCQRS_INVALID, "name");
    spec.enum_name = "Color";
    spec.enum_value_count = 0;
    refuse(schema, spec, ESCQRS_INVALID, "no members");
    spec.enum_value_count = 2;
    values[1].name = "A";
    refuse(schema, spec, ESCQRS_INVALID, "two members named `A`");
    values[1] = (escqrs_enum_value){"B", 1};
    refuse(schema, spec, ESCQRS_INVALID, "both have the number 1");
    values[1] = (escqrs_enum_value){"B b", 2};
    refuse(schema, spec, ESCQRS_INVALID, "`B b`");
    assert_int_equal(escqrs_schema_field_count(schema), 0);
    escqrs_schema_destroy(schema);
}

static void test_field_limit(void **state)
{
    (void)state;
    escqrs_schema *schema = new_schema("Wide");
    for (uint32_t i = 1; i <= 1000; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%u", i);
        escqrs_field_spec spec = {
            .name = name, .number = 1001 - i, .kind = ESCQRS_KIND_BOOL, .label = ESCQRS_ONE};
        assert_int_equal(escqrs_schema_add(schema, &spec, NULL), ESCQRS_OK);
    }
    escqrs_field_spec more = {
        .name = "more", .number = 1001, .kind = ESCQRS_KIND_BOOL, .label = ESCQRS_ONE};
    refuse(schema, more, ESCQRS_TOO_LARGE, "1000");
    assert_int_equal(escqrs_schema_seal(schema, NULL), ESCQRS_OK);
    const ProtobufCMessageDescriptor *descriptor = escqrs_schema_descriptor(schema);
    for (uint32_t i = 1; i <= 1000; i++) {
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(descriptor, i);
        assert_non_null(field);
        assert_int_equal(field->id, i);
        assert_ptr_equal(protobuf_c_message_descriptor_get_field_by_name(descriptor, field->name),
                         field);
    }
    assert_null(protobuf_c_message_descriptor_get_field(descriptor, 1001));
    escqrs_schema_destroy(schema);
}

static void test_layout(void **state)
{
    (void)state;
    rich r;
    assert_int_equal(rich_create(&r, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_seal(r.root, NULL), ESCQRS_OK); /* again is nothing */
    size_t size = escqrs_schema_struct_size(r.root);
    assert_int_equal(size % 8, 0);
    uint8_t *taken = calloc(1, size);
    memset(taken, 1, sizeof(ProtobufCMessage));
    size_t count = escqrs_schema_field_count(r.root);
    assert_int_equal(count, 20);
    for (size_t i = 0; i < count; i++) {
        const escqrs_field *field = escqrs_schema_field(r.root, i);
        bool repeated = field->label == ESCQRS_LIST || field->label == ESCQRS_MAP;
        bool pointer = field->kind == ESCQRS_KIND_TIME || field->kind == ESCQRS_KIND_MESSAGE;
        size_t value_size = 8;
        if (!repeated && (field->kind == ESCQRS_KIND_STRING || field->kind == ESCQRS_KIND_BYTES)) {
            value_size = sizeof(ProtobufCBinaryData);
        } else if (!repeated &&
                   (field->kind == ESCQRS_KIND_BOOL || field->kind == ESCQRS_KIND_ENUM)) {
            value_size = 4;
        }
        assert_true(field->value_offset % (value_size == 4 ? 4 : 8) == 0);
        for (size_t j = 0; j < value_size; j++) {
            assert_int_equal(taken[field->value_offset + j]++, 0);
        }
        assert_true((field->count_offset != 0) == repeated);
        assert_true((field->has_offset != 0) == (!repeated && !pointer));
        for (size_t j = 0; repeated && j < sizeof(size_t); j++) {
            assert_int_equal(taken[field->count_offset + j]++, 0);
        }
        for (size_t j = 0; field->has_offset != 0 && j < sizeof(protobuf_c_boolean); j++) {
            assert_int_equal(taken[field->has_offset + j]++, 0);
        }
        assert_ptr_equal(escqrs_schema_find(r.root, escqrs_slice_of(field->name)), field);
    }
    free(taken);
    assert_null(escqrs_schema_field(r.root, count));
    assert_null(escqrs_schema_find(r.root, escqrs_slice_of("nam")));
    assert_null(escqrs_schema_find(r.root, escqrs_slice_of("namess")));
    assert_null(escqrs_schema_find(r.root, escqrs_slice_of("")));

    const escqrs_field *leaves = escqrs_schema_find(r.root, escqrs_slice_of("leaves"));
    assert_int_equal(leaves->key_kind, ESCQRS_KIND_INT);
    assert_ptr_equal(leaves->message, r.leaf);
    assert_int_equal(escqrs_schema_field_count(leaves->entry), 2);
    assert_string_equal(escqrs_schema_field(leaves->entry, 0)->name, "key");
    assert_int_equal(escqrs_schema_field(leaves->entry, 0)->kind, ESCQRS_KIND_INT);
    assert_ptr_equal(escqrs_schema_field(leaves->entry, 1)->message, r.leaf);
    rich_destroy(&r);
}

static void test_descriptor(void **state)
{
    (void)state;
    rich r;
    assert_int_equal(rich_create(&r, NULL), ESCQRS_OK);
    const ProtobufCMessageDescriptor *descriptor = escqrs_schema_descriptor(r.root);
    assert_string_equal(descriptor->name, "tests.Rich");
    assert_string_equal(descriptor->short_name, "Rich");
    assert_string_equal(descriptor->package_name, "tests");
    assert_int_equal(descriptor->n_fields, 20);
    for (unsigned i = 1; i < descriptor->n_fields; i++) {
        assert_true(descriptor->fields[i - 1].id < descriptor->fields[i].id);
    }
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        assert_ptr_equal(protobuf_c_message_descriptor_get_field(descriptor, field->id), field);
        assert_ptr_equal(protobuf_c_message_descriptor_get_field_by_name(descriptor, field->name),
                         field);
    }
    assert_null(protobuf_c_message_descriptor_get_field(descriptor, 11));
    assert_null(protobuf_c_message_descriptor_get_field(descriptor, 299));
    const ProtobufCFieldDescriptor *color =
        protobuf_c_message_descriptor_get_field_by_name(descriptor, "color");
    const ProtobufCEnumDescriptor *colors = color->descriptor;
    assert_string_equal(protobuf_c_enum_descriptor_get_value(colors, -7)->name, "DARK");
    assert_int_equal(protobuf_c_enum_descriptor_get_value_by_name(colors, "GREEN")->value, 2);
    assert_null(protobuf_c_enum_descriptor_get_value(colors, 0));
    const ProtobufCFieldDescriptor *self =
        protobuf_c_message_descriptor_get_field_by_name(descriptor, "self");
    assert_ptr_equal(self->descriptor, descriptor);
    rich_destroy(&r);
}

static void test_no_memory(void **state)
{
    (void)state;
    long failures = 0;
    for (long countdown = 1;; countdown++) {
        rich r;
        escqrs_error error = {0};
        escqrs_alloc_fail(countdown, false);
        escqrs_status status = rich_create(&r, &error);
        escqrs_alloc_fail(0, false);
        if (status == ESCQRS_OK) {
            rich_destroy(&r);
            break;
        }
        assert_int_equal(status, ESCQRS_NO_MEMORY);
        assert_int_equal(error.status, ESCQRS_NO_MEMORY);
        failures++;
    }
    assert_true(failures > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),         cmocka_unit_test(test_fields_refused),
        cmocka_unit_test(test_enums_refused), cmocka_unit_test(test_field_limit),
        cmocka_unit_test(test_layout),        cmocka_unit_test(test_descriptor),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
