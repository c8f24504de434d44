/* A store with one type of event, for the tests of read models: what is appended, opened and looked
 * at. */
#ifndef ESC_TESTS_READMODEL_FIXTURE_H
#define ESC_TESTS_READMODEL_FIXTURE_H

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <escqrs/readmodel.h>

#include "base/buffer.h"
#include "base/thread.h"
#include "support/test.h"

#define PATIENCE_NS INT64_C(600000000000) /* for what comes, on a machine however slow */
#define ITEMS_SCHEMA                                                                               \
    "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, quantity INTEGER NOT " \
    "NULL)"
#define ITEMS_SQL "INSERT INTO items VALUES (:_position, :name, :quantity)"

typedef struct item_added { /* laid out by the schema; filled through its fields */
    const char *name;
    int64_t quantity;
} item_added;

typedef struct fixture {
    char *folder;
    char path[512];
    escqrs_schema *schema;
    escqrs_store *store;
    escqrs_projector *projector;
    escqrs_type *type;
    escqrs_log log;
    _Atomic(int) errors_logged;
    _Atomic(int) warnings_logged;
} fixture;

static inline void fixture_log(void *context, escqrs_log_level level, const char *text)
{
    fixture *self = context;
    (void)text;
    if (level >= ESCQRS_LOG_ERROR) {
        self->errors_logged++;
    } else if (level >= ESCQRS_LOG_WARNING) {
        self->warnings_logged++;
    }
}

static inline void check(escqrs_status status, const escqrs_error *error)
{
    if (status != ESCQRS_OK) {
        print_error("%s: %s\n", escqrs_status_name(status), error->message);
    }
    assert_int_equal(status, ESCQRS_OK);
}

static inline void fixture_open_store(fixture *self)
{
    escqrs_error error = {0};
    escqrs_store_options options = {.durability = ESCQRS_DURABILITY_NORMAL, .log = self->log};
    check(escqrs_store_open(self->path, &options, &self->store, &error), &error);
    check(escqrs_store_type(self->store, escqrs_slice_of("ItemAdded"), (escqrs_slice){"", 0},
                            &self->type, &error),
          &error);
}

static inline void fixture_open_projector(fixture *self)
{
    escqrs_error error = {0};
    check(escqrs_projector_create(self->store, NULL, NULL, &self->log, &self->projector, &error),
          &error);
}

static inline void fixture_open(fixture *self)
{
    fixture_open_store(self);
    fixture_open_projector(self);
}

static inline void fixture_close(fixture *self)
{
    escqrs_projector_destroy(self->projector);
    self->projector = NULL;
    escqrs_store_close(self->store);
    escqrs_store_destroy(self->store);
    self->store = NULL;
}

static inline void fixture_reopen(fixture *self)
{
    fixture_close(self);
    fixture_open(self);
}

static inline void fixture_make_schema(fixture *self)
{
    escqrs_error error = {0};
    static const escqrs_enum_value colors[] = {{"RED", 1}, {"GREEN", 2}};
    const escqrs_field_spec fields[] = {
        {.name = "name", .number = 1, .kind = ESCQRS_KIND_STRING, .label = ESCQRS_ONE},
        {.name = "quantity", .number = 2, .kind = ESCQRS_KIND_INT, .label = ESCQRS_ONE},
        {.name = "price", .number = 3, .kind = ESCQRS_KIND_FLOAT, .label = ESCQRS_ONE},
        {.name = "gift", .number = 4, .kind = ESCQRS_KIND_BOOL, .label = ESCQRS_ONE},
        {.name = "note", .number = 5, .kind = ESCQRS_KIND_STRING, .label = ESCQRS_OPTIONAL},
        {.name = "tags", .number = 6, .kind = ESCQRS_KIND_STRING, .label = ESCQRS_LIST},
        {.name = "color",
         .number = 7,
         .kind = ESCQRS_KIND_ENUM,
         .label = ESCQRS_ONE,
         .enum_name = "Color",
         .enum_values = colors,
         .enum_value_count = 2},
        {.name = "at", .number = 8, .kind = ESCQRS_KIND_TIME, .label = ESCQRS_OPTIONAL},
        {.name = "added",
         .number = 9,
         .kind = ESCQRS_KIND_INT,
         .label = ESCQRS_ONE,
         .has_default = true},
        {.name = "raw", .number = 10, .kind = ESCQRS_KIND_BYTES, .label = ESCQRS_ONE},
    };
    check(escqrs_schema_create(escqrs_slice_of("ItemAdded"), &self->schema, &error), &error);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        check(escqrs_schema_add(self->schema, &fields[i], &error), &error);
    }
    check(escqrs_schema_seal(self->schema, &error), &error);
}

static inline int fixture_setup_at(void **state, bool in_memory)
{
    fixture *self = escqrs_alloc_zero(sizeof(fixture));
    self->log = (escqrs_log){fixture_log, self};
    self->folder = test_folder_new();
    snprintf(self->path, sizeof self->path, "%s/shop.db", self->folder);
    if (in_memory) {
        snprintf(self->path, sizeof self->path, ":memory:");
    }
    fixture_make_schema(self);
    fixture_open(self);
    *state = self;
    return 0;
}

static inline int fixture_setup(void **state)
{
    return fixture_setup_at(state, false);
}

static inline int fixture_setup_in_memory(void **state)
{
    return fixture_setup_at(state, true);
}

static inline int fixture_teardown(void **state)
{
    fixture *self = *state;
    fixture_close(self);
    escqrs_schema_destroy(self->schema);
    test_folder_remove(self->folder);
    escqrs_free(self);
    return 0;
}

#define BOTH(test)                                                                                 \
    cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown),                        \
        cmocka_unit_test_setup_teardown(test, fixture_setup_in_memory, fixture_teardown)
#define FILE_ONLY(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

/* name and quantity alone, packed by hand */
static inline void pack_item(esc_buffer *out, const char *name, int64_t quantity)
{
    assert_true(strlen(name) < 128 && quantity >= 0 && quantity < 128);
    assert_int_equal(esc_buffer_append_byte(out, 0x0a), ESCQRS_OK);
    assert_int_equal(esc_buffer_append_byte(out, (uint8_t)strlen(name)), ESCQRS_OK);
    assert_int_equal(esc_buffer_append_slice(out, escqrs_slice_of(name)), ESCQRS_OK);
    assert_int_equal(esc_buffer_append_byte(out, 0x10), ESCQRS_OK);
    assert_int_equal(esc_buffer_append_byte(out, (uint8_t)quantity), ESCQRS_OK);
}

static inline void append_data(fixture *self, escqrs_type *type, escqrs_slice data)
{
    escqrs_error error = {0};
    escqrs_new_event event = {.type = type, .data = data};
    escqrs_write write = {.stream = escqrs_slice_of("Cart/cart-1"),
                          .expected = ESCQRS_EXPECT_ANY,
                          .events = &event,
                          .event_count = 1};
    escqrs_commit commit = {.writes = &write, .write_count = 1, .error = &error};
    check(escqrs_store_commit(self->store, &commit, &error), &error);
}

static inline void append_item(fixture *self, const char *name, int64_t quantity)
{
    esc_buffer data = {0};
    pack_item(&data, name, quantity);
    append_data(self, self->type, esc_buffer_slice(&data));
    esc_buffer_fini(&data);
}

/* Many in one commit: "item-{first}" to "item-{first + count - 1}". */
static inline void append_many(fixture *self, int first, int count)
{
    escqrs_error error = {0};
    escqrs_new_event *events = escqrs_alloc_zero((size_t)count * sizeof *events);
    esc_buffer *data = escqrs_alloc_zero((size_t)count * sizeof *data);
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "item-%d", first + i);
        pack_item(&data[i], name, 1);
        events[i] = (escqrs_new_event){.type = self->type, .data = esc_buffer_slice(&data[i])};
    }
    escqrs_write write = {.stream = escqrs_slice_of("Cart/many"),
                          .expected = ESCQRS_EXPECT_ANY,
                          .events = events,
                          .event_count = (size_t)count};
    escqrs_commit commit = {.writes = &write, .write_count = 1, .error = &error};
    check(escqrs_store_commit(self->store, &commit, &error), &error);
    for (int i = 0; i < count; i++) {
        esc_buffer_fini(&data[i]);
    }
    escqrs_free(data);
    escqrs_free(events);
}

static inline escqrs_status try_add(fixture *self, const char *name, const char *schema,
                                    const char *sql, const char *version, escqrs_readmodel **model,
                                    escqrs_error *error)
{
    escqrs_projection projection = {
        .type = escqrs_slice_of("ItemAdded"), .schema = self->schema, .sql = escqrs_slice_of(sql)};
    escqrs_readmodel_spec spec = {.name = escqrs_slice_of(name),
                                  .schema = escqrs_slice_of(schema),
                                  .version = escqrs_slice_of(version),
                                  .projections = &projection,
                                  .projection_count = sql == NULL ? 0 : 1};
    return escqrs_readmodel_add(self->projector, &spec, model, error);
}

static inline escqrs_readmodel *add_items(fixture *self)
{
    escqrs_error error = {0};
    escqrs_readmodel *model = NULL;
    check(try_add(self, "Items", ITEMS_SCHEMA, ITEMS_SQL, "", &model, &error), &error);
    return model;
}

static inline void start(fixture *self)
{
    escqrs_error error = {0};
    check(escqrs_projector_start(self->projector, &error), &error);
}

static inline escqrs_status wait_head(fixture *self, escqrs_readmodel *model, escqrs_error *error)
{
    escqrs_status status = escqrs_readmodel_wait(model, escqrs_store_head(self->store),
                                                 esc_deadline_after(PATIENCE_NS), error);
    return status == ESCQRS_OK
               ? escqrs_readmodel_wait_rebuilt(model, esc_deadline_after(PATIENCE_NS), error)
               : status;
}

static inline void flush(fixture *self, escqrs_readmodel *model)
{
    escqrs_error error = {0};
    check(wait_head(self, model, &error), &error);
}

/* The one value that a query gives, as text. */
static inline void look(fixture *self, const char *sql, char text[256])
{
    void *db = NULL;
    escqrs_error error = {0};
    sqlite3_stmt *statement = NULL;
    check(escqrs_store_reader(self->store, &db, &error), &error);
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK) {
        snprintf(text, 256, "error: %s", sqlite3_errmsg(db));
    } else if (sqlite3_step(statement) == SQLITE_ROW) {
        const unsigned char *value = sqlite3_column_text(statement, 0);
        snprintf(text, 256, "%s", value == NULL ? "NULL" : (const char *)value);
    } else {
        snprintf(text, 256, "no row");
    }
    (void)sqlite3_finalize(statement);
    escqrs_store_reader_return(self->store, db);
}

static inline void assert_look(fixture *self, const char *sql, const char *expected)
{
    char text[256];
    look(self, sql, text);
    assert_string_equal(text, expected);
}

#endif
