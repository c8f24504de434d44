/* Statements that functions of projections ask for, kept on the follower's connection.
 *
 * Called within `apply` only, by the thread that projects. Locks: none. */
#include "readmodel/projector.h"

#include "base/assert.h"
#include "base/error.h"
#include "readmodel/sql.h"

static esc_follower *follower_on(escqrs_readmodel *model, const void *sqlite)
{
    if (model->fresh != NULL && model->fresh->db == sqlite) {
        return model->fresh;
    }
    return model->copy != NULL && model->copy->db == sqlite ? model->copy : &model->live;
}

static esc_cached_statement *cache_find(esc_statement_cache *cache, escqrs_slice sql)
{
    for (size_t i = 0; i < cache->count; i++) {
        esc_cached_statement *entry = &cache->entries[i];
        if (!entry->in_use && escqrs_slice_equal(escqrs_slice_of(entry->sql), sql)) {
            return entry;
        }
    }
    return NULL;
}

/* A place for one more: the statement that was not used for longest gives way. NULL: all are in
 * use. */
static esc_cached_statement *cache_place(esc_statement_cache *cache)
{
    if (cache->count < ESC_STATEMENT_CACHE_MAX) {
        return &cache->entries[cache->count];
    }
    esc_cached_statement *oldest = NULL;
    for (size_t i = 0; i < cache->count; i++) {
        esc_cached_statement *entry = &cache->entries[i];
        if (!entry->in_use && (oldest == NULL || entry->used < oldest->used)) {
            oldest = entry;
        }
    }
    return oldest;
}

/* A statement that is not in the cache yet. */
static escqrs_status cache_add(escqrs_readmodel *model, esc_statement_cache *cache, sqlite3 *db,
                               escqrs_slice sql, esc_cached_statement **added, escqrs_error *error)
{
    escqrs_status status = esc_definition_check(&model->definition, sql, false, NULL, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    esc_cached_statement *entry = cache_place(cache);
    if (entry == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "read model %s: more than %d statements open at once",
                                model->definition.name, ESC_STATEMENT_CACHE_MAX);
    }
    char *text = escqrs_strdup(sql);
    sqlite3_stmt *prepared = NULL;
    if (text == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for statements");
    }
    if ((status = esc_rmsql_prepare(db, sql, &prepared, error)) != ESCQRS_OK) {
        escqrs_free(text);
        return status;
    }
    if (entry == &cache->entries[cache->count]) {
        cache->count++;
    }
    (void)sqlite3_finalize(entry->statement);
    escqrs_free(entry->sql);
    *entry = (esc_cached_statement){.sql = text, .statement = prepared};
    *added = entry;
    return ESCQRS_OK;
}

escqrs_status escqrs_readmodel_statement(escqrs_readmodel *model, void *sqlite, escqrs_slice sql,
                                         void **statement, escqrs_error *error)
{
    esc_follower *follower = follower_on(model, sqlite);
    *statement = NULL;
    if (sqlite != NULL && sqlite3_get_autocommit(sqlite)) { /* what it wrote now would stay */
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "read model %s: an earlier statement has rolled the transaction "
                                "back; let its error pass",
                                model->definition.name);
    }
    if (follower->cache == NULL) {
        follower->cache = escqrs_alloc_zero(sizeof(esc_statement_cache));
        if (follower->cache == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for statements");
        }
    }
    esc_cached_statement *entry = cache_find(follower->cache, sql);
    if (entry == NULL) {
        escqrs_status status = cache_add(model, follower->cache, sqlite, sql, &entry, error);
        if (status != ESCQRS_OK) {
            return status;
        }
        ESC_ASSERT(entry != NULL);
    }
    entry->in_use = true;
    entry->used = ++follower->cache->clock;
    *statement = entry->statement;
    return ESCQRS_OK;
}

void escqrs_readmodel_statement_return(escqrs_readmodel *model, void *sqlite, void *statement)
{
    esc_statement_cache *cache = follower_on(model, sqlite)->cache;
    for (size_t i = 0; cache != NULL && i < cache->count; i++) {
        if (cache->entries[i].statement == statement) {
            (void)sqlite3_reset(statement);
            (void)sqlite3_clear_bindings(statement);
            cache->entries[i].in_use = false;
            return;
        }
    }
}
