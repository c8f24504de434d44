/* An aggregate for the tests of this folder: accounts whose balance is the sum of their events.
 * Commands are told what to do by their kind, so that a test can make a handler block, fail, ask
 * and send at will.
 *
 * With `hosted` the accounts have a host whose interpreter is a mutex: what must run attached or
 * detached says so, and who holds the mutex where he should not hangs the test. The test's own
 * thread is attached between calls of bank_*. */
#ifndef ESC_TESTS_ENTITY_ACCOUNT_H
#define ESC_TESTS_ENTITY_ACCOUNT_H

#include <support/test.h>

#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <unistd.h>

#include <escqrs/entity.h>

#include "base/assert.h"
#include "base/thread.h"

#define UNUSED __attribute__((unused))

typedef enum order_kind {
    ORDER_DEPOSIT = 0, /* `count` (0: one) events of `amount` */
    ORDER_READ,        /* no event */
    ORDER_REFUSE,      /* REJECTED */
    ORDER_SPOIL,       /* applies and then fails */
    ORDER_SEND,        /* deposits, sends `then` to `other` */
    ORDER_SEND_REFUSE, /* sends `then` to `other`, then REJECTED */
    ORDER_ASK,         /* deposits, asks `other` with `then`, waits */
    ORDER_CHAIN, /* asks the account "count - 1" with a CHAIN of its own until 0, then deposits */
    ORDER_GATE,  /* says that it is there and waits for the gate; then deposits */
    ORDER_GATE_ASK, /* both */
    ORDER_TOO_MANY, /* emits one event more than fits, and ignores the error */
    ORDER_NOTHING,  /* emits an event without a type, then one without data, ignores the errors */
    ORDER_HUGE,     /* emits an event that the store does not take */
    ORDER_DRAIN, /* calls escqrs_system_drain and close: what they answer is in `status_inside` */
    ORDER_SEND_READ, /* sends without an event of its own */
} order_kind;

typedef struct account {
    int64_t balance;
    int64_t count;
    uint64_t order; /* a hash that differs when events come in another order */
} account;

typedef struct bank {
    escqrs_store *store;
    escqrs_system *system;
    escqrs_aggregate *accounts;
    escqrs_host *host;
    escqrs_type *moved;
    escqrs_type *state_type;
    char *folder;
    char path[512];
    bool hosted;
    bool keep; /* reopened: the folder stays */
    esc_mutex interpreter;

    _Atomic int64_t created, destroyed, decoded, discarded, applied, packed, unpacked, handled;
    _Atomic uint64_t generation;
    _Atomic int64_t fail_apply;  /* version; 0: none */
    _Atomic int64_t fail_decode; /* version */
    _Atomic bool fail_pack;
    _Atomic int64_t fail_unpack; /* snapshots at or above that version; 0: none */
    _Atomic uint32_t answered;   /* orders, in their order */
    _Atomic uint32_t gate;       /* 0 shut, 1 open */
    _Atomic uint32_t entered;    /* handlers that came to the gate */
} bank;

typedef struct order {
    escqrs_command command;
    bank *bank;
    order_kind kind;
    int64_t amount;
    int64_t count;
    escqrs_entity *other;
    struct order *then;
    bool forget; /* frees itself */

    /* results */
    _Atomic uint32_t finished; /* futex: 1 when `done` was called */
    _Atomic uint32_t done_calls;
    escqrs_status status;
    escqrs_status status_inside;
    escqrs_error error;
    int64_t balance;
    int64_t version;
    uint32_t rank; /* among all that were answered */
    bool was_repeated;
    char repeated_reply[32];
} order;

/* ---- the host ------------------------------------------------------------------------------- */

static _Thread_local bool attached_here;

static void *host_thread_begin(void *context)
{
    return context;
}

static void host_thread_end(void *context, void *state)
{
    (void)context;
    (void)state;
}

static void host_attach(void *context, void *state)
{
    (void)state;
    bank *b = context;
    ESC_ASSERT(!attached_here);
    esc_mutex_lock(&b->interpreter);
    attached_here = true;
}

static void *host_detach(void *context)
{
    bank *b = context;
    ESC_ASSERT(attached_here);
    attached_here = false;
    esc_mutex_unlock(&b->interpreter);
    return b;
}

static const escqrs_host_ops host_ops = {host_thread_begin, host_thread_end, host_attach,
                                         host_detach, NULL};

static inline void must_be_attached(const bank *b)
{
    ESC_ASSERT(!b->hosted || attached_here);
}

static inline void must_be_detached(const bank *b)
{
    ESC_ASSERT(!b->hosted || !attached_here);
}

static inline void *bank_leave(bank *b)
{
    return b->hosted ? escqrs_host_detach(b->host) : NULL;
}

static inline void bank_enter(bank *b, void *token)
{
    if (b->hosted) {
        escqrs_host_attach(b->host, token);
    }
}

/* ---- waiting -------------------------------------------------------------------------------- */

static inline void order_wait_outside(order *o)
{
    void *token = bank_leave(o->bank);
    while (atomic_load(&o->finished) == 0) {
        esc_futex_wait(&o->finished, 0, ESC_DEADLINE_NEVER);
    }
    bank_enter(o->bank, token);
}

/* In a handler. */
static inline escqrs_status order_wait_inside(order *o, escqrs_entity *target)
{
    escqrs_error error;
    if (atomic_load(&o->finished) != 0) {
        return ESCQRS_OK;
    }
    escqrs_actor *self = escqrs_actor_current();
    escqrs_status status = escqrs_actor_wait_begin(self, escqrs_entity_actor(target), &error);
    if (status != ESCQRS_OK) {
        return status;
    }
    void *token = bank_leave(o->bank);
    escqrs_runtime_block();
    while (atomic_load(&o->finished) == 0) {
        esc_futex_wait(&o->finished, 0, ESC_DEADLINE_NEVER);
    }
    escqrs_runtime_unblock();
    bank_enter(o->bank, token);
    escqrs_actor_wait_end(self);
    return ESCQRS_OK;
}

/* ---- commands ------------------------------------------------------------------------------- */

static inline void order_done(escqrs_command *command, escqrs_status status,
                              const escqrs_error *error)
{
    order *o = (order *)command;
    o->status = status;
    if (status != ESCQRS_OK) {
        ESC_ASSERT(error != NULL);
        o->error = *error;
    }
    atomic_fetch_add(&o->done_calls, 1);
    o->rank = atomic_fetch_add(&o->bank->answered, 1);
    if (o->forget) {
        free(o);
        return;
    }
    atomic_store(&o->finished, 1);
    esc_futex_wake(&o->finished, INT_MAX);
}

static inline escqrs_status order_visit(escqrs_command *command, escqrs_entity *entity, void *state,
                                        int64_t version, escqrs_error *error)
{
    (void)entity;
    (void)error;
    order *o = (order *)command;
    must_be_attached(o->bank);
    o->balance = ((account *)state)->balance;
    o->version = version;
    return ESCQRS_OK;
}

static inline void order_repeated(escqrs_command *command, void *reply, size_t size)
{
    order *o = (order *)command;
    must_be_detached(o->bank);
    o->was_repeated = true;
    snprintf(o->repeated_reply, sizeof o->repeated_reply, "%.*s", (int)size, (const char *)reply);
    escqrs_free(reply);
}

static const escqrs_command_ops order_ops = {order_done, order_visit, order_repeated};

/* On the test's stack, or anywhere; kept until it is answered. */
static inline order order_make(bank *b, order_kind kind, int64_t amount)
{
    order o;
    memset(&o, 0, sizeof o);
    o.command.ops = &order_ops;
    o.bank = b;
    o.kind = kind;
    o.amount = amount;
    return o;
}

static inline order *order_new(bank *b, order_kind kind, int64_t amount)
{
    order *o = malloc(sizeof *o);
    ESC_ASSERT(o != NULL);
    *o = order_make(b, kind, amount);
    return o;
}

/* ---- the aggregate -------------------------------------------------------------------------- */

static inline void account_apply(account *a, int64_t amount)
{
    a->balance += amount;
    a->count++;
    a->order = a->order * UINT64_C(6364136223846793005) + (uint64_t)amount + 1;
}

static inline escqrs_status ops_create(void *context, escqrs_entity *entity, void **state,
                                       escqrs_error *error)
{
    bank *b = context;
    must_be_attached(b);
    (void)entity;
    *state = escqrs_alloc_zero(sizeof(account));
    if (*state == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for an account");
    }
    atomic_fetch_add(&b->created, 1);
    return ESCQRS_OK;
}

static inline void ops_destroy(void *context, void *state)
{
    bank *b = context;
    must_be_attached(b);
    atomic_fetch_add(&b->destroyed, 1);
    escqrs_free(state);
}

static inline escqrs_status ops_decode(void *context, const escqrs_recorded *recorded,
                                       void **decoded, escqrs_error *error)
{
    bank *b = context;
    must_be_detached(b);
    if (recorded->version == atomic_load(&b->fail_decode)) {
        return escqrs_error_set(error, ESCQRS_CORRUPT, "it is broken");
    }
    int64_t *amount = escqrs_alloc(sizeof *amount);
    if (amount == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for an event");
    }
    ESC_ASSERT(recorded->data.size == sizeof *amount);
    memcpy(amount, recorded->data.data, sizeof *amount);
    *decoded = amount;
    atomic_fetch_add(&b->decoded, 1);
    return ESCQRS_OK;
}

static inline void ops_discard(void *context, void *decoded)
{
    bank *b = context;
    must_be_attached(b);
    atomic_fetch_add(&b->discarded, 1);
    escqrs_free(decoded);
}

static inline escqrs_status ops_apply(void *context, void *state, const escqrs_recorded *recorded,
                                      void *decoded, escqrs_error *error)
{
    bank *b = context;
    must_be_attached(b);
    account *a = state;
    int64_t amount = *(int64_t *)decoded;
    escqrs_free(decoded);
    atomic_fetch_add(&b->applied, 1);
    if (recorded->version == atomic_load(&b->fail_apply)) {
        return escqrs_error_set(error, ESCQRS_REJECTED, "no such account any more");
    }
    ESC_ASSERT(recorded->version == a->count + 1);
    account_apply(a, amount);
    return ESCQRS_OK;
}

static inline escqrs_status move(bank *b, account *a, escqrs_turn *turn, int64_t amount,
                                 escqrs_error *error)
{
    int64_t before = escqrs_turn_version(turn);
    escqrs_status status =
        escqrs_turn_emit(turn, b->moved, (escqrs_slice){&amount, sizeof amount}, error);
    if (status == ESCQRS_OK) {
        ESC_ASSERT(before == a->count && escqrs_turn_version(turn) == before + 1);
        account_apply(a, amount);
    }
    return status;
}

/* Failed after some events: the state is spoiled. */
static inline escqrs_status moves(bank *b, account *a, escqrs_turn *turn, const order *o,
                                  escqrs_error *error)
{
    for (int64_t i = 0; i < (o->count > 0 ? o->count : 1); i++) {
        escqrs_status status = move(b, a, turn, o->amount, error);
        if (status != ESCQRS_OK) {
            escqrs_turn_spoil(turn);
            return status;
        }
    }
    return ESCQRS_OK;
}

static inline escqrs_status chain_on(bank *b, const order *o, escqrs_error *error)
{
    char id[32];
    snprintf(id, sizeof id, "%" PRId64, o->count - 1);
    escqrs_entity *next = NULL;
    escqrs_status status = escqrs_entity_get(b->accounts, escqrs_slice_of(id), &next, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    order *link = order_new(b, ORDER_CHAIN, o->amount);
    link->count = o->count - 1;
    status = escqrs_entity_ask(next, &link->command, error);
    if (status == ESCQRS_OK) {
        status = order_wait_inside(link, next);
        ESC_ASSERT(status == ESCQRS_OK);
        status = link->status;
        *error = link->error;
    }
    free(link);
    escqrs_entity_release(next);
    return status;
}

static inline escqrs_status ask_on(order *o, escqrs_error *error)
{
    o->status_inside = escqrs_entity_ask(o->other, &o->then->command, error);
    if (o->status_inside == ESCQRS_OK) {
        o->status_inside = order_wait_inside(o->then, o->other);
        if (o->status_inside == ESCQRS_OK) {
            o->status_inside = o->then->status;
        }
        *error = o->then->error;
    }
    return o->status_inside;
}

static inline void pass_gate(bank *b)
{
    void *token = bank_leave(b);
    atomic_fetch_add(&b->entered, 1);
    esc_futex_wake(&b->entered, INT_MAX);
    while (atomic_load(&b->gate) == 0) {
        esc_futex_wait(&b->gate, 0, ESC_DEADLINE_NEVER);
    }
    bank_enter(b, token);
}

static inline escqrs_status act(bank *b, account *a, escqrs_turn *turn, order *o,
                                escqrs_error *error)
{
    escqrs_status status;
    switch (o->kind) {
    case ORDER_DEPOSIT:
        return moves(b, a, turn, o, error);
    case ORDER_READ:
        return ESCQRS_OK;
    case ORDER_REFUSE:
        return escqrs_error_set(error, ESCQRS_REJECTED, "not today");
    case ORDER_SPOIL:
        status = moves(b, a, turn, o, error);
        escqrs_turn_spoil(turn);
        return status != ESCQRS_OK ? status
                                   : escqrs_error_set(error, ESCQRS_REJECTED, "after all not");
    case ORDER_SEND:
        status = escqrs_turn_send(turn, o->other, &o->then->command, error);
        return status != ESCQRS_OK ? status : moves(b, a, turn, o, error);
    case ORDER_SEND_READ:
        return escqrs_turn_send(turn, o->other, &o->then->command, error);
    case ORDER_SEND_REFUSE:
        status = escqrs_turn_send(turn, o->other, &o->then->command, error);
        return status != ESCQRS_OK ? status : escqrs_error_set(error, ESCQRS_REJECTED, "not today");
    case ORDER_ASK:
        status = ask_on(o, error);
        return status != ESCQRS_OK ? status : moves(b, a, turn, o, error);
    case ORDER_CHAIN:
        status = o->count > 0 ? chain_on(b, o, error) : ESCQRS_OK;
        return status != ESCQRS_OK ? status : move(b, a, turn, o->amount, error);
    case ORDER_GATE:
        pass_gate(b);
        return moves(b, a, turn, o, error);
    case ORDER_GATE_ASK:
        pass_gate(b);
        status = ask_on(o, error);
        return status != ESCQRS_OK ? status : moves(b, a, turn, o, error);
    case ORDER_TOO_MANY:
        for (int64_t i = 0; i <= ESCQRS_COMMIT_EVENTS_MAX; i++) {
            (void)!escqrs_turn_emit(turn, b->moved, (escqrs_slice){&i, sizeof i}, error);
        }
        return ESCQRS_OK;
    case ORDER_NOTHING:
        (void)!escqrs_turn_emit(turn, NULL, escqrs_slice_of("x"), error);
        (void)!escqrs_turn_emit(turn, b->moved, (escqrs_slice){NULL, 8}, error);
        return ESCQRS_OK;
    case ORDER_HUGE: {
        size_t size = (size_t)17 << 20;
        void *data = calloc(1, size);
        ESC_ASSERT(data != NULL);
        status = escqrs_turn_emit(turn, b->moved, (escqrs_slice){data, size}, error);
        free(data);
        account_apply(a, 0);
        return status;
    }
    case ORDER_DRAIN:
        o->status_inside = escqrs_system_drain(b->system, ESC_DEADLINE_NEVER, error);
        ESC_ASSERT(escqrs_system_close(b->system, ESC_DEADLINE_NEVER, error) == ESCQRS_DEADLOCK);
        return ESCQRS_OK;
    }
    return ESCQRS_INVALID;
}

static inline escqrs_status ops_handle(void *context, void *state, escqrs_turn *turn,
                                       escqrs_command *command, escqrs_error *error)
{
    bank *b = context;
    account *a = state;
    order *o = (order *)command;
    must_be_attached(b);
    ESC_ASSERT(escqrs_turn_current() == turn && escqrs_turn_command(turn) == command);
    atomic_fetch_add(&b->handled, 1);
    escqrs_status status = act(b, a, turn, o, error);
    ESC_ASSERT(escqrs_turn_current() == turn);
    o->balance = a->balance;
    o->version = escqrs_turn_version(turn);
    if (status == ESCQRS_OK && command->key.size > 0) {
        char reply[32];
        int size = snprintf(reply, sizeof reply, "balance %" PRId64, a->balance);
        status = escqrs_turn_reply(turn, (escqrs_slice){reply, (size_t)size}, error);
        if (status != ESCQRS_OK) {
            escqrs_turn_spoil(turn);
        }
    }
    return status;
}

static inline escqrs_status ops_pack(void *context, void *state, escqrs_type **type, void **data,
                                     size_t *size, escqrs_error *error)
{
    bank *b = context;
    must_be_attached(b);
    if (atomic_load(&b->fail_pack)) {
        return escqrs_error_set(error, ESCQRS_INVALID, "too much to be written down");
    }
    *data = escqrs_alloc(sizeof(account));
    if (*data == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a snapshot");
    }
    memcpy(*data, state, sizeof(account));
    *size = sizeof(account);
    *type = b->state_type;
    atomic_fetch_add(&b->packed, 1);
    return ESCQRS_OK;
}

static inline escqrs_status ops_unpack(void *context, void *state, const escqrs_snapshot *snapshot,
                                       escqrs_error *error)
{
    bank *b = context;
    must_be_attached(b);
    int64_t failing = atomic_load(&b->fail_unpack);
    if (failing > 0 && snapshot->version >= failing) {
        return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH, "another kind of account");
    }
    ESC_ASSERT(snapshot->size == sizeof(account));
    memcpy(state, snapshot->data, sizeof(account));
    ESC_ASSERT(((account *)state)->count == snapshot->version);
    atomic_fetch_add(&b->unpacked, 1);
    return ESCQRS_OK;
}

static inline uint64_t ops_generation(void *context)
{
    bank *b = context;
    must_be_attached(b);
    return atomic_load(&b->generation);
}

static const escqrs_aggregate_ops account_ops = {
    ops_create, ops_destroy, ops_decode, ops_discard,    ops_apply,
    ops_handle, ops_pack,    ops_unpack, ops_generation,
};

/* ---- the bank ------------------------------------------------------------------------------- */

typedef struct bank_options {
    bool hosted;
    bool memory; /* no file; the default has one */
    bool manual;
    int64_t snapshot_every;
    int64_t snapshot_replay_ns;
    int64_t snapshot_keep;
    bool snapshot_on_passivation;
    escqrs_clock clock;
    size_t in_flight_max;
    size_t live_max;
    escqrs_random random;
    escqrs_log log;
    const char *sqlite_vfs;
    /* instead of a file: opens the store, with that context */
    escqrs_status (*open)(void *context, const escqrs_store_options *options, escqrs_store **store,
                          escqrs_error *error);
    void *open_context;
} bank_options;

static inline void log_nothing(void *context, escqrs_log_level level, const char *text)
{
    (void)context;
    (void)level;
    (void)text;
}

static inline escqrs_status bank_start(bank *b, const bank_options *options, escqrs_error *error)
{
    escqrs_log log = options->log.function != NULL ? options->log : (escqrs_log){log_nothing, NULL};
    escqrs_store_options store = {.manual = options->manual,
                                  .random = options->random,
                                  .log = log,
                                  .sqlite_vfs = options->sqlite_vfs};
    escqrs_system_options system = {.in_flight_max = options->in_flight_max,
                                    .live_max = options->live_max,
                                    .manual = options->manual,
                                    .clock = options->clock,
                                    .random = options->random,
                                    .log = log};
    escqrs_snapshot_policy snapshots = {.every = options->snapshot_every,
                                        .replay_ns = options->snapshot_replay_ns,
                                        .keep = options->snapshot_keep,
                                        .on_passivation = options->snapshot_on_passivation};
    escqrs_status status = options->open != NULL
                               ? options->open(options->open_context, &store, &b->store, error)
                               : escqrs_store_open(b->path, &store, &b->store, error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_type(b->store, escqrs_slice_of("Moved"), (escqrs_slice){0}, &b->moved,
                                   error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_store_type(b->store, escqrs_slice_of("Account"), (escqrs_slice){0},
                                   &b->state_type, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_system_create(b->store, &system, &b->system, error);
    }
    if (status == ESCQRS_OK && options->hosted) {
        status =
            escqrs_host_create(escqrs_system_runtime(b->system), &host_ops, b, &b->host, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_aggregate_add(b->system, escqrs_slice_of("Account"), &account_ops, b,
                                      b->host, &snapshots, &b->accounts, error);
    }
    return status;
}

static inline void bank_reset(bank *b, const bank_options *options)
{
    memset(b, 0, sizeof *b);
    b->hosted = options->hosted;
    esc_mutex_init(&b->interpreter);
    if (options->memory) {
        snprintf(b->path, sizeof b->path, ":memory:");
    } else {
        b->folder = test_folder_new();
        snprintf(b->path, sizeof b->path, "%s/bank.db", b->folder);
    }
    if (b->hosted) {
        esc_mutex_lock(&b->interpreter);
        attached_here = true;
    }
}

static inline void bank_open(bank *b, bank_options options)
{
    escqrs_error error = {0};
    bank_reset(b, &options);
    escqrs_status status = bank_start(b, &options, &error);
    if (status != ESCQRS_OK) {
        fail_msg("bank_open: %s", error.message);
    }
}

/* Close system and store; what remains is the folder. */
static inline escqrs_status bank_stop_by(bank *b, int64_t deadline_ns)
{
    escqrs_error error = {0};
    void *token = bank_leave(b);
    escqrs_status status = escqrs_system_close(b->system, deadline_ns, &error);
    if (status == ESCQRS_OK) {
        escqrs_store_close(b->store);
    }
    bank_enter(b, token);
    if (status == ESCQRS_OK) {
        escqrs_system_destroy(b->system);
        escqrs_store_destroy(b->store);
        b->system = NULL;
        b->store = NULL;
        assert_int_equal(atomic_load(&b->created), atomic_load(&b->destroyed));
        assert_int_equal(atomic_load(&b->decoded),
                         atomic_load(&b->applied) + atomic_load(&b->discarded));
    }
    return status;
}

static inline void bank_forget(bank *b)
{
    if (b->hosted) {
        attached_here = false;
        esc_mutex_unlock(&b->interpreter);
    }
    esc_mutex_fini(&b->interpreter);
    if (b->folder != NULL) {
        test_folder_remove(b->folder);
    }
}

static inline void bank_close(bank *b)
{
    assert_int_equal(bank_stop_by(b, ESC_DEADLINE_NEVER), ESCQRS_OK);
    bank_forget(b);
}

/* Close and open again with other options. */
static inline void bank_reopen(bank *b, bank_options options)
{
    escqrs_error error = {0};
    assert_int_equal(bank_stop_by(b, ESC_DEADLINE_NEVER), ESCQRS_OK);
    b->host = NULL;
    options.hosted = b->hosted;
    escqrs_status status = bank_start(b, &options, &error);
    if (status != ESCQRS_OK) {
        fail_msg("bank_reopen: %s", error.message);
    }
}

static inline escqrs_entity *bank_account(bank *b, const char *id)
{
    escqrs_entity *entity = NULL;
    escqrs_error error;
    assert_int_equal(escqrs_entity_get(b->accounts, escqrs_slice_of(id), &entity, &error),
                     ESCQRS_OK);
    return entity;
}

static inline escqrs_status bank_send(escqrs_entity *entity, order *o)
{
    escqrs_error error;
    return escqrs_entity_send(entity, &o->command, &error);
}

/* Ask and wait; the order's status, or that of the refusal. */
static inline escqrs_status bank_ask(escqrs_entity *entity, order *o)
{
    escqrs_status status = escqrs_entity_ask(entity, &o->command, &o->error);
    if (status == ESCQRS_OK) {
        order_wait_outside(o);
        assert_int_equal(atomic_load(&o->done_calls), 1);
        status = o->status;
    }
    return status;
}

static inline int64_t bank_deposit(bank *b, escqrs_entity *entity, int64_t amount)
{
    order o = order_make(b, ORDER_DEPOSIT, amount);
    escqrs_status status = bank_ask(entity, &o);
    if (status != ESCQRS_OK) {
        fail_msg("deposit: %s", o.error.message);
    }
    return o.balance;
}

/* The state; fails the test where it cannot be had. */
static inline order bank_look(bank *b, escqrs_entity *entity)
{
    order o = order_make(b, ORDER_READ, 0);
    o.command.special = true;
    escqrs_status status = bank_ask(entity, &o);
    if (status != ESCQRS_OK) {
        fail_msg("look: %s", o.error.message);
    }
    return o;
}

static inline int64_t bank_balance(bank *b, escqrs_entity *entity)
{
    return bank_look(b, entity).balance;
}

static inline void bank_drain(bank *b)
{
    escqrs_error error;
    void *token = bank_leave(b);
    escqrs_status status = escqrs_system_drain(b->system, ESC_DEADLINE_NEVER, &error);
    bank_enter(b, token);
    assert_int_equal(status, ESCQRS_OK);
}

/* Wait until so many handlers stand at the gate. */
static inline void bank_await_entered(bank *b, uint32_t count)
{
    void *token = bank_leave(b);
    uint32_t entered;
    while ((entered = atomic_load(&b->entered)) < count) {
        esc_futex_wait(&b->entered, entered, ESC_DEADLINE_NEVER);
    }
    bank_enter(b, token);
}

static inline void bank_open_gate(bank *b)
{
    atomic_store(&b->gate, 1);
    esc_futex_wake(&b->gate, INT_MAX);
}

/* Another writer: one event of `amount` at the end of the stream. */
static inline void bank_intrude(bank *b, escqrs_entity *entity, int64_t amount)
{
    escqrs_error error = {0};
    escqrs_new_event event = {.type = b->moved, .data = {&amount, sizeof amount}};
    escqrs_write write = {.stream = escqrs_entity_stream(entity),
                          .expected = ESCQRS_EXPECT_ANY,
                          .events = &event,
                          .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    void *token = bank_leave(b);
    escqrs_status status = escqrs_store_commit(b->store, &commit, &error);
    bank_enter(b, token);
    if (status != ESCQRS_OK) {
        fail_msg("intrude: %s", error.message);
    }
}

static inline int64_t bank_stored_version(bank *b, escqrs_entity *entity)
{
    int64_t version = -1;
    escqrs_error error;
    assert_int_equal(escqrs_store_version(b->store, escqrs_entity_stream(entity), &version, &error),
                     ESCQRS_OK);
    return version;
}

/* A test that runs twice: without a host, and with one. */
#define BOTH(test)                                                                                 \
    {.name = #test, .test_func = (test)},                                                          \
    {                                                                                              \
        .name = #test " (hosted)", .test_func = (test), .initial_state = (void *)1                 \
    }

#endif
