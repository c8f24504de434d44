/* Trees of actors that fail, restart, stop, watch, ask and flood each other at random, while
 * threads outside do the same to them. What must hold in the end: every message was handled once or
 * became a dead letter once; what one sender sent to one actor arrived in its order; every question
 * was answered or refused; every instance, actor and message is gone.
 *
 * ESCQRS_STRESS=long goes on for some minutes; ESCQRS_SEED repeats a run's choices, not its
 * threads.
 */
#include "runtime/actors.h"

#include <time.h>

#include "support/test.h"

#define SENDERS 3
#define SLOTS 48
#define TOPS 6
#define DEPTH_MAX 4
#define ROUND_MESSAGES 4000 /* of each sender, in a round */
#define SHORT_ROUNDS 2
#define LONG_SECONDS 120

/* ---- what is counted -------------------------------------------------------------------------- */

static _Atomic int64_t sent;    /* parcels */
static _Atomic int64_t handled; /* in their last receive */
static _Atomic int64_t dead;
static _Atomic int64_t alive; /* parcels */
static _Atomic int64_t souls;
static _Atomic int64_t instances;
static _Atomic int64_t asked;
static _Atomic int64_t answered;
static _Atomic int64_t disordered;
static _Atomic int64_t twice;

/* ---- messages --------------------------------------------------------------------------------- */

typedef struct parcel {
    escqrs_envelope envelope;
    uint64_t dice;    /* what is to be done with it */
    int sender;       /* outside: 0 to SENDERS-1, with a sequence; -1: an actor */
    int64_t sequence; /* of that sender, over all targets */
    int hops;
    bool done;
} parcel;

static void parcel_destroy(escqrs_envelope *envelope)
{
    atomic_fetch_sub(&alive, 1);
    escqrs_free(envelope);
}

static escqrs_envelope *parcel_copy(const escqrs_envelope *envelope);
static const escqrs_message_type PARCEL = {
    .name = "Parcel", .destroy = parcel_destroy, .copy = parcel_copy};
static const escqrs_message_type ANSWER = {.name = "Answer", .destroy = parcel_destroy};

static parcel *parcel_new(uint64_t dice, int sender, int64_t sequence)
{
    parcel *made = escqrs_alloc_zero(sizeof *made);
    assert_non_null(made);
    atomic_fetch_add(&alive, 1);
    made->envelope.type = &PARCEL;
    made->dice = dice;
    made->sender = sender;
    made->sequence = sequence;
    return made;
}

/* A copy counts as one that was sent. */
static escqrs_envelope *parcel_copy(const escqrs_envelope *envelope)
{
    parcel *made = parcel_new(((const parcel *)envelope)->dice, -1, 0);
    atomic_fetch_add(&sent, 1);
    return &made->envelope;
}

static void send_parcel(escqrs_ref *to, uint64_t dice, int sender, int64_t sequence)
{
    parcel *made = parcel_new(dice, sender, sequence);
    atomic_fetch_add(&sent, 1);
    escqrs_tell(to, &made->envelope, NULL);
}

static void count_once(parcel *given, _Atomic int64_t *as)
{
    if (given->done) {
        atomic_fetch_add(&twice, 1);
    }
    given->done = true;
    atomic_fetch_add(as, 1);
}

static void on_dead_letter(void *data, const escqrs_envelope *event)
{
    (void)data;
    const escqrs_envelope *letter = ((const escqrs_dead_letter_event *)event)->letter;
    if (letter->type == &PARCEL) {
        count_once((parcel *)(uintptr_t)letter, &dead);
    }
}

/* ---- who there is ----------------------------------------------------------------------------- */

static esc_mutex slots_lock = ESC_MUTEX_INITIALIZER;
static escqrs_ref *slots[SLOTS];

/* Held; NULL: nobody is there yet. */
static escqrs_ref *somebody(uint64_t dice)
{
    esc_mutex_lock(&slots_lock);
    escqrs_ref *ref = slots[dice % SLOTS];
    if (ref != NULL) {
        escqrs_ref_hold(ref);
    }
    esc_mutex_unlock(&slots_lock);
    return ref;
}

/* Takes the reference. */
static void remember(uint64_t dice, escqrs_ref *ref)
{
    esc_mutex_lock(&slots_lock);
    escqrs_ref *before = slots[dice % SLOTS];
    slots[dice % SLOTS] = ref;
    esc_mutex_unlock(&slots_lock);
    escqrs_ref_release(before);
}

static uint64_t next_dice(uint64_t *dice)
{
    *dice ^= *dice << 13;
    *dice ^= *dice >> 7;
    *dice ^= *dice << 17;
    return *dice * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

/* ---- actors ----------------------------------------------------------------------------------- */

/* What an actor keeps over its instances: the user data of its props. */
typedef struct soul {
    int depth;
    int children;
    uint64_t dice;
    int64_t last[SENDERS]; /* sequence, of those handled at once */
    bool stashes;          /* order is not looked at any more */
} soul;

static escqrs_turn_end soul_create(escqrs_context *context, void *user_data, void **state)
{
    soul *self = user_data;
    if (next_dice(&self->dice) % 16 == 0) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "no instance");
    }
    atomic_fetch_add(&instances, 1);
    *state = self;
    return ESCQRS_TURN_NEXT;
}

static void soul_destroy(void *state, void *user_data)
{
    assert_ptr_equal(state, user_data);
    ((soul *)state)->children = 0;
    atomic_fetch_sub(&instances, 1);
}

static void soul_release(void *user_data)
{
    atomic_fetch_sub(&souls, 1);
    escqrs_free(user_data);
}

static escqrs_directive soul_decide(void *context, escqrs_ref *child, const escqrs_failure *failure)
{
    (void)context;
    static const escqrs_directive directives[] = {
        ESCQRS_DIRECTIVE_RESTART, ESCQRS_DIRECTIVE_RESTART, ESCQRS_DIRECTIVE_RESUME,
        ESCQRS_DIRECTIVE_RESUME,  ESCQRS_DIRECTIVE_STOP,    ESCQRS_DIRECTIVE_ESCALATE};
    return directives[(escqrs_ref_id(child) + failure->restart_count) % 6];
}

static escqrs_props *soul_props(int depth, uint64_t dice);

static void spawn_soul(escqrs_actor_system *system, escqrs_context *context, int depth,
                       uint64_t dice)
{
    escqrs_props *props = soul_props(depth, dice);
    char name[16] = "";
    if (dice % 3 == 0) {
        snprintf(name, sizeof name, "n%d", (int)(dice / 3 % 20));
    }
    escqrs_ref *ref = NULL;
    escqrs_status status =
        context != NULL
            ? escqrs_context_spawn(context, props, escqrs_slice_of(name), &ref, NULL)
            : escqrs_actor_system_spawn(system, props, escqrs_slice_of(name), &ref, NULL);
    assert_true(status == ESCQRS_OK || status == ESCQRS_NAME_EXISTS || status == ESCQRS_CLOSED);
    if (ref != NULL) {
        remember(dice >> 8, ref);
    }
    escqrs_props_release(props);
}

static escqrs_turn_end then(escqrs_context *context, void *state, void *data, escqrs_envelope *got,
                            const escqrs_failure *failure)
{
    (void)data;
    assert_non_null(state);
    assert_true((got == NULL) == (failure != NULL));
    atomic_fetch_add(&answered, 1);
    if (failure != NULL && failure->status == ESCQRS_IO) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "so do I");
    }
    return ESCQRS_TURN_NEXT;
}

static void respond(escqrs_context *context)
{
    if (escqrs_context_sender(context) != NULL) {
        parcel *made = parcel_new(0, -1, 0);
        made->envelope.type = &ANSWER;
        escqrs_context_respond(context, &made->envelope);
    }
}

static void ask_somebody(escqrs_context *context, escqrs_ref *other, uint64_t dice)
{
    parcel *question = parcel_new(dice, -1, 0);
    atomic_fetch_add(&sent, 1);
    escqrs_status status = escqrs_context_ask(context, other, &question->envelope,
                                              dice % 2 == 0 ? 1000000 : 0, then, NULL, NULL);
    assert_int_equal(status, ESCQRS_OK);
}

/* With another; true: the message has gone on. */
static bool act_with(soul *self, escqrs_context *context, parcel *given, escqrs_ref *other)
{
    uint64_t dice = next_dice(&self->dice);
    switch (given->dice / 16 % 8) {
    case 0:
        if (given->hops < 6) {
            given->hops++;
            given->sender = -1;
            escqrs_context_forward(context, other);
            return true;
        }
        break;
    case 1:
        if (other != escqrs_context_self(context)) {
            assert_int_equal(escqrs_context_watch(context, other, NULL), ESCQRS_OK);
        }
        break;
    case 2:
        escqrs_context_unwatch(context, other);
        break;
    case 3:
        send_parcel(other, dice, -1, 0);
        break;
    case 4:
        if (dice % 8 == 0) {
            escqrs_stop(other);
        }
        break;
    case 5:
        if (dice % 8 == 0) {
            assert_true(escqrs_poison(other) != ESCQRS_NO_MEMORY);
        }
        break;
    default:
        if (given->hops < 2) {
            ask_somebody(context, other, dice);
        }
        break;
    }
    return false;
}

static void act_alone(soul *self, escqrs_context *context)
{
    uint64_t dice = next_dice(&self->dice);
    if (dice % 4 == 0) {
        parcel *tick = parcel_new(dice >> 8, -1, 0);
        atomic_fetch_add(&sent, 1);
        /* a timer that ends before it goes off destroys it: neither handled nor dead */
        tick->envelope.type = &ANSWER;
        atomic_fetch_sub(&sent, 1);
        assert_int_equal(escqrs_context_schedule(context, NULL, &tick->envelope,
                                                 (int64_t)(dice % 100000), 0, NULL, NULL),
                         ESCQRS_OK);
    } else if (self->depth < DEPTH_MAX && self->children < 4) {
        self->children++;
        spawn_soul(NULL, context, self->depth + 1, dice);
    }
}

static void look_at_order(soul *self, const parcel *given)
{
    if (given->sender < 0 || self->stashes) {
        return;
    }
    if (given->sequence <= self->last[given->sender]) {
        atomic_fetch_add(&disordered, 1);
    }
    self->last[given->sender] = given->sequence;
}

static escqrs_turn_end soul_parcel(soul *self, escqrs_context *context, parcel *given)
{
    look_at_order(self, given);
    uint64_t what = given->dice % 16;
    if (what == 0) {
        count_once(given, &handled);
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "on purpose");
    }
    if (what == 1) {
        self->stashes = true;
        given->dice += 4; /* so that it is something else next time */
        if (escqrs_context_stash(context, NULL) == ESCQRS_OK) {
            return ESCQRS_TURN_NEXT;
        }
    }
    if (what == 2) {
        escqrs_context_unstash_all(context);
    }
    if (what == 3) {
        act_alone(self, context);
    }
    if (what >= 4 && what < 10) {
        escqrs_ref *other = somebody(next_dice(&self->dice));
        bool gone = other != NULL && act_with(self, context, given, other);
        escqrs_ref_release(other);
        if (gone) {
            return ESCQRS_TURN_NEXT;
        }
    }
    count_once(given, &handled);
    if (what != 15) {
        respond(context);
    }
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end soul_receive(escqrs_context *context, void *state, escqrs_envelope *message)
{
    soul *self = state;
    if (message->type == &PARCEL) {
        return soul_parcel(self, context, (parcel *)message);
    }
    if (message->type == &escqrs_started && self->depth < 2) {
        for (int i = 0; i < 2; i++) {
            self->children++;
            spawn_soul(NULL, context, self->depth + 1, next_dice(&self->dice));
        }
    }
    if (message->type != &ANSWER && next_dice(&self->dice) % 32 == 0) {
        return escqrs_context_fail(context, ESCQRS_IO, NULL, "in a hook");
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class SOUL = {
    .name = "Soul", .create = soul_create, .receive = soul_receive, .destroy = soul_destroy};

static escqrs_props *soul_props(int depth, uint64_t dice)
{
    soul *self = escqrs_alloc_zero(sizeof *self);
    assert_non_null(self);
    atomic_fetch_add(&souls, 1);
    self->depth = depth;
    self->dice = dice | 1;
    escqrs_supervisor supervisor = {.all_for_one = dice % 5 == 0,
                                    .decide = soul_decide,
                                    .max_restarts = 20,
                                    .backoff_first_ns = dice % 7 == 0 ? 100000 : 0};
    return props_make(&(escqrs_props_options){.actor_class = &SOUL,
                                              .user_data = self,
                                              .release = soul_release,
                                              .supervisor = &supervisor,
                                              .mailbox = {.statistics = dice % 4 == 0}});
}

/* ---- outside ---------------------------------------------------------------------------------- */

typedef struct sender {
    int index;
    uint64_t dice;
    escqrs_actor_system *system;
    esc_thread thread;
    int64_t sequence;
} sender;

static void ask_from_outside(escqrs_ref *ref, uint64_t dice)
{
    parcel *question = parcel_new(dice, -1, 0);
    atomic_fetch_add(&sent, 1);
    atomic_fetch_add(&asked, 1);
    escqrs_envelope *got;
    escqrs_error error = {0};
    int64_t deadline_ns = esc_deadline_after(dice % 3 == 0 ? 0 : 200000000);
    escqrs_status status = escqrs_ask(ref, &question->envelope, deadline_ns, &got, &error);
    assert_true((status == ESCQRS_OK) == (got != NULL));
    escqrs_envelope_destroy(got);
}

static void sender_main(void *context)
{
    sender *self = context;
    for (int i = 0; i < ROUND_MESSAGES; i++) {
        uint64_t dice = next_dice(&self->dice);
        escqrs_ref *ref = somebody(dice >> 20);
        if (ref == NULL || escqrs_ref_state_of(ref) == ESCQRS_REF_STOPPED || dice % 64 == 0) {
            spawn_soul(self->system, NULL, 0, dice | 3);
        }
        if (ref != NULL) {
            if (dice % 32 == 1) {
                ask_from_outside(ref, dice >> 8);
            } else {
                send_parcel(ref, dice >> 8, self->index, ++self->sequence);
            }
            escqrs_ref_release(ref);
        }
    }
}

static void round_of_stress(uint64_t seed_value)
{
    escqrs_actor_system *system = system_make(
        &(escqrs_actor_system_options){.own = {.native_worker_count = 3, .batch_max = 8}});
    assert_int_equal(
        escqrs_subscribe(system, &escqrs_dead_letter, on_dead_letter, NULL, NULL, NULL, NULL),
        ESCQRS_OK);
    for (uint64_t i = 0; i < TOPS; i++) {
        spawn_soul(system, NULL, 0, seed_value + i * 977);
    }
    sender senders[SENDERS];
    for (int i = 0; i < SENDERS; i++) {
        senders[i] =
            (sender){.index = i, .dice = (seed_value + (uint64_t)i * 31) | 1, .system = system};
        assert_int_equal(
            esc_thread_create(&senders[i].thread, "sender", 0, sender_main, &senders[i], NULL),
            ESCQRS_OK);
    }
    for (int i = 0; i < SENDERS; i++) {
        esc_thread_join(&senders[i].thread);
    }
    escqrs_error error = {0};
    if (escqrs_actor_system_stop(system, ESC_DEADLINE_NEVER, &error) != ESCQRS_OK) {
        fail_msg("stop: %s", error.message);
    }
    for (uint64_t i = 0; i < SLOTS; i++) {
        remember(i, NULL);
    }
    escqrs_actor_system_destroy(system);
    assert_int_equal(instances, 0);
    assert_int_equal(souls, 0);
    assert_int_equal(alive, 0);
    assert_int_equal(disordered, 0);
    assert_int_equal(twice, 0);
    assert_int_equal(handled + dead, sent);
}

static void test_nothing_is_lost_or_kept(void **state)
{
    (void)state;
    test_random random = test_random_new();
    const char *stress = getenv("ESCQRS_STRESS");
    bool is_long = stress != NULL && strcmp(stress, "long") == 0;
    int64_t end_ns = esc_deadline_after(is_long ? INT64_C(1000000000) * LONG_SECONDS : 0);
    for (int i = 0; i < SHORT_ROUNDS || escqrs_clock_monotonic_ns(NULL) < end_ns; i++) {
        round_of_stress(test_random_next(&random));
    }
    print_message("%lld parcels: %lld handled, %lld dead letters\n", (long long)sent,
                  (long long)handled, (long long)dead);
}

int main(void)
{
    alarm(TEST_SECONDS_MAX);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_lost_or_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
