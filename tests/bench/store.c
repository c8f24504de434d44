/* tests/bench/store.c - what the store costs by itself, without entities and without Python.
 *
 *   store append FILE COMMITS ROWS STREAMS   COMMITS of ROWS events, each of the next stream
 *   store fill FILE STREAMS EVENTS TAGS      events in big commits; TAGS 1: each bears one of 1,000
 *   store conditional FILE COMMITS           of one event, without and with a condition on a tag
 *   store stream FILE STREAMS                read whole streams: the first ones, and again
 *   store scan FILE                          read all by position
 *   store open FILE                          open, after whatever happened to the file
 *   store crash FILE MEGABYTES               commit so much while a reader keeps the WAL, then die
 *
 * Payloads have 64 bytes. Each prints one JSON object. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sqlite3.h>

#include <escqrs/store.h>

#define PAYLOAD_BYTES 64
#define FILL_EVENTS 10000
#define TAGS 1000

static escqrs_store *store;
static escqrs_type *type;
static escqrs_error error;
static char payload[PAYLOAD_BYTES];

static void check(escqrs_status status, const char *what)
{
    if (status != ESCQRS_OK) {
        fprintf(stderr, "store: %s: %s\n", what, error.message);
        exit(1);
    }
}

static void *checked(void *memory)
{
    if (memory == NULL) {
        fprintf(stderr, "store: out of memory\n");
        exit(1);
    }
    return memory;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void open_store(const char *path)
{
    memset(payload, 'x', sizeof payload);
    check(escqrs_store_open(path, NULL, &store, &error), "open");
    check(escqrs_store_type(store, escqrs_slice_of("Happened"), escqrs_slice_of(""), &type, &error),
          "type");
}

/* Names of streams, "stream-{number}", made once. */
static escqrs_slice *name_streams(long count)
{
    escqrs_slice *names = checked(calloc((size_t)count, sizeof *names));
    for (long i = 0; i < count; i++) {
        char *name = checked(malloc(32));
        snprintf(name, 32, "stream-%ld", i);
        names[i] = escqrs_slice_of(name);
    }
    return names;
}

/* One event to each of `count` streams from that number on; seconds. */
static double append_round(const escqrs_slice *names, long streams, long from, long count,
                           escqrs_write *writes)
{
    escqrs_new_event event = {.type = type, .data = {payload, sizeof payload}};
    for (long i = 0; i < count; i++) {
        writes[i] = (escqrs_write){.stream = names[(from + i) % streams],
                                   .expected = ESCQRS_EXPECT_ANY,
                                   .events = &event,
                                   .event_count = 1};
    }
    escqrs_commit commit = {.writes = writes, .write_count = (size_t)count};
    double begun = now();
    check(escqrs_store_commit(store, &commit, &error), "commit");
    return now() - begun;
}

static int append(const char *path, long commits, long rows, long streams)
{
    open_store(path);
    escqrs_slice *names = name_streams(streams);
    escqrs_write *writes =
        checked(calloc((size_t)(rows > streams ? rows : streams), sizeof *writes));
    double *took = checked(calloc((size_t)commits, sizeof *took));
    (void)append_round(names, streams, 0, streams, writes); /* now they exist */
    double begun = now();
    for (long number = 0; number < commits; number++) {
        took[number] = append_round(names, streams, number * rows, rows, writes);
    }
    double seconds = now() - begun;
    qsort(took, (size_t)commits, sizeof *took, ascending);
    printf("{\"rate\": %.1f, \"p50\": %.2f, \"p99\": %.2f}\n", (double)(commits * rows) / seconds,
           1e6 * took[commits / 2], 1e6 * took[commits * 99 / 100]);
    return 0;
}

/* In groups of a stream's events, as writers that come again and again leave them. */
static int fill(const char *path, long streams, long events, bool tagged)
{
    open_store(path);
    escqrs_slice *names = name_streams(streams);
    char tags[TAGS][16];
    escqrs_slice tag[TAGS];
    escqrs_new_event *rows = checked(calloc(FILL_EVENTS, sizeof *rows));
    escqrs_write *writes = checked(calloc(FILL_EVENTS, sizeof *writes));
    for (int i = 0; i < TAGS; i++) {
        snprintf(tags[i], sizeof tags[i], "room-%d", i);
        tag[i] = escqrs_slice_of(tags[i]);
    }
    for (long done = 0; done < events;) {
        long count = events - done < FILL_EVENTS ? events - done : FILL_EVENTS;
        for (long i = 0; i < count; i++, done++) {
            rows[i] = (escqrs_new_event){.type = type,
                                         .data = {payload, sizeof payload},
                                         .tags = tagged ? &tag[done % TAGS] : NULL,
                                         .tag_count = tagged ? 1 : 0};
            writes[i] = (escqrs_write){.stream = names[done % streams],
                                       .expected = ESCQRS_EXPECT_ANY,
                                       .events = &rows[i],
                                       .event_count = 1};
        }
        escqrs_commit commit = {.writes = writes, .write_count = (size_t)count};
        check(escqrs_store_commit(store, &commit, &error), "commit");
    }
    escqrs_store_destroy(store);
    printf("{}\n");
    return 0;
}

static double commit_tagged(long number, const escqrs_condition *condition)
{
    char stream[32];
    char text[16];
    snprintf(stream, sizeof stream, "booking-%ld", number);
    snprintf(text, sizeof text, "room-%ld", number % TAGS);
    escqrs_slice tag = escqrs_slice_of(text);
    escqrs_match match = {.tags = &tag, .tag_count = 1};
    escqrs_condition here = {.matches = &match, .match_count = 1};
    escqrs_new_event event = {
        .type = type, .data = {payload, sizeof payload}, .tags = &tag, .tag_count = 1};
    escqrs_write write = {.stream = escqrs_slice_of(stream),
                          .expected = ESCQRS_EXPECT_ANY,
                          .events = &event,
                          .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    if (condition != NULL) {
        here.after = condition->after;
        commit.condition = &here;
    }
    double start = now();
    check(escqrs_store_commit(store, &commit, &error), "commit");
    return now() - start;
}

/* In turn, so that both meet the same disk. */
static int conditional(const char *path, long commits)
{
    open_store(path);
    double without = 0;
    double with = 0;
    for (long number = 0; number < commits; number++) {
        escqrs_condition condition = {.after = escqrs_store_head(store)};
        without += commit_tagged(2 * number, NULL);
        condition.after = escqrs_store_head(store);
        with += commit_tagged(2 * number + 1, &condition);
    }
    escqrs_store_destroy(store);
    printf("{\"unconditional\": %.1f, \"rate\": %.1f}\n", (double)commits / without,
           (double)commits / with);
    return 0;
}

static int64_t read_all(escqrs_cursor *cursor)
{
    const escqrs_recorded *recorded;
    size_t count;
    int64_t bytes = 0;
    escqrs_status status;
    while ((status = escqrs_cursor_read(cursor, 1000, &recorded, &count, &error)) == ESCQRS_OK) {
        for (size_t i = 0; i < count; i++) {
            bytes += (int64_t)recorded[i].data.size;
        }
    }
    if (status != ESCQRS_DONE) {
        check(status, "read");
    }
    escqrs_cursor_close(cursor);
    return bytes / PAYLOAD_BYTES;
}

static int stream(const char *path, long streams)
{
    double took[2] = {0};
    int64_t events = 0;
    open_store(path);
    for (int round = 0; round < 2; round++) {
        events = 0;
        double begun = now();
        for (long i = 0; i < streams; i++) {
            char name[32];
            escqrs_cursor *cursor;
            snprintf(name, sizeof name, "stream-%ld", i);
            check(escqrs_store_history(store, escqrs_slice_of(name), NULL, &cursor, &error),
                  "history");
            events += read_all(cursor);
        }
        took[round] = now() - begun;
    }
    escqrs_store_destroy(store);
    printf("{\"first\": %.1f, \"again\": %.1f, \"event_ns\": %.1f}\n",
           1e6 * took[0] / (double)streams, 1e6 * took[1] / (double)streams,
           1e9 * took[1] / (double)events);
    return 0;
}

static int scan(const char *path)
{
    escqrs_cursor *cursor;
    open_store(path);
    double begun = now();
    check(escqrs_store_events(store, NULL, &cursor, &error), "events");
    int64_t events = read_all(cursor);
    double seconds = now() - begun;
    escqrs_store_destroy(store);
    printf("{\"rate\": %.1f}\n", (double)events / seconds);
    return 0;
}

static int open_only(const char *path)
{
    double begun = now();
    open_store(path);
    double seconds = now() - begun;
    int64_t head = escqrs_store_head(store);
    escqrs_store_destroy(store);
    printf("{\"ms\": %.3f, \"head\": %" PRId64 "}\n", 1e3 * seconds, head);
    return 0;
}

static int crash(const char *path, long megabytes)
{
    void *reader;
    open_store(path);
    check(escqrs_store_reader(store, &reader, &error), "reader");
    if (sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL) !=
        SQLITE_OK) {
        check(ESCQRS_IO, "begin");
    }
    escqrs_slice name = escqrs_slice_of("stream");
    escqrs_new_event event[100];
    for (int i = 0; i < 100; i++) {
        event[i] = (escqrs_new_event){.type = type, .data = {payload, sizeof payload}};
    }
    for (long commits = 0; commits < megabytes * 1000 / 24; commits++) { /* some 24 KB in the WAL */
        escqrs_write write = {
            .stream = name, .expected = ESCQRS_EXPECT_ANY, .events = event, .event_count = 100};
        escqrs_commit commit = {.writes = &write, .write_count = 1};
        check(escqrs_store_commit(store, &commit, &error), "commit");
    }
    printf("{\"head\": %" PRId64 "}\n", escqrs_store_head(store));
    fflush(stdout);
    raise(SIGKILL);
    return 1;
}

int main(int argc, char **argv)
{
    const char *mode = argc > 2 ? argv[1] : "";
    const char *path = argc > 2 ? argv[2] : "";
    long given[3] = {0};
    for (int i = 3; i < argc && i < 6; i++) {
        given[i - 3] = strtol(argv[i], NULL, 10);
    }
    if (strcmp(mode, "append") == 0 && argc == 6) {
        return append(path, given[0], given[1], given[2]);
    }
    if (strcmp(mode, "fill") == 0 && argc == 6) {
        return fill(path, given[0], given[1], given[2] != 0);
    }
    if (strcmp(mode, "conditional") == 0 && argc == 4) {
        return conditional(path, given[0]);
    }
    if (strcmp(mode, "stream") == 0 && argc == 4) {
        return stream(path, given[0]);
    }
    if (strcmp(mode, "scan") == 0 && argc == 3) {
        return scan(path);
    }
    if (strcmp(mode, "open") == 0 && argc == 3) {
        return open_only(path);
    }
    if (strcmp(mode, "crash") == 0 && argc == 4) {
        return crash(path, given[0]);
    }
    fprintf(stderr, "usage: see the head of tests/bench/store.c\n");
    return 2;
}
