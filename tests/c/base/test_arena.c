#include "support/test.h"

#include <string.h>

#include "base/arena.h"

static void allocations_are_aligned_and_apart(void **state)
{
    (void)state;
    test_random random = test_random_new();
    esc_arena arena;
    esc_arena_init(&arena, 256);
    for (int round = 0; round < 3; round++) {
        enum { COUNT = 500 };
        uint8_t *blocks[COUNT];
        size_t sizes[COUNT];
        for (int i = 0; i < COUNT; i++) {
            sizes[i] = test_random_below(&random, i % 50 == 0 ? 5000 : 40);
            blocks[i] = esc_arena_alloc(&arena, sizes[i]);
            assert_non_null(blocks[i]);
            assert_int_equal((uintptr_t)blocks[i] % ESC_ARENA_ALIGNMENT, 0);
            memset(blocks[i], i & 0xff, sizes[i]);
        }
        for (int i = 0; i < COUNT; i++) {
            for (size_t at = 0; at < sizes[i]; at++) {
                assert_int_equal(blocks[i][at], i & 0xff);
            }
        }
        esc_arena_reset(&arena);
    }
    esc_arena_fini(&arena);
}

static void reset_keeps_the_first_block(void **state)
{
    (void)state;
    esc_arena arena = {0};
    void *first = esc_arena_alloc(&arena, 10);
    assert_non_null(esc_arena_alloc(&arena, 100000));
    esc_arena_reset(&arena);
    escqrs_alloc_fail(1, true); /* needs no memory */
    assert_ptr_equal(esc_arena_alloc(&arena, 10), first);
    assert_null(esc_arena_alloc(&arena, 100000));
    escqrs_alloc_fail(0, false);
    char *copy = esc_arena_strdup(&arena, (escqrs_slice){"abcd", 2});
    assert_string_equal(copy, "ab");
    uint8_t *zero = esc_arena_alloc_zero(&arena, 64);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(zero[i], 0);
    }
    assert_null(esc_arena_alloc(&arena, SIZE_MAX));
    assert_null(esc_arena_alloc(&arena, SIZE_MAX - 16));
    esc_arena_fini(&arena);
    assert_non_null(esc_arena_alloc(&arena, 1)); /* usable again */
    esc_arena_fini(&arena);
    esc_arena_fini(&arena);
}

static void capacity_is_that_of_all_blocks(void **state)
{
    (void)state;
    esc_arena arena = {0};
    assert_int_equal(esc_arena_capacity(&arena), 0);
    assert_non_null(esc_arena_alloc(&arena, 10));
    assert_int_equal(esc_arena_capacity(&arena), ESC_ARENA_BLOCK_SIZE);
    assert_non_null(esc_arena_alloc(&arena, 100000));
    assert_in_range(esc_arena_capacity(&arena), ESC_ARENA_BLOCK_SIZE + 100000, 200000);
    esc_arena_reset(&arena);
    assert_int_equal(esc_arena_capacity(&arena), ESC_ARENA_BLOCK_SIZE);
    esc_arena_fini(&arena);
    assert_int_equal(esc_arena_capacity(&arena), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_aligned_and_apart),
        cmocka_unit_test(reset_keeps_the_first_block),
        cmocka_unit_test(capacity_is_that_of_all_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
