/* Timers with virtual time, the receive timeout, and one test with the real clock; topics. */
#include "runtime/actors.h"

/* ---- timers ----------------------------------------------------------------------------------- */

#define ONCE 100   /* + delay */
#define EVERY 1000 /* + interval */
#define CANCEL 10
#define FAIL 11
#define TO_OTHER 12
#define TIMEOUT 5000 /* + receive timeout */

typedef struct clockwork {
    escqrs_timer *timer;
    escqrs_ref *other;
} clockwork;

static escqrs_turn_end timed(script *self, escqrs_context *context, escqrs_envelope *message)
{
    clockwork *clock = self->data;
    if (message->type != &NOTE) {
        return ESCQRS_TURN_NEXT;
    }
    int64_t value = note_value(message);
    escqrs_error error = {0};
    if (value >= TIMEOUT) {
        assert_int_equal(escqrs_context_set_receive_timeout(context, value - TIMEOUT, &error),
                         ESCQRS_OK);
    } else if (value >= EVERY) {
        assert_int_equal(escqrs_context_schedule(context, NULL, note_new(2), value - EVERY,
                                                 value - EVERY, &clock->timer, &error),
                         ESCQRS_OK);
    } else if (value >= ONCE) {
        assert_int_equal(escqrs_context_schedule(context, NULL, note_new(1), value - ONCE, 0,
                                                 &clock->timer, &error),
                         ESCQRS_OK);
    } else if (value == TO_OTHER) {
        assert_int_equal(
            escqrs_context_schedule(context, clock->other, note_new(3), 10, 10, NULL, &error),
            ESCQRS_OK);
    } else if (value == CANCEL) {
        assert_true(escqrs_timer_cancel(clock->timer));
        assert_false(escqrs_timer_cancel(clock->timer));
    } else if (value == FAIL) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "on purpose");
    }
    return ESCQRS_TURN_NEXT;
}

static void advance(escqrs_actor_system *system, int64_t to_ns)
{
    while (escqrs_actor_system_next_due(system) <= to_ns) {
        escqrs_actor_system_advance(system, escqrs_actor_system_next_due(system));
        settle(system);
    }
    escqrs_actor_system_advance(system, to_ns);
    settle(system);
}

static void test_timers_go_off_once_and_again(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    clockwork clock = {0};
    script one = {.handle = timed, .data = &clock};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    tell(ref, ONCE + 25);
    settle(system);
    escqrs_timer_release(clock.timer);
    tell(ref, EVERY + 10);
    settle(system);
    assert_string_equal(one.log, "Started 125 1010 ");
    advance(system, 9);
    assert_string_equal(one.log, "Started 125 1010 ");
    advance(system, 30);
    assert_string_equal(one.log, "Started 125 1010 2 2 1 2 ");
    /* ticks of an actor that does not look are one */
    escqrs_actor_system_advance(system, 60);
    settle(system);
    assert_string_equal(one.log, "Started 125 1010 2 2 1 2 2 ");
    /* one that was sent is not handled after the cancel */
    tell(ref, CANCEL);
    escqrs_actor_system_advance(system, 70);
    settle(system);
    advance(system, 1000);
    assert_string_equal(one.log, "Started 125 1010 2 2 1 2 2 10 ");
    assert_int_equal(escqrs_actor_system_next_due(system), INT64_MAX);
    escqrs_timer_release(clock.timer);
    escqrs_ref_release(ref);
    system_end(system);
}

static void test_timers_end_with_the_instance(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    clockwork clock = {0};
    script one = {.handle = timed, .data = &clock};
    script two = {0};
    clock.other = spawn_script(system, &two, "two");
    escqrs_ref *ref = spawn_script(system, &one, "one");
    tell(ref, TO_OTHER);
    settle(system);
    advance(system, 20);
    assert_string_equal(two.log, "Started 3 3 ");
    tell(ref, FAIL);
    settle(system);
    advance(system, 100);
    assert_string_equal(two.log, "Started 3 3 ");
    tell(ref, TO_OTHER);
    tell(ref, ONCE + 5);
    settle(system);
    escqrs_stop(ref);
    settle(system);
    assert_int_equal(escqrs_actor_system_next_due(system), INT64_MAX);
    assert_false(escqrs_timer_cancel(clock.timer));
    escqrs_timer_release(clock.timer);
    escqrs_ref_release(clock.other);
    escqrs_ref_release(ref);
    system_end(system);
}

static const escqrs_message_type UNCOPIED = {.name = "Uncopied"};

static escqrs_turn_end schedule_wrongly(script *self, escqrs_context *context,
                                        escqrs_envelope *message)
{
    (void)self;
    if (message->type != &escqrs_started) {
        return ESCQRS_TURN_NEXT;
    }
    escqrs_error error = {0};
    escqrs_envelope *uncopied = escqrs_alloc_zero(sizeof *uncopied);
    assert_non_null(uncopied);
    uncopied->type = &UNCOPIED;
    assert_int_equal(escqrs_context_schedule(context, NULL, uncopied, 1, 1, NULL, &error),
                     ESCQRS_INVALID);
    assert_int_equal(escqrs_context_schedule(context, NULL, note_new(1), -1, 0, NULL, &error),
                     ESCQRS_INVALID);
    assert_int_equal(escqrs_context_set_receive_timeout(context, -1, &error), ESCQRS_INVALID);
    return ESCQRS_TURN_NEXT;
}

static void test_timers_that_cannot_be(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = schedule_wrongly};
    escqrs_ref_release(spawn_script(system, &one, NULL));
    settle(system);
    assert_string_equal(one.log, "Started ");
    system_end(system);
}

static void test_receive_timeout_comes_after_silence(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    clockwork clock = {0};
    script one = {.handle = timed, .data = &clock};
    escqrs_ref *ref =
        spawn_props(system,
                    props_make(&(escqrs_props_options){
                        .actor_class = &SCRIPT, .user_data = &one, .receive_timeout_ns = 100}),
                    "one");
    settle(system);
    advance(system, 60);
    tell(ref, 1);
    settle(system);
    advance(system, 159);
    assert_string_equal(one.log, "Started 1 ");
    advance(system, 260);
    assert_string_equal(one.log, "Started 1 ReceiveTimeout ReceiveTimeout ");
    tell(ref, TIMEOUT + 0);
    settle(system);
    advance(system, 1000);
    assert_string_equal(one.log, "Started 1 ReceiveTimeout ReceiveTimeout 5000 ");
    tell(ref, TIMEOUT + 10);
    settle(system);
    advance(system, 1010);
    assert_string_equal(one.log,
                        "Started 1 ReceiveTimeout ReceiveTimeout 5000 5010 ReceiveTimeout ");
    escqrs_ref_release(ref);
    system_end(system);
}

static tally ticks = TALLY_ZERO;

static escqrs_turn_end tick_on(script *self, escqrs_context *context, escqrs_envelope *message)
{
    self->log[0] = '\0';
    escqrs_error error = {0};
    if (message->type == &escqrs_started) {
        assert_int_equal(escqrs_context_schedule(context, NULL, note_new(1), 0, 1000, NULL, &error),
                         ESCQRS_OK);
    }
    if (message->type == &NOTE) {
        tally_add(&ticks, 1);
    }
    return ESCQRS_TURN_NEXT;
}

static void test_timers_of_the_real_clock(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    script one = {.handle = tick_on};
    escqrs_ref_release(spawn_script(system, &one, NULL));
    tally_wait(&ticks, 20);
    system_end(system);
}

/* ---- topics ----------------------------------------------------------------------------------- */

typedef struct reader {
    int64_t sum;
    int count;
    int released;
    escqrs_subscription *own;
} reader;

static void read_event(void *data, const escqrs_envelope *event)
{
    reader *self = data;
    self->count++;
    self->sum += event->type == &NOTE ? note_value(event) : 0;
    if (self->own != NULL) { /* from within */
        escqrs_subscription *own = self->own;
        self->own = NULL;
        escqrs_unsubscribe(own);
    }
}

static void reader_released(void *data)
{
    ((reader *)data)->released++;
}

static void test_events_reach_who_subscribed_to_their_type(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    escqrs_error error = {0};
    reader notes = {0};
    reader all = {0};
    reader once = {0};
    escqrs_subscription *subscription;
    assert_false(escqrs_has_subscribers(system));
    escqrs_publish(system, note_new(1));
    assert_int_equal(
        escqrs_subscribe(system, &NOTE, read_event, &notes, reader_released, &subscription, &error),
        ESCQRS_OK);
    assert_int_equal(
        escqrs_subscribe(system, NULL, read_event, &all, reader_released, NULL, &error), ESCQRS_OK);
    assert_int_equal(
        escqrs_subscribe(system, &NOTE, read_event, &once, reader_released, &once.own, &error),
        ESCQRS_OK);
    script one = {0};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    assert_int_equal(escqrs_subscribe_ref(system, &NOTE, ref, NULL, &error), ESCQRS_OK);
    assert_int_equal(escqrs_subscribe_ref(system, &NOTE, NULL, NULL, &error), ESCQRS_INVALID);
    assert_int_equal(escqrs_subscribe(system, &NOTE, NULL, NULL, NULL, NULL, &error),
                     ESCQRS_INVALID);
    escqrs_publish(system, note_new(2));
    escqrs_publish(system, note_new(3));
    settle(system);
    assert_string_equal(one.log, "Started 2 3 ");
    assert_int_equal(notes.sum, 5);
    assert_int_equal(all.sum, 5);
    assert_int_equal(once.sum, 2);
    assert_int_equal(once.released, 1);
    escqrs_unsubscribe(subscription);
    assert_int_equal(notes.released, 1);
    escqrs_stop(ref);
    settle(system);
    escqrs_publish(system, note_new(4));
    settle(system);
    assert_int_equal(notes.sum, 5);
    assert_int_equal(all.sum, 9);
    escqrs_ref_release(ref);
    system_end(system);
    assert_int_equal(all.released, 1);
    assert_int_equal(notes_alive, 0);
}

static void read_letter(void *data, const escqrs_envelope *event)
{
    const escqrs_dead_letter_event *dead = (const escqrs_dead_letter_event *)event;
    char to[64] = "nobody";
    char line[96];
    if (dead->to != NULL) {
        escqrs_ref_path(dead->to, to, sizeof to);
    }
    snprintf(line, sizeof line, "%lld to %s", (long long)note_value(dead->letter), to);
    script_say(data, line);
}

static escqrs_turn_end respond(script *self, escqrs_context *context, escqrs_envelope *message)
{
    (void)self;
    if (message->type == &NOTE) {
        escqrs_context_respond(context, note_new(note_value(message) + 1));
    }
    return ESCQRS_TURN_NEXT;
}

static void test_dead_letters_say_who_did_not_get_them(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    escqrs_error error = {0};
    script seen = {0};
    script listener = {0};
    assert_int_equal(
        escqrs_subscribe(system, &escqrs_dead_letter, read_letter, &seen, NULL, NULL, &error),
        ESCQRS_OK);
    escqrs_ref *listener_ref = spawn_script(system, &listener, "listener");
    assert_int_equal(escqrs_subscribe_ref(system, &escqrs_dead_letter, listener_ref, NULL, &error),
                     ESCQRS_OK);
    script one = {.handle = respond};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    settle(system);
    tell(ref, 1); /* without a sender */
    settle(system);
    escqrs_stop(ref);
    tell(ref, 5);
    settle(system);
    tell(ref, 6);
    settle(system);
    assert_string_equal(seen.log, "2 to nobody 5 to one 6 to one ");
    assert_string_equal(listener.log, "Started DeadLetter DeadLetter DeadLetter ");
    escqrs_stop(listener_ref);
    settle(system);
    tell(ref, 7);
    settle(system);
    escqrs_ref_release(ref);
    escqrs_ref_release(listener_ref);
    system_end(system);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timers_go_off_once_and_again),
        cmocka_unit_test(test_timers_end_with_the_instance),
        cmocka_unit_test(test_timers_that_cannot_be),
        cmocka_unit_test(test_receive_timeout_comes_after_silence),
        cmocka_unit_test(test_timers_of_the_real_clock),
        cmocka_unit_test(test_events_reach_who_subscribed_to_their_type),
        cmocka_unit_test(test_dead_letters_say_who_did_not_get_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
