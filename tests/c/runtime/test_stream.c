/* Streams: what comes, when they are closed, several readers, readers inside actors, being told. */
#include "runtime/actors.h"

#include <pthread.h>
#include <signal.h>

static escqrs_stream *open_stream(escqrs_actor_system *system)
{
    escqrs_stream *stream = NULL;
    escqrs_error error = {0};
    if (escqrs_stream_open(system, NULL, &stream, &error) != ESCQRS_OK) {
        fail_msg("open: %s", error.message);
    }
    return stream;
}

/* The value of the next message; fails where there is none. */
static int64_t next_value(escqrs_stream *stream)
{
    escqrs_envelope *message = NULL;
    escqrs_error error = {0};
    if (escqrs_stream_next(stream, INT64_MAX, &message, &error) != ESCQRS_OK) {
        fail_msg("next: %s", error.message);
    }
    int64_t value = note_value(message);
    escqrs_envelope_destroy(message);
    return value;
}

static void assert_nothing(escqrs_stream *stream, escqrs_status status)
{
    escqrs_envelope *message = (escqrs_envelope *)stream;
    escqrs_error error = {0};
    assert_int_equal(escqrs_stream_next(stream, 0, &message, &error), status);
    assert_null(message);
    assert_int_equal(error.status, status);
    assert_int_equal(escqrs_stream_wait(stream, 0, &error), status);
    message = (escqrs_envelope *)stream;
    assert_int_equal(escqrs_stream_try_next(stream, &message), status);
    assert_null(message);
}

/* Answers n with n + 100. */
static escqrs_turn_end answer(script *self, escqrs_context *context, escqrs_envelope *message)
{
    (void)self;
    if (message->type == &NOTE) {
        escqrs_context_respond(context, note_new(note_value(message) + 100));
    }
    return ESCQRS_TURN_NEXT;
}

static void count_letter(void *data, const escqrs_envelope *event)
{
    const escqrs_dead_letter_event *dead = (const escqrs_dead_letter_event *)event;
    char name[16];
    escqrs_ref_name(dead->to, name, sizeof name);
    assert_string_equal(name, "stream");
    atomic_fetch_add((_Atomic int64_t *)data, 1);
}

static void count_letters(escqrs_actor_system *system, _Atomic int64_t *count)
{
    escqrs_error error = {0};
    assert_int_equal(escqrs_subscribe(system, &escqrs_dead_letter, count_letter, (void *)count,
                                      NULL, NULL, &error),
                     ESCQRS_OK);
}

/* ---- one thread ------------------------------------------------------------------------------- */

static void test_answers_come_in_the_order_sent(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    script one = {.handle = answer};
    escqrs_ref *ref = spawn_script(system, &one, "one");
    escqrs_stream *stream = open_stream(system);
    assert_nothing(stream, ESCQRS_TIMEOUT);
    escqrs_tell(ref, note_new(1), escqrs_stream_ref(stream));
    escqrs_tell(ref, note_new(2), escqrs_stream_ref(stream));
    assert_nothing(stream, ESCQRS_TIMEOUT); /* a deadline in the past runs nobody */
    assert_int_equal(next_value(stream), 101);
    settle(system);
    escqrs_tell(escqrs_stream_ref(stream), note_new(3), ref);
    escqrs_envelope *message = NULL;
    assert_int_equal(escqrs_stream_try_next(stream, &message), ESCQRS_OK);
    assert_int_equal(note_value(message), 102);
    escqrs_envelope_destroy(message);
    assert_int_equal(escqrs_stream_try_next(stream, &message), ESCQRS_OK);
    assert_ptr_equal(message->sender, ref);
    escqrs_tell(ref, message, escqrs_stream_ref(stream)); /* the same message is sent on */
    assert_int_equal(next_value(stream), 103);
    escqrs_error error = {0};
    assert_int_equal(escqrs_stream_next(stream, INT64_MAX, &message, &error), ESCQRS_TIMEOUT);
    escqrs_stream_release(stream);
    escqrs_ref_release(ref);
    system_end(system);
}

static void test_what_had_come_is_read_after_the_close(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    _Atomic int64_t letters = 0;
    count_letters(system, &letters);
    escqrs_stream *stream = open_stream(system);
    escqrs_ref *ref = escqrs_stream_ref(stream);
    char name[16];
    assert_int_equal(escqrs_ref_path(ref, name, sizeof name), 6);
    assert_string_equal(name, "stream");
    assert_int_equal(escqrs_ref_kind_of(ref), ESCQRS_REF_SINK);
    assert_int_equal(escqrs_ref_state_of(ref), ESCQRS_REF_RUNNING);
    assert_int_equal(escqrs_tell(ref, note_new(1), NULL), ESCQRS_OK);
    assert_int_equal(escqrs_tell(ref, note_new(2), NULL), ESCQRS_OK);
    assert_int_equal(next_value(stream), 1);
    escqrs_stream_close(stream);
    escqrs_stream_close(stream);
    assert_int_equal(escqrs_ref_state_of(ref), ESCQRS_REF_STOPPED);
    assert_int_equal(escqrs_tell(ref, note_new(3), NULL), ESCQRS_CLOSED);
    assert_int_equal(letters, 1);
    assert_int_equal(next_value(stream), 2);
    assert_nothing(stream, ESCQRS_CLOSED);
    escqrs_stream_release(stream);
    assert_int_equal(letters, 1);
    system_end(system);
}

static void test_what_nobody_read_is_dead_letters(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    _Atomic int64_t letters = 0;
    count_letters(system, &letters);
    escqrs_stream *stream = open_stream(system);
    escqrs_ref *ref = escqrs_stream_ref(stream);
    escqrs_ref_hold(ref);
    for (int64_t i = 0; i < 3; i++) {
        escqrs_tell(ref, note_new(i), NULL);
    }
    assert_int_equal(next_value(stream), 0); /* 1 and 2 have been taken off with it */
    escqrs_tell(ref, note_new(3), NULL);
    escqrs_stream_release(stream);
    assert_int_equal(letters, 3);
    assert_int_equal(escqrs_tell(ref, note_new(4), NULL), ESCQRS_CLOSED);
    assert_int_equal(letters, 4);
    escqrs_ref_release(ref);
    system_end(system);
}

static void test_a_stream_subscribes_until_it_is_closed(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    _Atomic int64_t letters = 0;
    count_letters(system, &letters);
    escqrs_stream *stream = open_stream(system);
    escqrs_ref *ref = escqrs_stream_ref(stream);
    escqrs_error error = {0};
    assert_int_equal(escqrs_subscribe_ref(system, &NOTE, ref, NULL, &error), ESCQRS_OK);
    escqrs_publish(system, note_new(7));
    assert_int_equal(next_value(stream), 7);
    escqrs_stream_close(stream);
    escqrs_publish(system, note_new(8));
    assert_nothing(stream, ESCQRS_CLOSED);
    assert_int_equal(letters, 0); /* the subscription has ended with it */
    escqrs_stream_release(stream);
    system_end(system);
}

static escqrs_turn_end watch_it(script *self, escqrs_context *context, escqrs_envelope *message)
{
    if (message->type == &escqrs_started) {
        escqrs_error error = {0};
        assert_int_equal(escqrs_context_watch(context, self->data, &error), ESCQRS_INVALID);
    }
    return ESCQRS_TURN_NEXT;
}

static void test_misuse_is_refused(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    escqrs_error error = {0};
    escqrs_envelope *message = NULL;
    escqrs_stream *stream = NULL;
    assert_int_equal(escqrs_stream_open(NULL, NULL, &stream, &error), ESCQRS_INVALID);
    assert_int_equal(escqrs_stream_open(system, NULL, NULL, &error), ESCQRS_INVALID);
    assert_int_equal(escqrs_stream_next(NULL, 0, &message, &error), ESCQRS_INVALID);
    assert_int_equal(escqrs_stream_try_next(NULL, &message), ESCQRS_INVALID);
    assert_int_equal(escqrs_stream_wait(NULL, 0, &error), ESCQRS_INVALID);
    escqrs_stream_close(NULL);
    escqrs_stream_release(NULL);
    escqrs_alloc_fail(1, false);
    assert_int_equal(escqrs_stream_open(system, NULL, &stream, &error), ESCQRS_NO_MEMORY);
    escqrs_alloc_fail(0, false);
    assert_null(stream);
    stream = open_stream(system);
    assert_int_equal(escqrs_stream_next(stream, 0, NULL, &error), ESCQRS_INVALID);
    assert_int_equal(escqrs_stream_try_next(stream, NULL), ESCQRS_INVALID);
    script one = {.handle = watch_it, .data = escqrs_stream_ref(stream)};
    escqrs_ref_release(spawn_script(system, &one, NULL));
    settle(system);
    escqrs_stream_release(stream);
    system_end(system);
}

/* ---- the end of the system -------------------------------------------------------------------- */

typedef struct reader {
    escqrs_stream *stream;
    tally *begun;
    int64_t sum;
    int64_t count;
    escqrs_status ended_with;
} reader;

static void read_all(void *context)
{
    reader *self = context;
    escqrs_envelope *message;
    tally_add(self->begun, 1);
    while ((self->ended_with = escqrs_stream_next(self->stream, INT64_MAX, &message, NULL)) ==
           ESCQRS_OK) {
        self->sum += note_value(message);
        self->count++;
        escqrs_envelope_destroy(message);
    }
}

/* Its last words go to the stream. */
static escqrs_turn_end say_farewell(script *self, escqrs_context *context, escqrs_envelope *message)
{
    if (message->type == &escqrs_stopped) {
        escqrs_context_tell(context, self->data, note_new(5));
    }
    return ESCQRS_TURN_NEXT;
}

static void test_the_end_of_the_system_ends_the_reading(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    escqrs_stream *stream = open_stream(system);
    script one = {.handle = say_farewell, .data = escqrs_stream_ref(stream)};
    escqrs_ref_release(spawn_script(system, &one, NULL));
    tally begun = TALLY_ZERO;
    reader readers[2] = {{.stream = stream, .begun = &begun}, {.stream = stream, .begun = &begun}};
    esc_thread threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(esc_thread_create(&threads[i], "reader", 0, read_all, &readers[i], NULL),
                         ESCQRS_OK);
    }
    tally_wait(&begun, 2);
    escqrs_error error = {0};
    assert_int_equal(escqrs_actor_system_stop(system, INT64_MAX, &error), ESCQRS_OK);
    for (int i = 0; i < 2; i++) {
        esc_thread_join(&threads[i]);
        assert_int_equal(readers[i].ended_with, ESCQRS_CLOSED);
    }
    assert_int_equal(readers[0].sum + readers[1].sum, 5);
    assert_int_equal(escqrs_tell(escqrs_stream_ref(stream), note_new(1), NULL), ESCQRS_CLOSED);
    escqrs_stream *late = NULL;
    assert_int_equal(escqrs_stream_open(system, NULL, &late, &error), ESCQRS_CLOSED);
    assert_null(late);
    escqrs_actor_system_destroy(system);
    escqrs_stream_release(stream); /* it may outlive the system */
    assert_int_equal(notes_alive, 0);
}

/* Reads what its own children say, and then waits for what nobody says. */
static escqrs_turn_end read_inside(script *self, escqrs_context *context, escqrs_envelope *message)
{
    if (message->type != &NOTE) {
        return ESCQRS_TURN_NEXT;
    }
    escqrs_stream *stream = open_stream(escqrs_context_system(context));
    script child = {.handle = answer};
    escqrs_ref *ref = spawn_child(context, &child, NULL);
    escqrs_tell(ref, note_new(1), escqrs_stream_ref(stream));
    assert_int_equal(next_value(stream), 101);
    escqrs_stop(ref);
    escqrs_error error = {0};
    assert_int_equal(escqrs_ref_wait_stopped(ref, INT64_MAX, &error), ESCQRS_OK);
    escqrs_ref_release(ref);
    tally_add(self->data, 1);
    assert_int_equal(escqrs_stream_next(stream, INT64_MAX, &message, &error), ESCQRS_CLOSED);
    assert_string_equal(error.message, "the stream is closed");
    escqrs_stream_release(stream);
    return ESCQRS_TURN_NEXT;
}

static void test_an_actor_that_waits_for_a_stream_does_not_keep_the_system(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    tally waits = TALLY_ZERO;
    script one = {.handle = read_inside, .data = &waits};
    escqrs_ref *ref = spawn_script(system, &one, NULL);
    tell(ref, 1);
    tally_wait(&waits, 1);
    escqrs_ref_release(ref);
    system_end(system);
    assert_string_equal(one.log, "Started 1 Stopping Stopped ");
}

/* ---- many at once ----------------------------------------------------------------------------- */

#define SENDERS 3
#define READERS 4
#define EACH 20000

typedef struct sender {
    escqrs_ref *to;
    int64_t number;
    int64_t refused;
} sender;

static void send_each(void *context)
{
    sender *self = context;
    for (int64_t i = 0; i < EACH; i++) {
        escqrs_status status = escqrs_tell(self->to, note_new(self->number * EACH + i), NULL);
        self->refused += status == ESCQRS_CLOSED;
    }
}

typedef struct fair_reader {
    escqrs_stream *stream;
    int style; /* 0: waits; 1: short deadlines; 2: only looks; 3: waits, then looks */
    int64_t last[SENDERS];
    int64_t count;
} fair_reader;

static escqrs_status read_in_style(fair_reader *self, escqrs_envelope **message)
{
    if (self->style == 3) {
        escqrs_status status = escqrs_stream_wait(self->stream, INT64_MAX, NULL);
        return status == ESCQRS_OK ? escqrs_stream_try_next(self->stream, message) : status;
    }
    if (self->style == 2) {
        escqrs_status status = escqrs_stream_try_next(self->stream, message);
        if (status == ESCQRS_TIMEOUT) {
            sched_yield();
        }
        return status;
    }
    int64_t deadline_ns = self->style == 0 ? INT64_MAX : esc_deadline_after(1000);
    return escqrs_stream_next(self->stream, deadline_ns, message, NULL);
}

static void read_fairly(void *context)
{
    fair_reader *self = context;
    for (;;) {
        escqrs_envelope *message;
        escqrs_status status = read_in_style(self, &message);
        if (status == ESCQRS_CLOSED) {
            return;
        }
        if (status == ESCQRS_TIMEOUT) {
            continue;
        }
        int64_t value = note_value(message);
        escqrs_envelope_destroy(message);
        assert_true(value % EACH >= self->last[value / EACH]); /* in the order of its sender */
        self->last[value / EACH] = value % EACH + 1;
        self->count++;
    }
}

/* Senders and readers at once; closes after the senders, or `early`. */
static void senders_and_readers(bool early)
{
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    _Atomic int64_t letters = 0;
    count_letters(system, &letters);
    escqrs_stream *stream = open_stream(system);
    esc_thread sending[SENDERS], reading[READERS];
    sender senders[SENDERS];
    fair_reader readers[READERS];
    for (int i = 0; i < READERS; i++) {
        readers[i] = (fair_reader){.stream = stream, .style = i};
        assert_int_equal(
            esc_thread_create(&reading[i], "reader", 0, read_fairly, &readers[i], NULL), ESCQRS_OK);
    }
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (sender){.to = escqrs_stream_ref(stream), .number = i};
        assert_int_equal(esc_thread_create(&sending[i], "sender", 0, send_each, &senders[i], NULL),
                         ESCQRS_OK);
    }
    int64_t seen = 0, refused = 0;
    if (early) {
        escqrs_stream_close(stream);
    }
    for (int i = 0; i < SENDERS; i++) {
        esc_thread_join(&sending[i]);
        refused += senders[i].refused;
    }
    escqrs_stream_close(stream);
    for (int i = 0; i < READERS; i++) {
        esc_thread_join(&reading[i]);
        seen += readers[i].count;
    }
    assert_int_equal(letters, refused);
    assert_int_equal(seen + refused, SENDERS * EACH);
    assert_true(early || refused == 0);
    escqrs_stream_release(stream);
    assert_int_equal(letters, refused);
    system_end(system);
}

static void test_each_message_goes_to_one_of_several_readers(void **state)
{
    (void)state;
    senders_and_readers(false);
}

static void test_beside_the_close_each_message_is_read_or_a_dead_letter(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        senders_and_readers(true);
    }
}

static void ask_it(void *context)
{
    escqrs_ref *ref = context;
    escqrs_envelope *got = NULL;
    escqrs_error error = {0};
    assert_int_equal(escqrs_ask(ref, note_new(1), INT64_MAX, &got, &error), ESCQRS_OK);
    assert_int_equal(note_value(got), 2);
    escqrs_envelope_destroy(got);
    /* this one is not answered */
    assert_int_equal(escqrs_ask(ref, note_new(3), INT64_MAX, &got, &error), ESCQRS_CLOSED);
    assert_string_equal(error.message, "stream stopped without answering");
    /* nor is this one read */
    assert_int_equal(escqrs_ask(ref, note_new(4), INT64_MAX, &got, &error), ESCQRS_CLOSED);
    assert_string_equal(error.message, "stream has stopped");
}

static void test_a_question_to_a_stream(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    escqrs_stream *stream = open_stream(system);
    escqrs_ref *ref = escqrs_stream_ref(stream);
    escqrs_ref_hold(ref);
    esc_thread asker;
    assert_int_equal(esc_thread_create(&asker, "asker", 0, ask_it, ref, NULL), ESCQRS_OK);
    escqrs_envelope *question;
    assert_int_equal(escqrs_stream_next(stream, INT64_MAX, &question, NULL), ESCQRS_OK);
    escqrs_tell(question->sender, note_new(2), NULL);
    escqrs_envelope_destroy(question);
    assert_int_equal(escqrs_stream_next(stream, INT64_MAX, &question, NULL), ESCQRS_OK);
    escqrs_stream_release(stream);
    escqrs_envelope_destroy(question);
    esc_thread_join(&asker);
    escqrs_ref_release(ref);
    system_end(system);
}

/* ---- being told ------------------------------------------------------------------------------- */

typedef struct bell {
    tally rings;
    tally released;
} bell;

static void ring(void *data)
{
    tally_add(&((bell *)data)->rings, 1);
}

static void bell_released(void *data)
{
    tally_add(&((bell *)data)->released, 1);
}

static escqrs_stream *open_with_bell(escqrs_actor_system *system, bell *told)
{
    escqrs_stream *stream = NULL;
    escqrs_error error = {0};
    assert_int_equal(escqrs_stream_open(system,
                                        &(escqrs_stream_options){
                                            .ready = ring, .released = bell_released, .data = told},
                                        &stream, &error),
                     ESCQRS_OK);
    return stream;
}

static void test_ready_is_called_once_for_each_arm(void **state)
{
    (void)state;
    escqrs_actor_system *system = manual_system();
    bell told = {TALLY_ZERO, TALLY_ZERO};
    escqrs_stream *stream = open_with_bell(system, &told);
    tell(escqrs_stream_ref(stream), 1); /* nobody wants to hear of it */
    assert_false(escqrs_stream_arm(stream));
    assert_false(escqrs_stream_disarm(stream));
    tell(escqrs_stream_ref(stream), 2);
    assert_int_equal(next_value(stream), 1);
    assert_false(escqrs_stream_arm(stream)); /* 2 has been taken off with it */
    assert_int_equal(next_value(stream), 2);
    assert_true(escqrs_stream_arm(stream));
    assert_true(escqrs_stream_arm(stream));
    tell(escqrs_stream_ref(stream), 3);
    tell(escqrs_stream_ref(stream), 4);
    assert_int_equal(tally_get(&told.rings), 1);
    assert_false(escqrs_stream_disarm(stream));
    assert_int_equal(next_value(stream), 3);
    assert_int_equal(next_value(stream), 4);
    assert_true(escqrs_stream_arm(stream));
    assert_true(escqrs_stream_disarm(stream));
    tell(escqrs_stream_ref(stream), 5);
    assert_int_equal(tally_get(&told.rings), 1);
    assert_int_equal(next_value(stream), 5);
    assert_true(escqrs_stream_arm(stream));
    escqrs_stream_close(stream);
    assert_int_equal(tally_get(&told.rings), 2);
    assert_false(escqrs_stream_arm(stream)); /* closed: nothing will come */
    assert_int_equal(tally_get(&told.released), 0);
    escqrs_stream_release(stream);
    assert_int_equal(tally_get(&told.rings), 2);
    assert_int_equal(tally_get(&told.released), 1);
    system_end(system);
}

static void test_who_sleeps_until_ready_misses_nothing(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    bell told = {TALLY_ZERO, TALLY_ZERO};
    escqrs_stream *stream = open_with_bell(system, &told);
    sender from = {.to = escqrs_stream_ref(stream)};
    esc_thread thread;
    assert_int_equal(esc_thread_create(&thread, "sender", 0, send_each, &from, NULL), ESCQRS_OK);
    int64_t rings = 0;
    for (int64_t expected = 0; expected < EACH;) {
        escqrs_envelope *message;
        if (escqrs_stream_try_next(stream, &message) == ESCQRS_OK) {
            assert_int_equal(note_value(message), expected++);
            escqrs_envelope_destroy(message);
        } else if (escqrs_stream_arm(stream)) {
            tally_wait(&told.rings, ++rings);
        }
    }
    esc_thread_join(&thread);
    escqrs_stream_release(stream);
    tally_wait(&told.released, 1);
    system_end(system);
}

/* ---- a signal --------------------------------------------------------------------------------- */

static escqrs_stream *interrupted;

static void on_signal(int number)
{
    (void)number;
    escqrs_stream_close(interrupted);
}

static void *read_until_signal(void *context)
{
    read_all(context);
    return NULL;
}

static void test_a_signal_handler_may_end_the_reading(void **state)
{
    (void)state;
    escqrs_actor_system *system = system_make(&(escqrs_actor_system_options){0});
    tally begun = TALLY_ZERO;
    interrupted = open_stream(system);
    struct sigaction before, action = {.sa_handler = on_signal};
    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    reader self = {.stream = interrupted, .begun = &begun};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_until_signal, &self), 0);
    tally_wait(&begun, 1);
    do { /* once would do, but ThreadSanitizer puts off the handler until some later call */
        pthread_kill(thread, SIGUSR1);
        sched_yield();
    } while (pthread_tryjoin_np(thread, NULL) != 0);
    assert_int_equal(self.ended_with, ESCQRS_CLOSED);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
    escqrs_stream_release(interrupted);
    system_end(system);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_come_in_the_order_sent),
        cmocka_unit_test(test_what_had_come_is_read_after_the_close),
        cmocka_unit_test(test_what_nobody_read_is_dead_letters),
        cmocka_unit_test(test_a_stream_subscribes_until_it_is_closed),
        cmocka_unit_test(test_misuse_is_refused),
        cmocka_unit_test(test_the_end_of_the_system_ends_the_reading),
        cmocka_unit_test(test_an_actor_that_waits_for_a_stream_does_not_keep_the_system),
        cmocka_unit_test(test_each_message_goes_to_one_of_several_readers),
        cmocka_unit_test(test_beside_the_close_each_message_is_read_or_a_dead_letter),
        cmocka_unit_test(test_a_question_to_a_stream),
        cmocka_unit_test(test_ready_is_called_once_for_each_arm),
        cmocka_unit_test(test_who_sleeps_until_ready_misses_nothing),
        cmocka_unit_test(test_a_signal_handler_may_end_the_reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
