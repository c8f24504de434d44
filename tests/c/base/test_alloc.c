#include "support/test.h"

#include <string.h>

#include <escqrs/base.h>

static void allocations_work(void **state)
{
    (void)state;
    char *zeroed = escqrs_alloc_zero(100);
    assert_non_null(zeroed);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(zeroed[i], 0);
    }
    memset(zeroed, 1, 100);
    zeroed = escqrs_realloc(zeroed, 1000);
    assert_non_null(zeroed);
    assert_int_equal(zeroed[99], 1);
    escqrs_free(zeroed);
    char *copy = escqrs_strdup((escqrs_slice){"abcdef", 3});
    assert_string_equal(copy, "abc");
    escqrs_free(copy);
    copy = escqrs_strdup((escqrs_slice){NULL, 0});
    assert_string_equal(copy, "");
    escqrs_free(copy);
    escqrs_free(NULL);
}

static void size_zero_gives_a_block(void **state)
{
    (void)state;
    void *blocks[] = {escqrs_alloc(0), escqrs_alloc_zero(0), escqrs_alloc_array(0, 8),
                      escqrs_realloc(NULL, 0)};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        assert_non_null(blocks[i]);
        escqrs_free(blocks[i]);
    }
}

static void an_array_beyond_the_address_space_is_refused(void **state)
{
    (void)state;
    assert_null(escqrs_alloc_array(SIZE_MAX / 2, 3));
    assert_null(escqrs_strdup((escqrs_slice){"", SIZE_MAX}));
}

static void the_nth_allocation_fails(void **state)
{
    (void)state;
    escqrs_alloc_fail(3, false);
    for (int i = 1; i <= 5; i++) {
        void *block = escqrs_alloc(1);
        assert_int_equal(block == NULL, i == 3);
        escqrs_free(block);
    }
    escqrs_alloc_fail(2, true);
    for (int i = 1; i <= 5; i++) {
        void *block = escqrs_alloc_zero(1);
        assert_int_equal(block == NULL, i >= 2);
        escqrs_free(block);
    }
    escqrs_alloc_fail(0, false);
    void *block = escqrs_alloc(1);
    assert_non_null(block);
    escqrs_alloc_fail(1, false);
    assert_null(escqrs_realloc(block, 10));
    escqrs_free(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_work),
        cmocka_unit_test(size_zero_gives_a_block),
        cmocka_unit_test(an_array_beyond_the_address_space_is_refused),
        cmocka_unit_test(the_nth_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
