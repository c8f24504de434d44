/* The public headers in a C++ program: the same structs, and actors that work. */
#include "support/test.h"

#include "support/cxx.h"

static void test_structs_are_laid_out_alike(void **state)
{
    (void)state;
    const size_t here[TEST_LAYOUT_COUNT] = TEST_LAYOUT;
    for (size_t i = 0; i < TEST_LAYOUT_COUNT; i++) {
        assert_int_equal(here[i], test_cxx_layout[i]);
    }
}

static void test_an_actor_written_in_cxx_answers(void **state)
{
    (void)state;
    int answer = 0;
    /* Started, the question, Stopping, Stopped */
    assert_int_equal(test_cxx_ask(21, &answer), 4);
    assert_int_equal(answer, 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_structs_are_laid_out_alike),
        cmocka_unit_test(test_an_actor_written_in_cxx_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
