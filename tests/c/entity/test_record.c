/* Records: what they hold when they grow, and the pool they come from. */
#include <support/test.h>

#include <string.h>

#include "entity/record.h"

static void test_events_survive_growth(void **state)
{
    (void)state;
    esc_record_pool pool;
    esc_record_pool_init(&pool);
    escqrs_error error;
    for (size_t count = 0; count < 200; count = count * 2 + 1) {
        esc_record *record = esc_record_acquire(&pool);
        uint8_t data[300];
        for (size_t i = 0; i < count; i++) {
            memset(data, (int)i, sizeof data);
            assert_int_equal(esc_record_add_event(record, (escqrs_type *)(uintptr_t)(i + 1),
                                                  (escqrs_slice){data, i}, &error),
                             ESCQRS_OK);
        }
        assert_int_equal(esc_record_set_reply(record, escqrs_slice_of("reply"), &error), ESCQRS_OK);
        esc_record_seal(record);
        assert_int_equal(record->event_count, count);
        for (size_t i = 0; i < count; i++) {
            memset(data, (int)i, sizeof data);
            assert_ptr_equal(record->events[i].type, (escqrs_type *)(uintptr_t)(i + 1));
            assert_int_equal(record->events[i].data.size, i);
            assert_memory_equal(record->events[i].data.data, data, i);
        }
        assert_true(escqrs_slice_equal(record->commit.reply, escqrs_slice_of("reply")));
        esc_record_recycle(&pool, record);
    }
    esc_record_pool_fini(&pool);
}

static void test_records_are_used_again(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    esc_record_pool pool;
    esc_record_pool_init(&pool);
    esc_record *records[COUNT];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++) {
            records[i] = esc_record_acquire(&pool);
            assert_non_null(records[i]);
            assert_int_equal(records[i]->event_count, 0);
            assert_null(records[i]->commit.lane);
            records[i]->commit.lane = (escqrs_lane *)&pool; /* seen again if it were not reset */
            *records[i]->error = (escqrs_error){.status = ESCQRS_IO}; /* its own */
        }
        for (int i = 0; i < COUNT; i++) {
            esc_record_recycle(&pool, records[i]);
        }
    }
    esc_record_pool_fini(&pool);
}

static void test_limits(void **state)
{
    (void)state;
    esc_record_pool pool;
    esc_record_pool_init(&pool);
    escqrs_error error;
    esc_record *record = esc_record_acquire(&pool);
    for (int i = 0; i < ESCQRS_COMMIT_EVENTS_MAX; i++) {
        assert_int_equal(esc_record_add_event(record, NULL, (escqrs_slice){NULL, 0}, &error),
                         ESCQRS_OK);
    }
    assert_int_equal(esc_record_add_event(record, NULL, (escqrs_slice){NULL, 0}, &error),
                     ESCQRS_TOO_LARGE);
    escqrs_slice endless = {"",
                            (size_t)ESCQRS_COMMIT_BYTES_MAX + 1}; /* refused before it is read */
    assert_int_equal(esc_record_set_reply(record, endless, &error), ESCQRS_TOO_LARGE);
    esc_record_recycle(&pool, record);
    esc_record_pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_survive_growth),
        cmocka_unit_test(test_records_are_used_again),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
