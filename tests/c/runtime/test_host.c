/* Hosts: one worker at a time, takeover, blocking, poke, threads that cannot start. */
#include "support.h"
#include "support/test.h"

#define LONG_CHAIN 2000

/* ---- an actor that does what a function says ----------------------------------------------------- */

typedef struct doer doer;

struct doer {
    escqrs_actor actor;
    escqrs_message message;
    void (*act)(doer *self);
    fake_host *fake;
    escqrs_host *host;
    doer *other;
    tally *entered;
    tally *gate; /* `act` waits for it */
    int64_t gate_value;
    tally *done;
    int handled; /* plain on purpose */
};

static escqrs_turn_end doer_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)message;
    doer *self = (doer *)actor;
    assert_int_equal(fake_attached, actor->host != NULL);
    self->handled++;
    if (self->act != NULL) {
        self->act(self);
    }
    if (self->done != NULL) {
        tally_add(self->done, 1);
    }
    return ESCQRS_TURN_NEXT;
}

static void doer_destroy(escqrs_actor *actor)
{
    (void)actor;
}

static void doer_describe(const escqrs_actor *actor, char *text, size_t size)
{
    (void)actor;
    snprintf(text, size, "Doer/slow");
}

static const escqrs_actor_ops DOER_OPS = {doer_receive, doer_destroy, doer_describe};

static void doer_init(doer *self, escqrs_runtime *runtime, escqrs_host *host)
{
    *self = (doer){.host = host};
    escqrs_actor_init(&self->actor, runtime, host, &DOER_OPS);
}

/* Waits detached, as a handler that sleeps in the interpreter does, without telling the runtime. */
static void wait_at_gate(doer *self)
{
    void *state = escqrs_host_detach(self->host);
    tally_add(self->entered, 1);
    tally_wait(self->gate, self->gate_value);
    escqrs_host_attach(self->host, state);
}

static void block_at_gate(doer *self)
{
    void *state = escqrs_host_detach(self->host);
    tally_add(self->entered, 1);
    escqrs_runtime_block();
    escqrs_runtime_block(); /* nests */
    tally_wait(self->gate, self->gate_value);
    escqrs_runtime_unblock();
    escqrs_runtime_unblock();
    escqrs_host_attach(self->host, state);
}

/* ---- one worker while nobody stays away ---------------------------------------------------------- */

static void test_one_worker_attaches_once_for_many(void **state)
{
    (void)state;
    enum { COUNT = 10000 };
    fake_host fake = FAKE_HOST_ZERO;
    tally done = TALLY_ZERO;
    /* longer than any machine stands still */
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.takeover_ms = 1000000});
    escqrs_host *host = host_make(runtime, &fake);
    doer *all = calloc(COUNT, sizeof *all);
    fake_attach(&fake, &fake); /* so that all is sent before the worker begins */
    for (int i = 0; i < COUNT; i++) {
        doer_init(&all[i], runtime, host);
        all[i].done = &done;
        escqrs_actor_send(&all[i].actor, &all[i].message);
    }
    fake_detach(&fake);
    tally_wait(&done, COUNT);
    runtime_end(runtime);
    assert_int_equal(atomic_load(&fake.thread_max), 1);
    assert_int_equal(atomic_load(&fake.attach_count), 2); /* this thread's and the worker's */
    assert_true(atomic_load(&fake.batches) >= COUNT / 256);
    free(all);
}

/* ---- takeover --------------------------------------------------------------------------------- */

static void take_over(escqrs_host *(*make)(escqrs_runtime *, fake_host *))
{
    enum { STUCK = 5 };
    fake_host fake = FAKE_HOST_ZERO;
    tally entered = TALLY_ZERO;
    tally gate = TALLY_ZERO;
    tally done = TALLY_ZERO;
    escqrs_runtime *runtime =
        runtime_make(&(escqrs_runtime_options){.takeover_ms = 1, .native_worker_count = 1});
    escqrs_host *host = make(runtime, &fake);
    doer stuck[STUCK];
    doer free_one;
    for (int i = 0; i < STUCK; i++) {
        doer_init(&stuck[i], runtime, host);
        stuck[i].act = wait_at_gate;
        stuck[i].entered = &entered;
        stuck[i].gate = &gate;
        stuck[i].gate_value = 1;
        stuck[i].done = &done;
    }
    escqrs_message second = {0};
    doer_init(&free_one, runtime, host);
    free_one.done = &done;
    for (int i = 0; i < STUCK; i++) {
        escqrs_actor_send(&stuck[i].actor, &stuck[i].message);
    }
    escqrs_actor_send(&stuck[0].actor, &second); /* its rest waits for itself only */
    escqrs_actor_send(&free_one.actor, &free_one.message);
    tally_wait(&entered, STUCK);
    tally_wait(&done, 1);
    assert_int_equal(free_one.handled, 1);
    tally_add(&gate, 1);
    tally_wait(&done, STUCK + 2);
    runtime_end(runtime);
    assert_int_equal(stuck[0].handled, 2);
    assert_true(atomic_load(&fake.attaching_max) <= STUCK + 1);
}

/* What is sent while a worker is away, though nothing waited when it went. */
static void test_send_while_worker_is_away(void **state)
{
    (void)state;
    enum { COUNT = 50 };
    fake_host fake = FAKE_HOST_ZERO;
    tally entered = TALLY_ZERO;
    tally gate = TALLY_ZERO;
    tally done = TALLY_ZERO;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.takeover_ms = 100});
    escqrs_host *host = host_make(runtime, &fake);
    doer stuck;
    doer_init(&stuck, runtime, host);
    stuck.act = wait_at_gate;
    stuck.entered = &entered;
    stuck.gate = &gate;
    stuck.gate_value = 1;
    stuck.done = &done;
    escqrs_actor_send(&stuck.actor, &stuck.message);
    tally_wait(&entered, 1);
    doer others[COUNT];
    for (int i = 0; i < COUNT; i++) {
        doer_init(&others[i], runtime, host);
        others[i].done = &done;
        escqrs_actor_send(&others[i].actor, &others[i].message);
        tally_wait(&done, i + 1);
    }
    tally_add(&gate, 1);
    tally_wait(&done, COUNT + 1);
    runtime_end(runtime);
    /* two, unless a machine stood still for so long that a third took over from the second */
    assert_in_range(atomic_load(&fake.thread_max), 2, COUNT / 2);
}

static escqrs_host *no_host(escqrs_runtime *runtime, fake_host *fake)
{
    (void)runtime;
    (void)fake;
    return NULL;
}

static void test_takeover_hosted(void **state)
{
    (void)state;
    take_over(host_make);
}

static void test_takeover_native(void **state)
{
    (void)state;
    take_over(no_host);
}

/* The limit on workers holds; what waits beyond it is handled when one comes back. */
static void test_takeover_is_bounded(void **state)
{
    (void)state;
    enum { STUCK = 6, LIMIT = 3 };
    fake_host fake = FAKE_HOST_ZERO;
    tally entered = TALLY_ZERO;
    tally gate = TALLY_ZERO;
    tally done = TALLY_ZERO;
    escqrs_runtime *runtime =
        runtime_make(&(escqrs_runtime_options){.takeover_ms = 1, .worker_count_max = LIMIT});
    escqrs_host *host = host_make(runtime, &fake);
    doer stuck[STUCK];
    for (int i = 0; i < STUCK; i++) {
        doer_init(&stuck[i], runtime, host);
        stuck[i].act = wait_at_gate;
        stuck[i].entered = &entered;
        stuck[i].gate = &gate;
        stuck[i].gate_value = i + 1;
        stuck[i].done = &done;
        escqrs_actor_send(&stuck[i].actor, &stuck[i].message);
    }
    tally_wait(&entered, LIMIT);
    assert_int_equal(atomic_load(&fake.thread_max), LIMIT);
    for (int i = 1; i <= STUCK; i++) {
        tally_add(&gate, 1);
        tally_wait(&done, i);
    }
    assert_int_equal(atomic_load(&fake.thread_max), LIMIT);
    runtime_end(runtime);
}

/* A worker that waits for the interpreter keeps its licence: no second one joins the queue there.
 */
static void test_waiting_to_attach_makes_no_workers(void **state)
{
    (void)state;
    fake_host fake = FAKE_HOST_ZERO;
    tally entered = TALLY_ZERO;
    tally gate = TALLY_ZERO;
    tally done = TALLY_ZERO;
    escqrs_runtime *runtime =
        runtime_make(&(escqrs_runtime_options){.takeover_ms = 1, .native_worker_count = 1});
    escqrs_host *host = host_make(runtime, &fake);
    doer hosted;
    doer_init(&hosted, runtime, host);
    hosted.done = &done;
    doer natives[20];
    fake_attach(&fake, &fake);
    escqrs_actor_send(&hosted.actor, &hosted.message);
    while (atomic_load(&fake.attaching) == 0) {
        sched_yield();
    }
    /* each native one waits until the monitor has ticked at least once: nothing else frees its
     * worker's licence */
    for (int i = 0; i < 20; i++) {
        doer_init(&natives[i], runtime, NULL);
        natives[i].act = wait_at_gate;
        natives[i].entered = &entered;
        natives[i].gate = &gate;
        natives[i].gate_value = 1;
        natives[i].done = &done;
        escqrs_actor_send(&natives[i].actor, &natives[i].message);
        tally_wait(&entered, i + 1);
    }
    assert_int_equal(atomic_load(&fake.threads), 1);
    tally_add(&gate, 1);
    fake_detach(&fake);
    tally_wait(&done, 21);
    runtime_end(runtime);
    assert_int_equal(atomic_load(&fake.thread_max), 1);
}

/* ---- block ------------------------------------------------------------------------------------ */

/* Each blocks until the next has finished; the limit does not count those that block. */
static void block_for_next(doer *self)
{
    if (self->other == NULL) {
        return;
    }
    escqrs_actor_send(&self->other->actor, &self->other->message);
    block_at_gate(self);
    assert_int_equal(self->other->handled, 1);
}

static void block_chain(bool hosted, int count)
{
    fake_host fake = FAKE_HOST_ZERO;
    tally entered = TALLY_ZERO;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){
        .takeover_ms = 1000, .worker_count_max = 4, .native_worker_count = 1});
    escqrs_host *host = hosted ? host_make(runtime, &fake) : NULL;
    doer *all = calloc((size_t)count, sizeof *all);
    tally *dones = calloc((size_t)count, sizeof *dones);
    for (int i = 0; i < count; i++) {
        doer_init(&all[i], runtime, host);
        dones[i] = (tally)TALLY_ZERO;
        all[i].act = block_for_next;
        all[i].other = i + 1 < count ? &all[i + 1] : NULL;
        all[i].entered = &entered;
        all[i].gate = i + 1 < count ? &dones[i + 1] : NULL;
        all[i].gate_value = 1;
        all[i].done = &dones[i];
    }
    escqrs_actor_send(&all[0].actor, &all[0].message);
    tally_wait(&dones[0], 1);
    runtime_end(runtime);
    free(dones);
    assert_int_equal(atomic_load(&fake.threads), 0);
    free(all);
}

static int chain_length(void)
{
    return LONG_CHAIN / (int)test_stride(10); /* valgrind allows 500 threads */
}

static void test_block_chain_hosted(void **state)
{
    (void)state;
    block_chain(true, chain_length());
}

static void test_block_chain_native(void **state)
{
    (void)state;
    block_chain(false, chain_length());
}

static void run_the_other(doer *self)
{
    assert_true(escqrs_actor_run(&self->other->actor, &self->other->message));
}

/* A worker that runs an actor of another runtime is still the first one's: there the others go on.
 */
static void test_block_in_an_actor_of_another_runtime(void **state)
{
    (void)state;
    tally entered = TALLY_ZERO;
    tally gate = TALLY_ZERO;
    tally done = TALLY_ZERO;
    escqrs_runtime *runtime =
        runtime_make(&(escqrs_runtime_options){.takeover_ms = 1000000, .native_worker_count = 1});
    escqrs_runtime *another = runtime_make(NULL);
    doer outer, inner, behind;
    doer_init(&inner, another, NULL);
    inner.act = block_at_gate;
    inner.entered = &entered;
    inner.gate = &gate;
    inner.gate_value = 1;
    doer_init(&outer, runtime, NULL);
    outer.act = run_the_other;
    outer.other = &inner;
    outer.done = &done;
    doer_init(&behind, runtime, NULL);
    behind.done = &gate;
    escqrs_actor_send(&outer.actor, &outer.message);
    tally_wait(&entered, 1);
    escqrs_actor_send(&behind.actor, &behind.message);
    tally_wait(&done, 1);
    assert_int_equal(behind.handled, 1);
    assert_int_equal(inner.handled, 1);
    runtime_end(runtime);
    runtime_end(another);
}

static void test_block_elsewhere_does_nothing(void **state)
{
    (void)state;
    escqrs_runtime *runtime = runtime_make(NULL);
    escqrs_runtime_block();
    escqrs_runtime_unblock();
    runtime_end(runtime);
}

/* ---- poke ------------------------------------------------------------------------------------- */

static void test_poke(void **state)
{
    (void)state;
    fake_host fake = FAKE_HOST_ZERO;
    escqrs_runtime *runtime = runtime_make(NULL);
    escqrs_host *host = host_make(runtime, &fake);
    for (int i = 1; i <= 100; i++) {
        int before = atomic_load(&fake.batches);
        escqrs_host_poke(host);
        while (atomic_load(&fake.batches) == before) {
            sched_yield();
        }
    }
    runtime_end(runtime);
}

/* ---- threads that cannot start ---------------------------------------------------------------- */

static void count_log(void *context, escqrs_log_level level, const char *text)
{
    assert_int_equal(level, ESCQRS_LOG_ERROR);
    assert_true(strstr(text, "messages wait") != NULL || strstr(text, "delays all others") != NULL);
    atomic_fetch_add((_Atomic int *)context, 1);
}

static void test_host_refuses_thread(void **state)
{
    (void)state;
    _Atomic int logged = 0;
    fake_host fake = FAKE_HOST_ZERO;
    tally done = TALLY_ZERO;
    escqrs_runtime *runtime =
        runtime_make(&(escqrs_runtime_options){.takeover_ms = 1, .log = {count_log, &logged}});
    escqrs_host *host = host_make(runtime, &fake);
    doer self;
    doer_init(&self, runtime, host);
    self.done = &done;
    atomic_store(&fake.refuse, 1);
    escqrs_actor_send(&self.actor, &self.message);
    while (atomic_load(&logged) == 0) {
        sched_yield();
    }
    atomic_store(&fake.refuse, 0); /* the monitor tries again, without a send */
    tally_wait(&done, 1);
    runtime_end(runtime);
    assert_int_equal(atomic_load(&logged), 1);
}

static void test_no_memory_for_a_worker(void **state)
{
    (void)state;
    _Atomic int logged = 0;
    tally done = TALLY_ZERO;
    /* every allocation of a start fails in turn: the worker, its ring, the thread, the monitor's */
    for (long countdown = 1; countdown <= 4; countdown++) {
        escqrs_runtime *runtime =
            runtime_make(&(escqrs_runtime_options){.takeover_ms = 1, .log = {count_log, &logged}});
        doer self;
        doer_init(&self, runtime, NULL);
        self.done = &done;
        escqrs_alloc_fail(countdown, false);
        escqrs_actor_send(&self.actor, &self.message);
        tally_wait(&done, countdown); /* by the monitor */
        escqrs_alloc_fail(0, false);
        runtime_end(runtime);
    }
    assert_true(atomic_load(&logged) >= 3);
}

static void test_send_after_no_memory_tries_again(void **state)
{
    (void)state;
    _Atomic int logged = 0;
    tally done = TALLY_ZERO;
    escqrs_runtime *runtime = runtime_make(&(escqrs_runtime_options){.log = {count_log, &logged}});
    doer first;
    doer second;
    doer_init(&first, runtime, NULL);
    doer_init(&second, runtime, NULL);
    first.done = second.done = &done;
    escqrs_alloc_fail(1, true); /* not even the monitor starts */
    escqrs_actor_send(&first.actor, &first.message);
    escqrs_alloc_fail(0, false);
    escqrs_actor_send(&second.actor, &second.message);
    tally_wait(&done, 2);
    runtime_end(runtime);
    assert_int_equal(atomic_load(&logged), 1);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_worker_attaches_once_for_many),
        cmocka_unit_test(test_takeover_hosted),
        cmocka_unit_test(test_send_while_worker_is_away),
        cmocka_unit_test(test_takeover_native),
        cmocka_unit_test(test_takeover_is_bounded),
        cmocka_unit_test(test_waiting_to_attach_makes_no_workers),
        cmocka_unit_test(test_block_chain_hosted),
        cmocka_unit_test(test_block_chain_native),
        cmocka_unit_test(test_block_in_an_actor_of_another_runtime),
        cmocka_unit_test(test_block_elsewhere_does_nothing),
        cmocka_unit_test(test_poke),
        cmocka_unit_test(test_host_refuses_thread),
        cmocka_unit_test(test_no_memory_for_a_worker),
        cmocka_unit_test(test_send_after_no_memory_tries_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
