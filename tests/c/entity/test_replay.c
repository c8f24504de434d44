/* Replay: states after reopening and eviction, snapshots, and histories that cannot be read. */
#include "entity/account.h"

static bank_options plain(void **state)
{
    return (bank_options){.hosted = *state != NULL};
}

static bank_options every(void **state, int64_t events)
{
    bank_options options = plain(state);
    options.snapshot_every = events;
    return options;
}

static void test_reopened_states_are_equal(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    enum { COUNT = 20 };
    int64_t balances[COUNT], versions[COUNT];
    for (int i = 0; i < COUNT; i++) {
        char id[32];
        snprintf(id, sizeof id, "account %d", i);
        escqrs_entity *entity = bank_account(&b, id);
        for (int j = 0; j < i; j++) {
            order o = order_make(&b, j % 3 == 1 ? ORDER_SPOIL : ORDER_DEPOSIT, j);
            o.count = 1 + j % 4;
            assert_int_equal(bank_ask(entity, &o), j % 3 == 1 ? ESCQRS_REJECTED : ESCQRS_OK);
        }
        order look = bank_look(&b, entity);
        balances[i] = look.balance;
        versions[i] = look.version;
        escqrs_entity_release(entity);
    }
    bank_reopen(&b, plain(state));
    for (int i = 0; i < COUNT; i++) {
        char id[32];
        snprintf(id, sizeof id, "account %d", i);
        escqrs_entity *entity = bank_account(&b, id);
        order look = bank_look(&b, entity);
        assert_int_equal(look.balance, balances[i]);
        assert_int_equal(look.version, versions[i]);
        escqrs_entity_release(entity);
    }
    bank_close(&b);
}

static void test_long_histories(void **state)
{
    static const int64_t counts[] = {255, 256, 257, 1000, 5000};
    bank b;
    bank_open(&b, plain(state));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        char id[32];
        snprintf(id, sizeof id, "%d", (int)counts[i]);
        escqrs_entity *entity = bank_account(&b, id);
        order o = order_make(&b, ORDER_DEPOSIT, 2);
        o.count = counts[i];
        assert_int_equal(bank_ask(entity, &o), ESCQRS_OK);
        escqrs_entity_release(entity);
    }
    bank_reopen(&b, plain(state));
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        char id[32];
        snprintf(id, sizeof id, "%d", (int)counts[i]);
        escqrs_entity *entity = bank_account(&b, id);
        order look = bank_look(&b, entity);
        assert_int_equal(look.version, counts[i]);
        assert_int_equal(look.balance, 2 * counts[i]);
        escqrs_entity_release(entity);
    }
    bank_close(&b);
}

/* ---- snapshots ------------------------------------------------------------------------------ */

static void test_snapshots_at_intervals(void **state)
{
    for (int64_t interval = 1; interval <= 5; interval++) {
        bank b;
        bank_open(&b, every(state, interval));
        escqrs_entity *ann = bank_account(&b, "ann");
        order look = bank_look(&b, ann); /* version 0: no snapshot */
        assert_int_equal(look.version, 0);
        int64_t packed = 0;
        int64_t version = 0;
        for (int i = 0; i < 12; i++) {
            order o = order_make(&b, i % 4 == 3 ? ORDER_REFUSE : ORDER_DEPOSIT, i);
            o.count = 1 + i % 3;
            (void)!bank_ask(ann, &o);
            if (o.kind == ORDER_DEPOSIT) {
                packed += version / interval != (version + o.count) / interval;
                version += o.count;
            }
        }
        bank_drain(&b);
        assert_int_equal(atomic_load(&b.packed), packed);
        look = bank_look(&b, ann);
        assert_int_equal(look.version, version);
        escqrs_entity_release(ann);
        bank_reopen(&b, every(state, interval));
        atomic_store(&b.applied, 0);
        atomic_store(&b.decoded, atomic_load(&b.discarded));
        ann = bank_account(&b, "ann");
        order again = bank_look(&b, ann);
        assert_int_equal(again.version, version);
        assert_int_equal(again.balance, look.balance);
        assert_int_equal(atomic_load(&b.unpacked), 1);
        assert_true(atomic_load(&b.applied) < interval + 3); /* a command has at most 3 events */
        assert_int_equal(bank_deposit(&b, ann, 1), look.balance + 1);
        escqrs_entity_release(ann);
        bank_close(&b);
    }
}

static void test_no_snapshots(void **state)
{
    bank b;
    bank_open(&b, every(state, 0));
    escqrs_entity *ann = bank_account(&b, "ann");
    for (int i = 0; i < 10; i++) {
        bank_deposit(&b, ann, 1);
    }
    assert_int_equal(atomic_load(&b.packed), 0);
    escqrs_aggregate_set_snapshots(b.accounts, &(escqrs_snapshot_policy){.every = 2});
    static const int64_t packed[] = {1, 2, 2, 3}; /* what was left out is made up for at once */
    for (int i = 0; i < 4; i++) {
        bank_deposit(&b, ann, 1);
        bank_drain(&b);
        assert_int_equal(atomic_load(&b.packed), packed[i]);
    }
    escqrs_entity_release(ann);
    bank_close(&b);
}

typedef struct counted_log {
    _Atomic int warnings;
    char text[1024];
} counted_log;

static void count_log(void *context, escqrs_log_level level, const char *text)
{
    counted_log *log = context;
    if (level >= ESCQRS_LOG_WARNING) {
        atomic_fetch_add(&log->warnings, 1);
        snprintf(log->text, sizeof log->text, "%s", text);
    }
}

static void test_a_snapshot_that_does_not_fit_is_passed_over(void **state)
{
    bank b;
    bank_open(&b, every(state, 4));
    escqrs_entity *ann = bank_account(&b, "ann");
    for (int i = 0; i < 10; i++) {
        bank_deposit(&b, ann, i);
    }
    escqrs_entity_release(ann);
    static const int64_t failing[] = {8, 1}; /* an older one fits; none does */
    for (int i = 0; i < 2; i++) {
        counted_log log = {0};
        bank_options options = every(state, 4);
        options.log = (escqrs_log){count_log, &log};
        bank_reopen(&b, options);
        atomic_store(&b.fail_unpack, failing[i]);
        ann = bank_account(&b, "ann");
        order look = bank_look(&b, ann);
        assert_int_equal(look.version, 10);
        assert_int_equal(look.balance, 45);
        assert_true(atomic_load(&log.warnings) > 0);
        assert_non_null(strstr(log.text, "Account/ann"));
        assert_non_null(strstr(log.text, "another kind of account"));
        escqrs_entity_release(ann);
        assert_int_equal(bank_stop_by(&b, ESC_DEADLINE_NEVER), ESCQRS_OK);
        escqrs_error error;
        options = every(state, 4);
        options.hosted = b.hosted;
        b.host = NULL;
        assert_int_equal(bank_start(&b, &options, &error), ESCQRS_OK);
    }
    bank_close(&b);
}

/* Each look at it is a step later. */
typedef struct slow_clock {
    _Atomic int64_t now_ns, step_ns;
} slow_clock;

static int64_t slow_now(void *context)
{
    slow_clock *clock = context;
    return atomic_fetch_add(&clock->now_ns, atomic_load(&clock->step_ns));
}

static int64_t newest_snapshot(bank *b)
{
    escqrs_snapshot found = {0};
    escqrs_error error;
    escqrs_status status =
        escqrs_store_snapshot(b->store, escqrs_slice_of("Account/ann"), 0, &found, &error);
    assert_true(status == ESCQRS_OK || status == ESCQRS_DONE);
    escqrs_free(found.data);
    return status == ESCQRS_OK ? found.version : 0;
}

static void test_snapshots_by_replay_time(void **state)
{
    slow_clock clock = {.step_ns = 1000};
    bank b;
    bank_options options = plain(state);
    options.snapshot_replay_ns = 50 * 1000;
    options.clock.monotonic_ns = slow_now;
    options.clock.context = &clock;
    bank_open(&b, options);
    escqrs_entity *ann = bank_account(&b, "ann");
    for (int i = 0; i < 100; i++) { /* nothing was loaded that tells how long an event takes */
        bank_deposit(&b, ann, 1);
    }
    bank_drain(&b);
    assert_int_equal(newest_snapshot(&b), 0);
    escqrs_entity_release(ann);
    bank_reopen(&b, options);
    atomic_store(&clock.step_ns, 20 * 1000); /* 100 events in 20 us: 200 ns each */
    ann = bank_account(&b, "ann");
    (void)bank_look(&b, ann);
    bank_drain(&b);
    assert_int_equal(newest_snapshot(&b), 0);
    for (int i = 0; i < 149; i++) {
        bank_deposit(&b, ann, 1);
    }
    bank_drain(&b);
    assert_int_equal(newest_snapshot(&b), 0);
    bank_deposit(&b, ann, 1);
    bank_drain(&b);
    assert_int_equal(newest_snapshot(&b), 250);
    for (int i = 0; i < 251; i++) {
        bank_deposit(&b, ann, 1);
    }
    bank_drain(&b);
    assert_int_equal(newest_snapshot(&b), 500);
    escqrs_entity_release(ann);
    bank_reopen(&b, options);
    atomic_store(&clock.step_ns, 60 * 1000); /* one event in 60 us */
    ann = bank_account(&b, "ann");
    (void)bank_look(&b, ann);
    bank_drain(&b);
    assert_int_equal(newest_snapshot(&b), 501);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* The snapshots of an account, by passing them over one by one. */
static int count_snapshots(bank *b)
{
    int count = 0;
    int64_t upto = 0;
    escqrs_snapshot found = {0};
    while (upto >= 0 && escqrs_store_snapshot(b->store, escqrs_slice_of("Account/ann"), upto,
                                              &found, NULL) == ESCQRS_OK) {
        escqrs_free(found.data);
        upto = found.version > 1 ? found.version - 1 : -1;
        count++;
    }
    return count;
}

static void test_the_newest_snapshots_are_kept(void **state)
{
    bank b;
    bank_options options = every(state, 2);
    options.snapshot_keep = 3;
    bank_open(&b, options);
    escqrs_entity *ann = bank_account(&b, "ann");
    for (int i = 0; i < 21; i++) {
        bank_deposit(&b, ann, 1);
        bank_drain(&b);
        assert_int_equal(count_snapshots(&b), (i + 1) / 2 < 3 ? (i + 1) / 2 : 3);
    }
    assert_int_equal(newest_snapshot(&b), 20);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* The sweeper is a message on its way, or amid an entity: ask until it was there. It needs no time
 * but a worker's. */
static void await_few_live(bank *b, size_t most)
{
    void *token = bank_leave(b);
    while (escqrs_system_live(b->system) > most) {
        sched_yield();
    }
    bank_enter(b, token);
}

static void test_states_that_leave_are_put_down(void **state)
{
    bank b;
    bank_options options = plain(state);
    options.snapshot_on_passivation = true;
    options.live_max = 1;
    bank_open(&b, options);
    escqrs_entity *ann = bank_account(&b, "ann"), *bob = bank_account(&b, "bob");
    for (int i = 0; i < 3; i++) {
        bank_deposit(&b, ann, 1);
        bank_deposit(&b, bob, 1);
        bank_deposit(&b, bob, 1);
        await_few_live(&b, 1);
        bank_drain(&b);
        assert_int_equal(newest_snapshot(&b), i + 1);
    }
    assert_int_equal(bank_deposit(&b, ann, 1), 4);
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    bank_reopen(&b, options);
    assert_int_equal(newest_snapshot(&b), 4); /* closing made it leave */
    bank_close(&b);
}

static void test_a_snapshot_that_cannot_be_taken_fails_no_command(void **state)
{
    counted_log log = {0};
    bank b;
    bank_options options = every(state, 1);
    options.snapshot_on_passivation = true;
    options.log = (escqrs_log){count_log, &log};
    bank_open(&b, options);
    atomic_store(&b.fail_pack, true);
    escqrs_entity *ann = bank_account(&b, "ann");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(bank_deposit(&b, ann, 1), i + 1);
    }
    bank_drain(&b);
    assert_true(atomic_load(&log.warnings) > 0);
    assert_non_null(strstr(log.text, "no snapshot of Account/ann"));
    assert_non_null(strstr(log.text, "too much to be written down"));
    order wanted = order_make(&b, ORDER_READ, 0); /* who asks for one is told */
    wanted.command.special = true;
    wanted.command.snapshot = true;
    assert_int_equal(bank_ask(ann, &wanted), ESCQRS_INVALID);
    atomic_store(&b.fail_pack, false);
    wanted = order_make(&b, ORDER_READ, 0);
    wanted.command.special = true;
    wanted.command.snapshot = true;
    assert_int_equal(bank_ask(ann, &wanted), ESCQRS_OK);
    assert_int_equal(newest_snapshot(&b), 3);
    assert_int_equal(bank_deposit(&b, ann, 1), 4);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* ---- histories that cannot be read ---------------------------------------------------------- */

static void try_failing(bank *b, escqrs_entity *ann, _Atomic int64_t *failing, const char *reason)
{
    atomic_store(failing, 3);
    for (int i = 0; i < 2; i++) { /* to each command, also when it is tried again */
        order o = order_make(b, ORDER_DEPOSIT, 1);
        escqrs_status status = bank_ask(ann, &o);
        assert_true(status == ESCQRS_REJECTED || status == ESCQRS_CORRUPT);
        assert_non_null(strstr(o.error.message, "Account/ann, version 3: event Moved"));
        assert_non_null(strstr(o.error.message, reason));
        assert_string_equal(o.error.subject, "Account/ann");
        assert_int_equal(o.error.version, 3);
    }
    atomic_store(failing, 0);
    assert_int_equal(bank_balance(b, ann), 5);
}

static void test_an_event_that_cannot_be_applied(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    order o = order_make(&b, ORDER_DEPOSIT, 1);
    o.count = 5;
    assert_int_equal(bank_ask(ann, &o), ESCQRS_OK);
    escqrs_entity_release(ann);
    bank_reopen(&b, plain(state));
    ann = bank_account(&b, "ann");
    try_failing(&b, ann, &b.fail_apply, "no such account any more");
    atomic_fetch_add(&b.generation, 1);
    try_failing(&b, ann, &b.fail_decode, "it is broken");
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* ---- eviction ------------------------------------------------------------------------------- */

static void deposit_to_many(bank *b, int count, bool ask)
{
    order *orders = calloc((size_t)count, sizeof *orders);
    for (int i = 0; i < count; i++) {
        char id[32];
        snprintf(id, sizeof id, "%d", i);
        escqrs_entity *entity = bank_account(b, id);
        orders[i] = order_make(b, ORDER_DEPOSIT, i);
        assert_int_equal(ask ? bank_ask(entity, &orders[i]) : bank_send(entity, &orders[i]),
                         ESCQRS_OK);
        escqrs_entity_release(entity);
    }
    bank_drain(b);
    for (int i = 0; i < count; i++) {
        assert_int_equal(orders[i].status, ESCQRS_OK);
    }
    free(orders);
}

static void test_idle_states_leave(void **state)
{
    enum { ENTITIES = 5000, LIVE = 100 };
    bank b;
    bank_options options = plain(state);
    options.memory = true;
    options.live_max = LIVE;
    bank_open(&b, options);
    deposit_to_many(&b, ENTITIES, false);
    await_few_live(&b, LIVE);
    deposit_to_many(&b, ENTITIES, true);
    await_few_live(&b, LIVE);
    /* as many were still live when the second round came */
    assert_true(atomic_load(&b.destroyed) >= 2 * ENTITIES - 2 * LIVE);
    for (int i = 0; i < ENTITIES; i += 97) {
        char id[32];
        snprintf(id, sizeof id, "%d", i);
        escqrs_entity *entity = bank_account(&b, id);
        assert_int_equal(bank_balance(&b, entity), 2 * i);
        escqrs_entity_release(entity);
    }
    bank_close(&b);
}

static void test_what_is_used_stays(void **state)
{
    bank b;
    bank_options options = plain(state);
    options.memory = true;
    options.live_max = 10;
    bank_open(&b, options);
    escqrs_entity *favourite = bank_account(&b, "favourite");
    bank_deposit(&b, favourite, 1);
    for (int i = 0; i < 500; i++) {
        char id[32];
        snprintf(id, sizeof id, "%d", i);
        escqrs_entity *entity = bank_account(&b, id);
        bank_deposit(&b, entity, 1);
        bank_deposit(&b, favourite, 1);
        escqrs_entity_release(entity);
    }
    assert_int_equal(atomic_load(&b.created), 501); /* the favourite once */
    assert_int_equal(bank_balance(&b, favourite), 501);
    escqrs_entity_release(favourite);
    bank_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_reopened_states_are_equal),
        BOTH(test_long_histories),
        BOTH(test_snapshots_at_intervals),
        BOTH(test_no_snapshots),
        BOTH(test_a_snapshot_that_does_not_fit_is_passed_over),
        BOTH(test_snapshots_by_replay_time),
        BOTH(test_the_newest_snapshots_are_kept),
        BOTH(test_states_that_leave_are_put_down),
        BOTH(test_a_snapshot_that_cannot_be_taken_fails_no_command),
        BOTH(test_an_event_that_cannot_be_applied),
        BOTH(test_idle_states_leave),
        BOTH(test_what_is_used_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
