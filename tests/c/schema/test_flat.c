/* The one-pass decoder of flat messages: what it takes and what it leaves. */
#include "support/test.h"

#include <stdlib.h>

#include "flat_types.h"
#include "schema/check.h"
#include "schema/decode.h"
#include "schema/flat.h"

static escqrs_schema *schema;

static int setup(void **state)
{
    (void)state;
    return flat_create(&schema, NULL) == ESCQRS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    escqrs_schema_destroy(schema);
    return 0;
}

static bool takes(const char *bytes, size_t size)
{
    escqrs_slice data = {bytes, size};
    assert_true(esc_flat_fits(&schema->plan, data, NULL));
    void *memory = malloc(esc_flat_size(&schema->plan, size));
    assert_non_null(memory);
    bool taken = esc_flat_decode(&schema->plan, data, memory);
    free(memory);
    return taken;
}

#define TAKES(text) takes(text, sizeof text - 1)

static void test_usual(void **state)
{
    (void)state;
    assert_true(TAKES(""));
    assert_true(TAKES("\x0a\x05hello\x10\x05"));
    assert_true(TAKES("\x0a\x00"));
    assert_true(TAKES("\x0a\x08"
                      "12345678\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"));
    assert_true(TAKES("\x0a\x09"
                      "1234567\xc3\xa9"));
    assert_true(TAKES("\x10\x05\x20\x01\x5a\x0a"
                      "2024-02-29"));
    assert_true(TAKES("\x19\0\0\0\0\0\0\0\0"));
}

static void test_others(void **state)
{
    (void)state;
    assert_false(TAKES("\x10\x05\x0a\x00")); /* out of order */
    assert_false(TAKES("\x0a\x00\x0a\x00")); /* twice */
    assert_false(TAKES("\x0a\x06hello"));    /* beyond the end */
    assert_false(TAKES("\x0a\x01\xff"));     /* no UTF-8 */
    assert_false(TAKES("\x0a\x08"
                       "1234567\xff")); /* in a word of eight */
    assert_false(TAKES("\x0a\x0a"
                       "123456789\xff"));                                    /* behind one */
    assert_false(TAKES("\x0a"));                                             /* cut off */
    assert_false(TAKES("\x10"));                                             /* cut off */
    assert_false(TAKES("\x10\x80"));                                         /* cut off */
    assert_false(TAKES("\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")); /* too long */
    assert_false(TAKES("\x19\0\0\0\0\0\0\0"));                               /* cut off */
    assert_false(TAKES("\x5a\x0a"
                       "2023-02-29"));       /* no date */
    assert_false(TAKES("\xf8\x01\x05"));     /* unknown */
    assert_false(TAKES("\x80\xfa\x01\x05")); /* a long tag */
    assert_false(TAKES("\x8a\x00\x00"));     /* a tag written long */
}

/* Whatever it takes, check and decoder take, and find the same message. */
static void test_random_bytes(void **state)
{
    (void)state;
    uint64_t seed = 88172645463325252u;
    escqrs_limits limits = esc_limits_resolve(NULL);
    size_t taken = 0;
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[24];
        size_t size = (size_t)(round % 12);
        for (size_t i = 0; i < size; i++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            static const uint8_t likely[] = {0x0a, 0x10, 0x20, 0x2a, 0x38, 0x40, 0x48, 0x50,
                                             0x00, 0x01, 0x02, 0x7f, 0x80, 0xc3, 0xa9, 0x41};
            bytes[i] = likely[(seed >> 20) % sizeof likely];
        }
        escqrs_slice data = {bytes, size};
        void *memory = malloc(esc_flat_size(&schema->plan, size));
        assert_non_null(memory);
        if (esc_flat_decode(&schema->plan, data, memory)) {
            esc_check_result result;
            assert_int_equal(esc_check(&schema->plan, data, &limits, &result, NULL), ESCQRS_OK);
            assert_false(result.unknown || result.duplicates);
            void *other = malloc(result.memory + 1);
            assert_non_null(other);
            ProtobufCMessage *second = esc_decode(&schema->plan, data, false, other, result.memory);
            uint8_t packed[2][512];
            size_t sizes[2] = {protobuf_c_message_pack(memory, packed[0]),
                               protobuf_c_message_pack(second, packed[1])};
            assert_int_equal(sizes[0], sizes[1]);
            assert_memory_equal(packed[0], packed[1], sizes[0]);
            free(other);
            taken++;
        }
        free(memory);
    }
    assert_true(taken > 1000);
}

static void test_limits(void **state)
{
    (void)state;
    escqrs_slice data = {"\x0a\x05hello", 7};
    escqrs_limits limits = {.bytes_max = 6};
    assert_false(esc_flat_fits(&schema->plan, data, &limits));
    ProtobufCMessage *message = NULL;
    assert_int_equal(escqrs_message_unpack(schema, data, &limits, &message, NULL),
                     ESCQRS_TOO_LARGE);
    limits.bytes_max = 7;
    assert_true(esc_flat_fits(&schema->plan, data, &limits));
    limits.memory_max = 1;
    assert_false(esc_flat_fits(&schema->plan, data, &limits));
}

static void test_no_memory(void **state)
{
    (void)state;
    escqrs_slice data = {"\x0a\x05hello", 7};
    ProtobufCMessage *message = NULL;
    escqrs_alloc_fail(1, false);
    assert_int_equal(escqrs_message_unpack(schema, data, NULL, &message, NULL), ESCQRS_NO_MEMORY);
    escqrs_alloc_fail(0, false);
    assert_null(message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_usual),        cmocka_unit_test(test_others),
        cmocka_unit_test(test_random_bytes), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
