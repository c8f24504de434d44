/* See suite.h: snapshots, statistics, beginning anew, deleting, threads, closing. */
#include "testing/suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define WRITERS 3
#define COMMITS_EACH 40
#define COMMITS ((int64_t)WRITERS * COMMITS_EACH)

static escqrs_slice text(const char *s)
{
    return escqrs_slice_of(s);
}

/* A call that a provider may leave out: false where it is not there. */
static bool has(esc_suite *suite, const char *what, escqrs_status status)
{
    if (status != ESCQRS_INVALID) {
        esc_suite_gives(suite, __FILE__, __LINE__, what, status, ESCQRS_OK);
    }
    return status == ESCQRS_OK;
}

/* ---- snapshots -------------------------------------------------------------------------------- */

static escqrs_status put_snapshot(esc_suite *suite, int64_t version, const char *data, int64_t keep)
{
    escqrs_new_snapshot snapshot = {.stream = text("a"),
                                    .version = version,
                                    .type = esc_suite_type(suite, "State"),
                                    .data = text(data),
                                    .keep = keep};
    escqrs_commit commit = {.snapshot = &snapshot};
    return escqrs_store_commit(suite->store, &commit, &suite->error);
}

/* The newest snapshot at or below `upto` is of that version (0: there is none). */
static void check_snapshot(esc_suite *suite, int64_t upto, int64_t version, const char *data)
{
    escqrs_snapshot found = {0};
    GIVES(suite, escqrs_store_snapshot(suite->store, text("a"), upto, &found, &suite->error),
          version == 0 ? ESCQRS_DONE : ESCQRS_OK);
    if (version != 0) {
        suite->memory = found.data;
        SAME(suite, found.version, version);
        READS(suite, ((escqrs_slice){found.data, found.size}), data);
        READS(suite, escqrs_type_name(found.type), "State");
        escqrs_free(found.data);
        suite->memory = NULL;
    }
}

static void test_snapshots(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    for (int i = 0; i < 4; i++) {
        esc_suite_append(suite, "a", i, "x");
    }
    check_snapshot(suite, 0, 0, NULL);
    GIVES(suite, put_snapshot(suite, 1, "one", 0), ESCQRS_OK);
    GIVES(suite, put_snapshot(suite, 3, "three", 0), ESCQRS_OK);
    GIVES(suite, put_snapshot(suite, 2, "two", 0), ESCQRS_OK);
    GIVES(suite, put_snapshot(suite, 5, "five", 0), ESCQRS_INVALID);
    check_snapshot(suite, 0, 3, "three");
    check_snapshot(suite, 2, 2, "two");
    GIVES(suite, put_snapshot(suite, 3, "again", 0), ESCQRS_OK);
    check_snapshot(suite, 0, 3, "again");
    GIVES(suite, escqrs_store_delete_snapshots(store, text("a"), 1, &suite->error), ESCQRS_OK);
    check_snapshot(suite, 1, 0, NULL);
    GIVES(suite, put_snapshot(suite, 4, "four", 2), ESCQRS_OK); /* 4 and 3 stay */
    check_snapshot(suite, 2, 0, NULL);
    check_snapshot(suite, 3, 3, "again");
    store = esc_suite_open_again(suite);
    if (store != NULL) {
        check_snapshot(suite, 0, 4, "four");
        GIVES(suite, escqrs_store_delete_snapshots(store, text("a"), 0, &suite->error), ESCQRS_OK);
        check_snapshot(suite, 0, 0, NULL);
    }
}

/* Together with the event whose version it has. */
static void test_a_snapshot_with_its_event(esc_suite *suite)
{
    esc_suite_open(suite, NULL);
    esc_suite_one added;
    esc_suite_one_init(suite, &added, "a", 0, "a1");
    escqrs_new_snapshot snapshot = {.stream = text("a"),
                                    .version = 2,
                                    .type = esc_suite_type(suite, "State"),
                                    .data = text("one")};
    added.commit.snapshot = &snapshot;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_INVALID);
    SAME(suite, esc_suite_version(suite, "a"), 0);
    snapshot.version = 1;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    check_snapshot(suite, 0, 1, "one");
}

/* ---- streams, numbers, types ------------------------------------------------------------------ */

typedef struct listing {
    char text[200];
    size_t size;
    int64_t number, version; /* of the last */
    int left;                /* until it says that it is enough; 0: never */
} listing;

static bool list_line(listing *self, escqrs_slice name, int64_t number, int64_t version)
{
    int size = snprintf(self->text + self->size, sizeof self->text - self->size, "%.*s:%lld ",
                        (int)name.size, (const char *)name.data, (long long)version);
    self->size += size > 0 && self->size + (size_t)size < sizeof self->text ? (size_t)size : 0;
    self->number = number;
    self->version = version;
    return --self->left != 0;
}

static bool list_stream(void *context, const escqrs_stream_info *stream)
{
    return list_line(context, stream->name, stream->number, stream->version);
}

static bool list_snapshot(void *context, const escqrs_snapshot_info *snapshot)
{
    return list_line(context, snapshot->stream, snapshot->number, snapshot->version);
}

static bool list_streams(esc_suite *suite, int64_t after, size_t max, listing *found)
{
    found->size = 0;
    return has(suite, "escqrs_store_streams",
               escqrs_store_streams(suite->store, after, max, list_stream, found, &suite->error));
}

static void test_streams(esc_suite *suite)
{
    listing found = {.left = 1};
    esc_suite_open(suite, NULL);
    esc_suite_append(suite, "b", 0, "b1");
    esc_suite_append(suite, "a", 0, "a1");
    esc_suite_append(suite, "b", 1, "b2");
    esc_suite_append(suite, "c", 0, "c1");
    if (!list_streams(suite, 0, 10, &found)) {
        return;
    }
    READS(suite, text(found.text), "b:2 "); /* it was enough */
    int64_t first = found.number;
    found = (listing){0};
    CHECK(suite, list_streams(suite, 0, 10, &found));
    READS(suite, text(found.text), "b:2 a:1 c:1 ");
    found = (listing){0};
    CHECK(suite, list_streams(suite, first, 1, &found));
    READS(suite, text(found.text), "a:1 ");
    found = (listing){0};
    CHECK(suite, list_streams(suite, 0, 10, &found));
    CHECK(suite, list_streams(suite, found.number, 10, &found));
    SAME(suite, found.size, 0); /* none behind the last */
}

static void test_list_of_snapshots(esc_suite *suite)
{
    listing found = {0};
    escqrs_store *store = esc_suite_open(suite, NULL);
    esc_suite_append(suite, "a", 0, "a1");
    esc_suite_append(suite, "a", 1, "a2");
    GIVES(suite, put_snapshot(suite, 2, "two", 0), ESCQRS_OK);
    GIVES(suite, put_snapshot(suite, 1, "one", 0), ESCQRS_OK);
    if (!has(suite, "escqrs_store_snapshots",
             escqrs_store_snapshots(store, 0, 0, 10, list_snapshot, &found, &suite->error))) {
        return;
    }
    READS(suite, text(found.text), "a:1 a:2 ");
    int64_t number = found.number;
    found = (listing){0};
    GIVES(suite, escqrs_store_snapshots(store, number, 1, 10, list_snapshot, &found, &suite->error),
          ESCQRS_OK);
    READS(suite, text(found.text), "a:2 ");
}

static void count_type(void *context, escqrs_slice type, int64_t count)
{
    *(int64_t *)context += escqrs_slice_equal(type, text("Test")) ? count : 1000;
}

static bool see_type(void *context, escqrs_type *type, bool used)
{
    if (escqrs_slice_equal(escqrs_type_name(type), text("Test"))) {
        *(int *)context += used ? 2 : 1;
    }
    return true;
}

static void test_statistics(esc_suite *suite)
{
    int64_t counted = 0;
    escqrs_statistics found;
    escqrs_store *store = esc_suite_open(suite, NULL);
    esc_suite_append(suite, "b", 0, "b1");
    esc_suite_append(suite, "a", 0, "a1");
    esc_suite_append(suite, "b", 1, "b2");
    if (has(suite, "escqrs_store_stats",
            escqrs_store_stats(store, &found, count_type, &counted, &suite->error))) {
        SAME(suite, found.head, 3);
        SAME(suite, found.events, 3);
        SAME(suite, found.streams, 2);
        SAME(suite, found.deleted, 0);
        SAME(suite, counted, 3);
    }
}

/* A type that was stored is known when the store is opened again, and used. */
static void test_types(esc_suite *suite)
{
    int seen = 0;
    escqrs_type *type = NULL, *other = NULL;
    escqrs_store *store = esc_suite_open(suite, NULL);
    esc_suite_append(suite, "a", 0, "a1");
    GIVES(suite, escqrs_store_types(store, see_type, &seen, &suite->error), ESCQRS_OK);
    SAME(suite, seen, 2);
    store = esc_suite_open_again(suite);
    if (store != NULL) {
        seen = 0;
        GIVES(suite, escqrs_store_types(store, see_type, &seen, &suite->error), ESCQRS_OK);
        SAME(suite, seen, 2);
        GIVES(suite, escqrs_store_type(store, text("Test"), text("r"), &other, &suite->error),
              ESCQRS_OK); /* the name with another record is another type */
        type = esc_suite_type(suite, "Test");
        CHECK(suite, type != other);
        CHECK(suite, escqrs_type_id(type) != escqrs_type_id(other));
    }
}

static bool is_problem(void *context, const escqrs_problem *problem)
{
    esc_suite *suite = context;
    (void)snprintf(suite->error.message, sizeof suite->error.message, "%s: %s", problem->part,
                   problem->text);
    return true;
}

static void test_verify(esc_suite *suite)
{
    escqrs_verification found;
    escqrs_observer observer = {.problem = is_problem, .context = suite};
    escqrs_store *store = esc_suite_open(suite, NULL);
    esc_suite_append(suite, "a", 0, "a1");
    GIVES(suite, put_snapshot(suite, 1, "one", 0), ESCQRS_OK);
    if (has(suite, "escqrs_store_verify",
            escqrs_store_verify(store, &observer, &found, &suite->error))) {
        if (found.problems != 0) {
            esc_suite_fail(suite, __FILE__, __LINE__, "it verifies with a problem: %s",
                           suite->error.message);
        }
        SAME(suite, found.events, 1);
        SAME(suite, found.snapshots, 1);
    }
}

/* ---- beginning anew, deleting ----------------------------------------------------------------- */

static void test_restart(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    esc_suite_append(suite, "a", 0, "a1");
    GIVES(suite, escqrs_store_restart(store, &suite->error),
          suite->of->begins_new ? ESCQRS_OK : ESCQRS_INVALID);
    esc_suite_append(suite, "a", 1, "a2");
    READS(suite, esc_suite_texts(suite, NULL, NULL), "a1 a2 ");
}

/* Who has the store open while it begins anew notices nothing. */
static void test_restart_in_use(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    if (!suite->of->begins_new) {
        return;
    }
    esc_suite_append(suite, "a", 0, "a1");
    esc_suite_append(suite, "b", 0, "b1");
    GIVES(suite, escqrs_store_events(store, NULL, &suite->cursor, &suite->error), ESCQRS_OK);
    SAME(suite, esc_suite_next(suite)->position, 1);
    GIVES(suite, escqrs_store_restart(store, &suite->error), ESCQRS_OK);
    GIVES(suite, escqrs_store_restart(store, &suite->error), ESCQRS_OK);
    SAME(suite, esc_suite_next(suite)->position, 2);
    esc_suite_close_cursor(suite);
    SAME(suite, escqrs_store_head(store), 2);
    esc_suite_append(suite, "a", 1, "a2");
    esc_suite_append(suite, "c", 0, "c1");
    READS(suite, esc_suite_texts(suite, NULL, NULL), "a1 b1 a2 c1 ");
    store = esc_suite_open_again(suite);
    if (store != NULL) {
        READS(suite, esc_suite_texts(suite, NULL, NULL), "a1 b1 a2 c1 ");
    }
}

static void check_deleted(esc_suite *suite)
{
    const escqrs_recorded *recorded;
    escqrs_erased erased;
    static const escqrs_range left = {.skip_deleted = true};
    GIVES(suite, escqrs_store_erased(suite->store, text("a"), &erased, &suite->error), ESCQRS_OK);
    SAME(suite, erased.upto, 2);
    CHECK(suite, !erased.closed);
    GIVES(suite, escqrs_store_history(suite->store, text("a"), NULL, &suite->cursor, &suite->error),
          ESCQRS_OK);
    GIVES(suite, escqrs_cursor_next(suite->cursor, &recorded, &suite->error), ESCQRS_DELETED);
    SAME(suite, suite->error.version, 2);
    esc_suite_close_cursor(suite);
    READS(suite, esc_suite_texts(suite, "a", &left), "a3 ");
    READS(suite, esc_suite_texts(suite, NULL, &left), "b1 a3 ");
    SAME(suite, esc_suite_version(suite, "a"), 3);
}

static void test_deleting(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    escqrs_erased erased;
    esc_suite_append(suite, "a", 0, "a1");
    esc_suite_append(suite, "a", 1, "a2");
    esc_suite_append(suite, "b", 0, "b1");
    esc_suite_append(suite, "a", 2, "a3");
    escqrs_erasure erasure = {.stream = text("a"), .upto = 2, .force = true};
    if (!suite->of->deletes) {
        GIVES(suite, escqrs_store_erase(store, &erasure, 1, &suite->error), ESCQRS_INVALID);
        GIVES(suite, escqrs_store_erased(store, text("a"), &erased, &suite->error), ESCQRS_OK);
        SAME(suite, erased.upto, 0);
        return;
    }
    GIVES(suite, escqrs_store_erase(store, &erasure, 1, &suite->error), ESCQRS_OK);
    SAME(suite, erasure.count, 2);
    check_deleted(suite);
    store = esc_suite_open_again(suite);
    if (store != NULL) {
        check_deleted(suite);
        esc_suite_append(suite, "a", 3, "a4");
    }
}

/* Events go where a snapshot stands for them; a stream goes for good. */
static void test_deleting_is_refused(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    escqrs_erasure one = {.stream = text("a"), .upto = 1},
                   all = {.stream = text("a"), .close = true};
    esc_suite_one late;
    escqrs_erased erased;
    if (!suite->of->deletes) {
        return;
    }
    esc_suite_append(suite, "a", 0, "a1");
    esc_suite_append(suite, "a", 1, "a2");
    GIVES(suite, escqrs_store_erase(store, &one, 1, &suite->error), ESCQRS_NOT_COVERED);
    READS(suite, esc_suite_texts(suite, "a", NULL), "a1 a2 ");
    GIVES(suite, put_snapshot(suite, 2, "two", 0), ESCQRS_OK);
    GIVES(suite, escqrs_store_erase(store, &one, 1, &suite->error), ESCQRS_OK);
    one.upto = 3;
    GIVES(suite, escqrs_store_erase(store, &one, 1, &suite->error), ESCQRS_INVALID);
    GIVES(suite, escqrs_store_erase(store, &all, 1, &suite->error), ESCQRS_OK);
    GIVES(suite, escqrs_store_erased(store, text("a"), &erased, &suite->error), ESCQRS_OK);
    CHECK(suite, erased.closed);
    esc_suite_one_init(suite, &late, "a", ESCQRS_EXPECT_ANY, "a3");
    GIVES(suite, esc_suite_one_commit(suite, &late), ESCQRS_DELETED);
}

/* ---- threads ---------------------------------------------------------------------------------- */

typedef struct crowd {
    escqrs_store *store;
    escqrs_type *type;
    _Atomic int number; /* of the next writer */
    _Atomic bool over;
    ESCQRS_ATOMIC(int) given_up; /* there is nothing to wait for any more */
} crowd;

static void *write_alone(void *context)
{
    crowd *all = context;
    char stream[24];
    /* relaxed: only the numbers have to differ */
    snprintf(stream, sizeof stream, "s%d",
             atomic_fetch_add_explicit(&all->number, 1, memory_order_relaxed));
    for (int64_t i = 0; i < COMMITS_EACH; i++) {
        escqrs_new_event event = {.type = all->type, .data = text("x")};
        escqrs_write write = {
            .stream = text(stream), .expected = i, .events = &event, .event_count = 1};
        escqrs_commit commit = {.writes = &write, .write_count = 1};
        if (escqrs_store_commit(all->store, &commit, NULL) != ESCQRS_OK) {
            return "a commit failed";
        }
    }
    return NULL;
}

/* Does it give all, from 1 and without gaps, to its end? *last: of the last event. */
static bool reads_well(escqrs_cursor *cursor, bool by_version, int64_t *last)
{
    const escqrs_recorded *recorded;
    escqrs_status status = ESCQRS_OK;
    bool well = true;
    *last = 0;
    while (well && (status = escqrs_cursor_next(cursor, &recorded, NULL)) == ESCQRS_OK) {
        well = (by_version ? recorded->version : recorded->position) == ++*last;
    }
    escqrs_cursor_close(cursor);
    return well && status == ESCQRS_DONE;
}

/* Whatever it sees, it sees without gaps: of the store up to the head, of a stream up to the
 * version. */
static void *read_along(void *context)
{
    crowd *all = context;
    bool last = false, well = true;
    while (well && !last) {
        escqrs_cursor *cursor = NULL;
        int64_t version = 0, upto = 0;
        /* acquire: pairs with the release in run_crowd; the head read next has all commits */
        last = atomic_load_explicit(&all->over, memory_order_acquire);
        int64_t head = escqrs_store_head(all->store);
        well = escqrs_store_events(all->store, NULL, &cursor, NULL) == ESCQRS_OK &&
               reads_well(cursor, false, &upto) && upto >= head;
        well = well && escqrs_store_version(all->store, text("s0"), &version, NULL) == ESCQRS_OK &&
               escqrs_store_history(all->store, text("s0"), NULL, &cursor, NULL) == ESCQRS_OK &&
               reads_well(cursor, true, &upto) && upto >= version;
    }
    return well ? NULL : "a reader did not see every event up to the head";
}

static void *wait_for_all(void *context)
{
    crowd *all = context;
    escqrs_status status = escqrs_store_wait(all->store, COMMITS - 1, &all->given_up, INT64_MAX);
    return status == ESCQRS_OK ? NULL : "who waited for the head was not woken";
}

static const char *join(pthread_t thread, const char *failed)
{
    void *said = NULL;
    pthread_join(thread, &said);
    return failed != NULL ? failed : said;
}

/* What went wrong, or NULL. */
static const char *run_crowd(crowd *all)
{
    static void *(*const others[2])(void *) = {read_along, wait_for_all};
    pthread_t threads[WRITERS + 2];
    const char *failed = NULL;
    size_t started = 0;
    for (; started < WRITERS + 2 && failed == NULL; started++) {
        if (pthread_create(&threads[started], NULL, started < 2 ? others[started] : write_alone,
                           all) != 0) {
            failed = "no thread can be started";
            started--;
        }
    }
    for (size_t i = 2; i < started; i++) {
        failed = join(threads[i], failed);
    }
    /* release: pairs with the acquire in read_along */
    atomic_store_explicit(&all->over, true, memory_order_release);
    if (escqrs_store_head(all->store) < COMMITS) {
        /* release: pairs with the acquire in escqrs_store_wait */
        atomic_store_explicit(&all->given_up, 1, memory_order_release);
        escqrs_store_wake(all->store);
    }
    for (size_t i = 0; i < started && i < 2; i++) {
        failed = join(threads[i], failed);
    }
    return failed;
}

static void test_threads(esc_suite *suite)
{
    crowd all = {.store = esc_suite_open(suite, NULL)};
    all.type = esc_suite_type(suite, "Test");
    const char *failed = run_crowd(&all);
    if (failed != NULL) {
        esc_suite_fail(suite, __FILE__, __LINE__, "%s", failed);
    }
    SAME(suite, escqrs_store_head(all.store), COMMITS);
}

/* ---- the end ---------------------------------------------------------------------------------- */

static void test_closed(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    const escqrs_recorded *recorded;
    esc_suite_one late;
    esc_suite_append(suite, "a", 0, "a1");
    esc_suite_one_init(suite, &late, "a", 1, "a2");
    GIVES(suite, escqrs_store_events(store, NULL, &suite->cursor, &suite->error), ESCQRS_OK);
    escqrs_store_close(store);
    GIVES(suite, esc_suite_one_commit(suite, &late), ESCQRS_CLOSED);
    GIVES(suite, escqrs_cursor_next(suite->cursor, &recorded, &suite->error), ESCQRS_CLOSED);
    escqrs_store_close(store); /* twice is once */
    esc_suite_close(suite);
    esc_suite_close_cursor(suite); /* it has kept the provider */
}

const esc_suite_test esc_suite_aids[] = {
    {"snapshots", test_snapshots},
    {"a snapshot with its event", test_a_snapshot_with_its_event},
    {"list of snapshots", test_list_of_snapshots},
    {"streams", test_streams},
    {"statistics", test_statistics},
    {"types", test_types},
    {"verify", test_verify},
    {"restart", test_restart},
    {"restart in use", test_restart_in_use},
    {"deleting", test_deleting},
    {"deleting is refused", test_deleting_is_refused},
    {"threads", test_threads},
    {"closed", test_closed},
    {NULL, NULL},
};
