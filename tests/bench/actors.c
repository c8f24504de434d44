/* Messages a second of the actor system in C: ping-pong, random sends, many to one, lives, Skynet;
 * and the memory of an idle actor. Prints the median of some rounds with the worst and the best. */
#include <escqrs/actor.h>

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUND_COUNT 3

static void require(bool condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

static double part = 1; /* of the counts; but Skynet's */

static int64_t counted(int64_t count)
{
    return (int64_t)((double)count * part);
}

static int64_t now_ns(void)
{
    return escqrs_clock_monotonic_ns(NULL);
}

static void wait_for(_Atomic int64_t *value, int64_t wanted)
{
    while (atomic_load_explicit(value, memory_order_acquire) < wanted) {
        struct timespec pause = {.tv_nsec = 100000};
        nanosleep(&pause, NULL);
    }
}

static escqrs_actor_system *begin(unsigned workers)
{
    escqrs_actor_system *system;
    escqrs_actor_system_options options = {.own = {.native_worker_count = workers}};
    require(escqrs_actor_system_create(&options, &system, NULL) == ESCQRS_OK, "create");
    return system;
}

static void end(escqrs_actor_system *system)
{
    require(escqrs_actor_system_stop(system, INT64_MAX, NULL) == ESCQRS_OK, "stop");
    escqrs_actor_system_destroy(system);
}

static escqrs_props *props_of(const escqrs_actor_class *actor_class, void *data)
{
    escqrs_props *props;
    require(
        escqrs_props_create(&(escqrs_props_options){.actor_class = actor_class, .user_data = data},
                            &props, NULL) == ESCQRS_OK,
        "props");
    return props;
}

static escqrs_ref *spawn(escqrs_actor_system *system, escqrs_props *props)
{
    escqrs_ref *ref;
    require(escqrs_actor_system_spawn(system, props, (escqrs_slice){0}, &ref, NULL) == ESCQRS_OK,
            "spawn");
    return ref;
}

/* ---- letters that wander ---------------------------------------------------------------------- */

typedef struct letter {
    escqrs_envelope envelope;
    int64_t hops_left;
    uint32_t random;
} letter;

static void letter_destroy(escqrs_envelope *envelope)
{
    (void)envelope; /* one block for all */
}

static const escqrs_message_type LETTER = {.name = "Letter", .destroy = letter_destroy};

typedef struct group {
    escqrs_ref **all;
    unsigned count;
    _Atomic int64_t finished;
    _Atomic int64_t started;
} group;

static escqrs_turn_end wander(escqrs_context *context, void *state, escqrs_envelope *message)
{
    group *peers = state;
    if (message->type != &LETTER) {
        if (message->type == &escqrs_started) {
            atomic_fetch_add_explicit(&peers->started, 1, memory_order_release);
        }
        return ESCQRS_TURN_NEXT;
    }
    letter *given = (letter *)message;
    if (--given->hops_left < 0) {
        atomic_fetch_add_explicit(&peers->finished, 1, memory_order_release);
        return ESCQRS_TURN_NEXT;
    }
    escqrs_ref *next;
    if (peers->count == 2) {
        next = peers->all[escqrs_context_self(context) == peers->all[0]];
    } else {
        given->random = given->random * 1664525u + 1013904223u;
        next = peers->all[((uint64_t)given->random * peers->count) >> 32];
    }
    escqrs_context_tell(context, next, escqrs_context_take(context));
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class WANDERER = {.name = "Wanderer", .receive = wander};

static double wandering(unsigned workers, unsigned actors, unsigned letters, int64_t count)
{
    count = counted(count);
    escqrs_actor_system *system = begin(workers);
    group peers = {.count = actors, .all = malloc(actors * sizeof(escqrs_ref *))};
    letter *mail = calloc(letters, sizeof *mail);
    require(peers.all != NULL && mail != NULL, "memory");
    escqrs_props *props = props_of(&WANDERER, &peers);
    for (unsigned i = 0; i < actors; i++) {
        peers.all[i] = spawn(system, props);
    }
    wait_for(&peers.started, actors);
    int64_t start = now_ns();
    for (unsigned i = 0; i < letters; i++) {
        mail[i].envelope.type = &LETTER;
        mail[i].hops_left = count / letters;
        mail[i].random = i * 2654435761u;
        escqrs_tell(peers.all[i % actors], &mail[i].envelope, NULL);
    }
    wait_for(&peers.finished, letters);
    double result = (double)count / (double)(now_ns() - start) * 1e3;
    for (unsigned i = 0; i < actors; i++) {
        escqrs_ref_release(peers.all[i]);
    }
    escqrs_props_release(props);
    end(system);
    free(peers.all);
    free(mail);
    return result;
}

static double ping_pong(void)
{
    return wandering(1, 2, 1, 10000000);
}

static double ping_pong_many(void)
{
    return wandering(1, 2, 100, 20000000);
}

static double random_thousand(void)
{
    return wandering(1, 1000, 4000, 20000000);
}

static double random_thousand_all_cores(void)
{
    return wandering(0, 1000, 4000, 20000000);
}

static double random_million(void)
{
    return wandering(1, 1000000, 1000, 5000000);
}

static double random_million_all_cores(void)
{
    return wandering(0, 1000000, 1000, 5000000);
}

/* ---- request and respond ---------------------------------------------------------------------- */

static escqrs_turn_end echo(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)state;
    if (message->type == &LETTER) {
        escqrs_ref *sender = escqrs_context_sender(context);
        escqrs_context_request(context, sender, escqrs_context_take(context), NULL);
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class ECHO = {.name = "Echo", .receive = echo};

typedef struct caller {
    escqrs_ref *echo;
    letter mail;
    int64_t left;
    _Atomic int64_t finished;
} caller;

static escqrs_turn_end call(escqrs_context *context, void *state, escqrs_envelope *message)
{
    caller *self = state;
    if (message->type != &LETTER) {
        return ESCQRS_TURN_NEXT;
    }
    if (--self->left < 0) {
        atomic_store_explicit(&self->finished, 1, memory_order_release);
        return ESCQRS_TURN_NEXT;
    }
    escqrs_context_request(context, self->echo, escqrs_context_take(context), NULL);
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class CALLER = {.name = "Caller", .receive = call};

static double request_respond(void)
{
    int64_t count = counted(5000000);
    escqrs_actor_system *system = begin(1);
    caller self = {.left = count / 2, .mail = {.envelope = {.type = &LETTER}}};
    escqrs_props *echo_props = props_of(&ECHO, NULL);
    escqrs_props *props = props_of(&CALLER, &self);
    self.echo = spawn(system, echo_props);
    escqrs_ref *ref = spawn(system, props);
    int64_t start = now_ns();
    escqrs_tell(ref, &self.mail.envelope, NULL);
    wait_for(&self.finished, 1);
    double result = (double)count / (double)(now_ns() - start) * 1e3;
    escqrs_ref_release(ref);
    escqrs_ref_release(self.echo);
    escqrs_props_release(props);
    escqrs_props_release(echo_props);
    end(system);
    return result;
}

/* ---- many to one ------------------------------------------------------------------------------ */

static escqrs_turn_end count_it(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)context;
    if (message->type == &LETTER) {
        _Atomic int64_t *count = state;
        int64_t value = atomic_load_explicit(count, memory_order_relaxed) + 1;
        atomic_store_explicit(count, value, memory_order_release);
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class COUNTER = {.name = "Counter", .receive = count_it};

typedef struct flood {
    pthread_t thread;
    escqrs_ref *target;
    letter *letters;
    int64_t count;
} flood;

static void *flood_main(void *context)
{
    flood *self = context;
    for (int64_t i = 0; i < self->count; i++) {
        escqrs_tell(self->target, &self->letters[i].envelope, NULL);
    }
    return NULL;
}

static double many_to_one(void)
{
    enum { THREADS = 2 };
    int64_t count = counted(1000000);
    escqrs_actor_system *system = begin(1);
    _Atomic int64_t handled = 0;
    escqrs_props *props = props_of(&COUNTER, &handled);
    escqrs_ref *ref = spawn(system, props);
    flood floods[THREADS];
    for (int i = 0; i < THREADS; i++) {
        floods[i] = (flood){.target = ref, .count = count};
        floods[i].letters = calloc((size_t)count, sizeof(letter));
        require(floods[i].letters != NULL, "memory");
        for (int64_t k = 0; k < count; k++) {
            floods[i].letters[k].envelope.type = &LETTER;
        }
    }
    int64_t start = now_ns();
    for (int i = 0; i < THREADS; i++) {
        require(pthread_create(&floods[i].thread, NULL, flood_main, &floods[i]) == 0, "thread");
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(floods[i].thread, NULL);
    }
    wait_for(&handled, THREADS * count);
    double result = (double)(THREADS * count) / (double)(now_ns() - start) * 1e3;
    escqrs_ref_release(ref);
    escqrs_props_release(props);
    end(system);
    for (int i = 0; i < THREADS; i++) {
        free(floods[i].letters);
    }
    return result;
}

/* ---- ask from outside ------------------------------------------------------------------------- */

/* A letter that its sender uses again: when it has been destroyed, which comes after its answer. */
typedef struct loan {
    escqrs_envelope envelope;
    _Atomic bool away;
} loan;

static void loan_destroy(escqrs_envelope *envelope)
{
    /* release: pairs with the acquire in loan_is_away */
    atomic_store_explicit(&((loan *)envelope)->away, false, memory_order_release);
}

static const escqrs_message_type LOAN = {.name = "Loan", .destroy = loan_destroy};

static bool loan_is_away(loan *self)
{
    return atomic_load_explicit(&self->away, memory_order_acquire);
}

static escqrs_envelope *loan_send(loan *self)
{
    self->envelope.type = &LOAN;
    atomic_store_explicit(&self->away, true, memory_order_relaxed);
    return &self->envelope;
}

static escqrs_turn_end answer(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)state;
    if (message->type == &LOAN) {
        static letter reply = {.envelope = {.type = &LETTER}};
        reply.envelope.sender = NULL;
        escqrs_context_respond(context, &reply.envelope);
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class ANSWERER = {.name = "Answerer", .receive = answer};

static double ask_idle(void)
{
    int64_t count = counted(2000000);
    escqrs_actor_system *system = begin(1);
    escqrs_props *props = props_of(&ANSWERER, NULL);
    escqrs_ref *ref = spawn(system, props);
    loan question = {0};
    int64_t start = now_ns();
    for (int64_t i = 0; i < count; i++) {
        escqrs_envelope *got;
        escqrs_envelope *asked = loan_send(&question);
        require(escqrs_ask(ref, asked, INT64_MAX, &got, NULL) == ESCQRS_OK, "ask");
        while (loan_is_away(&question)) {
            sched_yield();
        }
    }
    double result = (double)count / (double)(now_ns() - start) * 1e3;
    escqrs_ref_release(ref);
    escqrs_props_release(props);
    end(system);
    return result;
}

/* ---- lives: create, one message, stop --------------------------------------------------------- */

typedef struct nursery {
    escqrs_props *props;
    letter mail;
    loan mayfly_mail[1024]; /* used in turn */
    size_t next;
    int64_t left;
    _Atomic int64_t finished;
} nursery;

static escqrs_turn_end live(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)state;
    if (message->type == &LOAN) {
        escqrs_stop(escqrs_context_self(context));
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class MAYFLY = {.name = "Mayfly", .receive = live};

static escqrs_envelope *mayfly_letter(nursery *self)
{
    loan *next = &self->mayfly_mail[self->next];
    if (loan_is_away(next)) {
        return NULL;
    }
    self->next = (self->next + 1) % (sizeof self->mayfly_mail / sizeof self->mayfly_mail[0]);
    return loan_send(next);
}

/* Some at a time, so that the parent has a turn. */
static escqrs_turn_end nurse(escqrs_context *context, void *state, escqrs_envelope *message)
{
    nursery *self = state;
    if (message->type != &LETTER) {
        return ESCQRS_TURN_NEXT;
    }
    for (int i = 0; i < 8 && self->left > 0; i++, self->left--) {
        escqrs_envelope *mail = mayfly_letter(self);
        if (mail == NULL) {
            break;
        }
        escqrs_ref *ref;
        require(escqrs_context_spawn(context, self->props, (escqrs_slice){0}, &ref, NULL) ==
                    ESCQRS_OK,
                "spawn");
        escqrs_tell(ref, mail, NULL);
        escqrs_ref_release(ref);
    }
    if (self->left > 0) {
        escqrs_context_tell(context, escqrs_context_self(context), escqrs_context_take(context));
    } else {
        atomic_store_explicit(&self->finished, 1, memory_order_release);
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class NURSE = {.name = "Nurse", .receive = nurse};

static double lives(void)
{
    int64_t count = counted(1000000);
    escqrs_actor_system *system = begin(1);
    nursery self = {
        .props = props_of(&MAYFLY, NULL), .left = count, .mail = {.envelope = {.type = &LETTER}}};
    escqrs_props *props = props_of(&NURSE, &self);
    escqrs_ref *ref = spawn(system, props);
    int64_t start = now_ns();
    escqrs_tell(ref, &self.mail.envelope, NULL);
    wait_for(&self.finished, 1);
    while (escqrs_actor_system_actor_count(system) > 1) {
        struct timespec pause = {.tv_nsec = 100000};
        nanosleep(&pause, NULL);
    }
    double result = (double)count / (double)(now_ns() - start) * 1e3;
    escqrs_ref_release(ref);
    escqrs_props_release(props);
    escqrs_props_release(self.props);
    end(system);
    return result;
}

/* ---- Skynet: a tree of ten children each, a million leaves that answer their number ----------- */

#define SKYNET_LEAVES 1000000

typedef struct number {
    escqrs_envelope envelope;
    int64_t value;
} number;

static const escqrs_message_type NUMBER = {.name = "Number"};

static escqrs_envelope *number_new(int64_t value)
{
    number *made = escqrs_alloc_zero(sizeof *made);
    require(made != NULL, "memory");
    made->envelope.type = &NUMBER;
    made->value = value;
    return &made->envelope;
}

typedef struct order {
    escqrs_envelope envelope;
    int64_t first;
    int64_t size;
} order;

static const escqrs_message_type ORDER = {.name = "Order"};

static escqrs_envelope *order_new(int64_t first, int64_t size)
{
    order *made = escqrs_alloc_zero(sizeof *made);
    require(made != NULL, "memory");
    made->envelope.type = &ORDER;
    made->first = first;
    made->size = size;
    return &made->envelope;
}

typedef struct node {
    int64_t sum;
    int waiting;
} node;

static escqrs_props *skynet_props;
static _Atomic int64_t skynet_sum;
static _Atomic int64_t skynet_finished;

static void skynet_report(escqrs_context *context, int64_t sum)
{
    escqrs_ref *parent = escqrs_context_parent(context);
    if (parent != NULL) {
        escqrs_context_tell(context, parent, number_new(sum));
    } else {
        atomic_store(&skynet_sum, sum);
        atomic_store_explicit(&skynet_finished, 1, memory_order_release);
    }
    escqrs_stop(escqrs_context_self(context));
}

static void skynet_order(escqrs_context *context, node *self, const order *given)
{
    if (given->size == 1) {
        skynet_report(context, given->first);
        return;
    }
    int64_t size = given->size / 10;
    self->waiting = 10;
    for (int i = 0; i < 10; i++) {
        escqrs_ref *child;
        require(escqrs_context_spawn(context, skynet_props, (escqrs_slice){0}, &child, NULL) ==
                    ESCQRS_OK,
                "spawn");
        escqrs_tell(child, order_new(given->first + i * size, size), NULL);
        escqrs_ref_release(child);
    }
}

static escqrs_turn_end skynet_create(escqrs_context *context, void *user_data, void **state)
{
    (void)context;
    (void)user_data;
    *state = calloc(1, sizeof(node));
    return ESCQRS_TURN_NEXT;
}

static void skynet_destroy(void *state, void *user_data)
{
    (void)user_data;
    free(state);
}

static escqrs_turn_end skynet_receive(escqrs_context *context, void *state,
                                      escqrs_envelope *message)
{
    node *self = state;
    if (message->type == &ORDER) {
        skynet_order(context, self, (order *)message);
    } else if (message->type == &NUMBER) {
        self->sum += ((number *)message)->value;
        if (--self->waiting == 0) {
            skynet_report(context, self->sum);
        }
    }
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class SKYNET = {.name = "Skynet",
                                          .create = skynet_create,
                                          .receive = skynet_receive,
                                          .destroy = skynet_destroy};

/* In millions of leaves a second. */
static double skynet(void)
{
    escqrs_actor_system *system = begin(0);
    skynet_props = props_of(&SKYNET, NULL);
    atomic_store(&skynet_finished, 0);
    int64_t start = now_ns();
    escqrs_ref *ref = spawn(system, skynet_props);
    escqrs_tell(ref, order_new(0, SKYNET_LEAVES), NULL);
    wait_for(&skynet_finished, 1);
    double result = (double)SKYNET_LEAVES / (double)(now_ns() - start) * 1e3;
    require(skynet_sum == INT64_C(499999500000), "the sum");
    escqrs_ref_release(ref);
    escqrs_props_release(skynet_props);
    end(system);
    return result;
}

/* ---- memory ----------------------------------------------------------------------------------- */

static double bytes_of_an_idle_actor(void)
{
    enum { COUNT = 100000 };
    escqrs_actor_system *system = begin(1);
    group peers = {.count = COUNT, .all = malloc(COUNT * sizeof(escqrs_ref *))};
    require(peers.all != NULL, "memory");
    escqrs_props *props = props_of(&WANDERER, &peers);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < COUNT; i++) {
        peers.all[i] = spawn(system, props);
    }
    wait_for(&peers.started, COUNT);
    double result = (double)(mallinfo2().uordblks - before) / COUNT;
    for (int i = 0; i < COUNT; i++) {
        escqrs_ref_release(peers.all[i]);
    }
    escqrs_props_release(props);
    end(system);
    free(peers.all);
    return result;
}

/* ---- table ------------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

typedef struct workload {
    const char *key;
    const char *name;
    double wanted;
    double (*run)(void);
} workload;

static const workload WORKLOADS[] = {
    {"bytes", "bytes of an idle actor (not millions)", 400, bytes_of_an_idle_actor},
    {"ping_pong", "ping-pong, 1 in flight, one worker", 25, ping_pong},
    {"ping_pong_many", "ping-pong, 100 in flight, one worker", 80, ping_pong_many},
    {"request", "ping-pong with senders, 1 in flight, one worker", 0, request_respond},
    {"random_thousand", "random among 1,000, one worker", 60, random_thousand},
    {"random_thousand_all", "random among 1,000, all cores", 60, random_thousand_all_cores},
    {"random_million", "random among 1,000,000, one worker", 8, random_million},
    {"random_million_all", "random among 1,000,000, all cores", 8, random_million_all_cores},
    {"many_to_one", "many-to-one, 2 other threads", 15, many_to_one},
    {"ask", "ask of an idle actor, outside", 0, ask_idle},
    {"lives", "create, one message, stop", 3, lives},
    {"skynet", "Skynet, leaves, all cores", 0, skynet},
};

#define WORKLOAD_COUNT (sizeof WORKLOADS / sizeof WORKLOADS[0])

static void print_rounds(const workload *what)
{
    double results[ROUND_COUNT];
    for (int i = 0; i < ROUND_COUNT; i++) {
        results[i] = what->run();
    }
    qsort(results, ROUND_COUNT, sizeof results[0], compare);
    printf("%-52s %9.2f %9.2f %9.2f %9.2f\n", what->name, results[ROUND_COUNT / 2], results[0],
           results[ROUND_COUNT - 1], what->wanted);
    fflush(stdout);
}

/* One round of each, as one object: figures a second. */
static void print_json(void)
{
    for (size_t i = 0; i < WORKLOAD_COUNT; i++) {
        double result = WORKLOADS[i].run();
        bool is_rate = WORKLOADS[i].run != bytes_of_an_idle_actor;
        printf("%s\"%s\": %.1f", i == 0 ? "{" : ", ", WORKLOADS[i].key,
               is_rate ? result * 1e6 : result);
    }
    printf("}\n");
}

/* actors [--json [SHARE OF THE WORK] | PART OF A NAME [SHARE OF THE WORK]] */
int main(int argc, char **argv)
{
    part = argc > 2 ? strtod(argv[2], NULL) : 1;
    if (argc > 1 && strcmp(argv[1], "--json") == 0) {
        print_json();
        return 0;
    }
    printf("%-52s %9s %9s %9s %9s\n", "millions a second", "median", "worst", "best", "wanted");
    for (size_t i = 0; i < WORKLOAD_COUNT; i++) {
        if (argc < 2 || strstr(WORKLOADS[i].name, argv[1]) != NULL) {
            print_rounds(&WORKLOADS[i]);
        }
    }
    return 0;
}
