#include "support/test.h"

#include <string.h>

#include "base/checksum.h"

/* These are on disks: they may never change. From the xxhash package of another language. */
static void values_are_those_of_xxh3(void **state)
{
    (void)state;
    assert_true(esc_hash(escqrs_slice_of(""), 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(esc_hash((escqrs_slice){NULL, 0}, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(esc_checksum("", 0, 0) == 0x38d394c2);
    assert_true(esc_hash(escqrs_slice_of("a"), 0) == UINT64_C(0xe6c632b61e964e1f));
    assert_true(esc_hash(escqrs_slice_of("Cart/cart-1"), 42) == UINT64_C(0xf73c4a2747953795));
    char many[300];
    memset(many, 'x', sizeof many);
    assert_true(esc_checksum(many, sizeof many, UINT64_C(0x8000000000000005)) == 0x09b923ab);
}

static void pieces_give_what_the_whole_gives(void **state)
{
    (void)state;
    static uint8_t bytes[5000];
    test_random random = test_random_new();
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)test_random_next(&random);
    }
    for (int round = 0; round < 500; round++) {
        size_t size = test_random_below(&random, round % 2 == 0 ? 1500 : sizeof bytes);
        uint64_t seed = test_random_next(&random);
        escqrs_slice pieces[8];
        size_t at = 0;
        for (int i = 0; i < 8; i++) {
            size_t part = i == 7 ? size - at : test_random_below(&random, size - at + 1);
            pieces[i] = (escqrs_slice){part == 0 ? NULL : bytes + at, part};
            at += part;
        }
        assert_true(esc_checksum_pieces(pieces, 8, seed) == esc_checksum(bytes, size, seed));
    }
    assert_true(esc_checksum_pieces(NULL, 0, 5) == esc_checksum(NULL, 0, 5));
}

static void every_bit_counts(void **state)
{
    (void)state;
    uint8_t bytes[64] = {0};
    uint32_t before = esc_checksum(bytes, sizeof bytes, 1);
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(esc_checksum(bytes, sizeof bytes, 1) != before);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(esc_checksum(bytes, sizeof bytes, 2) != before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_those_of_xxh3),
        cmocka_unit_test(pieces_give_what_the_whole_gives),
        cmocka_unit_test(every_bit_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
