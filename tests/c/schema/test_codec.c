/* Check, unpack, merge, measure. What is unpacked is compared with what protobuf-c unpacks itself.
 */
#include "support/test.h"

#include <stdio.h>

#include "rich.h"
#include "schema/check.h"
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

static wire pack(const ProtobufCMessage *message)
{
    wire w = {0};
    w.size = protobuf_c_message_get_packed_size(message);
    w.capacity = w.size;
    w.data = malloc(w.size + 1);
    assert_int_equal(protobuf_c_message_pack(message, w.data), w.size);
    return w;
}

static void assert_same(const wire *a, const wire *b)
{
    assert_int_equal(a->size, b->size);
    if (a->size > 0) {
        assert_memory_equal(a->data, b->data, a->size);
    }
}

static ProtobufCMessage *unpack(escqrs_slice data)
{
    ProtobufCMessage *message = NULL;
    escqrs_error error = {0};
    escqrs_status status = escqrs_message_unpack(types.root, data, NULL, &message, &error);
    if (status != ESCQRS_OK) {
        fail_msg("%s", error.message);
    }
    assert_ptr_equal(message->descriptor, escqrs_schema_descriptor(types.root));
    assert_true(escqrs_message_memory(message) >= escqrs_schema_struct_size(types.root));
    return message;
}

/* Unpacked and packed again; compared with protobuf-c's own way unless there is something to merge.
 */
static wire round_trip(escqrs_slice data)
{
    escqrs_limits limits = esc_limits_resolve(NULL);
    esc_check_result result;
    assert_int_equal(esc_check(&types.root->plan, data, &limits, &result, NULL), ESCQRS_OK);
    ProtobufCMessage *message = unpack(data);
    wire packed = pack(message);
    size_t measured = 0;
    assert_int_equal(escqrs_message_measure(message, NULL, &measured, NULL), ESCQRS_OK);
    assert_int_equal(measured, packed.size);
    escqrs_message_free(message);
    if (!result.duplicates) {
        message = protobuf_c_message_unpack(escqrs_schema_descriptor(types.root), NULL, data.size,
                                            data.data);
        assert_non_null(message);
        wire theirs = pack(message);
        assert_same(&packed, &theirs);
        wire_fini(&theirs);
        protobuf_c_message_free_unpacked(message, NULL);
    }
    return packed;
}

/* Packing what was packed changes nothing any more. */
static void assert_stable(escqrs_slice data)
{
    wire once = round_trip(data);
    wire twice = round_trip(wire_slice(&once));
    assert_same(&once, &twice);
    wire_fini(&once);
    wire_fini(&twice);
}

/* ---- random messages -------------------------------------------------------------------------- */

static const char *random_text(test_random *random, char buffer[64])
{
    static const char *const parts[] = {"a", "bc", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x9a\x80",
                                        " "};
    buffer[0] = '\0';
    for (uint64_t i = test_random_below(random, 12); i > 0; i--) {
        strcat(buffer, parts[test_random_below(random, 6)]);
    }
    return buffer;
}

static void write_random(test_random *random, wire *w, unsigned depth)
{
    static const uint32_t numbers[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,   10,  30,       31,
                                       32, 33, 34, 35, 36, 40, 41, 99, 300, 500, 536870911};
    char text[64];
    bool seen[42] = {false};
    for (uint64_t fields = test_random_below(random, 24); fields > 0; fields--) {
        uint32_t number = numbers[test_random_below(random, sizeof numbers / sizeof numbers[0])];
        wire nested = {0};
        if (number == 6 || number == 8 || number == 9) {
            if (seen[number]) {
                continue; /* no merging here */
            }
            seen[number] = true;
        }
        uint64_t bits = test_random_next(random) >> test_random_below(random, 64);
        switch (number) {
        case 1:
        case 34:
            wire_str(w, number, random_text(random, text));
            break;
        case 3:
            wire_double(w, number, (double)bits / 3);
            break;
        case 5:
            wire_data(w, number, "\0\xff\x80x", bits % 5);
            break;
        case 6:
        case 35:
            wire_int(&nested, 1, (int64_t)(bits % 253402300799));
            if (bits % 3 != 0) {
                wire_int(&nested, 2, (int64_t)(bits % 1000000000));
            }
            wire_message(w, number, &nested);
            break;
        case 8:
            wire_str(&nested, 1, random_text(random, text));
            wire_message(w, number, &nested);
            break;
        case 9:
        case 30:
            if (depth < 5) {
                write_random(random, &nested, depth + 1);
            }
            wire_message(w, number, &nested);
            break;
        case 31:
        case 36:
            if (bits % 2 == 0) {
                wire_int(w, number, (int64_t)bits); /* not packed */
                break;
            }
            for (uint64_t i = bits % 7; i > 0; i--) {
                wire_varint(&nested, test_random_next(random));
            }
            wire_message(w, number, &nested);
            break;
        case 32:
            wire_data(w, number, "\0\1\1\0\1", bits % 6);
            break;
        case 33:
            wire_data(w, number, "01234567890123456789012345678901", bits % 4 * 8);
            break;
        case 40:
            wire_str(&nested, 1, random_text(random, text));
            wire_int(&nested, 2, (int64_t)bits);
            wire_message(w, number, &nested);
            break;
        case 41: {
            wire leaf = {0};
            wire_double(&leaf, 2, 0.5);
            wire_int(&nested, 1, (int64_t)bits);
            wire_message(&nested, 2, &leaf);
            wire_message(w, number, &nested);
            break;
        }
        case 99:
            wire_tag(w, number, 5);
            wire_bytes(w, "abcd", 4);
            break;
        case 500:
            wire_str(w, number, "unknown");
            break;
        default:
            wire_int(w, number, (int64_t)bits);
            break;
        }
        wire_fini(&nested);
    }
}

static void test_random_messages(void **state)
{
    (void)state;
    test_random random = test_random_new();
    for (long i = 0; i < 2000; i += test_stride(4)) {
        wire w = {0};
        write_random(&random, &w, 0);
        assert_stable(wire_slice(&w));
        wire_fini(&w);
    }
}

/* Whatever passes the check can be unpacked, and protobuf-c reads it the same. */
static void test_damaged_messages(void **state)
{
    (void)state;
    test_random random = test_random_new();
    size_t passed = 0;
    size_t refused = 0;
    for (long i = 0; i < 20000; i += test_stride(4)) {
        wire w = {0};
        write_random(&random, &w, 3);
        for (uint64_t n = 1 + test_random_below(&random, 3); n > 0 && w.size > 0; n--) {
            w.data[test_random_below(&random, w.size)] = (uint8_t)test_random_next(&random);
        }
        if (w.size > 0 && test_random_below(&random, 3) == 0) {
            w.size = (size_t)test_random_below(&random, w.size);
        }
        escqrs_error error = {0};
        escqrs_status status = escqrs_message_check(types.root, wire_slice(&w), NULL, &error);
        if (status == ESCQRS_OK) {
            assert_stable(wire_slice(&w));
            passed++;
        } else {
            assert_int_equal(status, ESCQRS_CORRUPT);
            assert_non_null(strstr(error.message, "tests.Rich"));
            assert_non_null(strstr(error.message, "byte "));
            refused++;
        }
        wire_fini(&w);
    }
    assert_true(passed > 100);
    assert_true(refused > 100);
}

/* ---- values ----------------------------------------------------------------------------------- */

static void test_values(void **state)
{
    (void)state;
    wire w = {0};
    wire time = {0};
    wire entry = {0};
    wire leaf = {0};
    wire_data(&w, 1, "a\0b", 3);
    wire_int(&w, 2, INT64_MIN);
    wire_double(&w, 3, -0.0);
    wire_int(&w, 4, 1);
    wire_data(&w, 5, "", 0);
    wire_int(&time, 1, -62135596800);
    wire_int(&time, 2, 999999999);
    wire_message(&w, 6, &time);
    wire_int(&w, 7, -7);
    wire_int(&w, 10, 0);
    wire_data(&w, 31, "\x01\x02", 2);
    wire_int(&w, 31, 3);
    wire_data(&w, 32, "\x01\x00", 2);
    wire_str(&w, 34, "x");
    wire_str(&w, 34, "");
    wire_str(&entry, 1, "k");
    wire_int(&entry, 2, 5);
    wire_message(&w, 40, &entry);
    wire_int(&entry, 1, 9);
    wire_str(&leaf, 1, "deep");
    wire_message(&entry, 2, &leaf);
    wire_message(&w, 41, &entry);
    wire_message(&w, 41, &entry); /* an entry without key and value */
    ProtobufCMessage *m = unpack(wire_slice(&w));

    const ProtobufCBinaryData *text = rich_at(types.root, m, "text");
    assert_int_equal(text->len, 3);
    assert_memory_equal(text->data, "a\0b", 3);
    assert_true(*rich_has(types.root, m, "text"));
    assert_true(*(int64_t *)rich_at(types.root, m, "number") == INT64_MIN);
    assert_true(*(double *)rich_at(types.root, m, "ratio") == 0);
    assert_int_equal(*(protobuf_c_boolean *)rich_at(types.root, m, "flag"), 1);
    assert_true(*rich_has(types.root, m, "raw"));
    assert_int_equal(((ProtobufCBinaryData *)rich_at(types.root, m, "raw"))->len, 0);
    const escqrs_timestamp *stamp = *(escqrs_timestamp **)rich_at(types.root, m, "time");
    assert_ptr_equal(stamp->base.descriptor, &escqrs_timestamp_descriptor);
    assert_true(stamp->seconds == -62135596800);
    assert_int_equal(stamp->nanos, 999999999);
    assert_int_equal(*(int *)rich_at(types.root, m, "color"), -7);
    assert_true(*rich_has(types.root, m, "maybe"));
    assert_false(*rich_has(types.root, m, "far"));
    assert_null(*(void **)rich_at(types.root, m, "leaf"));
    assert_int_equal(*rich_count(types.root, m, "numbers"), 3);
    assert_true((*(int64_t **)rich_at(types.root, m, "numbers"))[2] == 3);
    assert_int_equal(*rich_count(types.root, m, "flags"), 2);
    assert_int_equal((*(protobuf_c_boolean **)rich_at(types.root, m, "flags"))[0], 1);
    assert_int_equal(*rich_count(types.root, m, "names"), 2);
    assert_int_equal(*rich_count(types.root, m, "counts"), 1);
    assert_int_equal(*rich_count(types.root, m, "leaves"), 2);

    const escqrs_field *leaves = escqrs_schema_find(types.root, escqrs_slice_of("leaves"));
    ProtobufCMessage **entries = *(ProtobufCMessage ***)rich_at(types.root, m, "leaves");
    assert_true(*(int64_t *)rich_at(leaves->entry, entries[0], "key") == 9);
    ProtobufCMessage *value = *(ProtobufCMessage **)rich_at(leaves->entry, entries[0], "value");
    assert_ptr_equal(value->descriptor, escqrs_schema_descriptor(types.leaf));
    assert_null(*(void **)rich_at(leaves->entry, entries[1], "value"));
    escqrs_message_free(m);
    escqrs_message_free(NULL);
    wire_fini(&w);
}

static void test_last_counts(void **state)
{
    (void)state;
    wire w = {0};
    wire_int(&w, 2, 1);
    wire_str(&w, 1, "first");
    wire_str(&w, 1, "");
    wire_int(&w, 2, 7);
    ProtobufCMessage *m = unpack(wire_slice(&w));
    assert_int_equal(((ProtobufCBinaryData *)rich_at(types.root, m, "text"))->len, 0);
    assert_true(*(int64_t *)rich_at(types.root, m, "number") == 7);
    escqrs_message_free(m);
    wire_fini(&w);
}

static void test_unknown_fields(void **state)
{
    (void)state;
    wire w = {0};
    wire_int(&w, 2, 5);
    wire_int(&w, 77, 12345);
    wire_str(&w, 78, "kept");
    wire_double(&w, 79, 1.5);
    wire_tag(&w, 536870911, 5);
    wire_bytes(&w, "1234", 4);
    ProtobufCMessage *m = unpack(wire_slice(&w));
    assert_int_equal(m->n_unknown_fields, 4);
    assert_int_equal(m->unknown_fields[0].tag, 77);
    assert_int_equal(m->unknown_fields[3].tag, 536870911);
    wire again = pack(m);
    assert_same(&again, &w); /* the known field comes first here, so nothing moves */
    wire_fini(&again);
    escqrs_message_free(m);
    wire_fini(&w);
}

static void test_empty(void **state)
{
    (void)state;
    ProtobufCMessage *m = unpack((escqrs_slice){NULL, 0});
    assert_int_equal(protobuf_c_message_get_packed_size(m), 0);
    escqrs_message_free(m);

    escqrs_schema *empty = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("Empty"), &empty, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_seal(empty, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_message_unpack(empty, (escqrs_slice){"\x08\x05", 2}, NULL, &m, NULL),
                     ESCQRS_OK);
    assert_int_equal(m->n_unknown_fields, 1);
    escqrs_message_free(m);
    escqrs_schema_destroy(empty);
}

static void test_init(void **state)
{
    (void)state;
    ProtobufCMessage *m = malloc(escqrs_schema_struct_size(types.root));
    escqrs_message_init(types.root, m);
    *rich_has(types.root, m, "number") = 1;
    *(int64_t *)rich_at(types.root, m, "number") = -1;
    wire w = pack(m);
    wire expected = {0};
    wire_int(&expected, 2, -1);
    assert_same(&w, &expected);
    wire_fini(&w);
    wire_fini(&expected);
    free(m);
}

/* ---- merging ---------------------------------------------------------------------------------- */

static void test_merge(void **state)
{
    (void)state;
    wire w = {0};
    wire nested = {0};
    wire inner = {0};
    wire_str(&inner, 1, "lost");
    wire_message(&nested, 8, &inner);
    wire_int(&nested, 31, 1);
    wire_int(&nested, 2, 10);
    wire_message(&w, 9, &nested);
    wire_int(&w, 2, 3);
    wire_str(&inner, 1, ""); /* set to empty: that counts */
    wire_double(&inner, 2, 2.5);
    wire_message(&nested, 8, &inner);
    wire_data(&nested, 31, "\x02\x03", 2);
    wire_int(&nested, 99, 4);
    wire_message(&w, 9, &nested);
    wire_int(&nested, 31, 4);
    wire_message(&w, 9, &nested);
    ProtobufCMessage *m = unpack(wire_slice(&w));
    assert_true(*(int64_t *)rich_at(types.root, m, "number") == 3);
    ProtobufCMessage *self = *(ProtobufCMessage **)rich_at(types.root, m, "self");
    assert_true(*(int64_t *)rich_at(types.root, self, "number") == 10);
    assert_int_equal(self->n_unknown_fields, 1);
    assert_int_equal(*rich_count(types.root, self, "numbers"), 4);
    for (int64_t i = 0; i < 4; i++) {
        assert_true((*(int64_t **)rich_at(types.root, self, "numbers"))[i] == i + 1);
    }
    ProtobufCMessage *leaf = *(ProtobufCMessage **)rich_at(types.root, self, "leaf");
    assert_true(*rich_has(types.leaf, leaf, "label"));
    assert_int_equal(((ProtobufCBinaryData *)rich_at(types.leaf, leaf, "label"))->len, 0);
    assert_true(*(double *)rich_at(types.leaf, leaf, "weight") == 2.5);
    escqrs_message_free(m);
    assert_stable(wire_slice(&w));
    wire_fini(&w);
}

/* In lists and in the values of maps too, and for times. */
static void test_merge_deeper(void **state)
{
    (void)state;
    wire w = {0};
    wire child = {0};
    wire part = {0};
    wire_int(&part, 1, 100);
    wire_message(&child, 6, &part);
    wire_int(&part, 2, 5);
    wire_message(&child, 6, &part);
    wire_message(&w, 30, &child);
    wire_message(&w, 30, &child); /* empty */
    wire_str(&part, 1, "a");
    wire_message(&child, 2, &part);
    wire_double(&part, 2, 0.25);
    wire_message(&child, 2, &part);
    wire_message(&w, 41, &child);
    ProtobufCMessage *m = unpack(wire_slice(&w));
    assert_int_equal(*rich_count(types.root, m, "children"), 2);
    ProtobufCMessage **children = *(ProtobufCMessage ***)rich_at(types.root, m, "children");
    const escqrs_timestamp *time = *(escqrs_timestamp **)rich_at(types.root, children[0], "time");
    assert_int_equal(time->seconds, 100);
    assert_int_equal(time->nanos, 5);
    const escqrs_field *leaves = escqrs_schema_find(types.root, escqrs_slice_of("leaves"));
    ProtobufCMessage **entries = *(ProtobufCMessage ***)rich_at(types.root, m, "leaves");
    ProtobufCMessage *leaf = *(ProtobufCMessage **)rich_at(leaves->entry, entries[0], "value");
    assert_int_equal(((ProtobufCBinaryData *)rich_at(types.leaf, leaf, "label"))->len, 1);
    assert_true(*(double *)rich_at(types.leaf, leaf, "weight") == 0.25);
    escqrs_message_free(m);
    wire_fini(&w);
}

/* That many occurrences take linear time and memory: merged pairwise this would not end. */
static void test_merge_hostile(void **state)
{
    (void)state;
    wire w = {0};
    const long count = 200000 / test_stride(4);
    for (long i = 0; i < count; i++) {
        wire_bytes(&w, "\x4a\x03\xfa\x01\x00", 5); /* self { numbers: [] } */
        wire_bytes(&w, "\x4a\x03\xf8\x01\x07", 5); /* self { numbers: 7 } */
    }
    ProtobufCMessage *m = unpack(wire_slice(&w));
    ProtobufCMessage *self = *(ProtobufCMessage **)rich_at(types.root, m, "self");
    assert_int_equal(*rich_count(types.root, self, "numbers"), count);
    escqrs_message_free(m);
    wire_fini(&w);
}

/* More singular messages than the check tells apart. */
static void test_merge_many_fields(void **state)
{
    (void)state;
    escqrs_schema *wide = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("Wide"), &wide, NULL), ESCQRS_OK);
    for (uint32_t i = 1; i <= 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%u", i);
        assert_int_equal(rich_add(wide, name, i, ESCQRS_KIND_MESSAGE, ESCQRS_ONE, types.leaf, NULL),
                         ESCQRS_OK);
    }
    assert_int_equal(escqrs_schema_seal(wide, NULL), ESCQRS_OK);
    wire w = {0};
    for (uint32_t i = 200; i >= 1; i--) {
        wire leaf = {0};
        wire_str(&leaf, 1, "x");
        wire_message(&w, i, &leaf);
    }
    ProtobufCMessage *m = NULL;
    assert_int_equal(escqrs_message_unpack(wide, wire_slice(&w), NULL, &m, NULL), ESCQRS_OK);
    for (uint32_t i = 0; i < 200; i++) {
        const escqrs_field *field = escqrs_schema_field(wide, i);
        assert_non_null(*(void **)((uint8_t *)m + field->value_offset));
    }
    escqrs_message_free(m);
    wire_fini(&w);
    escqrs_schema_destroy(wide);
}

/* ---- refusals --------------------------------------------------------------------------------- */

static void refuse(const void *data, size_t size, const escqrs_limits *limits, escqrs_status status,
                   const char *text)
{
    /* In memory of exactly that size, so that a look behind its end is seen. */
    uint8_t *copy = malloc(size > 0 ? size : 1);
    memcpy(copy, data, size);
    escqrs_slice slice = {copy, size};
    escqrs_error error = {0};
    ProtobufCMessage *m = NULL;
    assert_int_equal(escqrs_message_check(types.root, slice, limits, NULL), status);
    assert_int_equal(escqrs_message_unpack(types.root, slice, limits, &m, &error), status);
    assert_null(m);
    if (strstr(error.message, text) == NULL) {
        fail_msg("`%s` is not in: %s", text, error.message);
    }
    free(copy);
}

#define REFUSE(bytes, text) refuse(bytes, sizeof(bytes) - 1, NULL, ESCQRS_CORRUPT, text)

static void test_corrupt(void **state)
{
    (void)state;
    REFUSE("\x0a\x05"
           "abc",
           "byte 0: field 1 (`text`)");
    REFUSE("\x0a", "field 1 (`text`)");
    REFUSE("\x10\x01\x0a\x02\xff\xff", "byte 2: field 1 (`text`): text that is not UTF-8");
    REFUSE("\x0a\x03\xed\xa0\x80", "UTF-8"); /* a surrogate */
    REFUSE("\x0a\x02\xc0\x80", "UTF-8");     /* overlong */
    REFUSE("\x0a\x0a"
           "abcdefgh\xe2\x82",
           "UTF-8");
    REFUSE("\x92\x02\x01\xff", "`names`");
    REFUSE("\x10", "byte 0: field 2 (`number`): a number that is cut off");
    REFUSE("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
           "byte 0: field 2 (`number`): a varint of more than 10 bytes");
    REFUSE("\xfa\x01\x0c\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
           "byte 4: field 31 (`numbers`): a varint of more than 10 bytes");
    REFUSE("\x98\x06\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
           "byte 2: an unknown field with a varint of more than 10 bytes");
    REFUSE("\x32\x0c\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
           "a varint of more than 10 bytes"); /* of a Timestamp */
    REFUSE("\x11"
           "12345678",
           "another wire type");
    REFUSE("\x08\x01", "another wire type");
    REFUSE("\x19"
           "1234567",
           "field 3 (`ratio`)");
    REFUSE("\x00\x01", "tag");
    REFUSE("\x80\x80\x80\x80\x80\x01", "byte 0: a tag whose varint has more than 5 bytes");
    REFUSE("\xf8\xff\xff\xff\x7f\x01", "tag");
    REFUSE("\x80", "byte 0: a tag that is cut off");
    REFUSE("\x13", "wire type");         /* a group of a known field */
    REFUSE("\x9b\x06\x9c\x06", "group"); /* of an unknown one */
    REFUSE("\x9f\x06", "group");
    REFUSE("\x98\x06", "unknown field");
    REFUSE("\x9a\x06\x05"
           "abc",
           "unknown field");
    REFUSE("\x99\x06"
           "1234567",
           "unknown field");
    REFUSE("\x9d\x06"
           "123",
           "unknown field");
    REFUSE("\xfa\x01\x02\x01\xff", "`numbers`");
    REFUSE("\x82\x02\x01\x02", "`flags`"); /* a bool of 2 */
    REFUSE("\x8a\x02\x07"
           "1234567",
           "`ratios`");
    REFUSE("\x32\x02\x08\x80", "google.protobuf.Timestamp");
    REFUSE("\x32\x06\x08\x80\xef\xad\xb8\xaf", "google.protobuf.Timestamp");
    REFUSE("\x32\x07\x08\x80\xbc\x82\xfc\xff\x07", "years 1 to 9999");
    REFUSE("\x32\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
           "years 1 to 9999");                                     /* nanos -1 */
    REFUSE("\x32\x06\x10\x80\x94\xeb\xdc\x03", "years 1 to 9999"); /* a thousand million */
    REFUSE("\x4a\x02\x0a\x05", "tests.Rich: byte 2: field 1 (`text`)");
    REFUSE("\x42\x04\x0a\x02\xff\xff", "tests.Rich inside of tests.Leaf");
    REFUSE("\x0a\xff\xff\xff\xff\x0f", "beyond the end");
    REFUSE("\x0a\xff\xff\xff\xff\xff\x01",
           "byte 0: field 1 (`text`): a length whose varint has more than 5 bytes");
    REFUSE("\xc2\x02\x03\x0a\x01\xff", "tests.Rich.counts");
}

/* Every prefix of a message: refused, or a message of the fields before. */
static void test_prefixes(void **state)
{
    (void)state;
    test_random random = test_random_new();
    wire w = {0};
    while (w.size < 200) {
        write_random(&random, &w, 4);
    }
    for (size_t size = 0; size < w.size; size++) {
        uint8_t *copy = malloc(size + 1);
        memcpy(copy, w.data, size);
        copy = realloc(copy, size > 0 ? size : 1);
        escqrs_slice slice = {copy, size};
        if (escqrs_message_check(types.root, slice, NULL, NULL) == ESCQRS_OK) {
            wire packed = round_trip(slice);
            wire_fini(&packed);
        }
        free(copy);
    }
    wire_fini(&w);
}

/* self { self { ... } } of that depth. */
static wire nest(unsigned depth)
{
    wire w = {0};
    for (unsigned i = 0; i < depth; i++) {
        wire outer = {0};
        wire_message(&outer, 9, &w);
        w = outer;
    }
    return w;
}

static void test_depth(void **state)
{
    (void)state;
    wire w = nest(100);
    assert_stable(wire_slice(&w));
    wire_fini(&w);
    w = nest(101);
    refuse(w.data, w.size, NULL, ESCQRS_TOO_LARGE, "nesting too deep");
    escqrs_limits limits = {.depth_max = 101};
    assert_int_equal(escqrs_message_check(types.root, wire_slice(&w), &limits, NULL), ESCQRS_OK);
    wire_fini(&w);
    w = nest(501);
    limits.depth_max = 1000000; /* cut to what a stack can bear */
    refuse(w.data, w.size, &limits, ESCQRS_TOO_LARGE, "nesting too deep");
    wire_fini(&w);
    w = nest(20000);
    refuse(w.data, w.size, NULL, ESCQRS_TOO_LARGE, "nesting too deep");
    wire_fini(&w);
}

static void test_limits(void **state)
{
    (void)state;
    wire w = {0};
    wire nested = {0};
    wire_data(&w, 31, "\1\2\3\4", 4);
    wire_int(&w, 31, 5);
    wire_int(&w, 99, 6);
    wire_str(&nested, 34, "x");
    wire_message(&w, 9, &nested);
    escqrs_limits limits = {.items_max = 7, .bytes_max = w.size};
    assert_int_equal(escqrs_message_check(types.root, wire_slice(&w), &limits, NULL), ESCQRS_OK);
    limits.items_max = 6;
    refuse(w.data, w.size, &limits, ESCQRS_TOO_LARGE, "items");
    limits.items_max = 4;
    refuse(w.data, w.size, &limits, ESCQRS_TOO_LARGE, "items");
    limits.items_max = 3;
    refuse(w.data, w.size, &limits, ESCQRS_TOO_LARGE, "items");
    limits = (escqrs_limits){.bytes_max = w.size - 1};
    refuse(w.data, w.size, &limits, ESCQRS_TOO_LARGE, "bytes");
    wire_fini(&w);
    /* two bytes on disk, a struct in memory */
    for (int i = 0; i < 1000; i++) {
        wire_bytes(&w, "\xf2\x01\x00", 3);
    }
    limits = (escqrs_limits){.memory_max = 1000 * escqrs_schema_struct_size(types.root)};
    refuse(w.data, w.size, &limits, ESCQRS_TOO_LARGE, "memory");
    limits.memory_max = 1000 * escqrs_schema_struct_size(types.root) * 2;
    assert_int_equal(escqrs_message_check(types.root, wire_slice(&w), &limits, NULL), ESCQRS_OK);
    wire_fini(&w);

    uint8_t *large = calloc(1, 16 * 1024 * 1024 + 1);
    refuse(large, 16 * 1024 * 1024 + 1, NULL, ESCQRS_TOO_LARGE, "16777216");
    free(large);
}

static void test_unsealed(void **state)
{
    (void)state;
    escqrs_schema *outer = NULL;
    escqrs_schema *inner = NULL;
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("Outer"), &outer, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_schema_create(escqrs_slice_of("Inner"), &inner, NULL), ESCQRS_OK);
    assert_int_equal(rich_add(outer, "x", 1, ESCQRS_KIND_MESSAGE, ESCQRS_ONE, inner, NULL),
                     ESCQRS_OK);
    assert_int_equal(escqrs_schema_seal(outer, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_message_check(outer, (escqrs_slice){"\x0a\x00", 2}, NULL, NULL),
                     ESCQRS_INVALID);
    assert_int_equal(escqrs_message_check(outer, (escqrs_slice){NULL, 0}, NULL, NULL), ESCQRS_OK);
    escqrs_schema_destroy(inner);
    escqrs_schema_destroy(outer);
}

/* ---- measuring -------------------------------------------------------------------------------- */

static void test_measure(void **state)
{
    (void)state;
    size_t size = escqrs_schema_struct_size(types.root);
    ProtobufCMessage *chain[102];
    for (int i = 0; i < 102; i++) {
        chain[i] = malloc(size);
        escqrs_message_init(types.root, chain[i]);
        if (i > 0) {
            *(ProtobufCMessage **)rich_at(types.root, chain[i], "self") = chain[i - 1];
        }
    }
    size_t packed = 0;
    assert_int_equal(escqrs_message_measure(chain[100], NULL, &packed, NULL), ESCQRS_OK);
    assert_int_equal(packed, protobuf_c_message_get_packed_size(chain[100]));
    escqrs_error error = {0};
    assert_int_equal(escqrs_message_measure(chain[101], NULL, &packed, &error), ESCQRS_TOO_LARGE);
    assert_non_null(strstr(error.message, "nested deeper"));

    /* Each holds the one before twice: 2^40 messages when packed. */
    ProtobufCMessage *twice[41][2];
    for (int i = 0; i < 41; i++) {
        escqrs_message_init(types.root, chain[i]);
        if (i > 0) {
            twice[i][0] = twice[i][1] = chain[i - 1];
            *rich_count(types.root, chain[i], "children") = 2;
            *(ProtobufCMessage ***)rich_at(types.root, chain[i], "children") = twice[i];
        }
    }
    assert_int_equal(escqrs_message_measure(chain[40], NULL, &packed, &error), ESCQRS_TOO_LARGE);
    assert_non_null(strstr(error.message, "so many nested"));
    assert_int_equal(escqrs_message_measure(chain[10], NULL, &packed, NULL), ESCQRS_OK);

    escqrs_message_init(types.root, chain[0]);
    *rich_has(types.root, chain[0], "raw") = 1;
    *(ProtobufCBinaryData *)rich_at(types.root, chain[0], "raw") =
        (ProtobufCBinaryData){100, (uint8_t *)chain};
    escqrs_limits limits = {.bytes_max = 101};
    assert_int_equal(escqrs_message_measure(chain[0], &limits, &packed, &error), ESCQRS_TOO_LARGE);
    assert_non_null(strstr(error.message, "102 bytes"));
    for (int i = 0; i < 102; i++) {
        free(chain[i]);
    }
}

static void test_no_memory(void **state)
{
    (void)state;
    wire w = {0};
    wire nested = {0};
    for (int i = 0; i < 2; i++) { /* merged, for that allocates most */
        wire_int(&nested, 2, i);
        wire_message(&w, 9, &nested);
        wire_str(&w, 34, "text");
    }
    long failures = 0;
    for (long countdown = 1;; countdown++) {
        ProtobufCMessage *m = NULL;
        escqrs_error error = {0};
        escqrs_alloc_fail(countdown, true);
        escqrs_status status = escqrs_message_unpack(types.root, wire_slice(&w), NULL, &m, &error);
        escqrs_alloc_fail(0, false);
        if (status == ESCQRS_OK) {
            escqrs_message_free(m);
            break;
        }
        assert_int_equal(status, ESCQRS_NO_MEMORY);
        assert_null(m);
        assert_non_null(strstr(error.message, "memory"));
        failures++;
    }
    assert_true(failures >= 3);
    /* one block, when there is nothing to merge */
    escqrs_alloc_fail(2, true);
    ProtobufCMessage *m = NULL;
    escqrs_slice plain = {w.data, 4};
    assert_int_equal(escqrs_message_unpack(types.root, plain, NULL, &m, NULL), ESCQRS_OK);
    escqrs_alloc_fail(0, false);
    escqrs_message_free(m);
    wire_fini(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_messages),
        cmocka_unit_test(test_damaged_messages),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_last_counts),
        cmocka_unit_test(test_unknown_fields),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_merge_deeper),
        cmocka_unit_test(test_merge_hostile),
        cmocka_unit_test(test_merge_many_fields),
        cmocka_unit_test(test_corrupt),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_unsealed),
        cmocka_unit_test(test_measure),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
