/* Turns: events and replies, pipelining, and what happens when something fails. Each test runs
 * without a host and with one. */
#include "entity/account.h"

static bank_options plain(void **state)
{
    return (bank_options){.hosted = *state != NULL, .memory = true};
}

static void test_deposit_is_stored_and_answered(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    assert_int_equal(bank_deposit(&b, ann, 5), 5);
    assert_int_equal(bank_deposit(&b, ann, -2), 3);
    assert_int_equal(bank_stored_version(&b, ann), 2);
    order look = bank_look(&b, ann);
    assert_int_equal(look.balance, 3);
    assert_int_equal(look.version, 2);
    assert_int_equal(escqrs_store_head(b.store), 2);
    assert_int_equal(escqrs_system_in_flight(b.system), 0);
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_events_of_a_command_are_one_commit(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    order many = order_make(&b, ORDER_DEPOSIT, 3);
    many.count = 1000;
    assert_int_equal(bank_ask(ann, &many), ESCQRS_OK);
    assert_int_equal(many.balance, 3000);
    assert_int_equal(many.version, 1000);
    assert_int_equal(bank_stored_version(&b, ann), 1000);
    escqrs_cursor *cursor = NULL;
    const escqrs_recorded *recorded;
    escqrs_error error;
    escqrs_range range = {0};
    assert_int_equal(
        escqrs_store_history(b.store, escqrs_entity_stream(ann), &range, &cursor, &error),
        ESCQRS_OK);
    escqrs_uuid causation = {{0}};
    for (int64_t version = 1; escqrs_cursor_next(cursor, &recorded, &error) == ESCQRS_OK;
         version++) {
        assert_int_equal(recorded->version, version);
        causation = version == 1 ? recorded->causation_id : causation;
        assert_memory_equal(&recorded->causation_id, &causation, sizeof causation);
        assert_memory_equal(&recorded->correlation_id, &causation, sizeof causation);
    }
    assert_false(escqrs_uuid_is_nil(&causation));
    escqrs_cursor_close(cursor);
    escqrs_entity_release(ann);
    bank_close(&b);
}

#define PIPELINED 500

static void test_replies_come_in_order(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    order *orders = calloc(PIPELINED, sizeof *orders);
    for (int i = 0; i < PIPELINED; i++) {
        orders[i] = order_make(&b,
                               i % 5 == 3   ? ORDER_READ
                               : i % 5 == 4 ? ORDER_REFUSE
                                            : ORDER_DEPOSIT,
                               1);
        orders[i].command.special = i % 10 == 8;
        assert_int_equal(bank_send(ann, &orders[i]), ESCQRS_OK);
    }
    bank_drain(&b);
    int64_t balance = 0;
    for (int i = 0; i < PIPELINED; i++) {
        balance += orders[i].kind == ORDER_DEPOSIT;
        assert_int_equal(atomic_load(&orders[i].done_calls), 1);
        assert_int_equal(orders[i].rank, i);
        assert_int_equal(orders[i].status,
                         orders[i].kind == ORDER_REFUSE ? ESCQRS_REJECTED : ESCQRS_OK);
        assert_int_equal(orders[i].balance, balance);
    }
    assert_int_equal(bank_stored_version(&b, ann), balance);
    free(orders);
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_refusal_leaves_nothing(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    bank_deposit(&b, ann, 7);
    order refuse = order_make(&b, ORDER_REFUSE, 1);
    assert_int_equal(bank_ask(ann, &refuse), ESCQRS_REJECTED);
    assert_string_equal(refuse.error.message, "not today");
    assert_int_equal(bank_balance(&b, ann), 7);
    assert_int_equal(atomic_load(&b.created), 1); /* not loaded anew */
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_spoiled_state_is_loaded_anew(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    bank_deposit(&b, ann, 7);
    order spoil = order_make(&b, ORDER_SPOIL, 100);
    spoil.count = 3;
    assert_int_equal(bank_ask(ann, &spoil), ESCQRS_REJECTED);
    assert_string_equal(spoil.error.message, "after all not");
    assert_int_equal(spoil.balance, 307);
    assert_int_equal(bank_balance(&b, ann), 7);
    assert_int_equal(bank_deposit(&b, ann, 1), 8);
    assert_int_equal(bank_stored_version(&b, ann), 2);
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_spoil_amid_a_pipeline(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    order *orders = calloc(PIPELINED, sizeof *orders);
    int64_t balance = 0;
    for (int i = 0; i < PIPELINED; i++) {
        orders[i] = order_make(&b, i % 7 == 6 ? ORDER_SPOIL : ORDER_DEPOSIT, i);
        assert_int_equal(bank_send(ann, &orders[i]), ESCQRS_OK);
    }
    bank_drain(&b);
    for (int i = 0; i < PIPELINED; i++) {
        balance += orders[i].kind == ORDER_DEPOSIT ? i : 0;
        assert_int_equal(orders[i].rank, i);
        assert_int_equal(orders[i].status,
                         orders[i].kind == ORDER_SPOIL ? ESCQRS_REJECTED : ESCQRS_OK);
        if (orders[i].kind == ORDER_DEPOSIT) {
            assert_int_equal(orders[i].balance, balance);
        }
    }
    assert_int_equal(bank_balance(&b, ann), balance);
    free(orders);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* Another writer puts an event into the stream while a handler runs: its commit and those decided
 * on top fail. */
static void test_failed_append_takes_the_state_back(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    bank_deposit(&b, ann, 10);
    order gate = order_make(&b, ORDER_GATE, 1000);
    assert_int_equal(bank_send(ann, &gate), ESCQRS_OK);
    bank_await_entered(&b, 1);
    bank_intrude(&b, ann, 5);
    bank_open_gate(&b);
    order_wait_outside(&gate);
    assert_int_equal(gate.status, ESCQRS_WRONG_VERSION);
    assert_int_equal(gate.error.expected, 1);
    assert_int_equal(gate.error.actual, 2);
    assert_int_equal(bank_balance(&b, ann), 15);
    assert_int_equal(bank_deposit(&b, ann, 1), 16);
    assert_int_equal(bank_stored_version(&b, ann), 3);
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_failed_append_fails_what_was_built_on_it(void **state)
{
    bank b;
    bank_options options = plain(state);
    options.manual = true; /* so that several commits are under way together */
    options.hosted = false;
    bank_open(&b, options);
    escqrs_entity *ann = bank_account(&b, "ann");
    order orders[6];
    for (int i = 0; i < 6; i++) {
        orders[i] = order_make(&b, i == 2 ? ORDER_READ : i == 3 ? ORDER_REFUSE : ORDER_DEPOSIT, 1);
        assert_int_equal(bank_send(ann, &orders[i]), ESCQRS_OK);
    }
    orders[1].amount = 2;
    while (escqrs_runtime_step(escqrs_system_runtime(b.system))) {
    }
    assert_int_equal(escqrs_system_in_flight(b.system), 6);
    bank_intrude(&b, ann, 50); /* queued behind them, or ahead: one of both fails */
    bank_drain(&b);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(orders[i].rank, i);
        assert_int_equal(orders[i].done_calls, 1);
    }
    order more = order_make(&b, ORDER_DEPOSIT, 3);
    assert_int_equal(bank_send(ann, &more), ESCQRS_OK);
    bank_drain(&b);
    order look = order_make(&b, ORDER_READ, 0);
    assert_int_equal(bank_send(ann, &look), ESCQRS_OK);
    bank_drain(&b);
    if (orders[0].status ==
        ESCQRS_OK) { /* the intruder came last: the next deposit found that out */
        assert_int_equal(orders[3].status, ESCQRS_REJECTED);
        assert_int_equal(more.status, ESCQRS_WRONG_VERSION);
        assert_int_equal(look.balance, 1 + 2 + 1 + 1 + 50);
    } else {
        assert_int_equal(orders[0].status, ESCQRS_WRONG_VERSION);
        for (int i = 1; i < 6; i++) {
            assert_int_equal(orders[i].status, ESCQRS_WRONG_VERSION);
            assert_ptr_equal(strstr(orders[i].error.message,
                                    "an earlier command of this entity could not "
                                    "be stored: "),
                             orders[i].error.message);
        }
        assert_int_equal(look.balance, 50 + 3);
    }
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_a_broken_emit_fails_the_command(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    bank_deposit(&b, ann, 1);
    order many = order_make(&b, ORDER_TOO_MANY, 1);
    assert_int_equal(bank_ask(ann, &many), ESCQRS_TOO_LARGE);
    order nothing = order_make(&b, ORDER_NOTHING, 1);
    assert_int_equal(bank_ask(ann, &nothing), ESCQRS_INVALID);
    assert_int_equal(bank_stored_version(&b, ann), 1);
    assert_int_equal(bank_balance(&b, ann), 1);
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_a_refused_commit_takes_the_state_back(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    bank_deposit(&b, ann, 1);
    for (int ask = 0; ask < 2; ask++) {
        order huge = order_make(&b, ORDER_HUGE, 1);
        if (ask) {
            assert_int_equal(bank_ask(ann, &huge), ESCQRS_TOO_LARGE);
        } else {
            assert_int_equal(bank_send(ann, &huge), ESCQRS_OK);
            order_wait_outside(&huge);
            assert_int_equal(huge.status, ESCQRS_TOO_LARGE);
        }
        order look = bank_look(&b, ann);
        assert_int_equal(look.version, 1 + ask);
        assert_int_equal(look.balance, 1 + ask);
        assert_int_equal(bank_deposit(&b, ann, 1), 2 + ask);
    }
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_sent_commands_leave_when_durable(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_entity *bob = bank_account(&b, "bob");
    enum { COUNT = 50 };
    order sends[COUNT], thens[COUNT];
    for (int i = 0; i < COUNT; i++) {
        thens[i] = order_make(&b, ORDER_DEPOSIT, i);
        sends[i] = order_make(&b,
                              i % 10 == 7   ? ORDER_SEND_REFUSE
                              : i % 10 == 8 ? ORDER_SEND_READ
                                            : ORDER_SEND,
                              1);
        sends[i].other = bob;
        sends[i].then = &thens[i];
        assert_int_equal(bank_send(ann, &sends[i]), ESCQRS_OK);
    }
    bank_drain(&b);
    int64_t balance = 0;
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(thens[i].done_calls, 1);
        if (sends[i].kind == ORDER_SEND_REFUSE) {
            assert_int_equal(sends[i].status, ESCQRS_REJECTED);
            assert_int_equal(thens[i].status, ESCQRS_ABORTED);
        } else {
            balance += i; /* in the order sent */
            assert_int_equal(thens[i].status, ESCQRS_OK);
            assert_int_equal(thens[i].balance, balance);
        }
    }
    assert_int_equal(bank_balance(&b, bob), balance);
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    bank_close(&b);
}

static void test_sent_commands_are_dropped_when_the_append_fails(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_entity *bob = bank_account(&b, "bob");
    order gate = order_make(&b, ORDER_GATE, 1);
    order then = order_make(&b, ORDER_DEPOSIT, 1);
    order send = order_make(&b, ORDER_SEND, 1);
    send.other = bob;
    send.then = &then;
    assert_int_equal(bank_deposit(&b, ann, 1), 1);
    assert_int_equal(bank_send(ann, &gate), ESCQRS_OK);
    assert_int_equal(bank_send(ann, &send), ESCQRS_OK);
    bank_await_entered(&b, 1);
    bank_intrude(&b, ann, 5);
    bank_open_gate(&b);
    bank_drain(&b);
    assert_int_equal(gate.status, ESCQRS_WRONG_VERSION);
    assert_int_equal(then.done_calls, 1);
    /* `send` was built on the gate's state, or came after the reload */
    assert_int_equal(then.status, send.status == ESCQRS_OK ? ESCQRS_OK : ESCQRS_ABORTED);
    assert_int_equal(bank_balance(&b, bob), send.status == ESCQRS_OK ? 1 : 0);
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    bank_close(&b);
}

static void read_ids(bank *b, escqrs_entity *entity, escqrs_uuid *correlation,
                     escqrs_uuid *causation)
{
    escqrs_cursor *cursor = NULL;
    const escqrs_recorded *recorded;
    escqrs_error error;
    escqrs_range range = {0};
    assert_int_equal(
        escqrs_store_history(b->store, escqrs_entity_stream(entity), &range, &cursor, &error),
        ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, &error), ESCQRS_OK);
    *correlation = recorded->correlation_id;
    *causation = recorded->causation_id;
    escqrs_cursor_close(cursor);
}

static void test_correlation_is_inherited(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_entity *bob = bank_account(&b, "bob");
    escqrs_entity *cat = bank_account(&b, "cat");
    order third = order_make(&b, ORDER_DEPOSIT, 1);
    order second = order_make(&b, ORDER_SEND, 1);
    second.other = cat;
    second.then = &third;
    order first = order_make(&b, ORDER_ASK, 1);
    first.other = bob;
    first.then = &second;
    assert_int_equal(bank_ask(ann, &first), ESCQRS_OK);
    bank_drain(&b);
    escqrs_uuid correlation[3], causation[3];
    read_ids(&b, ann, &correlation[0], &causation[0]);
    read_ids(&b, bob, &correlation[1], &causation[1]);
    read_ids(&b, cat, &correlation[2], &causation[2]);
    assert_memory_equal(&correlation[0], &causation[0], sizeof(escqrs_uuid));
    assert_memory_equal(&correlation[1], &correlation[0], sizeof(escqrs_uuid));
    assert_memory_equal(&correlation[2], &correlation[0], sizeof(escqrs_uuid));
    assert_memory_not_equal(&causation[1], &causation[0], sizeof(escqrs_uuid));
    assert_memory_not_equal(&causation[2], &causation[1], sizeof(escqrs_uuid));
    assert_memory_not_equal(&causation[2], &causation[0], sizeof(escqrs_uuid));
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    escqrs_entity_release(cat);
    bank_close(&b);
}

static void test_metadata_and_ids_are_stored(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    escqrs_pair by = {escqrs_slice_of("by"), escqrs_slice_of("bob")};
    order o = order_make(&b, ORDER_DEPOSIT, 1);
    o.command.metadata = &by;
    o.command.metadata_count = 1;
    o.command.id = escqrs_uuid_new(NULL, NULL);
    o.command.correlation_id = escqrs_uuid_new(NULL, NULL);
    assert_int_equal(bank_ask(ann, &o), ESCQRS_OK);
    escqrs_uuid correlation, causation;
    read_ids(&b, ann, &correlation, &causation);
    assert_memory_equal(&correlation, &o.command.correlation_id, sizeof correlation);
    assert_memory_equal(&causation, &o.command.id, sizeof causation);
    escqrs_cursor *cursor = NULL;
    const escqrs_recorded *recorded;
    escqrs_error error;
    escqrs_range range = {0};
    assert_int_equal(escqrs_store_events(b.store, &range, &cursor, &error), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, &error), ESCQRS_OK);
    assert_int_equal(recorded->metadata_count, 1);
    assert_true(escqrs_slice_equal(recorded->metadata[0].value, by.value));
    escqrs_cursor_close(cursor);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* ---- keys ----------------------------------------------------------------------------------- */

static order keyed(bank *b, const char *key, int64_t amount)
{
    order o = order_make(b, ORDER_DEPOSIT, amount);
    o.command.key = escqrs_slice_of(key);
    return o;
}

static void test_a_key_runs_once(void **state)
{
    bank b;
    bank_options options = plain(state);
    options.memory = false;
    bank_open(&b, options);
    escqrs_entity *ann = bank_account(&b, "ann");
    order first = keyed(&b, "k1", 5);
    assert_int_equal(bank_ask(ann, &first), ESCQRS_OK);
    assert_false(first.was_repeated);
    bank_deposit(&b, ann, 1);
    order again = keyed(&b, "k1", 5);
    assert_int_equal(bank_ask(ann, &again), ESCQRS_OK);
    assert_true(again.was_repeated);
    assert_string_equal(again.repeated_reply, "balance 5");
    assert_int_equal(bank_balance(&b, ann), 6);
    escqrs_entity_release(ann);

    bank_reopen(&b, options);
    ann = bank_account(&b, "ann");
    order later = keyed(&b, "k1", 5);
    assert_int_equal(bank_ask(ann, &later), ESCQRS_OK);
    assert_true(later.was_repeated);
    assert_string_equal(later.repeated_reply, "balance 5");
    assert_int_equal(bank_balance(&b, ann), 6);

    escqrs_entity *bob = bank_account(&b, "bob"); /* another entity's key is another key */
    order other = keyed(&b, "k1", 2);
    assert_int_equal(bank_ask(bob, &other), ESCQRS_OK);
    assert_false(other.was_repeated);
    escqrs_entity_release(ann);
    escqrs_entity_release(bob);
    bank_close(&b);
}

static void test_a_key_without_events_is_kept(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    for (int i = 0; i < 2; i++) {
        order o = order_make(&b, ORDER_READ, 0);
        o.command.key = escqrs_slice_of("look");
        assert_int_equal(bank_ask(ann, &o), ESCQRS_OK);
        assert_int_equal(o.was_repeated, i == 1);
        bank_deposit(&b, ann, 1);
    }
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_a_refused_key_is_free(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    order refuse = keyed(&b, "k", 1);
    refuse.kind = ORDER_REFUSE;
    assert_int_equal(bank_ask(ann, &refuse), ESCQRS_REJECTED);
    order retry = keyed(&b, "k", 1);
    assert_int_equal(bank_ask(ann, &retry), ESCQRS_OK);
    assert_false(retry.was_repeated);
    assert_int_equal(bank_balance(&b, ann), 1);
    escqrs_entity_release(ann);
    bank_close(&b);
}

static void test_pipelined_keys_run_once(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    enum { COUNT = 60 };
    order orders[COUNT];
    char keys[COUNT / 3][16];
    int64_t repeated = 0;
    for (int i = 0; i < COUNT; i++) {
        if (i % 3 == 0) { /* a key is the command's until it has ended */
            snprintf(keys[i / 3], sizeof keys[i / 3], "key-%d", i / 3);
        }
        orders[i] = i % 3 == 2 ? order_make(&b, ORDER_DEPOSIT, 1) : keyed(&b, keys[i / 3], 1);
        assert_int_equal(bank_send(ann, &orders[i]), ESCQRS_OK);
    }
    bank_drain(&b);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(orders[i].status, ESCQRS_OK);
        repeated += orders[i].was_repeated;
        assert_int_equal(orders[i].was_repeated, i % 3 == 1);
    }
    assert_int_equal(repeated, COUNT / 3);
    assert_int_equal(bank_balance(&b, ann), COUNT - COUNT / 3);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* The key is stored by somebody else after it was looked up. */
static void test_a_key_that_was_used_meanwhile(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    bank_deposit(&b, ann, 1);
    order gate = keyed(&b, "k", 70);
    gate.kind = ORDER_GATE;
    assert_int_equal(bank_send(ann, &gate), ESCQRS_OK);
    bank_await_entered(&b, 1);
    int64_t amount = 70;
    escqrs_error error = {0};
    escqrs_new_event event = {.type = b.moved, .data = {&amount, sizeof amount}};
    escqrs_write write = {
        .stream = escqrs_entity_stream(ann), .expected = 1, .events = &event, .event_count = 1};
    escqrs_commit commit = {.writes = &write,
                            .write_count = 1,
                            .key = gate.command.key,
                            .key_scope = escqrs_entity_stream(ann),
                            .reply = escqrs_slice_of("theirs")};
    void *token = bank_leave(&b);
    assert_int_equal(escqrs_store_commit(b.store, &commit, &error), ESCQRS_OK);
    bank_enter(&b, token);
    bank_open_gate(&b);
    order_wait_outside(&gate);
    assert_int_equal(gate.status, ESCQRS_OK);
    assert_true(gate.was_repeated);
    assert_string_equal(gate.repeated_reply, "theirs");
    assert_int_equal(bank_balance(&b, ann), 71);
    assert_int_equal(bank_deposit(&b, ann, 1), 72);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* ---- who is alone --------------------------------------------------------------------------- */

static void test_a_changed_definition_loads_anew(void **state)
{
    bank b;
    bank_open(&b, plain(state));
    escqrs_entity *ann = bank_account(&b, "ann");
    bank_deposit(&b, ann, 4);
    assert_int_equal(atomic_load(&b.created), 1);
    atomic_store(&b.generation, 1);
    assert_int_equal(bank_balance(&b, ann), 4);
    assert_int_equal(atomic_load(&b.created), 2);
    assert_int_equal(bank_deposit(&b, ann, 4), 8);
    assert_int_equal(atomic_load(&b.created), 2);
    escqrs_entity_release(ann);
    bank_close(&b);
}

/* Many threads, many entities, all kinds of orders; the sum of what was acknowledged is what is
 * stored. */
#define THREADS 4
#define ROUNDS 300
#define ENTITIES 7

typedef struct customer {
    bank *bank;
    unsigned seed;
    bool intrudes; /* writes to the streams behind the entities' back as well, so that appends fail
                    */
    int64_t deposited[ENTITIES];
    int64_t conflicts;
} customer;

static void customer_run(void *context)
{
    customer *c = context;
    bank *b = c->bank;
    for (int i = 0; i < ROUNDS; i++) {
        c->seed = c->seed * 1103515245u + 12345u;
        unsigned which = (c->seed >> 8) % ENTITIES;
        unsigned kind = (c->seed >> 16) % 8;
        char id[32];
        snprintf(id, sizeof id, "%u", which);
        if (b->hosted) {
            host_attach(b, NULL);
        }
        escqrs_entity *entity = NULL;
        escqrs_error error;
        ESC_ASSERT(escqrs_entity_get(b->accounts, escqrs_slice_of(id), &entity, &error) ==
                   ESCQRS_OK);
        if (c->intrudes && kind == 7) {
            bank_intrude(b, entity, 1);
            c->deposited[which]++;
        }
        order o = order_make(b,
                             kind == 0   ? ORDER_SPOIL
                             : kind == 1 ? ORDER_REFUSE
                             : kind == 2 ? ORDER_READ
                                         : ORDER_DEPOSIT,
                             1);
        o.count = kind == 3 ? 20 : 1;
        escqrs_status status = kind % 2 == 0 ? escqrs_entity_send(entity, &o.command, &error)
                                             : escqrs_entity_ask(entity, &o.command, &error);
        ESC_ASSERT(status == ESCQRS_OK);
        order_wait_outside(&o);
        ESC_ASSERT(atomic_load(&o.done_calls) == 1);
        if (o.status == ESCQRS_WRONG_VERSION) {
            ESC_ASSERT(c->intrudes);
            c->conflicts++;
        } else {
            ESC_ASSERT(o.status == (kind < 2 ? ESCQRS_REJECTED : ESCQRS_OK));
            c->deposited[which] += kind > 2 ? o.count : 0;
        }
        escqrs_entity_release(entity);
        if (b->hosted) {
            host_detach(b);
        }
    }
}

static void run_customers(void **state, bool intrude)
{
    bank b;
    bank_options options = plain(state);
    options.live_max = 3;
    options.snapshot_every = 10;
    bank_open(&b, options);
    customer customers[THREADS];
    esc_thread threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        customers[i] = (customer){.bank = &b, .seed = i + 1, .intrudes = intrude};
        assert_int_equal(
            esc_thread_create(&threads[i], "customer", 0, customer_run, &customers[i], NULL),
            ESCQRS_OK);
    }
    void *token = bank_leave(&b);
    for (unsigned i = 0; i < THREADS; i++) {
        esc_thread_join(&threads[i]);
    }
    bank_enter(&b, token);
    for (unsigned which = 0; which < ENTITIES; which++) {
        char id[32];
        snprintf(id, sizeof id, "%u", which);
        int64_t sum = 0;
        for (unsigned i = 0; i < THREADS; i++) {
            sum += customers[i].deposited[which];
        }
        escqrs_entity *entity = bank_account(&b, id);
        assert_int_equal(bank_balance(&b, entity), sum);
        assert_int_equal(bank_stored_version(&b, entity), sum);
        escqrs_entity_release(entity);
    }
    bank_close(&b);
}

static void test_many_threads(void **state)
{
    run_customers(state, false);
}

static void test_many_threads_and_another_writer(void **state)
{
    run_customers(state, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(test_deposit_is_stored_and_answered),
        BOTH(test_events_of_a_command_are_one_commit),
        BOTH(test_replies_come_in_order),
        BOTH(test_refusal_leaves_nothing),
        BOTH(test_spoiled_state_is_loaded_anew),
        BOTH(test_spoil_amid_a_pipeline),
        BOTH(test_failed_append_takes_the_state_back),
        cmocka_unit_test(test_failed_append_fails_what_was_built_on_it),
        BOTH(test_a_broken_emit_fails_the_command),
        BOTH(test_a_refused_commit_takes_the_state_back),
        BOTH(test_sent_commands_leave_when_durable),
        BOTH(test_sent_commands_are_dropped_when_the_append_fails),
        BOTH(test_correlation_is_inherited),
        BOTH(test_metadata_and_ids_are_stored),
        BOTH(test_a_key_runs_once),
        BOTH(test_a_key_without_events_is_kept),
        BOTH(test_a_refused_key_is_free),
        BOTH(test_pipelined_keys_run_once),
        BOTH(test_a_key_that_was_used_meanwhile),
        BOTH(test_a_changed_definition_loads_anew),
        BOTH(test_many_threads),
        BOTH(test_many_threads_and_another_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
