/* See store.h. */
#include "store/store.h"

#include <limits.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"
#include "base/map.h"
#include "store/commit_check.h"
#include "store/sqlite_provider.h"

#define GATE_CLOSED 0x80000000u
#define EVENT_BYTES_DEFAULT (16u << 20)

static escqrs_status invalid(escqrs_error *error, const char *what)
{
    return escqrs_error_set(error, ESCQRS_INVALID, "%s", what);
}

/* ---- gate and references ---------------------------------------------------------------------- */

escqrs_status esc_store_enter(escqrs_store *store, escqrs_error *error)
{
    if (store->fork_generation != escqrs_fork_generation()) {
        return escqrs_error_set(
            error, ESCQRS_FORKED,
            "the store was opened before fork(): open it again in this process");
    }
    /* acquire: pairs with the release in close; whoever gets in sees the store as it was opened */
    uint32_t before = atomic_fetch_add_explicit(&store->gate, 1, memory_order_acquire);
    if (before & GATE_CLOSED) {
        esc_store_leave(store);
        return escqrs_error_set(error, ESCQRS_CLOSED, "the store is closed");
    }
    return ESCQRS_OK;
}

void esc_store_leave(escqrs_store *store)
{
    /* release: pairs with the acquire of who waits in close for all to leave */
    uint32_t before = atomic_fetch_sub_explicit(&store->gate, 1, memory_order_release);
    if (before == (GATE_CLOSED | 1)) {
        esc_futex_wake(&store->gate, INT_MAX);
    }
}

void esc_store_hold(escqrs_store *store)
{
    /* relaxed: the caller has a reference already */
    atomic_fetch_add_explicit(&store->references, 1, memory_order_relaxed);
}

void esc_store_release(escqrs_store *store)
{
    /* acq_rel: what others did before they let go happened before the memory is freed */
    if (atomic_fetch_sub_explicit(&store->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    esc_cursors_free(store);
    if (store->provider != NULL) {
        store->provider->functions->destroy(store->provider);
    }
    esc_mutex_fini(&store->close_mutex);
    esc_mutex_fini(&store->cursor_mutex);
    esc_ahead_fini(&store->ahead);
    esc_mutex_fini(&store->watch_mutex);
    escqrs_free(store->path);
    escqrs_free(store);
}

/* ---- open and close --------------------------------------------------------------------------- */

/* On `provider`, or on the file of that path. */
static escqrs_status open_store(const char *path, const escqrs_store_options *options,
                                escqrs_provider *provider, escqrs_provider *source,
                                escqrs_store **result, escqrs_error *error)
{
    escqrs_store *store = escqrs_alloc_zero(sizeof *store);
    if (store == NULL) {
        if (provider != NULL) {
            provider->functions->close(provider);
            provider->functions->destroy(provider);
        }
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a store");
    }
    store->provider = provider;
    if (options != NULL) {
        store->options = *options;
    }
    if (store->options.event_bytes_max == 0) {
        store->options.event_bytes_max = EVENT_BYTES_DEFAULT;
    } else if (store->options.event_bytes_max > ESC_EVENT_BYTES_MAX) {
        store->options.event_bytes_max = ESC_EVENT_BYTES_MAX;
    }
    esc_mutex_init(&store->close_mutex);
    esc_mutex_init(&store->cursor_mutex);
    esc_ahead_init(&store->ahead, !store->options.manual);
    esc_mutex_init(&store->watch_mutex);
    atomic_init(&store->references, 1);
    store->fork_generation = escqrs_fork_generation();
    store->path = escqrs_strdup(escqrs_slice_of(path));
    escqrs_status status = ESCQRS_NO_MEMORY;
    if (store->path == NULL) {
        (void)escqrs_error_set(error, status, "no memory for a store");
    } else if (store->options.durability != ESCQRS_DURABILITY_FULL &&
               store->options.durability != ESCQRS_DURABILITY_NORMAL) {
        status = invalid(error, "a durability is ESCQRS_DURABILITY_FULL or _NORMAL");
    } else if (provider != NULL) {
        status = ESCQRS_OK;
    } else {
        status = esc_sqlite_open(path, &store->options, source, &store->provider, error);
    }
    if (status == ESCQRS_OK) {
        status = esc_journal_start(&store->journal, store->provider, &store->options.log,
                                   store->options.manual || store->options.readonly, error);
    }
    if (status != ESCQRS_OK) {
        if (store->provider != NULL) {
            store->provider->functions->close(store->provider);
        }
        esc_store_release(store);
        return status;
    }
    *result = store;
    return ESCQRS_OK;
}

escqrs_status escqrs_store_open(const char *path, const escqrs_store_options *options,
                                escqrs_store **result, escqrs_error *error)
{
    return open_store(path, options, NULL, NULL, result, error);
}

escqrs_status escqrs_store_open_provider(escqrs_provider *provider, const char *name,
                                         const escqrs_store_options *options, escqrs_store **store,
                                         escqrs_error *error)
{
    ESC_ASSERT(provider->core != NULL);
    return open_store(name, options, provider, NULL, store, error);
}

static escqrs_status begin_anew(void *context, void *provider, escqrs_error *error)
{
    escqrs_provider *self = provider;
    (void)context;
    return self->functions->restart(self, error);
}

escqrs_status escqrs_store_restart(escqrs_store *store, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status == ESCQRS_OK) {
        status = esc_journal_run(&store->journal, ESC_WORK_RESTART, begin_anew, NULL, error);
        esc_journal_wake(&store->journal); /* the head may have moved */
        esc_store_leave(store);
    }
    return status;
}

void escqrs_store_changed(escqrs_store *store)
{
    if (esc_store_enter(store, NULL) == ESCQRS_OK) {
        (void)!store->provider->functions->refresh(store->provider, NULL);
        esc_journal_wake(&store->journal);
        esc_store_leave(store);
    }
}

escqrs_status escqrs_store_clone(escqrs_store *source, const char *path,
                                 const escqrs_store_options *options, escqrs_store **result,
                                 escqrs_error *error)
{
    escqrs_status status = esc_store_enter(source, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (path == NULL || path[0] == '\0') {
        status = invalid(error, "the path of a copy is empty");
    } else if (!esc_sqlite_is(source->provider)) {
        status = invalid(error, "only a store of a file or in memory can be cloned");
    } else if (strcmp(path, ":memory:") != 0) {
        status = source->provider->functions->backup(source->provider, path, error);
    }
    if (status == ESCQRS_OK) {
        status = open_store(path, options, NULL, source->provider, result, error);
    }
    esc_store_leave(source);
    return status;
}

void escqrs_store_close(escqrs_store *store)
{
    if (store == NULL || store->fork_generation != escqrs_fork_generation()) {
        return;
    }
    esc_mutex_lock(&store->close_mutex);
    if (!store->closed) {
        esc_journal_stop(&store->journal);
        /* release: pairs with the acquire in enter */
        atomic_fetch_or_explicit(&store->gate, GATE_CLOSED, memory_order_release);
        esc_journal_wake(&store->journal);
        store->provider->functions->stop_readers(store->provider);
        esc_ahead_stop(&store->ahead); /* what it reads fails now */
        uint32_t inside;
        /* acquire: pairs with the release in leave */
        while ((inside = atomic_load_explicit(&store->gate, memory_order_acquire)) != GATE_CLOSED) {
            (void)esc_futex_wait(&store->gate, inside, ESC_DEADLINE_NEVER);
        }
        esc_watch_stop(store->watch);
        store->watch = NULL;
        esc_journal_fini(&store->journal);
        store->provider->functions->close(store->provider);
        store->closed = true;
    }
    esc_mutex_unlock(&store->close_mutex);
}

void escqrs_store_destroy(escqrs_store *store)
{
    if (store == NULL || store->fork_generation != escqrs_fork_generation()) {
        return; /* in a child of fork nothing is touched; the memory goes with the process */
    }
    escqrs_store_close(store);
    esc_store_release(store);
}

const char *escqrs_store_path(const escqrs_store *store)
{
    return store->path;
}

/* ---- types ------------------------------------------------------------------------------------ */

escqrs_status escqrs_store_type(escqrs_store *store, escqrs_slice name, escqrs_slice record,
                                escqrs_type **type, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status == ESCQRS_OK) {
        status = esc_type_registry_get(&store->provider->core->types, name, record, type, error);
        esc_store_leave(store);
    }
    return status;
}

escqrs_status escqrs_store_types(escqrs_store *store,
                                 bool (*visit)(void *context, escqrs_type *type, bool used),
                                 void *context, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    int64_t last = esc_type_registry_last(&store->provider->core->types);
    for (int64_t id = 1; id <= last; id++) {
        escqrs_type *type = esc_type_registry_find(&store->provider->core->types, id);
        if (type != NULL && !visit(context, type, escqrs_type_stored(type))) {
            break;
        }
    }
    esc_store_leave(store);
    return ESCQRS_OK;
}

/* ---- journal ---------------------------------------------------------------------------------- */

escqrs_status escqrs_store_submit(escqrs_store *store, escqrs_commit *commit, escqrs_error *error)
{
    if (commit->done == NULL) {
        return invalid(error, "a submitted commit needs `done`");
    }
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_commit_check(store, commit, error);
    if (status == ESCQRS_OK) {
        status = esc_journal_submit(&store->journal, commit, error);
    }
    esc_store_leave(store);
    return status;
}

static escqrs_status commit_here(escqrs_store *store, escqrs_commit *commit, bool *waits,
                                 escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = esc_commit_check(store, commit, error);
    if (status == ESCQRS_OK) {
        status = esc_journal_commit(&store->journal, commit, waits, error);
    }
    esc_store_leave(store);
    return status;
}

escqrs_status escqrs_store_commit(escqrs_store *store, escqrs_commit *commit, escqrs_error *error)
{
    return commit_here(store, commit, NULL, error);
}

escqrs_status escqrs_store_commit_or_leave(escqrs_store *store, escqrs_commit *commit, bool *waits,
                                           escqrs_error *error)
{
    if (commit->done == NULL || commit->error == NULL) {
        return invalid(error, "a commit that may be left needs `done` and `error`");
    }
    return commit_here(store, commit, waits, error);
}

bool escqrs_store_withdraw(escqrs_store *store, escqrs_commit *commit)
{
    if (esc_store_enter(store, NULL) != ESCQRS_OK) {
        return false; /* closed: all is answered */
    }
    bool withdrawn = esc_journal_withdraw(&store->journal, commit);
    esc_store_leave(store);
    return withdrawn;
}

size_t escqrs_store_pump(escqrs_store *store)
{
    if (esc_store_enter(store, NULL) != ESCQRS_OK) {
        return 0;
    }
    size_t count = esc_journal_pump(&store->journal);
    esc_store_leave(store);
    return count;
}

escqrs_status escqrs_store_run(escqrs_store *store, bool sync,
                               escqrs_status (*work)(void *context, void *sqlite,
                                                     escqrs_error *error),
                               void *context, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (store->options.readonly) {
        status = escqrs_error_set(error, ESCQRS_READ_ONLY, "%s was opened read-only", store->path);
    } else {
        status = esc_journal_run(&store->journal, sync ? ESC_WORK_SQL : ESC_WORK_SQL_UNSYNCED, work,
                                 context, error);
    }
    esc_store_leave(store);
    return status;
}

void escqrs_store_set_inliner(escqrs_store *store, const escqrs_inliner *inliner)
{
    store->provider->inliner = inliner;
}

size_t escqrs_store_backlog(escqrs_store *store)
{
    /* relaxed: a number, at once out of date */
    return atomic_load_explicit(&store->journal.backlog, memory_order_relaxed);
}

int64_t escqrs_store_head(escqrs_store *store)
{
    if (store->options.readonly && esc_store_enter(store, NULL) == ESCQRS_OK) {
        (void)!store->provider->functions->refresh(store->provider, NULL);
        esc_store_leave(store);
    }
    return esc_provider_head(store->provider);
}

static bool is_closed(void *context)
{
    escqrs_store *store = context;
    /* acquire: as in enter */
    return (atomic_load_explicit(&store->gate, memory_order_acquire) & GATE_CLOSED) != 0;
}

static bool is_closed_or_lost(void *context)
{
    escqrs_store *store = context;
    /* relaxed: esc_journal_wake comes after it */
    return is_closed(store) || atomic_load_explicit(&store->lost, memory_order_relaxed) != 0;
}

/* By the watch's thread: another process has committed, or may have. False: it could not be seen
 * (no memory, a read that failed), and is to be tried again, as nobody tells of it once more. */
static bool look(void *context)
{
    escqrs_store *store = context;
    int64_t before = esc_provider_head(store->provider);
    escqrs_status status = store->provider->functions->refresh(store->provider, NULL);
    atomic_store_explicit(&store->lost, status == ESCQRS_CORRUPT ? (int)status : ESCQRS_OK,
                          memory_order_relaxed);
    if (status == ESCQRS_CORRUPT || esc_provider_head(store->provider) != before) {
        esc_journal_wake(&store->journal);
    }
    return status == ESCQRS_OK || status == ESCQRS_CORRUPT || status == ESCQRS_CLOSED;
}

/* *watch NULL: nothing tells of others but escqrs_store_changed. */
static escqrs_status watch_of(escqrs_store *store, esc_watch **watch)
{
    escqrs_status status = ESCQRS_OK;
    esc_mutex_lock(&store->watch_mutex);
    const char *announced = store->provider->functions->announced(store->provider);
    if (store->watch == NULL && announced != NULL) {
        status = esc_watch_start(announced, &store->options.log, look, store, &store->watch, NULL);
    }
    *watch = store->watch;
    esc_mutex_unlock(&store->watch_mutex);
    return status;
}

/* The head of a read-only store is moved by other processes. */
static escqrs_status wait_read_only(escqrs_store *store, int64_t position,
                                    const _Atomic(int) *cancel, int64_t deadline_ns)
{
    esc_watch *watch;
    escqrs_status status = store->provider->functions->refresh(store->provider, NULL);
    if (status == ESCQRS_CLOSED || status == ESCQRS_CORRUPT) {
        return status;
    }
    if (esc_provider_head(store->provider) > position) {
        return ESCQRS_OK;
    }
    status = watch_of(store, &watch);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (watch != NULL) {
        esc_watch_enter(watch);
    }
    status =
        esc_journal_wait(&store->journal, position, cancel, is_closed_or_lost, store, deadline_ns);
    if (watch != NULL) {
        esc_watch_leave(watch);
    }
    if (status == ESCQRS_CLOSED && !is_closed(store)) {
        status = (escqrs_status)atomic_load_explicit(&store->lost, memory_order_relaxed);
    }
    return status;
}

escqrs_status escqrs_store_wait(escqrs_store *store, int64_t position, const _Atomic(int) *cancel,
                                int64_t deadline_ns)
{
    escqrs_status status = esc_store_enter(store, NULL);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (store->options.readonly) {
        status = wait_read_only(store, position, cancel, deadline_ns);
    } else {
        status = esc_journal_wait(&store->journal, position, cancel, is_closed, store, deadline_ns);
    }
    esc_store_leave(store);
    return status;
}

void escqrs_store_wake(escqrs_store *store)
{
    if (esc_store_enter(store, NULL) == ESCQRS_OK) {
        esc_journal_wake(&store->journal);
        esc_store_leave(store);
    }
}

/* ---- reading ---------------------------------------------------------------------------------- */

escqrs_status escqrs_store_version(escqrs_store *store, escqrs_slice stream, int64_t *version,
                                   escqrs_error *error)
{
    int64_t hint;
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    *version = 0;
    status = store->provider->functions->refresh(store->provider, error);
    if (status == ESCQRS_OK && stream.size > 0) {
        status =
            store->provider->functions->version(store->provider, stream, version, &hint, error);
    }
    esc_store_leave(store);
    return status;
}

escqrs_status escqrs_store_checkpoint(escqrs_store *store, escqrs_slice name, int64_t *position,
                                      escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status == ESCQRS_OK) {
        status = store->provider->functions->checkpoint(store->provider, name, position, error);
        esc_store_leave(store);
    }
    return status;
}

escqrs_status escqrs_store_snapshot(escqrs_store *store, escqrs_slice stream, int64_t upto,
                                    escqrs_snapshot *snapshot, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = upto < 0 ? invalid(error, "a snapshot is looked for up to a version of 0 or more")
                      : store->provider->functions->refresh(store->provider, error);
    if (status == ESCQRS_OK) {
        status =
            store->provider->functions->snapshot(store->provider, stream, upto, snapshot, error);
    }
    esc_store_leave(store);
    return status;
}

escqrs_status escqrs_store_snapshots(escqrs_store *store, int64_t after_number,
                                     int64_t after_version, size_t max,
                                     bool (*visit)(void *context,
                                                   const escqrs_snapshot_info *snapshot),
                                     void *context, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_snapshot_visitor visitor = {after_number, after_version, max, visit, context};
    status = store->provider->functions->refresh(store->provider, error);
    if (status == ESCQRS_OK) {
        status = store->provider->functions->snapshots(store->provider, &visitor, error);
    }
    esc_store_leave(store);
    return status;
}

escqrs_status escqrs_store_chain(escqrs_store *store, int64_t position,
                                 uint8_t link[ESCQRS_CHAIN_LINK_SIZE], escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = store->provider->functions->refresh(store->provider, error);
    if (status == ESCQRS_OK) {
        status = store->provider->functions->chain(store->provider, position, link, error);
    }
    esc_store_leave(store);
    return status;
}

typedef struct deletion {
    escqrs_slice stream;
    int64_t upto;
} deletion;

static escqrs_status delete_snapshots(void *context, void *provider, escqrs_error *error)
{
    const deletion *wanted = context;
    escqrs_provider *self = provider;
    return self->functions->delete_snapshots(self, wanted->stream, wanted->upto, error);
}

escqrs_status escqrs_store_delete_snapshots(escqrs_store *store, escqrs_slice stream, int64_t upto,
                                            escqrs_error *error)
{
    deletion wanted = {stream, upto};
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (store->options.readonly) {
        status = escqrs_error_set(error, ESCQRS_READ_ONLY, "%s was opened read-only", store->path);
    } else if (stream.size == 0 || upto < 0) {
        status = invalid(error, "snapshots are deleted of a stream, up to a version of 0 or more");
    } else {
        status = esc_journal_run(&store->journal, ESC_WORK_STORE, delete_snapshots, &wanted, error);
    }
    esc_store_leave(store);
    return status;
}

/* ---- deleting --------------------------------------------------------------------------------- */

#define COMPACT_PAGES 256 /* at a time: a millisecond or two, in which commits wait */

typedef struct erasing {
    escqrs_erasure *erasures;
    size_t count;
} erasing;

static escqrs_status erase(void *context, void *provider, escqrs_error *error)
{
    const erasing *wanted = context;
    escqrs_provider *self = provider;
    return self->functions->erase(self, wanted->erasures, wanted->count, error);
}

static escqrs_slice erased_stream(const void *erasure)
{
    return ((const escqrs_erasure *)erasure)->stream;
}

static escqrs_status check_erasures(const escqrs_erasure *erasures, size_t count,
                                    escqrs_error *error)
{
    esc_map streams;
    escqrs_status status = ESCQRS_OK;
    esc_map_init(&streams, erased_stream, NULL);
    for (size_t i = 0; i < count && status == ESCQRS_OK; i++) {
        escqrs_slice stream = erasures[i].stream;
        if (stream.size == 0 || stream.size > ESCQRS_STREAM_NAME_MAX || erasures[i].upto < 0) {
            status = invalid(error, "events are deleted of a stream, up to a version of 0 or more");
        } else if (esc_map_get(&streams, stream) != NULL) {
            status = invalid(error, "a stream is named once in what is deleted together");
        } else if (esc_map_insert(&streams, (void *)&erasures[i]) != ESCQRS_OK) {
            status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a deletion");
        }
    }
    esc_map_fini(&streams);
    return status;
}

escqrs_status escqrs_store_erase(escqrs_store *store, escqrs_erasure *erasures, size_t count,
                                 escqrs_error *error)
{
    erasing wanted = {erasures, count};
    escqrs_status status = check_erasures(erasures, count, error);
    if (status == ESCQRS_OK) {
        status = esc_store_enter(store, error);
    }
    if (status != ESCQRS_OK) {
        return status;
    }
    if (store->options.readonly) {
        status = escqrs_error_set(error, ESCQRS_READ_ONLY, "%s was opened read-only", store->path);
    } else {
        status = esc_journal_run(&store->journal, ESC_WORK_STORE, erase, &wanted, error);
    }
    esc_store_leave(store);
    return status;
}

escqrs_status escqrs_store_erased(escqrs_store *store, escqrs_slice stream, escqrs_erased *erased,
                                  escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    *erased = (escqrs_erased){0};
    status = store->provider->functions->refresh(store->provider, error);
    if (status == ESCQRS_OK && esc_provider_deletions(store->provider) > 0) {
        status = store->provider->functions->erased(store->provider, stream, erased, error);
    }
    esc_store_leave(store);
    return status;
}

int64_t escqrs_store_deletions(const escqrs_store *store)
{
    return esc_provider_deletions(store->provider);
}

typedef struct compacting {
    int64_t bytes;
    bool more;
} compacting;

static escqrs_status compact(void *context, void *provider, escqrs_error *error)
{
    compacting *slice = context;
    escqrs_provider *self = provider;
    return self->functions->compact(self, COMPACT_PAGES, &slice->bytes, &slice->more, error);
}

escqrs_status escqrs_store_compact(escqrs_store *store, int64_t *bytes, escqrs_error *error)
{
    compacting slice = {.more = true};
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (store->options.readonly) {
        status = escqrs_error_set(error, ESCQRS_READ_ONLY, "%s was opened read-only", store->path);
    }
    *bytes = 0;
    while (status == ESCQRS_OK && slice.more) {
        status = esc_journal_run(&store->journal, ESC_WORK_STORE, compact, &slice, error);
        *bytes += slice.bytes;
    }
    esc_store_leave(store);
    return status;
}

escqrs_status escqrs_store_streams(escqrs_store *store, int64_t after, size_t max,
                                   bool (*visit)(void *context, const escqrs_stream_info *stream),
                                   void *context, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = store->provider->functions->refresh(store->provider, error);
    if (status == ESCQRS_OK) {
        status =
            store->provider->functions->streams(store->provider, after, max, visit, context, error);
    }
    esc_store_leave(store);
    return status;
}

escqrs_status escqrs_store_backup(escqrs_store *store, const char *path, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status == ESCQRS_OK) {
        status = path == NULL || path[0] == '\0'
                     ? invalid(error, "the path of a copy is empty")
                     : store->provider->functions->backup(store->provider, path, error);
        esc_store_leave(store);
    }
    return status;
}

escqrs_status escqrs_store_verify(escqrs_store *store, const escqrs_observer *observer,
                                  escqrs_verification *found, escqrs_error *error)
{
    static const escqrs_observer nobody = {NULL, NULL, NULL};
    escqrs_status status = esc_store_enter(store, error);
    if (status == ESCQRS_OK) {
        memset(found, 0, sizeof *found);
        status = store->provider->functions->verify(
            store->provider, observer != NULL ? observer : &nobody, found, error);
        esc_store_leave(store);
    }
    return status;
}

escqrs_status escqrs_store_stats(escqrs_store *store, escqrs_statistics *found,
                                 void (*visit)(void *context, escqrs_slice type, int64_t count),
                                 void *context, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status == ESCQRS_OK) {
        memset(found, 0, sizeof *found);
        status = store->provider->functions->stats(store->provider, found, visit, context, error);
        esc_store_leave(store);
    }
    return status;
}

escqrs_status escqrs_store_key(escqrs_store *store, escqrs_slice scope, escqrs_slice key,
                               void **reply, size_t *size, int64_t *position, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status == ESCQRS_OK) {
        status = store->provider->functions->key(store->provider, scope, key, reply, size, position,
                                                 error);
        esc_store_leave(store);
    }
    return status;
}

escqrs_status escqrs_store_reader(escqrs_store *store, void **sqlite, escqrs_error *error)
{
    escqrs_status status = esc_store_enter(store, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = store->provider->functions->reader(store->provider, sqlite, error);
    esc_store_leave(store);
    return status;
}

void escqrs_store_reader_return(escqrs_store *store, void *sqlite)
{
    if (sqlite != NULL && store->fork_generation == escqrs_fork_generation()) {
        store->provider->functions->reader_return(store->provider, sqlite);
    }
}
