/* Definitions as .proto files. Where protoc is installed it must accept each of them. */
#include "support/test.h"

#include <stdio.h>
#include <sys/stat.h>

#include "rich.h"
#include "sink.h"
#include "wire_text.h"

static bool has_protoc;

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* The files of google.protobuf come in a package of their own, so the one needed here is written
 * anew. */
static const char timestamp_proto[] = "syntax = \"proto3\";\n"
                                      "package google.protobuf;\n"
                                      "message Timestamp { int64 seconds = 1; int32 nanos = 2; }\n";

/* A folder with test.proto in it, to be removed. */
static char *folder_with(const char *text)
{
    char *folder = test_folder_new();
    char path[4096];
    snprintf(path, sizeof path, "%s/google", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/google/protobuf", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    write_file(folder, "google/protobuf/timestamp.proto", timestamp_proto);
    write_file(folder, "test.proto", text);
    return folder;
}

static void compile(const char *text)
{
    if (!has_protoc) {
        return;
    }
    char *folder = folder_with(text);
    char command[10000];
    snprintf(command, sizeof command,
             "protoc --proto_path='%s' --descriptor_set_out=/dev/null test.proto >'%s/output' 2>&1",
             folder, folder);
    if (system(command) != 0) {
        snprintf(command, sizeof command, "cat '%s/output' >&2", folder);
        (void)!system(command);
        fail_msg("protoc does not accept:\n%s", text);
    }
    test_folder_remove(folder);
}

static sink print(const escqrs_schema *const *schemas, size_t count)
{
    sink s = {0};
    escqrs_error error = {0};
    if (escqrs_schema_print_proto(schemas, count, sink_write, &s, &error) != ESCQRS_OK) {
        fail_msg("%s", error.message);
    }
    compile(s.text);
    return s;
}

static void expect_in(const sink *s, const char *part)
{
    if (strstr(s->text, part) == NULL) {
        fail_msg("`%s` is not in:\n%s", part, s->text);
    }
}

static escqrs_schema *new_schema(const char *name)
{
    escqrs_schema *schema = NULL;
    escqrs_error error = {0};
    if (escqrs_schema_create(escqrs_slice_of(name), &schema, &error) != ESCQRS_OK) {
        fail_msg("%s", error.message);
    }
    return schema;
}

static void add(escqrs_schema *schema, const char *name, uint32_t number, escqrs_kind kind,
                escqrs_label label)
{
    assert_int_equal(rich_add(schema, name, number, kind, label, NULL, NULL), ESCQRS_OK);
}

static void seal(escqrs_schema *schema)
{
    assert_int_equal(escqrs_schema_seal(schema, NULL), ESCQRS_OK);
}

static void test_everything(void **state)
{
    (void)state;
    rich types;
    assert_int_equal(rich_create(&types, NULL), ESCQRS_OK);
    const escqrs_schema *schemas[] = {types.root};
    sink s = print(schemas, 1);
    assert_string_equal(s.text, "syntax = \"proto3\";\n"
                                "\n"
                                "package tests;\n"
                                "\n"
                                "import \"google/protobuf/timestamp.proto\";\n"
                                "\n"
                                "message Rich {\n"
                                "  optional string text = 1;\n"
                                "  optional int64 number = 2;\n"
                                "  optional double ratio = 3;\n"
                                "  optional bool flag = 4;\n"
                                "  optional bytes raw = 5;\n"
                                "  optional .google.protobuf.Timestamp time = 6;\n"
                                "  optional .tests.Color color = 7;\n"
                                "  optional int64 maybe = 10;\n"
                                "  optional int64 far = 300;\n"
                                "  repeated int64 numbers = 31;\n"
                                "  repeated bool flags = 32;\n"
                                "  repeated double ratios = 33;\n"
                                "  repeated string names = 34;\n"
                                "  repeated .google.protobuf.Timestamp times = 35;\n"
                                "  repeated .tests.Color colors = 36;\n"
                                "  map<string, int64> counts = 40;\n"
                                "  optional .tests.Leaf leaf = 8;\n"
                                "  optional .tests.Rich self = 9;\n"
                                "  repeated .tests.Rich children = 30;\n"
                                "  map<int64, .tests.Leaf> leaves = 41;\n"
                                "}\n"
                                "\n"
                                "message Leaf {\n"
                                "  optional string label = 1;\n"
                                "  optional double weight = 2;\n"
                                "}\n"
                                "\n"
                                "enum Color {\n"
                                "  COLOR_UNSPECIFIED = 0;\n"
                                "  COLOR_DARK = -7;\n"
                                "  COLOR_RED = 1;\n"
                                "  COLOR_GREEN = 2;\n"
                                "}\n");
    sink_fini(&s);
    rich_destroy(&types);
}

static wire pack(const escqrs_schema *schema, escqrs_slice data)
{
    ProtobufCMessage *message = NULL;
    escqrs_error error = {0};
    if (escqrs_message_unpack(schema, data, NULL, &message, &error) != ESCQRS_OK) {
        fail_msg("%s", error.message);
    }
    wire w = {0};
    w.capacity = w.size = protobuf_c_message_get_packed_size(message);
    w.data = malloc(w.size + 1);
    protobuf_c_message_pack(message, w.data);
    escqrs_message_free(message);
    return w;
}

/* Google's protobuf reads what we write, as text, and writes from that what we read. */
static void test_google(void **state)
{
    (void)state;
    if (!has_protoc) {
        skip();
    }
    rich types;
    assert_int_equal(rich_create(&types, NULL), ESCQRS_OK);
    wire w = {0};
    wire nested = {0};
    wire child = {0};
    wire_data(&w, 1, "a\0\xc3\xa9\"", 5);
    wire_int(&w, 2, INT64_MIN);
    wire_double(&w, 3, 0.1);
    wire_int(&w, 4, 0);
    wire_data(&w, 5, "\xff\0\n", 3);
    wire_int(&nested, 1, -1);
    wire_int(&nested, 2, 999999999);
    wire_message(&w, 6, &nested);
    wire_int(&w, 7, -7);
    wire_str(&nested, 1, "leaf");
    wire_message(&w, 8, &nested);
    wire_int(&child, 2, 0);
    wire_message(&w, 9, &child);
    wire_message(&w, 30, &child);
    wire_data(&w, 31, "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11);
    wire_data(&w, 32, "\x01\x00", 2);
    wire_data(&w, 33, "\0\0\0\0\0\0\xf0\x3f", 8);
    wire_str(&w, 34, "");
    wire_str(&w, 34, "x");
    wire_data(&w, 36, "\x01\x02", 2);
    wire_str(&nested, 1, "key");
    wire_int(&nested, 2, 5);
    wire_message(&w, 40, &nested);
    wire_int(&nested, 1, -3);
    wire_str(&child, 1, "value");
    wire_message(&nested, 2, &child);
    wire_message(&w, 41, &nested);
    wire_int(&w, 300, 1);
    wire ours = pack(types.root, wire_slice(&w));

    const escqrs_schema *schemas[] = {types.root};
    sink s = print(schemas, 1);
    char *folder = folder_with(s.text);
    char path[4096];
    snprintf(path, sizeof path, "%s/ours", folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(ours.data, 1, ours.size, file), ours.size);
    assert_int_equal(fclose(file), 0);
    char command[10000];
    snprintf(command, sizeof command,
             "cd '%s' && protoc --decode=tests.Rich test.proto <ours >text && "
             "protoc --encode=tests.Rich test.proto <text >theirs",
             folder);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/theirs", folder);
    file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t data[1024];
    size_t size = fread(data, 1, sizeof data, file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(size, ours.size);
    wire theirs = pack(types.root, (escqrs_slice){data, size});
    assert_int_equal(theirs.size, ours.size);
    assert_memory_equal(theirs.data, ours.data, ours.size);
    wire_fini(&theirs);
    wire_fini(&ours);
    wire_fini(&w);
    sink_fini(&s);
    test_folder_remove(folder);
    rich_destroy(&types);
}

/* Packages that differ: what is not common becomes messages in messages. */
static void test_packages(void **state)
{
    (void)state;
    static const char *const names[] = {"shop.Item", "shop.sub.deep.Part", "shop.Item.Size",
                                        "shop.sub.Other"};
    escqrs_schema *schemas[4];
    for (int i = 0; i < 4; i++) {
        schemas[i] = new_schema(names[i]);
        if (i > 0) {
            assert_int_equal(rich_add(schemas[i], "x", 1, ESCQRS_KIND_MESSAGE, ESCQRS_LIST,
                                      schemas[i - 1], NULL),
                             ESCQRS_OK);
        }
        seal(schemas[i]);
    }
    sink s = print((const escqrs_schema *const *)schemas, 4);
    expect_in(&s, "package shop;");
    expect_in(&s, "message Item {\n\n  message Size {\n    repeated .shop.sub.deep.Part x = 1;");
    expect_in(&s, "message sub {\n\n  message deep {\n\n    message Part {\n");
    sink_fini(&s);
    const escqrs_schema *one[] = {schemas[0]};
    s = print(one, 1);
    assert_string_equal(s.text, "syntax = \"proto3\";\n\npackage shop;\n\nmessage Item {\n}\n");
    sink_fini(&s);
    for (int i = 0; i < 4; i++) {
        escqrs_schema_destroy(schemas[i]);
    }
    escqrs_schema *plain[] = {new_schema("A"), new_schema("b.C"), new_schema("b")};
    for (int i = 0; i < 3; i++) {
        seal(plain[i]);
    }
    s = print((const escqrs_schema *const *)plain, 3);
    assert_null(strstr(s.text, "package"));
    expect_in(&s, "message b {\n\n  message C {\n");
    sink_fini(&s);
    for (int i = 0; i < 3; i++) {
        escqrs_schema_destroy(plain[i]);
    }
}

static void test_letters(void **state)
{
    (void)state;
    escqrs_schema *schema = new_schema("caf\xc3\xa9.Gr\xc3\xb6\xc3\x9f"
                                       "e");
    add(schema, "h\xc3\xb6he", 1, ESCQRS_KIND_INT, ESCQRS_ONE);
    add(schema, "h_u00f6he", 2, ESCQRS_KIND_INT, ESCQRS_ONE);
    add(schema, "\xe5\x90\x8d", 3, ESCQRS_KIND_STRING, ESCQRS_MAP);
    add(schema, "\xf0\x9d\x92\xb3", 4, ESCQRS_KIND_STRING, ESCQRS_ONE);
    seal(schema);
    const escqrs_schema *schemas[] = {schema};
    sink s = print(schemas, 1);
    expect_in(&s, "package caf_u00e9;");
    expect_in(&s, "message Gr_u00f6_u00dfe {  // Gr\xc3\xb6\xc3\x9f"
                  "e\n");
    expect_in(&s, "optional int64 h_u00f6he = 1;  // h\xc3\xb6he\n");
    expect_in(&s, "optional int64 h_u00f6he_2 = 2;  // h_u00f6he\n");
    expect_in(&s, " _u540d = 3;");
    expect_in(&s, " _u1d4b3 = 4;");
    sink_fini(&s);
    escqrs_schema_destroy(schema);
}

/* Words of the language, and names that protoc finds too similar. */
static void test_names(void **state)
{
    (void)state;
    static const char *const words[] = {
        "message",  "enum",       "package",  "import",   "option",  "optional", "repeated",
        "required", "oneof",      "map",      "reserved", "extend",  "rpc",      "service",
        "returns",  "stream",     "string",   "int64",    "bool",    "double",   "bytes",
        "true",     "inf",        "syntax",   "group",    "default", "public",   "to",
        "max",      "json_name",  "google",   "shop",     "fooBar",  "foo_bar",  "FooBar",
        "foo__bar", "a1",         "a_1",      "Color",    "Part",    "string2",  "key",
        "value",    "descriptor", "PartEntry"};
    size_t count = sizeof words / sizeof words[0];
    escqrs_schema *part = new_schema("shop.Item.Part");
    seal(part);
    for (int label = 0; label < 3; label++) {
        escqrs_schema *schema = new_schema("shop.Item");
        for (size_t i = 0; i < count; i++) {
            static const escqrs_label labels[] = {ESCQRS_ONE, ESCQRS_LIST, ESCQRS_MAP};
            escqrs_kind kind = i % 2 == 0 ? ESCQRS_KIND_MESSAGE : ESCQRS_KIND_ENUM;
            assert_int_equal(rich_add(schema, words[i], (uint32_t)i + 1, kind, labels[label],
                                      kind == ESCQRS_KIND_MESSAGE ? part : NULL, NULL),
                             ESCQRS_OK);
        }
        add(schema, "items", 500, ESCQRS_KIND_INT, ESCQRS_MAP);
        add(schema, "ItemsEntry", 501, ESCQRS_KIND_INT, ESCQRS_ONE);
        add(schema, "Items", 502, ESCQRS_KIND_INT, ESCQRS_MAP);
        seal(schema);
        const escqrs_schema *schemas[] = {schema};
        sink s = print(schemas, 1);
        expect_in(&s, "foo_bar_2 = ");
        expect_in(&s, " Part_2 = ");
        expect_in(&s, " ItemsEntry_2 = 501;  // ItemsEntry\n");
        sink_fini(&s);
        escqrs_schema_destroy(schema);
    }
    escqrs_schema_destroy(part);
    /* messages with names of types and words */
    escqrs_schema *odd[] = {new_schema("string"), new_schema("message"), new_schema("Color"),
                            new_schema("COLOR_RED")};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(
            rich_add(odd[i], "x", 1, ESCQRS_KIND_MESSAGE, ESCQRS_ONE, odd[(i + 1) % 4], NULL),
            ESCQRS_OK);
        add(odd[i], "y", 2, ESCQRS_KIND_ENUM, ESCQRS_ONE);
    }
    for (int i = 0; i < 4; i++) {
        seal(odd[i]);
    }
    const escqrs_schema *first[] = {odd[0]};
    sink s = print(first, 1);
    expect_in(&s, "optional .Color x = 1;");
    expect_in(&s, "enum Color_2 {  // Color\n");
    sink_fini(&s);
    for (int i = 0; i < 4; i++) {
        escqrs_schema_destroy(odd[i]);
    }
}

static void add_enum(escqrs_schema *schema, const char *field, uint32_t number, const char *name,
                     const escqrs_enum_value *values, size_t count)
{
    escqrs_field_spec spec = {.name = field,
                              .number = number,
                              .kind = ESCQRS_KIND_ENUM,
                              .label = ESCQRS_ONE,
                              .enum_name = name,
                              .enum_values = values,
                              .enum_value_count = count};
    assert_int_equal(escqrs_schema_add(schema, &spec, NULL), ESCQRS_OK);
}

static void test_enums(void **state)
{
    (void)state;
    static const escqrs_enum_value similar[] = {
        {"red", 0}, {"RED", 1}, {"Red", 2}, {"dark_red", 3}, {"darkRed", 4}, {"UNSPECIFIED", 5}};
    static const escqrs_enum_value no_zero[] = {{"UNSPECIFIED", 1}, {"Unspecified", -1}};
    static const escqrs_enum_value other[] = {{"ONE", 1}};
    static const escqrs_enum_value ends[] = {
        {"LEAST", INT32_MIN}, {"MOST", INT32_MAX}, {"ZERO", 0}};
    escqrs_schema *schema = new_schema("shop.Item");
    add_enum(schema, "a", 1, "Color", similar, 6);
    add_enum(schema, "b", 2, "Color", similar, 6); /* the same: printed once */
    add_enum(schema, "c", 3, "Color", other, 1);   /* another of that name */
    add_enum(schema, "d", 4, "PaintStyle", no_zero, 2);
    add_enum(schema, "e", 5, "shop.Dotted", ends, 3);
    add_enum(schema, "f", 6, "Item", ends, 3); /* named like the message */
    add_enum(schema, "g", 7, "\xc3\x89tat", other, 1);
    seal(schema);
    const escqrs_schema *schemas[] = {schema};
    sink s = print(schemas, 1);
    expect_in(&s, "enum Color {\n  COLOR_red = 0;\n  COLOR_RED_2 = 1;  // RED\n");
    expect_in(&s, "  COLOR_dark_red = 3;\n  COLOR_darkRed_2 = 4;");
    expect_in(&s, "optional .shop.Color b = 2;");
    expect_in(&s, "optional .shop.Color_2 c = 3;");
    expect_in(&s, "enum Color_2 {  // Color\n  COLOR_2_UNSPECIFIED = 0;\n");
    expect_in(&s, "enum PaintStyle {\n  PAINT_STYLE_UNSPECIFIED = 0;\n");
    expect_in(&s, "enum shop_Dotted {  // shop.Dotted\n  SHOP_DOTTED_ZERO = 0;\n"
                  "  SHOP_DOTTED_LEAST = -2147483648;\n");
    expect_in(&s, "enum Item_2 {");
    sink_fini(&s);
    escqrs_schema_destroy(schema);
}

static void test_failures(void **state)
{
    (void)state;
    sink s = {0};
    escqrs_error error = {0};
    assert_int_equal(escqrs_schema_print_proto(NULL, 0, sink_write, &s, &error), ESCQRS_INVALID);
    escqrs_schema *two[] = {new_schema("Item"), new_schema("Item")};
    add(two[0], "x", 1, ESCQRS_KIND_INT, ESCQRS_ONE);
    seal(two[0]);
    seal(two[1]);
    assert_int_equal(
        escqrs_schema_print_proto((const escqrs_schema *const *)two, 2, sink_write, &s, &error),
        ESCQRS_NAME_CLASH);
    escqrs_schema_destroy(two[0]);
    escqrs_schema_destroy(two[1]);
    rich types;
    assert_int_equal(rich_create(&types, NULL), ESCQRS_OK);
    const escqrs_schema *schemas[] = {types.root};
    s.calls_left = 2;
    assert_int_equal(escqrs_schema_print_proto(schemas, 1, sink_write, &s, &error),
                     ESCQRS_NO_MEMORY);
    sink_fini(&s);
    long failures = 0;
    for (long countdown = 1;; countdown++) {
        escqrs_alloc_fail(countdown, false);
        escqrs_status status = escqrs_schema_print_proto(schemas, 1, sink_write, &s, &error);
        escqrs_alloc_fail(0, false);
        sink_fini(&s);
        if (status == ESCQRS_OK) {
            break;
        }
        assert_int_equal(status, ESCQRS_NO_MEMORY);
        failures++;
    }
    assert_true(failures >= 3);
    rich_destroy(&types);
}

int main(void)
{
    has_protoc = system("protoc --version >/dev/null 2>&1") == 0;
    if (!has_protoc) {
        puts("protoc is not installed: the files are not compiled");
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything), cmocka_unit_test(test_google),
        cmocka_unit_test(test_packages),   cmocka_unit_test(test_letters),
        cmocka_unit_test(test_names),      cmocka_unit_test(test_enums),
        cmocka_unit_test(test_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
