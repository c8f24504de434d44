/* Copies: where the rows of a rebuild lie until they take the place of the live ones, and how they
 * are found again after a crash.
 *
 * Design
 *   - A copy is a database of its own beside that of the live rows: "{its path}-rebuild-{hash of
 *     the name}". It has the read model's tables, dead letters and checkpoint, which moves with the
 *     rows: what was committed there is never done again. Where the live rows are in memory, and
 *     for a comparison, it is a temporary one that is gone when it is closed.
 *   - That a rebuild is under way is a row of escqrs_rebuild in the database of the live rows, with
 *     the fingerprint of what is built and a number drawn at its beginning; the copy has the same
 *     row. So the live database alone says whether a copy counts:
 *
 *       what is there when it is opened           what becomes of it
 *       no row                                    no rebuild; a copy is a leftover and removed
 *       a row of another fingerprint              the definition has changed since: likewise
 *       a row, and a copy with the same number    the rebuild goes on where the copy ends
 *       a row, and no copy, or another's, or one  the rebuild begins again at the first event
 *       that is damaged or ahead of the store
 *
 *   - The order: the old copy is removed, the new one made, the row written; then events. The swap
 *     deletes the row in the transaction that puts the rows in their place; the copy is removed
 *     afterwards. To give a rebuild up is to delete the row, and then the copy.
 *   - The copy is synced by SQLite's checkpoints alone (WAL, NORMAL): after a power loss its last
 *     transactions may be gone, rows and checkpoint together.
 *
 * The thread that projects calls all of this, or whoever starts it. Lock order: the projector's
 * mutex is a leaf. */
#include "readmodel/projector.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/error.h"
#include "readmodel/sql.h"
#include "store/memory_vfs.h"

#define MAKE_TABLE                                                                                 \
    "CREATE TABLE IF NOT EXISTS escqrs_rebuild(readmodel TEXT NOT NULL PRIMARY KEY,"               \
    " fingerprint TEXT NOT NULL, number INTEGER NOT NULL) WITHOUT ROWID"

/* ---- the row that says that a rebuild is under way ------------------------------------------- */

typedef struct note {
    const esc_definition *definition;
    bool found;
    int64_t number;
    char fingerprint[ESC_FINGERPRINT_SIZE];
} note;

static escqrs_status note_load(note *self, sqlite3 *db, escqrs_error *error)
{
    sqlite3_stmt *look = NULL;
    self->found = false;
    if (sqlite3_table_column_metadata(db, "main", "escqrs_rebuild", "number", NULL, NULL, NULL,
                                      NULL, NULL) != SQLITE_OK) {
        return ESCQRS_OK;
    }
    escqrs_status status = esc_rmsql_prepare(
        db, escqrs_slice_of("SELECT number, fingerprint FROM escqrs_rebuild WHERE readmodel = ?1"),
        &look, error);
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(look, 1, self->definition->name, -1, SQLITE_STATIC);
        int code = sqlite3_step(look);
        if (code == SQLITE_ROW) {
            const unsigned char *text = sqlite3_column_text(look, 1);
            self->found = true;
            self->number = sqlite3_column_int64(look, 0);
            snprintf(self->fingerprint, sizeof self->fingerprint, "%s",
                     text == NULL ? "" : (const char *)text);
        } else if (code != SQLITE_DONE) {
            status = esc_rmsql_error(error, db, code, "reading escqrs_rebuild");
        }
    }
    (void)sqlite3_finalize(look);
    return status;
}

static escqrs_status note_change(const note *self, sqlite3 *db, const char *sql,
                                 escqrs_error *error)
{
    sqlite3_stmt *change = NULL;
    escqrs_status status = esc_rmsql_exec(db, MAKE_TABLE, error);
    if (status == ESCQRS_OK) {
        status = esc_rmsql_prepare(db, escqrs_slice_of(sql), &change, error);
    }
    if (status == ESCQRS_OK) {
        (void)sqlite3_bind_text(change, 1, self->definition->name, -1, SQLITE_STATIC);
        if (sqlite3_bind_parameter_count(change) > 1) {
            (void)sqlite3_bind_text(change, 2, self->definition->fingerprint, -1, SQLITE_STATIC);
            (void)sqlite3_bind_int64(change, 3, self->number);
        }
        status = esc_rmsql_run(change, error);
    }
    (void)sqlite3_finalize(change);
    return status;
}

static escqrs_status note_save(const note *self, sqlite3 *db, escqrs_error *error)
{
    return note_change(self, db, "INSERT OR REPLACE INTO escqrs_rebuild VALUES (?1, ?2, ?3)",
                       error);
}

escqrs_status esc_copy_forget(const escqrs_readmodel *model, sqlite3 *db, escqrs_error *error)
{
    note self = {.definition = &model->definition};
    escqrs_status status = note_load(&self, db, error);
    return status == ESCQRS_OK && self.found
               ? note_change(&self, db, "DELETE FROM escqrs_rebuild WHERE readmodel = ?1", error)
               : status;
}

static escqrs_status work_load(void *context, void *sqlite, escqrs_error *error)
{
    return note_load(context, sqlite, error);
}

static escqrs_status work_save(void *context, void *sqlite, escqrs_error *error)
{
    escqrs_status status = esc_rmsql_exec(sqlite, "BEGIN IMMEDIATE", error);
    return status == ESCQRS_OK ? esc_rmsql_end(sqlite, note_save(context, sqlite, error), error)
                               : status;
}

static escqrs_status work_forget(void *context, void *sqlite, escqrs_error *error)
{
    return esc_copy_forget(context, sqlite, error);
}

/* ---- its file -------------------------------------------------------------------------------- */

static escqrs_status work_path(void *context, void *sqlite, escqrs_error *error)
{
    escqrs_readmodel *model = context;
    const char *file = sqlite3_db_filename(sqlite, "main");
    esc_buffer path = {0};
    if (file == NULL || file[0] == '\0' || esc_side_is_in_memory(model) ||
        esc_memory_vfs_holds(sqlite)) {
        return ESCQRS_OK;
    }
    escqrs_status status =
        esc_buffer_append_format(&path, "%s-rebuild-%016" PRIx64, file,
                                 esc_hash(escqrs_slice_of(model->definition.name), 1));
    if (status == ESCQRS_OK && (status = esc_buffer_terminate(&path)) == ESCQRS_OK) {
        model->copy_path = (char *)esc_buffer_take(&path);
    }
    esc_buffer_fini(&path);
    return status == ESCQRS_OK ? status
                               : escqrs_error_set(error, status, "no memory for read model %s",
                                                  model->definition.name);
}

static void remove_file(const escqrs_readmodel *model)
{
    static const char *const endings[] = {"", "-wal", "-shm", "-journal"};
    char path[4200];
    for (size_t i = 0; model->copy_path != NULL && i < sizeof endings / sizeof endings[0]; i++) {
        int size = snprintf(path, sizeof path, "%s%s", model->copy_path, endings[i]);
        if (size > 0 && (size_t)size < sizeof path) {
            (void)unlink(path);
        }
    }
}

static escqrs_status open_file(const char *path, bool make, sqlite3 **db, escqrs_error *error)
{
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (make ? SQLITE_OPEN_CREATE : 0);
    bool temporary = path[0] == '\0' || path[0] == ':';
    int code = sqlite3_open_v2(path, db, flags, NULL);
    if (code != SQLITE_OK) {
        return esc_rmsql_error(error, *db, code, "opening a copy of a read model (%s)", path);
    }
    (void)sqlite3_limit(*db, SQLITE_LIMIT_ATTACHED, 0);
    return esc_rmsql_exec(*db,
                          temporary ? "PRAGMA synchronous = OFF"
                                    : "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                                      " PRAGMA synchronous = NORMAL",
                          error);
}

/* ---- copy ------------------------------------------------------------------------------------ */

void esc_copy_close(esc_follower *copy)
{
    esc_follower_finalize(copy);
    (void)sqlite3_close(copy->db);
    copy->db = NULL;
}

void esc_copy_destroy(esc_follower *copy)
{
    if (copy != NULL) {
        esc_copy_close(copy);
        esc_park_fini(copy);
        escqrs_free(copy);
    }
}

static esc_follower *new_copy(escqrs_readmodel *model, escqrs_error *error)
{
    esc_follower *copy = escqrs_alloc_zero(sizeof *copy);
    if (copy == NULL) {
        (void)escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory to rebuild a read model");
        return NULL;
    }
    copy->model = model;
    esc_park_init(copy);
    return copy;
}

static escqrs_status fill(esc_follower *copy, const note *noted, escqrs_error *error)
{
    const esc_definition *definition = noted->definition;
    escqrs_status status = esc_rmsql_exec(copy->db, "BEGIN IMMEDIATE", error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_checkpoint_replace(copy->db, definition, definition->scratch, 0, error);
    if (status == ESCQRS_OK) {
        status = note_save(noted, copy->db, error);
    }
    return esc_rmsql_end(copy->db, status, error);
}

static escqrs_status make(escqrs_readmodel *model, const char *path, const note *noted,
                          esc_follower **result, escqrs_error *error)
{
    *result = NULL;
    esc_follower *copy = new_copy(model, error);
    if (copy == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    escqrs_status status = open_file(path, true, &copy->db, error);
    if (status == ESCQRS_OK) {
        status = fill(copy, noted, error);
    }
    if (status != ESCQRS_OK) {
        esc_copy_destroy(copy);
        return status;
    }
    *result = copy;
    return ESCQRS_OK;
}

escqrs_status esc_copy_make_temporary(escqrs_readmodel *model, esc_follower **copy,
                                      escqrs_error *error)
{
    note noted = {.definition = &model->definition};
    return make(model, model->projector->in_memory ? ":memory:" : "", &noted, copy, error);
}

escqrs_status esc_copy_begin(escqrs_readmodel *model, esc_follower **copy, escqrs_error *error)
{
    note noted = {.definition = &model->definition};
    if (model->copy_path == NULL) {
        return esc_copy_make_temporary(model, copy, error);
    }
    sqlite3_randomness(sizeof noted.number, &noted.number);
    remove_file(model);
    escqrs_status status = make(model, model->copy_path, &noted, copy, error);
    if (status == ESCQRS_OK) {
        status = esc_side_run(model, work_save, &noted, error);
    }
    if (status != ESCQRS_OK) {
        esc_copy_destroy(*copy);
        *copy = NULL;
        remove_file(model);
    }
    return status;
}

/* ---- ending ---------------------------------------------------------------------------------- */

void esc_copy_remove(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    esc_mutex_lock(&projector->mutex);
    esc_follower *copy = model->copy;
    model->copy = NULL;
    esc_cond_broadcast(&projector->changed);
    esc_mutex_unlock(&projector->mutex);
    if (copy != NULL && model->copy_path != NULL) { /* its WAL need not be written back */
        (void)sqlite3_db_config(copy->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    }
    esc_copy_destroy(copy);
    remove_file(model);
}

void esc_copy_drop(escqrs_readmodel *model)
{
    escqrs_error error = {0};
    if (model->copy_path != NULL && esc_side_run(model, work_forget, model, &error) != ESCQRS_OK) {
        escqrs_log_write(&model->projector->log, ESCQRS_LOG_ERROR,
                         "rebuilding read model %s is given up, but would begin again when it is "
                         "next opened: %s",
                         model->definition.name, error.message);
    }
    esc_copy_remove(model);
}

/* ---- going on -------------------------------------------------------------------------------- */

/* The copy of that number and of this definition, as far as it has come. */
static escqrs_status reopen(escqrs_readmodel *model, const note *noted, esc_follower *copy,
                            escqrs_error *error)
{
    note own = {.definition = &model->definition};
    esc_checkpoint checkpoint = {0};
    escqrs_status status = open_file(model->copy_path, false, &copy->db, error);
    if (status == ESCQRS_OK) {
        status = note_load(&own, copy->db, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_checkpoint_load(copy->db, &model->definition, &checkpoint, error);
    }
    if (status == ESCQRS_OK &&
        (!own.found || own.number != noted->number || !checkpoint.found ||
         !esc_checkpoint_is_of(&checkpoint, &model->definition) || checkpoint.position < 0 ||
         checkpoint.position > escqrs_store_head(model->projector->store))) {
        status = escqrs_error_set(error, ESCQRS_CORRUPT, "it is not the copy that was being built");
    }
    copy->position = checkpoint.position;
    return status == ESCQRS_OK ? esc_park_load(copy, copy->db, error) : status;
}

static void go_on(escqrs_readmodel *model, const note *noted)
{
    const escqrs_log *log = &model->projector->log;
    const char *name = model->definition.name;
    escqrs_error error = {0};
    esc_follower *copy = new_copy(model, &error);
    escqrs_status status = copy == NULL ? ESCQRS_NO_MEMORY : reopen(model, noted, copy, &error);
    if (status == ESCQRS_OK) {
        model->copy = copy;
        escqrs_log_write(log, ESCQRS_LOG_INFO, "rebuilding read model %s goes on behind event %lld",
                         name, (long long)copy->position);
        return;
    }
    esc_copy_destroy(copy);
    model->rebuild_wanted = true;
    escqrs_log_write(log, ESCQRS_LOG_WARNING,
                     "rebuilding read model %s begins again, what was built cannot be used: %s",
                     name, error.message);
}

escqrs_status esc_copy_resume(escqrs_readmodel *model, escqrs_error *error)
{
    note noted = {.definition = &model->definition};
    escqrs_status status = esc_side_run(model, work_path, model, error);
    if (status != ESCQRS_OK || model->copy_path == NULL) {
        return status;
    }
    status = esc_side_run(model, work_load, &noted, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (noted.found && !model->definition.has_virtual &&
        strcmp(noted.fingerprint, model->definition.fingerprint) == 0) {
        go_on(model, &noted);
        return ESCQRS_OK;
    }
    if (noted.found) {
        status = esc_side_run(model, work_forget, model, error);
    }
    remove_file(model);
    return status;
}
