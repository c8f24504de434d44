#include "support/test.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

static uint64_t milliseconds(const escqrs_uuid *uuid)
{
    uint64_t time = 0;
    for (int i = 0; i < 6; i++) {
        time = time << 8 | uuid->bytes[i];
    }
    return time;
}

static void assert_version_7(const escqrs_uuid *uuid)
{
    assert_int_equal(uuid->bytes[6] >> 4, 7);
    assert_int_equal(uuid->bytes[8] >> 6, 2);
}

static void each_is_greater_than_the_one_before(void **state)
{
    (void)state;
    escqrs_uuid last = {0};
    for (int i = 0; i < 100000; i++) {
        escqrs_uuid next = escqrs_uuid_new(NULL, NULL);
        assert_version_7(&next);
        assert_true(memcmp(&last, &next, sizeof last) < 0);
        last = next;
    }
}

static void the_time_is_the_clocks(void **state)
{
    (void)state;
    int64_t now_us = 1700000000123456;
    escqrs_clock clock = {fixed, NULL, &now_us};
    escqrs_uuid first = escqrs_uuid_new(&clock, NULL);
    assert_true(milliseconds(&first) == 1700000000123);
    /* A clock that goes back: still greater, in the same millisecond. */
    now_us -= 5000000;
    escqrs_uuid second = escqrs_uuid_new(&clock, NULL);
    assert_true(milliseconds(&second) == 1700000000123);
    assert_true(memcmp(&first, &second, sizeof first) < 0);
    now_us += 6000000;
    escqrs_uuid third = escqrs_uuid_new(&clock, NULL);
    assert_true(milliseconds(&third) == 1700000001123);
}

static void a_tests_time_does_not_meddle_with_the_real_one(void **state)
{
    (void)state;
    escqrs_uuid before = escqrs_uuid_new(NULL, NULL);
    int64_t far_us = 9000000000000000;
    escqrs_clock clock = {fixed, NULL, &far_us};
    escqrs_uuid far = escqrs_uuid_new(&clock, NULL);
    assert_true(milliseconds(&far) == 9000000000000);
    escqrs_uuid after = escqrs_uuid_new(NULL, NULL);
    assert_true(milliseconds(&after) < 9000000000000);
    assert_true(memcmp(&before, &after, sizeof before) < 0);
}

static void a_seed_gives_the_same_ids_again(void **state)
{
    (void)state;
    int64_t now_us = 1000000;
    escqrs_clock clock = {fixed, NULL, &now_us};
    escqrs_uuid runs[2][3];
    for (int run = 0; run < 2; run++) {
        uint8_t seed = 9;
        escqrs_random random = {count_up, &seed};
        for (int i = 0; i < 3; i++) {
            runs[run][i] = escqrs_uuid_new(&clock, &random);
            assert_version_7(&runs[run][i]);
        }
    }
    assert_memory_equal(runs[0], runs[1], sizeof runs[0]);
    assert_memory_not_equal(&runs[0][0], &runs[0][1], sizeof runs[0][0]);
}

static void a_forked_child_makes_others(void **state)
{
    (void)state;
    (void)escqrs_uuid_new(NULL, NULL); /* the stock of random bytes is filled */
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    int64_t now_us = 9100000000000000; /* a new millisecond: all 74 bits come from the stock */
    escqrs_clock clock = {fixed, NULL, &now_us};
    escqrs_uuid own = escqrs_uuid_new(&clock, NULL);
    if (child == 0) {
        _exit(write(pipes[1], &own, sizeof own) == (ssize_t)sizeof own ? 0 : 1);
    }
    escqrs_uuid theirs;
    assert_int_equal(read(pipes[0], &theirs, sizeof theirs), sizeof theirs);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(pipes[0]);
    close(pipes[1]);
    assert_memory_not_equal(&own, &theirs, sizeof own);
}

static void text_goes_round(void **state)
{
    (void)state;
    escqrs_uuid uuid = escqrs_uuid_new(NULL, NULL);
    char text[ESCQRS_UUID_TEXT_SIZE];
    escqrs_uuid_format(&uuid, text);
    escqrs_uuid parsed;
    assert_true(escqrs_uuid_parse(escqrs_slice_of(text), &parsed));
    assert_memory_equal(&uuid, &parsed, sizeof uuid);
    assert_true(
        escqrs_uuid_parse(escqrs_slice_of("0123abCD-EF45-6789-abcd-ef0123456789"), &parsed));
    escqrs_uuid_format(&parsed, text);
    assert_string_equal(text, "0123abcd-ef45-6789-abcd-ef0123456789");
}

static void other_texts_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "0123abcd-ef45-6789-abcd-ef012345678",
        "0123abcd-ef45-6789-abcd-ef01234567890",
        "0123abcd+ef45-6789-abcd-ef0123456789",
        "0123abcdef45-6789-abcd-ef0123456789a",
        "0123abcg-ef45-6789-abcd-ef0123456789",
        "0123abcd-ef45-6789-abcd-ef012345678-",
        "{123abcd-ef45-6789-abcd-ef012345678}",
    };
    escqrs_uuid parsed = {{1}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_false(escqrs_uuid_parse(escqrs_slice_of(texts[i]), &parsed));
    }
    assert_int_equal(parsed.bytes[0], 1);
}

static void nil_is_all_zero(void **state)
{
    (void)state;
    escqrs_uuid uuid = {{0}};
    assert_true(escqrs_uuid_is_nil(&uuid));
    uuid.bytes[15] = 1;
    assert_false(escqrs_uuid_is_nil(&uuid));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_greater_than_the_one_before),
        cmocka_unit_test(the_time_is_the_clocks),
        cmocka_unit_test(a_tests_time_does_not_meddle_with_the_real_one),
        cmocka_unit_test(a_seed_gives_the_same_ids_again),
        cmocka_unit_test(a_forked_child_makes_others),
        cmocka_unit_test(text_goes_round),
        cmocka_unit_test(other_texts_are_refused),
        cmocka_unit_test(nil_is_all_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
