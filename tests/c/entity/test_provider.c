/* Entities on a provider that a program brings: they are what they are on a file. */
#include "entity/account.h"

int example_main(void);
#define main example_main
#include "../../../examples/provider.c"
#undef main

static escqrs_status open_shelf(void *context, const escqrs_store_options *options,
                                escqrs_store **store, escqrs_error *error)
{
    return shelf_open(context, options, store, error);
}

static bank_options on(shelf *kept)
{
    return (bank_options){
        .open = open_shelf, .open_context = kept, .memory = true, .snapshot_every = 3};
}

static void test_entities(void **state)
{
    (void)state;
    shelf *kept = shelf_create();
    bank b;
    bank_open(&b, on(kept));
    escqrs_entity *entity = bank_account(&b, "ann");
    for (int i = 1; i <= 5; i++) {
        assert_int_equal(bank_deposit(&b, entity, i), i * (i + 1) / 2);
    }
    order refused = order_make(&b, ORDER_SPOIL, 100);
    assert_int_equal(bank_ask(entity, &refused), ESCQRS_REJECTED);
    assert_int_equal(bank_balance(&b, entity), 15);
    escqrs_entity_release(entity);
    bank_reopen(&b, on(kept)); /* from the snapshot at version 3, and two events */
    assert_int_equal(kept->snapshots.count, 1);
    entity = bank_account(&b, "ann");
    order look = bank_look(&b, entity);
    assert_int_equal(look.balance, 15);
    assert_int_equal(look.version, 5);
    assert_int_equal(bank_deposit(&b, entity, 1), 16);
    bank_intrude(&b, entity, 10); /* another writer's event: the entity's next one finds it */
    order late = order_make(&b, ORDER_DEPOSIT, 1);
    assert_int_equal(bank_ask(entity, &late), ESCQRS_WRONG_VERSION);
    assert_int_equal(bank_balance(&b, entity), 26);
    escqrs_entity_release(entity);
    bank_close(&b);
    shelf_destroy(kept);
}

static void test_keys(void **state)
{
    (void)state;
    shelf *kept = shelf_create();
    bank b;
    bank_open(&b, on(kept));
    for (int turn = 0; turn < 2; turn++) {
        escqrs_entity *entity = bank_account(&b, "ann");
        order o = order_make(&b, ORDER_DEPOSIT, 7);
        o.command.key = escqrs_slice_of("once");
        assert_int_equal(bank_ask(entity, &o), ESCQRS_OK);
        assert_int_equal(bank_balance(&b, entity), 7);
        escqrs_entity_release(entity);
        if (turn == 0) {
            bank_reopen(&b, on(kept));
        }
    }
    bank_close(&b);
    shelf_destroy(kept);
}

int main(void)
{
    alarm(900);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entities),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
