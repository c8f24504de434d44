#include "support/test.h"

#include <string.h>
#include <time.h>

#include <escqrs/base.h>

static int64_t fixed(void *context)
{
    return *(int64_t *)context;
}

static void count_up(void *context, void *buffer, size_t size)
{
    uint8_t *next = context;
    for (size_t i = 0; i < size; i++) {
        ((uint8_t *)buffer)[i] = (*next)++;
    }
}

static void the_systems_clock_is_the_default(void **state)
{
    (void)state;
    int64_t seconds = (int64_t)time(NULL);
    int64_t now = escqrs_clock_now_us(NULL);
    assert_true(now / 1000000 >= seconds);
    escqrs_clock zero = {0};
    assert_true(escqrs_clock_now_us(&zero) >= 0);
    int64_t before = escqrs_clock_monotonic_ns(NULL);
    assert_true(escqrs_clock_monotonic_ns(&zero) >= before);
}

static void a_test_brings_its_own(void **state)
{
    (void)state;
    int64_t time = 42;
    escqrs_clock clock = {fixed, fixed, &time};
    assert_int_equal(escqrs_clock_now_us(&clock), 42);
    assert_int_equal(escqrs_clock_monotonic_ns(&clock), 42);
    uint8_t next = 5;
    escqrs_random random = {count_up, &next};
    uint8_t bytes[3];
    escqrs_random_fill(&random, bytes, sizeof bytes);
    assert_memory_equal(bytes, "\5\6\7", 3);
}

static void the_systems_randomness_fills_everything(void **state)
{
    (void)state;
    static uint8_t one[1000];
    static uint8_t two[1000];
    escqrs_random_fill(NULL, one, sizeof one);
    escqrs_random_fill(NULL, two, sizeof two);
    assert_memory_not_equal(one, two, sizeof one);
    assert_memory_not_equal(one + 984, two + 984, 16);
    escqrs_random_fill(NULL, one, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_systems_clock_is_the_default),
        cmocka_unit_test(a_test_brings_its_own),
        cmocka_unit_test(the_systems_randomness_fills_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
