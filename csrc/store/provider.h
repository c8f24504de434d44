/* What keeps events: the interface between the journal above and a store of bytes below.
 *
 * A provider is a struct that begins with esc_provider; its class is a table of functions. The
 * journal calls the writing functions from one thread at a time (whoever leads); the reading ones
 * come from any thread at any moment and must not wait for the writer.
 *
 * A batch: begin, then apply for each commit, then end (make all of it durable) or rollback. apply
 * checks the whole commit before it writes any of it, so a commit that fails a check leaves the
 * batch as it was; when apply fails while writing, it sets `broken` and the batch can only be
 * rolled back. */
#ifndef ESC_STORE_PROVIDER_H
#define ESC_STORE_PROVIDER_H

#include <escqrs/store.h>

#include <stdatomic.h>

#include "store/page.h"
#include "store/type.h"
#include "store/watch.h"

#define ESC_PROVIDER_ABI 1u

typedef struct esc_provider esc_provider;

/* Who is shown snapshots: see escqrs_store_snapshots. */
typedef struct esc_snapshot_visitor {
    int64_t after_number, after_version;
    size_t max;
    bool (*visit)(void *context, const escqrs_snapshot_info *snapshot);
    void *context;
} esc_snapshot_visitor;

typedef struct esc_provider_class {
    uint32_t abi;  /* ESC_PROVIDER_ABI of who made the table */
    uint32_t size; /* sizeof(esc_provider_class) there: functions beyond it are absent */
    const char *name;

    /* ---- writing: the journal's leader alone ---- */
    escqrs_status (*begin)(esc_provider *self, escqrs_error *error);
    /* Fills writes[].version, position and repeated. */
    escqrs_status (*apply)(esc_provider *self, escqrs_commit *commit, escqrs_error *error);
    /* Durable when OK, and the head has moved. On failure nothing of the batch is stored, unless
     * `failed` was set: then nobody knows, and no further batch may begin. */
    escqrs_status (*end)(esc_provider *self, escqrs_error *error);
    void (*rollback)(esc_provider *self);
    /* Work that may wait until the batch was answered. Its failures are logged, or set `failed`. */
    void (*upkeep)(esc_provider *self);
    /* See escqrs_store_run; NULL where there is no SQL. */
    escqrs_status (*run)(esc_provider *self, bool sync,
                         escqrs_status (*work)(void *context, void *sqlite, escqrs_error *error),
                         void *context, escqrs_error *error);
    escqrs_status (*delete_snapshots)(esc_provider *self, escqrs_slice stream, int64_t upto,
                                      escqrs_error *error);
    /* See escqrs_store_erase; NULL: it cannot, as `compact` and `erased`. `deletions` grows before
     * it is durable, so that who sees its effect sees that. */
    escqrs_status (*erase)(esc_provider *self, escqrs_erasure *erasures, size_t count,
                           escqrs_error *error);
    /* Give up to that many free pages back. *more: others are left. */
    escqrs_status (*compact)(esc_provider *self, int64_t pages, int64_t *bytes, bool *more,
                             escqrs_error *error);

    /* ---- reading: any thread ---- */
    /* Fill the page as the query says; see store/page.h. */
    escqrs_status (*read)(esc_provider *self, const esc_query *query, esc_page *page,
                          escqrs_error *error);
    /* See escqrs_store_streams and escqrs_store_backup. */
    escqrs_status (*streams)(esc_provider *self, int64_t after, size_t max,
                             bool (*visit)(void *context, const escqrs_stream_info *stream),
                             void *context, escqrs_error *error);
    escqrs_status (*backup)(esc_provider *self, const char *path, escqrs_error *error);
    escqrs_status (*stats)(esc_provider *self, escqrs_statistics *found,
                           void (*visit)(void *context, escqrs_slice type, int64_t count),
                           void *context, escqrs_error *error);
    escqrs_status (*verify)(esc_provider *self, const escqrs_observer *observer,
                            escqrs_verification *found, escqrs_error *error);
    /* Version of a stream (0: unknown), and a number that makes later reads of it cheaper (0:
     * none). */
    escqrs_status (*version)(esc_provider *self, escqrs_slice stream, int64_t *version,
                             int64_t *hint, escqrs_error *error);
    escqrs_status (*erased)(esc_provider *self, escqrs_slice stream, escqrs_erased *erased,
                            escqrs_error *error);
    escqrs_status (*checkpoint)(esc_provider *self, escqrs_slice name, int64_t *position,
                                escqrs_error *error);
    escqrs_status (*snapshot)(esc_provider *self, escqrs_slice stream, int64_t upto,
                              escqrs_snapshot *snapshot, escqrs_error *error);
    escqrs_status (*snapshots)(esc_provider *self, const esc_snapshot_visitor *visitor,
                               escqrs_error *error);
    /* See escqrs_store_chain. */
    escqrs_status (*chain)(esc_provider *self, int64_t position, uint8_t *link,
                           escqrs_error *error);
    escqrs_status (*key)(esc_provider *self, escqrs_slice scope, escqrs_slice key, void **reply,
                         size_t *size, int64_t *position, escqrs_error *error);
    /* Look whether another process has moved the head (read-only stores; NULL: nobody else can). */
    escqrs_status (*refresh)(esc_provider *self, escqrs_error *error);
    /* Call `look` when another process may have moved it; see store/watch.h. */
    escqrs_status (*watch)(esc_provider *self, void (*look)(void *context), void *context,
                           esc_watch **watch, escqrs_error *error);
    escqrs_status (*reader)(esc_provider *self, void **sqlite, escqrs_error *error);
    void (*reader_return)(esc_provider *self, void *sqlite);

    /* Interrupt what readers do and wait until all are back; later readers answer CLOSED. */
    void (*stop_readers)(esc_provider *self);
    /* Let go of the file; nobody else is inside, and only `destroy` comes after it. */
    void (*close)(esc_provider *self);
    /* Frees the memory, types included. */
    void (*destroy)(esc_provider *self);
} esc_provider_class;

struct esc_provider {
    const esc_provider_class *class;
    esc_type_registry types;
    _Atomic int64_t head; /* durable; written by `end` with release, read with acquire by all */
    _Atomic int64_t deletions; /* see `erase`; written with release, read with acquire by all */
    bool broken;               /* the leader's: the running batch can only be rolled back */
    bool failed;               /* the leader's: final, see `end` */
    /* The leader's: who writes along with commits, or NULL. Where he refuses a commit, the batch is
     * `broken` and `refused`, and can be done again `careful`ly: then each commit has a savepoint,
     * and only those that are refused fail. */
    const escqrs_inliner *inliner;
    bool refused, careful;
};

/* How often events were deleted; 0: never. */
static inline int64_t esc_provider_deletions(const esc_provider *provider)
{
    /* acquire: pairs with the release in `erase` and `refresh` */
    return atomic_load_explicit(&provider->deletions, memory_order_acquire);
}

/* The head as readers may rely on it: every event up to it can be read. */
static inline int64_t esc_provider_head(esc_provider *provider)
{
    /* acquire: pairs with the release in the provider's `end`, after the commit */
    return atomic_load_explicit(&provider->head, memory_order_acquire);
}

#endif
