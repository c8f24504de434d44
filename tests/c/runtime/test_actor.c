/* Actors: order, one thread at a time, caller runs, suspension, references. */
#include "support.h"

#define PRODUCER_COUNT 4
#define MESSAGE_COUNT 20000
#define ACTOR_COUNT 3

/* ---- an actor that checks order and that it is alone -------------------------------------------- */

typedef struct numbered {
    escqrs_message message;
    int producer;
    int number;
} numbered;

typedef struct checker {
    escqrs_actor actor;
    _Atomic int inside;
    int next[PRODUCER_COUNT]; /* plain on purpose: a sanitizer sees whoever is not ordered */
    int64_t handled;
    int suspend_every; /* 0: never */
    int resumes;
    tally *done;
    tally *destroyed;
} checker;

static escqrs_turn_end checker_receive(escqrs_actor *actor, escqrs_message *message)
{
    checker *self = (checker *)actor;
    assert_int_equal(atomic_fetch_add(&self->inside, 1), 0);
    assert_ptr_equal(escqrs_actor_current(), actor);
    escqrs_turn_end end = ESCQRS_TURN_NEXT;
    if (message == NULL) {
        self->resumes++;
    } else {
        numbered *given = (numbered *)message;
        assert_int_equal(given->number, self->next[given->producer]);
        self->next[given->producer]++;
        self->handled++;
        free(given);
        if (self->suspend_every > 0 && self->handled % self->suspend_every == 0) {
            end = ESCQRS_TURN_SUSPEND;
        }
    }
    assert_int_equal(atomic_fetch_sub(&self->inside, 1), 1);
    if (message != NULL) {
        tally_add(self->done, 1);
    }
    if (end == ESCQRS_TURN_SUSPEND) {
        escqrs_actor_resume(actor); /* before the suspension: it ends at once */
    }
    return end;
}

static void checker_destroy(escqrs_actor *actor)
{
    checker *self = (checker *)actor;
    for (escqrs_message *message = escqrs_actor_take(actor); message != NULL;
         message = escqrs_actor_take(actor)) {
        free(message);
    }
    if (self->destroyed != NULL) {
        tally_add(self->destroyed, 1);
    }
    free(self);
}

static void checker_describe(const escqrs_actor *actor, char *text, size_t size)
{
    snprintf(text, size, "Checker/%d", ((const checker *)actor)->suspend_every);
}

static const escqrs_actor_ops CHECKER_OPS = {checker_receive, checker_destroy, checker_describe};

static checker *checker_make(escqrs_runtime *runtime, escqrs_host *host, tally *done,
                             tally *destroyed)
{
    checker *made = calloc(1, sizeof *made);
    escqrs_actor_init(&made->actor, runtime, host, &CHECKER_OPS);
    made->done = done;
    made->destroyed = destroyed;
    return made;
}

static numbered *numbered_make(int producer, int number)
{
    numbered *made = calloc(1, sizeof *made);
    made->producer = producer;
    made->number = number;
    return made;
}

typedef struct producer {
    esc_thread thread;
    int index;
    int count;
    int run_every; /* 0: send all */
    checker **checkers;
    fake_host *attach;
} producer;

static void produce(void *context)
{
    producer *self = context;
    for (int number = 0; number < self->count; number++) {
        for (int i = 0; i < ACTOR_COUNT; i++) {
            escqrs_actor *actor = &self->checkers[i]->actor;
            numbered *message = numbered_make(self->index, number);
            bool run = false;
            if (self->run_every > 0 && number % self->run_every == 0) {
                if (self->attach != NULL) {
                    fake_attach(self->attach, self->attach);
                }
                run = escqrs_actor_run(actor, &message->message);
                if (self->attach != NULL) {
                    fake_detach(self->attach);
                }
            }
            if (!run) {
                escqrs_actor_send(actor, &message->message);
            }
        }
    }
    assert_null(escqrs_actor_current());
}

/* Every combination of host, suspension and caller runs keeps the order of each sender. */
static void check_order(bool hosted, int run_every, int suspend_every, int count)
{
    fake_host fake = FAKE_HOST_ZERO;
    tally done = TALLY_ZERO;
    tally destroyed = TALLY_ZERO;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.native_worker_count = 3});
    escqrs_host *host = hosted ? host_make(runtime, &fake) : NULL;
    checker *checkers[ACTOR_COUNT];
    for (int i = 0; i < ACTOR_COUNT; i++) {
        checkers[i] = checker_make(runtime, host, &done, &destroyed);
        checkers[i]->suspend_every = suspend_every;
    }
    producer producers[PRODUCER_COUNT];
    for (int i = 0; i < PRODUCER_COUNT; i++) {
        producers[i] = (producer){.index = i,
                                  .count = count,
                                  .run_every = run_every,
                                  .checkers = checkers,
                                  .attach = hosted ? &fake : NULL};
        assert_int_equal(
            esc_thread_create(&producers[i].thread, "producer", 0, produce, &producers[i], NULL),
            ESCQRS_OK);
    }
    for (int i = 0; i < PRODUCER_COUNT; i++) {
        esc_thread_join(&producers[i].thread);
    }
    tally_wait(&done, (int64_t)PRODUCER_COUNT * ACTOR_COUNT * count);
    runtime_stop(runtime);
    for (int i = 0; i < ACTOR_COUNT; i++) {
        assert_int_equal(checkers[i]->handled, PRODUCER_COUNT * count);
        escqrs_actor_release(&checkers[i]->actor);
    }
    escqrs_runtime_destroy(runtime);
    assert_int_equal(destroyed.value, ACTOR_COUNT);
    if (hosted) {
        assert_int_equal(atomic_load(&fake.threads), 0);
    }
}

static void test_order_native(void **state)
{
    (void)state;
    check_order(false, 0, 0, MESSAGE_COUNT);
}

static void test_order_hosted(void **state)
{
    (void)state;
    check_order(true, 0, 0, MESSAGE_COUNT);
}

static void test_order_with_caller_runs(void **state)
{
    (void)state;
    check_order(false, 1, 0, MESSAGE_COUNT);
    check_order(true, 2, 0, MESSAGE_COUNT / 4);
}

static void test_order_with_suspensions(void **state)
{
    (void)state;
    check_order(false, 0, 1, MESSAGE_COUNT / 4);
    check_order(false, 3, 7, MESSAGE_COUNT / 4);
    check_order(true, 3, 5, MESSAGE_COUNT / 4);
}

/* ---- resume from other threads ---------------------------------------------------------------- */

typedef struct sleeper {
    escqrs_actor actor;
    tally *suspended; /* one for each suspension that is about to begin */
    int messages;
    int resumes;
    bool expects_resume;
    tally *finished;
} sleeper;

static escqrs_turn_end sleeper_receive(escqrs_actor *actor, escqrs_message *message)
{
    sleeper *self = (sleeper *)actor;
    if (message == NULL) {
        assert_true(self->expects_resume);
        self->expects_resume = false;
        self->resumes++;
        tally_add(self->finished, 1);
        return ESCQRS_TURN_NEXT;
    }
    assert_false(self->expects_resume);
    free(message);
    self->messages++;
    self->expects_resume = true;
    tally_add(self->suspended, 1);
    return ESCQRS_TURN_SUSPEND;
}

static void no_destroy(escqrs_actor *actor)
{
    (void)actor;
}

static void say_actor(const escqrs_actor *actor, char *text, size_t size)
{
    (void)actor;
    snprintf(text, size, "Actor");
}

static const escqrs_actor_ops SLEEPER_OPS = {sleeper_receive, no_destroy, say_actor};

typedef struct resumer {
    escqrs_actor *actor;
    tally *suspended;
    int count;
} resumer;

static void resume_all(void *context)
{
    resumer *self = context;
    for (int i = 1; i <= self->count; i++) {
        tally_wait(self->suspended, i);
        escqrs_actor_resume(self->actor); /* just before, while, or after the suspension begins */
    }
}

static void test_resume_races_with_suspension(void **state)
{
    (void)state;
    tally suspended = TALLY_ZERO;
    tally finished = TALLY_ZERO;
    escqrs_runtime *runtime = runtime_make(NULL);
    sleeper self = {.suspended = &suspended, .finished = &finished};
    escqrs_actor_init(&self.actor, runtime, NULL, &SLEEPER_OPS);
    resumer other = {&self.actor, &suspended, 5000};
    esc_thread thread;
    assert_int_equal(esc_thread_create(&thread, "resumer", 0, resume_all, &other, NULL), ESCQRS_OK);
    for (int i = 0; i < other.count; i++) {
        escqrs_message *message = malloc(sizeof *message);
        if (!escqrs_actor_run(&self.actor, message)) {
            escqrs_actor_send(&self.actor, message);
        }
    }
    esc_thread_join(&thread);
    tally_wait(&finished, other.count);
    runtime_stop(runtime);
    assert_int_equal(self.messages, other.count);
    assert_int_equal(self.resumes, other.count);
    escqrs_actor_release(&self.actor);
    escqrs_runtime_destroy(runtime);
}

static void test_resume_before_any_message(void **state)
{
    (void)state;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.manual = true});
    tally suspended = TALLY_ZERO;
    tally finished = TALLY_ZERO;
    sleeper self = {.suspended = &suspended, .finished = &finished};
    escqrs_actor_init(&self.actor, runtime, NULL, &SLEEPER_OPS);
    escqrs_actor_resume(&self.actor);
    escqrs_actor_resume(&self.actor); /* the same one */
    while (escqrs_runtime_step(runtime)) {
    }
    assert_true(escqrs_actor_is_idle(&self.actor));
    escqrs_message *first = malloc(sizeof *first);
    escqrs_message *second = malloc(sizeof *second);
    assert_true(escqrs_actor_run(&self.actor, first));
    escqrs_actor_send(&self.actor, second);
    while (escqrs_runtime_step(runtime)) {
    }
    assert_int_equal(self.resumes, 1);
    assert_int_equal(self.messages, 2);
    assert_false(escqrs_actor_is_idle(&self.actor)); /* suspended by the second */
    escqrs_message *third = malloc(sizeof *third);
    assert_false(escqrs_actor_run(&self.actor, third));
    escqrs_actor_send(&self.actor, third);
    assert_false(escqrs_runtime_step(runtime));
    escqrs_actor_resume(&self.actor);
    while (escqrs_runtime_step(runtime)) {
    }
    assert_int_equal(self.resumes, 2);
    assert_int_equal(self.messages, 3);
    runtime_stop(runtime);
    escqrs_actor_release(&self.actor);
    escqrs_runtime_destroy(runtime);
}

/* ---- caller runs ------------------------------------------------------------------------------ */

typedef struct nested {
    escqrs_actor actor;
    struct nested *inner;
    escqrs_message message;
    int depth_reached;
    bool ran;
} nested;

static escqrs_turn_end nested_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)message;
    nested *self = (nested *)actor;
    if (self->inner != NULL) {
        self->ran = escqrs_actor_run(&self->inner->actor, &self->inner->message);
        if (!self->ran) {
            assert_true(escqrs_actor_is_idle(&self->inner->actor));
        }
    }
    assert_ptr_equal(escqrs_actor_current(), actor);
    assert_false(escqrs_actor_run(actor, &self->message)); /* busy: itself */
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_ops NESTED_OPS = {nested_receive, no_destroy, say_actor};

static void test_run_nests_to_its_maximum(void **state)
{
    (void)state;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.manual = true});
    nested all[ESCQRS_RUN_DEPTH_MAX + 1];
    memset(all, 0, sizeof all);
    for (int i = 0; i <= ESCQRS_RUN_DEPTH_MAX; i++) {
        escqrs_actor_init(&all[i].actor, runtime, NULL, &NESTED_OPS);
        all[i].inner = i < ESCQRS_RUN_DEPTH_MAX ? &all[i + 1] : NULL;
    }
    assert_true(escqrs_actor_run(&all[0].actor, &all[0].message));
    for (int i = 0; i <= ESCQRS_RUN_DEPTH_MAX; i++) {
        assert_int_equal(all[i].ran, i + 1 < ESCQRS_RUN_DEPTH_MAX);
    }
    assert_null(escqrs_actor_current());
    runtime_stop(runtime);
    for (int i = 0; i <= ESCQRS_RUN_DEPTH_MAX; i++) {
        escqrs_actor_release(&all[i].actor);
    }
    escqrs_runtime_destroy(runtime);
}

static void count_visit(escqrs_actor *actor, void *context)
{
    assert_false(escqrs_actor_is_idle(actor));
    ++*(int *)context;
}

static void test_visit_only_idle(void **state)
{
    (void)state;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.manual = true});
    tally done = TALLY_ZERO;
    checker *self = checker_make(runtime, NULL, &done, NULL);
    int visits = 0;
    assert_true(escqrs_actor_visit(&self->actor, count_visit, &visits));
    escqrs_actor_send(&self->actor, &numbered_make(0, 0)->message);
    assert_false(escqrs_actor_visit(&self->actor, count_visit, &visits));
    assert_true(escqrs_runtime_step(runtime));
    assert_true(escqrs_actor_visit(&self->actor, count_visit, &visits));
    assert_int_equal(visits, 2);
    runtime_stop(runtime);
    escqrs_actor_release(&self->actor);
    escqrs_runtime_destroy(runtime);
}

/* ---- references ------------------------------------------------------------------------------- */

/* Sent and dropped at once: handled, then destroyed; exactly once each. */
static void test_release_while_queued(void **state)
{
    (void)state;
    enum { COUNT = 20000 };
    for (int hosted = 0; hosted < 2; hosted++) {
        fake_host fake = FAKE_HOST_ZERO;
        tally done = TALLY_ZERO;
        tally destroyed = TALLY_ZERO;
        escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.native_worker_count = 2});
        escqrs_host *host = hosted ? host_make(runtime, &fake) : NULL;
        for (int i = 0; i < COUNT; i++) {
            checker *self = checker_make(runtime, host, &done, &destroyed);
            escqrs_actor_send(&self->actor, &numbered_make(0, 0)->message);
            escqrs_actor_release(&self->actor);
        }
        tally_wait(&destroyed, COUNT);
        assert_int_equal(tally_get(&done), COUNT);
        runtime_end(runtime);
        assert_int_equal(destroyed.value, COUNT);
    }
}

/* A handler whose actor nobody holds any more takes a reference and hands it to another thread. */
typedef struct phoenix {
    escqrs_actor actor;
    tally *held;
    tally *released;
    tally *destroyed;
} phoenix;

static void release_later(void *context)
{
    phoenix *self = context;
    tally *released = self->released;
    escqrs_actor_release(&self->actor);
    tally_add(released, 1);
}

static escqrs_turn_end phoenix_receive(escqrs_actor *actor, escqrs_message *message)
{
    phoenix *self = (phoenix *)actor;
    free(message);
    for (int i = 0; i < 3; i++) {
        escqrs_actor_hold(actor);
        if (i < 2) {
            escqrs_actor_release(actor);
        }
    }
    tally_add(self->held, 1);
    return ESCQRS_TURN_NEXT;
}

static void phoenix_destroy(escqrs_actor *actor)
{
    phoenix *self = (phoenix *)actor;
    tally *destroyed = self->destroyed;
    free(self);
    tally_add(destroyed, 1);
}

static const escqrs_actor_ops PHOENIX_OPS = {phoenix_receive, phoenix_destroy, say_actor};

static void test_hold_from_nothing(void **state)
{
    (void)state;
    tally held = TALLY_ZERO;
    tally released = TALLY_ZERO;
    tally destroyed = TALLY_ZERO;
    escqrs_runtime *runtime = runtime_make(NULL);
    enum { COUNT = 2000 };
    for (int i = 1; i <= COUNT; i++) {
        phoenix *self = calloc(1, sizeof *self);
        self->held = &held;
        self->released = &released;
        self->destroyed = &destroyed;
        escqrs_actor_init(&self->actor, runtime, NULL, &PHOENIX_OPS);
        escqrs_actor_send(&self->actor, malloc(sizeof(escqrs_message)));
        escqrs_actor_release(&self->actor);
        tally_wait(&held, i);
        release_later(self); /* while its turn ends */
        tally_wait(&destroyed, i);
    }
    runtime_end(runtime);
    assert_int_equal(destroyed.value, COUNT);
    assert_int_equal(released.value, COUNT);
}

/* What is still queued when the runtime stops stays in the mailbox, and is the destroyer's. */
static void test_messages_left_at_stop(void **state)
{
    (void)state;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.manual = true});
    tally done = TALLY_ZERO;
    tally destroyed = TALLY_ZERO;
    checker *kept = checker_make(runtime, NULL, &done, &destroyed);
    checker *dropped = checker_make(runtime, NULL, &done, &destroyed);
    checker *late = checker_make(runtime, NULL, &done, &destroyed);
    for (int i = 0; i < 3; i++) {
        escqrs_actor_send(&kept->actor, &numbered_make(0, i)->message);
        escqrs_actor_send(&dropped->actor, &numbered_make(0, i)->message);
    }
    assert_true(escqrs_runtime_step(runtime));
    escqrs_actor_release(&dropped->actor);
    runtime_stop(runtime);
    assert_int_equal(destroyed.value, 0);
    numbered *message = (numbered *)escqrs_actor_take(&kept->actor);
    assert_int_equal(message->number, 1);
    free(message);
    escqrs_actor_send(&kept->actor, &numbered_make(0, 3)->message);
    escqrs_actor_release(&kept->actor);
    assert_int_equal(destroyed.value, 1); /* at once */
    escqrs_actor_send(&late->actor, &numbered_make(0, 0)->message);
    escqrs_actor_release(&late->actor);
    escqrs_runtime_destroy(runtime);
    assert_int_equal(destroyed.value, 3);
    assert_int_equal(done.value, 1);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_native),
        cmocka_unit_test(test_order_hosted),
        cmocka_unit_test(test_order_with_caller_runs),
        cmocka_unit_test(test_order_with_suspensions),
        cmocka_unit_test(test_resume_races_with_suspension),
        cmocka_unit_test(test_resume_before_any_message),
        cmocka_unit_test(test_run_nests_to_its_maximum),
        cmocka_unit_test(test_visit_only_idle),
        cmocka_unit_test(test_release_while_queued),
        cmocka_unit_test(test_hold_from_nothing),
        cmocka_unit_test(test_messages_left_at_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
