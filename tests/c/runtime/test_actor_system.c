/* The actor system as a whole: on a host, under a seeded scheduler, without memory, with very many
 * actors. */
#include "runtime/actors.h"

/* ---- on a host -------------------------------------------------------------------------------- */

static _Atomic int attached_calls;

static void must_be_attached(void)
{
    assert_true(fake_attached);
    atomic_fetch_add(&attached_calls, 1);
}

static escqrs_turn_end hosted_create(escqrs_context *context, void *user_data, void **state)
{
    (void)context;
    must_be_attached();
    *state = user_data;
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end hosted_then(escqrs_context *context, void *state, void *data,
                                   escqrs_envelope *answer, const escqrs_failure *failure)
{
    (void)context;
    (void)state;
    (void)answer;
    must_be_attached();
    assert_non_null(failure);
    tally_add(data, 1);
    return ESCQRS_TURN_NEXT;
}

static tally hosted_done = TALLY_ZERO;

static escqrs_turn_end hosted_receive(escqrs_context *context, void *state,
                                      escqrs_envelope *message)
{
    must_be_attached();
    (void)state;
    if (message->type == &NOTE && note_value(message) == 1) {
        escqrs_ref *child = escqrs_context_child(context, escqrs_slice_of("child"));
        assert_non_null(child);
        escqrs_error error = {0};
        assert_int_equal(
            escqrs_context_ask(context, child, note_new(2), 0, hosted_then, &hosted_done, &error),
            ESCQRS_OK);
        escqrs_ref_release(child);
    }
    if (message->type == &NOTE && note_value(message) == 2) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "on purpose");
    }
    return ESCQRS_TURN_NEXT;
}

static void hosted_destroy(void *state, void *user_data)
{
    (void)state;
    (void)user_data;
    must_be_attached();
}

static const escqrs_actor_class HOSTED = {.name = "Hosted",
                                          .create = hosted_create,
                                          .receive = hosted_receive,
                                          .destroy = hosted_destroy};

static escqrs_directive hosted_decide(void *context, escqrs_ref *child,
                                      const escqrs_failure *failure)
{
    (void)child;
    (void)failure;
    must_be_attached();
    tally_add(context, 1);
    return ESCQRS_DIRECTIVE_RESTART;
}

static escqrs_turn_end hosted_around(void *data, escqrs_context *context, escqrs_envelope *message,
                                     const escqrs_next *next)
{
    must_be_attached();
    if (message->type == &escqrs_started && data != NULL) { /* the parent's */
        escqrs_error error = {0};
        assert_int_equal(
            escqrs_context_spawn(context, data, escqrs_slice_of("child"), NULL, &error), ESCQRS_OK);
    }
    return escqrs_next_receive(next, context, message);
}

static void test_everything_of_a_hosted_actor_is_attached(void **state)
{
    (void)state;
    fake_host fake = FAKE_HOST_ZERO;
    escqrs_runtime *runtime = runtime_make(NULL);
    escqrs_host *host = host_make(runtime, &fake);
    escqrs_supervisor supervisor = {.decide = hosted_decide, .context = &hosted_done};
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){
        .runtime = runtime, .host = host, .supervisor = &supervisor});
    assert_ptr_equal(escqrs_actor_system_runtime(system), runtime);
    escqrs_receive_middleware around = {hosted_around, NULL};
    escqrs_props *child_props = props_make(&(escqrs_props_options){.actor_class = &HOSTED,
                                                                   .host = host,
                                                                   .receive_middleware = &around,
                                                                   .receive_middleware_count = 1});
    around.data = child_props;
    escqrs_ref *ref =
        spawn_props(system,
                    props_make(&(escqrs_props_options){.actor_class = &HOSTED,
                                                       .host = host,
                                                       .supervisor = &supervisor,
                                                       .receive_middleware = &around,
                                                       .receive_middleware_count = 1}),
                    "parent");
    tell(ref, 1);
    tally_wait(&hosted_done, 2); /* the child's failure was decided on, and the asker told */
    tell(ref, 2);
    tally_wait(&hosted_done, 3); /* decided by the system */
    escqrs_ref_release(ref);
    system_end(system);
    escqrs_props_release(child_props);
    runtime_end(runtime);
    assert_true(attached_calls > 10);
    assert_int_equal(notes_alive, 0);
}

/* ---- a seeded scheduler ----------------------------------------------------------------------- */

/* A register that two clients read, then write with one more: a race that some orders show. */
static escqrs_turn_end register_handle(script *self, escqrs_context *context,
                                       escqrs_envelope *message)
{
    int64_t *value = self->data;
    if (message->type == &NOTE && note_value(message) < 0) {
        escqrs_context_respond(context, note_new(*value));
    } else if (message->type == &NOTE) {
        *value = note_value(message);
    }
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end write_back(escqrs_context *context, void *state, void *data,
                                  escqrs_envelope *answer, const escqrs_failure *failure)
{
    (void)data;
    assert_null(failure);
    script *self = state;
    escqrs_context_tell(context, self->data, note_new(note_value(answer) + 1));
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end client_handle(script *self, escqrs_context *context,
                                     escqrs_envelope *message)
{
    if (message->type == &NOTE) {
        escqrs_error error = {0};
        assert_int_equal(
            escqrs_context_ask(context, self->data, note_new(-1), 1000, write_back, NULL, &error),
            ESCQRS_OK);
    }
    return ESCQRS_TURN_NEXT;
}

static int64_t increments(uint64_t from, char *log, size_t size)
{
    seed numbers = {from};
    int64_t value = 0;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){
        .own = {.manual = true, .random = {seed_fill, &numbers}}, .virtual_time = true});
    script variable = {.handle = register_handle, .data = &value};
    escqrs_ref *variable_ref = spawn_script(system, &variable, "register");
    script clients[2];
    for (int i = 0; i < 2; i++) {
        clients[i] = (script){.handle = client_handle, .data = variable_ref};
        escqrs_ref *ref = spawn_script(system, &clients[i], NULL);
        tell(ref, 1);
        escqrs_ref_release(ref);
    }
    while (escqrs_actor_system_step(system)) {
    }
    snprintf(log, size, "%.*s", (int)size - 1, variable.log);
    escqrs_ref_release(variable_ref);
    system_end(system);
    return value;
}

static void test_a_seed_repeats_an_order_and_finds_a_race(void **state)
{
    (void)state;
    int right = 0;
    int wrong = 0;
    for (uint64_t from = 1; from <= 100; from++) {
        char first[256];
        char second[256];
        int64_t value = increments(from, first, sizeof first);
        assert_int_equal(value, increments(from, second, sizeof second));
        assert_string_equal(first, second);
        right += value == 2;
        wrong += value == 1;
    }
    assert_true(right > 0);
    assert_true(wrong > 0);
}

/* ---- without memory --------------------------------------------------------------------------- */

static escqrs_envelope fixed[8]; /* messages that need none */

static void leave(escqrs_envelope *envelope)
{
    (void)envelope;
}

static const escqrs_message_type FIXED = {.name = "Fixed", .destroy = leave};

static escqrs_envelope *fixed_new(size_t index)
{
    fixed[index] = (escqrs_envelope){.type = &FIXED};
    return &fixed[index];
}

static escqrs_turn_end frugal_then(escqrs_context *context, void *state, void *data,
                                   escqrs_envelope *answer, const escqrs_failure *failure)
{
    (void)state;
    (void)data;
    (void)answer;
    return failure != NULL ? escqrs_context_fail(context, ESCQRS_IO, NULL, "again")
                           : ESCQRS_TURN_NEXT;
}

/* Does a little of everything, and goes on whatever is refused. */
static escqrs_turn_end frugal(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)state;
    if (message->type != &FIXED) {
        return ESCQRS_TURN_NEXT;
    }
    escqrs_ref *child = NULL;
    escqrs_props *props = escqrs_context_user_data(context);
    escqrs_status status =
        escqrs_context_spawn(context, props, escqrs_slice_of("child"), &child, NULL);
    if (child != NULL) {
        status = escqrs_context_watch(context, child, NULL);
        status = escqrs_context_ask(context, child, fixed_new(1), 100, frugal_then, NULL, NULL);
        escqrs_ref_release(child);
    }
    status = escqrs_context_schedule(context, NULL, fixed_new(2), 1000000, 0, NULL, NULL);
    status = escqrs_context_become(context, frugal, NULL);
    status = escqrs_context_stash(context, NULL);
    (void)status;
    escqrs_context_unstash_all(context);
    return escqrs_context_fail(context, ESCQRS_IO, NULL, "enough");
}

static escqrs_turn_end frugal_child(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)state;
    return message->type == &FIXED ? escqrs_context_fail(context, ESCQRS_IO, NULL, "no")
                                   : ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class FRUGAL = {.name = "Frugal", .receive = frugal};
static const escqrs_actor_class FRUGAL_CHILD = {.name = "FrugalChild", .receive = frugal_child};

static void count_event(void *data, const escqrs_envelope *event)
{
    (void)event;
    ++*(int *)data;
}

/* True: everything could be had. */
static bool live_frugally(escqrs_actor_system *system)
{
    int events = 0;
    escqrs_subscription *subscription = NULL;
    escqrs_props *child = NULL;
    escqrs_props *props = NULL;
    escqrs_ref *ref = NULL;
    bool all = escqrs_subscribe(system, NULL, count_event, &events, NULL, &subscription, NULL) ==
               ESCQRS_OK;
    all = escqrs_props_create(&(escqrs_props_options){.actor_class = &FRUGAL_CHILD}, &child,
                              NULL) == ESCQRS_OK &&
          all;
    if (child != NULL &&
        escqrs_props_create(
            &(escqrs_props_options){.actor_class = &FRUGAL, .user_data = child, .stash_max = 2},
            &props, NULL) == ESCQRS_OK &&
        escqrs_actor_system_spawn(system, props, escqrs_slice_of("frugal"), &ref, NULL) ==
            ESCQRS_OK) {
        escqrs_tell(ref, fixed_new(0), NULL);
        for (int i = 0; i < 60 && escqrs_actor_system_step(system); i++) {
        }
        all = escqrs_poison(ref) == ESCQRS_OK && all;
        escqrs_envelope *got;
        all = escqrs_ask(ref, fixed_new(3), 0, &got, NULL) != ESCQRS_NO_MEMORY && all;
    } else {
        all = false;
    }
    escqrs_ref_release(ref);
    escqrs_props_release(props);
    escqrs_props_release(child);
    escqrs_unsubscribe(subscription);
    return all;
}

static void test_any_allocation_may_fail(void **state)
{
    (void)state;
    for (long nth = 1; nth < 400; nth++) {
        escqrs_actor_system *system = NULL;
        escqrs_actor_system_options options = {
            .own = {.manual = true}, .virtual_time = true, .log = {log_quietly, NULL}};
        escqrs_alloc_fail(nth, nth % 2 == 0);
        bool all = escqrs_actor_system_create(&options, &system, NULL) == ESCQRS_OK &&
                   live_frugally(system);
        escqrs_alloc_fail(0, false);
        if (system != NULL) {
            system_end(system);
        }
        if (all && nth > 100) {
            return; /* there are no more allocations than that */
        }
    }
}

/* ---- beside others ---------------------------------------------------------------------------- */

typedef struct beside {
    escqrs_actor_system *system;
    int left;       /* steps of its own, before the actors' */
    int64_t due_ns; /* of one more */
} beside;

static bool beside_step(void *context)
{
    beside *self = context;
    if (self->due_ns <= escqrs_actor_system_now(self->system)) {
        self->due_ns = INT64_MAX;
        self->left++;
    }
    if (self->left > 0) {
        self->left--;
        return true;
    }
    return escqrs_runtime_step(escqrs_actor_system_runtime(self->system));
}

static int64_t beside_due_ns(void *context)
{
    return ((beside *)context)->due_ns;
}

static void test_a_stepper_runs_others_beside_the_actors(void **state)
{
    (void)state;
    beside others = {.left = 3, .due_ns = 5000};
    escqrs_actor_system_options options = {.own = {.manual = true},
                                           .virtual_time = true,
                                           .stepper = {beside_step, beside_due_ns, &others}};
    assert_int_equal(escqrs_actor_system_create(&options, &others.system, NULL), ESCQRS_OK);
    while (others.left > 0) {
        assert_true(escqrs_actor_system_step_now(others.system));
    }
    while (escqrs_actor_system_step_now(others.system)) { /* the root's start */
    }
    assert_int_equal(escqrs_actor_system_now(others.system), 0);
    assert_int_equal(escqrs_actor_system_next_due(others.system), 5000);
    assert_true(escqrs_actor_system_step(others.system)); /* the clock */
    assert_int_equal(escqrs_actor_system_now(others.system), 5000);
    assert_true(escqrs_actor_system_step(others.system)); /* what was due */
    assert_false(escqrs_actor_system_step(others.system));
    others.left = 1;
    system_end(others.system); /* whose waiting runs them as well */
    assert_int_equal(others.left, 0);
}

/* ---- very many -------------------------------------------------------------------------------- */

static _Atomic int64_t lived;

static escqrs_turn_end live(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)context;
    (void)state;
    atomic_fetch_add(&lived, message->type == &escqrs_stopped);
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class MANY = {.name = "Many", .receive = live};

static void test_spawning_while_the_system_stops(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    escqrs_props *props = props_make(&(escqrs_props_options){.actor_class = &MANY});
    int64_t spawned = 0;
    for (int i = 0; i < COUNT; i++) {
        escqrs_error error = {0};
        escqrs_status status =
            escqrs_actor_system_spawn(system, props, (escqrs_slice){0}, NULL, &error);
        assert_true(status == ESCQRS_OK || status == ESCQRS_CLOSED);
        spawned += status == ESCQRS_OK;
        if (i == COUNT / 2) {
            assert_true(escqrs_actor_system_stop(system, 0, &error) != ESCQRS_DEADLOCK);
        }
    }
    escqrs_props_release(props);
    system_end(system);
    assert_int_equal(spawned, COUNT / 2 + 1);
    assert_int_equal(lived, spawned);
}

/* A chain as deep as this must not be unwound by recursion. */
#define CHAIN 20000

static escqrs_ref *chain_end;

static escqrs_turn_end chain(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)state;
    static int depth;
    if (message->type == &escqrs_started && ++depth < CHAIN) {
        escqrs_props *props = props_make(
            &(escqrs_props_options){.actor_class = escqrs_ref_class(escqrs_context_self(context))});
        escqrs_error error = {0};
        assert_int_equal(escqrs_context_spawn(context, props, (escqrs_slice){0},
                                              depth + 1 == CHAIN ? &chain_end : NULL, &error),
                         ESCQRS_OK);
        escqrs_props_release(props);
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class LINK = {.name = "Link", .receive = chain};

static void test_a_deep_tree_ends(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    escqrs_props *props = props_make(&(escqrs_props_options){.actor_class = &LINK});
    escqrs_ref *top = spawn_props(system, props, "top");
    settle(system);
    assert_int_equal(escqrs_actor_system_actor_count(system), CHAIN);
    escqrs_ref_release(top);
    system_end(system);
    escqrs_ref_release(chain_end); /* and with it all the way up */
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_of_a_hosted_actor_is_attached),
        cmocka_unit_test(test_a_seed_repeats_an_order_and_finds_a_race),
        cmocka_unit_test(test_any_allocation_may_fail),
        cmocka_unit_test(test_a_stepper_runs_others_beside_the_actors),
        cmocka_unit_test(test_spawning_while_the_system_stops),
        cmocka_unit_test(test_a_deep_tree_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
