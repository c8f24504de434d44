/* See wanted.h. An eponymous virtual table: no statement creates it, no file knows of it. */
#include "store/wanted.h"

#include <string.h>

#include "base/assert.h"

typedef struct wanted_table {
    sqlite3_vtab base;
    const esc_wanted *wanted;
} wanted_table;

typedef struct wanted_cursor {
    sqlite3_vtab_cursor base;
    size_t next;
} wanted_cursor;

static const esc_wanted *wanted_of(sqlite3_vtab_cursor *cursor)
{
    return ((wanted_table *)(void *)cursor->pVtab)->wanted;
}

static int connect_table(sqlite3 *db, void *context, int count, const char *const *arguments,
                         sqlite3_vtab **result, char **message)
{
    (void)count, (void)arguments, (void)message;
    esc_wanted *wanted = context;
    wanted_table *table = NULL;
    int code = sqlite3_declare_vtab(db, "CREATE TABLE escqrs_wanted(position INTEGER)");
    /* the text is right: what gets between is an interrupt, or want of memory */
    wanted->failure = code == SQLITE_OK || code == SQLITE_NOMEM ? code : SQLITE_INTERRUPT;
    if (wanted->failure == SQLITE_OK) {
        table = sqlite3_malloc(sizeof *table);
        wanted->failure = table == NULL ? SQLITE_NOMEM : SQLITE_OK;
    }
    if (table == NULL) {
        return wanted->failure;
    }
    memset(table, 0, sizeof *table);
    table->wanted = wanted;
    *result = &table->base;
    return SQLITE_OK;
}

static int disconnect_table(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

/* Always all of it: no term of a query is taken over. */
static int best_index(sqlite3_vtab *table, sqlite3_index_info *plan)
{
    (void)table;
    plan->estimatedCost = 1;
    plan->estimatedRows = 1;
    return SQLITE_OK;
}

static int open_cursor(sqlite3_vtab *table, sqlite3_vtab_cursor **result)
{
    (void)table;
    wanted_cursor *cursor = sqlite3_malloc(sizeof *cursor);
    if (cursor == NULL) {
        return SQLITE_NOMEM;
    }
    memset(cursor, 0, sizeof *cursor);
    *result = &cursor->base;
    return SQLITE_OK;
}

static int close_cursor(sqlite3_vtab_cursor *cursor)
{
    sqlite3_free(cursor);
    return SQLITE_OK;
}

static int start_cursor(sqlite3_vtab_cursor *cursor, int plan, const char *text, int count,
                        sqlite3_value **values)
{
    (void)plan, (void)text, (void)count, (void)values;
    ((wanted_cursor *)(void *)cursor)->next = 0;
    return SQLITE_OK;
}

static int move_cursor(sqlite3_vtab_cursor *cursor)
{
    ((wanted_cursor *)(void *)cursor)->next++;
    return SQLITE_OK;
}

static int is_at_end(sqlite3_vtab_cursor *cursor)
{
    return ((wanted_cursor *)(void *)cursor)->next >= wanted_of(cursor)->count;
}

static int read_column(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int column)
{
    (void)column; /* there is one */
    size_t next = ((wanted_cursor *)(void *)cursor)->next;
    ESC_ASSERT(next < wanted_of(cursor)->count);
    sqlite3_result_int64(context, wanted_of(cursor)->positions[next]);
    return SQLITE_OK;
}

static int read_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *rowid)
{
    *rowid = (sqlite3_int64)((wanted_cursor *)(void *)cursor)->next + 1;
    return SQLITE_OK;
}

static const sqlite3_module module = {
    .xConnect = connect_table,
    .xBestIndex = best_index,
    .xDisconnect = disconnect_table,
    .xOpen = open_cursor,
    .xClose = close_cursor,
    .xFilter = start_cursor,
    .xNext = move_cursor,
    .xEof = is_at_end,
    .xColumn = read_column,
    .xRowid = read_rowid,
};

int esc_wanted_register(sqlite3 *db, esc_wanted *wanted)
{
    return sqlite3_create_module(db, "escqrs_wanted", &module, wanted);
}
