/* escqrs/provider.h - what keeps events: the interface between the journal above and a store of
 * bytes below. SQLite's file, the store in memory and providers written in Python are tables of
 * these functions; with escqrs_store_open_provider a program brings its own. examples/provider.c is
 * a small one, provider_suite.h has the tests that each has to pass, docs/providers.md
 * says how to use them.
 *
 * A provider is a struct that begins with an escqrs_provider:
 *
 *     typedef struct my_provider {
 *         escqrs_provider base;
 *         ...
 *     } my_provider;
 *
 *     escqrs_provider_init(&mine->base, &my_functions, &error);
 *     escqrs_store_open_provider(&mine->base, "mine", NULL, &store, &error);
 *
 * Ownership. From escqrs_store_open_provider on the provider is the store's, also where that fails:
 * it is told to `close`, once, when nobody is inside any more, and to `destroy`, once, when the
 * last cursor is gone. What a function is given is borrowed for the call, but for types, which live
 * as long as the provider. What it answers with is said at each.
 *
 * Threads. The writing functions are called by one thread at a time, who leads the journal; the
 * reading ones by any thread at any moment, also while a batch is written. A reader sees whole
 * batches that are durable, never part of one, and all events up to the head; it does not wait for
 * the writer. No lock of the core is held over any call. None of the functions may call back into
 * the store it belongs to, but for the escqrs_provider_, escqrs_page_ and escqrs_type_ functions.
 *
 * Errors. Every function that can fail answers a status and says why with escqrs_error_set: the
 * caller sees both as they are. Where a comment says which fields of the error to fill, these are
 * what programs decide by. What fails has changed nothing, unless it says so by `broken` or
 * `failed`. A function must not answer OK for what it did not do.
 *
 * Atomic. One commit is all or nothing: its events, key, reply, checkpoint and snapshot. So is one
 * call of `erase`. A batch is durable as a whole when `end` answers OK; where it does not, nothing
 * of it is stored, or `failed` says that nobody knows.
 *
 * A batch: begin, then apply for each commit, then end (make all of it durable) or rollback. apply
 * checks the whole commit before it writes any of it, so a commit that fails a check leaves the
 * batch as it was, and the next one is applied; when apply fails while writing, it sets `broken`,
 * answers why, and the batch is rolled back: all of its commits are answered with that. So they are
 * when begin or end fails, which have taken back then what they did: there is no rollback after
 * them. A provider without transactions makes each commit durable in apply, and leaves begin, end
 * and rollback out. The other writing functions come between two batches, and what one of them did
 * is durable when it answers OK.
 *
 * Versions. `interface_version` is ESCQRS_PROVIDER_VERSION as the maker of the table knew it; one
 * that this escqrs does not know is refused (INVALID). It grows when the meaning of what is there
 * changes. New functions are added at the end: `size` says where the maker's table ended, and those
 * beyond are absent, as are those that are NULL. */
#ifndef ESCQRS_PROVIDER_H
#define ESCQRS_PROVIDER_H

#include <escqrs/store.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ESCQRS_PROVIDER_VERSION 1u

typedef struct escqrs_provider escqrs_provider;
typedef struct escqrs_page escqrs_page; /* what one read fills; the core's */

/* What is to be read: versions of a stream, or positions of the store. Both bounds lie inside what
 * is durable. */
typedef struct escqrs_query {
    escqrs_slice stream;         /* empty: by position */
    int64_t hint;                /* of the stream, see `version`; 0: none */
    int64_t after;               /* exclusive */
    int64_t upto;                /* inclusive; above `after` */
    bool reverse;                /* from upto downwards */
    bool skip_deleted;           /* else what was deleted is DELETED */
    const escqrs_match *matches; /* any of them; see escqrs_query_matches */
    size_t match_count;          /* 0: every event */
    size_t count_max;            /* events that the page takes: 1 or more */
} escqrs_query;

/* Who is shown snapshots: see escqrs_store_snapshots. */
typedef struct escqrs_snapshot_visitor {
    int64_t after_number, after_version;
    size_t max;
    bool (*visit)(void *context, const escqrs_snapshot_info *snapshot);
    void *context;
} escqrs_snapshot_visitor;

typedef struct escqrs_provider_functions {
    uint32_t interface_version; /* ESCQRS_PROVIDER_VERSION */
    uint32_t size;              /* sizeof(escqrs_provider_functions) */
    const char *name;           /* of the kind, for messages; static */

    /* ---- writing: the journal's leader alone ---- */

    /* May be absent, as may `end` and `rollback`, which one that begins needs. */
    escqrs_status (*begin)(escqrs_provider *self, escqrs_error *error);
    /* Check the commit, then write it into the batch, behind those before it. The core has checked
     * its form (names, sizes, UTF-8, no id twice in it). Fill writes[].version (the stream's after
     * the commit), position (of the last event; the head with those before it in the batch, where
     * the commit has none) and repeated. In this order: key        used in its key_scope: for the
     * same events (escqrs_commit_fingerprint) fill in the first one's results with repeated = true,
     * and write nothing; for others KEY_REUSED (subject: the key). It stays used when events are
     * deleted expected   of each write, those before it counted: WRONG_VERSION (expected, actual,
     *              version; subject: the stream); DELETED where the stream was closed
     *   snapshot   of a version the stream has after the commit, else INVALID
     *   condition  no event above `after` matches (escqrs_condition_matches), those earlier in the
     *              batch included: CONDITION_FAILED (position of the first that does)
     *   ids        that events give are new in the store: KEY_REUSED
     *   time_us    that events give is not before the last event's: INVALID
     *   checkpoint its position is above the stored one: CHECKPOINT_BEHIND (expected: the given
     *              one, actual: the stored one, -1 for none; subject: the name)
     * What is stored of an event: see escqrs_event_resolve. Its time is what it gives, or that of
     * the clock of the store's options (escqrs_clock_now_us), the same for the whole commit. Times
     * never go back: where the clock does, the last event's stands. Required. */
    escqrs_status (*apply)(escqrs_provider *self, escqrs_commit *commit, escqrs_error *error);
    /* Make the batch durable, then move the head (escqrs_provider_set_head). On failure nothing of
     * the batch is stored; where nobody knows, set `failed`: no further batch begins before the
     * store is opened anew or `restart` has answered OK. */
    escqrs_status (*end)(escqrs_provider *self, escqrs_error *error);
    void (*rollback)(escqrs_provider *self);
    /* Work that may wait until the batch was answered. Its failures are logged, or set `failed`. */
    void (*upkeep)(escqrs_provider *self);
    /* See escqrs_store_run; absent where there is no SQL, and then there are no read models. A
     * provider that is no SQLite database may keep a store of its own for their rows and pass this,
     * `reader` and `reader_return`, which it has all or none of, on to it: in memory (they are made
     * anew each time) or a file. Then `apply` refuses commits (INVALID) while there is an
     * `inliner`. */
    escqrs_status (*run)(escqrs_provider *self, bool sync,
                         escqrs_status (*work)(void *context, void *sqlite, escqrs_error *error),
                         void *context, escqrs_error *error);
    /* See escqrs_store_delete_snapshots. Required. */
    escqrs_status (*delete_snapshots)(escqrs_provider *self, escqrs_slice stream, int64_t upto,
                                      escqrs_error *error);
    /* See escqrs_store_erase; absent: it deletes nothing. Grow the count of deletions
     * (escqrs_provider_set_deletions) before it is durable, so that who sees its effect sees that.
     */
    escqrs_status (*erase)(escqrs_provider *self, escqrs_erasure *erasures, size_t count,
                           escqrs_error *error);
    /* Give up to that many free pages back. *more: others are left. May be absent. */
    escqrs_status (*compact)(escqrs_provider *self, int64_t pages, int64_t *bytes, bool *more,
                             escqrs_error *error);
    /* Begin anew, as when it was opened: forget what is in memory, recover, and set the head to
     * what is stored, which is at least all that was answered OK. After `failed` (which the core
     * takes back when this answers OK), or because a program says so: escqrs_store_restart. May be
     * absent: then the store is closed and opened. */
    escqrs_status (*restart)(escqrs_provider *self, escqrs_error *error);

    /* ---- reading: any thread ---- */

    /* Begin the page, then add the events of the query in its order, matching or not, until one is
     * refused with DONE or the query is answered; escqrs_page_add says more. Where an event was
     * deleted: with `skip_deleted` leave it out (escqrs_page_skip), else DELETED with the last
     * version (of a stream) or position of what was deleted there. CORRUPT (version, position;
     * subject: the stream) for one that does not verify. Of both the core gives the events before
     * first. Required. */
    escqrs_status (*read)(escqrs_provider *self, const escqrs_query *query, escqrs_page *page,
                          escqrs_error *error);
    /* See escqrs_store_streams, _backup, _stats and _verify; each may be absent. The numbers of
     * `stats` and `verify` are zeroed. */
    escqrs_status (*streams)(escqrs_provider *self, int64_t after, size_t max,
                             bool (*visit)(void *context, const escqrs_stream_info *stream),
                             void *context, escqrs_error *error);
    escqrs_status (*backup)(escqrs_provider *self, const char *path, escqrs_error *error);
    escqrs_status (*stats)(escqrs_provider *self, escqrs_statistics *found,
                           void (*visit)(void *context, escqrs_slice type, int64_t count),
                           void *context, escqrs_error *error);
    escqrs_status (*verify)(escqrs_provider *self, const escqrs_observer *observer,
                            escqrs_verification *found, escqrs_error *error);
    /* Version of a stream (0: unknown), and a number that makes later reads of it cheaper (0:
     * none). Required. */
    escqrs_status (*version)(escqrs_provider *self, escqrs_slice stream, int64_t *version,
                             int64_t *hint, escqrs_error *error);
    /* See escqrs_store_erased; absent where `erase` is. */
    escqrs_status (*erased)(escqrs_provider *self, escqrs_slice stream, escqrs_erased *erased,
                            escqrs_error *error);
    /* *position: -1 where there is none. Required. */
    escqrs_status (*checkpoint)(escqrs_provider *self, escqrs_slice name, int64_t *position,
                                escqrs_error *error);
    /* The newest at or below `upto` (0: any); DONE where there is none. `data` from escqrs_alloc,
     * the caller's. Required. */
    escqrs_status (*snapshot)(escqrs_provider *self, escqrs_slice stream, int64_t upto,
                              escqrs_snapshot *snapshot, escqrs_error *error);
    /* May be absent. */
    escqrs_status (*snapshots)(escqrs_provider *self, const escqrs_snapshot_visitor *visitor,
                               escqrs_error *error);
    /* See escqrs_store_chain; absent: DONE. */
    escqrs_status (*chain)(escqrs_provider *self, int64_t position, uint8_t *link,
                           escqrs_error *error);
    /* See escqrs_store_key; *reply from escqrs_alloc, the caller's. Required. */
    escqrs_status (*key)(escqrs_provider *self, escqrs_slice scope, escqrs_slice key, void **reply,
                         size_t *size, int64_t *position, escqrs_error *error);
    /* Look whether others have moved the head, and set it. Called before each reading; absent:
     * nobody else can. */
    escqrs_status (*refresh)(escqrs_provider *self, escqrs_error *error);
    /* Read-only stores: the file, valid until `close`, that other processes read or write after
     * each of their commits, so that who waits is woken by it (inotify); NULL or absent: they are
     * woken by escqrs_store_changed alone. */
    const char *(*announced)(escqrs_provider *self);
    /* See escqrs_store_reader; absent where `run` is. */
    escqrs_status (*reader)(escqrs_provider *self, void **sqlite, escqrs_error *error);
    void (*reader_return)(escqrs_provider *self, void *sqlite);

    /* ---- the end ---- */

    /* Interrupt what readers do; later ones answer CLOSED. May be absent. */
    void (*stop_readers)(escqrs_provider *self);
    /* Let go of what is outside of memory; nobody else is inside, and only `destroy` comes after
     * it. May be absent. */
    void (*close)(escqrs_provider *self);
    /* escqrs_provider_fini, and free the struct. Required. */
    void (*destroy)(escqrs_provider *self);
} escqrs_provider_functions;

struct escqrs_provider {
    const escqrs_provider_functions *functions; /* the core's: all of them, absent ones made up */
    struct esc_provider_core *core;             /* the core's: the head, the types */
    /* The leader's. */
    bool broken; /* set by `apply`, cleared by the core: the running batch is rolled back */
    bool failed; /* set by the provider: final, see `end` and `restart` */
    /* The leader's, for providers with `run`: who writes along with commits, or NULL;
     * escqrs_inliner says what is called when. Where he refuses a commit, the batch is `broken` and
     * `refused`, and is done again `careful`ly: then each commit has a savepoint, and only those
     * that are refused fail. */
    const escqrs_inliner *inliner;
    bool refused, careful;
};

/* ---- life --------------------------------------------------------------------------------------
 */

/* Zero the struct's beginning and take the table, which is copied. INVALID: a version that this
 * escqrs does not know, or a function that is absent and required, or needed by another (`end` and
 * `rollback` by `begin`, `erased` by `erase`). NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_provider_init(escqrs_provider *provider,
                                                   const escqrs_provider_functions *functions,
                                                   escqrs_error *error);
/* Frees what init made, types included. In `destroy`, or where init failed or the provider was
 * never given to a store. */
void escqrs_provider_fini(escqrs_provider *provider);

/* Open a store on a provider, which has set its head; `name` stands for a path in messages. The
 * options that concern files (durability, chain, readers, tail, VFS) are the provider's to know, as
 * is the clock, by which it stores times; whoever opens gives them to it as well. On failure the
 * provider was closed and destroyed. NO_MEMORY, IO. */
ESCQRS_MUST_USE escqrs_status escqrs_store_open_provider(escqrs_provider *provider,
                                                         const char *name,
                                                         const escqrs_store_options *options,
                                                         escqrs_store **store, escqrs_error *error);
/* Somebody has committed past this store: refresh, and wake who waits. Any thread. */
void escqrs_store_changed(escqrs_store *store);

/* ---- what the core keeps for a provider: any thread ---------------------------------------------
 */

/* The position of the last event that readers may see. Set by whoever opens the provider, by `end`
 * (or `apply`), `refresh` and `restart`: what was written before is seen by who sees the head. A
 * lower one is ignored. */
void escqrs_provider_set_head(escqrs_provider *provider, int64_t head);
int64_t escqrs_provider_head(const escqrs_provider *provider);
/* How often events were deleted; 0: never. */
void escqrs_provider_set_deletions(escqrs_provider *provider, int64_t deletions);
int64_t escqrs_provider_deletions(const escqrs_provider *provider);

/* The type of that name and schema record, found or made. INVALID, TOO_LARGE, NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_provider_type(escqrs_provider *provider, escqrs_slice name,
                                                   escqrs_slice record, escqrs_type **type,
                                                   escqrs_error *error);
/* A type as it was stored, under the number it had (escqrs_type_id), before any is made; in
 * `restart` it is the one that is there. It counts as stored. CORRUPT: the number or the name
 * cannot be, or stands for another type; NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_provider_load_type(escqrs_provider *provider, int64_t id,
                                                        escqrs_slice name, escqrs_slice record,
                                                        escqrs_type **type, escqrs_error *error);
/* An event or snapshot of it is durable. From then on its schema binds who opens the store. */
void escqrs_type_set_stored(escqrs_type *type);
bool escqrs_type_stored(const escqrs_type *type);

/* ---- commits ------------------------------------------------------------------------------------
 */

/* What is to be stored of an event of the commit: all fields of `recorded` but position, version,
 * time and stream, borrowed from the commit. An id, where the event gives none, is made; so is
 * `cause` (zero it once a commit), which stands for a causation that nobody gives. */
void escqrs_event_resolve(const escqrs_commit *commit, const escqrs_new_event *event,
                          escqrs_uuid *cause, escqrs_recorded *recorded);
/* A number over what the commit would store, by which a used key is told to mean the same. */
uint64_t escqrs_commit_fingerprint(const escqrs_commit *commit);
/* Does the event (position, type and tags filled in) fail the condition? */
bool escqrs_condition_matches(const escqrs_condition *condition, const escqrs_recorded *recorded);
/* Does it match the query's `matches`? */
bool escqrs_query_matches(const escqrs_query *query, const escqrs_recorded *recorded);

/* ---- pages: whoever reads -----------------------------------------------------------------------
 */

/* Empty the page, for that query. NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_page_begin(escqrs_page *page, const escqrs_query *query,
                                                escqrs_error *error);
/* The next event of the query: copied into the page if it matches. OK: go on; DONE: the page is
 * full, and the event was not taken: end the reading with OK. CORRUPT: it is not the next one, so
 * the provider has lost one. NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_page_add(escqrs_page *page, const escqrs_query *query,
                                              const escqrs_recorded *recorded, escqrs_error *error);
/* There is nothing to give up to that version or position, the query's direction kept: it was
 * deleted, or matches nothing. Where the whole query is answered: its last one. */
void escqrs_page_skip(escqrs_page *page, const escqrs_query *query, int64_t upto);

#ifdef __cplusplus
}
#endif

#endif
