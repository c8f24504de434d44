/* Persistent actors in C: what one message persists and sends is durable together or not at all. */
#include "support/test.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <escqrs/persistent.h>

/* ---- a counter -------------------------------------------------------------------------------- */

typedef enum order_kind {
    ADD_SILENTLY, /* persist `number` */
    ADD,          /* persist `number`, answer the sum and the version */
    ADD_THRICE,   /* the same, three events */
    ADD_AND_FAIL, /* persist, answer, and fail */
    ADD_BAD,      /* an event that receive refuses, and goes on */
    GET,
    DELETE_EVENTS,
    DELETE_SNAPSHOTS,
    ASK_ECHO, /* persist in the continuation of a question to the echo */
    BECOME,   /* and persist by another behaviour from then on */
    FAIL,     /* having done nothing */
} order_kind;

typedef struct order {
    escqrs_envelope envelope;
    order_kind what;
    int64_t number;
    int64_t version;
    escqrs_status status;
} order;

static const escqrs_message_type ORDER = {.name = "Order"};

static escqrs_envelope *order_new(order_kind what, int64_t number)
{
    order *made = escqrs_alloc_zero(sizeof *made);
    assert_non_null(made);
    made->envelope.type = &ORDER;
    made->what = what;
    made->number = number;
    return &made->envelope;
}

typedef struct world {
    escqrs_store *store;
    escqrs_type *added;
    escqrs_type *sum;
    escqrs_actor_system *system;
    escqrs_props *props;
    escqrs_ref *echo;
    _Atomic int failures;
    _Atomic int failures_restarted;
    escqrs_subscription *subscription;
    _Atomic int snapshots_asked;
    _Atomic int snapshots_offered;
    _Atomic int events_seen;
    _Atomic int stopped;
    bool refuse_snapshots;
    bool fail_requests;
    bool refuse_replay;
    bool persist_at_start;
    int begins_refused;   /* how many continuations of ReplayComplete persist in vain; likewise */
    int begins;           /* the actor's thread counts */
    int starts_refused;   /* how many ReplayComplete persist and fail; the actor's thread counts */
    int restarts_refused; /* how many Restarting persist in vain; the actor's thread counts down */
    _Atomic int restarts;
} world;

typedef struct counter {
    world *world;
    int64_t sum;
} counter;

static escqrs_turn_end counter_create(escqrs_context *context, void *user_data, void **state)
{
    counter *self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        return escqrs_context_fail(context, ESCQRS_NO_MEMORY, NULL, "no memory for a counter");
    }
    self->world = user_data;
    *state = self;
    return ESCQRS_TURN_NEXT;
}

static void counter_destroy(void *state, void *user_data)
{
    (void)user_data;
    escqrs_free(state);
}

static escqrs_status add(escqrs_context *context, counter *self, int64_t number)
{
    escqrs_error error = {0};
    escqrs_status status = escqrs_context_persist(context, self->world->added,
                                                  (escqrs_slice){&number, sizeof number}, &error);
    if (status != ESCQRS_OK) {
        escqrs_context_fail(context, status, NULL, "%s", error.message);
    }
    return status;
}

static escqrs_turn_end answer(escqrs_context *context, counter *self, escqrs_status status)
{
    order *made = (order *)order_new(GET, self->sum);
    made->version = escqrs_context_version(context);
    made->status = status;
    assert_int_equal(escqrs_context_respond(context, &made->envelope), ESCQRS_OK);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end added_then(escqrs_context *context, void *state, void *data,
                                  escqrs_envelope *got, const escqrs_failure *failure)
{
    (void)data;
    assert_null(failure);
    escqrs_status status = add(context, state, ((order *)got)->number);
    return status == ESCQRS_OK ? answer(context, state, status) : ESCQRS_TURN_FAILED;
}

static void write_elsewhere(world *self, const char *name, int64_t number);

/* The continuation of what is asked at ReplayComplete. */
static escqrs_turn_end begun_then(escqrs_context *context, void *state, void *data,
                                  escqrs_envelope *got, const escqrs_failure *failure)
{
    (void)data;
    (void)got;
    assert_null(failure);
    counter *self = state;
    if (self->world->begins++ < self->world->begins_refused) {
        write_elsewhere(self->world, "a", 10);
    }
    return add(context, self, 1) == ESCQRS_OK ? ESCQRS_TURN_NEXT : ESCQRS_TURN_FAILED;
}

static escqrs_turn_end twice(escqrs_context *context, void *state, escqrs_envelope *message);

static escqrs_turn_end counter_order(escqrs_context *context, counter *self, const order *given)
{
    switch (given->what) {
    case ADD_SILENTLY:
        return add(context, self, given->number) == ESCQRS_OK ? ESCQRS_TURN_NEXT
                                                              : ESCQRS_TURN_FAILED;
    case ADD_THRICE:
        if (add(context, self, given->number) != ESCQRS_OK ||
            add(context, self, given->number) != ESCQRS_OK) {
            return ESCQRS_TURN_FAILED;
        }
        /* fall through */
    case ADD:
        return add(context, self, given->number) == ESCQRS_OK ? answer(context, self, ESCQRS_OK)
                                                              : ESCQRS_TURN_FAILED;
    case ADD_AND_FAIL:
        assert_int_equal(add(context, self, given->number), ESCQRS_OK);
        answer(context, self, ESCQRS_OK);
        return escqrs_context_fail(context, ESCQRS_REJECTED, NULL, "on purpose");
    case ADD_BAD:
        assert_int_equal(add(context, self, -1), ESCQRS_UNKNOWN_TYPE);
        return answer(context, self, ESCQRS_OK);
    case GET:
        return answer(context, self, ESCQRS_OK);
    case DELETE_EVENTS:
        return answer(context, self, escqrs_context_delete_events(context, given->number, NULL));
    case DELETE_SNAPSHOTS:
        return answer(context, self, escqrs_context_delete_snapshots(context, given->number, NULL));
    case ASK_ECHO:
        assert_int_equal(escqrs_context_ask(context, self->world->echo,
                                            order_new(ADD, given->number), 0, added_then, NULL,
                                            NULL),
                         ESCQRS_OK);
        return ESCQRS_TURN_NEXT;
    case BECOME:
        assert_int_equal(escqrs_context_become(context, twice, NULL), ESCQRS_OK);
        return answer(context, self, ESCQRS_OK);
    case FAIL:
        return escqrs_context_fail(context, ESCQRS_REJECTED, NULL, "on purpose");
    }
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end counter_event(escqrs_context *context, counter *self,
                                     const escqrs_persisted_message *event)
{
    int64_t number = 0;
    assert_int_equal(event->data.size, sizeof number);
    memcpy(&number, event->data.data, sizeof number);
    assert_int_equal(event->version, escqrs_context_version(context));
    assert_int_equal(event->recorded != NULL, escqrs_context_is_recovering(context));
    /* what replay would refuse is refused at once */
    assert_int_equal(escqrs_context_persist(context, event->type, event->data, NULL),
                     ESCQRS_INVALID);
    atomic_fetch_add(&self->world->events_seen, 1);
    if (number < 0 || (self->world->refuse_replay && event->recorded != NULL)) {
        return escqrs_context_fail(context, ESCQRS_UNKNOWN_TYPE, NULL, "a number below 0");
    }
    self->sum += number;
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end counter_offer(escqrs_context *context, counter *self,
                                     const escqrs_offer_snapshot_message *offered)
{
    atomic_fetch_add(&self->world->snapshots_offered, 1);
    if (self->world->refuse_snapshots) {
        return escqrs_context_fail(context, ESCQRS_CORRUPT, NULL, "not that one");
    }
    assert_int_equal(offered->data.size, sizeof self->sum);
    memcpy(&self->sum, offered->data.data, sizeof self->sum);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end counter_snapshot(escqrs_context *context, counter *self)
{
    atomic_fetch_add(&self->world->snapshots_asked, 1);
    if (self->world->fail_requests) {
        return escqrs_context_fail(context, ESCQRS_REJECTED, NULL, "no snapshot today");
    }
    int64_t one = 1;
    assert_int_equal(
        escqrs_context_persist(context, self->world->added, (escqrs_slice){&one, sizeof one}, NULL),
        ESCQRS_INVALID);
    assert_int_equal(escqrs_context_persist_snapshot(context, self->world->sum,
                                                     (escqrs_slice){&self->sum, sizeof self->sum},
                                                     NULL),
                     ESCQRS_OK);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end counter_restarting(escqrs_context *context, counter *self)
{
    atomic_fetch_add(&self->world->restarts, 1);
    if (self->world->restarts_refused == 0) {
        return ESCQRS_TURN_NEXT;
    }
    self->world->restarts_refused--;
    write_elsewhere(self->world, "a", 10);
    return add(context, self, 1) == ESCQRS_OK ? ESCQRS_TURN_NEXT : ESCQRS_TURN_FAILED;
}

static escqrs_turn_end counter_receive(escqrs_context *context, void *state,
                                       escqrs_envelope *message)
{
    counter *self = state;
    if (message->type == &ORDER) {
        assert_false(escqrs_context_is_recovering(context));
        return counter_order(context, self, (const order *)message);
    }
    if (message->type == &escqrs_persisted) {
        return counter_event(context, self, (const escqrs_persisted_message *)message);
    }
    if (message->type == &escqrs_offer_snapshot) {
        return counter_offer(context, self, (const escqrs_offer_snapshot_message *)message);
    }
    if (message->type == &escqrs_request_snapshot) {
        return counter_snapshot(context, self);
    }
    if (message->type == &escqrs_started || message->type == &escqrs_replay) {
        int64_t one = 1; /* nobody knows yet what is stored */
        assert_int_equal(escqrs_context_persist(context, self->world->added,
                                                (escqrs_slice){&one, sizeof one}, NULL),
                         ESCQRS_INVALID);
    }
    if (message->type == &escqrs_replay_complete && self->world->starts_refused > 0) {
        self->world->starts_refused--;
        assert_int_equal(add(context, self, 1), ESCQRS_OK);
        return escqrs_context_fail(context, ESCQRS_REJECTED, NULL, "on purpose");
    }
    if (message->type == &escqrs_replay_complete && self->world->begins_refused > 0) {
        assert_int_equal(escqrs_context_ask(context, self->world->echo, order_new(ADD, 1), 0,
                                            begun_then, NULL, NULL),
                         ESCQRS_OK);
    }
    if (message->type == &escqrs_replay_complete && self->world->persist_at_start) {
        return add(context, self, 1) == ESCQRS_OK ? ESCQRS_TURN_NEXT : ESCQRS_TURN_FAILED;
    }
    if (message->type == &escqrs_stopped) {
        atomic_fetch_add(&self->world->stopped, 1);
    }
    if (message->type == &escqrs_restarting) {
        return counter_restarting(context, self);
    }
    return ESCQRS_TURN_NEXT;
}

/* A behaviour: each order counts twice. */
static escqrs_turn_end twice(escqrs_context *context, void *state, escqrs_envelope *message)
{
    if (message->type != &ORDER) {
        return counter_receive(context, state, message);
    }
    int64_t number = ((const order *)message)->number;
    if (add(context, state, number) != ESCQRS_OK || add(context, state, number) != ESCQRS_OK) {
        return ESCQRS_TURN_FAILED;
    }
    return answer(context, state, ESCQRS_OK);
}

static const escqrs_actor_class COUNTER = {.name = "Counter",
                                           .create = counter_create,
                                           .receive = counter_receive,
                                           .destroy = counter_destroy};

static escqrs_turn_end echo_receive(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)state;
    if (message->type == &ORDER) {
        int64_t number = ((const order *)message)->number;
        escqrs_context_respond(context, order_new(ADD, number));
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class ECHO_CLASS = {.name = "Echo", .receive = echo_receive};

/* ---- the world -------------------------------------------------------------------------------- */

static void quiet(void *context, escqrs_log_level level, const char *text)
{
    (void)context;
    (void)level;
    (void)text;
}

static void failed(void *data, const escqrs_envelope *event)
{
    world *self = data;
    const escqrs_failure_message *said = (const escqrs_failure_message *)event;
    atomic_fetch_add(&self->failures_restarted, said->directive == ESCQRS_DIRECTIVE_RESTART);
    atomic_fetch_add(&self->failures, 1);
}

static escqrs_directive resume_always(void *context, escqrs_ref *child,
                                      const escqrs_failure *failure)
{
    (void)context;
    (void)child;
    (void)failure;
    return ESCQRS_DIRECTIVE_RESUME;
}

static const escqrs_log QUIET = {.function = quiet};

static void world_actors(world *self, int64_t snapshot_every, bool resume, bool manual)
{
    static const escqrs_supervisor resuming = {.decide = resume_always};
    escqrs_actor_system_options options = {
        .log = QUIET, .own = {.manual = manual}, .supervisor = resume ? &resuming : NULL};
    assert_int_equal(escqrs_actor_system_create(&options, &self->system, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_subscribe(self->system, &escqrs_failure_event, failed, self, NULL,
                                      &self->subscription, NULL),
                     ESCQRS_OK);
    escqrs_props *echo = NULL;
    escqrs_props_options echoing = {.actor_class = &ECHO_CLASS};
    assert_int_equal(escqrs_props_create(&echoing, &echo, NULL), ESCQRS_OK);
    assert_int_equal(
        escqrs_actor_system_spawn(self->system, echo, escqrs_slice_of("echo"), &self->echo, NULL),
        ESCQRS_OK);
    escqrs_props_release(echo);
    escqrs_props_options counting = {.actor_class = &COUNTER, .user_data = self};
    escqrs_persistence persistence = {.store = self->store, .snapshot_every = snapshot_every};
    assert_int_equal(escqrs_persistent_props(&counting, &persistence, &self->props, NULL),
                     ESCQRS_OK);
}

static void world_actors_end(world *self)
{
    assert_int_equal(escqrs_actor_system_stop(self->system, INT64_MAX, NULL), ESCQRS_OK);
    escqrs_unsubscribe(self->subscription);
    escqrs_props_release(self->props);
    escqrs_ref_release(self->echo);
    escqrs_actor_system_destroy(self->system);
}

static void world_open(world *self, int64_t snapshot_every, bool resume)
{
    escqrs_store_options options = {.log = QUIET};
    assert_int_equal(escqrs_store_open(":memory:", &options, &self->store, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_type(self->store, escqrs_slice_of("Added"), (escqrs_slice){0},
                                       &self->added, NULL),
                     ESCQRS_OK);
    assert_int_equal(
        escqrs_store_type(self->store, escqrs_slice_of("Sum"), (escqrs_slice){0}, &self->sum, NULL),
        ESCQRS_OK);
    world_actors(self, snapshot_every, resume, false);
}

static void world_again(world *self, int64_t snapshot_every)
{
    world_actors_end(self);
    world_actors(self, snapshot_every, false, false);
}

static void world_close(world *self)
{
    world_actors_end(self);
    escqrs_store_destroy(self->store);
}

static escqrs_ref *counter_of(world *self, const char *name)
{
    escqrs_ref *ref = NULL;
    escqrs_status status =
        escqrs_actor_system_spawn(self->system, self->props, escqrs_slice_of(name), &ref, NULL);
    assert_true(status == ESCQRS_OK || status == ESCQRS_NAME_EXISTS);
    return ref;
}

/* What the counter of that name answers; the status of the question. */
static escqrs_status ask(world *self, const char *name, order_kind what, int64_t number, order *got)
{
    escqrs_ref *ref = counter_of(self, name);
    escqrs_envelope *answered = NULL;
    escqrs_error error = {0};
    escqrs_status status = escqrs_ask(ref, order_new(what, number), INT64_MAX, &answered, &error);
    escqrs_ref_release(ref);
    if (status == ESCQRS_OK && got != NULL) {
        *got = *(const order *)answered;
    }
    escqrs_envelope_destroy(answered);
    return status;
}

static void assert_counter(world *self, const char *name, int64_t sum, int64_t version)
{
    order got = {0};
    assert_int_equal(ask(self, name, GET, 0, &got), ESCQRS_OK);
    assert_int_equal(got.number, sum);
    assert_int_equal(got.version, version);
}

static int64_t stored_version(world *self, const char *name)
{
    int64_t version = -1;
    assert_int_equal(escqrs_store_version(self->store, escqrs_slice_of(name), &version, NULL),
                     ESCQRS_OK);
    return version;
}

/* Another writer of the stream. */
static void write_elsewhere(world *self, const char *name, int64_t number)
{
    escqrs_new_event event = {.type = self->added, .data = {&number, sizeof number}};
    escqrs_write write = {.stream = escqrs_slice_of(name),
                          .expected = ESCQRS_EXPECT_ANY,
                          .events = &event,
                          .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    assert_int_equal(escqrs_store_commit(self->store, &commit, NULL), ESCQRS_OK);
}

/* ---- tests ------------------------------------------------------------------------------------ */

static void test_events_survive_their_actor(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    order got = {0};
    assert_int_equal(ask(&w, "a", ADD, 5, &got), ESCQRS_OK);
    assert_int_equal(got.number, 5);
    assert_int_equal(got.version, 1);
    assert_int_equal(stored_version(&w, "a"), 1); /* durable before the answer came */
    assert_int_equal(ask(&w, "a", ADD_THRICE, 2, &got), ESCQRS_OK);
    assert_int_equal(got.version, 4);
    assert_int_equal(ask(&w, "b", ADD, 1, &got), ESCQRS_OK);
    world_again(&w, 0);
    assert_counter(&w, "a", 11, 4);
    assert_counter(&w, "b", 1, 1);
    assert_int_equal(atomic_load(&w.snapshots_asked), 0);
    assert_int_equal(atomic_load(&w.failures), 0);
    world_close(&w);
}

static void test_snapshots_at_every_interval(void **state)
{
    (void)state;
    for (int64_t every = 1; every <= 5; every++) {
        world w = {0};
        world_open(&w, every, false);
        for (int64_t i = 1; i <= 10; i++) {
            order got = {0};
            assert_int_equal(ask(&w, "a", ADD, i, &got), ESCQRS_OK);
            assert_int_equal(got.version, i); /* the asker of this very message */
        }
        assert_int_equal(atomic_load(&w.snapshots_asked), 10 / every);
        atomic_store(&w.events_seen, 0);
        world_again(&w, every);
        assert_counter(&w, "a", 55, 10);
        assert_int_equal(atomic_load(&w.snapshots_offered), 1);
        assert_int_equal(atomic_load(&w.events_seen), 10 % every);
        world_close(&w);
    }
}

static void test_a_refused_snapshot_is_passed_over(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 2, false);
    assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
    assert_int_equal(ask(&w, "a", ADD_THRICE, 1, NULL), ESCQRS_OK);
    w.refuse_snapshots = true;
    world_again(&w, 2);
    assert_counter(&w, "a", 4, 4);
    assert_int_equal(atomic_load(&w.snapshots_offered), 1);
    world_close(&w);
}

static void test_a_snapshot_that_fails_costs_no_event(void **state)
{
    (void)state;
    world w = {.fail_requests = true};
    world_open(&w, 1, false);
    assert_int_equal(ask(&w, "a", ADD, 3, NULL), ESCQRS_OK);
    assert_int_equal(atomic_load(&w.failures), 1);
    assert_int_equal(atomic_load(&w.failures_restarted), 0);
    assert_counter(&w, "a", 3, 1);
    world_close(&w);
}

static void test_a_handler_that_fails_leaves_nothing(void **state)
{
    (void)state;
    for (int resume = 0; resume < 2; resume++) {
        world w = {0};
        world_open(&w, 0, resume);
        assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
        assert_int_equal(ask(&w, "a", ADD_AND_FAIL, 7, NULL), ESCQRS_REJECTED);
        assert_counter(&w, "a", 1, 1);
        assert_int_equal(ask(&w, "a", ADD_BAD, 0, NULL), ESCQRS_UNKNOWN_TYPE);
        assert_counter(&w, "a", 1, 1);
        assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
        assert_int_equal(stored_version(&w, "a"), 2);
        world_close(&w);
    }
}

static void test_a_second_writer_is_noticed(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
    write_elsewhere(&w, "a", 10);
    assert_int_equal(ask(&w, "a", ADD, 100, NULL), ESCQRS_WRONG_VERSION);
    assert_int_equal(atomic_load(&w.failures), 1);
    assert_int_equal(atomic_load(&w.failures_restarted), 1);
    assert_counter(&w, "a", 11, 2); /* restarted from what is stored */
    assert_int_equal(ask(&w, "a", ADD, 100, NULL), ESCQRS_OK);
    assert_counter(&w, "a", 111, 3);
    world_close(&w);
}

static void test_a_closed_store_is_an_error_for_the_asker(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
    escqrs_store_close(w.store);
    assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_CLOSED);
    escqrs_ref *ref = counter_of(&w, "b"); /* cannot be recovered: restarted, then stopped */
    escqrs_envelope *got = NULL;
    assert_int_equal(escqrs_ask(ref, order_new(GET, 0), INT64_MAX, &got, NULL), ESCQRS_CLOSED);
    escqrs_ref_release(ref);
    world_close(&w);
}

static void test_who_persists_at_its_start_does_not_try_for_ever(void **state)
{
    (void)state;
    world w = {.persist_at_start = true};
    world_open(&w, 0, false);
    assert_counter(&w, "a", 1, 1);
    world_again(&w, 0);
    assert_counter(&w, "a", 2, 2);
    escqrs_ref *ref = counter_of(&w, "a");
    escqrs_store_close(w.store);
    escqrs_ref *other = counter_of(&w, "b");
    assert_int_equal(escqrs_ref_wait_stopped(other, INT64_MAX, NULL), ESCQRS_OK);
    assert_true(atomic_load(&w.failures) >= 1);
    escqrs_ref_release(other);
    escqrs_ref_release(ref);
    world_close(&w);
}

/* What a continuation of its start persists is tried again as often as the start itself. */
static void test_who_persists_soon_after_its_start_does_not_try_for_ever(void **state)
{
    (void)state;
    world w = {.begins_refused = 1000};
    world_open(&w, 0, false);
    escqrs_ref *ref = counter_of(&w, "a");
    assert_int_equal(escqrs_ref_wait_stopped(ref, INT64_MAX, NULL), ESCQRS_OK);
    assert_int_equal(w.begins, 11);
    assert_int_equal(stored_version(&w, "a"), 11);
    escqrs_ref_release(ref);
    world_actors_end(&w);
    assert_int_equal(atomic_load(&w.failures_restarted), 10);
    assert_int_equal(atomic_load(&w.failures), 11);
    escqrs_store_destroy(w.store);
}

static void test_an_event_that_receive_refuses_names_itself(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
    w.refuse_replay = true;
    world_again(&w, 0);
    escqrs_ref *ref = counter_of(&w, "a");
    assert_int_equal(escqrs_ref_wait_stopped(ref, INT64_MAX, NULL), ESCQRS_OK);
    char text[256];
    escqrs_ref_failure(ref, text, sizeof text);
    assert_string_equal(text, "a, version 1: event Added cannot be applied: a number below 0");
    escqrs_ref_release(ref);
    world_close(&w);
}

static void test_a_poison_waits_for_what_is_under_way(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    escqrs_ref *ref = counter_of(&w, "a");
    for (int i = 0; i < 100; i++) {
        assert_int_equal(escqrs_tell(ref, order_new(ADD, 1), w.echo), ESCQRS_OK);
    }
    assert_int_equal(escqrs_poison(ref), ESCQRS_OK);
    assert_int_equal(escqrs_ref_wait_stopped(ref, INT64_MAX, NULL), ESCQRS_OK);
    assert_int_equal(stored_version(&w, "a"), 100);
    assert_int_equal(atomic_load(&w.stopped), 1);
    escqrs_ref_release(ref);
    world_close(&w);
}

static void test_behaviours_and_continuations_persist(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    order got = {0};
    assert_int_equal(ask(&w, "a", ASK_ECHO, 4, &got), ESCQRS_OK);
    assert_int_equal(got.number, 4);
    assert_int_equal(stored_version(&w, "a"), 1);
    assert_int_equal(ask(&w, "a", BECOME, 0, NULL), ESCQRS_OK);
    assert_int_equal(ask(&w, "a", ADD, 3, &got), ESCQRS_OK);
    assert_int_equal(got.number, 10);
    assert_int_equal(stored_version(&w, "a"), 3);
    world_close(&w);
}

/* Asked, it has stopped without an answer. */
static void assert_stops(world *self, const char *name)
{
    escqrs_ref *ref = counter_of(self, name);
    escqrs_envelope *answered = NULL;
    assert_int_equal(escqrs_ask(ref, order_new(GET, 0), INT64_MAX, &answered, NULL), ESCQRS_CLOSED);
    assert_int_equal(escqrs_ref_wait_stopped(ref, INT64_MAX, NULL), ESCQRS_OK);
    escqrs_ref_release(ref);
}

/* Whatever its supervisor says, here resume. */
static void test_nobody_goes_on_who_was_not_recovered(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    assert_int_equal(ask(&w, "a", ADD, 5, NULL), ESCQRS_OK);
    world_actors_end(&w);
    world_actors(&w, 0, true, false);
    w.refuse_replay = true;
    assert_stops(&w, "a");
    w.starts_refused = 5;
    assert_stops(&w, "b");
    assert_int_equal(w.starts_refused, 4);
    assert_int_equal(stored_version(&w, "b"), 0);
    world_close(&w);
}

static void test_who_persists_at_its_restart_is_restarted_once(void **state)
{
    (void)state;
    world w = {.restarts_refused = 5};
    world_open(&w, 0, false);
    assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
    assert_int_equal(ask(&w, "a", FAIL, 0, NULL), ESCQRS_REJECTED);
    assert_counter(&w, "a", 11, 2);
    assert_int_equal(atomic_load(&w.restarts), 1);
    world_close(&w);
}

static void test_deleted_events_need_a_snapshot(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 2, false);
    assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
    assert_int_equal(ask(&w, "a", ADD, 2, NULL), ESCQRS_OK); /* with a snapshot */
    assert_int_equal(ask(&w, "a", ADD, 3, NULL), ESCQRS_OK);
    assert_int_equal(ask(&w, "a", DELETE_EVENTS, 2, NULL), ESCQRS_OK);
    w.refuse_snapshots = true;
    world_again(&w, 2);
    assert_stops(&w, "a");
    world_close(&w);
}

static void test_deleting(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 2, false);
    order got = {0};
    assert_int_equal(ask(&w, "a", ADD, 1, NULL), ESCQRS_OK);
    assert_int_equal(ask(&w, "a", DELETE_EVENTS, 0, &got), ESCQRS_OK);
    assert_int_equal(got.status, ESCQRS_NOT_COVERED);
    assert_int_equal(ask(&w, "a", ADD, 2, NULL), ESCQRS_OK); /* with a snapshot */
    assert_int_equal(ask(&w, "a", DELETE_EVENTS, -1, &got), ESCQRS_OK);
    assert_int_equal(got.status, ESCQRS_INVALID);
    for (int i = 0; i < 2; i++) { /* again is fine */
        assert_int_equal(ask(&w, "a", DELETE_EVENTS, 0, &got), ESCQRS_OK);
        assert_int_equal(got.status, ESCQRS_OK);
    }
    world_again(&w, 2);
    assert_counter(&w, "a", 3, 2);
    assert_int_equal(ask(&w, "b", ADD_THRICE, 2, NULL), ESCQRS_OK);
    assert_int_equal(ask(&w, "b", DELETE_SNAPSHOTS, 0, &got), ESCQRS_OK);
    assert_int_equal(got.status, ESCQRS_OK);
    escqrs_snapshot snapshot;
    assert_int_equal(escqrs_store_snapshot(w.store, escqrs_slice_of("b"), 0, &snapshot, NULL),
                     ESCQRS_DONE);
    world_close(&w);
}

static void test_a_manual_system_commits_itself(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    world_actors_end(&w);
    world_actors(&w, 0, false, true);
    escqrs_ref *ref = counter_of(&w, "a");
    escqrs_tell(ref, order_new(ADD, 6), w.echo);
    while (escqrs_actor_system_step(w.system)) {
    }
    assert_int_equal(stored_version(&w, "a"), 1);
    escqrs_ref_release(ref);
    world_close(&w);
}

static void test_each_allocation_may_fail(void **state)
{
    (void)state;
    for (long countdown = 1; countdown <= 30; countdown++) {
        world w = {0};
        world_open(&w, 0, false);
        world_actors_end(&w);
        world_actors(&w, 0, false, true);
        escqrs_ref *ref = counter_of(&w, "a");
        escqrs_envelope *add_one = order_new(ADD_SILENTLY, 1);
        escqrs_alloc_fail(countdown, false);
        escqrs_tell(ref, add_one, NULL);
        while (escqrs_actor_system_step(w.system)) {
        }
        escqrs_alloc_fail(0, false);
        int64_t version = stored_version(&w, "a");
        assert_true(version == 0 || version == 1);
        escqrs_ref_release(ref);
        world_close(&w);
    }
}

static void test_bad_props_and_names(void **state)
{
    (void)state;
    world w = {0};
    world_open(&w, 0, false);
    escqrs_props_options options = {.actor_class = &COUNTER, .user_data = &w};
    escqrs_props *props = NULL;
    escqrs_persistence nowhere = {0};
    escqrs_persistence negative = {.store = w.store, .snapshot_every = -1};
    assert_int_equal(escqrs_persistent_props(&options, &nowhere, &props, NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_persistent_props(&options, &negative, &props, NULL), ESCQRS_INVALID);
    escqrs_router_options pool = {.pool = w.props, .pool_size = 1};
    assert_int_equal(escqrs_router_props(&pool, &props, NULL), ESCQRS_INVALID);
    escqrs_ref *ref = NULL;
    escqrs_error error = {0};
    assert_int_equal(escqrs_actor_system_spawn(w.system, w.props, (escqrs_slice){0}, &ref, &error),
                     ESCQRS_INVALID);
    assert_non_null(strstr(error.message, "spawned with a name"));
    assert_null(ref);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events_survive_their_actor),
        cmocka_unit_test(test_snapshots_at_every_interval),
        cmocka_unit_test(test_a_refused_snapshot_is_passed_over),
        cmocka_unit_test(test_a_snapshot_that_fails_costs_no_event),
        cmocka_unit_test(test_a_handler_that_fails_leaves_nothing),
        cmocka_unit_test(test_a_second_writer_is_noticed),
        cmocka_unit_test(test_a_closed_store_is_an_error_for_the_asker),
        cmocka_unit_test(test_who_persists_at_its_start_does_not_try_for_ever),
        cmocka_unit_test(test_who_persists_soon_after_its_start_does_not_try_for_ever),
        cmocka_unit_test(test_an_event_that_receive_refuses_names_itself),
        cmocka_unit_test(test_a_poison_waits_for_what_is_under_way),
        cmocka_unit_test(test_behaviours_and_continuations_persist),
        cmocka_unit_test(test_nobody_goes_on_who_was_not_recovered),
        cmocka_unit_test(test_who_persists_at_its_restart_is_restarted_once),
        cmocka_unit_test(test_deleted_events_need_a_snapshot),
        cmocka_unit_test(test_deleting),
        cmocka_unit_test(test_a_manual_system_commits_itself),
        cmocka_unit_test(test_each_allocation_may_fail),
        cmocka_unit_test(test_bad_props_and_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
