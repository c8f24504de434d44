/* Which layout should the journal have? Measures what docs/storage-layout.md decides by.
 *
 *   layout [events] [folder]        1,000,000 and the current folder unless given
 *
 * The same rows, 64 bytes of data each, interleaved over 10,000 streams, written FULL in commits of
 * 1, 100 and 1,000 rows, in three ways: `unique`, an index over (stream, version); `previous`, a
 * column with the position of the stream's previous event and no index; `late`, the store as it is
 * built (all its checks and checksums included), which indexes in bulk. `bare` is the raw loop
 * without any index: the floor of the last. */
#include <escqrs/store.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define STREAMS 10000
#define DATA_SIZE 64
#define DEEP 1    /* gets every 1,000th event */
#define SHALLOW 2 /* gets every 100,000th */

enum { UNIQUE, PREVIOUS, BARE, LATE, LAYOUTS };
static const char *const names[LAYOUTS] = {"unique", "previous", "bare", "late"};

static int64_t versions[STREAMS + 3], heads[STREAMS + 3];
static char path[512], data[DATA_SIZE + 1];
static escqrs_store *store;
static sqlite3 *db;
static sqlite3_stmt *insert;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void check(int fine, const char *what)
{
    if (!fine) {
        fprintf(stderr, "%s failed: %s\n", what, db != NULL ? sqlite3_errmsg(db) : "");
        exit(1);
    }
}

static void run(const char *sql)
{
    check(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK, sql);
}

static void clean(void)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-lock"};
    for (size_t i = 0; i < 4; i++) {
        char name[520];
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
}

static int stream_of(int64_t position)
{
    if (position % 100000 == 0) {
        return SHALLOW;
    }
    if (position % 1000 == 1) {
        return DEEP;
    }
    return 3 + (int)(((uint64_t)position * 0x9E3779B97F4A7C15u >> 33) % STREAMS);
}

/* ---- raw -------------------------------------------------------------------------------------- */

static void raw_open(void)
{
    check(sqlite3_open(path, &db) == SQLITE_OK, "open");
    run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
}

static void raw_prepare(int layout)
{
    run("CREATE TABLE IF NOT EXISTS j(position INTEGER PRIMARY KEY, stream INT, version INT, type "
        "INT, time INT, "
        "ordinal INT, header BLOB, data BLOB, checksum INT, previous INT)");
    if (layout == UNIQUE) {
        run("CREATE UNIQUE INDEX IF NOT EXISTS i ON j(stream, version)");
    }
    check(sqlite3_prepare_v2(
              db,
              layout == PREVIOUS
                  ? "INSERT INTO j VALUES (?1,?2,?3,1,?4,0,NULL,?5,?6,?7)"
                  : "INSERT INTO j(position,stream,version,type,time,ordinal,data,checksum) "
                    "VALUES (?1,?2,?3,1,?4,0,?5,?6)",
              -1, &insert, NULL) == SQLITE_OK,
          "prepare");
}

static void raw_write(int layout, int64_t from, int64_t count, int64_t batch)
{
    for (int64_t done = 0; done < count; done += batch) {
        run("BEGIN IMMEDIATE");
        for (int64_t i = 0; i < batch; i++) {
            int64_t position = from + done + i;
            int stream = stream_of(position);
            sqlite3_bind_int64(insert, 1, position);
            sqlite3_bind_int64(insert, 2, stream);
            sqlite3_bind_int64(insert, 3, ++versions[stream]);
            sqlite3_bind_int64(insert, 4, 1700000000000000 + position);
            sqlite3_bind_blob(insert, 5, data, DATA_SIZE, SQLITE_STATIC);
            sqlite3_bind_int64(insert, 6, position * 2654435761 % 2147483647);
            if (layout == PREVIOUS) {
                sqlite3_bind_int64(insert, 7, heads[stream]);
            }
            heads[stream] = position;
            check(sqlite3_step(insert) == SQLITE_DONE, "insert");
            sqlite3_reset(insert);
        }
        run("COMMIT");
    }
}

static int64_t raw_replay(int layout, sqlite3_stmt *statement, int stream)
{
    int64_t count = 0;
    if (layout == UNIQUE) {
        sqlite3_bind_int64(statement, 1, stream);
        while (sqlite3_step(statement) == SQLITE_ROW) {
            count += sqlite3_column_bytes(statement, 1) > 0;
        }
        sqlite3_reset(statement);
        return count;
    }
    for (int64_t position = heads[stream]; position != 0;) {
        sqlite3_bind_int64(statement, 1, position);
        check(sqlite3_step(statement) == SQLITE_ROW, "chain");
        count += sqlite3_column_bytes(statement, 1) > 0;
        position = sqlite3_column_int64(statement, 0);
        sqlite3_reset(statement);
    }
    return count;
}

/* ---- the store -------------------------------------------------------------------------------- */

typedef struct slot {
    escqrs_commit commit;
    escqrs_write write;
    escqrs_new_event event;
} slot;

static int64_t failures;

static void note(escqrs_commit *commit)
{
    failures += commit->status != ESCQRS_OK;
}

static char stream_names[STREAMS + 3][24];

static void store_open_(void)
{
    escqrs_error error = {0};
    escqrs_store_options options = {.manual = true};
    check(escqrs_store_open(path, &options, &store, &error) == ESCQRS_OK, error.message);
}

/* `batch` single commits are submitted and pumped together, as the journal would with many writers.
 */
static void store_write(int64_t from, int64_t count, int64_t batch)
{
    static slot slots[1000];
    escqrs_type *type;
    check(escqrs_store_type(store, escqrs_slice_of("T"), escqrs_slice_of(""), &type, NULL) ==
              ESCQRS_OK,
          "type");
    for (int64_t done = 0; done < count; done += batch) {
        for (int64_t i = 0; i < batch; i++) {
            slot *s = &slots[i];
            int stream = stream_of(from + done + i);
            memset(s, 0, sizeof *s);
            s->event = (escqrs_new_event){.type = type, .data = {data, DATA_SIZE}};
            s->write = (escqrs_write){.stream = escqrs_slice_of(stream_names[stream]),
                                      .expected = versions[stream]++,
                                      .events = &s->event,
                                      .event_count = 1};
            s->commit = (escqrs_commit){.writes = &s->write, .write_count = 1, .done = note};
            check(escqrs_store_submit(store, &s->commit, NULL) == ESCQRS_OK, "submit");
        }
        escqrs_store_pump(store);
    }
    check(failures == 0, "commit");
}

static int64_t store_replay(int stream)
{
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    size_t count;
    int64_t total = 0;
    escqrs_slice name = escqrs_slice_of(stream_names[stream]);
    check(escqrs_store_history(store, name, NULL, &cursor, NULL) == ESCQRS_OK, "history");
    while (escqrs_cursor_read(cursor, 1000, &recorded, &count, NULL) == ESCQRS_OK) {
        total += (int64_t)count;
    }
    escqrs_cursor_close(cursor);
    return total;
}

static int64_t store_scan(void)
{
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    size_t count;
    int64_t total = 0;
    check(escqrs_store_events(store, NULL, &cursor, NULL) == ESCQRS_OK, "events");
    while (escqrs_cursor_read(cursor, 1000, &recorded, &count, NULL) == ESCQRS_OK) {
        total += (int64_t)count;
    }
    escqrs_cursor_close(cursor);
    return total;
}

/* ---- one layout ------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#define REPEATS 101

static double replay_us(int layout, sqlite3_stmt *statement, int stream, int64_t expected)
{
    double times[REPEATS];
    for (int i = 0; i < REPEATS; i++) {
        double start = now();
        int64_t count =
            layout == LATE ? store_replay(stream) : raw_replay(layout, statement, stream);
        times[i] = (now() - start) * 1e6;
        check(count == expected, "replay");
    }
    qsort(times, REPEATS, sizeof times[0], by_value);
    return times[REPEATS / 2];
}

static void measure(int layout, int64_t events)
{
    memset(versions, 0, sizeof versions);
    memset(heads, 0, sizeof heads);
    clean();
    if (layout == LATE) {
        store_open_();
    } else {
        raw_open();
        raw_prepare(layout);
    }
    const int64_t batches[3] = {1, 100, 1000};
    const int64_t counts[3] = {events / 200, events / 5, events - events / 200 - events / 5};
    double rates[3];
    int64_t position = 1;
    for (int i = 0; i < 3; i++) {
        double start = now();
        if (layout == LATE) {
            store_write(position, counts[i], batches[i]);
        } else {
            raw_write(layout, position, counts[i], batches[i]);
        }
        rates[i] = (double)counts[i] / (now() - start);
        position += counts[i];
    }
    double start = now();
    if (layout == LATE) {
        escqrs_store_destroy(store);
    } else {
        sqlite3_finalize(insert);
        sqlite3_close(db);
    }
    double close_ms = (now() - start) * 1e3;
    struct stat file;
    check(stat(path, &file) == 0, "stat");

    sqlite3_stmt *statement = NULL;
    start = now();
    if (layout == LATE) {
        store_open_();
    } else {
        raw_open();
        run("PRAGMA mmap_size=2147418112");
        if (layout == PREVIOUS || layout == BARE) { /* the heads, to check versions against */
            sqlite3_stmt *scan;
            sqlite3_prepare_v2(db, "SELECT position, stream, version FROM j", -1, &scan, NULL);
            while (sqlite3_step(scan) == SQLITE_ROW) {
                heads[sqlite3_column_int(scan, 1)] = sqlite3_column_int64(scan, 0);
            }
            sqlite3_finalize(scan);
        }
        sqlite3_prepare_v2(db,
                           layout == UNIQUE
                               ? "SELECT position, data FROM j WHERE stream=?1 ORDER BY version"
                               : "SELECT previous, data FROM j WHERE position=?1",
                           -1, &statement, NULL);
    }
    double open_ms = (now() - start) * 1e3;
    double shallow = 0, deep = 0;
    if (layout != BARE) {
        shallow = replay_us(layout, statement, SHALLOW, versions[SHALLOW]);
        deep = replay_us(layout, statement, DEEP, versions[DEEP]);
    }
    sqlite3_finalize(statement);
    int64_t scanned = 0;
    start = now();
    if (layout == LATE) {
        scanned = store_scan();
    } else {
        sqlite3_prepare_v2(db, "SELECT position, stream, version, type, time, data FROM j", -1,
                           &statement, NULL);
        while (sqlite3_step(statement) == SQLITE_ROW) {
            scanned += sqlite3_column_bytes(statement, 5) > 0;
        }
        sqlite3_finalize(statement);
    }
    double scan = (double)scanned / (now() - start);
    check(scanned == events, "scan");
    if (layout == LATE) {
        escqrs_store_destroy(store);
    } else {
        sqlite3_close(db);
    }
    db = NULL;
    clean();
    printf("%-10s%12.0f%12.0f%12.0f%12.1f%12.0f%12.0f%10.1f%10.1f%10.1f\n", names[layout], rates[0],
           rates[1], rates[2], shallow, deep, scan, open_ms, close_ms,
           (double)file.st_size / (double)events);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    int64_t events = count > 1 ? atoll(arguments[1]) : 1000000;
    if (events < 200000 || events % 200000 != 0) {
        fprintf(stderr, "usage: layout [events, a multiple of 200,000] [folder]\n");
        return 2;
    }
    snprintf(path, sizeof path, "%s/layout-%ld.db", count > 2 ? arguments[2] : ".", (long)getpid());
    memset(data, 'x', DATA_SIZE);
    for (int i = 1; i < STREAMS + 3; i++) {
        snprintf(stream_names[i], sizeof stream_names[i], "Cart/%d", i);
    }
    printf("%lld events of %d bytes over %d streams; rows a commit 1, 100, 1,000, FULL\n\n",
           (long long)events, DATA_SIZE, STREAMS);
    printf("%-10s%12s%12s%12s%12s%12s%12s%10s%10s%10s\n", "layout", "1: rows/s", "100", "1,000",
           "10 ev: us", "1,000: us", "scan ev/s", "open ms", "close ms", "bytes/ev");
    for (int layout = 0; layout < LAYOUTS; layout++) {
        measure(layout, events);
    }
    return 0;
}
