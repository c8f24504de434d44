/* Which changes of a definition are accepted, and the words for those that are not. */
#include "support/test.h"

#include <stdio.h>

#include "rich.h"

typedef struct change {
    escqrs_kind kind;
    escqrs_label label;
    escqrs_kind key_kind;
    const char *name;
    uint32_t number;
    bool has_default;
    const char *const *was;
    size_t was_count;
} change;

static const change name_1 = {
    .name = "name", .number = 1, .kind = ESCQRS_KIND_STRING, .label = ESCQRS_ONE};
static const change size_2 = {
    .name = "size", .number = 2, .kind = ESCQRS_KIND_INT, .label = ESCQRS_ONE};

static escqrs_schema *make(const change *fields, size_t count)
{
    escqrs_schema *schema = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("shop.Item"), &schema, NULL), ESCQRS_OK);
    for (size_t i = 0; i < count; i++) {
        escqrs_field_spec spec = {.name = fields[i].name,
                                  .number = fields[i].number,
                                  .kind = fields[i].kind,
                                  .label = fields[i].label,
                                  .key_kind = fields[i].key_kind,
                                  .has_default = fields[i].has_default,
                                  .was = fields[i].was,
                                  .was_count = fields[i].was_count};
        assert_int_equal(escqrs_schema_add(schema, &spec, NULL), ESCQRS_OK);
    }
    assert_int_equal(escqrs_schema_seal(schema, NULL), ESCQRS_OK);
    return schema;
}

/* Compares and destroys both. NULL: is accepted; else a part of the text. */
static void compare_schemas(escqrs_schema *stored, escqrs_schema *now, const char *text)
{
    void *record = NULL;
    size_t size = 0;
    assert_int_equal(escqrs_schema_record(stored, &record, &size, NULL), ESCQRS_OK);
    escqrs_error error = {0};
    escqrs_status status = escqrs_schema_compare(now, (escqrs_slice){record, size}, &error);
    if (text == NULL && status != ESCQRS_OK) {
        fail_msg("%s", error.message);
    }
    if (text != NULL) {
        assert_int_equal(status, ESCQRS_SCHEMA_MISMATCH);
        if (strstr(error.message, text) == NULL) {
            fail_msg("`%s` is not in: %s", text, error.message);
        }
    }
    escqrs_free(record);
    escqrs_schema_destroy(stored);
    escqrs_schema_destroy(now);
}

/* Stored: name = 1, size = 2. Now: these. */
static void compare_with(const change *fields, size_t count, const char *text)
{
    change stored[] = {name_1, size_2};
    compare_schemas(make(stored, 2), make(fields, count), text);
}

static void test_accepted(void **state)
{
    (void)state;
    change same[] = {name_1, size_2};
    compare_with(same, 2, NULL);
    change order[] = {size_2, name_1};
    compare_with(order, 2, NULL);
    change removed[] = {name_1};
    compare_with(removed, 1, NULL);
    compare_with(NULL, 0, NULL);
    change optional = size_2;
    optional.label = ESCQRS_OPTIONAL;
    change fewer_promises[] = {name_1, optional};
    compare_with(fewer_promises, 2, NULL);
    change added[] = {
        name_1,
        size_2,
        {.name = "a",
         .number = 3,
         .kind = ESCQRS_KIND_INT,
         .label = ESCQRS_ONE,
         .has_default = true},
        {.name = "b",
         .number = 4,
         .kind = ESCQRS_KIND_TIME,
         .label = ESCQRS_OPTIONAL,
         .has_default = true},
        {.name = "c",
         .number = 5,
         .kind = ESCQRS_KIND_INT,
         .label = ESCQRS_LIST,
         .has_default = true},
        {.name = "d",
         .number = 6,
         .kind = ESCQRS_KIND_INT,
         .label = ESCQRS_MAP,
         .key_kind = ESCQRS_KIND_INT,
         .has_default = true},
    };
    compare_with(added, 6, NULL);
    change defaulted[] = {name_1, size_2};
    defaulted[0].has_default = true;
    compare_with(defaulted, 2, NULL);
}

static void test_renamed(void **state)
{
    (void)state;
    change fields[] = {name_1, size_2};
    fields[0].name = "title";
    compare_with(
        fields, 2,
        "shop.Item: field 1 was `name: str` in stored data and is now `title: str`. Stored "
        "values would be read under another name: if it is the same field, write `title: str = "
        "es.field(1, was=\"name\")`");
}

static const char *const was_name[] = {"nom", "name"};

/* What either side says of a field's former names counts. */
static void test_renamed_with_was(void **state)
{
    (void)state;
    change fields[] = {name_1, size_2};
    fields[0].name = "title";
    fields[0].was = was_name;
    fields[0].was_count = 2;
    compare_with(fields, 2, NULL);
    change before[] = {name_1, size_2};
    compare_schemas(make(fields, 2), make(before, 2), NULL); /* an older program */
    fields[0].kind = ESCQRS_KIND_BYTES;
    compare_with(fields, 2, "was `name: str` in stored data and is now `title: bytes`");
    fields[0].kind = name_1.kind;
    fields[0].number = 3;
    compare_with(fields, 2, "`name` was field 1 in stored data and is now field 3");
}

static void test_moved(void **state)
{
    (void)state;
    change swapped[] = {name_1, size_2};
    swapped[0].number = 2;
    swapped[1].number = 1;
    compare_with(swapped, 2,
                 "field 1 was `name: str` in stored data and is now `size: int`; `name` has become "
                 "field 2");
    change shifted[] = {size_2}; /* the field before it was removed, and its number came down */
    shifted[0].number = 1;
    compare_with(shifted, 1, "field 1 was `name: str` in stored data and is now `size: int`.");
    change renumbered[] = {name_1, size_2};
    renumbered[1].number = 9;
    compare_with(renumbered, 2,
                 "`size` was field 2 in stored data and is now field 9. Stored values would not be "
                 "found: give it its number back with `es.field(2)`");
}

/* Nothing, an empty list: absent in stored data all the same, and only a default says that it is
 * meant. */
static void test_added_containers_without_default(void **state)
{
    (void)state;
    static const char *const mends[] = {"`= None`", "`= []`", "`= {}`"};
    for (size_t i = 0; i < 3; i++) {
        change fields[] = {name_1,
                           size_2,
                           {.name = "more",
                            .number = 3,
                            .kind = ESCQRS_KIND_INT,
                            .key_kind = ESCQRS_KIND_INT,
                            .label = (escqrs_label)(ESCQRS_OPTIONAL + i)}};
        compare_with(fields, 3, mends[i]);
    }
}

typedef struct seen {
    char text[1024];
} seen;

static void note(void *context, const escqrs_change *what)
{
    seen *all = context;
    size_t used = strlen(all->text);
    snprintf(all->text + used, sizeof all->text - used, "%d %s.%s; ", (int)what->kind,
             what->message, what->field);
    assert_true(strlen(what->text) > 0);
}

static void test_changes(void **state)
{
    (void)state;
    change stored[] = {
        name_1,
        size_2,
        {.name = "gone", .number = 5, .kind = ESCQRS_KIND_BOOL, .label = ESCQRS_ONE},
        {.name = "small", .number = 6, .kind = ESCQRS_KIND_INT32, .label = ESCQRS_ONE}};
    change now[] = {name_1,
                    size_2,
                    {.name = "new", .number = 7, .kind = ESCQRS_KIND_BOOL, .label = ESCQRS_ONE},
                    {.name = "small", .number = 6, .kind = ESCQRS_KIND_INT, .label = ESCQRS_ONE},
                    {.name = "old",
                     .number = 8,
                     .kind = ESCQRS_KIND_BOOL,
                     .label = ESCQRS_ONE,
                     .has_default = true}};
    now[0].name = "title";
    now[0].was = was_name;
    now[0].was_count = 2;
    now[1].kind = ESCQRS_KIND_FLOAT;
    escqrs_schema *before = make(stored, 4);
    escqrs_schema *after = make(now, 5);
    void *record = NULL;
    size_t size = 0;
    assert_int_equal(escqrs_schema_record(before, &record, &size, NULL), ESCQRS_OK);
    seen all = {""};
    escqrs_error error = {0};
    assert_int_equal(escqrs_schema_changes(after, (escqrs_slice){record, size}, note, &all, &error),
                     ESCQRS_OK);
    assert_string_equal(all.text, "3 shop.Item.title; 0 shop.Item.size; 2 shop.Item.gone; "
                                  "4 shop.Item.small; 0 shop.Item.new; 1 shop.Item.old; ");
    escqrs_free(record);
    escqrs_schema_destroy(before);
    escqrs_schema_destroy(after);
}

static void test_versions(void **state)
{
    (void)state;
    change fields[] = {name_1, size_2};
    escqrs_schema *schema = make(fields, 2);
    void *record = NULL;
    void *versioned = NULL;
    size_t size = 0;
    size_t more = 0;
    uint32_t version = 0;
    assert_int_equal(escqrs_schema_record(schema, &record, &size, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_record_version((escqrs_slice){record, size}, &version, NULL),
                     ESCQRS_OK);
    assert_int_equal(version, 1);
    static const uint32_t numbers[] = {1, 2, 127, 128, UINT32_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        assert_int_equal(escqrs_record_set_version((escqrs_slice){record, size}, numbers[i],
                                                   &versioned, &more, NULL),
                         ESCQRS_OK);
        assert_int_equal(escqrs_record_version((escqrs_slice){versioned, more}, &version, NULL),
                         ESCQRS_OK);
        assert_int_equal(version, numbers[i]);
        assert_true((numbers[i] == 1) == (more == size));
        assert_int_equal(escqrs_schema_compare(schema, (escqrs_slice){versioned, more}, NULL),
                         ESCQRS_OK);
        escqrs_free(versioned);
    }
    assert_int_equal(escqrs_record_version((escqrs_slice){"\xff", 1}, &version, NULL),
                     ESCQRS_CORRUPT);
    escqrs_free(record);
    escqrs_schema_destroy(schema);
}

/* Former names are part of the record, and come back. */
static void test_names_that_a_message_had(void **state)
{
    (void)state;
    escqrs_schema *schema = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("shop.Money"), &schema, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_add_was(schema, escqrs_slice_of("Money"), NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_add_was(schema, escqrs_slice_of("Cash"), NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_add_was(schema, escqrs_slice_of("a b"), NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_schema_seal(schema, NULL), ESCQRS_OK);
    void *record = NULL;
    void *again = NULL;
    size_t size = 0;
    size_t same = 0;
    escqrs_schema *loaded = NULL;
    assert_int_equal(escqrs_schema_record(schema, &record, &size, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_load((escqrs_slice){record, size}, &loaded, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_record(loaded, &again, &same, NULL), ESCQRS_OK);
    assert_int_equal(size, same);
    assert_memory_equal(record, again, size);
    escqrs_free(record);
    escqrs_free(again);
    escqrs_schema_destroy(loaded);
    escqrs_schema_destroy(schema);
}

static void test_added_without_default(void **state)
{
    (void)state;
    change fields[] = {
        name_1,
        size_2,
        {.name = "color", .number = 3, .kind = ESCQRS_KIND_BOOL, .label = ESCQRS_ONE}};
    compare_with(fields, 3, "shop.Item: field 3, `color: bool`, is new and has no default");
}

static void test_types(void **state)
{
    (void)state;
    change fields[] = {name_1, size_2};
    fields[1].kind = ESCQRS_KIND_FLOAT;
    compare_with(fields, 2, "field 2 was `size: int` in stored data and is now `size: float`");
    fields[1] = size_2;
    fields[0].kind = ESCQRS_KIND_BYTES; /* the same on the wire */
    compare_with(fields, 2, "is now `name: bytes`");
    fields[0] = name_1;
    fields[1].label = ESCQRS_LIST;
    compare_with(fields, 2, "is now `size: list[int]`");
    fields[1].label = ESCQRS_MAP;
    fields[1].key_kind = ESCQRS_KIND_STRING;
    compare_with(fields, 2, "is now `size: dict[str, int]`");

    change stored = size_2;
    change now = size_2;
    stored.label = ESCQRS_OPTIONAL;
    now.has_default = true;
    compare_schemas(make(&stored, 1), make(&now, 1),
                    "Stored data may have None there: keep `int | None`");
    stored.label = now.label = ESCQRS_MAP;
    stored.key_kind = ESCQRS_KIND_STRING;
    now.key_kind = ESCQRS_KIND_INT;
    compare_schemas(make(&stored, 1), make(&now, 1),
                    "was `size: dict[str, int]` in stored data and is now `size: dict[int, int]`");
}

static void test_wider(void **state)
{
    (void)state;
    static const escqrs_kind wider[][2] = {{ESCQRS_KIND_INT32, ESCQRS_KIND_INT},
                                           {ESCQRS_KIND_UINT32, ESCQRS_KIND_INT},
                                           {ESCQRS_KIND_UINT32, ESCQRS_KIND_UINT64},
                                           {ESCQRS_KIND_SINT32, ESCQRS_KIND_SINT64}};
    for (int was = ESCQRS_KIND_INT; was <= ESCQRS_KIND_LAST; was++) {
        for (int is = ESCQRS_KIND_INT; is <= ESCQRS_KIND_LAST; is++) {
            bool message = was == ESCQRS_KIND_MESSAGE || is == ESCQRS_KIND_MESSAGE;
            if (message || was == ESCQRS_KIND_ENUM || is == ESCQRS_KIND_ENUM) {
                continue;
            }
            bool accepted = was == is;
            for (size_t i = 0; i < sizeof wider / sizeof wider[0]; i++) {
                accepted |= (escqrs_kind)was == wider[i][0] && (escqrs_kind)is == wider[i][1];
            }
            change stored = {
                .kind = (escqrs_kind)was, .label = ESCQRS_LIST, .name = "x", .number = 1};
            change now = stored;
            now.kind = (escqrs_kind)is;
            compare_schemas(make(&stored, 1), make(&now, 1),
                            accepted ? NULL : "Stored values cannot be read so");
        }
    }
    change stored = {.kind = ESCQRS_KIND_BOOL,
                     .label = ESCQRS_MAP,
                     .key_kind = ESCQRS_KIND_UINT32,
                     .name = "x",
                     .number = 1};
    change now = stored;
    now.key_kind = ESCQRS_KIND_UINT64;
    compare_schemas(make(&stored, 1), make(&now, 1), NULL);
    compare_schemas(make(&now, 1), make(&stored, 1), "was `x: dict[es.uint64, bool]`");
}

/* shop.Item with a union of the classes of these letters; `classes` are shop.A to shop.C. */
static escqrs_schema *with_union(const char *letters, escqrs_schema *const classes[3])
{
    escqrs_schema *item = NULL;
    escqrs_schema *made = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("shop.Item"), &item, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("shop.Item.Pay"), &made, NULL),
                     ESCQRS_OK);
    escqrs_schema_make_union(made);
    for (uint32_t i = 0; letters[i] != '\0'; i++) {
        char name[] = {(char)(letters[i] - 'A' + 'a'), '\0'};
        assert_int_equal(rich_add(made, name, i + 1, ESCQRS_KIND_MESSAGE, ESCQRS_OPTIONAL,
                                  classes[letters[i] - 'A'], NULL),
                         ESCQRS_OK);
    }
    assert_int_equal(escqrs_schema_seal(made, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_own(item, made), ESCQRS_OK);
    assert_int_equal(rich_add(item, "pay", 1, ESCQRS_KIND_MESSAGE, ESCQRS_ONE, made, NULL),
                     ESCQRS_OK);
    assert_int_equal(escqrs_schema_seal(item, NULL), ESCQRS_OK);
    return item;
}

static void test_unions(void **state)
{
    (void)state;
    static const char *const names[] = {"shop.A", "shop.B", "shop.C"};
    escqrs_schema *classes[3];
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(escqrs_schema_create(escqrs_slice_of(names[i]), &classes[i], NULL),
                         ESCQRS_OK);
        assert_int_equal(rich_add(classes[i], "x", 1, ESCQRS_KIND_INT, ESCQRS_ONE, NULL, NULL),
                         ESCQRS_OK);
        assert_int_equal(escqrs_schema_seal(classes[i], NULL), ESCQRS_OK);
    }
    compare_schemas(with_union("AB", classes), with_union("AB", classes), NULL);
    compare_schemas(with_union("AB", classes), with_union("ABC", classes), NULL);
    compare_schemas(with_union("AB", classes), with_union("BA", classes),
                    "shop.Item.Pay: class 1 of the union was shop.A (`a`) in stored data and is "
                    "now shop.B (`b`). Stored values would be read as another class: keep the "
                    "union's classes in their order");
    compare_schemas(with_union("AB", classes), with_union("A", classes),
                    "shop.Item.Pay: the union had the class shop.B (`b` = 2) in stored data and "
                    "has none of that number now");
    compare_schemas(with_union("AB", classes), with_union("B", classes), "class 1 of the union");
    for (size_t i = 0; i < 3; i++) {
        escqrs_schema_destroy(classes[i]);
    }
}

static escqrs_schema *with_enum(const escqrs_enum_value *values, size_t count)
{
    escqrs_schema *schema = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("shop.Item"), &schema, NULL), ESCQRS_OK);
    escqrs_field_spec spec = {.name = "color",
                              .number = 1,
                              .kind = ESCQRS_KIND_ENUM,
                              .label = ESCQRS_LIST,
                              .enum_name = "Color",
                              .enum_values = values,
                              .enum_value_count = count};
    assert_int_equal(escqrs_schema_add(schema, &spec, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_seal(schema, NULL), ESCQRS_OK);
    return schema;
}

static void test_enums(void **state)
{
    (void)state;
    static const escqrs_enum_value stored[] = {{"RED", 1}, {"GREEN", 2}};
    static const escqrs_enum_value more[] = {{"BLUE", 3}, {"GREEN", 2}, {"RED", 1}};
    static const escqrs_enum_value fewer[] = {{"GREEN", 2}};
    static const escqrs_enum_value swapped[] = {{"RED", 2}, {"GREEN", 1}};
    compare_schemas(with_enum(stored, 2), with_enum(more, 3), NULL);
    compare_schemas(with_enum(stored, 2), with_enum(fewer, 1),
                    "shop.Item: field 1 (`color`): the enum Color had the member `RED` = 1");
    compare_schemas(with_enum(stored, 2), with_enum(swapped, 2),
                    "1 meant `RED` of the enum Color in stored data and means `GREEN` now");
}

/* A map of a Literal's values by an enum's members. */
static escqrs_schema *with_values(const char *const *literals, size_t literal_count,
                                  const char *const *keys, size_t key_count)
{
    escqrs_schema *schema = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("shop.Item"), &schema, NULL), ESCQRS_OK);
    escqrs_field_spec spec = {.name = "sizes",
                              .number = 1,
                              .kind = ESCQRS_KIND_STRING,
                              .label = ESCQRS_MAP,
                              .key_kind = ESCQRS_KIND_STRING,
                              .literals = literals,
                              .literal_count = literal_count,
                              .key_names = keys,
                              .key_name_count = key_count};
    assert_int_equal(escqrs_schema_add(schema, &spec, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_seal(schema, NULL), ESCQRS_OK);
    return schema;
}

static void test_values(void **state)
{
    (void)state;
    static const char *const few[] = {"s", ""};
    static const char *const more[] = {"", "m", "s"};
    compare_schemas(with_values(few, 2, few, 2), with_values(more, 3, more, 3), NULL);
    compare_schemas(with_values(few, 2, few, 2), with_values(NULL, 0, NULL, 0), NULL);
    compare_schemas(with_values(NULL, 0, NULL, 0), with_values(few, 2, few, 2), NULL);
    compare_schemas(with_values(more, 3, few, 2), with_values(few, 2, few, 2),
                    "shop.Item: field 1 (`sizes`): the Literal had `m` in stored data");
    compare_schemas(with_values(few, 2, more, 3), with_values(few, 2, few, 2),
                    "shop.Item: field 1 (`sizes`): the enum of the keys had `m` in stored data");
    static const char *const turned[] = {"", "s"};
    escqrs_schema *a = with_values(few, 2, few, 2);
    escqrs_schema *b = with_values(turned, 2, turned, 2);
    assert_true(escqrs_schema_fingerprint(a) == escqrs_schema_fingerprint(b));
    escqrs_schema_destroy(a);
    escqrs_schema_destroy(b);
}

/* A tree of nodes that have an item, whose second field is that kind, with the map's or the list's
 * label. */
static escqrs_schema *tree(const char *item_name, escqrs_kind kind, escqrs_schema **item)
{
    escqrs_schema *node = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("Node"), &node, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_create(escqrs_slice_of(item_name), item, NULL), ESCQRS_OK);
    assert_int_equal(rich_add(*item, "a", 1, kind, ESCQRS_ONE, NULL, NULL), ESCQRS_OK);
    assert_int_equal(rich_add(*item, "back", 2, ESCQRS_KIND_MESSAGE, ESCQRS_OPTIONAL, node, NULL),
                     ESCQRS_OK);
    assert_int_equal(rich_add(node, "items", 1, ESCQRS_KIND_MESSAGE, ESCQRS_MAP, *item, NULL),
                     ESCQRS_OK);
    assert_int_equal(rich_add(node, "nodes", 2, ESCQRS_KIND_MESSAGE, ESCQRS_LIST, node, NULL),
                     ESCQRS_OK);
    assert_int_equal(escqrs_schema_seal(*item, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_seal(node, NULL), ESCQRS_OK);
    return node;
}

static void test_nested(void **state)
{
    (void)state;
    escqrs_schema *items[2];
    escqrs_schema *stored = tree("Item", ESCQRS_KIND_INT, &items[0]);
    escqrs_schema *now = tree("Item", ESCQRS_KIND_INT, &items[1]);
    compare_schemas(stored, now, NULL);
    escqrs_schema_destroy(items[0]);
    escqrs_schema_destroy(items[1]);

    stored = tree("Item", ESCQRS_KIND_INT, &items[0]);
    now = tree("Item", ESCQRS_KIND_STRING, &items[1]);
    compare_schemas(stored, now, "Item: field 1 was `a: int` in stored data and is now `a: str`");
    escqrs_schema_destroy(items[0]);
    escqrs_schema_destroy(items[1]);

    stored = tree("Item", ESCQRS_KIND_INT, &items[0]);
    now = tree("Other", ESCQRS_KIND_INT, &items[1]);
    compare_schemas(stored, now,
                    "was `items: dict[int, Item]` in stored data and is now "
                    "`items: dict[int, Other]`");
    escqrs_schema_destroy(items[0]);
    escqrs_schema_destroy(items[1]);
}

static void test_damaged_record(void **state)
{
    (void)state;
    change field = name_1;
    escqrs_schema *schema = make(&field, 1);
    assert_int_equal(escqrs_schema_compare(schema, (escqrs_slice){"\xff", 1}, NULL),
                     ESCQRS_CORRUPT);
    assert_int_equal(escqrs_schema_compare(schema, (escqrs_slice){NULL, 0}, NULL), ESCQRS_CORRUPT);
    escqrs_schema_destroy(schema);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_renamed),
        cmocka_unit_test(test_renamed_with_was),
        cmocka_unit_test(test_names_that_a_message_had),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_added_containers_without_default),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_added_without_default),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_wider),
        cmocka_unit_test(test_unions),
        cmocka_unit_test(test_enums),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_nested),
        cmocka_unit_test(test_damaged_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
