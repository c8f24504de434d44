#include "support/test.h"

#include <string.h>

#include "base/checksum.h"

/* These are on disks: they may never change. From the xxhash package of another language. */
static void values_are_those_of_xxh3(void **state)
{
    (void)state;
    assert_true(esc_hash(escqrs_slice_of(""), 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(esc_hash((escqrs_slice){NULL, 0}, 0) == UINT64_C(0x2d06800538d394c2));
    assert_true(esc_hash(escqrs_slice_of("a"), 0) == UINT64_C(0xe6c632b61e964e1f));
    assert_true(esc_hash(escqrs_slice_of("Cart/cart-1"), 42) == UINT64_C(0xf73c4a2747953795));
    char many[300];
    memset(many, 'x', sizeof many);
    uint64_t hash = esc_hash((escqrs_slice){many, sizeof many}, UINT64_C(0x8000000000000005));
    assert_true((uint32_t)hash == 0x09b923ab);
}

static void every_bit_counts(void **state)
{
    (void)state;
    uint8_t bytes[64] = {0};
    const escqrs_slice whole = {bytes, sizeof bytes};
    uint32_t before = (uint32_t)esc_hash(whole, 1); /* what is stored as a checksum */
    for (size_t bit = 0; bit < 8 * sizeof bytes; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true((uint32_t)esc_hash(whole, 1) != before);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true((uint32_t)esc_hash(whole, 2) != before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_those_of_xxh3),
        cmocka_unit_test(every_bit_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
