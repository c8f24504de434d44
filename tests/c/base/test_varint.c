#include "support/test.h"

#include "base/varint.h"

static void numbers_go_round(void **state)
{
    (void)state;
    for (int bit = 0; bit < 64; bit++) {
        for (int offset = -1; offset <= 1; offset++) {
            uint64_t value = (UINT64_C(1) << bit) + (uint64_t)offset;
            uint8_t bytes[ESC_VARINT_SIZE_MAX];
            size_t size = esc_varint_encode(value, bytes);
            assert_int_equal(size, esc_varint_size(value));
            uint64_t decoded = 0;
            assert_int_equal(esc_varint_decode(bytes, size, &decoded), size);
            assert_true(decoded == value);
            for (size_t cut = 0; cut < size; cut++) {
                assert_int_equal(esc_varint_decode(bytes, cut, &decoded), 0);
            }
            int64_t number = (int64_t)value;
            assert_true(esc_zigzag_decode(esc_zigzag_encode(number)) == number);
        }
    }
}

static void the_bytes_are_protobufs(void **state)
{
    (void)state;
    uint8_t bytes[ESC_VARINT_SIZE_MAX];
    assert_int_equal(esc_varint_encode(300, bytes), 2);
    assert_memory_equal(bytes, "\xac\x02", 2);
    assert_int_equal(esc_varint_encode(UINT64_MAX, bytes), 10);
    assert_memory_equal(bytes, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10);
    assert_true(esc_zigzag_encode(0) == 0);
    assert_true(esc_zigzag_encode(-1) == 1);
    assert_true(esc_zigzag_encode(1) == 2);
    assert_true(esc_zigzag_encode(INT64_MIN) == UINT64_MAX);
    assert_true(esc_zigzag_decode(UINT64_MAX) == INT64_MIN);
}

static void more_than_64_bits_are_refused(void **state)
{
    (void)state;
    uint64_t value = 7;
    assert_int_equal(esc_varint_decode("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, &value), 0);
    assert_int_equal(esc_varint_decode("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11, &value),
                     0);
    assert_true(value == 7);
    /* longer than need be, but within 64 bits: what protobuf accepts */
    assert_int_equal(esc_varint_decode("\x81\x00", 2, &value), 2);
    assert_true(value == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_go_round),
        cmocka_unit_test(the_bytes_are_protobufs),
        cmocka_unit_test(more_than_64_bits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
