/* Definitions of read models, checked in a scratch database; see the header. */
#include "readmodel/definition.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/checksum.h"
#include "readmodel/install.h"
#include "readmodel/sql.h"

/* ---- what a statement may do -------------------------------------------------------------------- */

static bool is_system_table(const char *name)
{
    return name != NULL && sqlite3_strnicmp(name, "sqlite_", 7) == 0;
}

static int deny(esc_definition *definition, const char *what)
{
    definition->denied = what;
    return SQLITE_DENY;
}

/* Of a projection's statement. */
static int authorize_statement(esc_definition *definition, int action, const char *first,
                               const char *second)
{
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_RECURSIVE:
        return SQLITE_OK;
    case SQLITE_READ:
        return is_system_table(first) ? deny(definition, "read SQLite's own tables") : SQLITE_OK;
    case SQLITE_INSERT:
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
        /* a DROP shows as a DELETE from sqlite_master first */
        return is_system_table(first)
                   ? deny(definition, "change the schema, or SQLite's own tables")
                   : SQLITE_OK;
    case SQLITE_FUNCTION:
        if (second != NULL && sqlite3_stricmp(second, "load_extension") == 0) {
            return deny(definition, "load extensions");
        }
        return SQLITE_OK;
    case SQLITE_PRAGMA: /* full-text tables ask for it */
        return first != NULL && sqlite3_stricmp(first, "data_version") == 0
                   ? SQLITE_OK
                   : deny(definition, "run PRAGMA");
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
        return deny(definition, "attach files");
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
        return deny(definition, "begin or end transactions");
    default:
        return deny(definition, "change the schema");
    }
}

static int authorize_schema(esc_definition *definition, int action, const char *first,
                            const char *second)
{
    switch (action) {
    case SQLITE_ATTACH:
    case SQLITE_DETACH:
    case SQLITE_PRAGMA:
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
    case SQLITE_FUNCTION:
        return authorize_statement(definition, action, first, second);
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_TEMP_VIEW:
        return deny(definition, "make temporary tables");
    case SQLITE_ANALYZE:
        return deny(definition, "run ANALYZE");
    default:
        return SQLITE_OK;
    }
}

static int authorize(void *context, int action, const char *first, const char *second,
                     const char *database, const char *trigger)
{
    (void)database;
    (void)trigger;
    esc_definition *definition = context;
    if (!definition->guarded) {
        return SQLITE_OK; /* our own */
    }
    return definition->running_schema ? authorize_schema(definition, action, first, second)
                                      : authorize_statement(definition, action, first, second);
}

/* ---- text --------------------------------------------------------------------------------------- */

#define SHOWN_SIZE 600    /* of a statement in an error's text */
#define EXTENT_SIZE 20000 /* a statement's end is looked for so far */

/* The statement on one line for an error's text; "..." stands for what is left out at its end. */
static const char *shown(escqrs_slice sql, char text[SHOWN_SIZE])
{
    const char *source = sql.data;
    size_t used = 0;
    size_t i = 0;
    bool gap = false;
    for (; i < sql.size && used < SHOWN_SIZE - 6; i++) {
        if (isspace((unsigned char)source[i])) {
            gap = used > 0;
            continue;
        }
        if (gap) {
            text[used++] = ' ';
            gap = false;
        }
        text[used++] = source[i];
    }
    if (i < sql.size) {
        while (used > 0 && ((unsigned char)text[used - 1] & 0xc0) == 0x80) {
            used--; /* no character is split */
        }
        if (used > 0 && (unsigned char)text[used - 1] >= 0xc0) {
            used--;
        }
        memcpy(text + used, "...", 3);
        used += 3;
    }
    text[used] = '\0';
    return text;
}

/* White space, semicolons and comments at the beginning. */
static size_t blank_size(const char *text, size_t size)
{
    size_t i = 0;
    while (i < size && text[i] != '\0') {
        if (isspace((unsigned char)text[i]) || text[i] == ';') {
            i++;
        } else if (i + 1 < size && text[i] == '-' && text[i + 1] == '-') {
            while (i < size && text[i] != '\n') {
                i++;
            }
        } else if (i + 1 < size && text[i] == '/' && text[i + 1] == '*') {
            i += 2;
            while (i + 1 < size && !(text[i] == '*' && text[i + 1] == '/')) {
                i++;
            }
            i = i + 2 > size ? size : i + 2;
        } else {
            return i;
        }
    }
    return size;
}

static bool is_blank(const char *text, size_t size)
{
    return blank_size(text, size) == size;
}

/* Is the first word of the statement one of these? In capital letters, ended by NULL. */
static bool begins_with(const char *text, size_t size, const char *const *words)
{
    size_t blank = blank_size(text, size);
    text += blank;
    size -= blank;
    for (; *words != NULL; words++) {
        size_t length = strlen(*words);
        if (size >= length && sqlite3_strnicmp(text, *words, (int)length) == 0 &&
            (size == length || !(isalnum((unsigned char)text[length]) || text[length] == '_'))) {
            return true;
        }
    }
    return false;
}

/* SQLite asks no authorizer about VACUUM, nor about REINDEX where there is no index. */
static const char *const projection_words[] = {"INSERT", "REPLACE", "UPDATE", "DELETE",
                                               "WITH",   "SELECT",  "VALUES", NULL};
static const char *const vacuum_words[] = {"VACUUM", NULL};

/* Size of the first statement, which may be wrong: up to the semicolon that ends it. */
static size_t statement_size(const char *text, size_t size)
{
    char *copy = escqrs_alloc(EXTENT_SIZE + 1);
    size_t found = size;
    for (size_t i = 0; copy != NULL && found == size && i < size && i < EXTENT_SIZE; i++) {
        copy[i] = text[i];
        copy[i + 1] = '\0';
        if (text[i] == ';' && sqlite3_complete(copy)) {
            found = i;
        }
    }
    escqrs_free(copy);
    return found;
}

static int line_of(escqrs_slice text, const char *place)
{
    int line = 1;
    for (const char *c = text.data; c < place; c++) {
        line += *c == '\n';
    }
    return line;
}

/* ---- scratch -------------------------------------------------------------------------------------- */

static escqrs_status open_database(const char *path, sqlite3 **db, escqrs_error *error)
{
    int code = sqlite3_open_v2(
        path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK) {
        escqrs_status status = esc_rmsql_error(error, *db, code, "opening a scratch database");
        (void)sqlite3_close(*db);
        *db = NULL;
        return status;
    }
    (void)sqlite3_limit(*db, SQLITE_LIMIT_ATTACHED, 0);
    return ESCQRS_OK;
}

escqrs_status esc_definition_check(esc_definition *definition, escqrs_slice sql, bool must_write,
                                   sqlite3_stmt **statement, escqrs_error *error)
{
    char text[SHOWN_SIZE];
    if (statement != NULL) {
        *statement = NULL;
    }
    if (is_blank(sql.data, sql.size)) {
        return escqrs_error_set(error, ESCQRS_INVALID, "read model %s: empty SQL",
                                definition->name);
    }
    if (memchr(sql.data, '\0', sql.size) != NULL || sql.size > 1000000) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "read model %s: SQL with a NUL or of more than 1,000,000 bytes",
                                definition->name);
    }
    definition->denied = "";
    sqlite3_stmt *prepared = NULL;
    const char *tail = NULL;
    definition->guarded = true;
    int code = sqlite3_prepare_v2(definition->scratch, sql.data, (int)sql.size, &prepared, &tail);
    definition->guarded = false;
    if (code == SQLITE_OK && !begins_with(sql.data, sql.size, projection_words)) {
        code = SQLITE_AUTH;
        definition->denied = "run anything but INSERT, REPLACE, UPDATE, DELETE and SELECT";
    }
    escqrs_status status = ESCQRS_OK;
    if (code == SQLITE_AUTH) {
        status =
            escqrs_error_set(error, ESCQRS_INVALID, "read model %s: a projection may not %s: %s",
                             definition->name, definition->denied, shown(sql, text));
    } else if (code != SQLITE_OK) {
        const char *reason = sqlite3_errmsg(definition->scratch);
        bool table = strncmp(reason, "no such table", 13) == 0;
        status =
            escqrs_error_set(error, code == SQLITE_NOMEM ? ESCQRS_NO_MEMORY : ESCQRS_INVALID,
                             "read model %s: %s%s, in: %s", definition->name, reason,
                             table ? " (a projection sees its own read model's tables alone)" : "",
                             shown(sql, text));
    } else if (!is_blank(tail, (size_t)((const char *)sql.data + sql.size - tail))) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "read model %s: more than one statement; give each its own: %s",
                                  definition->name, shown(sql, text));
    } else if (must_write && sqlite3_stmt_readonly(prepared)) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "read model %s: the statement changes nothing: %s",
                                  definition->name, shown(sql, text));
    }
    if (status != ESCQRS_OK || statement == NULL) {
        (void)sqlite3_finalize(prepared);
        return status;
    }
    *statement = prepared;
    return ESCQRS_OK;
}

/* Which statement of the schema failed, and where it stands. */
static escqrs_status say_schema_failed(esc_definition *definition, escqrs_slice schema,
                                       const char *rest, int code, escqrs_error *error)
{
    char text[SHOWN_SIZE];
    size_t left = (size_t)((const char *)schema.data + schema.size - rest);
    size_t blank = blank_size(rest, left);
    escqrs_slice statement = {rest + blank, statement_size(rest + blank, left - blank)};
    int offset = sqlite3_error_offset(definition->scratch); /* -1: it has no place */
    const char *place = offset < 0 ? statement.data : rest + offset;
    bool denied = (code & 0xff) == SQLITE_AUTH;
    return escqrs_error_set(error, code == SQLITE_NOMEM ? ESCQRS_NO_MEMORY : ESCQRS_INVALID,
                            "read model %s: schema, line %d: %s%s, in: %s", definition->name,
                            line_of(schema, place), denied ? "it may not " : "",
                            denied ? definition->denied : sqlite3_errmsg(definition->scratch),
                            shown(statement, text));
}

/* Run one statement of the schema; `*rest` moves behind it. */
static escqrs_status run_schema_statement(esc_definition *definition, escqrs_slice schema,
                                          const char **rest, escqrs_error *error)
{
    char text[SHOWN_SIZE];
    const char *end = (const char *)schema.data + schema.size;
    sqlite3_stmt *statement = NULL;
    const char *tail = NULL;
    definition->denied = "";
    int code =
        sqlite3_prepare_v2(definition->scratch, *rest, (int)(end - *rest), &statement, &tail);
    if (code == SQLITE_OK && begins_with(*rest, (size_t)(end - *rest), vacuum_words)) {
        code = SQLITE_AUTH;
        definition->denied = "run VACUUM";
    }
    escqrs_status status = ESCQRS_OK;
    if (code == SQLITE_OK && statement != NULL && sqlite3_bind_parameter_count(statement) > 0) {
        status = escqrs_error_set(error, ESCQRS_INVALID,
                                  "read model %s: a schema has no parameters: %s", definition->name,
                                  shown((escqrs_slice){*rest, (size_t)(tail - *rest)}, text));
    } else if (code == SQLITE_OK && statement != NULL) {
        do {
            code = sqlite3_step(statement);
        } while (code == SQLITE_ROW);
        code = code == SQLITE_DONE ? SQLITE_OK : code;
    }
    if (code != SQLITE_OK) {
        status = say_schema_failed(definition, schema, *rest, code, error);
    }
    (void)sqlite3_finalize(statement);
    *rest = tail != NULL && tail > *rest ? tail : end;
    return status;
}

static escqrs_status run_schema(esc_definition *definition, escqrs_slice schema,
                                escqrs_error *error)
{
    const char *rest = schema.data;
    const char *end = rest + schema.size;
    definition->guarded = definition->running_schema = true;
    escqrs_status status = ESCQRS_OK;
    while (status == ESCQRS_OK && !is_blank(rest, (size_t)(end - rest))) {
        status = run_schema_statement(definition, schema, &rest, error);
    }
    definition->guarded = definition->running_schema = false;
    return status;
}

/* ---- objects -------------------------------------------------------------------------------------- */

static esc_object_kind kind_of(escqrs_slice type, escqrs_slice listed)
{
    if (escqrs_slice_equal(type, escqrs_slice_of("index"))) {
        return ESC_OBJECT_INDEX;
    }
    if (escqrs_slice_equal(type, escqrs_slice_of("view"))) {
        return ESC_OBJECT_VIEW;
    }
    if (escqrs_slice_equal(type, escqrs_slice_of("trigger"))) {
        return ESC_OBJECT_TRIGGER;
    }
    if (escqrs_slice_equal(listed, escqrs_slice_of("virtual"))) {
        return ESC_OBJECT_VIRTUAL;
    }
    if (escqrs_slice_equal(listed, escqrs_slice_of("shadow"))) {
        return ESC_OBJECT_SHADOW;
    }
    return ESC_OBJECT_TABLE;
}

static escqrs_status add_object(esc_definition *definition, sqlite3_stmt *row, escqrs_error *error)
{
    esc_object object = {.kind = kind_of(esc_rmsql_column(row, 0), esc_rmsql_column(row, 3))};
    object.name = escqrs_strdup(esc_rmsql_column(row, 1));
    object.sql = escqrs_strdup(esc_rmsql_column(row, 2));
    if (object.name == NULL || object.sql == NULL ||
        esc_vector_push(&definition->objects, &object) != ESCQRS_OK) {
        escqrs_free(object.name);
        escqrs_free(object.sql);
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read model %s",
                                definition->name);
    }
    if (object.kind == ESC_OBJECT_VIRTUAL) {
        definition->has_virtual = true;
    }
    if (sqlite3_strnicmp(object.name, "escqrs", 6) == 0) {
        return escqrs_error_set(
            error, ESCQRS_NAME_CLASH,
            "read model %s makes %s; names that begin with escqrs are the engine's",
            definition->name, object.name);
    }
    return ESCQRS_OK;
}

static escqrs_status collect_objects(esc_definition *definition, escqrs_error *error)
{
    sqlite3_stmt *rows = NULL;
    escqrs_status status = esc_rmsql_prepare(
        definition->scratch,
        escqrs_slice_of("SELECT s.type, s.name, s.sql, l.type FROM sqlite_schema AS s"
                        " LEFT JOIN pragma_table_list AS l ON l.schema = 'main' AND l.name = s.name"
                        " WHERE s.name NOT LIKE 'sqlite!_%' ESCAPE '!' AND s.sql IS NOT NULL"
                        " ORDER BY s.rowid"),
        &rows, error);
    while (status == ESCQRS_OK) {
        int code = sqlite3_step(rows);
        if (code == SQLITE_DONE) {
            break;
        }
        status = code == SQLITE_ROW ? add_object(definition, rows, error)
                                    : esc_rmsql_error(error, definition->scratch, code,
                                                      "reading the schema of %s", definition->name);
    }
    (void)sqlite3_finalize(rows);
    return status;
}

/* Every table has the column by which its rows belong to streams. */
static escqrs_status check_stream_column(const esc_definition *definition, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    if (definition->stream_column == NULL) {
        return ESCQRS_OK;
    }
    if (definition->has_virtual) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "read model %s has virtual tables, whose rows cannot be told by "
                                "stream_column",
                                definition->name);
    }
    escqrs_status status = esc_rmsql_prepare(
        definition->scratch,
        escqrs_slice_of("SELECT 1 FROM pragma_table_xinfo(?1) WHERE name = ?2 COLLATE NOCASE"),
        &look, error);
    for (size_t i = 0; status == ESCQRS_OK && i < definition->objects.count; i++) {
        const esc_object *object = &ESC_VECTOR_AT(&definition->objects, esc_object, i);
        (void)sqlite3_bind_text(look, 1, object->name, -1, SQLITE_STATIC);
        (void)sqlite3_bind_text(look, 2, definition->stream_column, -1, SQLITE_STATIC);
        if (object->kind == ESC_OBJECT_TABLE && sqlite3_step(look) != SQLITE_ROW) {
            status = escqrs_error_set(error, ESCQRS_INVALID,
                                      "read model %s: table %s has no column %s, its stream_column",
                                      definition->name, object->name, definition->stream_column);
        }
        (void)sqlite3_reset(look);
    }
    (void)sqlite3_finalize(look);
    return status;
}

/* ---- projections ------------------------------------------------------------------------------------ */

static bool copy_tags(esc_projection *projection, const escqrs_projection *spec)
{
    if (spec->tag_count == 0) {
        return true;
    }
    projection->tags = escqrs_alloc_zero(spec->tag_count * sizeof(char *));
    for (size_t i = 0; projection->tags != NULL && i < spec->tag_count; i++) {
        projection->tags[i] = escqrs_strdup(spec->tags[i]);
        if (projection->tags[i] == NULL) {
            return false;
        }
        projection->tag_count = i + 1;
    }
    return projection->tags != NULL;
}

static escqrs_status projection_init(esc_definition *definition, esc_projection *projection,
                                     const escqrs_projection *spec, escqrs_error *error)
{
    projection->schema = spec->schema;
    projection->apply = spec->apply;
    projection->context = spec->context;
    projection->type = escqrs_strdup(spec->type);
    if (projection->type == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read model %s",
                                definition->name);
    }
    if (!copy_tags(projection, spec)) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read model %s",
                                definition->name);
    }
    if (spec->apply != NULL) {
        definition->has_apply = true;
        return ESCQRS_OK;
    }
    ESC_ASSERT(spec->schema != NULL || spec->type.size == 0);
    sqlite3_stmt *statement = NULL;
    escqrs_status status = esc_definition_check(definition, spec->sql, true, &statement, error);
    if (status == ESCQRS_OK) {
        escqrs_error cause = {0};
        char text[SHOWN_SIZE];
        status =
            esc_binding_plan_make(&projection->plan, statement, spec->schema, spec->each, &cause);
        if (status != ESCQRS_OK) {
            (void)escqrs_error_set(error, status, "read model %s: %s, in: %s", definition->name,
                                   cause.message, shown(spec->sql, text));
        }
    }
    (void)sqlite3_finalize(statement);
    if (status == ESCQRS_OK) {
        projection->sql = escqrs_strdup(spec->sql);
        if (projection->sql == NULL) {
            status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read model %s",
                                      definition->name);
        }
    }
    if (status == ESCQRS_OK && spec->defaults.size > 0) {
        status =
            escqrs_message_unpack(spec->schema, spec->defaults, NULL, &projection->defaults, error);
    }
    return status;
}

static void projection_fini(esc_projection *projection)
{
    for (size_t i = 0; i < projection->tag_count; i++) {
        escqrs_free(projection->tags[i]);
    }
    escqrs_free(projection->tags);
    escqrs_free(projection->type);
    escqrs_free(projection->sql);
    escqrs_message_free(projection->defaults);
    esc_binding_plan_fini(&projection->plan);
}

/* ---- inline ------------------------------------------------------------------------------------------ */

static bool has_word(escqrs_slice text, const char *word)
{
    int size = (int)strlen(word);
    for (size_t i = 0; i + (size_t)size <= text.size; i++) {
        if (sqlite3_strnicmp((const char *)text.data + i, word, size) == 0) {
            return true;
        }
    }
    return false;
}

/* What runs in the transaction of others' commits may not end it. */
static escqrs_status check_inline(const esc_definition *definition,
                                  const escqrs_readmodel_spec *spec, escqrs_error *error)
{
    if (!definition->is_inline) {
        return ESCQRS_OK;
    }
    if (definition->file != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "read model %s is inline: its tables lie in the store's file, as "
                                "one transaction writes them and the events",
                                definition->name);
    }
    if (definition->has_apply) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "read model %s is inline: SQL alone can be, as it runs in the "
                                "transaction of the commits",
                                definition->name);
    }
    bool rolls_back = has_word(spec->schema, "rollback");
    for (size_t i = 0; i < spec->projection_count; i++) {
        rolls_back = rolls_back || has_word(spec->projections[i].sql, "rollback");
    }
    return rolls_back ? escqrs_error_set(error, ESCQRS_INVALID,
                                         "read model %s is inline: its SQL may not say ROLLBACK, "
                                         "which would take other commits back",
                                         definition->name)
                      : ESCQRS_OK;
}

/* ---- fingerprint -------------------------------------------------------------------------------------- */

/* Each piece with its length before it, so that no two definitions run together. */
static escqrs_status add_piece(esc_buffer *text, escqrs_slice piece)
{
    uint64_t size = piece.size;
    escqrs_status status = esc_buffer_append(text, &size, sizeof size);
    return status == ESCQRS_OK ? esc_buffer_append_slice(text, piece) : status;
}

/* Nothing where there are none. */
static escqrs_status add_filters(esc_buffer *text, const escqrs_projection *projection)
{
    escqrs_status status = ESCQRS_OK;
    if (projection->each.size > 0) {
        status = add_piece(text, escqrs_slice_of("each"));
        if (status == ESCQRS_OK) {
            status = add_piece(text, projection->each);
        }
    }
    for (size_t i = 0; status == ESCQRS_OK && i < projection->tag_count; i++) {
        status = add_piece(text, escqrs_slice_of("tag"));
        if (status == ESCQRS_OK) {
            status = add_piece(text, projection->tags[i]);
        }
    }
    return status;
}

static escqrs_status make_fingerprint(esc_definition *definition, const escqrs_readmodel_spec *spec,
                                      escqrs_error *error)
{
    esc_buffer text = {0};
    escqrs_status status = add_piece(&text, spec->schema);
    if (status == ESCQRS_OK) {
        status = add_piece(&text, spec->version);
    }
    for (size_t i = 0; status == ESCQRS_OK && i < spec->projection_count; i++) {
        const escqrs_projection *projection = &spec->projections[i];
        escqrs_slice kind = escqrs_slice_of(projection->apply != NULL ? "apply" : "sql");
        status = add_piece(&text, projection->type);
        if (status == ESCQRS_OK) {
            status = add_piece(&text, kind);
        }
        if (status == ESCQRS_OK) {
            status =
                add_piece(&text, projection->apply != NULL ? projection->name : projection->sql);
        }
        if (status == ESCQRS_OK) {
            status = add_filters(&text, projection);
        }
    }
    if (status == ESCQRS_OK) {
        snprintf(definition->fingerprint, sizeof definition->fingerprint, "%016llx%016llx",
                 (unsigned long long)esc_hash(esc_buffer_slice(&text), 1),
                 (unsigned long long)esc_hash(esc_buffer_slice(&text), 2));
    } else {
        (void)escqrs_error_set(error, status, "no memory for read model %s", definition->name);
    }
    esc_buffer_fini(&text);
    return status;
}

/* To SQLite's authorizer the first use of json_each on a connection is an UPDATE of the schema,
 * which no projection may do: it is had here, where our own statements run. An SQLite without JSON
 * has none. */
static void connect_table_functions(sqlite3 *scratch)
{
    sqlite3_stmt *statement = NULL;
    (void)sqlite3_prepare_v2(scratch, "SELECT 1 FROM json_each('[]'), json_tree('[]')", -1,
                             &statement, NULL);
    (void)sqlite3_finalize(statement);
}

/* ---- definition ------------------------------------------------------------------------------------------ */

#define NAME_MAX_SIZE 255
#define SCHEMA_MAX_SIZE 1000000
#define RETRY_DELAY_NS 100000000LL
#define RETRY_DELAY_MAX_NS 30000000000LL

/* What the spec says in so many words. */
static escqrs_status copy_spec(esc_definition *definition, const escqrs_readmodel_spec *spec,
                               escqrs_error *error)
{
    definition->rebuild_manual = spec->rebuild_manual;
    definition->is_inline = spec->is_inline;
    definition->on_error = spec->on_error;
    if (definition->on_error.retry_delay_ns <= 0) {
        definition->on_error.retry_delay_ns = RETRY_DELAY_NS;
    }
    if (definition->on_error.retry_delay_max_ns <= 0) {
        definition->on_error.retry_delay_max_ns = RETRY_DELAY_MAX_NS;
    }
    if (spec->name.size == 0 || spec->name.size > NAME_MAX_SIZE ||
        memchr(spec->name.data, '\0', spec->name.size) != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "the name of a read model has 1 to %d bytes and no NUL",
                                NAME_MAX_SIZE);
    }
    definition->name = escqrs_strdup(spec->name);
    definition->projections =
        escqrs_alloc_zero((spec->projection_count + 1) * sizeof(esc_projection));
    if (spec->file.size > 0) {
        definition->file = escqrs_strdup(spec->file);
    }
    if (spec->stream_column.size > 0) {
        definition->stream_column = escqrs_strdup(spec->stream_column);
    }
    if (definition->name == NULL || definition->projections == NULL ||
        (spec->stream_column.size > 0 && definition->stream_column == NULL) ||
        (spec->file.size > 0 && definition->file == NULL)) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a read model");
    }
    return ESCQRS_OK;
}

/* Its tables, made in a database of their own: the scratch, in which its SQL is tried too. */
static escqrs_status try_schema(esc_definition *definition, escqrs_slice schema,
                                escqrs_error *error)
{
    if ((schema.size > 0 && memchr(schema.data, '\0', schema.size) != NULL) ||
        schema.size > SCHEMA_MAX_SIZE) {
        return escqrs_error_set(
            error, ESCQRS_INVALID,
            "read model %s: a schema with a NUL or of more than 1,000,000 bytes", definition->name);
    }
    escqrs_status status = open_database(":memory:", &definition->scratch, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    (void)sqlite3_set_authorizer(definition->scratch, authorize, definition);
    connect_table_functions(definition->scratch);
    if ((status = run_schema(definition, schema, error)) != ESCQRS_OK ||
        (status = collect_objects(definition, error)) != ESCQRS_OK) {
        return status;
    }
    if (definition->objects.count == 0 && schema.size > 0) {
        return escqrs_error_set(error, ESCQRS_INVALID, "read model %s: its schema makes no table",
                                definition->name);
    }
    return ESCQRS_OK;
}

escqrs_status esc_definition_init(esc_definition *definition, const escqrs_readmodel_spec *spec,
                                  escqrs_error *error)
{
    *definition = (esc_definition){.objects = ESC_VECTOR_OF(esc_object), .denied = ""};
    escqrs_status status = copy_spec(definition, spec, error);
    if (status != ESCQRS_OK ||
        (status = try_schema(definition, spec->schema, error)) != ESCQRS_OK) {
        goto fail;
    }
    for (size_t i = 0; i < spec->projection_count; i++) {
        definition->projection_count = i + 1;
        status =
            projection_init(definition, &definition->projections[i], &spec->projections[i], error);
        if (status != ESCQRS_OK) {
            goto fail;
        }
    }
    if ((status = check_stream_column(definition, error)) != ESCQRS_OK ||
        (status = check_inline(definition, spec, error)) != ESCQRS_OK ||
        (status = make_fingerprint(definition, spec, error)) != ESCQRS_OK) {
        goto fail;
    }
    return ESCQRS_OK;

fail:
    esc_definition_fini(definition);
    return status;
}

void esc_definition_fini(esc_definition *definition)
{
    for (size_t i = 0; definition->projections != NULL && i < definition->projection_count; i++) {
        projection_fini(&definition->projections[i]);
    }
    for (size_t i = 0; i < definition->objects.count; i++) {
        esc_object *object = &ESC_VECTOR_AT(&definition->objects, esc_object, i);
        escqrs_free(object->name);
        escqrs_free(object->sql);
    }
    esc_vector_fini(&definition->objects);
    escqrs_free(definition->projections);
    escqrs_free(definition->file);
    escqrs_free(definition->stream_column);
    escqrs_free(definition->name);
    (void)sqlite3_close(definition->scratch);
    *definition = (esc_definition){0};
}

escqrs_status esc_definition_make_copy(const esc_definition *definition, sqlite3 *from,
                                       bool in_memory, sqlite3 **copy, escqrs_error *error)
{
    escqrs_status status = open_database(in_memory ? ":memory:" : "", copy, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_rmsql_exec(*copy, "PRAGMA synchronous=OFF; BEGIN", error);
    if (status == ESCQRS_OK) {
        status = esc_install(definition, from, *copy, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_rmsql_exec(*copy, "COMMIT", error);
    }
    if (status != ESCQRS_OK) {
        (void)sqlite3_close(*copy);
        *copy = NULL;
    }
    return status;
}
