/* The journal: many threads, lanes, work between batches, waiting for the head, closing under load.
 */
#include "fixture.h"

#include <pthread.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <time.h>

#define THREADS 8
#define ROUNDS 300

typedef struct slot { /* a submitted commit of one event */
    escqrs_commit commit;
    escqrs_write write;
    escqrs_new_event event;
    escqrs_error error;
    char data[32];
    char stream[32];
    int order;
} slot;

static _Atomic int answered;
static int last_order;

static void note_answer(escqrs_commit *commit)
{
    slot *s = commit->context;
    last_order = s->order;
    atomic_fetch_add(&answered, 1);
}

static void fill(escqrs_store *store, slot *s, const char *stream, int64_t expected)
{
    memset(s, 0, sizeof *s);
    snprintf(s->stream, sizeof s->stream, "%s", stream);
    snprintf(s->data, sizeof s->data, "%s:%lld", stream, (long long)expected + 1);
    s->event = (escqrs_new_event){.type = type_of(store, "Test"), .data = text(s->data)};
    s->write = (escqrs_write){
        .stream = text(s->stream), .expected = expected, .events = &s->event, .event_count = 1};
    s->commit = (escqrs_commit){.writes = &s->write,
                                .write_count = 1,
                                .done = note_answer,
                                .context = s,
                                .error = &s->error};
}

/* ---- threads ---------------------------------------------------------------------------------- */

typedef struct worker {
    pthread_t thread;
    escqrs_store *store;
    slot *slot; /* what it commits again and again, where the test has filled it */
    int number;
} worker;

static void *commit_all(void *context)
{
    worker *w = context;
    char stream[32];
    snprintf(stream, sizeof stream, "Worker/%d", w->number);
    for (int i = 0; i < ROUNDS; i++) {
        append(w->store, stream, i, 1 + (size_t)(i % 3 == 0));
        i += i % 3 == 0;
    }
    return NULL;
}

static void *submit_all(void *context)
{
    worker *w = context;
    char stream[32];
    slot *slots = calloc(ROUNDS, sizeof *slots);
    snprintf(stream, sizeof stream, "Worker/%d", w->number);
    for (int i = 0; i < ROUNDS; i++) {
        fill(w->store, &slots[i], stream, i);
        assert_int_equal(escqrs_store_submit(w->store, &slots[i].commit, NULL), ESCQRS_OK);
    }
    append(w->store, stream, ROUNDS, 1); /* behind them all */
    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(slots[i].commit.status, ESCQRS_OK);
        assert_int_equal(slots[i].write.version, i + 1);
    }
    free(slots);
    return NULL;
}

static void *read_all(void *context)
{
    worker *w = context;
    int64_t seen = 0, before = -1;
    while (seen < (THREADS / 2) * (ROUNDS + 1) + (THREADS / 2) * ROUNDS) {
        assert_int_equal(escqrs_store_wait(w->store, seen, NULL, INT64_MAX), ESCQRS_OK);
        seen = check_all(w->store);
        assert_true(seen > before);
        before = seen;
        check_stream(w->store, "Worker/0");
    }
    return NULL;
}

static void threads(const char *path)
{
    escqrs_store *store = open_store(path);
    worker workers[THREADS + 2];
    for (int i = 0; i < THREADS + 2; i++) {
        workers[i] = (worker){.store = store, .number = i};
        pthread_create(&workers[i].thread, NULL,
                       i >= THREADS ? read_all
                       : i % 2 == 0 ? commit_all
                                    : submit_all,
                       &workers[i]);
    }
    for (int i = 0; i < THREADS + 2; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    for (int i = 0; i < THREADS; i++) {
        char stream[32];
        snprintf(stream, sizeof stream, "Worker/%d", i);
        int64_t count = check_stream(store, stream);
        assert_true(i % 2 == 0 ? count >= ROUNDS : count == ROUNDS + 1);
    }
    assert_int_equal(escqrs_store_backlog(store), 0);
    escqrs_store_destroy(store);
}

static void test_threads(void **state)
{
    (void)state;
    threads(fixture_path);
}

static void test_threads_in_memory(void **state)
{
    (void)state;
    threads(":memory:");
}

/* Writers of one stream: exactly one of those who expect the same version wins. */
static void *race(void *context)
{
    worker *w = context;
    for (int won = 0; won < 50;) {
        int64_t version = version_of(w->store, "contended");
        escqrs_status status = append_many(w->store, "contended", version, 1, NULL, NULL);
        assert_true(status == ESCQRS_OK || status == ESCQRS_WRONG_VERSION);
        won += status == ESCQRS_OK;
    }
    return NULL;
}

static void test_race(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    worker workers[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (worker){.store = store};
        pthread_create(&workers[i].thread, NULL, race, &workers[i]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    assert_int_equal(check_stream(store, "contended"), 200);
    escqrs_store_destroy(store);
}

/* ---- order and lanes, with a journal that runs when told -------------------------------------- */

static escqrs_store *open_manual(void)
{
    return open_with(":memory:", &(escqrs_store_options){.manual = true});
}

static void test_manual_order(void **state)
{
    (void)state;
    escqrs_store *store = open_manual();
    static slot slots[5];
    atomic_store(&answered, 0);
    for (int i = 0; i < 5; i++) {
        fill(store, &slots[i], "s", i == 2 ? 7 : i < 2 ? i : i - 1);
        slots[i].order = i;
        assert_int_equal(escqrs_store_submit(store, &slots[i].commit, NULL), ESCQRS_OK);
    }
    assert_int_equal(escqrs_store_backlog(store), 5);
    assert_int_equal(escqrs_store_head(store), 0);
    assert_int_equal(escqrs_store_pump(store), 5);
    assert_int_equal(atomic_load(&answered), 5);
    assert_int_equal(last_order, 4);
    assert_int_equal(slots[2].commit.status, ESCQRS_WRONG_VERSION);
    assert_int_equal(slots[2].error.actual, 2);
    assert_int_equal(slots[4].commit.status, ESCQRS_OK);
    assert_int_equal(slots[4].commit.position, 4);
    assert_int_equal(escqrs_store_pump(store), 0);
    escqrs_store_destroy(store);
}

static void test_lanes(void **state)
{
    (void)state;
    escqrs_store *store = open_manual();
    static slot slots[4];
    escqrs_lane lane = {ESCQRS_OK};
    for (int round = 0; round < 2; round++) { /* in one batch, and in several */
        int64_t version = version_of(store, "s");
        lane.failed = ESCQRS_OK;
        for (int i = 0; i < 4; i++) {
            fill(store, &slots[i], i == 3 ? "other" : "s", i == 1 ? 99 : version + (i == 2));
            if (i == 3) {
                slots[i].write.expected = ESCQRS_EXPECT_ANY;
            } else {
                slots[i].commit.lane = &lane;
            }
            assert_int_equal(escqrs_store_submit(store, &slots[i].commit, NULL), ESCQRS_OK);
            if (round == 1) {
                escqrs_store_pump(store);
            }
        }
        escqrs_store_pump(store);
        assert_int_equal(slots[0].commit.status, ESCQRS_OK);
        assert_int_equal(slots[1].commit.status, ESCQRS_WRONG_VERSION);
        assert_int_equal(slots[2].commit.status, ESCQRS_ABORTED);
        assert_int_equal(slots[3].commit.status, ESCQRS_OK);
        assert_int_equal(lane.failed, ESCQRS_WRONG_VERSION);
        assert_int_equal(version_of(store, "s"), version + 1);
    }
    escqrs_store_destroy(store);
}

/* A waiting thread commits what stands before it, even where nobody pumps. */
static void test_commit_in_manual_store(void **state)
{
    (void)state;
    escqrs_store *store = open_manual();
    static slot first;
    fill(store, &first, "s", 0);
    assert_int_equal(escqrs_store_submit(store, &first.commit, NULL), ESCQRS_OK);
    append(store, "s", 1, 1);
    assert_int_equal(first.commit.status, ESCQRS_OK);
    static slot late;
    fill(store, &late, "s", 2);
    assert_int_equal(escqrs_store_submit(store, &late.commit, NULL), ESCQRS_OK);
    escqrs_store_close(store); /* finishes what was accepted */
    assert_int_equal(late.commit.status, ESCQRS_OK);
    escqrs_store_destroy(store);
}

static escqrs_store *chain_store;
static slot chained;

static void submit_next(escqrs_commit *commit)
{
    note_answer(commit);
    assert_int_equal(escqrs_store_submit(chain_store, &chained.commit, NULL), ESCQRS_OK);
}

static void test_submit_from_done(void **state)
{
    (void)state;
    static slot first;
    chain_store = open_manual();
    fill(chain_store, &first, "s", 0);
    fill(chain_store, &chained, "s", 1);
    first.commit.done = submit_next;
    assert_int_equal(escqrs_store_submit(chain_store, &first.commit, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_pump(chain_store), 2);
    assert_int_equal(chained.commit.status, ESCQRS_OK);
    escqrs_store_destroy(chain_store);
}

/* ---- work between batches --------------------------------------------------------------------- */

static escqrs_status count_rows(void *context, void *sqlite, escqrs_error *error)
{
    (void)error;
    const char *sql = context;
    return sqlite3_exec(sqlite, sql, NULL, NULL, NULL) == SQLITE_OK ? ESCQRS_OK : ESCQRS_IO;
}

static escqrs_status look_at_backlog(void *context, void *sqlite, escqrs_error *error)
{
    (void)sqlite;
    (void)error;
    void *const *both = context;
    *(size_t *)both[1] = escqrs_store_backlog(both[0]);
    return ESCQRS_OK;
}

static void test_work_does_not_wait_for_itself(void **state)
{
    (void)state;
    static slot waiting;
    escqrs_store *store = open_manual();
    size_t seen = 99;
    void *both[] = {store, &seen};
    assert_int_equal(escqrs_store_run(store, false, look_at_backlog, both, NULL), ESCQRS_OK);
    assert_int_equal(seen, 0);
    fill(store, &waiting, "s", 0);
    assert_int_equal(escqrs_store_submit(store, &waiting.commit, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_backlog(store), 1);
    escqrs_store_pump(store);
    escqrs_store_destroy(store);
}

static void *run_work(void *context)
{
    worker *w = context;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(escqrs_store_run(w->store, i % 2 == 0, count_rows,
                                          "BEGIN; UPDATE numbers SET n = n + 1; COMMIT", NULL),
                         ESCQRS_OK);
    }
    return NULL;
}

static void test_run(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    assert_int_equal(
        escqrs_store_run(store, false, count_rows,
                         "CREATE TABLE numbers(n INTEGER); INSERT INTO numbers VALUES (0)", NULL),
        ESCQRS_OK);
    worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){.store = store, .number = i};
        pthread_create(&workers[i].thread, NULL,
                       i % 4 == 3   ? submit_all
                       : i % 2 == 0 ? run_work
                                    : commit_all,
                       &workers[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    void *reader = NULL;
    assert_int_equal(escqrs_store_reader(store, &reader, NULL), ESCQRS_OK);
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_prepare_v2(reader, "SELECT n FROM numbers", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(statement, 0), 400);
    sqlite3_finalize(statement);
    assert_int_not_equal(sqlite3_exec(reader, "DELETE FROM numbers", NULL, NULL, NULL), SQLITE_OK);
    escqrs_store_reader_return(store, reader);
    escqrs_error error = {0};
    assert_int_equal(
        escqrs_store_run(store, true, count_rows, "BEGIN; DELETE FROM numbers", &error),
        ESCQRS_INVALID);
    append(store, "after", 0, 1);
    check_all(store);
    escqrs_store_destroy(store);
}

/* ---- leaving ---------------------------------------------------------------------------------- */

static _Atomic uint32_t stage; /* 1: the work is under way, 2: it may end */

static escqrs_status stay(void *context, void *sqlite, escqrs_error *error)
{
    (void)context, (void)sqlite, (void)error;
    atomic_store(&stage, 1);
    while (atomic_load(&stage) != 2) {
        sched_yield();
    }
    return ESCQRS_OK;
}

static void *run_staying(void *context)
{
    worker *w = context;
    assert_int_equal(escqrs_store_run(w->store, false, stay, NULL, NULL), ESCQRS_OK);
    return NULL;
}

static void test_leaving_what_stands_behind_work(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    worker w = {.store = store};
    slot one, two;
    bool waits = true;
    escqrs_error error = {0};
    atomic_store(&stage, 0);
    atomic_store(&answered, 0);
    fill(store, &one, "a", 0);
    fill(store, &two, "a", 1);
    pthread_create(&w.thread, NULL, run_staying, &w);
    while (atomic_load(&stage) != 1) {
        sched_yield();
    }
    assert_int_equal(escqrs_store_commit_or_leave(store, &one.commit, &waits, &error), ESCQRS_DONE);
    assert_false(waits);
    assert_int_equal(atomic_load(&answered), 0);
    atomic_store(&stage, 2);
    waits = true;
    assert_int_equal(escqrs_store_commit(store, &two.commit, &error), ESCQRS_OK); /* behind it */
    assert_int_equal(atomic_load(&answered), 2);
    assert_int_equal(one.commit.status, ESCQRS_OK);
    assert_int_equal(one.commit.position, 1);
    pthread_join(w.thread, NULL);
    one.commit.done = NULL;
    assert_int_equal(escqrs_store_commit_or_leave(store, &one.commit, &waits, &error),
                     ESCQRS_INVALID);
    escqrs_store_destroy(store);
}

static void test_taking_back_what_stands_behind_work(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    worker w = {.store = store};
    slot kept[3];
    bool waits = true;
    escqrs_error error = {0};
    atomic_store(&stage, 0);
    atomic_store(&answered, 0);
    for (int i = 0; i < 3; i++) {
        fill(store, &kept[i], "a", i == 2);
    }
    pthread_create(&w.thread, NULL, run_staying, &w);
    while (atomic_load(&stage) != 1) {
        sched_yield();
    }
    assert_int_equal(escqrs_store_commit_or_leave(store, &kept[0].commit, &waits, &error),
                     ESCQRS_DONE);
    assert_true(escqrs_store_withdraw(store, &kept[0].commit)); /* the only one */
    assert_false(escqrs_store_withdraw(store, &kept[0].commit));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(escqrs_store_submit(store, &kept[i].commit, &error), ESCQRS_OK);
    }
    assert_int_equal(escqrs_store_backlog(store), 3);
    assert_true(escqrs_store_withdraw(store, &kept[0].commit)); /* the first */
    assert_true(escqrs_store_withdraw(store, &kept[2].commit)); /* the last */
    assert_int_equal(escqrs_store_backlog(store), 1);
    assert_int_equal(escqrs_store_submit(store, &kept[2].commit, &error), ESCQRS_OK);
    assert_int_equal(atomic_load(&answered), 0);
    atomic_store(&stage, 2);
    pthread_join(w.thread, NULL);
    assert_int_equal(escqrs_store_wait(store, 1, NULL, INT64_MAX), ESCQRS_OK);
    escqrs_store_close(store);
    assert_int_equal(atomic_load(&answered), 2);
    assert_int_equal(kept[1].commit.status, ESCQRS_OK);
    assert_int_equal(kept[2].commit.position, 2);
    assert_false(escqrs_store_withdraw(store, &kept[2].commit));
    escqrs_store_destroy(store);
}

static escqrs_status stay_a_while(void *context, void *sqlite, escqrs_error *error)
{
    (void)context, (void)sqlite, (void)error;
    const struct timespec while_of = {.tv_nsec = 19990000}; /* about as long as who leaves waits */
    nanosleep(&while_of, NULL);
    return ESCQRS_OK;
}

static void *run_often(void *context)
{
    worker *w = context;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(escqrs_store_run(w->store, false, stay_a_while, NULL, NULL), ESCQRS_OK);
    }
    return NULL;
}

static void *commit_or_leave(void *context)
{
    worker *w = context;
    char stream[32];
    static slot slots[THREADS][ROUNDS];
    snprintf(stream, sizeof stream, "Worker/%d", w->number);
    for (int i = 0; i < ROUNDS; i++) {
        slot *one = &slots[w->number][i];
        bool waits = true;
        fill(w->store, one, stream, i);
        escqrs_status status =
            escqrs_store_commit_or_leave(w->store, &one->commit, &waits, &one->error);
        assert_int_equal(status, waits ? ESCQRS_OK : ESCQRS_DONE);
    }
    return NULL;
}

static void test_leaving_at_any_moment(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    worker workers[4];
    atomic_store(&answered, 0);
    for (int i = 0; i < 4; i++) {
        workers[i] = (worker){.store = store, .number = i};
        pthread_create(&workers[i].thread, NULL, i == 3 ? run_often : commit_or_leave, &workers[i]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    assert_int_equal(escqrs_store_wait(store, 3 * ROUNDS - 1, NULL, INT64_MAX), ESCQRS_OK);
    assert_int_equal(check_all(store), 3 * ROUNDS);
    escqrs_store_destroy(store); /* waits for the last `done` */
    assert_int_equal(atomic_load(&answered), 3 * ROUNDS);
}

/* ---- waiting ---------------------------------------------------------------------------------- */

static escqrs_status wait_result;
static _Atomic int cancelled;

static void *wait_for_head(void *context)
{
    worker *w = context;
    wait_result = escqrs_store_wait(w->store, w->number, &cancelled, INT64_MAX);
    return NULL;
}

static void test_wait(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    worker w = {.store = store, .number = 0};
    assert_int_equal(escqrs_store_wait(store, 0, NULL, 0), ESCQRS_TIMEOUT);
    assert_int_equal(escqrs_store_wait(store, -1, NULL, 0), ESCQRS_OK);
    pthread_create(&w.thread, NULL, wait_for_head, &w);
    append(store, "s", 0, 1);
    pthread_join(w.thread, NULL);
    assert_int_equal(wait_result, ESCQRS_OK);
    w.number = 1;
    pthread_create(&w.thread, NULL, wait_for_head, &w);
    atomic_store(&cancelled, 1);
    escqrs_store_wake(store);
    pthread_join(w.thread, NULL);
    assert_int_equal(wait_result, ESCQRS_DONE);
    atomic_store(&cancelled, 0);
    pthread_create(&w.thread, NULL, wait_for_head, &w);
    escqrs_store_close(store);
    pthread_join(w.thread, NULL);
    assert_int_equal(wait_result, ESCQRS_CLOSED);
    escqrs_store_destroy(store);
}

/* ---- closing ---------------------------------------------------------------------------------- */

static void *commit_until_closed(void *context)
{
    worker *w = context;
    int64_t version = 0;
    escqrs_status status;
    do {
        w->slot->write.expected = version;
        status = escqrs_store_commit(w->store, &w->slot->commit, NULL);
        version += status == ESCQRS_OK;
        assert_true(status == ESCQRS_OK || status == ESCQRS_CLOSED);
    } while (status == ESCQRS_OK);
    w->number = (int)version;
    return NULL;
}

static void test_close_under_load(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        escqrs_store *store = open_store(fixture_path);
        worker workers[4];
        slot slots[4];
        int64_t before = escqrs_store_head(store), total = 0;
        for (int i = 0; i < 4; i++) {
            char stream[32];
            snprintf(stream, sizeof stream, "Worker/%d", round * 10 + i);
            fill(store, &slots[i], stream, 0); /* here: a thread may begin after the close */
            workers[i] = (worker){.store = store, .slot = &slots[i]};
            pthread_create(&workers[i].thread, NULL, commit_until_closed, &workers[i]);
        }
        assert_int_equal(escqrs_store_wait(store, before + 20, NULL, INT64_MAX), ESCQRS_OK);
        escqrs_store_close(store);
        for (int i = 0; i < 4; i++) {
            pthread_join(workers[i].thread, NULL);
            total += workers[i].number;
        }
        escqrs_store_destroy(store);
        store = open_store(fixture_path);
        assert_int_equal(escqrs_store_head(store), before + total);
        assert_int_equal(check_all(store), before + total);
        escqrs_store_destroy(store);
    }
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_threads, setup_folder, teardown_folder),
        cmocka_unit_test(test_threads_in_memory),
        cmocka_unit_test(test_race),
        cmocka_unit_test(test_manual_order),
        cmocka_unit_test(test_lanes),
        cmocka_unit_test(test_commit_in_manual_store),
        cmocka_unit_test(test_submit_from_done),
        cmocka_unit_test_setup_teardown(test_run, setup_folder, teardown_folder),
        cmocka_unit_test(test_leaving_what_stands_behind_work),
        cmocka_unit_test(test_taking_back_what_stands_behind_work),
        cmocka_unit_test(test_leaving_at_any_moment),
        cmocka_unit_test_setup_teardown(test_work_does_not_wait_for_itself, setup_folder,
                                        teardown_folder),
        cmocka_unit_test(test_wait),
        cmocka_unit_test_setup_teardown(test_close_under_load, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
