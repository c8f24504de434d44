/* tests/bench/entity.c - what the entity layer costs, with an aggregate in C that does almost
 * nothing.
 *
 *   entity submit FILE COMMANDS ENTITIES IN_FLIGHT   commands sent, at most so many at once
 *   entity ask FILE COMMANDS                         one client, one command after the other
 *   entity load FILE ENTITIES DEPTH ROUNDS           states of entities that are not in memory
 *   entity replay FILE DEPTH                         one long history
 *   entity live ENTITIES                             bytes of memory of a live entity beyond its
 * state
 *
 * FILE may be :memory:. Each prints one JSON object. */
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <escqrs/entity.h>

#define PAYLOAD_BYTES 40

static escqrs_store *store;
static escqrs_system *sys;
static escqrs_aggregate *counters;
static escqrs_type *counted;
static escqrs_error error;

static void check(escqrs_status status, const char *what)
{
    if (status != ESCQRS_OK) {
        fprintf(stderr, "entity: %s: %s\n", what, error.message);
        exit(1);
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---- the aggregate -------------------------------------------------------------------------- */

typedef struct counter {
    int64_t count;
} counter;

static escqrs_status counter_create(void *context, escqrs_entity *entity, void **state,
                                    escqrs_error *reason)
{
    (void)context;
    (void)entity;
    (void)reason;
    *state = escqrs_alloc_zero(sizeof(counter));
    return *state != NULL ? ESCQRS_OK : ESCQRS_NO_MEMORY;
}

static void counter_destroy(void *context, void *state)
{
    (void)context;
    escqrs_free(state);
}

static escqrs_status counter_decode(void *context, const escqrs_recorded *recorded, void **decoded,
                                    escqrs_error *reason)
{
    (void)context;
    (void)recorded;
    (void)reason;
    *decoded = NULL;
    return ESCQRS_OK;
}

static void counter_discard(void *context, void *decoded)
{
    (void)context;
    (void)decoded;
}

static escqrs_status counter_apply(void *context, void *state, const escqrs_recorded *recorded,
                                   void *decoded, escqrs_error *reason)
{
    (void)context;
    (void)recorded;
    (void)decoded;
    (void)reason;
    ((counter *)state)->count++;
    return ESCQRS_OK;
}

/* ---- commands ------------------------------------------------------------------------------- */

typedef struct count_one {
    escqrs_command command;
    int64_t events;
    struct count_one *next_free;
    int done;
    escqrs_status status;
} count_one;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static count_one *free_list; /* lock */
static int waiting;          /* lock */

static void done_pooled(escqrs_command *command, escqrs_status status, const escqrs_error *reason)
{
    (void)reason;
    count_one *one = (count_one *)command;
    one->status = status;
    pthread_mutex_lock(&lock);
    one->next_free = free_list;
    free_list = one;
    if (waiting) {
        pthread_cond_signal(&answered);
    }
    pthread_mutex_unlock(&lock);
}

static void done_flag(escqrs_command *command, escqrs_status status, const escqrs_error *reason)
{
    count_one *one = (count_one *)command;
    one->status = status;
    if (status != ESCQRS_OK) {
        fprintf(stderr, "entity: %s\n", reason->message);
        exit(1);
    }
    __atomic_store_n(&one->done, 1, __ATOMIC_RELEASE);
}

static escqrs_status visit(escqrs_command *command, escqrs_entity *entity, void *state,
                           int64_t version, escqrs_error *reason)
{
    (void)entity;
    (void)version;
    (void)reason;
    ((count_one *)command)->events = ((counter *)state)->count;
    return ESCQRS_OK;
}

static const escqrs_command_ops pooled_ops = {done_pooled, visit, NULL};
static const escqrs_command_ops flag_ops = {done_flag, visit, NULL};

static escqrs_status counter_handle(void *context, void *state, escqrs_turn *turn,
                                    escqrs_command *command, escqrs_error *reason)
{
    static const char payload[PAYLOAD_BYTES] = "an event of the usual size, forty bytes";
    (void)context;
    const count_one *one = (const count_one *)command;
    escqrs_status status = ESCQRS_OK;
    for (int64_t i = 0; i < one->events && status == ESCQRS_OK; i++) {
        status = escqrs_turn_emit(turn, counted, (escqrs_slice){payload, sizeof payload}, reason);
        ((counter *)state)->count++;
    }
    return status;
}

static const escqrs_aggregate_ops counter_ops = {
    .create = counter_create,
    .destroy = counter_destroy,
    .decode = counter_decode,
    .discard = counter_discard,
    .apply = counter_apply,
    .handle = counter_handle,
};

/* ---- workloads ------------------------------------------------------------------------------ */

static void open_all(const char *path, size_t live_max)
{
    escqrs_system_options options = {.live_max = live_max};
    check(escqrs_store_open(path, NULL, &store, &error), path);
    check(escqrs_store_type(store, escqrs_slice_of("Counted"), (escqrs_slice){NULL, 0}, &counted,
                            &error),
          "type");
    check(escqrs_system_create(store, &options, &sys, &error), "system");
    check(escqrs_aggregate_add(sys, escqrs_slice_of("Counter"), &counter_ops, NULL, NULL, NULL,
                               &counters, &error),
          "aggregate");
}

static void close_all(void)
{
    check(escqrs_system_close(sys, INT64_MAX, &error), "close");
    escqrs_system_destroy(sys);
    escqrs_store_destroy(store);
}

static escqrs_entity *entity_of(long number)
{
    char id[32];
    snprintf(id, sizeof id, "counter-%ld", number);
    escqrs_entity *entity;
    check(escqrs_entity_get(counters, escqrs_slice_of(id), &entity, &error), "get");
    return entity;
}

static int64_t ask(escqrs_entity *entity, int64_t events, bool look)
{
    count_one one = {.command = {.ops = &flag_ops, .special = look}, .events = events};
    check(escqrs_entity_ask(entity, &one.command, &error), "ask");
    while (!__atomic_load_n(&one.done, __ATOMIC_ACQUIRE)) { /* one client: it ran on this thread */
    }
    return one.events;
}

static count_one *take_free(void)
{
    pthread_mutex_lock(&lock);
    while (free_list == NULL) {
        waiting = 1;
        pthread_cond_wait(&answered, &lock);
        waiting = 0;
    }
    count_one *one = free_list;
    free_list = NULL; /* the rest is ours as well: taken without the lock */
    pthread_mutex_unlock(&lock);
    return one;
}

static void run_submit(const char *path, long commands, long entities, long in_flight)
{
    open_all(path, 0);
    escqrs_entity **all = malloc((size_t)entities * sizeof *all);
    count_one *pool = calloc((size_t)in_flight, sizeof *pool);
    for (long i = 0; i < entities; i++) {
        all[i] = entity_of(i);
        (void)ask(all[i], 1, false);
    }
    for (long i = 0; i < in_flight; i++) {
        pool[i].next_free = free_list;
        free_list = &pool[i];
    }
    double begin = now();
    count_one *ready = NULL;
    for (long i = 0; i < commands; i++) {
        if (ready == NULL) {
            ready = take_free();
        }
        count_one *one = ready;
        ready = one->next_free;
        *one = (count_one){.command = {.ops = &pooled_ops}, .events = 1};
        check(escqrs_entity_send(all[i % entities], &one->command, &error), "send");
    }
    check(escqrs_system_drain(sys, INT64_MAX, &error), "drain");
    double seconds = now() - begin;
    printf("{\"workload\": \"submit\", \"commands\": %ld, \"entities\": %ld, \"in_flight\": %ld, "
           "\"per_second\": %.0f}\n",
           commands, entities, in_flight, (double)commands / seconds);
    for (long i = 0; i < entities; i++) {
        escqrs_entity_release(all[i]);
    }
    close_all();
    free(all);
    free(pool);
}

static void run_ask(const char *path, long commands)
{
    open_all(path, 0);
    escqrs_entity *entity = entity_of(0);
    (void)ask(entity, 1, false);
    double begin = now();
    for (long i = 0; i < commands; i++) {
        (void)ask(entity, 1, false);
    }
    double seconds = now() - begin;
    double begin_look = now();
    for (long i = 0; i < commands; i++) {
        (void)ask(entity, 0, true);
    }
    double looking = now() - begin_look;
    printf("{\"workload\": \"ask\", \"commands\": %ld, \"per_second\": %.0f, \"look_ns\": %.0f}\n",
           commands, (double)commands / seconds, looking / (double)commands * 1e9);
    escqrs_entity_release(entity);
    close_all();
}

static void run_load(const char *path, long entities, long depth, long rounds)
{
    open_all(path, 1); /* hardly anything stays in memory */
    for (long i = 0; i < entities; i++) {
        escqrs_entity *entity = entity_of(i);
        (void)ask(entity, depth, false);
        escqrs_entity_release(entity);
    }
    double begin = now();
    for (long i = 0; i < rounds; i++) {
        escqrs_entity *entity = entity_of(i % entities);
        if (ask(entity, 0, true) != depth) {
            fprintf(stderr, "entity: a state differs\n");
            exit(1);
        }
        escqrs_entity_release(entity);
    }
    double seconds = now() - begin;
    printf("{\"workload\": \"load\", \"depth\": %ld, \"us\": %.2f, \"events_per_second\": %.0f}\n",
           depth, seconds / (double)rounds * 1e6, (double)(rounds * depth) / seconds);
    close_all();
}

static void run_live(long entities)
{
    open_all(":memory:", (size_t)entities + 1);
    escqrs_entity *first = entity_of(-1);
    (void)ask(first, 0, true);
    struct mallinfo2 before = mallinfo2();
    for (long i = 0; i < entities; i++) {
        escqrs_entity *entity = entity_of(i);
        (void)ask(entity, 0, true);
        escqrs_entity_release(entity);
    }
    struct mallinfo2 after = mallinfo2();
    double bytes = (double)(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd);
    printf("{\"workload\": \"live\", \"entities\": %zu, \"bytes\": %.0f}\n",
           escqrs_system_live(sys),
           bytes / (double)entities - 32); /* a counter takes 32 of malloc's bytes */
    escqrs_entity_release(first);
    close_all();
}

int main(int count, char **arguments)
{
    const char *mode = count > 2 ? arguments[1] : "";
    long numbers[3] = {0};
    for (int i = 0; i < 3 && i + 3 < count; i++) {
        numbers[i] = atol(arguments[i + 3]);
    }
    if (strcmp(mode, "submit") == 0 && count == 6) {
        run_submit(arguments[2], numbers[0], numbers[1], numbers[2]);
    } else if (strcmp(mode, "ask") == 0 && count == 4) {
        run_ask(arguments[2], numbers[0]);
    } else if (strcmp(mode, "load") == 0 && count == 6) {
        run_load(arguments[2], numbers[0], numbers[1], numbers[2]);
    } else if (strcmp(mode, "replay") == 0 && count == 4) {
        run_load(arguments[2], 2, numbers[0], 4);
    } else if (strcmp(mode, "live") == 0 && count == 3) {
        run_live(atol(arguments[2]));
    } else {
        fprintf(stderr, "usage: see the head of tests/bench/entity.c\n");
        return 2;
    }
    return 0;
}
