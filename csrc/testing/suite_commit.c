/* See suite.h: what a commit does, and what it leaves where it fails. */
#include "testing/suite.h"

#include <string.h>

static escqrs_slice text(const char *s)
{
    return escqrs_slice_of(s);
}

static escqrs_status commit(esc_suite *suite, escqrs_commit *given)
{
    return escqrs_store_commit(suite->store, given, &suite->error);
}

/* Commits that wait in the journal stay when their test fails: they are not on its stack. */
static esc_suite_one *some(esc_suite *suite, size_t count)
{
    suite->memory = escqrs_alloc_zero(count * sizeof(esc_suite_one));
    CHECK(suite, suite->memory != NULL);
    return suite->memory;
}

static escqrs_store *open_manual(esc_suite *suite)
{
    return esc_suite_open(suite, &(escqrs_store_options){.manual = true});
}

/* ---- appending -------------------------------------------------------------------------------- */

static void test_append(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    SAME(suite, escqrs_store_head(store), 0);
    SAME(suite, esc_suite_version(suite, "a"), 0);
    esc_suite_append(suite, "a", 0, "a1");
    esc_suite_append(suite, "a", 1, "a2");
    esc_suite_append(suite, "b", ESCQRS_EXPECT_ANY, "b1");
    SAME(suite, escqrs_store_head(store), 3);
    SAME(suite, esc_suite_version(suite, "a"), 2);
    READS(suite, esc_suite_texts(suite, "a", NULL), "a1 a2 ");
    READS(suite, esc_suite_texts(suite, NULL, NULL), "a1 a2 b1 ");
    READS(suite, esc_suite_texts(suite, "none", NULL), "");
    store = esc_suite_open_again(suite);
    if (store != NULL) {
        SAME(suite, escqrs_store_head(store), 3);
        READS(suite, esc_suite_texts(suite, NULL, NULL), "a1 a2 b1 ");
        esc_suite_append(suite, "a", 2, "a3");
        READS(suite, esc_suite_texts(suite, "a", NULL), "a1 a2 a3 ");
    }
}

static void test_several_streams_are_one(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    esc_suite_append(suite, "b", 0, "b1");
    escqrs_new_event events[3] = {esc_suite_event(suite, "Test", "a1"),
                                  esc_suite_event(suite, "Test", "a2"),
                                  esc_suite_event(suite, "Test", "b2")};
    escqrs_write writes[2] = {
        {.stream = text("a"), .expected = 0, .events = events, .event_count = 2},
        {.stream = text("b"), .expected = 0, .events = events + 2, .event_count = 1}};
    escqrs_commit both = {.writes = writes, .write_count = 2};
    GIVES(suite, commit(suite, &both), ESCQRS_WRONG_VERSION);
    SAME(suite, suite->error.expected, 0);
    SAME(suite, suite->error.actual, 1);
    SAME(suite, suite->error.version, 1);
    READS(suite, text(suite->error.subject), "b");
    SAME(suite, escqrs_store_head(store), 1);
    SAME(suite, esc_suite_version(suite, "a"), 0);
    writes[1].expected = 1;
    GIVES(suite, commit(suite, &both), ESCQRS_OK);
    SAME(suite, both.position, 4);
    SAME(suite, writes[0].version, 2);
    SAME(suite, writes[1].version, 2);
    READS(suite, esc_suite_texts(suite, NULL, NULL), "b1 a1 a2 b2 ");
}

static void test_one_stream_twice_in_a_commit(esc_suite *suite)
{
    esc_suite_open(suite, NULL);
    escqrs_new_event events[2] = {esc_suite_event(suite, "Test", "a1"),
                                  esc_suite_event(suite, "Test", "a2")};
    escqrs_write writes[2] = {
        {.stream = text("a"), .expected = 0, .events = events, .event_count = 1},
        {.stream = text("a"), .expected = 1, .events = events + 1, .event_count = 1}};
    escqrs_commit twice = {.writes = writes, .write_count = 2};
    GIVES(suite, commit(suite, &twice), ESCQRS_OK);
    READS(suite, esc_suite_texts(suite, "a", NULL), "a1 a2 ");
    writes[0].expected = 2;
    writes[1].expected = 2;
    GIVES(suite, commit(suite, &twice), ESCQRS_WRONG_VERSION);
    SAME(suite, esc_suite_version(suite, "a"), 2);
}

static void test_nothing(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    esc_suite_append(suite, "a", 0, "a1");
    escqrs_commit none = {.write_count = 0};
    GIVES(suite, commit(suite, &none), ESCQRS_OK);
    SAME(suite, none.position, 1);
    escqrs_write empty = {.stream = text("b"), .expected = 0};
    escqrs_commit of_one = {.writes = &empty, .write_count = 1};
    GIVES(suite, commit(suite, &of_one), ESCQRS_OK);
    SAME(suite, of_one.position, 1);
    SAME(suite, empty.version, 0);
    empty.expected = 1;
    GIVES(suite, commit(suite, &of_one), ESCQRS_WRONG_VERSION);
    SAME(suite, escqrs_store_head(store), 1);
}

/* ---- batches ---------------------------------------------------------------------------------- */

/* Of a batch, exactly those fail that have to. */
static void test_batch(esc_suite *suite)
{
    static const int64_t expected[4] = {0, 1, 1, 2};
    static const char *const data[4] = {"a1", "a2", "late", "a3"};
    escqrs_store *store = open_manual(suite);
    esc_suite_one *ones = some(suite, 5);
    for (size_t i = 0; i < 4; i++) {
        esc_suite_one_init(suite, &ones[i], "a", expected[i], data[i]);
        esc_suite_one_submit(suite, &ones[i]);
    }
    esc_suite_one_submit(suite, &ones[4]); /* zeroed: it writes nothing */
    SAME(suite, escqrs_store_head(store), 0);
    SAME(suite, escqrs_store_pump(store), 5);
    SAME(suite, ones[0].commit.status, ESCQRS_OK);
    SAME(suite, ones[0].commit.position, 1);
    SAME(suite, ones[1].commit.status, ESCQRS_OK);
    SAME(suite, ones[1].write.version, 2);
    SAME(suite, ones[2].commit.status, ESCQRS_WRONG_VERSION);
    SAME(suite, ones[2].error.actual, 2);
    SAME(suite, ones[3].commit.status, ESCQRS_OK);
    SAME(suite, ones[3].commit.position, 3);
    SAME(suite, ones[4].commit.status, ESCQRS_OK);
    SAME(suite, ones[4].commit.position, 3);
    READS(suite, esc_suite_texts(suite, "a", NULL), "a1 a2 a3 ");
}

static void test_condition_sees_its_batch(esc_suite *suite)
{
    static const escqrs_condition condition = {.after = 0};
    escqrs_store *store = open_manual(suite);
    esc_suite_one *ones = some(suite, 2);
    for (size_t i = 0; i < 2; i++) {
        esc_suite_one_init(suite, &ones[i], i == 0 ? "a" : "b", 0, "x");
        ones[i].commit.condition = &condition;
        esc_suite_one_submit(suite, &ones[i]);
    }
    SAME(suite, escqrs_store_pump(store), 2);
    SAME(suite, ones[0].commit.status, ESCQRS_OK);
    SAME(suite, ones[1].commit.status, ESCQRS_CONDITION_FAILED);
    SAME(suite, ones[1].error.position, 1);
}

/* The same key, id and checkpoint twice in one batch. */
static void test_aids_see_their_batch(esc_suite *suite)
{
    escqrs_store *store = open_manual(suite);
    esc_suite_one *ones = some(suite, 6);
    for (size_t i = 0; i < 6; i++) {
        esc_suite_one_init(suite, &ones[i], "a", ESCQRS_EXPECT_ANY, "x");
    }
    ones[0].commit.key = ones[1].commit.key = text("k");
    ones[2].event.id_text = ones[3].event.id_text = text("order 7");
    ones[4].commit.checkpoint = ones[5].commit.checkpoint = text("billing");
    for (size_t i = 0; i < 6; i++) {
        esc_suite_one_submit(suite, &ones[i]);
    }
    SAME(suite, escqrs_store_pump(store), 6);
    SAME(suite, ones[0].commit.repeated, false);
    SAME(suite, ones[1].commit.status, ESCQRS_OK);
    SAME(suite, ones[1].commit.repeated, true);
    SAME(suite, ones[1].commit.position, 1);
    SAME(suite, ones[2].commit.status, ESCQRS_OK);
    SAME(suite, ones[3].commit.status, ESCQRS_KEY_REUSED);
    SAME(suite, ones[4].commit.status, ESCQRS_OK);
    SAME(suite, ones[4].commit.position, 3);
    SAME(suite, ones[5].commit.status, ESCQRS_CHECKPOINT_BEHIND);
    SAME(suite, escqrs_store_head(store), 3);
    SAME(suite, esc_suite_checkpoint(suite, "billing"), 0);
}

/* ---- conditions, keys, checkpoints, ids ------------------------------------------------------- */

static void test_condition(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    escqrs_slice room = text("room-7"), booked = text("Booked");
    escqrs_match match = {.types = &booked, .type_count = 1, .tags = &room, .tag_count = 1};
    escqrs_condition condition = {.matches = &match, .match_count = 1, .after = 0};
    esc_suite_one added;
    esc_suite_one_init(suite, &added, "a", 0, "a1");
    added.event.tags = &room;
    added.event.tag_count = 1;
    added.commit.condition = &condition;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK); /* of another type */
    added.event.type = esc_suite_type(suite, "Booked");
    added.write.expected = 1;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    added.write.expected = 2;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_CONDITION_FAILED);
    SAME(suite, suite->error.position, 2);
    condition.after = 2;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    condition = (escqrs_condition){.after = 3}; /* no event at all */
    added.write.expected = 3;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_WRONG_VERSION);
    added.write.expected = 4;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_CONDITION_FAILED);
    SAME(suite, escqrs_store_head(store), 4);
}

static void check_repeated(esc_suite *suite)
{
    size_t size = 0;
    int64_t position = 0;
    esc_suite_one again;
    esc_suite_one_init(suite, &again, "a", 0, "a1");
    again.commit.key = text("k");
    GIVES(suite, esc_suite_one_commit(suite, &again), ESCQRS_OK);
    CHECK(suite, again.commit.repeated);
    SAME(suite, again.commit.position, 1);
    SAME(suite, again.write.version, 1);
    again.event.data = text("other");
    GIVES(suite, esc_suite_one_commit(suite, &again), ESCQRS_KEY_REUSED);
    READS(suite, text(suite->error.subject), "k");
    GIVES(suite,
          escqrs_store_key(suite->store, text(""), text("k"), &suite->memory, &size, &position,
                           &suite->error),
          ESCQRS_OK);
    SAME(suite, position, 1);
    READS(suite, ((escqrs_slice){suite->memory, size}), "well");
    escqrs_free(suite->memory);
    suite->memory = NULL;
}

static void test_keys(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    size_t size;
    int64_t position;
    GIVES(suite,
          escqrs_store_key(store, text(""), text("k"), &suite->memory, &size, &position,
                           &suite->error),
          ESCQRS_DONE);
    esc_suite_one added;
    esc_suite_one_init(suite, &added, "a", 0, "a1");
    added.commit.key = text("k");
    added.commit.reply = text("well");
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    CHECK(suite, !added.commit.repeated);
    esc_suite_append(suite, "a", 1, "a2");
    check_repeated(suite);
    esc_suite_one scoped; /* the same name within another */
    esc_suite_one_init(suite, &scoped, "b", 0, "b1");
    scoped.commit.key = text("k");
    scoped.commit.key_scope = text("b");
    GIVES(suite, esc_suite_one_commit(suite, &scoped), ESCQRS_OK);
    CHECK(suite, !scoped.commit.repeated);
    SAME(suite, escqrs_store_head(store), 3);
    store = esc_suite_open_again(suite);
    if (store != NULL) {
        check_repeated(suite);
        SAME(suite, escqrs_store_head(store), 3);
    }
}

static void test_checkpoints(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    SAME(suite, esc_suite_checkpoint(suite, "billing"), -1);
    esc_suite_one added;
    esc_suite_one_init(suite, &added, "a", 0, "a1");
    added.commit.checkpoint = text("billing");
    added.commit.checkpoint_position = 5;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    SAME(suite, esc_suite_checkpoint(suite, "billing"), 5);
    added.write.expected = 1;
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_CHECKPOINT_BEHIND);
    SAME(suite, suite->error.expected, 5);
    SAME(suite, suite->error.actual, 5);
    READS(suite, text(suite->error.subject), "billing");
    SAME(suite, escqrs_store_head(store), 1);
    escqrs_commit alone = {.checkpoint = text("billing"), .checkpoint_position = 7};
    GIVES(suite, commit(suite, &alone), ESCQRS_OK);
    store = esc_suite_open_again(suite);
    if (store != NULL) {
        SAME(suite, esc_suite_checkpoint(suite, "billing"), 7);
        SAME(suite, esc_suite_checkpoint(suite, "other"), -1);
    }
}

static void test_ids_are_unique(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    escqrs_uuid id = escqrs_uuid_new(NULL, NULL);
    esc_suite_one added;
    for (int turn = 0; turn < 2; turn++) {
        esc_suite_one_init(suite, &added, "a", ESCQRS_EXPECT_ANY, "a1");
        added.event.id = &id;
        GIVES(suite, esc_suite_one_commit(suite, &added),
              turn == 0 ? ESCQRS_OK : ESCQRS_KEY_REUSED);
        added.event.id = NULL;
        added.event.id_text = text("order 7");
        GIVES(suite, esc_suite_one_commit(suite, &added),
              turn == 0 ? ESCQRS_OK : ESCQRS_KEY_REUSED);
        SAME(suite, escqrs_store_head(store), 2);
        if (turn == 0 && (store = esc_suite_open_again(suite)) == NULL) {
            return;
        }
    }
}

/* ---- failing ---------------------------------------------------------------------------------- */

/* A commit of all there is, of which only the last thing to be checked is wrong. */
static void test_what_fails_leaves_nothing(esc_suite *suite)
{
    escqrs_store *store = esc_suite_open(suite, NULL);
    size_t size;
    int64_t position;
    escqrs_snapshot found = {0};
    esc_suite_one added;
    esc_suite_append(suite, "a", 0, "a1");
    escqrs_commit before = {.checkpoint = text("billing"), .checkpoint_position = 7};
    GIVES(suite, commit(suite, &before), ESCQRS_OK);
    esc_suite_one_init(suite, &added, "b", 0, "b1");
    escqrs_new_snapshot snapshot = {
        .stream = text("b"), .version = 1, .type = added.event.type, .data = text("state")};
    added.commit.key = text("k");
    added.commit.snapshot = &snapshot;
    added.commit.checkpoint = text("billing");
    added.commit.checkpoint_position = 7;
    added.event.id_text = text("order 7");
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_CHECKPOINT_BEHIND);
    SAME(suite, escqrs_store_head(store), 1);
    SAME(suite, esc_suite_version(suite, "b"), 0);
    GIVES(suite,
          escqrs_store_key(store, text(""), text("k"), &suite->memory, &size, &position,
                           &suite->error),
          ESCQRS_DONE);
    GIVES(suite, escqrs_store_snapshot(store, text("b"), 0, &found, &suite->error), ESCQRS_DONE);
    READS(suite, esc_suite_texts(suite, NULL, NULL), "a1 ");
    added.commit.checkpoint_position = 8; /* now all of it */
    GIVES(suite, esc_suite_one_commit(suite, &added), ESCQRS_OK);
    CHECK(suite, !added.commit.repeated);
    GIVES(suite, escqrs_store_snapshot(store, text("b"), 0, &found, &suite->error), ESCQRS_OK);
    escqrs_free(found.data);
    SAME(suite, esc_suite_checkpoint(suite, "billing"), 8);
    READS(suite, esc_suite_texts(suite, NULL, NULL), "a1 b1 ");
}

const esc_suite_test esc_suite_commits[] = {
    {"append", test_append},
    {"several streams are one", test_several_streams_are_one},
    {"one stream twice in a commit", test_one_stream_twice_in_a_commit},
    {"nothing", test_nothing},
    {"batch", test_batch},
    {"condition sees its batch", test_condition_sees_its_batch},
    {"keys, ids and checkpoints see their batch", test_aids_see_their_batch},
    {"condition", test_condition},
    {"keys", test_keys},
    {"checkpoints", test_checkpoints},
    {"ids are unique", test_ids_are_unique},
    {"what fails leaves nothing", test_what_fails_leaves_nothing},
    {NULL, NULL},
};
