#include "support/test.h"

#include <escqrs/base.h>

#include <string.h>

static void every_status_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i <= ESCQRS_REPLAY; i++) {
        const char *name = escqrs_status_name((escqrs_status)i);
        assert_non_null(name);
        assert_string_not_equal(name, "?");
        for (int other = 0; other < i; other++) {
            assert_string_not_equal(name, escqrs_status_name((escqrs_status)other));
        }
    }
    assert_string_equal(escqrs_status_name(ESCQRS_WRONG_VERSION), "WRONG_VERSION");
}

static void a_number_that_is_no_status_is_a_question_mark(void **state)
{
    (void)state;
    assert_string_equal(escqrs_status_name((escqrs_status)(ESCQRS_NOT_COVERED + 1)), "?");
    assert_string_equal(escqrs_status_name((escqrs_status)-1), "?");
}

static void slices_compare_by_their_bytes(void **state)
{
    (void)state;
    escqrs_slice empty = escqrs_slice_of(NULL);
    assert_int_equal(empty.size, 0);
    assert_true(escqrs_slice_equal(empty, escqrs_slice_of("")));
    assert_true(escqrs_slice_equal(escqrs_slice_of("abc"), escqrs_slice_of("abc")));
    assert_false(escqrs_slice_equal(escqrs_slice_of("abc"), escqrs_slice_of("abd")));
    assert_false(escqrs_slice_equal(escqrs_slice_of("abc"), escqrs_slice_of("ab")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_a_name_of_its_own),
        cmocka_unit_test(a_number_that_is_no_status_is_a_question_mark),
        cmocka_unit_test(slices_compare_by_their_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
