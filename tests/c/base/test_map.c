#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include "base/map.h"

typedef struct item {
    char name[24];
    bool present; /* what the test believes */
} item;

static escqrs_slice item_key(const void *value)
{
    return escqrs_slice_of(((const item *)value)->name);
}

static void what_was_put_in_is_found(void **state)
{
    (void)state;
    esc_map map;
    esc_map_init(&map, item_key, NULL);
    item one = {.name = "one"};
    item empty = {.name = ""};
    item again = {.name = "one"};
    assert_null(esc_map_get(&map, escqrs_slice_of("one")));
    assert_null(esc_map_remove(&map, escqrs_slice_of("one")));
    assert_int_equal(esc_map_insert(&map, &one), ESCQRS_OK);
    assert_int_equal(esc_map_insert(&map, &empty), ESCQRS_OK);
    assert_int_equal(esc_map_insert(&map, &again), ESCQRS_NAME_EXISTS);
    assert_ptr_equal(esc_map_get(&map, escqrs_slice_of("one")), &one);
    assert_ptr_equal(esc_map_get(&map, escqrs_slice_of("")), &empty);
    assert_int_equal(esc_map_count(&map), 2);
    assert_ptr_equal(esc_map_remove(&map, escqrs_slice_of("one")), &one);
    assert_null(esc_map_get(&map, escqrs_slice_of("one")));
    esc_map_clear(&map);
    assert_null(esc_map_get(&map, escqrs_slice_of("")));
    esc_map_fini(&map);
    assert_int_equal(esc_map_insert(&map, &one), ESCQRS_OK); /* usable again */
    esc_map_fini(&map);
}

/* Random insertions and removals beside a plain array that says what must be there. */
static void it_agrees_with_a_model(void **state)
{
    (void)state;
    enum { ITEMS = 2000, STEPS = 60000 };
    static item items[ITEMS];
    test_random random = test_random_new();
    esc_map map;
    esc_map_init(&map, item_key, NULL);
    size_t count = 0;
    for (int i = 0; i < ITEMS; i++) {
        snprintf(items[i].name, sizeof items[i].name, "item-%d", i);
    }
    for (int step = 0; step < STEPS; step++) {
        item *it = &items[test_random_below(&random, ITEMS)];
        escqrs_slice key = escqrs_slice_of(it->name);
        assert_ptr_equal(esc_map_get(&map, key), it->present ? it : NULL);
        /* phases of growing and of shrinking */
        if (test_random_below(&random, 10) < (step / 10000 % 2 == 0 ? 7U : 3U)) {
            assert_int_equal(esc_map_insert(&map, it),
                             it->present ? ESCQRS_NAME_EXISTS : ESCQRS_OK);
            count += it->present ? 0 : 1;
            it->present = true;
        } else {
            assert_ptr_equal(esc_map_remove(&map, key), it->present ? it : NULL);
            count -= it->present ? 1 : 0;
            it->present = false;
        }
        assert_int_equal(esc_map_count(&map), count);
    }
    for (int i = 0; i < ITEMS; i++) {
        assert_ptr_equal(esc_map_get(&map, item_key(&items[i])),
                         items[i].present ? &items[i] : NULL);
    }
    size_t cursor = 0;
    size_t seen = 0;
    for (item *it = esc_map_next(&map, &cursor); it != NULL; it = esc_map_next(&map, &cursor)) {
        assert_true(it->present);
        it->present = false;
        seen++;
    }
    assert_int_equal(seen, count);
    esc_map_fini(&map);
}

static void out_of_memory_changes_nothing(void **state)
{
    (void)state;
    enum { ITEMS = 100 };
    static item items[ITEMS];
    esc_map map;
    esc_map_init(&map, item_key, NULL);
    for (int i = 0; i < ITEMS; i++) {
        snprintf(items[i].name, sizeof items[i].name, "%d", i);
        escqrs_alloc_fail(1, false);
        escqrs_status status = esc_map_insert(&map, &items[i]);
        escqrs_alloc_fail(0, false);
        if (status != ESCQRS_OK) {
            assert_int_equal(status, ESCQRS_NO_MEMORY);
            assert_int_equal(esc_map_count(&map), i);
            assert_null(esc_map_get(&map, item_key(&items[i])));
            assert_int_equal(esc_map_insert(&map, &items[i]), ESCQRS_OK);
        }
    }
    for (int i = 0; i < ITEMS; i++) {
        assert_ptr_equal(esc_map_get(&map, item_key(&items[i])), &items[i]);
    }
    esc_map_fini(&map);
}

static void reserved_room_cannot_fail(void **state)
{
    (void)state;
    enum { ITEMS = 1000 };
    static item items[ITEMS];
    esc_map map;
    esc_map_init(&map, item_key, NULL);
    assert_int_equal(esc_map_reserve(&map, ITEMS), ESCQRS_OK);
    escqrs_alloc_fail(1, true);
    for (int i = 0; i < ITEMS; i++) {
        snprintf(items[i].name, sizeof items[i].name, "%d", i);
        assert_int_equal(esc_map_insert(&map, &items[i]), ESCQRS_OK);
    }
    escqrs_alloc_fail(0, false);
    assert_int_equal(esc_map_reserve(&map, SIZE_MAX), ESCQRS_NO_MEMORY);
    esc_map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_in_is_found),
        cmocka_unit_test(it_agrees_with_a_model),
        cmocka_unit_test(out_of_memory_changes_nothing),
        cmocka_unit_test(reserved_room_cannot_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
