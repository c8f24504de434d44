/* Waiting: cycles are found, also by two threads at once, and named. */
#include "support.h"

typedef struct named {
    escqrs_actor actor;
    char name[32];
} named;

static escqrs_turn_end named_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)actor;
    (void)message;
    return ESCQRS_TURN_NEXT;
}

static void named_destroy(escqrs_actor *actor)
{
    (void)actor;
}

static void named_describe(const escqrs_actor *actor, char *text, size_t size)
{
    snprintf(text, size, "%s", ((const named *)actor)->name);
}

static const escqrs_actor_ops NAMED_OPS = {named_receive, named_destroy, named_describe};

static void named_init(named *self, escqrs_runtime *runtime, const char *name, int number)
{
    escqrs_actor_init(&self->actor, runtime, NULL, &NAMED_OPS);
    snprintf(self->name, sizeof self->name, "%s%d", name, number);
}

static void test_cycle_is_named(void **state)
{
    (void)state;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.manual = true});
    escqrs_error error = {0};
    named cart;
    named stock;
    named_init(&cart, runtime, "Cart/", 1);
    named_init(&stock, runtime, "Stock/", 1);

    assert_int_equal(escqrs_actor_wait_begin(&cart.actor, &cart.actor, &error), ESCQRS_DEADLOCK);
    assert_non_null(strstr(error.message, "Cart/1 -> Cart/1"));
    assert_int_equal(escqrs_actor_wait_begin(NULL, &cart.actor, &error), ESCQRS_OK);
    escqrs_actor_wait_end(NULL);

    assert_int_equal(escqrs_actor_wait_begin(&cart.actor, &stock.actor, &error), ESCQRS_OK);
    assert_int_equal(escqrs_actor_wait_begin(&stock.actor, &cart.actor, &error), ESCQRS_DEADLOCK);
    assert_int_equal(error.status, ESCQRS_DEADLOCK);
    assert_non_null(strstr(error.message, "Stock/1 -> Cart/1 -> Stock/1"));
    assert_int_equal(atomic_load(&cart.actor.references), 1);
    assert_int_equal(atomic_load(&stock.actor.references), 1);

    escqrs_actor_wait_end(&cart.actor); /* a refused wait left no edge */
    assert_int_equal(escqrs_actor_wait_begin(&stock.actor, &cart.actor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_actor_wait_begin(&cart.actor, &stock.actor, NULL), ESCQRS_DEADLOCK);
    escqrs_actor_wait_end(&stock.actor);
    runtime_end(runtime);
}

static void test_a_wait_whose_answer_is_there_is_no_link(void **state)
{
    (void)state;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.manual = true});
    escqrs_error error = {0};
    _Atomic(uint32_t) word = 0;
    escqrs_wait wait;
    named cart;
    named stock;
    named_init(&cart, runtime, "Cart/", 1);
    named_init(&stock, runtime, "Stock/", 1);

    assert_int_equal(escqrs_actor_wait_begin(&cart.actor, &stock.actor, NULL), ESCQRS_OK);
    escqrs_actor_wait_until(&cart.actor, &wait, &word);
    escqrs_actor_wait_until(NULL, &wait, &word);
    assert_int_equal(escqrs_actor_wait_begin(&stock.actor, &cart.actor, &error), ESCQRS_DEADLOCK);
    assert_non_null(strstr(error.message, "Stock/1 -> Cart/1 -> Stock/1"));
    assert_int_equal(escqrs_actor_wait_check(&stock.actor, &cart.actor, NULL), ESCQRS_DEADLOCK);
    atomic_store(&word, 2);
    assert_int_equal(escqrs_actor_wait_check(&stock.actor, &cart.actor, NULL), ESCQRS_DEADLOCK);
    atomic_store(&word, 3);
    assert_int_equal(escqrs_actor_wait_check(&stock.actor, &cart.actor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_actor_wait_begin(&stock.actor, &cart.actor, NULL), ESCQRS_OK);
    escqrs_actor_wait_end(&cart.actor);
    assert_int_equal(escqrs_actor_wait_begin(&cart.actor, &stock.actor, NULL), ESCQRS_DEADLOCK);
    escqrs_actor_wait_end(&stock.actor);
    runtime_end(runtime);
}

static void test_long_cycle_is_abbreviated(void **state)
{
    (void)state;
    enum { MAX = 1000 };
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.manual = true});
    named *all = calloc(MAX, sizeof *all);
    for (int i = 0; i < MAX; i++) {
        named_init(&all[i], runtime, "A/", i);
    }
    for (int length = 2; length <= MAX; length = length < 16 ? length + 1 : length * 5) {
        for (int i = 0; i + 1 < length; i++) {
            assert_int_equal(escqrs_actor_wait_begin(&all[i].actor, &all[i + 1].actor, NULL),
                             ESCQRS_OK);
        }
        escqrs_error error = {0};
        assert_int_equal(escqrs_actor_wait_begin(&all[length - 1].actor, &all[0].actor, &error),
                         ESCQRS_DEADLOCK);
        char last[64];
        snprintf(last, sizeof last, "A/%d -> A/0 -> ", length - 1);
        assert_non_null(strstr(error.message, last));
        snprintf(last, sizeof last, "A/%d -> A/%d", length - 2, length - 1);
        assert_string_equal(error.message + strlen(error.message) - strlen(last), last);
        char left_out[64];
        snprintf(left_out, sizeof left_out, "(%d more)", length - 8);
        assert_int_equal(strstr(error.message, left_out) != NULL, length > 8);
        for (int i = 0; i + 1 < length; i++) {
            escqrs_actor_wait_end(&all[i].actor);
        }
        for (int i = 0; i < length; i++) {
            assert_int_equal(atomic_load(&all[i].actor.references), 1);
        }
    }
    runtime_end(runtime);
    free(all);
}

/* ---- two threads ------------------------------------------------------------------------------ */

typedef struct side {
    esc_thread thread;
    escqrs_actor *mine;
    escqrs_actor *theirs;
    pthread_barrier_t *together;
    int rounds;
    bool *refused; /* one a round */
} side;

static void wait_for_each_other(void *context)
{
    side *self = context;
    for (int round = 0; round < self->rounds; round++) {
        pthread_barrier_wait(self->together);
        escqrs_status status = escqrs_actor_wait_begin(self->mine, self->theirs, NULL);
        self->refused[round] = status == ESCQRS_DEADLOCK;
        pthread_barrier_wait(self->together);
        if (status == ESCQRS_OK) {
            escqrs_actor_wait_end(self->mine);
        }
    }
}

static void test_two_threads_one_is_refused(void **state)
{
    (void)state;
    enum { ROUNDS = 5000 };
    escqrs_runtime *runtime = runtime_make(NULL);
    named actors[2];
    side sides[2];
    pthread_barrier_t together;
    pthread_barrier_init(&together, NULL, 2);
    for (int i = 0; i < 2; i++) {
        named_init(&actors[i], runtime, "A/", i);
        sides[i] = (side){.mine = &actors[i].actor,
                          .theirs = &actors[1 - i].actor,
                          .together = &together,
                          .rounds = ROUNDS,
                          .refused = calloc(ROUNDS, sizeof(bool))};
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            esc_thread_create(&sides[i].thread, "side", 0, wait_for_each_other, &sides[i], NULL),
            ESCQRS_OK);
    }
    for (int i = 0; i < 2; i++) {
        esc_thread_join(&sides[i].thread);
    }
    for (int round = 0; round < ROUNDS; round++) {
        assert_int_equal(sides[0].refused[round] + sides[1].refused[round], 1);
    }
    pthread_barrier_destroy(&together);
    free(sides[0].refused);
    free(sides[1].refused);
    runtime_end(runtime);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cycle_is_named),
        cmocka_unit_test(test_a_wait_whose_answer_is_there_is_no_link),
        cmocka_unit_test(test_long_cycle_is_abbreviated),
        cmocka_unit_test(test_two_threads_one_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
