/* tests/bench/floor.c - the floors of `make bench`: what the same SQLite does in a plain C loop.
 *
 * Each mode works on a file of its own and prints one JSON object. The table has the columns of
 * the engine's journal and no index but its primary key, unless the mode says so. One thread, one
 * connection; WAL and synchronous=FULL, as the engine's default is.
 *
 *   floor commit FILE COMMITS ROWS STREAMS [BYTES]   COMMITS transactions of ROWS events each
 *   floor fill FILE STREAMS DEPTH [BYTES]            streams interleaved, as if written at once
 *   floor stream FILE STREAMS DEPTH                  each stream of a filled file, by an index
 *   floor scan FILE                                  a filled file in the order of positions
 *   floor project FILE EVENTS ROWS SYNC              read events, insert a row for each, ROWS a
 *                                                    transaction
 *   floor upsert FILE EVENTS ROWS SYNC               the same with an upsert into 1,000 rows
 *   floor open FILE                                  open the file and read the last position
 */
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PAYLOAD_BYTES 40 /* where nothing is said */
#define PAYLOAD_BYTES_MAX 1000
#define FILL_ROWS 10000

static sqlite3 *db;
static int payload_bytes = PAYLOAD_BYTES;

static void fail(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, db != NULL ? sqlite3_errmsg(db) : "");
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void run(const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        fail(sql);
    }
}

static sqlite3_stmt *prepare(const char *sql)
{
    sqlite3_stmt *statement = NULL;
    if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) {
        fail(sql);
    }
    return statement;
}

static void step(sqlite3_stmt *statement, int expected)
{
    if (sqlite3_step(statement) != expected) {
        fail(sqlite3_sql(statement));
    }
}

static void once(sqlite3_stmt *statement)
{
    step(statement, SQLITE_DONE);
    sqlite3_reset(statement);
}

static void open_file(const char *path)
{
    if (sqlite3_open(path, &db) != SQLITE_OK) {
        fail(path);
    }
    run("PRAGMA journal_mode=WAL");
    run("PRAGMA synchronous=FULL");
}

static void create_events(void)
{
    run("CREATE TABLE events (position INTEGER PRIMARY KEY, stream INTEGER NOT NULL,"
        " version INTEGER NOT NULL, type INTEGER NOT NULL, time INTEGER NOT NULL,"
        " ordinal INTEGER NOT NULL, header BLOB, data BLOB NOT NULL, checksum INTEGER NOT NULL)");
}

#define INSERT_EVENT "INSERT INTO events VALUES (?, ?, ?, 1, ?, 0, NULL, ?, ?)"

static void insert_event(sqlite3_stmt *insert, int64_t position, int64_t stream, int64_t version)
{
    char payload[PAYLOAD_BYTES_MAX];
    memset(payload, 'x', (size_t)payload_bytes);
    memcpy(payload, &position, sizeof position);
    sqlite3_bind_int64(insert, 1, position);
    sqlite3_bind_int64(insert, 2, stream);
    sqlite3_bind_int64(insert, 3, version);
    sqlite3_bind_int64(insert, 4, 1700000000000000 + position);
    sqlite3_bind_blob(insert, 5, payload, payload_bytes, SQLITE_STATIC);
    sqlite3_bind_int64(insert, 6, (position * 2654435761) & 0xffffffff); /* as wide as a checksum */
    once(insert);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int mode_commit(const char *path, long commits, long rows, long streams)
{
    open_file(path);
    create_events();
    sqlite3_stmt *begin = prepare("BEGIN IMMEDIATE");
    sqlite3_stmt *commit = prepare("COMMIT");
    sqlite3_stmt *insert = prepare(INSERT_EVENT);
    int64_t *version = calloc((size_t)streams, sizeof *version);
    int64_t *took = calloc((size_t)commits, sizeof *took);
    if (version == NULL || took == NULL) {
        fail("out of memory");
    }
    int64_t position = 0;
    int64_t start = now_ns();
    for (long number = 0; number < commits; number++) {
        int64_t begun = now_ns();
        once(begin);
        for (long row = 0; row < rows; row++) {
            int64_t stream = position % streams;
            position++;
            insert_event(insert, position, stream + 1, ++version[stream]);
        }
        once(commit);
        took[number] = now_ns() - begun;
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    qsort(took, (size_t)commits, sizeof *took, by_value);
    printf("{\"rate\": %.1f, \"p50\": %.2f, \"p99\": %.2f}\n", (double)(commits * rows) / seconds,
           (double)took[commits / 2] / 1e3, (double)took[commits * 99 / 100] / 1e3);
    return 0;
}

static int mode_fill(const char *path, long streams, long depth)
{
    open_file(path);
    create_events();
    sqlite3_stmt *insert = prepare(INSERT_EVENT);
    int64_t position = 0;
    run("BEGIN");
    for (long version = 1; version <= depth; version++) {
        for (long stream = 1; stream <= streams; stream++) {
            position++;
            insert_event(insert, position, stream, version);
            if (position % FILL_ROWS == 0) {
                run("COMMIT; BEGIN");
            }
        }
    }
    run("COMMIT");
    run("CREATE UNIQUE INDEX by_stream ON events (stream, version)");
    sqlite3_finalize(insert);
    sqlite3_close(db); /* also writes the WAL back */
    printf("{\"events\": %lld}\n", (long long)position);
    return 0;
}

static int mode_stream(const char *path, long streams, long depth)
{
    open_file(path);
    sqlite3_stmt *read =
        prepare("SELECT position, version, type, time, ordinal, header, checksum, data"
                " FROM events WHERE stream = ? ORDER BY version");
    int64_t *took = calloc((size_t)streams, sizeof *took);
    if (took == NULL) {
        fail("out of memory");
    }
    int64_t bytes = 0;
    for (long number = 0; number < streams; number++) {
        int64_t begun = now_ns();
        /* a stride that visits every stream, but not in the order of the file */
        sqlite3_bind_int64(read, 1, (number * 7919) % streams + 1);
        long rows = 0;
        while (sqlite3_step(read) == SQLITE_ROW) {
            bytes +=
                sqlite3_column_bytes(read, 7) + ((const char *)sqlite3_column_blob(read, 7))[0];
            rows++;
        }
        sqlite3_reset(read);
        took[number] = now_ns() - begun;
        if (rows != depth) {
            fail("a stream has another length");
        }
    }
    qsort(took, (size_t)streams, sizeof *took, by_value);
    printf("{\"us\": %.2f, \"bytes\": %lld}\n", (double)took[streams / 2] / 1e3, (long long)bytes);
    return 0;
}

static int mode_scan(const char *path)
{
    open_file(path);
    sqlite3_stmt *read = prepare("SELECT position, stream, version, type, time, ordinal, header, "
                                 "checksum, data FROM events ORDER BY position");
    int64_t rows = 0;
    int64_t sum = 0;
    int64_t start = now_ns();
    while (sqlite3_step(read) == SQLITE_ROW) {
        int64_t value = 0;
        memcpy(&value, sqlite3_column_blob(read, 8), sizeof value);
        sum += value;
        rows++;
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("{\"rate\": %.1f, \"sum\": %lld}\n", (double)rows / seconds, (long long)sum);
    return 0;
}

/* A file of events, and what a read model of them needs. */
static void make_events(const char *path, long events, const char *table, const char *sync)
{
    char pragma[64];
    open_file(path);
    create_events();
    run(table);
    run("CREATE TABLE checkpoints (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT "
        "ROWID");
    run("INSERT INTO checkpoints VALUES ('Items', 0)");
    sqlite3_stmt *fill = prepare(INSERT_EVENT);
    run("BEGIN");
    for (long position = 1; position <= events; position++) {
        insert_event(fill, position, position % 1000, position / 1000 + 1);
    }
    run("COMMIT");
    run("PRAGMA wal_checkpoint(TRUNCATE)");
    snprintf(pragma, sizeof pragma, "PRAGMA synchronous=%s", sync);
    run(pragma);
}

static void insert_item(sqlite3_stmt *insert, int64_t position)
{
    char id[40];
    char name[32];
    /* an id like the engine's: a UUID that sorts by time */
    snprintf(id, sizeof id, "018f0000-%04x-7000-8000-%012llx", (unsigned)(position >> 16) & 0xffff,
             (unsigned long long)position);
    snprintf(name, sizeof name, "item-%lld", (long long)position);
    sqlite3_bind_text(insert, 1, id, -1, SQLITE_STATIC);
    sqlite3_bind_text(insert, 2, name, -1, SQLITE_STATIC);
    sqlite3_bind_int64(insert, 3, position % 10);
    once(insert);
}

static void upsert_sum(sqlite3_stmt *upsert, int64_t position)
{
    sqlite3_bind_int64(upsert, 1, position);
    once(upsert);
}

/* Read the events, do that with each, and move the checkpoint, `rows` a transaction. */
static int follow(long events, long rows, const char *sql,
                  void (*apply)(sqlite3_stmt *statement, int64_t position))
{
    sqlite3_stmt *read = prepare("SELECT position, data FROM events WHERE position > ?"
                                 " ORDER BY position LIMIT ?");
    sqlite3_stmt *write = prepare(sql);
    sqlite3_stmt *move = prepare("UPDATE checkpoints SET position = ? WHERE name = 'Items'");
    sqlite3_stmt *begin = prepare("BEGIN IMMEDIATE");
    sqlite3_stmt *commit = prepare("COMMIT");
    int64_t position = 0;
    int64_t start = now_ns();
    while (position < events) {
        once(begin);
        sqlite3_bind_int64(read, 1, position);
        sqlite3_bind_int64(read, 2, rows);
        while (sqlite3_step(read) == SQLITE_ROW) {
            position = sqlite3_column_int64(read, 0);
            apply(write, position);
        }
        sqlite3_reset(read);
        sqlite3_bind_int64(move, 1, position);
        once(move);
        once(commit);
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    printf("{\"rate\": %.1f}\n", (double)events / seconds);
    return 0;
}

static int mode_project(const char *path, long events, long rows, const char *sync)
{
    make_events(path, events,
                "CREATE TABLE items (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
                " quantity INTEGER NOT NULL)",
                sync);
    return follow(events, rows, "INSERT INTO items VALUES (?, ?, ?)", insert_item);
}

static int mode_upsert(const char *path, long events, long rows, const char *sync)
{
    make_events(path, events, "CREATE TABLE sums (name TEXT PRIMARY KEY, n INTEGER NOT NULL)",
                sync);
    return follow(events, rows,
                  "INSERT INTO sums VALUES ('k' || (? % 1000), 1)"
                  " ON CONFLICT (name) DO UPDATE SET n = n + 1",
                  upsert_sum);
}

static int mode_open(const char *path)
{
    int64_t start = now_ns();
    open_file(path);
    sqlite3_stmt *read = prepare("SELECT max(position) FROM events");
    step(read, SQLITE_ROW);
    int64_t head = sqlite3_column_int64(read, 0);
    printf("{\"ms\": %.3f, \"head\": %lld}\n", (double)(now_ns() - start) / 1e6, (long long)head);
    return 0;
}

/* An argument that may be left out. */
static void take_bytes(char **arguments, int count, int index)
{
    payload_bytes = index < count ? atoi(arguments[index]) : PAYLOAD_BYTES;
    if (payload_bytes < 8 || payload_bytes > PAYLOAD_BYTES_MAX) {
        fail("a payload has 8 to 1,000 bytes");
    }
}

static long number(char **arguments, int count, int index)
{
    long value = index < count ? atol(arguments[index]) : 0;
    if (value <= 0) {
        fail("a number above 0 is missing; the file's first comment has the usage");
    }
    return value;
}

int main(int count, char **arguments)
{
    if (count < 3) {
        fail("the file's first comment has the usage");
    }
    const char *mode = arguments[1];
    const char *path = arguments[2];
    if (strcmp(mode, "commit") == 0) {
        take_bytes(arguments, count, 6);
        return mode_commit(path, number(arguments, count, 3), number(arguments, count, 4),
                           number(arguments, count, 5));
    }
    if (strcmp(mode, "fill") == 0) {
        take_bytes(arguments, count, 5);
        return mode_fill(path, number(arguments, count, 3), number(arguments, count, 4));
    }
    if (strcmp(mode, "stream") == 0) {
        return mode_stream(path, number(arguments, count, 3), number(arguments, count, 4));
    }
    if (strcmp(mode, "scan") == 0) {
        return mode_scan(path);
    }
    if (strcmp(mode, "project") == 0) {
        return mode_project(path, number(arguments, count, 3), number(arguments, count, 4),
                            count > 5 ? arguments[5] : "FULL");
    }
    if (strcmp(mode, "upsert") == 0) {
        return mode_upsert(path, number(arguments, count, 3), number(arguments, count, 4),
                           count > 5 ? arguments[5] : "FULL");
    }
    if (strcmp(mode, "open") == 0) {
        return mode_open(path);
    }
    fail("unknown mode");
    return 1;
}
