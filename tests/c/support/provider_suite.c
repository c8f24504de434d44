/* See provider_suite.h. Each test opens a provider of its own. */
#include "support/provider_suite.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/test.h"

#define WRITERS 3
#define COMMITS_EACH 40
#define MANY 1500 /* events: several pages */

static escqrs_slice text(const char *s)
{
    return escqrs_slice_of(s);
}

static escqrs_store *open_with(void **state, bool fresh, const escqrs_store_options *options)
{
    const provider_maker *maker = *state;
    escqrs_store *store = maker->open(maker->context, fresh, options);
    assert_non_null(store);
    return store;
}

static escqrs_store *open_fresh(void **state)
{
    return open_with(state, true, NULL);
}

/* The same provider, its store closed and opened; NULL where it forgets. */
static escqrs_store *open_again(void **state, escqrs_store *store)
{
    escqrs_store_destroy(store);
    return ((const provider_maker *)*state)->forgets ? NULL : open_with(state, false, NULL);
}

static escqrs_type *type_of(escqrs_store *store, const char *name)
{
    escqrs_type *type = NULL;
    assert_int_equal(escqrs_store_type(store, text(name), text(""), &type, NULL), ESCQRS_OK);
    return type;
}

static escqrs_new_event event(escqrs_store *store, const char *type, const char *data)
{
    return (escqrs_new_event){.type = type_of(store, type), .data = text(data)};
}

/* A commit of one event to one stream, with room for what a test adds. */
typedef struct one {
    escqrs_new_event event;
    escqrs_write write;
    escqrs_commit commit;
    escqrs_error error;
} one;

static void one_init(one *self, escqrs_store *store, const char *stream, int64_t expected,
                     const char *data)
{
    memset(self, 0, sizeof *self);
    self->event = event(store, "Test", data);
    self->write = (escqrs_write){
        .stream = text(stream), .expected = expected, .events = &self->event, .event_count = 1};
    self->commit = (escqrs_commit){.writes = &self->write, .write_count = 1};
}

static escqrs_status one_commit(one *self, escqrs_store *store)
{
    memset(&self->error, 0, sizeof self->error);
    return escqrs_store_commit(store, &self->commit, &self->error);
}

static void append(escqrs_store *store, const char *stream, int64_t expected, const char *data)
{
    one added;
    one_init(&added, store, stream, expected, data);
    if (one_commit(&added, store) != ESCQRS_OK) {
        fail_msg("append: %s", added.error.message);
    }
}

static int64_t version_of(escqrs_store *store, const char *stream)
{
    int64_t version = -1;
    assert_int_equal(escqrs_store_version(store, text(stream), &version, NULL), ESCQRS_OK);
    return version;
}

static int64_t checkpoint_of(escqrs_store *store, const char *name)
{
    int64_t position = -2;
    assert_int_equal(escqrs_store_checkpoint(store, text(name), &position, NULL), ESCQRS_OK);
    return position;
}

/* The data of what is read, with a blank behind each; `stream` NULL: of the store. */
static char *read_texts(escqrs_store *store, const char *stream, const escqrs_range *range)
{
    static char found[4096];
    escqrs_cursor *cursor = NULL;
    const escqrs_recorded *recorded;
    escqrs_error error = {0};
    size_t size = 0;
    found[0] = '\0';
    escqrs_status status = stream == NULL
                               ? escqrs_store_events(store, range, &cursor, &error)
                               : escqrs_store_history(store, text(stream), range, &cursor, &error);
    while (status == ESCQRS_OK &&
           (status = escqrs_cursor_next(cursor, &recorded, &error)) == ESCQRS_OK) {
        assert_true(size + recorded->data.size + 2 < sizeof found);
        memcpy(found + size, recorded->data.data, recorded->data.size);
        size += recorded->data.size;
        found[size++] = ' ';
        found[size] = '\0';
    }
    if (status != ESCQRS_DONE) {
        fail_msg("reading: %s: %s", escqrs_status_name(status), error.message);
    }
    escqrs_cursor_close(cursor);
    return found;
}

/* ---- append ----------------------------------------------------------------------------------- */

static void test_append(void **state)
{
    escqrs_store *store = open_fresh(state);
    assert_int_equal(escqrs_store_head(store), 0);
    assert_int_equal(version_of(store, "a"), 0);
    append(store, "a", 0, "a1");
    append(store, "a", 1, "a2");
    append(store, "b", ESCQRS_EXPECT_ANY, "b1");
    assert_int_equal(escqrs_store_head(store), 3);
    assert_int_equal(version_of(store, "a"), 2);
    assert_string_equal(read_texts(store, "a", NULL), "a1 a2 ");
    assert_string_equal(read_texts(store, NULL, NULL), "a1 a2 b1 ");
    assert_string_equal(read_texts(store, "none", NULL), "");
    store = open_again(state, store);
    if (store != NULL) {
        assert_int_equal(escqrs_store_head(store), 3);
        assert_string_equal(read_texts(store, NULL, NULL), "a1 a2 b1 ");
        append(store, "a", 2, "a3");
        assert_string_equal(read_texts(store, "a", NULL), "a1 a2 a3 ");
    }
    escqrs_store_destroy(store);
}

static void test_several_streams_are_one(void **state)
{
    escqrs_store *store = open_fresh(state);
    append(store, "b", 0, "b1");
    escqrs_new_event events[3] = {event(store, "Test", "a1"), event(store, "Test", "a2"),
                                  event(store, "Test", "b2")};
    escqrs_write writes[2] = {
        {.stream = text("a"), .expected = 0, .events = events, .event_count = 2},
        {.stream = text("b"), .expected = 0, .events = events + 2, .event_count = 1}};
    escqrs_commit commit = {.writes = writes, .write_count = 2};
    escqrs_error error = {0};
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_WRONG_VERSION);
    assert_int_equal(error.expected, 0);
    assert_int_equal(error.actual, 1);
    assert_string_equal(error.subject, "b");
    assert_int_equal(escqrs_store_head(store), 1);
    assert_int_equal(version_of(store, "a"), 0);
    writes[1].expected = 1;
    assert_int_equal(escqrs_store_commit(store, &commit, &error), ESCQRS_OK);
    assert_int_equal(commit.position, 4);
    assert_int_equal(writes[0].version, 2);
    assert_int_equal(writes[1].version, 2);
    assert_string_equal(read_texts(store, NULL, NULL), "b1 a1 a2 b2 ");
    escqrs_store_destroy(store);
}

static void test_one_stream_twice_in_a_commit(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_new_event events[2] = {event(store, "Test", "a1"), event(store, "Test", "a2")};
    escqrs_write writes[2] = {
        {.stream = text("a"), .expected = 0, .events = events, .event_count = 1},
        {.stream = text("a"), .expected = 1, .events = events + 1, .event_count = 1}};
    escqrs_commit commit = {.writes = writes, .write_count = 2};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    assert_string_equal(read_texts(store, "a", NULL), "a1 a2 ");
    writes[0].expected = 2;
    writes[1].expected = 2;
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_WRONG_VERSION);
    assert_int_equal(version_of(store, "a"), 2);
    escqrs_store_destroy(store);
}

static void test_nothing(void **state)
{
    escqrs_store *store = open_fresh(state);
    append(store, "a", 0, "a1");
    escqrs_commit commit = {.write_count = 0};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    assert_int_equal(commit.position, 1);
    assert_int_equal(escqrs_store_head(store), 1);
    escqrs_store_destroy(store);
}

static void done(escqrs_commit *commit)
{
    (void)commit; /* the test looks at it after the pump */
}

/* Of a batch, exactly those fail that have to. */
static void test_batch(void **state)
{
    escqrs_store *store = open_with(state, true, &(escqrs_store_options){.manual = true});
    one commits[4];
    static const int64_t expected[4] = {0, 1, 1, 2};
    static const char *const data[4] = {"a1", "a2", "late", "a3"};
    for (size_t i = 0; i < 4; i++) {
        one_init(&commits[i], store, "a", expected[i], data[i]);
        commits[i].commit.error = &commits[i].error;
        commits[i].commit.done = done;
        assert_int_equal(escqrs_store_submit(store, &commits[i].commit, NULL), ESCQRS_OK);
    }
    assert_int_equal(escqrs_store_head(store), 0);
    assert_int_equal(escqrs_store_pump(store), 4);
    assert_int_equal(commits[0].commit.status, ESCQRS_OK);
    assert_int_equal(commits[1].commit.status, ESCQRS_OK);
    assert_int_equal(commits[2].commit.status, ESCQRS_WRONG_VERSION);
    assert_int_equal(commits[2].error.actual, 2);
    assert_int_equal(commits[3].commit.status, ESCQRS_OK);
    assert_int_equal(commits[3].commit.position, 3);
    assert_string_equal(read_texts(store, "a", NULL), "a1 a2 a3 ");
    escqrs_store_destroy(store);
}

static void test_condition(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_slice room = text("room-7"), booked = text("Booked");
    escqrs_match match = {.types = &booked, .type_count = 1, .tags = &room, .tag_count = 1};
    escqrs_condition condition = {.matches = &match, .match_count = 1, .after = 0};
    one added;
    one_init(&added, store, "a", 0, "a1");
    added.event.tags = &room;
    added.event.tag_count = 1;
    added.commit.condition = &condition;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK); /* of another type */
    added.event.type = type_of(store, "Booked");
    added.write.expected = 1;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    added.write.expected = 2;
    assert_int_equal(one_commit(&added, store), ESCQRS_CONDITION_FAILED);
    assert_int_equal(added.error.position, 2);
    condition.after = 2;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    condition = (escqrs_condition){.after = 3}; /* no event at all */
    added.write.expected = 3;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    assert_int_equal(one_commit(&added, store), ESCQRS_WRONG_VERSION);
    added.write.expected = 4;
    assert_int_equal(one_commit(&added, store), ESCQRS_CONDITION_FAILED);
    assert_int_equal(escqrs_store_head(store), 4);
    escqrs_store_destroy(store);
}

static void test_condition_sees_its_batch(void **state)
{
    escqrs_store *store = open_with(state, true, &(escqrs_store_options){.manual = true});
    escqrs_condition condition = {.after = 0};
    one first, second;
    one_init(&first, store, "a", 0, "a1");
    one_init(&second, store, "b", 0, "b1");
    first.commit.condition = second.commit.condition = &condition;
    first.commit.done = second.commit.done = done;
    second.commit.error = &second.error;
    assert_int_equal(escqrs_store_submit(store, &first.commit, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_submit(store, &second.commit, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_pump(store), 2);
    assert_int_equal(first.commit.status, ESCQRS_OK);
    assert_int_equal(second.commit.status, ESCQRS_CONDITION_FAILED);
    assert_int_equal(second.error.position, 1);
    escqrs_store_destroy(store);
}

static void check_repeated(escqrs_store *store)
{
    void *reply = NULL;
    size_t size = 0;
    int64_t position = 0;
    one again;
    one_init(&again, store, "a", 0, "a1");
    again.commit.key = text("k");
    assert_int_equal(one_commit(&again, store), ESCQRS_OK);
    assert_true(again.commit.repeated);
    assert_int_equal(again.commit.position, 1);
    assert_int_equal(again.write.version, 1);
    again.event.data = text("other");
    assert_int_equal(one_commit(&again, store), ESCQRS_KEY_REUSED);
    assert_int_equal(escqrs_store_key(store, text(""), text("k"), &reply, &size, &position, NULL),
                     ESCQRS_OK);
    assert_int_equal(position, 1);
    assert_true(escqrs_slice_equal((escqrs_slice){reply, size}, text("well")));
    escqrs_free(reply);
}

static void test_keys(void **state)
{
    escqrs_store *store = open_fresh(state);
    void *reply;
    size_t size;
    int64_t position;
    assert_int_equal(escqrs_store_key(store, text(""), text("k"), &reply, &size, &position, NULL),
                     ESCQRS_DONE);
    one added;
    one_init(&added, store, "a", 0, "a1");
    added.commit.key = text("k");
    added.commit.reply = text("well");
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    assert_false(added.commit.repeated);
    append(store, "a", 1, "a2");
    check_repeated(store);
    one scoped; /* the same name within another */
    one_init(&scoped, store, "b", 0, "b1");
    scoped.commit.key = text("k");
    scoped.commit.key_scope = text("b");
    assert_int_equal(one_commit(&scoped, store), ESCQRS_OK);
    assert_false(scoped.commit.repeated);
    assert_int_equal(escqrs_store_head(store), 3);
    store = open_again(state, store);
    if (store != NULL) {
        check_repeated(store);
        assert_int_equal(escqrs_store_head(store), 3);
    }
    escqrs_store_destroy(store);
}

static void test_checkpoints(void **state)
{
    escqrs_store *store = open_fresh(state);
    assert_int_equal(checkpoint_of(store, "billing"), -1);
    one added;
    one_init(&added, store, "a", 0, "a1");
    added.commit.checkpoint = text("billing");
    added.commit.checkpoint_position = 5;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    assert_int_equal(checkpoint_of(store, "billing"), 5);
    added.write.expected = 1;
    assert_int_equal(one_commit(&added, store), ESCQRS_CHECKPOINT_BEHIND);
    assert_int_equal(added.error.expected, 5);
    assert_int_equal(added.error.actual, 5);
    assert_string_equal(added.error.subject, "billing");
    assert_int_equal(escqrs_store_head(store), 1);
    escqrs_commit alone = {.checkpoint = text("billing"), .checkpoint_position = 7};
    assert_int_equal(escqrs_store_commit(store, &alone, NULL), ESCQRS_OK);
    store = open_again(state, store);
    if (store != NULL) {
        assert_int_equal(checkpoint_of(store, "billing"), 7);
        assert_int_equal(checkpoint_of(store, "other"), -1);
    }
    escqrs_store_destroy(store);
}

static void test_ids_are_unique(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_uuid id = escqrs_uuid_new(NULL, NULL);
    one added;
    one_init(&added, store, "a", ESCQRS_EXPECT_ANY, "a1");
    added.event.id = &id;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    assert_int_equal(one_commit(&added, store), ESCQRS_KEY_REUSED);
    added.event.id = NULL;
    added.event.id_text = text("order 7");
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    assert_int_equal(one_commit(&added, store), ESCQRS_KEY_REUSED);
    assert_int_equal(escqrs_store_head(store), 2);
    escqrs_store_destroy(store);
}

/* ---- what is read is what was written --------------------------------------------------------- */

static void check_recorded(escqrs_store *store, const escqrs_uuid *id, const escqrs_uuid *cause)
{
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    assert_int_equal(escqrs_store_events(store, NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
    assert_int_equal(recorded->position, 1);
    assert_int_equal(recorded->version, 1);
    assert_true(recorded->time_us > 0);
    assert_true(escqrs_slice_equal(recorded->stream, text("Cart/\xc3\xa4")));
    assert_true(escqrs_slice_equal(escqrs_type_name(recorded->type), text("Added")));
    assert_true(escqrs_slice_equal(recorded->data, (escqrs_slice){"a\0b", 3}));
    assert_memory_equal(recorded->id.bytes, id->bytes, sizeof id->bytes);
    assert_memory_equal(recorded->causation_id.bytes, cause->bytes, sizeof cause->bytes);
    assert_int_equal(recorded->causation_text.size, 0);
    assert_true(escqrs_slice_equal(recorded->correlation_text, text("request 8")));
    assert_int_equal(recorded->tag_count, 2);
    assert_true(escqrs_slice_equal(recorded->tags[0], text("vip")));
    assert_true(escqrs_slice_equal(recorded->tags[1], text("new")));
    assert_int_equal(recorded->metadata_count, 1);
    assert_true(escqrs_slice_equal(recorded->metadata[0].key, text("by")));
    assert_true(escqrs_slice_equal(recorded->metadata[0].value, text("ann")));
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
    assert_int_equal(recorded->data.size, 0);
    assert_false(escqrs_uuid_is_nil(&recorded->id));
    assert_false(escqrs_uuid_is_nil(&recorded->causation_id));
    assert_memory_equal(recorded->correlation_id.bytes, recorded->causation_id.bytes, 16);
    assert_int_equal(recorded->tag_count + recorded->metadata_count, 0);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_DONE);
    escqrs_cursor_close(cursor);
}

static void test_recorded(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_uuid id = escqrs_uuid_new(NULL, NULL), cause = escqrs_uuid_new(NULL, NULL);
    escqrs_slice tags[2] = {text("vip"), text("new")};
    escqrs_pair metadata = {text("by"), text("ann")};
    one added;
    one_init(&added, store, "Cart/\xc3\xa4", 0, "");
    added.event = (escqrs_new_event){.type = type_of(store, "Added"),
                                     .data = {"a\0b", 3},
                                     .id = &id,
                                     .tags = tags,
                                     .tag_count = 2};
    added.commit.metadata = &metadata;
    added.commit.metadata_count = 1;
    added.commit.correlation_text = text("request 8");
    added.commit.causation_id = &cause;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    append(store, "b", 0, "");
    check_recorded(store, &id, &cause);
    store = open_again(state, store);
    if (store != NULL) {
        check_recorded(store, &id, &cause);
    }
    escqrs_store_destroy(store);
}

static void test_times(void **state)
{
    escqrs_store *store = open_fresh(state);
    one added;
    one_init(&added, store, "a", ESCQRS_EXPECT_ANY, "a");
    added.event.time_us = 1000;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    added.event.time_us = 999;
    assert_int_equal(one_commit(&added, store), ESCQRS_INVALID);
    added.event.time_us = 1000;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    added.event.time_us = 9000000000000000; /* beyond any clock: it stands there */
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    added.event.time_us = 0;
    assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    static const int64_t times[4] = {1000, 1000, 9000000000000000, 9000000000000000};
    assert_int_equal(escqrs_store_history(store, text("a"), NULL, &cursor, NULL), ESCQRS_OK);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
        assert_int_equal(recorded->time_us, times[i]);
    }
    escqrs_cursor_close(cursor);
    escqrs_store_destroy(store);
}

/* ---- ranges and matches ----------------------------------------------------------------------- */

static void test_ranges(void **state)
{
    escqrs_store *store = open_fresh(state);
    char data[16];
    for (int i = 0; i < 6; i++) {
        snprintf(data, sizeof data, "%c%d", i % 2 == 0 ? 'a' : 'b', i / 2 + 1);
        append(store, i % 2 == 0 ? "a" : "b", i / 2, data);
    }
    assert_string_equal(read_texts(store, "a", &(escqrs_range){.after = 1}), "a2 a3 ");
    assert_string_equal(read_texts(store, "a", &(escqrs_range){.after = 1, .upto = 2}), "a2 ");
    assert_string_equal(read_texts(store, "a", &(escqrs_range){.reverse = true}), "a3 a2 a1 ");
    assert_string_equal(
        read_texts(store, "a", &(escqrs_range){.reverse = true, .after = 1, .limit = 1}), "a3 ");
    assert_string_equal(read_texts(store, "a", &(escqrs_range){.after = 3}), "");
    assert_string_equal(read_texts(store, "a", &(escqrs_range){.upto = 99}), "a1 a2 a3 ");
    assert_string_equal(read_texts(store, NULL, &(escqrs_range){.after = 2, .upto = 5}),
                        "a2 b2 a3 ");
    assert_string_equal(read_texts(store, NULL, &(escqrs_range){.reverse = true, .limit = 2}),
                        "b3 a3 ");
    assert_string_equal(
        read_texts(store, NULL, &(escqrs_range){.reverse = true, .after = 1, .upto = 3}), "a2 b1 ");
    escqrs_store_destroy(store);
}

static void test_matches(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_slice vip = text("vip"), types[2] = {text("Other"), text("Third")};
    one added;
    for (int i = 0; i < 6; i++) {
        char data[16];
        snprintf(data, sizeof data, "e%d", i + 1);
        one_init(&added, store, "a", i, data);
        added.event.type = type_of(store, i % 3 == 0 ? "Test" : i % 3 == 1 ? "Other" : "Third");
        added.event.tags = &vip;
        added.event.tag_count = i % 2 == 0;
        assert_int_equal(one_commit(&added, store), ESCQRS_OK);
    }
    escqrs_match by_type = {.types = types, .type_count = 2},
                 by_tag = {.tags = &vip, .tag_count = 1},
                 both = {.types = types, .type_count = 2, .tags = &vip, .tag_count = 1};
    escqrs_match either[2] = {{.types = types, .type_count = 1}, by_tag};
    escqrs_range range = {.matches = &by_type, .match_count = 1};
    assert_string_equal(read_texts(store, NULL, &range), "e2 e3 e5 e6 ");
    assert_string_equal(read_texts(store, "a", &range), "e2 e3 e5 e6 ");
    range.matches = &by_tag;
    assert_string_equal(read_texts(store, NULL, &range), "e1 e3 e5 ");
    range.reverse = true;
    range.limit = 2;
    assert_string_equal(read_texts(store, NULL, &range), "e5 e3 ");
    range.matches = &both;
    assert_string_equal(read_texts(store, NULL, &range), "e5 e3 ");
    range = (escqrs_range){.matches = either, .match_count = 2, .after = 1};
    assert_string_equal(read_texts(store, NULL, &range), "e2 e3 e5 ");
    escqrs_store_destroy(store);
}

/* More than a page, in either direction. */
static void test_many(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_new_event *events = calloc(MANY, sizeof *events);
    assert_non_null(events);
    for (size_t i = 0; i < MANY; i++) {
        events[i] = event(store, "Test", "x");
    }
    escqrs_write write = {
        .stream = text("a"), .expected = 0, .events = events, .event_count = MANY};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    free(events);
    for (int turn = 0; turn < 4; turn++) {
        escqrs_range range = {.reverse = turn % 2 == 1};
        escqrs_cursor *cursor;
        const escqrs_recorded *recorded;
        escqrs_status status = turn < 2
                                   ? escqrs_store_events(store, &range, &cursor, NULL)
                                   : escqrs_store_history(store, text("a"), &range, &cursor, NULL);
        assert_int_equal(status, ESCQRS_OK);
        for (int64_t i = 0; i < MANY; i++) {
            assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
            assert_int_equal(recorded->version, range.reverse ? MANY - i : i + 1);
            assert_int_equal(recorded->position, recorded->version);
        }
        assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_DONE);
        escqrs_cursor_close(cursor);
    }
    escqrs_store_destroy(store);
}

/* ---- snapshots -------------------------------------------------------------------------------- */

static escqrs_status put_snapshot(escqrs_store *store, int64_t version, const char *data,
                                  int64_t keep)
{
    escqrs_new_snapshot snapshot = {.stream = text("a"),
                                    .version = version,
                                    .type = type_of(store, "State"),
                                    .data = text(data),
                                    .keep = keep};
    escqrs_commit commit = {.snapshot = &snapshot};
    return escqrs_store_commit(store, &commit, NULL);
}

/* The newest snapshot at or below `upto` is of that version (0: there is none). */
static void check_snapshot(escqrs_store *store, int64_t upto, int64_t version, const char *data)
{
    escqrs_snapshot found = {0};
    escqrs_status status = escqrs_store_snapshot(store, text("a"), upto, &found, NULL);
    assert_int_equal(status, version == 0 ? ESCQRS_DONE : ESCQRS_OK);
    if (status == ESCQRS_OK) {
        assert_int_equal(found.version, version);
        assert_true(escqrs_slice_equal((escqrs_slice){found.data, found.size}, text(data)));
        assert_true(escqrs_slice_equal(escqrs_type_name(found.type), text("State")));
        escqrs_free(found.data);
    }
}

static void test_snapshots(void **state)
{
    escqrs_store *store = open_fresh(state);
    for (int i = 0; i < 4; i++) {
        append(store, "a", i, "x");
    }
    check_snapshot(store, 0, 0, NULL);
    assert_int_equal(put_snapshot(store, 1, "one", 0), ESCQRS_OK);
    assert_int_equal(put_snapshot(store, 3, "three", 0), ESCQRS_OK);
    assert_int_equal(put_snapshot(store, 2, "two", 0), ESCQRS_OK);
    assert_int_equal(put_snapshot(store, 5, "five", 0), ESCQRS_INVALID);
    check_snapshot(store, 0, 3, "three");
    check_snapshot(store, 2, 2, "two");
    assert_int_equal(put_snapshot(store, 3, "again", 0), ESCQRS_OK);
    check_snapshot(store, 0, 3, "again");
    assert_int_equal(escqrs_store_delete_snapshots(store, text("a"), 1, NULL), ESCQRS_OK);
    check_snapshot(store, 1, 0, NULL);
    assert_int_equal(put_snapshot(store, 4, "four", 2), ESCQRS_OK); /* 4 and 3 stay */
    check_snapshot(store, 2, 0, NULL);
    check_snapshot(store, 3, 3, "again");
    store = open_again(state, store);
    if (store != NULL) {
        check_snapshot(store, 0, 4, "four");
        assert_int_equal(escqrs_store_delete_snapshots(store, text("a"), 0, NULL), ESCQRS_OK);
        check_snapshot(store, 0, 0, NULL);
    }
    escqrs_store_destroy(store);
}

/* ---- streams, numbers, types ------------------------------------------------------------------ */

static bool list_stream(void *context, const escqrs_stream_info *stream)
{
    char *listed = context;
    size_t size = strlen(listed);
    snprintf(listed + size, 200 - size, "%.*s:%lld ", (int)stream->name.size,
             (const char *)stream->name.data, (long long)stream->version);
    return true;
}

static void count_type(void *context, escqrs_slice type, int64_t count)
{
    assert_true(escqrs_slice_equal(type, text("Test")));
    *(int64_t *)context += count;
}

static bool see_type(void *context, escqrs_type *type, bool used)
{
    if (escqrs_slice_equal(escqrs_type_name(type), text("Test"))) {
        *(int *)context += used ? 2 : 1;
    }
    return true;
}

static void test_statistics(void **state)
{
    escqrs_store *store = open_fresh(state);
    char listed[200] = "";
    int64_t counted = 0;
    int seen = 0;
    append(store, "b", 0, "b1");
    append(store, "a", 0, "a1");
    append(store, "b", 1, "b2");
    assert_int_equal(escqrs_store_streams(store, 0, 10, list_stream, listed, NULL), ESCQRS_OK);
    assert_string_equal(listed, "b:2 a:1 ");
    escqrs_statistics found;
    assert_int_equal(escqrs_store_stats(store, &found, count_type, &counted, NULL), ESCQRS_OK);
    assert_int_equal(found.head, 3);
    assert_int_equal(found.events, 3);
    assert_int_equal(found.streams, 2);
    assert_int_equal(counted, 3);
    store = open_again(state, store);
    if (store != NULL) { /* a type that was stored is known, and used */
        assert_int_equal(escqrs_store_types(store, see_type, &seen, NULL), ESCQRS_OK);
        assert_int_equal(seen, 2);
    }
    escqrs_store_destroy(store);
}

static void test_restart(void **state)
{
    escqrs_store *store = open_fresh(state);
    append(store, "a", 0, "a1");
    escqrs_status status = escqrs_store_restart(store, NULL);
    assert_int_equal(status,
                     ((const provider_maker *)*state)->begins_new ? ESCQRS_OK : ESCQRS_INVALID);
    append(store, "a", 1, "a2");
    assert_string_equal(read_texts(store, NULL, NULL), "a1 a2 ");
    escqrs_store_destroy(store);
}

/* Who has the store open while it begins anew notices nothing. */
static void test_restart_in_use(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    if (!((const provider_maker *)*state)->begins_new) {
        escqrs_store_destroy(store);
        return;
    }
    append(store, "a", 0, "a1");
    append(store, "b", 0, "b1");
    assert_int_equal(escqrs_store_events(store, NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_restart(store, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_restart(store, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
    assert_int_equal(recorded->position, 2);
    escqrs_cursor_close(cursor);
    assert_int_equal(escqrs_store_head(store), 2);
    append(store, "a", 1, "a2");
    append(store, "c", 0, "c1");
    assert_string_equal(read_texts(store, NULL, NULL), "a1 b1 a2 c1 ");
    store = open_again(state, store);
    if (store != NULL) {
        assert_string_equal(read_texts(store, NULL, NULL), "a1 b1 a2 c1 ");
    }
    escqrs_store_destroy(store);
}

static void test_deleting(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_erased erased;
    for (int i = 0; i < 4; i++) {
        append(store, i == 2 ? "b" : "a", i == 3 ? 2 : i == 2 ? 0 : i, "x");
    }
    escqrs_erasure erasure = {.stream = text("a"), .upto = 2, .force = true};
    escqrs_status status = escqrs_store_erase(store, &erasure, 1, NULL);
    assert_int_equal(escqrs_store_erased(store, text("a"), &erased, NULL), ESCQRS_OK);
    if (!((const provider_maker *)*state)->deletes) {
        assert_int_equal(status, ESCQRS_INVALID);
        assert_int_equal(erased.upto, 0);
    } else {
        escqrs_cursor *cursor;
        const escqrs_recorded *recorded;
        escqrs_error error = {0};
        assert_int_equal(status, ESCQRS_OK);
        assert_int_equal(erasure.count, 2);
        assert_int_equal(erased.upto, 2);
        assert_int_equal(escqrs_store_history(store, text("a"), NULL, &cursor, NULL), ESCQRS_OK);
        assert_int_equal(escqrs_cursor_next(cursor, &recorded, &error), ESCQRS_DELETED);
        assert_int_equal(error.version, 2);
        escqrs_cursor_close(cursor);
        escqrs_range range = {.skip_deleted = true};
        assert_string_equal(read_texts(store, "a", &range), "x ");
        assert_string_equal(read_texts(store, NULL, &range), "x x ");
        assert_int_equal(version_of(store, "a"), 3);
    }
    append(store, "a", 3, "y");
    escqrs_store_destroy(store);
}

/* ---- threads ---------------------------------------------------------------------------------- */

typedef struct crowd {
    escqrs_store *store;
    _Atomic int number; /* of the next writer */
    _Atomic bool over;
} crowd;

static void *write_alone(void *context)
{
    crowd *all = context;
    char stream[24];
    snprintf(stream, sizeof stream, "s%d", atomic_fetch_add(&all->number, 1));
    for (int64_t i = 0; i < COMMITS_EACH; i++) {
        one added;
        one_init(&added, all->store, stream, i, "x");
        if (escqrs_store_commit(all->store, &added.commit, NULL) != ESCQRS_OK) {
            return all;
        }
    }
    return NULL;
}

/* Whatever it sees, it sees without gaps. */
static void *read_along(void *context)
{
    crowd *all = context;
    bool last = false, well = true;
    while (well && !last) {
        escqrs_cursor *cursor;
        const escqrs_recorded *recorded;
        int64_t position = 0;
        last = atomic_load(&all->over);
        int64_t head = escqrs_store_head(all->store);
        well = escqrs_store_events(all->store, NULL, &cursor, NULL) == ESCQRS_OK;
        while (well && escqrs_cursor_next(cursor, &recorded, NULL) == ESCQRS_OK) {
            well = recorded->position == ++position;
        }
        well = well && position >= head;
        escqrs_cursor_close(cursor);
    }
    return well ? NULL : all;
}

static void *wait_for_all(void *context)
{
    crowd *all = context;
    escqrs_status status =
        escqrs_store_wait(all->store, WRITERS * COMMITS_EACH - 1, NULL, INT64_MAX);
    return status == ESCQRS_OK ? NULL : all;
}

static void test_threads(void **state)
{
    crowd all = {.store = open_fresh(state)};
    pthread_t threads[WRITERS], reader, waiter;
    void *failed;
    assert_int_equal(pthread_create(&reader, NULL, read_along, &all), 0);
    assert_int_equal(pthread_create(&waiter, NULL, wait_for_all, &all), 0);
    for (size_t i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_alone, &all), 0);
    }
    for (size_t i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    atomic_store(&all.over, true);
    assert_int_equal(pthread_join(reader, &failed), 0);
    assert_null(failed);
    assert_int_equal(pthread_join(waiter, &failed), 0);
    assert_null(failed);
    assert_int_equal(escqrs_store_head(all.store), WRITERS * COMMITS_EACH);
    escqrs_store_destroy(all.store);
}

static void test_closed(void **state)
{
    escqrs_store *store = open_fresh(state);
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    append(store, "a", 0, "a1");
    one late;
    one_init(&late, store, "a", 1, "a2");
    assert_int_equal(escqrs_store_events(store, NULL, &cursor, NULL), ESCQRS_OK);
    escqrs_store_close(store);
    assert_int_equal(one_commit(&late, store), ESCQRS_CLOSED);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_CLOSED);
    escqrs_store_close(store); /* twice is once */
    escqrs_store_destroy(store);
    escqrs_cursor_close(cursor); /* it has kept the provider */
}

int provider_suite_run(const provider_maker *maker)
{
    static void (*const functions[])(void **) = {
        test_append,      test_several_streams_are_one,
        test_nothing,     test_one_stream_twice_in_a_commit,
        test_batch,       test_condition,
        test_keys,        test_condition_sees_its_batch,
        test_checkpoints, test_ids_are_unique,
        test_recorded,    test_times,
        test_ranges,      test_matches,
        test_many,        test_snapshots,
        test_statistics,  test_restart,
        test_deleting,    test_threads,
        test_closed,      test_restart_in_use,
    };
    static const char *const names[] = {
        "append",      "several streams are one",
        "nothing",     "one stream twice in a commit",
        "batch",       "condition",
        "keys",        "condition sees its batch",
        "checkpoints", "ids are unique",
        "recorded",    "times",
        "ranges",      "matches",
        "many",        "snapshots",
        "statistics",  "restart",
        "deleting",    "threads",
        "closed",      "restart in use",
    };
    enum { COUNT = sizeof functions / sizeof functions[0] };
    struct CMUnitTest tests[COUNT];
    char shown[COUNT][100];
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(shown[i], sizeof shown[i], "%s: %s", maker->name, names[i]);
        tests[i] = (struct CMUnitTest){
            .name = shown[i], .test_func = functions[i], .initial_state = (void *)(uintptr_t)maker};
    }
    return cmocka_run_group_tests_name(maker->name, tests, NULL, NULL);
}
