/* Commands: asking from handlers to any depth, deadlocks, room for what is in flight, and what is
 * refused. */
#include "entity/account.h"

static bank_options plain(void **state)
{
    return (bank_options){.hosted = *state != NULL, .memory = true};
}

static void test_ask_runs_on_the_caller(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    order o = order_make(&b, ORDER_DEPOSIT, 3);
    escqrs_error error;
    assert_int_equal(escqrs_entity_ask(ann, &o.command, &error), ESCQRS_OK);
    assert_int_equal(atomic_load(&o.finished), 1); /* no wait was needed */
    assert_int_equal(o.balance, 3);
    assert_null(escqrs_turn_current());
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_a_handler_asks(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_entity *bob = bank_account(&b, "bob");
    for (int on_worker = 0; on_worker < 2; on_worker++) {
        order then = order_make(&b, ORDER_DEPOSIT, 4);
        order o = order_make(&b, ORDER_ASK, 1);
        o.other = bob;
        o.then = &then;
        if (on_worker) {
            assert_int_equal(bank_send(ann, &o), ESCQRS_OK);
            order_wait_outside(&o);
        } else {
            assert_int_equal(bank_ask(ann, &o), ESCQRS_OK);
        }
        assert_int_equal(o.status, ESCQRS_OK);
        assert_int_equal(then.balance, 4 * (on_worker + 1));
        assert_int_equal(o.balance, on_worker + 1);
    }
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    bank_close(&b);
}

/* What the asking entity decided before is durable before another one acts on it, so the other's
 * events come later. */
static void test_an_ask_waits_for_the_askers_commits(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_entity *bob = bank_account(&b, "bob");
    enum { COUNT = 30 };
    order orders[COUNT], thens[COUNT];
    for (int i = 0; i < COUNT; i++) {
        thens[i] = order_make(&b, ORDER_DEPOSIT, 1);
        orders[i] = order_make(&b, i % 3 == 2 ? ORDER_ASK : ORDER_DEPOSIT, 1);
        orders[i].other = bob;
        orders[i].then = &thens[i];
        assert_int_equal(bank_send(ann, &orders[i]), ESCQRS_OK);
    }
    bank_drain(&b);
    for (int i = 2; i < COUNT; i += 3) {
        assert_int_equal(orders[i].status, ESCQRS_OK);
        assert_int_equal(thens[i].status, ESCQRS_OK);
        assert_true(thens[i].rank > orders[i - 1].rank);
        assert_true(thens[i].rank < orders[i].rank);
    }
    assert_int_equal(bank_balance(&b, ann), COUNT);
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    bank_close(&b);
}

static void run_chain(bank *b, int64_t depth)
{
    char id[32];
    snprintf(id, sizeof id, "%" PRId64, depth);
    escqrs_entity *entity = bank_account(b, id);
    order o = order_make(b, ORDER_CHAIN, 1);
    o.count = depth;
    assert_int_equal(bank_ask(entity, &o), ESCQRS_OK);
    assert_int_equal(o.balance, 1);
    assert_int_equal(escqrs_store_head(b->store), depth + 1);
    escqrs_entity_release(entity);
}

static void test_asks_nest(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    run_chain(&b, 200);
    bank_close(&b);
}

static void test_asks_nest_deeply(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    run_chain(&b, 10000 / test_stride(5));
    bank_close(&b);
}

/* ---- deadlocks ------------------------------------------------------------------------------ */

static void test_asking_oneself(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    for (int on_worker = 0; on_worker < 2; on_worker++) {
        order then = order_make(&b, ORDER_DEPOSIT, 4);
        order o = order_make(&b, ORDER_ASK, 1);
        o.other = ann;
        o.then = &then;
        if (on_worker) {
            assert_int_equal(bank_send(ann, &o), ESCQRS_OK);
            order_wait_outside(&o);
        } else {
            assert_int_equal(bank_ask(ann, &o), ESCQRS_DEADLOCK);
        }
        assert_int_equal(o.status, ESCQRS_DEADLOCK);
        assert_non_null(strstr(o.error.message, "Account/ann -> Account/ann"));
        assert_int_equal(then.done_calls, 0); /* nothing was sent */
    }
    assert_int_equal(bank_deposit(&b, ann, 1), 1);
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_a_cycle_of_three(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_entity *bob = bank_account(&b, "bob");
    escqrs_entity *cat = bank_account(&b, "cat");
    order last = order_make(&b, ORDER_DEPOSIT, 1);
    order third = order_make(&b, ORDER_ASK, 1);
    third.other = ann;
    third.then = &last;
    order second = order_make(&b, ORDER_ASK, 1);
    second.other = cat;
    second.then = &third;
    order first = order_make(&b, ORDER_ASK, 1);
    first.other = bob;
    first.then = &second;
    assert_int_equal(bank_ask(ann, &first), ESCQRS_DEADLOCK);
    assert_int_equal(third.status, ESCQRS_DEADLOCK);
    assert_non_null(strstr(third.error.message, "Account/ann"));
    assert_non_null(strstr(third.error.message, "Account/bob"));
    assert_non_null(strstr(third.error.message, "Account/cat"));
    assert_int_equal(escqrs_store_head(b.store), 0);
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    escqrs_entity_release(cat);
    bank_close(&b);
}

static void test_two_threads_ask_each_other(void **state)
{
    for (int round = 0; round < 10; round++) {
        bank b;
        bank_open(&b, plain(state));
        escqrs_entity *ann = bank_account(&b, "ann");
        escqrs_entity *bob = bank_account(&b, "bob");
        order then_a = order_make(&b, ORDER_DEPOSIT, 1);
        order then_b = order_make(&b, ORDER_DEPOSIT, 1);
        order of_a = order_make(&b, ORDER_GATE_ASK, 1);
        of_a.other = bob;
        of_a.then = &then_a;
        order of_b = order_make(&b, ORDER_GATE_ASK, 1);
        of_b.other = ann;
        of_b.then = &then_b;
        assert_int_equal(bank_send(ann, &of_a), ESCQRS_OK);
        assert_int_equal(bank_send(bob, &of_b), ESCQRS_OK);
        bank_await_entered(&b, 2);
        bank_open_gate(&b);
        bank_drain(&b);
        assert_true(of_a.status == ESCQRS_DEADLOCK || of_b.status == ESCQRS_DEADLOCK);
        assert_int_equal(of_a.done_calls, 1);
        assert_int_equal(of_b.done_calls, 1);
        escqrs_entity_release(ann);
        escqrs_entity_release(bob);
        bank_close(&b);
    }
}

static void test_a_handler_waits_for_all(void **state)
{
    bank b;
    bank_options options = plain(state);
    options.hosted = false;
    bank_open(&b, options);
    escqrs_entity *ann = bank_account(&b, "ann");
    order o = order_make(&b, ORDER_DRAIN, 0);
    assert_int_equal(bank_ask(ann, &o), ESCQRS_OK);
    assert_int_equal(o.status_inside, ESCQRS_DEADLOCK);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* ---- room ----------------------------------------------------------------------------------- */

static void test_no_more_than_fits(void **state)
{
    bank b;
    bank_options options = plain(state);
    options.in_flight_max = 3;
    bank_open(&b, options);
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_entity *bob = bank_account(&b, "bob");
    order then = order_make(&b, ORDER_DEPOSIT, 1);
    order orders[4];
    orders[0] = order_make(&b, ORDER_GATE, 1);
    orders[1] = order_make(&b, ORDER_SEND, 1); /* what a handler sends needs no room */
    orders[1].other = bob;
    orders[1].then = &then;
    orders[2] = order_make(&b, ORDER_DEPOSIT, 1);
    orders[3] = order_make(&b, ORDER_DEPOSIT, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bank_send(ann, &orders[i]), ESCQRS_OK);
    }
    assert_int_equal(escqrs_system_in_flight(b.system), 3);
    assert_int_equal(bank_send(ann, &orders[3]), ESCQRS_MAILBOX_FULL);
    escqrs_error error;
    assert_int_equal(escqrs_entity_ask(bob, &orders[3].command, &error), ESCQRS_MAILBOX_FULL);
    assert_int_equal(orders[3].done_calls, 0);
    assert_int_equal(escqrs_system_wait_room(b.system, esc_deadline_after(0)), ESCQRS_TIMEOUT);
    bank_await_entered(&b, 1);
    bank_open_gate(&b);
    escqrs_status status;
    while ((status = bank_send(ann, &orders[3])) == ESCQRS_MAILBOX_FULL) {
        /* again: what the handler of orders[1] sends may take the room that was there */
        void *token = bank_leave(&b);
        assert_int_equal(escqrs_system_wait_room(b.system, ESC_DEADLINE_NEVER), ESCQRS_OK);
        bank_enter(&b, token);
    }
    assert_int_equal(status, ESCQRS_OK);
    bank_drain(&b);
    assert_int_equal(then.status, ESCQRS_OK);
    assert_int_equal(bank_balance(&b, ann), 4);
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    bank_close(&b);
}

typedef struct flood {
    bank *bank;
    int64_t sent;
} flood;

static void flood_run(void *context)
{
    flood *f = context;
    bank *b = f->bank;
    escqrs_error error;
    for (int i = 0; i < 2000; i++) {
        escqrs_entity *entity = NULL;
        ESC_ASSERT(escqrs_entity_get(b->accounts, escqrs_slice_of(i % 2 ? "a" : "b"), &entity,
                                     &error) == ESCQRS_OK);
        order *o = order_new(b, ORDER_DEPOSIT, 1);
        o->forget = true;
        escqrs_status status;
        while ((status = escqrs_entity_send(entity, &o->command, &error)) == ESCQRS_MAILBOX_FULL) {
            status = escqrs_system_wait_room(b->system, ESC_DEADLINE_NEVER);
            ESC_ASSERT(status == ESCQRS_OK);
        }
        ESC_ASSERT(status == ESCQRS_OK);
        ESC_ASSERT(escqrs_system_in_flight(b->system) <= 20 + 2);
        f->sent++;
        escqrs_entity_release(entity);
    }
}

static void test_senders_wait_for_room(void **state)
{
    bank b;
    bank_options options = plain(state);
    options.in_flight_max = 20;
    bank_open(&b, options);
    flood floods[2];
    esc_thread threads[2];
    for (int i = 0; i < 2; i++) {
        floods[i] = (flood){&b, 0};
        assert_int_equal(esc_thread_create(&threads[i], "flood", 0, flood_run, &floods[i], NULL),
                         ESCQRS_OK);
    }
    void *token = bank_leave(&b);
    esc_thread_join(&threads[0]);
    esc_thread_join(&threads[1]);
    bank_enter(&b, token);
    bank_drain(&b);
    assert_int_equal(escqrs_store_head(b.store), floods[0].sent + floods[1].sent);
    bank_close(&b);
}

/* ---- drain ---------------------------------------------------------------------------------- */

/* A cascade: each order sends the next one, thirty deep, and drain waits for the last. */
static void test_drain_waits_for_cascades(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    enum { DEPTH = 30, WIDTH = 10 };
    escqrs_entity *entities[WIDTH];
    static order orders[WIDTH][DEPTH];
    for (int w = 0; w < WIDTH; w++) {
        char id[32];
        snprintf(id, sizeof id, "%d", w);
        entities[w] = bank_account(&b, id);
    }
    for (int w = 0; w < WIDTH; w++) {
        for (int d = 0; d < DEPTH; d++) {
            orders[w][d] = order_make(&b, d + 1 == DEPTH ? ORDER_DEPOSIT : ORDER_SEND, 1);
            orders[w][d].other = entities[(w + d + 1) % WIDTH];
            orders[w][d].then = d + 1 == DEPTH ? NULL : &orders[w][d + 1];
        }
        assert_int_equal(bank_send(entities[w], &orders[w][0]), ESCQRS_OK);
        if (w % 3 == 2) {
            bank_drain(&b);
            for (int i = 0; i <= w; i++) {
                assert_int_equal(orders[i][DEPTH - 1].done_calls, 1);
            }
        }
    }
    bank_drain(&b);
    assert_int_equal(escqrs_store_head(b.store), WIDTH * DEPTH);
    for (int w = 0; w < WIDTH; w++) {
        escqrs_entity_release(entities[w]);
    }
    bank_close(&b);
}

/* Drain does not wait for what comes later, and a ticket is kept over slices. */
static void test_drain_waits_for_earlier_commands_only(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_entity *bob = bank_account(&b, "bob");
    order early = order_make(&b, ORDER_GATE, 1);
    escqrs_error error;
    bank_deposit(&b, bob, 1);
    uint64_t idle = escqrs_system_drain_begin(b.system);
    assert_int_equal(escqrs_system_drain_wait(b.system, idle, esc_deadline_after(0), &error),
                     ESCQRS_OK);
    assert_int_equal(bank_send(ann, &early), ESCQRS_OK);
    bank_await_entered(&b, 1);
    uint64_t ticket = escqrs_system_drain_begin(b.system);
    assert_int_equal(escqrs_system_drain_wait(b.system, ticket, esc_deadline_after(0), &error),
                     ESCQRS_DONE);
    order late = order_make(&b, ORDER_DEPOSIT, 1); /* of another entity */
    assert_int_equal(bank_ask(bob, &late), ESCQRS_OK);
    assert_int_equal(escqrs_system_drain_wait(b.system, ticket, esc_deadline_after(0), &error),
                     ESCQRS_DONE);
    assert_int_equal(escqrs_system_drain_wait(b.system, idle, esc_deadline_after(0), &error),
                     ESCQRS_OK);
    order behind = order_make(&b, ORDER_DEPOSIT, 1); /* not waited for, but cannot pass */
    assert_int_equal(bank_send(ann, &behind), ESCQRS_OK);
    bank_open_gate(&b);
    void *token = bank_leave(&b);
    assert_int_equal(escqrs_system_drain_wait(b.system, ticket, ESC_DEADLINE_NEVER, &error),
                     ESCQRS_OK);
    bank_enter(&b, token);
    assert_int_equal(early.done_calls, 1);
    bank_drain(&b);
    assert_int_equal(behind.done_calls, 1);
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    bank_close(&b);
}

static void drainer_run(void *context)
{
    bank *b = context;
    escqrs_error error;
    for (int i = 0; i < 200; i++) {
        ESC_ASSERT(escqrs_system_drain(b->system, ESC_DEADLINE_NEVER, &error) == ESCQRS_OK);
    }
}

static void test_drains_of_many_threads(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    esc_thread threads[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(esc_thread_create(&threads[i], "drainer", 0, drainer_run, &b, NULL),
                         ESCQRS_OK);
    }
    for (int i = 0; i < 200; i++) {
        order o = order_make(&b, ORDER_DEPOSIT, 1);
        assert_int_equal(bank_send(ann, &o), ESCQRS_OK);
        bank_drain(&b);
        assert_int_equal(o.done_calls, 1);
    }
    void *token = bank_leave(&b);
    for (int i = 0; i < 3; i++) {
        esc_thread_join(&threads[i]);
    }
    bank_enter(&b, token);
    escqrs_entity_release(ann);
    bank_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_ask_runs_on_the_caller),
        BOTH(test_a_handler_asks),
        BOTH(test_an_ask_waits_for_the_askers_commits),
        BOTH(test_asks_nest),
        BOTH(test_asks_nest_deeply),
        BOTH(test_asking_oneself),
        BOTH(test_a_cycle_of_three),
        BOTH(test_two_threads_ask_each_other),
        cmocka_unit_test(test_a_handler_waits_for_all),
        BOTH(test_no_more_than_fits),
        BOTH(test_senders_wait_for_room),
        BOTH(test_drain_waits_for_cascades),
        BOTH(test_drain_waits_for_earlier_commands_only),
        BOTH(test_drains_of_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
