/* See suite.h: what is read is what was written, in order, within its range. */
#include "testing/suite.h"

#include <stdio.h>
#include <string.h>

#define MANY 1500         /* events: several pages */
#define LARGE (300 << 10) /* bytes of an event: more than a page of them */

static escqrs_slice text(const char *s)
{
    return escqrs_slice_of(s);
}

static bool same_uuid(const escqrs_uuid *a, const escqrs_uuid *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* ---- one event -------------------------------------------------------------------------------- */

static void check_recorded(esc_suite *suite, const escqrs_uuid *id, const escqrs_uuid *cause)
{
    GIVES(suite, escqrs_store_events(suite->store, NULL, &suite->cursor, &suite->error), ESCQRS_OK);
    const escqrs_recorded *recorded = esc_suite_next(suite);
    SAME(suite, recorded->position, 1);
    SAME(suite, recorded->version, 1);
    CHECK(suite, recorded->time_us > 0);
    READS(suite, recorded->stream, "Cart/\xc3\xa4");
    READS(suite, escqrs_type_name(recorded->type), "Added");
    CHECK(suite, escqrs_slice_equal(recorded->data, (escqrs_slice){"a\0b", 3}));
    CHECK(suite, same_uuid(&recorded->id, id));
    CHECK(suite, same_uuid(&recorded->causation_id, cause));
    SAME(suite, recorded->causation_text.size, 0);
    READS(suite, recorded->correlation_text, "request 8");
    SAME(suite, recorded->tag_count, 2);
    READS(suite, recorded->tags[0], "vip");
    READS(suite, recorded->tags[1], "new");
    SAME(suite, recorded->metadata_count, 1);
    READS(suite, recorded->metadata[0].key, "by");
    READS(suite, recorded->metadata[0].value, "ann");
    recorded = esc_suite_next(suite);
    SAME(suite, recorded->data.size, 0);
    CHECK(suite, !escqrs_uuid_is_nil(&recorded->id));
    CHECK(suite, !escqrs_uuid_is_nil(&recorded->causation_id));
    CHECK(suite, same_uuid(&recorded->correlation_id, &recorded->causation_id));
    SAME(suite, recorded->tag_count + recorded->metadata_count, 0);
    GIVES(suite, escqrs_cursor_next(suite->cursor, &recorded, &suite->error), ESCQRS_DONE);
    esc_suite_close_cursor(suite);
}

static void test_recorded(esc_suite *suite)
{
    esc_suite_open(suite, NULL);
    escqrs_uuid id = escqrs_uuid_new(NULL, NULL), cause = escqrs_uuid_new(NULL, NULL);
    escqrs_slice tags[2] = {text("vip"), text("new")};
    escqrs_pair metadata = {text("by"), text("ann")};
    esc_suite_one added;
    esc_suite_one_init(suite, &added, "Cart/\xc3\xa4", 0, "");
    added.event = (escqrs_new_event){.type = esc_suite_type(suite, "Added"),
                                     .data = {"a\0b", 3},
                                     .id = &id,
                                     .tags = tags,
                                     .tag_count = 2};
    added.commit.metadata = &metadata;
    added.commit.metadata_count = 1;
    added.commit.correlation_text = text("request 8");
    added.commit.causation_id = &cause;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    esc_suite_append(suite, "b", 0, "");
    check_recorded(suite, &id, &cause);
    if (esc_suite_open_again(suite) != NULL) {
        check_recorded(suite, &id, &cause);
    }
}

/* The longest name that a stream may have, and an event that fills more than a page. */
static void test_large(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    char stream[ESCQRS_STREAM_NAME_MAX + 1];
    memset(stream, 's', ESCQRS_STREAM_NAME_MAX);
    stream[ESCQRS_STREAM_NAME_MAX] = '\0';
    char *data = suite->memory = escqrs_alloc(LARGE);
    CHECK(suite, data != NULL);
    memset(data, 'x', LARGE);
    for (int64_t i = 0; i < 3; i++) {
        esc_suite_one added;
        esc_suite_one_init(suite, &added, stream, i, "");
        data[0] = (char)('0' + i);
        added.event.data = (escqrs_slice){data, LARGE};
        GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    }
    GIVES(suite, escqrs_store_history(store, text(stream), NULL, &suite->cursor, &suite->error),
          ESCQRS_OK);
    for (char i = 0; i < 3; i++) {
        const escqrs_recorded *recorded = esc_suite_next(suite);
        data[0] = (char)('0' + i);
        READS(suite, recorded->stream, stream);
        CHECK(suite, escqrs_slice_equal(recorded->data, (escqrs_slice){data, LARGE}));
    }
    esc_suite_close_cursor(suite);
}

/* ---- times ------------------------------------------------------------------------------------ */

static void check_times(esc_suite *suite, const int64_t *times, size_t count)
{
    GIVES(suite, escqrs_store_history(suite->store, text("a"), NULL, &suite->cursor, &suite->error),
          ESCQRS_OK);
    for (size_t i = 0; i < count; i++) {
        SAME(suite, esc_suite_next(suite)->time_us, times[i]);
    }
    esc_suite_close_cursor(suite);
}

static void test_times(esc_suite *suite)
{
    static const int64_t times[4] = {1000, 1000, 9000000000000000, 9000000000000000};
    esc_suite_open(suite, NULL);
    esc_suite_one added;
    esc_suite_one_init(suite, &added, "a", ESCQRS_EXPECT_ANY, "a");
    added.event.time_us = 1000;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    added.event.time_us = 999;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_INVALID);
    added.event.time_us = 1000;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    added.event.time_us = 9000000000000000; /* beyond any clock: it stands there */
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    added.event.time_us = 0;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    check_times(suite, times, 4);
}

static int64_t given_time(void *context)
{
    return *(const int64_t *)context;
}

/* The clock is the one of the options; where it goes back, time stands. */
static void test_clock(esc_suite *suite)
{
    static const int64_t times[3] = {2000, 2000, 3000};
    int64_t now_us = 2000;
    escqrs_store_options options = {.clock = {.now_us = given_time, .context = &now_us}};
    esc_suite_open(suite, &options);
    esc_suite_append(suite, "a", 0, "a1");
    now_us = 1000;
    esc_suite_append(suite, "a", 1, "a2");
    now_us = 3000;
    esc_suite_append(suite, "a", 2, "a3");
    check_times(suite, times, 3);
    esc_suite_close(suite); /* before the clock is gone */
}

/* ---- ranges and matches ----------------------------------------------------------------------- */

static void test_ranges(esc_suite *suite)
{
    static const struct {
        const char *stream;
        escqrs_range range;
        const char *found;
    } cases[] = {
        {"a", {.after = 1}, "a2 a3 "},
        {"a", {.after = 1, .upto = 2}, "a2 "},
        {"a", {.reverse = true}, "a3 a2 a1 "},
        {"a", {.reverse = true, .after = 1, .limit = 1}, "a3 "},
        {"a", {.after = 3}, ""},
        {"a", {.upto = 99}, "a1 a2 a3 "},
        {NULL, {.after = 2, .upto = 5}, "a2 b2 a3 "},
        {NULL, {.reverse = true, .limit = 2}, "b3 a3 "},
        {NULL, {.reverse = true, .after = 1, .upto = 3}, "a2 b1 "},
    };
    esc_suite_open(suite, NULL);
    char data[16];
    for (int i = 0; i < 6; i++) {
        snprintf(data, sizeof data, "%c%d", i % 2 == 0 ? 'a' : 'b', i / 2 + 1);
        esc_suite_append(suite, i % 2 == 0 ? "a" : "b", i / 2, data);
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        READS(suite, esc_suite_texts(suite, cases[i].stream, &cases[i].range), cases[i].found);
    }
}

static void test_matches(esc_suite *suite)
{
    static const char *const names[3] = {"Test", "Other", "Third"};
    esc_suite_open(suite, NULL);
    escqrs_slice vip = text("vip"), types[2] = {text("Other"), text("Third")};
    esc_suite_one added;
    for (int i = 0; i < 6; i++) {
        char data[16];
        snprintf(data, sizeof data, "e%d", i + 1);
        esc_suite_one_init(suite, &added, "a", i, data);
        added.event.type = esc_suite_type(suite, names[i % 3]);
        added.event.tags = &vip;
        added.event.tag_count = i % 2 == 0;
        GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    }
    escqrs_match by_type = {.types = types, .type_count = 2},
                 by_tag = {.tags = &vip, .tag_count = 1},
                 both = {.types = types, .type_count = 2, .tags = &vip, .tag_count = 1};
    escqrs_match either[2] = {{.types = types, .type_count = 1}, by_tag};
    escqrs_range range = {.matches = &by_type, .match_count = 1};
    READS(suite, esc_suite_texts(suite, NULL, &range), "e2 e3 e5 e6 ");
    READS(suite, esc_suite_texts(suite, "a", &range), "e2 e3 e5 e6 ");
    range.matches = &by_tag;
    READS(suite, esc_suite_texts(suite, NULL, &range), "e1 e3 e5 ");
    range.reverse = true;
    range.limit = 2;
    READS(suite, esc_suite_texts(suite, NULL, &range), "e5 e3 ");
    range.matches = &both;
    READS(suite, esc_suite_texts(suite, NULL, &range), "e5 e3 ");
    range = (escqrs_range){.matches = either, .match_count = 2, .after = 1};
    READS(suite, esc_suite_texts(suite, NULL, &range), "e2 e3 e5 ");
}

/* ---- many events ------------------------------------------------------------------------------ */

/* Events of "a" and "b" in turn, the last of each of type "Last". */
static void append_many(esc_suite *suite)
{
    escqrs_new_event *events = suite->memory = escqrs_alloc_zero(MANY * sizeof *events);
    CHECK(suite, events != NULL);
    for (size_t i = 0; i < MANY; i++) {
        events[i] = esc_suite_event(suite, i < MANY - 2 ? "Test" : "Last", "x");
    }
    escqrs_write *writes = escqrs_alloc_zero(MANY * sizeof *writes);
    CHECK(suite, writes != NULL);
    for (size_t i = 0; i < MANY; i++) {
        writes[i] = (escqrs_write){.stream = text(i % 2 == 0 ? "a" : "b"),
                                   .expected = (int64_t)i / 2,
                                   .events = &events[i],
                                   .event_count = 1};
    }
    escqrs_commit all = {.writes = writes, .write_count = MANY};
    escqrs_status status = escqrs_store_commit(suite->store, &all, &suite->error);
    escqrs_free(writes);
    GIVES(suite, status, ESCQRS_OK);
}

/* More than a page, in either direction. */
static void test_many(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    append_many(suite);
    for (int turn = 0; turn < 4; turn++) {
        bool of_stream = turn >= 2;
        int64_t count = of_stream ? MANY / 2 : MANY;
        escqrs_range range = {.reverse = turn % 2 == 1};
        const escqrs_recorded *recorded;
        GIVES(suite,
              of_stream
                  ? escqrs_store_history(store, text("a"), &range, &suite->cursor, &suite->error)
                  : escqrs_store_events(store, &range, &suite->cursor, &suite->error),
              ESCQRS_OK);
        for (int64_t i = 0; i < count; i++) {
            recorded = esc_suite_next(suite);
            SAME(suite, of_stream ? recorded->version : recorded->position,
                 range.reverse ? count - i : i + 1);
        }
        GIVES(suite, escqrs_cursor_next(suite->cursor, &recorded, &suite->error), ESCQRS_DONE);
        esc_suite_close_cursor(suite);
    }
}

/* Pages of which no event matches, up to the last. */
static void test_few_of_many(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    escqrs_slice last = text("Last"), none = text("None");
    escqrs_match match = {.types = &last, .type_count = 1};
    escqrs_range range = {.matches = &match, .match_count = 1};
    const escqrs_recorded *recorded;
    append_many(suite);
    GIVES(suite, escqrs_store_events(store, &range, &suite->cursor, &suite->error), ESCQRS_OK);
    SAME(suite, esc_suite_next(suite)->position, MANY - 1);
    SAME(suite, esc_suite_next(suite)->position, MANY);
    GIVES(suite, escqrs_cursor_next(suite->cursor, &recorded, &suite->error), ESCQRS_DONE);
    esc_suite_close_cursor(suite);
    GIVES(suite, escqrs_store_history(store, text("b"), &range, &suite->cursor, &suite->error),
          ESCQRS_OK);
    SAME(suite, esc_suite_next(suite)->version, MANY / 2);
    esc_suite_close_cursor(suite);
    match.types = &none;
    READS(suite, esc_suite_texts(suite, NULL, &range), "");
    range.reverse = true;
    READS(suite, esc_suite_texts(suite, "a", &range), "");
}

const esc_suite_test esc_suite_readings[] = {
    {"recorded", test_recorded},
    {"large", test_large},
    {"times", test_times},
    {"clock", test_clock},
    {"ranges", test_ranges},
    {"matches", test_matches},
    {"many", test_many},
    {"few of many", test_few_of_many},
    {NULL, NULL},
};
