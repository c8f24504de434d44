/* The runtime's life: create, stop in time and not, idleness, manual steps, and everything at once.
 */
#include "support.h"

#include <dirent.h>
#include <time.h>

/* ---- create ----------------------------------------------------------------------------------- */

static void test_create_without_memory(void **state)
{
    (void)state;
    escqrs_error error = {0};
    escqrs_runtime *runtime = NULL;
    escqrs_alloc_fail(1, false);
    assert_int_equal(escqrs_runtime_create(NULL, &runtime, &error), ESCQRS_NO_MEMORY);
    escqrs_alloc_fail(0, false);
    assert_int_equal(error.status, ESCQRS_NO_MEMORY);
    escqrs_runtime_destroy(NULL);

    fake_host fake = FAKE_HOST_ZERO;
    escqrs_host *host = NULL;
    runtime = runtime_make(NULL);
    escqrs_alloc_fail(1, false);
    assert_int_equal(escqrs_host_create(runtime, &FAKE_HOST_OPS, &fake, &host, &error),
                     ESCQRS_NO_MEMORY);
    escqrs_alloc_fail(0, false);
    runtime_stop(runtime);
    runtime_stop(runtime); /* twice is once */
    assert_int_equal(escqrs_host_create(runtime, &FAKE_HOST_OPS, &fake, &host, &error),
                     ESCQRS_CLOSED);
    escqrs_runtime_destroy(runtime);
}

static void test_create_refuses_nonsense(void **state)
{
    (void)state;
    escqrs_runtime *runtime = NULL;
    escqrs_runtime_options options = {.native_worker_count = 1u << 31};
    assert_int_equal(escqrs_runtime_create(&options, &runtime, NULL), ESCQRS_INVALID);
}

/* ---- stop ------------------------------------------------------------------------------------- */

typedef struct slow {
    escqrs_actor actor;
    escqrs_message messages[2];
    tally entered;
    tally gate;
    int handled;
    escqrs_status stop_status;
} slow;

static escqrs_turn_end slow_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)message;
    slow *self = (slow *)actor;
    void *state = escqrs_host_detach(actor->host);
    self->stop_status = escqrs_runtime_stop(escqrs_actor_runtime(actor), 0, NULL);
    tally_add(&self->entered, 1);
    tally_wait(&self->gate, 1);
    escqrs_host_attach(actor->host, state);
    self->handled++;
    return ESCQRS_TURN_NEXT;
}

static void no_destroy(escqrs_actor *actor)
{
    (void)actor;
}

static void slow_describe(const escqrs_actor *actor, char *text, size_t size)
{
    (void)actor;
    snprintf(text, size, "Slow/one");
}

static const escqrs_actor_ops SLOW_OPS = {slow_receive, no_destroy, slow_describe};

static void stop_with_busy_worker(bool hosted)
{
    fake_host fake = FAKE_HOST_ZERO;
    escqrs_error error = {0};
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.native_worker_count = 1});
    escqrs_host *host = hosted ? host_make(runtime, &fake) : NULL;
    slow self = {.entered = TALLY_ZERO, .gate = TALLY_ZERO};
    escqrs_actor_init(&self.actor, runtime, host, &SLOW_OPS);
    escqrs_actor_send(&self.actor, &self.messages[0]);
    escqrs_actor_send(&self.actor, &self.messages[1]);
    tally_wait(&self.entered, 1);
    assert_int_equal(self.stop_status, ESCQRS_DEADLOCK);
    assert_int_equal(escqrs_runtime_stop(runtime, 0, &error), ESCQRS_TIMEOUT);
    assert_non_null(strstr(error.message, "Slow/one did not come back"));
    assert_string_equal(error.subject, "Slow/one");
    assert_int_equal(escqrs_runtime_stop(runtime, esc_deadline_after(1000000), &error),
                     ESCQRS_TIMEOUT);
    tally_add(&self.gate, 1);
    runtime_stop(runtime);
    assert_int_equal(self.handled, 1); /* it finished the message it was in, and no other */
    assert_ptr_equal(escqrs_actor_take(&self.actor), &self.messages[1]);
    assert_null(escqrs_actor_take(&self.actor));
    assert_int_equal(atomic_load(&fake.threads), 0);
    escqrs_runtime_destroy(runtime);
}

static void test_stop_names_the_busy_actor(void **state)
{
    (void)state;
    stop_with_busy_worker(true);
    stop_with_busy_worker(false);
}

/* ---- everything at once, stopped at any moment --------------------------------------------------- */

typedef struct wanderer {
    escqrs_actor actor;
    struct wanderer *all;
    unsigned count;
    unsigned random;
} wanderer;

static unsigned wanderer_next(wanderer *self)
{
    self->random = self->random * 1664525u + 1013904223u;
    return self->random >> 8;
}

static escqrs_turn_end wanderer_receive(escqrs_actor *actor, escqrs_message *message)
{
    wanderer *self = (wanderer *)actor;
    if (message == NULL) {
        return ESCQRS_TURN_NEXT;
    }
    wanderer *next = &self->all[wanderer_next(self) % self->count];
    unsigned what = wanderer_next(self) % 64;
    if (what == 0) {
        void *state = escqrs_host_detach(actor->host);
        escqrs_runtime_block();
        sched_yield();
        escqrs_runtime_unblock();
        escqrs_host_attach(actor->host, state);
    }
    /* only natives run natives: a hosted one would not be attached */
    if (what > 40 && actor->host == NULL && next->actor.host == NULL &&
        escqrs_actor_run(&next->actor, message)) {
        return ESCQRS_TURN_NEXT;
    }
    escqrs_actor_send(&next->actor, message);
    if (what % 8 == 1) {
        escqrs_actor_resume(actor);
        return ESCQRS_TURN_SUSPEND;
    }
    if (what == 2) {
        escqrs_host_poke(self->all[0].actor.host);
    }
    return ESCQRS_TURN_NEXT;
}

static void wanderer_describe(const escqrs_actor *actor, char *text, size_t size)
{
    const wanderer *self = (const wanderer *)actor;
    snprintf(text, size, "Wanderer/%td", self - self->all);
}

static const escqrs_actor_ops WANDERER_OPS = {wanderer_receive, no_destroy, wanderer_describe};

static void test_stop_loses_nothing(void **state)
{
    (void)state;
    enum { ROUNDS = 20, ACTORS = 60, LETTERS = 200 };
    for (int round = 0; round < ROUNDS; round++) {
        fake_host fakes[2] = {FAKE_HOST_ZERO, FAKE_HOST_ZERO};
        escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){
            .takeover_ms = 1, .native_worker_count = 2, .batch_max = 3, .worker_count_max = 8});
        escqrs_host *hosts[] = {host_make(runtime, &fakes[0]), host_make(runtime, &fakes[1]), NULL};
        wanderer *all = calloc(ACTORS, sizeof *all);
        escqrs_message *letters = calloc(LETTERS, sizeof *letters);
        for (int i = 0; i < ACTORS; i++) {
            escqrs_actor_init(&all[i].actor, runtime, hosts[i % 3], &WANDERER_OPS);
            all[i].all = all;
            all[i].count = ACTORS;
            all[i].random = (unsigned)(round * ACTORS + i) * 2654435761u;
        }
        for (int i = 0; i < LETTERS; i++) {
            escqrs_actor_send(&all[i % ACTORS].actor, &letters[i]);
        }
        for (int i = 0; i < round * 3; i++) {
            sched_yield();
        }
        runtime_stop(runtime);
        int found = 0;
        for (int i = 0; i < ACTORS; i++) {
            while (escqrs_actor_take(&all[i].actor) != NULL) {
                found++;
            }
        }
        assert_int_equal(found, LETTERS);
        assert_int_equal(atomic_load(&fakes[0].threads) + atomic_load(&fakes[1].threads), 0);
        escqrs_runtime_destroy(runtime);
        free(letters);
        free(all);
    }
}

/* ---- idleness --------------------------------------------------------------------------------- */

typedef struct counter {
    escqrs_actor actor;
    tally *done;
} counter;

static escqrs_turn_end counter_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)message;
    tally_add(((counter *)actor)->done, 1);
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_ops COUNTER_OPS = {counter_receive, no_destroy, slow_describe};

#define LOOKS_MAX 100

static int64_t switch_count(void)
{
    /* all threads': they tell of timers better than CPU time does */
    int64_t total = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
        char path[300];
        char line[256];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *file = fopen(path, "r");
        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            long long count;
            if (sscanf(line, "voluntary_ctxt_switches: %lld", &count) == 1) {
                total += count;
            }
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    closedir(tasks);
    return total;
}

/* `waits`: a turn waits without saying so, which costs nothing either. */
static void check_idle(bool waits)
{
    fake_host fake = FAKE_HOST_ZERO;
    tally done = TALLY_ZERO;
    escqrs_runtime *runtime = runtime_make(NULL);
    escqrs_host *host = host_make(runtime, &fake);
    counter actors[2] = {{.done = &done}, {.done = &done}};
    escqrs_actor_init(&actors[0].actor, runtime, host, &COUNTER_OPS);
    escqrs_actor_init(&actors[1].actor, runtime, NULL, &COUNTER_OPS);
    escqrs_message messages[2] = {{NULL}, {NULL}};
    escqrs_actor_send(&actors[0].actor, &messages[0]);
    escqrs_actor_send(&actors[1].actor, &messages[1]);
    tally_wait(&done, 2);
    slow self = {.entered = TALLY_ZERO, .gate = TALLY_ZERO};
    escqrs_actor_init(&self.actor, runtime, host, &SLOW_OPS);
    if (waits) {
        escqrs_actor_send(&self.actor, &self.messages[0]);
        tally_wait(&self.entered, 1);
    }

    /* Sooner or later, on a busy machine too, nothing runs any more: 60 ticks if the monitor's
     * timer did, and this thread's own. */
    bool idle = false;
    for (int i = 0; i < LOOKS_MAX && !idle; i++) {
        int64_t switches = switch_count();
        clock_t begin = clock();
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        idle = clock() - begin < CLOCKS_PER_SEC / 100 && switch_count() - switches < 30;
    }
    assert_true(idle);

    escqrs_actor_send(&actors[0].actor, &messages[0]); /* and it still works */
    tally_wait(&done, 3);
    tally_add(&self.gate, 1);
    runtime_end(runtime);
}

static void test_idle_uses_no_cpu(void **state)
{
    (void)state;
    check_idle(false);
    check_idle(true);
}

/* ---- manual ----------------------------------------------------------------------------------- */

typedef struct recorder {
    escqrs_actor actor;
    escqrs_message *messages;
    char *order;
    int *length;
    char name;
} recorder;

static escqrs_turn_end recorder_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)message;
    recorder *self = (recorder *)actor;
    self->order[(*self->length)++] = self->name;
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_ops RECORDER_OPS = {recorder_receive, no_destroy, slow_describe};

static void fill_from_seed(void *context, void *buffer, size_t size)
{
    uint64_t *seed = context;
    unsigned char *bytes = buffer;
    for (size_t i = 0; i < size; i++) {
        *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        bytes[i] = (unsigned char)(*seed >> 56);
    }
}

static void run_seeded(uint64_t seed, bool first_come, char order[128])
{
    enum { ACTORS = 5, EACH = 10 };
    fake_host fake = FAKE_HOST_ZERO;
    escqrs_random random = {first_come ? NULL : fill_from_seed, &seed};
    escqrs_runtime *runtime =
        runtime_make(&(escqrs_runtime_options){.manual = true, .random = random});
    escqrs_host *host = host_make(runtime, &fake);
    fake_attach(&fake, &fake);
    recorder actors[ACTORS];
    escqrs_message messages[ACTORS][EACH];
    int length = 0;
    for (int i = 0; i < ACTORS; i++) {
        actors[i] = (recorder){.order = order, .length = &length, .name = (char)('a' + i)};
        escqrs_actor_init(&actors[i].actor, runtime, i % 2 == 0 ? host : NULL, &RECORDER_OPS);
        for (int k = 0; k < EACH; k++) {
            escqrs_actor_send(&actors[i].actor, &messages[i][k]);
        }
    }
    int steps = 0;
    while (escqrs_runtime_step(runtime)) {
        steps++;
        assert_int_equal(length, steps); /* one message a step */
    }
    assert_int_equal(steps, ACTORS * EACH);
    escqrs_host_poke(host);
    assert_true(escqrs_runtime_step(runtime));
    assert_false(escqrs_runtime_step(runtime));
    order[length] = '\0';
    fake_detach(&fake);
    runtime_end(runtime);
}

static void test_manual_order_follows_the_seed(void **state)
{
    (void)state;
    char first[128];
    char again[128];
    char other[128];
    run_seeded(7, false, first);
    run_seeded(7, false, again);
    run_seeded(8, false, other);
    assert_string_equal(first, again);
    assert_string_not_equal(first, other);
    run_seeded(0, true, first);
    assert_memory_equal(first, "abcdeabcde", 10);
}

static void test_manual_steps_one_actor_alone(void **state)
{
    (void)state;
    enum { ACTORS = 3, EACH = 2 };
    char order[16];
    int length = 0;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.manual = true});
    recorder actors[ACTORS];
    escqrs_message messages[ACTORS][EACH];
    for (int i = 0; i < ACTORS; i++) {
        actors[i] = (recorder){.order = order, .length = &length, .name = (char)('a' + i)};
        escqrs_actor_init(&actors[i].actor, runtime, NULL, &RECORDER_OPS);
        for (int k = 0; k < EACH; k++) {
            escqrs_actor_send(&actors[i].actor, &messages[i][k]);
        }
    }
    assert_true(escqrs_runtime_step_actor(&actors[1].actor));
    assert_true(escqrs_runtime_step_actor(&actors[2].actor));
    assert_true(escqrs_runtime_step_actor(&actors[1].actor));
    assert_false(escqrs_runtime_step_actor(&actors[1].actor));
    while (escqrs_runtime_step(runtime)) {
    }
    order[length] = '\0';
    assert_string_equal(order, "bcbaca");
    runtime_end(runtime);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_without_memory),
        cmocka_unit_test(test_create_refuses_nonsense),
        cmocka_unit_test(test_stop_names_the_busy_actor),
        cmocka_unit_test(test_stop_loses_nothing),
        cmocka_unit_test(test_idle_uses_no_cpu),
        cmocka_unit_test(test_manual_order_follows_the_seed),
        cmocka_unit_test(test_manual_steps_one_actor_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
