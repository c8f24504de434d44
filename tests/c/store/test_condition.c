/* Conditions, tags, ids that programs give, and what keys compare. */
#include "store/fixture.h"
#include "support/fault_vfs.h"

#define TAGS_MAX 4

typedef struct event {
    const char *type;
    const char *tags[TAGS_MAX];
    const char *id;
} event;

static size_t fill_tags(const char *const *names, escqrs_slice *tags)
{
    size_t count = 0;
    while (count < TAGS_MAX && names[count] != NULL) {
        tags[count] = text(names[count]);
        count++;
    }
    return count;
}

static escqrs_status put(escqrs_store *store, event what, const escqrs_condition *condition,
                         const char *key, escqrs_commit *result, escqrs_error *error)
{
    escqrs_slice tags[TAGS_MAX];
    escqrs_uuid uuid;
    escqrs_new_event one = {.type = type_of(store, what.type), .data = text("data"), .tags = tags};
    one.tag_count = fill_tags(what.tags, tags);
    if (what.id != NULL && escqrs_uuid_parse(text(what.id), &uuid)) {
        one.id = &uuid;
    } else if (what.id != NULL) {
        one.id_text = text(what.id);
    }
    escqrs_write write = {
        .stream = text("s"), .expected = ESCQRS_EXPECT_ANY, .events = &one, .event_count = 1};
    escqrs_commit commit = {
        .writes = &write, .write_count = 1, .condition = condition, .key = text(key)};
    escqrs_status status = escqrs_store_commit(store, &commit, error);
    if (result != NULL) {
        *result = commit;
    }
    return status;
}

/* Put it if nothing after that position matches; the position of what does, or 0. */
static int64_t blocked_by(escqrs_store *store, const char *type, const char *tag,
                          const char *other_tag, int64_t after)
{
    const char *names[TAGS_MAX] = {tag != NULL ? tag : other_tag, tag != NULL ? other_tag : NULL};
    escqrs_slice tags[TAGS_MAX], types[1] = {text(type)};
    escqrs_match match = {.types = types, .type_count = type != NULL, .tags = tags};
    match.tag_count = fill_tags(names, tags);
    escqrs_condition condition = {&match, 1, after};
    escqrs_commit commit = {.condition = &condition};
    escqrs_error error = {0};
    escqrs_status status = escqrs_store_commit(store, &commit, &error);
    assert_true(status == ESCQRS_OK || status == ESCQRS_CONDITION_FAILED);
    assert_true(status == ESCQRS_OK ? error.position == 0 : error.position > after);
    return error.position;
}

static void must(escqrs_store *store, event what)
{
    assert_int_equal(put(store, what, NULL, NULL, NULL, NULL), ESCQRS_OK);
}

static void check_conditions(escqrs_store *store)
{
    assert_int_equal(blocked_by(store, "Booked", NULL, NULL, 0), 1);
    assert_int_equal(blocked_by(store, "Booked", NULL, NULL, 1), 3);
    assert_int_equal(blocked_by(store, "Booked", NULL, NULL, 3), 0);
    assert_int_equal(blocked_by(store, "Left", NULL, NULL, 1), 2);
    assert_int_equal(blocked_by(store, "Unheard", NULL, NULL, 0), 0);
    assert_int_equal(blocked_by(store, NULL, "room-7", NULL, 0), 1);
    assert_int_equal(blocked_by(store, NULL, "room-7", NULL, 1), 2);
    assert_int_equal(blocked_by(store, NULL, "room-7", "vip", 0), 2);
    assert_int_equal(blocked_by(store, "Booked", "room-7", "vip", 0), 0);
    assert_int_equal(blocked_by(store, "Booked", "vip", NULL, 0), 3);
    assert_int_equal(blocked_by(store, NULL, NULL, NULL, 2), 3);
    assert_int_equal(blocked_by(store, NULL, NULL, NULL, escqrs_store_head(store)), 0);
}

static void test_conditions(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    assert_int_equal(blocked_by(store, NULL, NULL, NULL, 0), 0);
    must(store, (event){.type = "Booked", .tags = {"room-7"}});
    must(store, (event){.type = "Left", .tags = {"vip", "room-7", "vip"}});
    must(store, (event){.type = "Booked", .tags = {"vip"}});
    must(store, (event){.type = "Other"});
    check_conditions(store);
    check_conditions(store);
    escqrs_store_close(store);
    escqrs_store_destroy(store);
    store = open_store(fixture_path); /* memory has watched nothing now */
    check_conditions(store);
    check_conditions(store);
    must(store, (event){.type = "Left"});
    assert_int_equal(blocked_by(store, "Left", NULL, NULL, 2), 5);
    escqrs_store_destroy(store);
}

static void ignore(escqrs_commit *commit)
{
    (void)commit;
}

/* Two commits of one batch: the second one sees the first. */
static void test_condition_in_a_batch(void **state)
{
    (void)state;
    escqrs_store *store = open_with(fixture_path, &(escqrs_store_options){.manual = true});
    escqrs_slice types[1] = {text("Booked")}, tags[1] = {text("room-7")};
    escqrs_match match = {.types = types, .type_count = 1, .tags = tags, .tag_count = 1};
    escqrs_condition condition = {&match, 1, 0};
    escqrs_new_event one = {
        .type = type_of(store, "Booked"), .data = text("x"), .tags = tags, .tag_count = 1};
    escqrs_write writes[2];
    escqrs_commit commits[2] = {{0}, {0}};
    escqrs_error error = {0};
    for (int i = 0; i < 2; i++) {
        writes[i] = (escqrs_write){text("s"), ESCQRS_EXPECT_ANY, &one, 1, 0};
        commits[i] = (escqrs_commit){.writes = &writes[i],
                                     .write_count = 1,
                                     .condition = &condition,
                                     .done = ignore,
                                     .error = &error};
        assert_int_equal(escqrs_store_submit(store, &commits[i], NULL), ESCQRS_OK);
    }
    assert_int_equal(escqrs_store_pump(store), 2);
    assert_int_equal(commits[0].status, ESCQRS_OK);
    assert_int_equal(commits[1].status, ESCQRS_CONDITION_FAILED);
    assert_int_equal(error.position, 1);
    escqrs_store_destroy(store);
}

/* What a batch wrote that failed is not seen: no event, no tag, no id. */
static void test_condition_after_a_failed_commit(void **state)
{
    (void)state;
    fault_vfs_register();
    fault_vfs_arm(FAULT_NONE, 0, false);
    escqrs_store_options options = {.sqlite_vfs = FAULT_VFS_NAME};
    escqrs_store *store = open_with(fixture_path, &options);
    event what = {.type = "Booked", .tags = {"room-7"}, .id = "id-1"};
    must(store, (event){.type = "Booked"});
    fault_vfs_arm(FAULT_FULL, 1, true);
    assert_int_equal(put(store, what, NULL, NULL, NULL, NULL), ESCQRS_FULL);
    fault_vfs_arm(FAULT_NONE, 0, false);
    assert_int_equal(blocked_by(store, "Booked", NULL, NULL, 1), 0);
    assert_int_equal(blocked_by(store, NULL, "room-7", NULL, 0), 0);
    must(store, (event){.type = "Other"}); /* where the failed one would have stood */
    assert_int_equal(blocked_by(store, "Booked", NULL, NULL, 1), 0);
    must(store, what);
    assert_int_equal(blocked_by(store, "Booked", NULL, NULL, 1), 3);
    escqrs_store_destroy(store);
}

static void test_ids(void **state)
{
    (void)state;
    const char *uuid = "018f2d5a-7b3c-7abc-8def-0123456789ab";
    escqrs_store *store = open_store(fixture_path);
    escqrs_error error = {0};
    must(store, (event){.type = "A", .id = uuid});
    must(store, (event){.type = "A", .id = "order-1"});
    must(store, (event){.type = "A"});
    for (int round = 0; round < 2; round++) {
        event again = {.type = "B", .id = uuid};
        assert_int_equal(put(store, again, NULL, NULL, NULL, &error), ESCQRS_KEY_REUSED);
        assert_string_equal(error.subject, uuid);
        again.id = "order-1";
        assert_int_equal(put(store, again, NULL, NULL, NULL, &error), ESCQRS_KEY_REUSED);
        assert_string_equal(error.subject, "order-1");
        escqrs_store_destroy(store);
        store = open_store(fixture_path);
    }
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    char own[ESCQRS_UUID_TEXT_SIZE];
    assert_int_equal(escqrs_store_events(store, NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
    escqrs_uuid_format(&recorded->id, own);
    assert_string_equal(own, uuid);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
    assert_true(escqrs_slice_equal(recorded->id_text, text("order-1")));
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
    assert_int_equal(recorded->id_text.size, 0);
    escqrs_uuid_format(&recorded->id, own); /* one that the store made is taken, too */
    escqrs_cursor_close(cursor);
    assert_int_equal(put(store, (event){.type = "B", .id = own}, NULL, NULL, NULL, &error),
                     ESCQRS_KEY_REUSED);
    assert_int_equal(escqrs_store_head(store), 3);
    escqrs_store_destroy(store);
}

static void test_ids_in_one_commit(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    escqrs_new_event two[2] = {{.type = type_of(store, "A"), .id_text = text("x")},
                               {.type = type_of(store, "A"), .id_text = text("x")}};
    escqrs_write write = {text("s"), 0, two, 2, 0};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_KEY_REUSED);
    assert_int_equal(escqrs_store_head(store), 0);
    escqrs_store_destroy(store);
}

static void test_key_compares_tags(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    escqrs_commit result;
    event what = {.type = "A", .tags = {"x"}}, other = {.type = "A", .tags = {"y"}};
    assert_int_equal(put(store, what, NULL, "k", NULL, NULL), ESCQRS_OK);
    must(store, other);
    assert_int_equal(put(store, what, NULL, "k", &result, NULL), ESCQRS_OK);
    assert_true(result.repeated);
    assert_int_equal(result.position, 1);
    assert_int_equal(put(store, other, NULL, "k", NULL, NULL), ESCQRS_KEY_REUSED);
    escqrs_store_destroy(store);
}

static void test_origin(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    escqrs_pair pair = {text("by"), text("ann")};
    escqrs_origin origin = {
        .causation_text = text("cause"), .metadata = &pair, .metadata_count = 1};
    escqrs_new_event one = {.type = type_of(store, "A"), .data = text("x"), .origin = &origin};
    escqrs_write write = {text("s"), 0, &one, 1, 0};
    escqrs_commit commit = {.writes = &write, .write_count = 1};
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    assert_int_equal(escqrs_store_commit(store, &commit, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_store_events(store, NULL, &cursor, NULL), ESCQRS_OK);
    assert_int_equal(escqrs_cursor_next(cursor, &recorded, NULL), ESCQRS_OK);
    assert_true(escqrs_slice_equal(recorded->causation_text, text("cause")));
    assert_true(escqrs_slice_equal(recorded->correlation_text, text("cause")));
    assert_int_equal(recorded->metadata_count, 1);
    assert_true(escqrs_slice_equal(recorded->metadata[0].value, text("ann")));
    escqrs_cursor_close(cursor);
    escqrs_store_destroy(store);
}

/* Positions that a reader gets, as text. */
static void read_tags(escqrs_store *store, escqrs_range range, const char *tag, const char *other,
                      const char *expected)
{
    char positions[400] = "";
    const char *names[2][TAGS_MAX] = {{tag}, {other}};
    escqrs_slice tags[2][TAGS_MAX];
    escqrs_match matches[2];
    for (int i = 0; i < 2; i++) {
        matches[i] = (escqrs_match){.tags = tags[i], .tag_count = fill_tags(names[i], tags[i])};
    }
    range.matches = matches;
    range.match_count = other != NULL ? 2 : 1;
    escqrs_cursor *cursor;
    const escqrs_recorded *recorded;
    assert_int_equal(escqrs_store_events(store, &range, &cursor, NULL), ESCQRS_OK);
    while (escqrs_cursor_next(cursor, &recorded, NULL) == ESCQRS_OK) {
        size_t size = strlen(positions);
        snprintf(positions + size, sizeof positions - size, "%lld ", (long long)recorded->position);
    }
    escqrs_cursor_close(cursor);
    assert_string_equal(positions, expected);
}

static void test_reading_by_tags(void **state)
{
    (void)state;
    escqrs_store *store = open_store(fixture_path);
    for (int i = 1; i <= 12; i++) {
        event one = {.type = "A"};
        size_t count = 0;
        if (i % 3 == 0) {
            one.tags[count++] = "three";
        }
        if (i % 4 == 0) {
            one.tags[count++] = "four";
        }
        must(store, one);
    }
    read_tags(store, (escqrs_range){0}, "three", NULL, "3 6 9 12 ");
    read_tags(store, (escqrs_range){.reverse = true}, "three", NULL, "12 9 6 3 ");
    read_tags(store, (escqrs_range){0}, "four", "three", "3 4 6 8 9 12 ");
    read_tags(store, (escqrs_range){.reverse = true}, "four", "three", "12 9 8 6 4 3 ");
    read_tags(store, (escqrs_range){.after = 3, .upto = 9}, "three", "four", "4 6 8 9 ");
    read_tags(store, (escqrs_range){.after = 3, .limit = 2}, "three", NULL, "6 9 ");
    read_tags(store, (escqrs_range){0}, "five", NULL, "");
    escqrs_store_destroy(store);
}

int main(void)
{
    alarm(TIME_LIMIT_S);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_conditions, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_condition_in_a_batch, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_condition_after_a_failed_commit, setup_folder,
                                        teardown_folder),
        cmocka_unit_test_setup_teardown(test_ids, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_ids_in_one_commit, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_key_compares_tags, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_origin, setup_folder, teardown_folder),
        cmocka_unit_test_setup_teardown(test_reading_by_tags, setup_folder, teardown_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
