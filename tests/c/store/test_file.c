/* Files: who may open them, what is refused and left as it was, what a damaged row gives. */
#include "fixture.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/syscall.h>

#include "store/lock.h"

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static uint8_t *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size + 1);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

static int entries(const char *folder)
{
    DIR *dir = opendir(folder);
    int count = -2; /* . and .. */
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}

/* Opening for reading and for writing is refused so, and nothing in the folder changes. */
static void refused_untouched(const char *path, escqrs_status status)
{
    size_t before, after;
    escqrs_error error;
    uint8_t *was = read_file(path, &before);
    int there = entries(fixture_folder);
    for (int readonly = 0; readonly < 2; readonly++) {
        refused(path, &(escqrs_store_options){.readonly = readonly != 0}, status, &error);
        uint8_t *is = read_file(path, &after);
        assert_int_equal(before, after);
        assert_memory_equal(was, is, before);
        free(is);
        if (status == ESCQRS_NOT_A_STORE ||
            !readonly) { /* SQLite's readers leave an empty WAL by ours */
            assert_int_equal(entries(fixture_folder), there);
        }
    }
    free(was);
}

static void execute(const char *path, const char *sql)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) {
        fail_msg("%s: %s", sql, message);
    }
    sqlite3_close(db);
}

static void make_store(size_t events)
{
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, events);
    escqrs_store_destroy(store);
    char lock[400];
    snprintf(lock, sizeof lock, "%s-lock", fixture_path);
    unlink(lock);
}

/* ---- foreign, newer, damaged ------------------------------------------------------------------ */

static void test_foreign_files(void **state)
{
    (void)state;
    escqrs_error error;
    write_file(fixture_path, "hello, this is a text and no database at all", 44);
    refused_untouched(fixture_path, ESCQRS_NOT_A_STORE);
    static char noise[8192];
    memset(noise, 0x5a, sizeof noise);
    write_file(fixture_path, noise, sizeof noise);
    refused_untouched(fixture_path, ESCQRS_NOT_A_STORE);
    unlink(fixture_path);
    execute(fixture_path, "CREATE TABLE other(a); INSERT INTO other VALUES (1)");
    refused_untouched(fixture_path, ESCQRS_NOT_A_STORE);
    execute(fixture_path, "PRAGMA application_id = 7; PRAGMA user_version = 1");
    refused_untouched(fixture_path, ESCQRS_NOT_A_STORE);
    execute(fixture_path, "PRAGMA journal_mode = WAL");
    refused_untouched(fixture_path, ESCQRS_NOT_A_STORE);
    refused(fixture_folder, NULL, ESCQRS_NOT_A_STORE, &error);
    refused("/dev/null", NULL, ESCQRS_NOT_A_STORE, &error);
    char deep[400];
    snprintf(deep, sizeof deep, "%s/none/x.db", fixture_folder);
    refused(deep, NULL, ESCQRS_IO, &error);
    snprintf(deep, sizeof deep, "%s/none.db", fixture_folder);
    refused(deep, &(escqrs_store_options){.readonly = true}, ESCQRS_IO, &error);
    assert_int_not_equal(access(deep, F_OK), 0);
}

static void test_newer_format(void **state)
{
    (void)state;
    make_store(10);
    execute(fixture_path, "PRAGMA user_version = 99");
    refused_untouched(fixture_path, ESCQRS_NOT_A_STORE);
    escqrs_error error;
    refused(fixture_path, NULL, ESCQRS_NOT_A_STORE, &error);
    assert_non_null(strstr(error.message, "99"));
}

static void test_empty_file_is_new(void **state)
{
    (void)state;
    write_file(fixture_path, "", 0);
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 1);
    escqrs_store_destroy(store);
}

static void test_truncated(void **state)
{
    (void)state;
    make_store(5000);
    size_t size;
    uint8_t *bytes = read_file(fixture_path, &size);
    static const size_t keep[] = {50, 100, 4096, 8192};
    for (size_t i = 0; i < 4; i++) {
        write_file(fixture_path, bytes, keep[i]);
        refused_untouched(fixture_path, ESCQRS_CORRUPT);
    }
    write_file(fixture_path, bytes, size - 4096);
    refused_untouched(fixture_path, ESCQRS_CORRUPT);
    write_file(fixture_path, bytes, size);
    escqrs_store *store = open_store(fixture_path);
    assert_int_equal(check_stream(store, "s"), 5000);
    escqrs_store_destroy(store);
    free(bytes);
}

static void test_missing_table(void **state)
{
    (void)state;
    make_store(10);
    execute(fixture_path, "DROP TABLE escqrs_journal");
    refused_untouched(fixture_path, ESCQRS_CORRUPT);
}

static void test_missing_events(void **state)
{
    (void)state;
    make_store(10);
    execute(fixture_path, "DELETE FROM escqrs_journal WHERE position > 8");
    escqrs_error error;
    refused(fixture_path, NULL, ESCQRS_CORRUPT, &error);
}

/* ---- damaged rows ----------------------------------------------------------------------------- */

/* Read a stream or all to the end; the status there and the events before it. */
static escqrs_status read_to_end(escqrs_store *store, const char *stream, bool reverse,
                                 int64_t *count, escqrs_error *error)
{
    escqrs_cursor *cursor;
    const escqrs_recorded *r;
    escqrs_range range = {.reverse = reverse};
    *count = 0;
    escqrs_status status = stream != NULL
                               ? escqrs_store_history(store, text(stream), &range, &cursor, error)
                               : escqrs_store_events(store, &range, &cursor, error);
    assert_int_equal(status, ESCQRS_OK);
    while ((status = escqrs_cursor_next(cursor, &r, error)) == ESCQRS_OK) {
        ++*count;
    }
    escqrs_cursor_close(cursor);
    return status;
}

static void test_damaged_rows(void **state)
{
    (void)state;
    static const char *const damages[] = {
        "UPDATE escqrs_journal SET data = 'other' WHERE position = 600",
        "UPDATE escqrs_journal SET time = time + 1 WHERE position = 600",
        "UPDATE escqrs_journal SET checksum = checksum + 1 WHERE position = 600",
        "UPDATE escqrs_journal SET version = 601 WHERE position = 600",
        "UPDATE escqrs_journal SET type = 2 WHERE position = 600",
        "UPDATE escqrs_journal SET header = x'0a00' WHERE position = 600",
        "UPDATE escqrs_journal SET ordinal = 0 WHERE position = 600",
        "DELETE FROM escqrs_journal WHERE position = 600",
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        make_store(1000);
        execute(fixture_path, damages[i]);
        escqrs_store *store = open_store(fixture_path);
        for (int way = 0; way < 4; way++) {
            int64_t count;
            escqrs_error error = {0};
            escqrs_status status =
                read_to_end(store, way < 2 ? NULL : "s", way % 2 == 1, &count, &error);
            if (status != ESCQRS_CORRUPT) {
                fail_msg("%s, way %d: %s after %lld", damages[i], way, escqrs_status_name(status),
                         (long long)count);
            }
            assert_int_equal(count, way % 2 == 1 ? 400 : 599);
            assert_int_equal(error.position, 600);
            assert_non_null(strstr(error.message, "600"));
        }
        escqrs_store_destroy(store);
        unlink(fixture_path);
    }
}

/* The rows of a stream stand apart, other streams' between them, at changing distances. */
static void test_damaged_among_streams(void **state)
{
    (void)state;
    static const char *const damages[] = {
        "DELETE FROM escqrs_journal WHERE stream = 1 AND version = 400",
        "UPDATE escqrs_journal SET stream = 2 WHERE stream = 1 AND version = 400",
        "UPDATE escqrs_journal SET data = 'other' WHERE stream = 1 AND version = 400",
    };
    static const escqrs_store_options quick = {.durability = ESCQRS_DURABILITY_NORMAL};
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        escqrs_store *store = open_with(fixture_path, &quick);
        for (int64_t version = 0; version < 600; version++) {
            append(store, "s", version, 1);
            append(store, version % 3 == 0 ? "a" : "b", -1, (size_t)(version % 5));
        }
        escqrs_store_destroy(store);
        execute(fixture_path, damages[i]);
        store = open_store(fixture_path);
        for (int reverse = 0; reverse < 2; reverse++) {
            int64_t count;
            escqrs_error error = {0};
            assert_int_equal(read_to_end(store, "s", reverse, &count, &error), ESCQRS_CORRUPT);
            assert_int_equal(count, reverse ? 200 : 399);
            assert_int_equal(error.version, 400);
            assert_int_equal(read_to_end(store, "b", reverse, &count, &error), ESCQRS_DONE);
            assert_int_equal(count, version_of(store, "b"));
        }
        escqrs_store_destroy(store);
        unlink(fixture_path);
    }
}

static void test_damaged_index(void **state)
{
    (void)state;
    static const char *const damages[] = {
        "DELETE FROM escqrs_index WHERE first_version = 129",
        "UPDATE escqrs_index SET positions = x'01' WHERE first_version = 129",
        "UPDATE escqrs_index SET count = 100000 WHERE first_version = 129",
        "UPDATE escqrs_index SET positions = x'0101' WHERE first_version = 129",
        "UPDATE escqrs_stream SET name = 't'",
    };
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        make_store(1000);
        execute(fixture_path, damages[i]);
        escqrs_store *store = open_store(fixture_path);
        int64_t count;
        escqrs_error error = {0};
        bool renamed = i == 4;
        assert_int_equal(read_to_end(store, renamed ? "t" : "s", false, &count, &error),
                         ESCQRS_CORRUPT);
        assert_int_equal(count, renamed ? 0 : count);
        assert_true(count <= 128);
        escqrs_store_destroy(store);
        unlink(fixture_path);
    }
}

static void ignore_log(void *context, escqrs_log_level level, const char *line)
{
    (void)line;
    *(int *)context += level == ESCQRS_LOG_WARNING;
}

static void test_damaged_snapshot(void **state)
{
    (void)state;
    int warnings = 0;
    make_store(10);
    escqrs_store_options options = {.log = {ignore_log, &warnings}};
    escqrs_store *store = open_with(fixture_path, &options);
    for (int64_t version = 3; version <= 6; version += 3) {
        escqrs_new_snapshot snapshot = {.stream = text("s"),
                                        .version = version,
                                        .type = type_of(store, "State"),
                                        .data = text("state")};
        escqrs_commit commit = {.snapshot = &snapshot};
        assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    }
    escqrs_store_destroy(store);
    execute(fixture_path, "UPDATE escqrs_snapshot SET data = 'STATE' WHERE version = 6");
    store = open_with(fixture_path, &options);
    escqrs_snapshot found;
    assert_int_equal(escqrs_store_snapshot(store, text("s"), 0, &found, NULL), ESCQRS_OK);
    assert_int_equal(found.version, 3);
    assert_int_equal(warnings, 1);
    escqrs_free(found.data);
    escqrs_store_destroy(store);
}

/* ---- the lock --------------------------------------------------------------------------------- */

static void test_lock_in_process(void **state)
{
    (void)state;
    escqrs_error error;
    char number[32];
    escqrs_store *store = open_store(fixture_path);
    snprintf(number, sizeof number, "process %ld", (long)getpid());
    refused(fixture_path, NULL, ESCQRS_LOCKED, &error);
    assert_non_null(strstr(error.message, number));
    /* another name of the same file */
    char link[400];
    snprintf(link, sizeof link, "%s/link.db", fixture_folder);
    assert_int_equal(symlink(fixture_path, link), 0);
    refused(link, NULL, ESCQRS_LOCKED, &error);
    /* reading its own file drops the POSIX locks of the process, not this one */
    size_t size;
    free(read_file(fixture_path, &size));
    refused(fixture_path, NULL, ESCQRS_LOCKED, &error);
    append(store, "s", 0, 10);
    escqrs_store_destroy(store);
    store = open_store(fixture_path);
    assert_int_equal(check_all(store), 10);
    escqrs_store_destroy(store);
}

static void open_is_locked(void *context)
{
    escqrs_store *store;
    escqrs_error error = {0};
    char *parent = context;
    escqrs_status status = escqrs_store_open(fixture_path, NULL, &store, &error);
    _exit(status == ESCQRS_LOCKED && strstr(error.message, parent) != NULL ? 0 : 1);
}

static void open_succeeds(void *context)
{
    escqrs_store *store;
    (void)context;
    if (escqrs_store_open(fixture_path, NULL, &store, NULL) != ESCQRS_OK) {
        _exit(1);
    }
    escqrs_store_destroy(store);
}

static void test_lock_in_other_process(void **state)
{
    (void)state;
    char number[32];
    snprintf(number, sizeof number, "process %ld", (long)getpid());
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 10);
    assert_int_equal(in_child(open_is_locked, number), 0);
    size_t size;
    free(read_file(fixture_path, &size));
    assert_int_equal(in_child(open_is_locked, number), 0);
    append(store, "s", 10, 10);
    escqrs_store_destroy(store);
    assert_int_equal(in_child(open_succeeds, NULL), 0);
}

/* A child of fork neither uses nor holds the store. */
static void test_fork(void **state)
{
    (void)state;
    int gate[2];
    char byte = 0;
    assert_int_equal(pipe(gate), 0);
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 1);
    escqrs_cursor *cursor;
    assert_int_equal(escqrs_store_events(store, NULL, &cursor, NULL), ESCQRS_OK);
    pid_t child = fork();
    if (child == 0) {
        escqrs_commit commit = {0};
        const escqrs_recorded *r;
        int64_t version;
        bool fine = escqrs_store_commit(store, &commit, NULL) == ESCQRS_FORKED &&
                    escqrs_store_version(store, text("s"), &version, NULL) == ESCQRS_FORKED &&
                    escqrs_cursor_next(cursor, &r, NULL) == ESCQRS_FORKED;
        escqrs_cursor_close(cursor);
        escqrs_store_close(store);
        escqrs_store_destroy(store);
        close(gate[1]);
        fine = read(gate[0], &byte, 1) == 0 && fine; /* lives until the parent says */
        test_child_end(fine);
    }
    append(store, "s", 1, 1);
    escqrs_cursor_close(cursor);
    escqrs_store_destroy(store);
    store = open_store(fixture_path); /* though the child is alive */
    assert_int_equal(check_all(store), 2);
    escqrs_store_destroy(store);
    close(gate[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(gate[0]);
}

static void hold_and_die(void *context)
{
    (void)context;
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 100);
    kill(getpid(), SIGKILL);
}

static void test_no_stale_lock(void **state)
{
    (void)state;
    int status = in_child(hold_and_die, NULL);
    assert_true(WIFSIGNALED(status));
    assert_true(exists(fixture_path, "-wal"));
    escqrs_store *store = open_store(fixture_path);
    assert_int_equal(check_stream(store, "s"), 100);
    escqrs_store_destroy(store);
}

/* A child of another thread's vfork or posix_spawn has copies of all descriptors until it is
 * executed, and no handler closes them. */
static void test_lock_and_a_child_on_its_way(void **state)
{
    (void)state;
    int gate[2];
    char byte = 0;
    assert_int_equal(pipe(gate), 0);
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 1);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* runs no handlers either */
    assert_true(child >= 0);
    if (child == 0) {
        close(gate[1]);
        (void)!read(gate[0], &byte, 1);
        _exit(0);
    }
    escqrs_store_destroy(store);
    store = open_store(fixture_path);
    append(store, "s", 1, 1);
    escqrs_store_destroy(store);
    close(gate[0]);
    close(gate[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

/* ---- several names ----------------------------------------------------------------------------- */

static void link_is_locked(void *context)
{
    escqrs_error error;
    refused(context, NULL, ESCQRS_LOCKED, &error);
    assert_non_null(strstr(error.message, "2 names"));
    refused(context, &(escqrs_store_options){.readonly = true}, ESCQRS_LOCKED, &error);
}

/* A store is used by one name: another's lock and WAL are not its. */
static void test_hard_link(void **state)
{
    (void)state;
    char other[400];
    char number[40];
    escqrs_error error;
    snprintf(other, sizeof other, "%s/other.db", fixture_folder);
    snprintf(number, sizeof number, "this process, %ld", (long)getpid());
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 10);
    assert_int_equal(link(fixture_path, other), 0);
    for (int turn = 0; turn < 3; turn++) { /* what this process was refused has cost no lock */
        refused(other, NULL, ESCQRS_LOCKED, &error);
        assert_non_null(strstr(error.message, number));
        assert_string_equal(error.subject, other);
        assert_int_equal(in_child(link_is_locked, other), 0);
    }
    escqrs_store *reader = open_with(fixture_path, &(escqrs_store_options){.readonly = true});
    assert_int_equal(check_stream(reader, "s"), 10); /* by the writer's name, as ever */
    escqrs_store_destroy(reader);
    append(store, "s", 10, 10);
    escqrs_store_destroy(store);
    refused(fixture_path, NULL, ESCQRS_IO, &error); /* nobody has it open, and it is not written */
    assert_non_null(strstr(error.message, "2 names"));
    assert_string_equal(error.subject, fixture_path);
    reader = open_with(other, &(escqrs_store_options){.readonly = true});
    assert_int_equal(check_stream(reader, "s"), 20);
    escqrs_store_destroy(reader);
    assert_int_equal(unlink(fixture_path), 0);
    store = open_store(other); /* a name like any */
    assert_int_equal(check_stream(store, "s"), 20);
    append(store, "s", 20, 1);
    escqrs_store_destroy(store);
}

/* A WAL that stands beside one name, while the file is used by another one, would be read into it
 * later. */
static void test_hard_link_of_a_file_in_use(void **state)
{
    (void)state;
    char other[400];
    escqrs_error error;
    snprintf(other, sizeof other, "%s/other.db", fixture_folder);
    assert_true(WIFSIGNALED(in_child(hold_and_die, NULL)));
    assert_true(exists(fixture_path, "-wal"));
    assert_int_equal(link(fixture_path, other), 0);
    refused(other, NULL, ESCQRS_IO, &error);
    refused(fixture_path, NULL, ESCQRS_IO, &error);
    assert_int_equal(unlink(other), 0);
    escqrs_store *store = open_store(fixture_path);
    assert_int_equal(check_stream(store, "s"), 100);
    escqrs_store_destroy(store);
}

/* As a connection of SQLite's that reads. */
static int lock_like_sqlite(const char *path, int command)
{
    struct flock bytes = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0x40000002, .l_len = 510};
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    return descriptor >= 0 && fcntl(descriptor, command, &bytes) == 0 ? descriptor : -1;
}

static pid_t holder_seen_by_another(const char *path)
{
    int answer[2];
    pid_t seen = -1;
    assert_int_equal(pipe(answer), 0);
    pid_t child = fork();
    if (child == 0) {
        struct flock bytes = {
            .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000002, .l_len = 510};
        int descriptor = open(path, O_RDWR | O_CLOEXEC);
        bool told = descriptor >= 0 && fcntl(descriptor, F_GETLK, &bytes) == 0;
        pid_t holder = told && bytes.l_type != F_UNLCK ? bytes.l_pid : 0;
        _exit(write(answer[1], &holder, sizeof holder) == sizeof holder ? 0 : 1);
    }
    assert_int_equal(read(answer[0], &seen, sizeof seen), sizeof seen);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(answer[0]);
    close(answer[1]);
    return seen;
}

static void link_and_fill(void *other, void *buffer, size_t size)
{
    assert_int_equal(link(fixture_path, other), 0);
    memset(buffer, 7, size);
}

/* It had one name when it was looked at, and has two once it is open. */
static void test_hard_link_of_a_file_that_is_being_opened(void **state)
{
    (void)state;
    char other[400];
    escqrs_error error;
    snprintf(other, sizeof other, "%s/other.db", fixture_folder);
    escqrs_random random = {.fill = link_and_fill, .context = other};
    refused(fixture_path, &(escqrs_store_options){.random = random}, ESCQRS_IO, &error);
    assert_non_null(strstr(error.message, "2 names"));
}

typedef struct opener {
    const char *path;
    bool writes;
    int start[2], answer[2], end[2];
} opener;

static void open_and_hold(const opener *in)
{
    char byte;
    escqrs_store *store = NULL;
    close(in->start[1]);
    close(in->end[1]);
    (void)!read(in->start[0], &byte, 1);
    escqrs_status status =
        escqrs_store_open(in->path, &(escqrs_store_options){.readonly = !in->writes}, &store, NULL);
    byte = status == ESCQRS_OK ? 'y' : 'n';
    (void)!write(in->answer[1], &byte, 1);
    (void)!read(in->end[0], &byte, 1);
    escqrs_store_destroy(store);
    test_child_end(true);
}

/* Whatever comes first: of those that have it open by two names, none writes. */
static void one_instant(const char *other, bool linked)
{
    enum { COUNT = 4 };
    opener openers[COUNT] = {{.path = fixture_path, .writes = true},
                             {.path = fixture_path},
                             {.path = other, .writes = true},
                             {.path = other}};
    pid_t children[COUNT];
    bool is_open[COUNT];
    make_store(3);
    if (linked) {
        assert_int_equal(link(fixture_path, other), 0);
    }
    int start[2], end[2], answers[COUNT][2];
    assert_int_equal(pipe(start), 0);
    assert_int_equal(pipe(end), 0);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(pipe(answers[i]), 0);
        memcpy(openers[i].start, start, sizeof start);
        memcpy(openers[i].end, end, sizeof end);
        memcpy(openers[i].answer, answers[i], sizeof answers[i]);
        children[i] = fork();
        if (children[i] == 0) {
            open_and_hold(&openers[i]);
        }
    }
    close(start[1]);
    bool same = linked || link(fixture_path, other) == 0; /* else one of them has made a store */
    for (size_t i = 0; i < COUNT; i++) {
        char byte;
        assert_int_equal(read(answers[i][0], &byte, 1), 1);
        is_open[i] = byte == 'y';
    }
    assert_false(same && ((is_open[0] && (is_open[2] || is_open[3])) ||
                          (is_open[2] && (is_open[0] || is_open[1]))));
    close(end[1]);
    for (size_t i = 0; i < COUNT; i++) {
        int status;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
        close(answers[i][0]);
        close(answers[i][1]);
    }
    close(start[0]);
    close(end[0]);
}

static void test_hard_links_at_the_same_instant(void **state)
{
    (void)state;
    char other[400];
    for (int round = 0; round < 10; round++) {
        teardown_folder(NULL);
        assert_int_equal(setup_folder(NULL), 0);
        snprintf(other, sizeof other, "%s/other.db", fixture_folder);
        one_instant(other, round % 2 == 0);
    }
}

static void test_asking_costs_no_lock(void **state)
{
    (void)state;
    char other[400];
    int ready[2];
    int end[2];
    char byte = 0;
    escqrs_error error = {0};
    snprintf(other, sizeof other, "%s/other.db", fixture_folder);
    make_store(3);
    assert_int_equal(link(fixture_path, other), 0);
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(end), 0);
    pid_t child = fork();
    if (child == 0) {
        close(end[1]);
        if (lock_like_sqlite(fixture_path, F_SETLK) < 0 || write(ready[1], "r", 1) != 1) {
            _exit(1);
        }
        _exit(read(end[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1); /* it was first, and is the one that is named */
    int mine = lock_like_sqlite(fixture_path, F_SETLK);
    assert_true(mine >= 0);
    assert_int_equal(esc_lock_check_names(other, true, &error), ESCQRS_LOCKED);
    close(end[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(holder_seen_by_another(fixture_path), getpid());
    close(mine);
    assert_int_equal(esc_lock_check_names(other, false, &error), ESCQRS_OK);
    assert_int_equal(esc_lock_check_names(other, true, &error), ESCQRS_IO);

    int nameless = lock_like_sqlite(fixture_path, F_OFD_SETLK); /* of no process */
    assert_true(nameless >= 0);
    assert_int_equal(esc_lock_check_names(other, true, &error), ESCQRS_LOCKED);
    assert_non_null(strstr(error.message, "open in another process:"));
    close(nameless);
    close(ready[0]);
    close(end[0]);
}

/* ---- read-only -------------------------------------------------------------------------------- */

/* A file that comes back under its name is the one that the store goes on with, after a restart. */
static void test_a_name_that_comes_back(void **state)
{
    (void)state;
    static const char *const suffixes[] = {"", "-lock"};
    char name[400], away[410];
    for (size_t i = 0; i < 2; i++) {
        escqrs_error error = {0};
        teardown_folder(NULL);
        assert_int_equal(setup_folder(NULL), 0);
        escqrs_store *store = open_store(fixture_path);
        append(store, "a", 0, 3);
        snprintf(name, sizeof name, "%s%s", fixture_path, suffixes[i]);
        snprintf(away, sizeof away, "%s.away", name);
        assert_int_equal(rename(name, away), 0);
        assert_int_equal(append_many(store, "b", 0, 2, NULL, &error), ESCQRS_IO);
        assert_int_equal(version_of(store, "b"), 0); /* not known to be stored */
        assert_int_equal(escqrs_store_restart(store, &error), ESCQRS_IO);
        assert_non_null(strstr(error.message, "was deleted, moved or replaced"));
        assert_int_equal(rename(away, name), 0);
        assert_int_equal(append_many(store, "b", 0, 2, NULL, &error), ESCQRS_IO);
        assert_int_equal(escqrs_store_restart(store, &error), ESCQRS_OK);
        int64_t there = version_of(store, "b"); /* it went to the file that was away */
        assert_int_equal(there, i == 0 ? 2 : 0);
        append(store, "b", there, 2);
        append(store, "c", 0, 1);
        assert_int_equal(check_all(store), 6 + there);
        assert_int_equal(check_stream(store, "b"), there + 2);
        escqrs_store_destroy(store);
        store = open_store(fixture_path);
        assert_int_equal(check_all(store), 6 + there);
        assert_int_equal(check_stream(store, "b"), there + 2);
        escqrs_store_destroy(store);
    }
}

/* The WAL's name is gone while the store has it open: what was acknowledged is in it alone. */
static void wal_goes_away(bool moved, bool commits, bool reader_stays)
{
    char wal[400], away[410];
    void *db = NULL;
    escqrs_error error = {0};
    teardown_folder(NULL);
    assert_int_equal(setup_folder(NULL), 0);
    snprintf(wal, sizeof wal, "%s-wal", fixture_path);
    snprintf(away, sizeof away, "%s.away", wal);
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 1);
    assert_int_equal(escqrs_store_reader(store, &db, NULL), ESCQRS_OK);
    if (reader_stays) {
        assert_int_equal(
            sqlite3_exec(db, "BEGIN; SELECT count(*) FROM escqrs_journal", NULL, NULL, NULL),
            SQLITE_OK);
    }
    append(store, "s", 1, 9);
    assert_int_equal(moved ? rename(wal, away) : unlink(wal), 0);
    if (commits) {
        assert_int_equal(append_many(store, "s", 10, 1, NULL, &error), ESCQRS_IO);
        assert_non_null(strstr(error.message, "-wal was deleted, moved or replaced"));
    }
    sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    escqrs_store_reader_return(store, db);
    escqrs_store_destroy(store);
    for (int turn = 0; turn < 2; turn++) {
        store = open_store(fixture_path);
        int64_t there = version_of(store, "s"); /* that of the commit that failed may be there */
        assert_true(there == 10 || (commits && there == 11));
        assert_int_equal(check_stream(store, "s"), there);
        assert_int_equal(check_all(store), there);
        escqrs_store_destroy(store);
        if (moved && turn == 0) { /* and nothing is lost when it comes back */
            assert_int_equal(rename(away, wal), 0);
        }
    }
}

static void test_a_wal_that_goes_away(void **state)
{
    (void)state;
    for (int which = 0; which < 8; which++) {
        wal_goes_away((which & 1) != 0, (which & 2) != 0, (which & 4) != 0);
    }
}

/* What a crash has left in the WAL is truncated, or the WAL replaced, before the first commit. */
static void test_a_wal_is_changed_before_the_first_commit(void **state)
{
    (void)state;
    char wal[400], copy[410];
    for (int how = 0; how < 3; how++) {
        escqrs_error error = {0};
        teardown_folder(NULL);
        assert_int_equal(setup_folder(NULL), 0);
        snprintf(wal, sizeof wal, "%s-wal", fixture_path);
        snprintf(copy, sizeof copy, "%s.copy", wal);
        escqrs_store_destroy(open_store(fixture_path));
        assert_true(WIFSIGNALED(in_child(hold_and_die, NULL)));
        escqrs_store *store = open_store(fixture_path);
        struct stat was;
        assert_int_equal(stat(wal, &was), 0);
        if (how < 2) {
            assert_int_equal(truncate(wal, how == 0 ? 0 : was.st_size / 2), 0);
        } else {
            write_file(copy, "", 0);
            assert_int_equal(rename(copy, wal), 0);
        }
        assert_int_equal(append_many(store, "t", 0, 1, NULL, &error), ESCQRS_IO);
        assert_non_null(
            strstr(error.message, how < 2 ? "truncated" : "deleted, moved or replaced"));
        escqrs_store_destroy(store);
    }
}

static void test_readonly_beside_writer(void **state)
{
    (void)state;
    escqrs_store_options readonly = {.readonly = true};
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 10);
    escqrs_store *reader = open_with(fixture_path, &readonly);
    assert_int_equal(check_stream(reader, "s"), 10);
    append(store, "s", 10, 5);
    assert_int_equal(check_stream(reader, "s"), 15);
    assert_int_equal(escqrs_store_head(reader), 15);
    escqrs_store_destroy(reader);
    append(store, "s", 15, 5);
    escqrs_store_destroy(store);
    reader = open_with(fixture_path, &readonly);
    assert_int_equal(check_stream(reader, "s"), 20);
    escqrs_store_destroy(reader);
}

static void read_as_nobody(void *context)
{
    (void)context;
    if (setgid(65534) != 0 || setuid(65534) != 0) {
        _exit(2);
    }
    escqrs_store *store = open_with(fixture_path, &(escqrs_store_options){.readonly = true});
    if (check_stream(store, "s") != 10) {
        _exit(1);
    }
    escqrs_store_destroy(store);
    escqrs_error error = {0};
    if (escqrs_store_open(fixture_path, NULL, &store, &error) != ESCQRS_READ_ONLY) {
        _exit(3);
    }
}

static void test_readonly_folder(void **state)
{
    (void)state;
    make_store(10);
    assert_int_equal(chmod(fixture_folder, 0555), 0);
    int status;
    if (geteuid() == 0) {
        chmod(fixture_path, 0444);
        status = in_child(read_as_nobody, NULL);
    } else {
        escqrs_store *store = open_with(fixture_path, &(escqrs_store_options){.readonly = true});
        status = check_stream(store, "s") == 10 ? 0 : 1;
        escqrs_store_destroy(store);
    }
    chmod(fixture_folder, 0755);
    assert_int_equal(status, 0);
}

static void test_shell_view(void **state)
{
    (void)state;
    make_store(3);
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open_v2(fixture_path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(db,
                           "SELECT position, stream, version, type, time, data FROM escqrs_events"
                           " ORDER BY position DESC",
                           -1, &statement, NULL),
        SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(statement, 0), 3);
    assert_string_equal((const char *)sqlite3_column_text(statement, 1), "s");
    assert_int_equal(sqlite3_column_int(statement, 2), 3);
    assert_string_equal((const char *)sqlite3_column_text(statement, 3), "Test");
    assert_int_equal(strlen((const char *)sqlite3_column_text(statement, 4)), 27);
    assert_string_equal((const char *)sqlite3_column_text(statement, 5), "s:3");
    sqlite3_finalize(statement);
    sqlite3_close(db);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_foreign_files, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_newer_format, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_empty_file_is_new, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_truncated, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_missing_table, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_missing_events, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_damaged_rows, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_damaged_among_streams, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_damaged_index, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_damaged_snapshot, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_lock_in_process, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_lock_in_other_process, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_fork, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_no_stale_lock, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_lock_and_a_child_on_its_way, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_hard_link, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_hard_link_of_a_file_in_use, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_hard_link_of_a_file_that_is_being_opened, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_hard_links_at_the_same_instant, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_asking_costs_no_lock, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_a_name_that_comes_back, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_a_wal_that_goes_away, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_a_wal_is_changed_before_the_first_commit, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_readonly_beside_writer, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_readonly_folder, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_shell_view, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
