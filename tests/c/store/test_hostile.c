/* Whatever a cell of the engine's tables holds: the store says CORRUPT or gives what was written,
 * and neither crashes nor hangs nor gives anything else. */
#include "fixture.h"

#include <sqlite3.h>

#define VERSIONS 270
#define TAIL 32 /* the index is merged that often */

static void ignore_log(void *context, escqrs_log_level level, const char *line)
{
    (void)context, (void)level, (void)line;
}

static const escqrs_store_options quick = {
    .durability = ESCQRS_DURABILITY_NORMAL, .tail_events_max = TAIL, .log = {ignore_log, NULL}};

static char damage[700]; /* the one that is being tried */

/* A damage that a test did not get over is named. */
static int name_damage(void **state)
{
    if (damage[0] != '\0') {
        print_error("after: %s\n", damage);
        damage[0] = '\0';
    }
    return teardown_folder(state);
}

typedef struct statuses { /* met since a file was damaged */
    bool corrupt;
} statuses;

static void execute(const char *path, const char *sql)
{
    sqlite3 *db;
    char *message = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) {
        fail_msg("%s: %s", sql, message);
    }
    sqlite3_close(db);
}

/* An event of stream `s` with tag and id; what a key stores beside it. */
static escqrs_status commit_keyed(escqrs_store *store, const char *key, int64_t expected,
                                  escqrs_write *write, escqrs_error *error)
{
    escqrs_slice tag = text("tag");
    char id[32];
    snprintf(id, sizeof id, "id of %s", key);
    escqrs_new_event event = {.type = type_of(store, "Tagged"),
                              .data = text("keyed"),
                              .tags = &tag,
                              .tag_count = 1,
                              .id_text = text(id)};
    *write = (escqrs_write){
        .stream = text("keyed"), .expected = expected, .events = &event, .event_count = 1};
    escqrs_commit commit = {.writes = write,
                            .write_count = 1,
                            .key = text(key),
                            .reply = text("reply"),
                            .checkpoint = text("checkpoint"),
                            .checkpoint_position = expected + 1};
    return escqrs_store_commit(store, &commit, error);
}

/* Streams in the index and in the tail, a key, tags, ids, a snapshot, a checkpoint. */
static void make_store(void)
{
    escqrs_store *store = open_with(fixture_path, &quick);
    escqrs_write write;
    escqrs_new_snapshot snapshot = {
        .stream = text("s"), .version = 2, .type = type_of(store, "State"), .data = text("state")};
    escqrs_commit commit = {.snapshot = &snapshot};
    for (int64_t version = 0; version < VERSIONS; version += 3) {
        append(store, "s", version, 3);
        append(store, version % 2 == 0 ? "a" : "b", -1, 1);
    }
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    assert_int_equal(commit_keyed(store, "key", 0, &write, NULL), ESCQRS_OK);
    escqrs_store_destroy(store);
    execute(fixture_path, "PRAGMA journal_mode = DELETE;"
                          "UPDATE escqrs_store SET value = value - 20 WHERE name = 'indexed'");
}

static void copy_file(const char *from, const char *to)
{
    char bytes[65536];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_true(in != NULL && out != NULL);
    for (size_t size; (size = fread(bytes, 1, sizeof bytes, in)) > 0;) {
        assert_int_equal(fwrite(bytes, 1, size, out), size);
    }
    fclose(in);
    fclose(out);
}

static void remove_store(const char *path)
{
    static const char *const suffixes[] = {"", "-lock", "-wal", "-shm"};
    char name[420];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
        unlink(name);
    }
}

/* OK, an end, or CORRUPT; nothing else comes of a damaged file. */
static bool is_fine(escqrs_status status, const escqrs_error *error, statuses *met)
{
    met->corrupt = met->corrupt || status == ESCQRS_CORRUPT;
    if (status != ESCQRS_OK && status != ESCQRS_DONE && status != ESCQRS_CORRUPT) {
        fail_msg("%s: %s", escqrs_status_name(status), error->message);
    }
    return status == ESCQRS_OK;
}

static void read_stream(escqrs_store *store, const char *stream, bool reverse, statuses *met)
{
    escqrs_error error = {0};
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    escqrs_range range = {.reverse = reverse};
    if (!is_fine(escqrs_store_history(store, text(stream), &range, &cursor, &error), &error, met)) {
        return;
    }
    int64_t version = reverse ? escqrs_cursor_upto(cursor) : 1;
    while (is_fine(escqrs_cursor_next(cursor, &recorded, &error), &error, met)) {
        char expected[300];
        snprintf(expected, sizeof expected, "%s:%lld", stream, (long long)version);
        assert_int_equal(recorded->version, version);
        assert_true(escqrs_slice_equal(recorded->stream, text(stream)));
        if (strcmp(stream, "s") == 0) {
            assert_true(escqrs_slice_equal(recorded->data, text(expected)));
        }
        version += reverse ? -1 : 1;
    }
    escqrs_cursor_close(cursor);
}

static void read_all(escqrs_store *store, const escqrs_match *match, bool reverse, statuses *met)
{
    escqrs_error error = {0};
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    escqrs_range range = {
        .reverse = reverse, .matches = match, .match_count = match != NULL ? 1 : 0};
    if (is_fine(escqrs_store_events(store, &range, &cursor, &error), &error, met)) {
        while (is_fine(escqrs_cursor_next(cursor, &recorded, &error), &error, met)) {
        }
        escqrs_cursor_close(cursor);
    }
}

static bool see_stream(void *context, const escqrs_stream_info *stream)
{
    (void)context;
    assert_true(stream->version > 0);
    return true;
}

static void read_everything(escqrs_store *store, statuses *met)
{
    static const char *const streams[] = {"s", "a", "b", "keyed", "none"};
    escqrs_error error = {0};
    escqrs_snapshot snapshot;
    void *reply;
    size_t size;
    int64_t position;
    escqrs_slice tag = text("tag"), type = text("Tagged");
    escqrs_match match = {&type, 1, &tag, 1};
    for (int reverse = 0; reverse < 2; reverse++) {
        for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
            read_stream(store, streams[i], reverse, met);
        }
        read_all(store, NULL, reverse, met);
        read_all(store, &match, reverse, met);
    }
    if (is_fine(escqrs_store_snapshot(store, text("s"), 0, &snapshot, &error), &error, met)) {
        assert_true(snapshot.version == 2 && snapshot.size == 5);
        escqrs_free(snapshot.data);
    }
    if (is_fine(escqrs_store_key(store, text(""), text("key"), &reply, &size, &position, &error),
                &error, met)) {
        escqrs_free(reply);
    }
    (void)is_fine(escqrs_store_checkpoint(store, text("checkpoint"), &position, &error), &error,
                  met);
    (void)is_fine(escqrs_store_streams(store, 0, 100, see_stream, NULL, &error), &error, met);
}

/* A commit that is acknowledged is there; one that is not says why. */
static void write_something(escqrs_store *store, statuses *met)
{
    static const char *const streams[] = {"s", "a", "new"};
    escqrs_error error = {0};
    escqrs_write write;
    escqrs_slice type = text("Test");
    escqrs_match match = {&type, 1, NULL, 0};
    escqrs_condition condition = {.after = 10, .matches = &match, .match_count = 1};
    escqrs_commit conditional = {.condition = &condition};
    for (int i = 0; i < TAIL + 16; i++) { /* so that the merge is run through */
        escqrs_commit result = {0};
        const char *stream = streams[i % 3];
        int64_t before = -1, after = -1;
        if (!is_fine(escqrs_store_version(store, text(stream), &before, &error), &error, met) ||
            !is_fine(append_many(store, stream, before, 1, &result, &error), &error, met)) {
            continue;
        }
        assert_int_equal(escqrs_store_version(store, text(stream), &after, &error), ESCQRS_OK);
        assert_int_equal(after, before + 1);
    }
    escqrs_status status = commit_keyed(store, "key", 0, &write, &error);
    if (status == ESCQRS_OK) {
        assert_int_equal(write.version, 1);
    } else if (status != ESCQRS_KEY_REUSED && status != ESCQRS_WRONG_VERSION) {
        (void)is_fine(status, &error, met);
    }
    status = escqrs_store_commit(store, &conditional, &error);
    assert_true(status == ESCQRS_CONDITION_FAILED || status == ESCQRS_OK);
}

/* Damage a copy of the store and use it; whether it was said. */
static bool use_damaged(void)
{
    char path[400];
    statuses met = {false};
    escqrs_error error = {0};
    escqrs_store *store;
    escqrs_store_options readonly = quick;
    readonly.readonly = true;
    snprintf(path, sizeof path, "%s-damaged", fixture_path);
    copy_file(fixture_path, path);
    execute(path, damage);
    if (is_fine(escqrs_store_open(path, &readonly, &store, &error), &error, &met)) {
        read_everything(store, &met);
        escqrs_store_destroy(store);
    }
    for (int i = 0; i < 2; i++) { /* what was written is opened again */
        if (is_fine(escqrs_store_open(path, &quick, &store, &error), &error, &met)) {
            read_everything(store, &met);
            write_something(store, &met);
            read_everything(store, &met);
            escqrs_store_destroy(store);
        } else {
            /* never after it was opened and written to */
            assert_int_equal(i, 0);
            break;
        }
    }
    remove_store(path);
    damage[0] = '\0';
    return met.corrupt;
}

/* ---- each cell -------------------------------------------------------------------------------- */

static const char *const cells[][2] = {
    {"escqrs_store", "value"},         {"escqrs_stream", "id"},
    {"escqrs_stream", "name"},         {"escqrs_type", "id"},
    {"escqrs_type", "name"},           {"escqrs_type", "record"},
    {"escqrs_journal", "position"},    {"escqrs_journal", "stream"},
    {"escqrs_journal", "version"},     {"escqrs_journal", "type"},
    {"escqrs_journal", "time"},        {"escqrs_journal", "ordinal"},
    {"escqrs_journal", "header"},      {"escqrs_journal", "data"},
    {"escqrs_journal", "checksum"},    {"escqrs_index", "stream"},
    {"escqrs_index", "first_version"}, {"escqrs_index", "count"},
    {"escqrs_index", "positions"},     {"escqrs_snapshot", "stream"},
    {"escqrs_snapshot", "version"},    {"escqrs_snapshot", "type"},
    {"escqrs_snapshot", "data"},       {"escqrs_snapshot", "checksum"},
    {"escqrs_key", "position"},        {"escqrs_key", "versions"},
    {"escqrs_key", "fingerprint"},     {"escqrs_key", "reply"},
    {"escqrs_checkpoint", "position"}, {"escqrs_tag", "tag"},
    {"escqrs_tag", "position"},        {"escqrs_id", "id"},
    {"escqrs_id", "position"},
};

static const char *const values[] = {
    "NULL", "-1",     "0",   "9223372036854775807",     "-9223372036854775808",
    "2.5",  "'text'", "x''", "x'ffffffffffffffffff01'", "zeroblob(5)",
};

static bool is_row_key(const char *table, const char *column)
{
    return strcmp(column, "id") == 0
               ? strcmp(table, "escqrs_id") != 0
               : strcmp(column, "position") == 0 && strcmp(table, "escqrs_journal") == 0;
}

static const char *const tables_without_checks =
    "PRAGMA writable_schema = ON;"
    "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE type = 'table';"
    "PRAGMA writable_schema = RESET;";

/* In the first row and the last by turns. */
static void test_cells(void **state)
{
    (void)state;
    enum { VALUES = sizeof values / sizeof *values };
    const size_t count = sizeof cells / sizeof *cells * VALUES, stride = (size_t)test_stride(7);
    make_store();
    for (size_t n = 0; n < count; n += stride) {
        const size_t i = n / VALUES, j = n % VALUES;
        const char *table = cells[i][0], *column = cells[i][1];
        if (is_row_key(table, column) && strchr("-09", values[j][0]) == NULL) {
            continue; /* SQLite refuses it */
        }
        snprintf(damage, sizeof damage,
                 "%s UPDATE OR IGNORE %s SET %s = %s WHERE %s = (SELECT %s(%s) FROM %s)",
                 tables_without_checks, table, column, values[j], column,
                 (i + j) % 2 == 0 ? "max" : "min", column, table);
        (void)use_damaged();
    }
}

/* ---- what must be said ------------------------------------------------------------------------ */

static void test_said(void **state)
{
    (void)state;
    static const char *const damages[] = {
        /* the index: a last row that says less, more, or what lies ahead of the tail */
        "UPDATE escqrs_index SET count = count - 1 WHERE first_version = 257",
        "UPDATE escqrs_index SET count = count + 1 WHERE first_version = 257",
        "UPDATE escqrs_index SET positions = x'8080808004' || substr(positions, 2)"
        " WHERE first_version = 1",
        "UPDATE escqrs_index SET first_version = 9223372036854775807 WHERE first_version = 257",
        "UPDATE escqrs_store SET value = value + 1000 WHERE name = 'indexed'",
        /* numbers that leave no room for the next one */
        "UPDATE escqrs_journal SET version = 9223372036854775807"
        " WHERE position = (SELECT max(position) FROM escqrs_journal)",
        "UPDATE escqrs_stream SET id = 9223372036854775807 WHERE name = 'b'",
        "UPDATE escqrs_journal SET position = 9223372036854775807"
        " WHERE position = (SELECT max(position) FROM escqrs_journal);"
        "UPDATE escqrs_store SET value = 9223372036854775807 WHERE name = 'indexed'",
        "UPDATE escqrs_stream SET id = -1 WHERE name = 's'",
        /* a key whose result is cut off, or of no event */
        "UPDATE escqrs_key SET versions = x''",
        "UPDATE escqrs_key SET versions = x'ff'",
        "UPDATE escqrs_key SET versions = x'0101'",
        "UPDATE escqrs_key SET position = 9223372036854775807",
    };
    make_store();
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        snprintf(damage, sizeof damage, "%s", damages[i]);
        if (!use_damaged()) {
            fail_msg("nothing is said of: %s", damages[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cells, setup_folder, name_damage),
        cmocka_unit_test_setup_teardown(test_said, setup_folder, name_damage),
    };
    use_memory_for_files();
    alarm(TIME_LIMIT_S);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
