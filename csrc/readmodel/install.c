/* Tables with their rows from one database into another; see the header. */
#include "readmodel/install.h"

#include <string.h>

#include "readmodel/sql.h"

escqrs_status esc_install_quote(esc_buffer *buffer, const char *name)
{
    escqrs_status status = esc_buffer_append_byte(buffer, '"');
    for (const char *c = name; status == ESCQRS_OK && *c != '\0'; c++) {
        if (*c == '"') {
            status = esc_buffer_append_byte(buffer, '"');
        }
        if (status == ESCQRS_OK) {
            status = esc_buffer_append_byte(buffer, (uint8_t)*c);
        }
    }
    return status == ESCQRS_OK ? esc_buffer_append_byte(buffer, '"') : status;
}

/* ---- the two statements that copy a table ------------------------------------------------------- */

typedef struct copy_texts {
    esc_buffer select; /* SELECT rowid, a, b FROM t */
    esc_buffer insert; /* INSERT OR ABORT INTO t (rowid, a, b) VALUES (?, ?, ?) */
    esc_buffer values;
    int columns;
} copy_texts;

static escqrs_status append(esc_buffer *buffer, const char *text)
{
    return esc_buffer_append_slice(buffer, escqrs_slice_of(text));
}

static escqrs_status add_column(copy_texts *texts, const char *name)
{
    escqrs_status status = ESCQRS_OK;
    if (texts->columns > 0 && ((status = append(&texts->select, ", ")) != ESCQRS_OK ||
                               (status = append(&texts->insert, ", ")) != ESCQRS_OK ||
                               (status = append(&texts->values, ", ")) != ESCQRS_OK)) {
        return status;
    }
    texts->columns++;
    if ((status = esc_install_quote(&texts->select, name)) != ESCQRS_OK ||
        (status = esc_install_quote(&texts->insert, name)) != ESCQRS_OK) {
        return status;
    }
    return append(&texts->values, "?");
}

/* The name by which the rowid can be had, or NULL: no rowid, or columns hide all its names. */
static escqrs_status rowid_name(sqlite3 *from, const char *table, const char **name,
                                escqrs_error *error)
{
    static const char *const names[] = {"rowid", "_rowid_", "oid"};
    sqlite3_stmt *look = NULL;
    *name = NULL;
    escqrs_status status = esc_rmsql_prepare(
        from,
        escqrs_slice_of("SELECT l.wr, (SELECT count(*) FROM pragma_table_xinfo(?1) AS c"
                        " WHERE c.name = ?2 COLLATE NOCASE)"
                        " FROM pragma_table_list AS l WHERE l.schema = 'main' AND l.name = ?1"),
        &look, error);
    for (size_t i = 0; status == ESCQRS_OK && *name == NULL && i < 3; i++) {
        (void)sqlite3_bind_text(look, 1, table, -1, SQLITE_STATIC);
        (void)sqlite3_bind_text(look, 2, names[i], -1, SQLITE_STATIC);
        int code = sqlite3_step(look);
        if (code != SQLITE_ROW) {
            status = esc_rmsql_error(error, from, code, "looking at table %s", table);
        } else if (sqlite3_column_int(look, 0) != 0) {
            break;
        } else if (sqlite3_column_int(look, 1) == 0) {
            *name = names[i];
        }
        (void)sqlite3_reset(look);
    }
    (void)sqlite3_finalize(look);
    return status;
}

/* `added`: to rows that are there, which have rowids already. */
static escqrs_status add_columns(copy_texts *texts, sqlite3 *from, const char *table, bool added,
                                 escqrs_error *error)
{
    const char *rowid = NULL;
    escqrs_status status = added ? ESCQRS_OK : rowid_name(from, table, &rowid, error);
    if (status == ESCQRS_OK && rowid != NULL) {
        status = add_column(texts, rowid);
    }
    sqlite3_stmt *columns = NULL;
    if (status == ESCQRS_OK) { /* generated columns (hidden 2 and 3) are computed again */
        status = esc_rmsql_prepare(
            from, escqrs_slice_of("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0"),
            &columns, error);
    }
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(columns, 1, table, -1, SQLITE_STATIC);
    }
    while (status == ESCQRS_OK) {
        int code = sqlite3_step(columns);
        if (code == SQLITE_DONE) {
            break;
        }
        status = code == SQLITE_ROW
                     ? add_column(texts, (const char *)sqlite3_column_text(columns, 0))
                     : esc_rmsql_error(error, from, code, "looking at table %s", table);
    }
    (void)sqlite3_finalize(columns);
    return status;
}

static escqrs_status make_texts(copy_texts *texts, sqlite3 *from, const char *table, bool added,
                                escqrs_error *error)
{
    escqrs_status status = append(&texts->select, "SELECT ");
    if (status == ESCQRS_OK &&
        (status = append(&texts->insert, "INSERT OR ABORT INTO ")) == ESCQRS_OK &&
        (status = esc_install_quote(&texts->insert, table)) == ESCQRS_OK) {
        status = append(&texts->insert, " (");
    }
    if (status == ESCQRS_OK) {
        status = add_columns(texts, from, table, added, error);
    }
    if (status == ESCQRS_OK && (status = append(&texts->select, " FROM ")) == ESCQRS_OK) {
        status = esc_install_quote(&texts->select, table);
    }
    if (status == ESCQRS_OK && (status = append(&texts->insert, ") VALUES (")) == ESCQRS_OK &&
        (status = esc_buffer_append_slice(&texts->insert, esc_buffer_slice(&texts->values))) ==
            ESCQRS_OK) {
        status = append(&texts->insert, ")");
    }
    if (status == ESCQRS_NO_MEMORY) {
        (void)escqrs_error_set(error, status, "no memory to copy table %s", table);
    }
    return status;
}

static escqrs_status copy_rows(sqlite3_stmt *select, sqlite3_stmt *insert, int columns,
                               const char *table, escqrs_error *error)
{
    int code = SQLITE_ROW;
    while ((code = sqlite3_step(select)) == SQLITE_ROW) {
        for (int i = 0; i < columns; i++) {
            code = sqlite3_bind_value(insert, i + 1, sqlite3_column_value(select, i));
            if (code != SQLITE_OK) {
                return esc_rmsql_error(error, sqlite3_db_handle(insert), code, "copying table %s",
                                       table);
            }
        }
        code = sqlite3_step(insert);
        if (code != SQLITE_DONE) {
            escqrs_status status =
                esc_rmsql_error(error, sqlite3_db_handle(insert), code, "copying table %s", table);
            (void)sqlite3_reset(insert);
            return status;
        }
        (void)sqlite3_reset(insert);
    }
    if (code != SQLITE_DONE) {
        return esc_rmsql_error(error, sqlite3_db_handle(select), code, "copying table %s", table);
    }
    return ESCQRS_OK;
}

static escqrs_status copy_table(sqlite3 *from, sqlite3 *to, const char *table, bool added,
                                escqrs_error *error)
{
    copy_texts texts = {0};
    sqlite3_stmt *select = NULL;
    sqlite3_stmt *insert = NULL;
    escqrs_status status = make_texts(&texts, from, table, added, error);
    if (status == ESCQRS_OK) {
        status = esc_rmsql_prepare(from, esc_buffer_slice(&texts.select), &select, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_rmsql_prepare(to, esc_buffer_slice(&texts.insert), &insert, error);
    }
    if (status == ESCQRS_OK) {
        status = copy_rows(select, insert, texts.columns, table, error);
    }
    (void)sqlite3_finalize(select);
    (void)sqlite3_finalize(insert);
    esc_buffer_fini(&texts.select);
    esc_buffer_fini(&texts.insert);
    esc_buffer_fini(&texts.values);
    return status;
}

/* AUTOINCREMENT goes on from the highest number ever given. */
static escqrs_status copy_sequence(sqlite3 *from, sqlite3 *to, const char *table,
                                   escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    /* The table is there only where some table uses AUTOINCREMENT. */
    if (sqlite3_prepare_v2(from, "SELECT seq FROM sqlite_sequence WHERE name = ?1", -1, &look,
                           NULL) != SQLITE_OK) {
        return ESCQRS_OK;
    }
    escqrs_status status = ESCQRS_OK;
    (void)sqlite3_bind_text(look, 1, table, -1, SQLITE_STATIC);
    if (sqlite3_step(look) == SQLITE_ROW) {
        static const char *const texts[] = {
            "DELETE FROM sqlite_sequence WHERE name = ?1",
            "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)"};
        for (size_t i = 0; status == ESCQRS_OK && i < 2; i++) {
            sqlite3_stmt *write = NULL;
            status = esc_rmsql_prepare(to, escqrs_slice_of(texts[i]), &write, error);
            if (status == ESCQRS_OK) {
                (void)sqlite3_bind_text(write, 1, table, -1, SQLITE_STATIC);
                if (i == 1) {
                    (void)sqlite3_bind_value(write, 2, sqlite3_column_value(look, 0));
                }
                status = esc_rmsql_run(write, error);
            }
            (void)sqlite3_finalize(write);
        }
    }
    (void)sqlite3_finalize(look);
    return status;
}

escqrs_status esc_install(const esc_definition *definition, sqlite3 *from, sqlite3 *to,
                          escqrs_error *error)
{
    for (int kind = ESC_OBJECT_TABLE; kind <= ESC_OBJECT_TRIGGER; kind++) {
        for (size_t i = 0; i < definition->objects.count; i++) {
            const esc_object *object = &ESC_VECTOR_AT(&definition->objects, esc_object, i);
            if ((int)object->kind != kind || kind == ESC_OBJECT_SHADOW) {
                continue;
            }
            escqrs_status status = esc_rmsql_exec(to, object->sql, error);
            if (status == ESCQRS_OK && kind == ESC_OBJECT_TABLE &&
                (status = copy_table(from, to, object->name, false, error)) == ESCQRS_OK) {
                status = copy_sequence(from, to, object->name, error);
            }
            if (status != ESCQRS_OK) {
                return status;
            }
        }
    }
    return ESCQRS_OK;
}

escqrs_status esc_install_add_rows(sqlite3 *from, sqlite3 *to, const char *table,
                                   escqrs_error *error)
{
    return copy_table(from, to, table, true, error);
}
