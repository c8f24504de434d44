/* Questions and answers: ask from outside and inside, futures, sinks, forwarding, continuations,
 * and every way in which an answer does not come. */
#include "runtime/actors.h"

/* ---- actors that answer ----------------------------------------------------------------------- */

#define KEEP_SILENT 100
#define FORWARD 200
#define ASK 300  /* asks `data` without blocking, and passes the answer on */
#define STOP 250 /* answers nothing and stops */

static escqrs_turn_end pass_answer(escqrs_context *context, void *state, void *data,
                                   escqrs_envelope *answer, const escqrs_failure *failure)
{
    (void)data;
    script *self = state;
    if (failure != NULL) {
        script_say(self, failure->status == ESCQRS_TIMEOUT ? "timeout" : failure->text);
        escqrs_context_respond(context, note_new(-1));
        return ESCQRS_TURN_NEXT;
    }
    script_say(self, "answered");
    escqrs_context_respond(context, note_new(note_value(answer) + 1000));
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end answer(script *self, escqrs_context *context, escqrs_envelope *message)
{
    if (message->type != &NOTE) {
        return ESCQRS_TURN_NEXT;
    }
    int64_t value = note_value(message);
    escqrs_error error = {0};
    if (value == KEEP_SILENT) {
        return ESCQRS_TURN_NEXT;
    }
    if (value == STOP) {
        escqrs_stop(escqrs_context_self(context));
        return ESCQRS_TURN_NEXT;
    }
    if (value == FORWARD) {
        ((note *)message)->value = 1;
        assert_int_equal(escqrs_context_forward(context, self->data), ESCQRS_OK);
        assert_null(escqrs_context_message(context));
        return ESCQRS_TURN_NEXT;
    }
    if (value >= ASK) {
        assert_int_equal(
            escqrs_context_ask(context, self->data, note_new(1), 500, NULL, NULL, &error),
            ESCQRS_INVALID);
        assert_int_equal(escqrs_context_ask(context, self->data, note_new(value - ASK), 500,
                                            pass_answer, NULL, &error),
                         ESCQRS_OK);
        return ESCQRS_TURN_NEXT;
    }
    escqrs_context_respond(context, note_new(value + 1));
    return ESCQRS_TURN_NEXT;
}

static int64_t ask(escqrs_ref *ref, int64_t value)
{
    escqrs_envelope *got;
    escqrs_error error = {0};
    escqrs_status status = escqrs_ask(ref, note_new(value), ESC_DEADLINE_NEVER, &got, &error);
    if (status != ESCQRS_OK) {
        fail_msg("ask: %s", error.message);
    }
    int64_t result = note_value(got);
    escqrs_envelope_destroy(got);
    return result;
}

static escqrs_status ask_in_vain(escqrs_ref *ref, int64_t value, escqrs_error *error)
{
    escqrs_envelope *got;
    escqrs_status status = escqrs_ask(ref, note_new(value), ESC_DEADLINE_NEVER, &got, error);
    assert_null(got);
    return status;
}

/* ---- answers ---------------------------------------------------------------------------------- */

static void test_ask_runs_an_idle_actor_here_or_waits_for_a_worker(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    script one = {.handle = answer};
    escqrs_ref *ref = spawn_script(system, &one, NULL);
    for (int i = 0; i < KEEP_SILENT; i++) {
        assert_int_equal(ask(ref, i), i + 1);
    }
    escqrs_ref_release(ref);
    system_end(system);
}

static void test_a_forwarded_question_is_answered_by_the_other(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script last = {.handle = answer};
    escqrs_ref *last_ref = spawn_script(system, &last, "last");
    script first = {.handle = answer, .data = last_ref};
    escqrs_ref *ref = spawn_script(system, &first, "first");
    settle(system);
    assert_int_equal(ask(ref, FORWARD), 2);
    assert_string_equal(last.log, "Started 1 ");
    escqrs_ref_release(ref);
    escqrs_ref_release(last_ref);
    system_end(system);
}

/* ---- answers that do not come ----------------------------------------------------------------- */

static void test_asking_a_stopped_actor_is_an_error_at_once(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = answer};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    escqrs_stop(ref);
    settle(system);
    escqrs_error error = {0};
    assert_int_equal(ask_in_vain(ref, 1, &error), ESCQRS_CLOSED);
    assert_string_equal(error.message, "one has stopped");
    escqrs_ref_release(ref);
    system_end(system);
}

static void test_an_actor_that_stops_without_answering_ends_the_question(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    script one = {.handle = answer};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    escqrs_error error = {0};
    assert_int_equal(ask_in_vain(ref, STOP, &error), ESCQRS_CLOSED);
    assert_string_equal(error.message, "one stopped without answering");
    escqrs_ref_release(ref);
    system_end(system);
}

static void test_an_answer_never_given_is_a_timeout_or_the_end(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    script one = {.handle = answer};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    escqrs_envelope *got;
    escqrs_error error = {0};
    for (int i = 0; i < 100; i++) { /* what is given up is forgotten */
        assert_int_equal(escqrs_ask(ref, note_new(KEEP_SILENT), 0, &got, &error), ESCQRS_TIMEOUT);
    }
    escqrs_ref_release(ref);
    system_end(system);
}

/* Manual: nobody else could run it. */
static void test_a_manual_system_says_that_nothing_is_left(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = answer};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    escqrs_error error = {0};
    assert_int_equal(ask_in_vain(ref, KEEP_SILENT, &error), ESCQRS_TIMEOUT);
    escqrs_ref_release(ref);
    system_end(system);
}

/* There, an actor with a timer has something to do for ever. */
static void test_a_manual_system_keeps_the_deadline(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = answer};
    escqrs_props_options options = {
        .actor_class = &SCRIPT, .user_data = &one, .receive_timeout_ns = 10};
    escqrs_ref *ref = spawn_props(system, props_make(&options), "one");
    escqrs_envelope *got;
    escqrs_error error = {0};
    assert_int_equal(
        escqrs_ask(ref, note_new(KEEP_SILENT), esc_deadline_after(1000000), &got, &error),
        ESCQRS_TIMEOUT);
    assert_string_equal(error.message, "there was no answer in time");
    escqrs_ref_release(ref);
    system_end(system);
}

/* ---- asking inside an actor, blocking --------------------------------------------------------- */

static escqrs_turn_end ask_data(script *self, escqrs_context *context, escqrs_envelope *message)
{
    if (message->type != &NOTE) {
        return ESCQRS_TURN_NEXT;
    }
    escqrs_envelope *got;
    escqrs_error error = {0};
    escqrs_ref *to = self->data == NULL ? escqrs_context_self(context) : self->data;
    escqrs_status status =
        escqrs_ask(to, note_new(note_value(message)), ESC_DEADLINE_NEVER, &got, &error);
    if (status != ESCQRS_OK) {
        return escqrs_context_fail(context, status, NULL, "%s", error.message);
    }
    escqrs_context_respond(context, got);
    return ESCQRS_TURN_NEXT;
}

static void test_asking_oneself_and_each_other_is_a_deadlock(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    script self = {.handle = ask_data};
    escqrs_ref *alone = spawn_script(system, &self, "alone");
    escqrs_error error = {0};
    assert_int_equal(ask_in_vain(alone, 1, &error), ESCQRS_DEADLOCK);
    assert_non_null(strstr(error.message, "alone -> alone"));

    script a = {.handle = ask_data};
    script b = {.handle = ask_data};
    escqrs_ref *a_ref = spawn_script(system, &a, "a");
    b.data = a_ref;
    escqrs_ref *b_ref = spawn_script(system, &b, "b");
    a.data = b_ref; /* nobody has told it anything yet */
    assert_int_equal(ask_in_vain(a_ref, 1, &error), ESCQRS_DEADLOCK);
    assert_non_null(strstr(error.message, "b -> a -> b"));

    script c = {.handle = answer};
    escqrs_ref *c_ref = spawn_script(system, &c, "c");
    script d = {.handle = ask_data, .data = c_ref};
    escqrs_ref *d_ref = spawn_script(system, &d, "d");
    assert_int_equal(ask(d_ref, 5), 6);
    escqrs_ref_release(alone);
    escqrs_ref_release(a_ref);
    escqrs_ref_release(b_ref);
    escqrs_ref_release(c_ref);
    escqrs_ref_release(d_ref);
    system_end(system);
}

/* ---- asking inside an actor, going on later --------------------------------------------------- */

static void test_an_actor_goes_on_with_the_answer(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script last = {.handle = answer};
    escqrs_ref *last_ref = spawn_script(system, &last, "last");
    script first = {.handle = answer, .data = last_ref};
    escqrs_ref *ref = spawn_script(system, &first, "first");
    settle(system);
    assert_int_equal(ask(ref, ASK + 5), 1006);
    assert_string_equal(first.log, "Started 305 answered ");
    /* the timeout has been cancelled */
    assert_int_equal(escqrs_actor_system_next_due(system), INT64_MAX);

    assert_int_equal(ask(ref, ASK + KEEP_SILENT), -1);
    assert_string_equal(first.log, "Started 305 answered 400 timeout ");
    escqrs_stop(last_ref);
    settle(system);
    first.log[0] = '\0';
    assert_int_equal(ask(ref, ASK + 5), -1);
    assert_string_equal(first.log, "305 last has stopped ");
    escqrs_ref_release(ref);
    escqrs_ref_release(last_ref);
    system_end(system);
}

static void test_a_continuation_ends_with_its_actor(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script last = {.handle = answer};
    escqrs_ref *last_ref = spawn_script(system, &last, "last");
    script first = {.handle = answer, .data = last_ref};
    escqrs_ref *ref = spawn_script(system, &first, "first");
    settle(system);
    tell(ref, ASK + KEEP_SILENT);
    settle(system);
    escqrs_stop(ref);
    settle(system);
    assert_string_equal(first.log, "Started 400 Stopping Stopped ");
    escqrs_actor_system_advance(system, 1000);
    escqrs_ref_release(ref);
    escqrs_ref_release(last_ref);
    system_end(system);
}

/* Two continuations and the handler itself share one message. */
typedef struct later {
    escqrs_continuation continuation;
    int64_t value;
} later;

static later *laters[2];

static escqrs_turn_end later_run(escqrs_context *context, void *instance,
                                 escqrs_continuation *continuation)
{
    script *self = instance;
    script_say(self, "later");
    script_say_message(self, escqrs_context_message(context));
    later *own = (later *)continuation;
    if (own->value == 2) {
        escqrs_context_respond(context, note_new(7));
    }
    return ESCQRS_TURN_NEXT;
}

static void later_done(escqrs_continuation *continuation)
{
    free(continuation);
}

static escqrs_turn_end make_two(script *self, escqrs_context *context, escqrs_envelope *message)
{
    (void)self;
    if (message->type != &NOTE) {
        return ESCQRS_TURN_NEXT;
    }
    escqrs_error error = {0};
    for (int i = 0; i < 2; i++) {
        laters[i] = calloc(1, sizeof *laters[i]);
        assert_non_null(laters[i]);
        laters[i]->continuation.run = later_run;
        laters[i]->continuation.done = later_done;
        laters[i]->value = i + 1;
        assert_int_equal(
            escqrs_context_continuation_init(context, &laters[i]->continuation, &error), ESCQRS_OK);
    }
    assert_ptr_equal(escqrs_context_message(context), message);
    return ESCQRS_TURN_NEXT;
}

static escqrs_envelope *future_answer;
static int future_failed;
static escqrs_status future_status; /* of the failure */
static int future_ended;

static void complete(escqrs_future *future, escqrs_envelope *got, const escqrs_failure *failure)
{
    (void)future;
    assert_true((got == NULL) != (failure == NULL));
    future_answer = got;
    future_failed += failure != NULL;
    future_status = failure != NULL ? failure->status : ESCQRS_OK;
}

static void ended(escqrs_future *future)
{
    (void)future;
    future_ended++;
}

static const escqrs_future_ops FUTURE_OPS = {complete, ended};

static void future_reset(void)
{
    future_answer = NULL;
    future_failed = 0;
    future_ended = 0;
}

static void test_continuations_share_their_message(void **state)
{
    (void)state;
    future_reset();
    escqrs_actor_system *system = manual_system();
    script one = {.handle = make_two};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    escqrs_future future;
    escqrs_future_init(&future, &FUTURE_OPS, ref);
    escqrs_tell(ref, note_new(5), &future.ref);
    escqrs_ref_release(&future.ref);
    settle(system);
    escqrs_continuation_post(&laters[0]->continuation);
    settle(system);
    assert_int_equal(notes_alive, 1);
    assert_int_equal(future_ended, 0);
    escqrs_continuation_post(&laters[1]->continuation);
    settle(system);
    assert_string_equal(one.log, "Started 5 later 5 later 5 ");
    assert_int_equal(note_value(future_answer), 7);
    assert_int_equal(future_ended, 1);
    escqrs_envelope_destroy(future_answer);
    assert_int_equal(notes_alive, 0);

    tell(ref, 6); /* and once with a stop between */
    settle(system);
    escqrs_stop(ref);
    settle(system);
    escqrs_continuation_post(&laters[0]->continuation);
    escqrs_continuation_post(&laters[1]->continuation);
    assert_int_equal(notes_alive, 0);
    escqrs_ref_release(ref);
    system_end(system);
}

/* ---- futures ---------------------------------------------------------------------------------- */

static void test_a_future_takes_one_answer(void **state)
{
    (void)state;
    future_reset();
    escqrs_future future;
    escqrs_future_init(&future, &FUTURE_OPS, NULL);
    assert_int_equal(escqrs_ref_kind_of(&future.ref), ESCQRS_REF_FUTURE);
    assert_int_equal(escqrs_tell(&future.ref, note_new(1), NULL), ESCQRS_OK);
    assert_int_equal(escqrs_tell(&future.ref, note_new(2), NULL), ESCQRS_OK);
    assert_int_equal(note_value(future_answer), 1);
    escqrs_envelope_destroy(future_answer);
    assert_false(escqrs_future_abandon(&future));
    escqrs_ref_release(&future.ref);
    assert_int_equal(future_ended, 1);
    assert_int_equal(notes_alive, 0);
}

static void test_an_abandoned_future_hears_nothing(void **state)
{
    (void)state;
    future_reset();
    escqrs_future future;
    escqrs_future_init(&future, &FUTURE_OPS, NULL);
    assert_true(escqrs_future_abandon(&future));
    escqrs_tell(&future.ref, note_new(1), NULL);
    escqrs_ref_release(&future.ref);
    assert_null(future_answer);
    assert_int_equal(future_failed, 0);
    assert_int_equal(future_ended, 1);
    assert_int_equal(notes_alive, 0);
}

/* Its count is of those who may answer: the last to go fails it. */
static void test_a_future_that_nobody_can_answer_fails(void **state)
{
    (void)state;
    future_reset();
    escqrs_future future;
    escqrs_future_init(&future, &FUTURE_OPS, NULL);
    escqrs_ref_release(&future.ref);
    assert_int_equal(future_failed, 1);
    assert_int_equal(future_ended, 1);
}

/* ---- sinks ------------------------------------------------------------------------------------ */

typedef struct basin {
    escqrs_sink sink;
    bool closed;
    int64_t last;
    int released;
} basin;

static bool basin_deliver(escqrs_sink *sink, escqrs_envelope *envelope)
{
    basin *self = (basin *)sink;
    if (self->closed) {
        return false;
    }
    self->last = note_value(envelope);
    escqrs_envelope_destroy(envelope);
    return true;
}

static void basin_released(escqrs_sink *sink)
{
    ((basin *)sink)->released++;
}

static const escqrs_sink_ops BASIN_OPS = {basin_deliver, basin_released};

static void test_a_sink_gets_what_is_told_to_it(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = answer};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    basin stream = {0};
    escqrs_sink_init(&stream.sink, &BASIN_OPS, system);
    escqrs_tell(ref, note_new(1), &stream.sink.ref);
    settle(system);
    assert_int_equal(stream.last, 2);
    stream.closed = true;
    assert_int_equal(escqrs_tell(&stream.sink.ref, note_new(3), NULL), ESCQRS_CLOSED);
    escqrs_ref_release(&stream.sink.ref);
    assert_int_equal(stream.released, 1);
    escqrs_ref_release(ref);
    system_end(system);
}

/* ---- suspension ------------------------------------------------------------------------------- */

static escqrs_turn_end suspend(script *self, escqrs_context *context, escqrs_envelope *message)
{
    (void)self;
    (void)context;
    return message->type == &NOTE || message->type == &escqrs_stopping ? ESCQRS_TURN_SUSPEND
                                                                       : ESCQRS_TURN_NEXT;
}

static escqrs_turn_end resume(script *self, escqrs_context *context)
{
    escqrs_envelope *message = escqrs_context_message(context);
    script_say(self, "resumed");
    if (message->type == &NOTE && note_value(message) == 3) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "after all");
    }
    if (escqrs_context_sender(context) != NULL) {
        escqrs_context_respond(context, note_new(1));
    }
    return ESCQRS_TURN_NEXT;
}

static void test_a_suspended_actor_goes_on_where_it_was(void **state)
{
    (void)state;
    future_reset();
    escqrs_actor_system *system = manual_system();
    script one = {.handle = suspend, .resume = resume};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    escqrs_future future;
    escqrs_future_init(&future, &FUTURE_OPS, ref);
    escqrs_tell(ref, note_new(1), &future.ref);
    escqrs_ref_release(&future.ref);
    tell(ref, 2);
    settle(system);
    assert_string_equal(one.log, "Started 1 ");
    escqrs_ref_resume(ref);
    settle(system);
    assert_string_equal(one.log, "Started 1 resumed 2 ");
    assert_int_equal(note_value(future_answer), 1);
    escqrs_envelope_destroy(future_answer);
    tell(ref, 3);
    escqrs_ref_resume(ref);
    settle(system);
    escqrs_ref_resume(ref); /* 3 fails in its resume: restarted */
    settle(system);
    assert_string_equal(one.log, "Started 1 resumed 2 resumed 3 resumed Restarting Started ");
    escqrs_stop(ref);
    tell(ref, 4);
    settle(system);
    assert_int_equal(escqrs_ref_state_of(ref), ESCQRS_REF_STOPPING);
    escqrs_ref_resume(ref);
    settle(system);
    assert_int_equal(escqrs_ref_state_of(ref), ESCQRS_REF_STOPPED);
    escqrs_ref_release(ref);
    system_end(system);
}

static escqrs_turn_end suspend_alone(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)context, (void)state;
    return message->type == &NOTE ? ESCQRS_TURN_SUSPEND : ESCQRS_TURN_NEXT;
}

static void test_who_suspends_without_a_resume_fails(void **state)
{
    (void)state;
    static const escqrs_actor_class class = {.name = "Stuck", .receive = suspend_alone};
    future_reset();
    escqrs_actor_system *system = manual_system();
    escqrs_props *props = NULL;
    escqrs_ref *ref = NULL;
    escqrs_future future;
    assert_int_equal(
        escqrs_props_create(&(escqrs_props_options){.actor_class = &class}, &props, NULL),
        ESCQRS_OK);
    assert_int_equal(escqrs_actor_system_spawn(system, props, escqrs_slice_of("stuck"), &ref, NULL),
                     ESCQRS_OK);
    escqrs_props_release(props);
    escqrs_future_init(&future, &FUTURE_OPS, ref);
    escqrs_tell(ref, note_new(1), &future.ref);
    escqrs_ref_release(&future.ref);
    settle(system);
    escqrs_ref_resume(ref);
    settle(system);
    assert_int_equal(future_failed, 1);
    assert_int_equal(future_status, ESCQRS_INVALID);
    assert_int_equal(escqrs_ref_state_of(ref), ESCQRS_REF_RUNNING); /* restarted */
    escqrs_ref_release(ref);
    system_end(system);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ask_runs_an_idle_actor_here_or_waits_for_a_worker),
        cmocka_unit_test(test_a_forwarded_question_is_answered_by_the_other),
        cmocka_unit_test(test_asking_a_stopped_actor_is_an_error_at_once),
        cmocka_unit_test(test_an_actor_that_stops_without_answering_ends_the_question),
        cmocka_unit_test(test_an_answer_never_given_is_a_timeout_or_the_end),
        cmocka_unit_test(test_a_manual_system_says_that_nothing_is_left),
        cmocka_unit_test(test_a_manual_system_keeps_the_deadline),
        cmocka_unit_test(test_asking_oneself_and_each_other_is_a_deadlock),
        cmocka_unit_test(test_an_actor_goes_on_with_the_answer),
        cmocka_unit_test(test_a_continuation_ends_with_its_actor),
        cmocka_unit_test(test_continuations_share_their_message),
        cmocka_unit_test(test_a_future_takes_one_answer),
        cmocka_unit_test(test_an_abandoned_future_hears_nothing),
        cmocka_unit_test(test_a_future_that_nobody_can_answer_fails),
        cmocka_unit_test(test_a_sink_gets_what_is_told_to_it),
        cmocka_unit_test(test_a_suspended_actor_goes_on_where_it_was),
        cmocka_unit_test(test_who_suspends_without_a_resume_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
