#include "support/test.h"

#include "base/vector.h"

static void items_keep_their_order(void **state)
{
    (void)state;
    esc_vector vector = ESC_VECTOR_OF(int);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(esc_vector_push(&vector, &i), ESCQRS_OK);
    }
    assert_int_equal(vector.count, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(ESC_VECTOR_AT(&vector, int, i), i);
    }
    esc_vector_pop(&vector);
    esc_vector_remove_unordered(&vector, 0);
    assert_int_equal(vector.count, 998);
    assert_int_equal(ESC_VECTOR_AT(&vector, int, 0), 998);
    esc_vector_remove_unordered(&vector, 997);
    assert_int_equal(vector.count, 997);
    esc_vector_clear(&vector);
    assert_int_equal(vector.count, 0);
    esc_vector_fini(&vector);
    assert_int_equal(vector.item_size, sizeof(int));
}

static void out_of_memory_changes_nothing(void **state)
{
    (void)state;
    esc_vector vector = ESC_VECTOR_OF(int);
    int one = 1;
    assert_int_equal(esc_vector_push(&vector, &one), ESCQRS_OK);
    escqrs_alloc_fail(1, false);
    assert_int_equal(esc_vector_reserve(&vector, 100), ESCQRS_NO_MEMORY);
    escqrs_alloc_fail(0, false);
    assert_int_equal(esc_vector_reserve(&vector, SIZE_MAX / 2), ESCQRS_NO_MEMORY);
    assert_int_equal(esc_vector_reserve(&vector, SIZE_MAX), ESCQRS_NO_MEMORY);
    assert_int_equal(vector.count, 1);
    assert_int_equal(ESC_VECTOR_AT(&vector, int, 0), 1);
    esc_vector_fini(&vector);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_keep_their_order),
        cmocka_unit_test(out_of_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
