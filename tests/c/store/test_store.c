/* The store through its public functions: what is written is read again, and what is refused leaves
 * nothing. */
#include "fixture.h"

static void test_append_and_read(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    append(store, "Cart/1", 0, 3);
    append(store, "Cart/2", 0, 1);
    append(store, "Cart/1", 3, 2);
    assert_int_equal(escqrs_store_head(store), 6);
    assert_int_equal(version_of(store, "Cart/1"), 5);
    assert_int_equal(version_of(store, "Cart/2"), 1);
    assert_int_equal(version_of(store, "Cart/3"), 0);
    assert_int_equal(check_stream(store, "Cart/1"), 5);
    assert_int_equal(check_stream(store, "Cart/3"), 0);
    assert_int_equal(check_all(store), 6);
    escqrs_store_destroy(store);

    store = open_store(fixture_path);
    assert_int_equal(escqrs_store_head(store), 6);
    assert_int_equal(check_stream(store, "Cart/1"), 5);
    append(store, "Cart/1", 5, 1);
    assert_int_equal(check_stream(store, "Cart/1"), 6);
    assert_int_equal(check_all(store), 7);
    escqrs_store_destroy(store);
}

static void test_memory(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    escqrs_store *other = open_store(":memory:");
    for (int i = 0; i < 2000; i++) {
        append(store, "Cart/1", i, 1);
    }
    append(store, "Cart/2", 0, 5000);
    assert_int_equal(check_stream(store, "Cart/1"), 2000);
    assert_int_equal(check_stream(store, "Cart/2"), 5000);
    assert_int_equal(check_all(store), 7000);
    assert_int_equal(escqrs_store_head(other), 0);
    escqrs_store_destroy(store);
    escqrs_store_destroy(other);
}

static void test_expected_version(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    escqrs_error error = {0};
    append(store, "a", 0, 2);
    assert_int_equal(append_many(store, "a", 1, 1, NULL, &error), ESCQRS_WRONG_VERSION);
    assert_int_equal(error.expected, 1);
    assert_int_equal(error.actual, 2);
    assert_string_equal(error.subject, "a");
    assert_int_equal(append_many(store, "b", 1, 1, NULL, &error), ESCQRS_WRONG_VERSION);
    assert_int_equal(error.actual, 0);
    assert_int_equal(append_many(store, "a", 0, 1, NULL, &error), ESCQRS_WRONG_VERSION);
    assert_int_equal(escqrs_store_head(store), 2);
    append(store, "a", 2, 1);
    append(store, "b", 0, 1);
    assert_int_equal(append_many(store, "b", ESCQRS_EXPECT_ANY, 1, NULL, &error), ESCQRS_OK);
    assert_int_equal(escqrs_store_head(store), 5);
    escqrs_store_destroy(store);
}

static void test_several_streams_are_one(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    escqrs_new_event event = {.type = type_of(store, "Test"), .data = text("x")};
    escqrs_new_event events[2] = {event, event};
    escqrs_write writes[3] = {
        {.stream = text("a"), .expected = 0, .events = events, .event_count = 2},
        {.stream = text("b"), .expected = 7, .events = events, .event_count = 1},
        {.stream = text("a"), .expected = 2, .events = events, .event_count = 1},
    };
    escqrs_commit commit = {.writes = writes, .write_count = 3};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_WRONG_VERSION);
    assert_int_equal(escqrs_store_head(store), 0);
    assert_int_equal(version_of(store, "a"), 0);
    writes[1].expected = 0;
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    assert_int_equal(commit.position, 4);
    assert_int_equal(writes[0].version, 2);
    assert_int_equal(writes[1].version, 1);
    assert_int_equal(writes[2].version, 3);
    assert_int_equal(version_of(store, "a"), 3);
    escqrs_store_destroy(store);
}

static void test_header(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    escqrs_uuid id = escqrs_uuid_new(NULL, NULL), correlation = escqrs_uuid_new(NULL, NULL);
    escqrs_slice tags[2] = {text("vip"), text("room-7")};
    escqrs_pair metadata[2] = {{text("by"), text("ann")}, {text(""), text("")}};
    escqrs_new_event events[2] = {
        {.type = type_of(store, "A"), .data = text("1"), .id = &id, .tags = tags, .tag_count = 2},
        {.type = type_of(store, "B"), .data = text("")},
    };
    escqrs_write write = {.stream = text("s"), .expected = 0, .events = events, .event_count = 2};
    escqrs_commit commit = {.writes = &write,
                            .write_count = 1,
                            .correlation_id = &correlation,
                            .metadata = metadata,
                            .metadata_count = 2};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    escqrs_cursor *cursor;
    const escqrs_recorded *r;
    size_t count;
    assert_int_equal(escqrs_store_history(store, text("s"), NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_read(cursor, 10, &r, &count, NULL), ESCQRS_OK);
    assert_int_equal(count, 2);
    assert_memory_equal(r[0].id.bytes, id.bytes, 16);
    assert_memory_equal(r[0].correlation_id.bytes, correlation.bytes, 16);
    assert_memory_equal(r[1].correlation_id.bytes, correlation.bytes, 16);
    assert_memory_equal(r[0].causation_id.bytes, r[1].causation_id.bytes, 16);
    assert_false(escqrs_uuid_is_nil(&r[0].causation_id));
    assert_int_equal(r[0].tag_count, 2);
    assert_true(escqrs_slice_equal(r[0].tags[1], text("room-7")));
    assert_int_equal(r[1].tag_count, 0);
    assert_int_equal(r[1].metadata_count, 2);
    assert_true(escqrs_slice_equal(r[1].metadata[0].value, text("ann")));
    assert_true(escqrs_slice_equal(r[1].metadata[1].key, text("")));
    assert_int_equal(r[1].data.size, 0);
    escqrs_cursor_close(cursor);
    escqrs_store_destroy(store);
}

static int64_t collect(escqrs_store *store, const char *stream, const escqrs_range *range,
                       int64_t *numbers)
{
    escqrs_cursor *cursor;
    const escqrs_recorded *r;
    int64_t count = 0;
    assert_int_equal(stream != NULL
                         ? escqrs_store_history(store, text(stream), range, &cursor, NULL)
                         : escqrs_store_events(store, range, &cursor, NULL),
                     ESCQRS_OK);
    while (escqrs_cursor_next(cursor, &r, NULL) == ESCQRS_OK) {
        numbers[count++] = stream != NULL ? r->version : r->position;
    }
    escqrs_cursor_close(cursor);
    return count;
}

static void test_ranges(void **state)
{
    (void)state;
    static int64_t numbers[3000];
    escqrs_store *store = open_store(":memory:");
    append(store, "a", 0, 1300);
    append(store, "b", 0, 1);
    for (int by_position = 0; by_position < 2; by_position++) {
        const char *stream = by_position ? NULL : "a";
        int64_t all = by_position ? 1301 : 1300;
        assert_int_equal(collect(store, stream, &(escqrs_range){0}, numbers), all);
        assert_int_equal(collect(store, stream, &(escqrs_range){.reverse = true}, numbers), all);
        assert_int_equal(numbers[0], all);
        assert_int_equal(numbers[all - 1], 1);
        for (int64_t i = 1; i < all; i++) {
            assert_int_equal(numbers[i], numbers[i - 1] - 1);
        }
        escqrs_range some = {.after = 100, .upto = 900, .limit = 700};
        assert_int_equal(collect(store, stream, &some, numbers), 700);
        assert_int_equal(numbers[0], 101);
        assert_int_equal(numbers[699], 800);
        some.reverse = true;
        assert_int_equal(collect(store, stream, &some, numbers), 700);
        assert_int_equal(numbers[0], 900);
        assert_int_equal(numbers[699], 201);
        assert_int_equal(collect(store, stream, &(escqrs_range){.after = all}, numbers), 0);
        assert_int_equal(collect(store, stream, &(escqrs_range){.after = all + 9}, numbers), 0);
        assert_int_equal(collect(store, stream, &(escqrs_range){.upto = all + 9}, numbers), all);
    }
    escqrs_cursor *cursor;
    assert_int_equal(escqrs_store_events(store, &(escqrs_range){.after = -1}, &cursor, NULL),
                     ESCQRS_INVALID);
    escqrs_store_destroy(store);
}

static void test_skip(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    append(store, "s", 0, 700);
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    assert_int_equal(escqrs_store_history(store, text("s"), NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_upto(cursor), 700);
    append(store, "s", 700, 1);
    escqrs_cursor_skip(cursor, 650);
    escqrs_cursor_skip(cursor, 10); /* behind it already */
    for (int64_t version = 651; version <= 700; version++) {
        assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
        assert_int_equal(recorded->version, version);
    }
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_DONE);
    escqrs_cursor_close(cursor);
    assert_int_equal(escqrs_store_history(store, text("none"), NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_upto(cursor), 0);
    escqrs_cursor_skip(cursor, 5);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_DONE);
    escqrs_cursor_close(cursor);
    escqrs_store_destroy(store);
}

static void test_match(void **state)
{
    (void)state;
    static int64_t numbers[200];
    escqrs_store *store = open_store(":memory:");
    escqrs_slice tag = text("red");
    for (int i = 0; i < 100; i++) {
        escqrs_new_event event = {.type = type_of(store, i % 10 == 0 ? "Ten" : "Other"),
                                  .data = text("x"),
                                  .tags = &tag,
                                  .tag_count = i % 4 == 0};
        escqrs_write write = {
            .stream = text("s"), .expected = i, .events = &event, .event_count = 1};
        escqrs_commit commit = {.writes = &write, .write_count = 1};
        assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    }
    escqrs_slice ten = text("Ten");
    escqrs_match match[2] = {{.types = &ten, .type_count = 1}, {.tags = &tag, .tag_count = 1}};
    escqrs_range range = {.matches = match, .match_count = 1};
    assert_int_equal(collect(store, NULL, &range, numbers), 10);
    assert_int_equal(numbers[1], 11);
    assert_int_equal(collect(store, "s", &range, numbers), 10);
    range.match_count = 2;
    assert_int_equal(collect(store, NULL, &range, numbers), 30);
    match[0].tags = &tag;
    match[0].tag_count = 1;
    range.match_count = 1;
    range.reverse = true;
    assert_int_equal(collect(store, NULL, &range, numbers), 5);
    assert_int_equal(numbers[0], 81);
    range.limit = 2;
    assert_int_equal(collect(store, "s", &range, numbers), 2);
    escqrs_store_destroy(store);
}

static escqrs_status commit_key(escqrs_store *store, const char *scope, const char *key,
                                const char *data, escqrs_commit *commit, escqrs_write *write)
{
    escqrs_new_event event = {.type = type_of(store, "Test"), .data = text(data)};
    *write = (escqrs_write){
        .stream = text("keyed"), .expected = ESCQRS_EXPECT_ANY, .events = &event, .event_count = 1};
    *commit = (escqrs_commit){.writes = write,
                              .write_count = 1,
                              .key = text(key),
                              .key_scope = text(scope),
                              .reply = text("the reply")};
    escqrs_status status = escqrs_store_commit(store, commit, NULL);
    return status;
}

static void test_keys(void **state)
{
    (void)state;
    escqrs_commit commit;
    escqrs_write write;
    for (int round = 0; round < 2; round++) {
        escqrs_store *store = open_store(fixture_path);
        assert_int_equal(commit_key(store, "", "k1", "one", &commit, &write), ESCQRS_OK);
        assert_int_equal(commit.repeated, round == 1);
        assert_int_equal(commit.position, 1);
        assert_int_equal(write.version, 1);
        assert_int_equal(commit_key(store, "", "k1", "one", &commit, &write), ESCQRS_OK);
        assert_true(commit.repeated);
        assert_int_equal(commit.position, 1);
        assert_int_equal(write.version, 1);
        assert_int_equal(commit_key(store, "", "k1", "two", &commit, &write), ESCQRS_KEY_REUSED);
        assert_int_equal(commit_key(store, "scope", "k1", "two", &commit, &write), ESCQRS_OK);
        assert_int_equal(commit.repeated, round == 1);
        assert_int_equal(escqrs_store_head(store), 2);
        void *reply = NULL;
        size_t size = 0;
        int64_t position = 0;
        assert_int_equal(
            escqrs_store_key(store, text("scope"), text("k1"), &reply, &size, &position, NULL),
            ESCQRS_OK);
        assert_int_equal(position, 2);
        assert_int_equal(size, 9);
        assert_memory_equal(reply, "the reply", 9);
        escqrs_free(reply);
        assert_int_equal(
            escqrs_store_key(store, text("scope"), text("k2"), &reply, &size, &position, NULL),
            ESCQRS_DONE);
        escqrs_store_destroy(store);
    }
}

static escqrs_status set_checkpoint(escqrs_store *store, const char *name, int64_t position,
                                    escqrs_error *error)
{
    escqrs_commit commit = {.checkpoint = text(name), .checkpoint_position = position};
    return escqrs_store_commit(store, &commit, error);
}

static void test_checkpoints(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    escqrs_error error = {0};
    int64_t position = 0;
    assert_int_equal(escqrs_store_checkpoint(store, text("billing"), &position, NULL), ESCQRS_OK);
    assert_int_equal(position, -1);
    assert_int_equal(set_checkpoint(store, "billing", 5, &error), ESCQRS_OK);
    assert_int_equal(set_checkpoint(store, "billing", 5, &error), ESCQRS_CHECKPOINT_BEHIND);
    assert_int_equal(error.actual, 5);
    assert_int_equal(error.expected, 5);
    assert_string_equal(error.subject, "billing");
    assert_int_equal(set_checkpoint(store, "billing", 4, &error), ESCQRS_CHECKPOINT_BEHIND);
    assert_int_equal(set_checkpoint(store, "billing", 6, &error), ESCQRS_OK);
    escqrs_commit nothing = {0};
    assert_int_equal(escqrs_store_commit(store, &nothing, NULL), ESCQRS_OK);
    assert_int_equal(nothing.position, 0);
    escqrs_store_destroy(store);
    store = open_store(fixture_path);
    assert_int_equal(escqrs_store_checkpoint(store, text("billing"), &position, NULL), ESCQRS_OK);
    assert_int_equal(position, 6);
    escqrs_store_destroy(store);
}

static escqrs_status save_snapshot(escqrs_store *store, int64_t version, const char *data)
{
    escqrs_new_snapshot snapshot = {.stream = text("s"),
                                    .version = version,
                                    .type = type_of(store, "State"),
                                    .data = text(data)};
    escqrs_commit commit = {.snapshot = &snapshot};
    return escqrs_store_commit(store, &commit, NULL);
}

static void test_snapshots(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    escqrs_snapshot found;
    assert_int_equal(escqrs_store_snapshot(store, text("s"), 0, &found, NULL), ESCQRS_DONE);
    assert_int_equal(save_snapshot(store, 1, "too early"), ESCQRS_INVALID);
    append(store, "s", 0, 10);
    assert_int_equal(escqrs_store_snapshot(store, text("s"), 0, &found, NULL), ESCQRS_DONE);
    assert_int_equal(save_snapshot(store, 11, "beyond"), ESCQRS_INVALID);
    assert_int_equal(save_snapshot(store, 4, "four"), ESCQRS_OK);
    assert_int_equal(save_snapshot(store, 9, "nine"), ESCQRS_OK);
    assert_int_equal(save_snapshot(store, 9, "NINE"), ESCQRS_OK);
    escqrs_store_destroy(store);
    store = open_store(fixture_path);
    assert_int_equal(escqrs_store_snapshot(store, text("s"), 0, &found, NULL), ESCQRS_OK);
    assert_int_equal(found.version, 9);
    assert_int_equal(found.size, 4);
    assert_memory_equal(found.data, "NINE", 4);
    assert_true(escqrs_slice_equal(escqrs_type_name(found.type), text("State")));
    escqrs_free(found.data);
    assert_int_equal(escqrs_store_snapshot(store, text("s"), 8, &found, NULL), ESCQRS_OK);
    assert_int_equal(found.version, 4);
    escqrs_free(found.data);
    assert_int_equal(escqrs_store_snapshot(store, text("s"), 3, &found, NULL), ESCQRS_DONE);
    assert_int_equal(escqrs_store_delete_snapshots(store, text("s"), 4, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_snapshot(store, text("s"), 8, &found, NULL), ESCQRS_DONE);
    assert_int_equal(escqrs_store_delete_snapshots(store, text("s"), 0, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_snapshot(store, text("s"), 0, &found, NULL), ESCQRS_DONE);
    escqrs_store_destroy(store);
}

static void test_limits(void **state)
{
    (void)state;
    escqrs_store *store = open_with(":memory:", &(escqrs_store_options){.event_bytes_max = 1000});
    char *big = calloc(1, 2000);
    memset(big, 'x', 1999);
    escqrs_new_event event = {.type = type_of(store, "Test"), .data = {big, 1001}};
    escqrs_write write = {.stream = text("s"), .expected = 0, .events = &event, .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    escqrs_error error = {0};
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_TOO_LARGE);
    event.data.size = 1000;
    write.stream = (escqrs_slice){big, 2000};
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_INVALID);
    write.stream = (escqrs_slice){"a\0b", 3};
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_INVALID);
    write.stream = (escqrs_slice){"\xff", 1};
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_INVALID);
    write.stream = (escqrs_slice){"", 0};
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_INVALID);
    write.stream = (escqrs_slice){big, 1999};
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_OK);
    escqrs_new_event *many = calloc(ESCQRS_COMMIT_EVENTS_MAX + 1, sizeof *many);
    for (size_t i = 0; i <= ESCQRS_COMMIT_EVENTS_MAX; i++) {
        many[i] = (escqrs_new_event){.type = event.type, .data = text("x")};
    }
    write = (escqrs_write){.stream = text("many"),
                           .expected = 0,
                           .events = many,
                           .event_count = ESCQRS_COMMIT_EVENTS_MAX + 1};
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_TOO_LARGE);
    write.event_count--;
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_OK);
    assert_int_equal(escqrs_store_head(store), ESCQRS_COMMIT_EVENTS_MAX + 1);
    free(many);
    free(big);
    escqrs_store_destroy(store);
}

static void test_large_event(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    size_t size = 16u << 20;
    uint8_t *big = malloc(size);
    for (size_t i = 0; i < size; i++) {
        big[i] = (uint8_t)(i * 7 + i / 1000);
    }
    escqrs_new_event events[3];
    for (int i = 0; i < 3; i++) {
        events[i] = (escqrs_new_event){.type = type_of(store, "Test"), .data = {big, size}};
    }
    escqrs_write write = {.stream = text("s"), .expected = 0, .events = events, .event_count = 3};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    escqrs_store_destroy(store);
    store = open_store(fixture_path);
    escqrs_cursor *cursor;
    const escqrs_recorded *r;
    int count = 0;
    assert_int_equal(escqrs_store_events(store, NULL, &cursor, NULL), ESCQRS_OK);
    while (escqrs_cursor_next(cursor, &r, NULL) == ESCQRS_OK) {
        assert_int_equal(r->data.size, size);
        assert_memory_equal(r->data.data, big, size);
        count++;
    }
    assert_int_equal(count, 3);
    escqrs_cursor_close(cursor);
    escqrs_store_destroy(store);
    free(big);
}

static bool count_types(void *context, escqrs_type *type, bool used)
{
    int *counts = context;
    (void)type;
    counts[used]++;
    return true;
}

static void test_types(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    escqrs_type *a, *b, *c;
    assert_int_equal(escqrs_store_type(store, text("T"), text("v1"), &a, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_type(store, text("T"), text("v2"), &b, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_type(store, text("T"), text("v1"), &c, NULL), ESCQRS_OK);
    assert_ptr_equal(a, c);
    assert_ptr_not_equal(a, b);
    assert_int_equal(escqrs_store_type(store, text(""), text(""), &c, NULL), ESCQRS_INVALID);
    escqrs_new_event event = {.type = b, .data = text("x")};
    escqrs_write write = {.stream = text("s"), .expected = 0, .events = &event, .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    int counts[2] = {0, 0};
    assert_int_equal(escqrs_store_types(store, count_types, counts, NULL), ESCQRS_OK);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[1], 1);
    int64_t id = escqrs_type_id(b);
    escqrs_store_destroy(store);
    store = open_store(fixture_path);
    assert_int_equal(escqrs_store_type(store, text("T"), text("v2"), &b, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_type_id(b), id);
    escqrs_store_destroy(store);
}

static int64_t fixed_now = 1700000000000000;

static int64_t fixed_clock(void *context)
{
    (void)context;
    return fixed_now;
}

static void test_time_never_goes_back(void **state)
{
    (void)state;
    escqrs_store_options options = {.clock = {.now_us = fixed_clock}};
    escqrs_store *store = open_with(fixture_path, &options);
    append(store, "s", 0, 1);
    fixed_now -= 1000000;
    append(store, "s", 1, 1);
    escqrs_store_destroy(store);
    store = open_with(fixture_path, &options);
    append(store, "s", 2, 1);
    escqrs_cursor *cursor;
    const escqrs_recorded *r;
    assert_int_equal(escqrs_store_history(store, text("s"), NULL, &cursor, NULL), ESCQRS_OK);
    while (escqrs_cursor_next(cursor, &r, NULL) == ESCQRS_OK) {
        assert_int_equal(r->time_us, 1700000000000000);
    }
    escqrs_cursor_close(cursor);
    assert_int_equal(check_all(store), 3);
    escqrs_store_destroy(store);
}

static void test_closed(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    append(store, "s", 0, 1000);
    escqrs_cursor *cursor;
    const escqrs_recorded *r;
    assert_int_equal(escqrs_store_history(store, text("s"), NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &r, NULL), ESCQRS_OK);
    escqrs_store_close(store);
    escqrs_store_close(store);
    assert_int_equal(escqrs_cursor_next(cursor, &r, NULL), ESCQRS_CLOSED);
    escqrs_commit commit = {0};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_CLOSED);
    int64_t version;
    assert_int_equal(escqrs_store_version(store, text("s"), &version, NULL), ESCQRS_CLOSED);
    assert_int_equal(escqrs_store_head(store), 1000);
    escqrs_store_destroy(store);
    escqrs_cursor_close(cursor);
    assert_false(exists(fixture_path, "-wal"));
    assert_true(exists(fixture_path, "-lock"));
}

/* Commits that would leave something behind that does not read, or that means nothing. */
static void test_bad_commits(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:");
    escqrs_type *type = type_of(store, "Test");
    char long_text[300];
    memset(long_text, 'x', sizeof long_text);
    escqrs_pair pair = {.key = text("by"), .value = text("\xff")};
    escqrs_origin origin = {.metadata = &pair, .metadata_count = 1};
    escqrs_new_snapshot snapshot = {.stream = text("a"), .version = 1, .type = type, .keep = -1};
    escqrs_new_event event = {.type = type, .data = text("x")};
    escqrs_write write = {.stream = text("a"), .events = &event, .event_count = 1};
    escqrs_commit bad[] = {
        {.correlation_text = {long_text, sizeof long_text}},
        {.correlation_text = text("\xff")},
        {.metadata = &pair, .metadata_count = 1},
        {.snapshot = &snapshot},
    };
    for (size_t i = 0; i <= sizeof bad / sizeof bad[0]; i++) {
        escqrs_commit commit = {0};
        if (i < sizeof bad / sizeof bad[0]) {
            commit = bad[i];
        } else {
            event.origin = &origin;
        }
        commit.writes = &write;
        commit.write_count = 1;
        assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_INVALID);
    }
    escqrs_type *other;
    assert_int_equal(escqrs_store_type(store, text("\xff"), text(""), &other, NULL),
                     ESCQRS_INVALID);
    assert_int_equal(escqrs_store_head(store), 0);
    escqrs_store_destroy(store);
}

static void test_bad_arguments(void **state)
{
    (void)state;
    escqrs_store *store = open_store(":memory:"), *copy = NULL;
    escqrs_snapshot found;
    escqrs_verification verified;
    escqrs_erasure twice[2] = {{.stream = text("a"), .upto = 1, .force = true},
                               {.stream = text("a"), .close = true}};
    append(store, "a", 0, 2);
    assert_int_equal(escqrs_store_snapshot(store, text("a"), -1, &found, NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_store_erase(store, twice, 2, NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_store_backup(store, NULL, NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_store_backup(store, "", NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_store_clone(store, NULL, NULL, &copy, NULL), ESCQRS_INVALID);
    assert_int_equal(escqrs_store_verify(store, NULL, &verified, NULL), ESCQRS_OK);
    assert_int_equal(verified.events, 2);
    assert_int_equal(check_all(store), 2);
    escqrs_store_destroy(store);
    escqrs_error error;
    refused(":memory:", &(escqrs_store_options){.durability = (escqrs_durability)7}, ESCQRS_INVALID,
            &error);
    escqrs_store_close(NULL);
    escqrs_store_destroy(NULL);
    escqrs_cursor_close(NULL);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_append_and_read, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_memory, setup_folder, teardown_folder),
        cmocka_unit_test(test_expected_version),
        cmocka_unit_test(test_several_streams_are_one),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_match),
        cmocka_unit_test_setup_teardown(test_keys, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_checkpoints, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_snapshots, setup_folder, teardown_folder),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_bad_commits),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test_setup_teardown(test_large_event, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_types, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_time_never_goes_back, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_closed, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
