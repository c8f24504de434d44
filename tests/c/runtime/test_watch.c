/* Watching: one Terminated for each, whenever the other stops; behaviours and the stash. */
#include "runtime/actors.h"

/* ---- watching --------------------------------------------------------------------------------- */

#define WATCH 10
#define UNWATCH 11
#define SLEEP 12
#define FAIL 13

static escqrs_turn_end watcher_handle(script *self, escqrs_context *context,
                                      escqrs_envelope *message)
{
    escqrs_ref *other = self->data;
    escqrs_error error = {0};
    if (message->type == &escqrs_terminated) {
        assert_ptr_equal(((escqrs_terminated_message *)message)->who, other);
        assert_int_equal(escqrs_ref_state_of(other), ESCQRS_REF_STOPPED);
        return ESCQRS_TURN_NEXT;
    }
    if (message->type != &NOTE) {
        return ESCQRS_TURN_NEXT;
    }
    switch (note_value(message)) {
    case WATCH:
        assert_int_equal(escqrs_context_watch(context, other, &error), ESCQRS_OK);
        break;
    case UNWATCH:
        escqrs_context_unwatch(context, other);
        break;
    case SLEEP:
        return ESCQRS_TURN_SUSPEND;
    case FAIL:
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "on purpose");
    default:
        break;
    }
    return ESCQRS_TURN_NEXT;
}

typedef struct pair {
    escqrs_actor_system *system;
    script watcher, target;
    escqrs_ref *watcher_ref, *target_ref;
} pair;

static void pair_begin(pair *both)
{
    memset(both, 0, sizeof *both);
    both->system = manual_system();
    both->target_ref = spawn_script(both->system, &both->target, "target");
    both->watcher = (script){.handle = watcher_handle, .data = both->target_ref};
    both->watcher_ref = spawn_script(both->system, &both->watcher, "watcher");
    settle(both->system);
}

static void pair_end(pair *both)
{
    escqrs_ref_release(both->watcher_ref);
    escqrs_ref_release(both->target_ref);
    system_end(both->system);
}

static void test_one_terminated_however_often_watched(void **state)
{
    (void)state;
    pair both;
    pair_begin(&both);
    tell(both.watcher_ref, WATCH);
    tell(both.watcher_ref, WATCH);
    settle(both.system);
    escqrs_stop(both.target_ref);
    settle(both.system);
    assert_string_equal(both.watcher.log, "Started 10 10 Terminated ");
    tell(both.watcher_ref, WATCH); /* it has stopped already */
    settle(both.system);
    assert_string_equal(both.watcher.log, "Started 10 10 Terminated 10 Terminated ");
    pair_end(&both);
}

static void test_no_terminated_after_unwatch(void **state)
{
    (void)state;
    pair both;
    pair_begin(&both);
    tell(both.watcher_ref, WATCH);
    tell(both.watcher_ref, UNWATCH);
    settle(both.system);
    tell(both.watcher_ref, WATCH);
    settle(both.system);
    tell(both.watcher_ref, SLEEP);
    settle(both.system);
    escqrs_stop(both.target_ref);
    settle(both.system);
    /* Terminated waits for the resume, and the unwatch comes after it: too late */
    tell(both.watcher_ref, UNWATCH);
    escqrs_ref_resume(both.watcher_ref);
    settle(both.system);
    assert_string_equal(both.watcher.log, "Started 10 11 10 12 Terminated 11 ");

    pair other;
    pair_begin(&other);
    tell(other.watcher_ref, WATCH);
    settle(other.system);
    tell(other.watcher_ref, UNWATCH);
    settle(other.system);
    escqrs_stop(other.target_ref);
    settle(other.system);
    assert_string_equal(other.watcher.log, "Started 10 11 ");
    pair_end(&other);
    pair_end(&both);
}

static void test_a_watcher_that_stops_or_restarts(void **state)
{
    (void)state;
    pair both;
    pair_begin(&both);
    tell(both.watcher_ref, WATCH);
    tell(both.watcher_ref, FAIL);
    settle(both.system);
    escqrs_stop(both.target_ref);
    settle(both.system);
    assert_string_equal(both.watcher.log, "Started 10 13 Restarting Started Terminated ");
    pair_end(&both);

    pair_begin(&both);
    tell(both.watcher_ref, WATCH);
    settle(both.system);
    escqrs_stop(both.watcher_ref);
    settle(both.system);
    escqrs_stop(both.target_ref);
    settle(both.system);
    assert_string_equal(both.watcher.log, "Started 10 Stopping Stopped ");
    pair_end(&both);
}

static escqrs_turn_end watch_wrongly(script *self, escqrs_context *context,
                                     escqrs_envelope *message)
{
    (void)self;
    (void)message;
    escqrs_error error = {0};
    assert_int_equal(escqrs_context_watch(context, escqrs_context_self(context), &error),
                     ESCQRS_INVALID);
    escqrs_context_unwatch(context, escqrs_context_self(context));
    return ESCQRS_TURN_NEXT;
}

static void test_nobody_watches_himself(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = watch_wrongly};
    escqrs_ref_release(spawn_script(system, &one, NULL));
    settle(system);
    assert_string_equal(one.log, "Started ");
    system_end(system);
}

/* ---- behaviours and stash --------------------------------------------------------------------- */

#define OPEN 20
#define CLOSE 21

static escqrs_turn_end closed_door(escqrs_context *context, void *instance,
                                   escqrs_envelope *message)
{
    script *self = instance;
    escqrs_error error = {0};
    if (message->type == &NOTE && note_value(message) == OPEN) {
        script_say(self, "open");
        escqrs_context_unbecome(context);
        escqrs_context_unstash_all(context);
        return ESCQRS_TURN_NEXT;
    }
    if (message->type != &NOTE) {
        script_say_message(self, message);
        assert_int_equal(escqrs_context_stash(context, &error), ESCQRS_INVALID);
        return ESCQRS_TURN_NEXT;
    }
    escqrs_status status = escqrs_context_stash(context, &error);
    if (status == ESCQRS_MAILBOX_FULL) {
        script_say(self, "full");
        assert_non_null(escqrs_context_message(context));
        escqrs_envelope_destroy(escqrs_context_take(context));
        assert_int_equal(escqrs_context_stash(context, &error), ESCQRS_INVALID); /* there is none */
    } else {
        assert_int_equal(status, ESCQRS_OK);
    }
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end open_door(script *self, escqrs_context *context, escqrs_envelope *message)
{
    (void)self;
    escqrs_error error = {0};
    if (message->type == &NOTE && note_value(message) == CLOSE) {
        assert_int_equal(escqrs_context_become(context, closed_door, &error), ESCQRS_OK);
    }
    if (message->type == &NOTE && note_value(message) == FAIL) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "on purpose");
    }
    return ESCQRS_TURN_NEXT;
}

static void door(const escqrs_mailbox_options *mailbox)
{
    escqrs_actor_system *system = manual_system();
    script one = {.handle = open_door};
    escqrs_ref *ref = spawn_props(
        system,
        props_make(&(escqrs_props_options){
            .actor_class = &SCRIPT, .user_data = &one, .stash_max = 3, .mailbox = *mailbox}),
        "door");
    tell(ref, CLOSE);
    for (int i = 1; i <= 4; i++) {
        tell(ref, i);
    }
    tell(ref, OPEN);
    tell(ref, 5);
    settle(system);
    assert_string_equal(one.log, "Started 21 full open 1 2 3 5 ");
    tell(ref, CLOSE);
    tell(ref, 6);
    settle(system);
    escqrs_stop(ref);
    settle(system);
    assert_string_equal(one.log, "Started 21 full open 1 2 3 5 21 Stopping Stopped ");
    assert_int_equal(notes_alive, 0);
    escqrs_ref_release(ref);
    system_end(system);
}

static void test_what_is_put_aside_comes_back_before_the_mailbox(void **state)
{
    (void)state;
    door(&(escqrs_mailbox_options){0});
    door(&(escqrs_mailbox_options){.statistics = true});
}

static escqrs_turn_end pile_up(script *self, escqrs_context *context, escqrs_envelope *message)
{
    (void)self;
    if (message->type != &escqrs_started) {
        return ESCQRS_TURN_NEXT;
    }
    escqrs_error error = {0};
    escqrs_context_unbecome(context); /* there is none: nothing happens */
    assert_int_equal(escqrs_context_become(context, NULL, &error), ESCQRS_INVALID);
    for (int i = 0; i < 256; i++) {
        assert_int_equal(escqrs_context_become(context, closed_door, &error), ESCQRS_OK);
    }
    assert_int_equal(escqrs_context_become(context, closed_door, &error), ESCQRS_TOO_LARGE);
    return ESCQRS_TURN_NEXT;
}

static void test_behaviours_are_bounded(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = pile_up};
    escqrs_ref_release(spawn_script(system, &one, NULL));
    settle(system);
    assert_string_equal(one.log, "Started ");
    system_end(system);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_terminated_however_often_watched),
        cmocka_unit_test(test_no_terminated_after_unwatch),
        cmocka_unit_test(test_a_watcher_that_stops_or_restarts),
        cmocka_unit_test(test_nobody_watches_himself),
        cmocka_unit_test(test_what_is_put_aside_comes_back_before_the_mailbox),
        cmocka_unit_test(test_behaviours_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
