/* readmodel/projector.h - the projector, its read models, and what they share. See projector.c for
 * the design. */
#ifndef ESC_READMODEL_PROJECTOR_H
#define ESC_READMODEL_PROJECTOR_H

#include <escqrs/readmodel.h>

#include <stdatomic.h>

#include "base/arena.h"
#include "base/map.h"
#include "base/thread.h"
#include "base/vector.h"
#include "readmodel/checkpoint.h"
#include "readmodel/definition.h"

/* ---- statements kept on a connection ---------------------------------------------------------------- */

#define ESC_STATEMENT_CACHE_MAX 64

typedef struct esc_cached_statement {
    char *sql;
    sqlite3_stmt *statement;
    bool in_use;
    uint64_t used; /* the higher, the later */
} esc_cached_statement;

/* Statements that functions of projections have asked for. */
typedef struct esc_statement_cache {
    esc_cached_statement entries[ESC_STATEMENT_CACHE_MAX];
    size_t count;
    uint64_t clock;
} esc_statement_cache;

/* Statements of a transaction, prepared when first used. */
typedef struct esc_control {
    sqlite3_stmt *begin, *commit, *savepoint, *release, *undo, *move;
} esc_control;

/* ---- rate -------------------------------------------------------------------------------------------- */

typedef struct esc_rate {
    int64_t begun_ns; /* of the window under way; 0: none yet */
    int64_t count;
    double before; /* a second, in the window before; negative: there was none */
} esc_rate;

void esc_rate_add(esc_rate *rate, int64_t count);
double esc_rate_now(const esc_rate *rate);

/* ---- unparking ----------------------------------------------------------------------------------------- */

/* One at a time; whoever comes later waits his turn. */
typedef struct esc_unpark_queue {
    uint64_t asked, done; /* tickets */
    char *stream;         /* of the one asked for and not done; NULL: every stream */
    char *reason;
    int64_t skip;
    bool rebuild;       /* make the stream anew */
    escqrs_error error; /* of the last done */
} esc_unpark_queue;

/* ---- follower ------------------------------------------------------------------------------------------ */

/* One set of a read model's tables that follows the feed: the live one in the store's file, or a
 * copy that is being built in a database of its own. All of it belongs to the thread that projects,
 * but `position`, which that thread writes under the projector's lock. */
typedef struct esc_follower {
    escqrs_readmodel *model;
    sqlite3 *db;         /* of a copy, or of a file of its own; NULL: the store's writing one */
    esc_control control; /* on `db` */
    sqlite3_stmt **statements;  /* by projection; prepared when first used */
    esc_statement_cache *cache; /* made when first used */
    int64_t position;           /* of the last event applied and committed */
    /* attempts that have failed at the event at attempt_position */
    int64_t attempt_position;
    uint32_t attempts;
    /* streams of which an event is parked, as `db` has them; see park.c */
    esc_map parked_streams;
    int64_t parked_events;
    bool parked_known; /* else they have to be looked up */
    /* during a run */
    bool active;
    int64_t limit;           /* the first event that it cannot take; INT64_MAX if none */
    int64_t parked_position; /* the last event that was parked */
    size_t parked_in_run;    /* of those that failed themselves */
    escqrs_error failure;    /* at `limit`, or of the last event that was parked */
} esc_follower;

/* ---- files of their own -------------------------------------------------------------------------------- */

#define ESC_SIDE_READERS_MAX 4

/* Of a read model whose tables do not lie in the store's file; see side.c. */
typedef struct esc_side {
    char *path; /* as SQLite opens it; NULL: the store's file */
    int64_t salt;
    sqlite3 *readers[ESC_SIDE_READERS_MAX]; /* the projector's lock: idle ones */
    size_t reader_count;                    /* likewise */
} esc_side;

/* ---- read model ------------------------------------------------------------------------------------------ */

struct escqrs_readmodel {
    escqrs_projector *projector;
    esc_definition definition;
    esc_follower live;
    esc_follower *copy;  /* or NULL; written under the lock */
    esc_follower *fresh; /* one stream's rows that are being made; or NULL; the thread's */
    char *copy_path;     /* where copies lie; NULL: in temporary databases; constant once made */
    esc_side side;
    const esc_vector *forgiven; /* int64_t: events that may fail and are left out; or NULL */
    /* guarded by the projector's lock */
    /* The live tables are written by the commits themselves. Written by the thread that projects
     * while it has the writing connection, so that whoever has that may read it. */
    bool inlined;
    /* the live tables are of an older definition or damaged: the copy counts */
    bool frozen;
    bool stopped; /* `error` says why; of the copy if frozen, else of the live one */
    bool level;   /* has been at the head since it last began to catch up */
    bool rebuild_wanted;
    bool refilling; /* being built anew in place */
    bool busy;      /* a skip is under way */
    /* the last attempt failed for the machine's reasons; it is tried again */
    bool troubled;
    bool retrying;     /* the last attempt at an event failed; it is tried again */
    uint64_t failures; /* attempts so far that failed for the machine's reasons */
    int64_t retry_at_ns;
    escqrs_error error;
    int64_t parked;        /* of the one that counts, as of its last transaction */
    bool cancel_wanted;    /* of the rebuild */
    bool rebuild_failed;   /* given up, and no wait has told so yet */
    uint64_t changes;      /* of the rows that queries see, and kicks of who waits for them */
    bool error_is_rebuild; /* `error` is that of a rebuild that was given up */
    esc_unpark_queue unparks;
    /* events applied by the one that counts, in this second and the whole one before */
    esc_rate rate;
    /* the thread that projects */
    char *detail; /* of the failure under way, or NULL */
};

/* ---- topics ------------------------------------------------------------------------------------------------ */

typedef struct esc_subscription {
    escqrs_readmodel *model;
    size_t index; /* of the projection */
} esc_subscription;

/* All that is done with one type of event, by read model in the order added. */
typedef struct esc_topic {
    char *type;
    const escqrs_schema *schema; /* NULL while no SQL of its own wants the message */
    bool whole;                  /* a function gets the recorded event: keep all of it */
    bool tagged;                 /* tags decide who takes it */
    bool rendered;               /* SQL wants it as JSON, whatever it is */
    esc_vector subscriptions;    /* esc_subscription */
    /* for `rendered` without a schema: those of the records in the store, by type */
    esc_vector loaded; /* esc_loaded_schema */
} esc_topic;

typedef struct esc_loaded_schema {
    const escqrs_type *type;
    escqrs_schema *schema; /* NULL: it has no record, or none that can be read */
} esc_loaded_schema;

/* Types of which nobody knew at the start are added where a read model takes every event. */
typedef struct esc_topic_set {
    esc_vector topics; /* esc_topic * */
    esc_map by_type;
    esc_topic *every; /* what is done with every event; or NULL */
} esc_topic_set;

/* ---- readings --------------------------------------------------------------------------------- */

/* How events of one stored type are applied. */
typedef struct esc_reading {
    escqrs_reading how;
    const escqrs_type *as;
    escqrs_error failure; /* REFUSED */
} esc_reading;

typedef struct esc_readings {
    esc_vector by_type; /* esc_reading *, by escqrs_type_id; NULL: not asked yet */
    esc_topic *all;     /* every read model, once; or NULL */
} esc_readings;

/* ---- batch --------------------------------------------------------------------------------------------------- */

typedef struct esc_item { /* an event that somebody wants */
    escqrs_recorded recorded;
    ProtobufCMessage *message;   /* or NULL */
    const escqrs_schema *schema; /* of the message */
    const esc_topic *topic;
    const escqrs_error *failure; /* it could not be decoded; or NULL */
    bool blocked;                /* not for anybody: `failure` stops all that want it */
} esc_item;

typedef struct esc_batch {
    int64_t upto;     /* every event up to here is in it, or wanted by nobody */
    esc_vector items; /* esc_item */
    esc_arena arena;
} esc_batch;

#define ESC_BATCH_EVENTS_MAX 4096
#define ESC_BATCH_BYTES_MAX (4u << 20)

typedef struct esc_feed { /* a cursor and where it stands */
    escqrs_cursor *cursor;
    int64_t position;
} esc_feed;

#define ESC_FEED_COUNT 3

/* ---- inline -------------------------------------------------------------------------------------------- */

/* What inline read models do with commits; all of it belongs to whoever has the writing
 * connection. */
typedef struct esc_inliner {
    escqrs_inliner hook;
    esc_topic_set topics;
    esc_readings readings; /* with the writing connection */
    esc_buffer json;
    bool is_set; /* the store calls it */
} esc_inliner;

/* ---- projector -------------------------------------------------------------------------------------------------- */

struct escqrs_projector {
    /* constant once started */
    escqrs_store *store;
    escqrs_host_ops host;
    void *host_context;
    bool has_host;
    bool readonly;
    bool in_memory;
    escqrs_log log;
    escqrs_clock clock;
    unsigned fork_generation;
    esc_vector models;    /* escqrs_readmodel * */
    esc_topic_set topics; /* the thread that projects */
    escqrs_event_reader reader;
    esc_readings readings; /* the thread that projects */
    esc_inliner inliner;

    /* the thread that projects */
    esc_batch batch;
    esc_feed feeds[ESC_FEED_COUNT];
    size_t next_feed;
    esc_buffer json;
    esc_control control; /* of the writing connection */
    void *host_state;
    unsigned turn;
    bool inline_only;       /* while it starts */
    esc_follower **members; /* as many as models */

    esc_mutex mutex;
    esc_cond changed;  /* a position, a state or a flag below */
    bool made;         /* by whoever starts it: the tables are there */
    bool started;      /* by whoever starts and stops it */
    bool ended;        /* mutex */
    bool stopping;     /* mutex */
    bool pausing;      /* mutex; the thread is asked to rest */
    bool resting;      /* mutex; it does */
    atomic_int cancel; /* see wake_up in projector.c */
    esc_thread thread;
};

static inline escqrs_readmodel *esc_projector_model(const escqrs_projector *projector, size_t index)
{
    return ESC_VECTOR_AT(&projector->models, escqrs_readmodel *, index);
}

static inline bool esc_projector_is_forked(const escqrs_projector *projector)
{
    return projector->fork_generation != escqrs_fork_generation();
}

/* By the projector's clock. */
int64_t esc_projector_deadline(const escqrs_projector *projector, int64_t delay_ns);
/* Have the thread look at what is wanted of it. Not under the mutex. */
void esc_projector_wake(escqrs_projector *projector);

/* ---- model.c --------------------------------------------------------------------------------- */

/* Make in the file what it does not have yet, all or nothing. */
escqrs_status esc_models_make(escqrs_projector *projector, escqrs_error *error) ESCQRS_MUST_USE;
/* By its definition alone; not yet part of the projector. */
escqrs_status esc_model_create(escqrs_projector *projector, const escqrs_readmodel_spec *spec,
                               escqrs_readmodel **model, escqrs_error *error) ESCQRS_MUST_USE;
void esc_model_destroy(escqrs_readmodel *model);
/* What a reader sees of its checkpoint. */
escqrs_status esc_model_look_up(escqrs_readmodel *model, esc_checkpoint *checkpoint,
                                escqrs_error *error) ESCQRS_MUST_USE;

/* ---- request.c ------------------------------------------------------------------------------- */

escqrs_status esc_model_check_writable(const escqrs_readmodel *model,
                                       escqrs_error *error) ESCQRS_MUST_USE;

/* ---- side.c ---------------------------------------------------------------------------------- */

/* Open its file for the live tables, if it has one. It is not written yet. NOT_A_STORE: another
 * program's file, or one that belongs to another store. */
escqrs_status esc_side_open(escqrs_readmodel *model, escqrs_error *error) ESCQRS_MUST_USE;
/* Within a transaction: what an empty file needs. */
escqrs_status esc_side_make(escqrs_readmodel *model, escqrs_error *error) ESCQRS_MUST_USE;
/* Close its connections; whoever reads still closes his own when he gives it back. */
void esc_side_close(escqrs_readmodel *model);
bool esc_side_is_in_memory(const escqrs_readmodel *model);
/* Run `work` on the connection that writes the live tables. */
escqrs_status esc_side_run(escqrs_readmodel *model,
                           escqrs_status (*work)(void *context, void *sqlite, escqrs_error *error),
                           void *context, escqrs_error *error) ESCQRS_MUST_USE;

/* ---- topic.c --------------------------------------------------------------------------------- */

void esc_topic_set_init(esc_topic_set *set);
void esc_topic_set_fini(esc_topic_set *set);
/* On failure some may have been made: unsubscribe. */
escqrs_status esc_topic_set_subscribe(esc_topic_set *set, escqrs_readmodel *model,
                                      escqrs_error *error) ESCQRS_MUST_USE;
void esc_topic_set_unsubscribe(esc_topic_set *set, const escqrs_readmodel *model);
/* That of a stored type; `*topic` is NULL where nobody takes it. NO_MEMORY. */
escqrs_status esc_topic_set_find(esc_topic_set *set, const escqrs_type *type,
                                 esc_topic **topic) ESCQRS_MUST_USE;
/* The schema by which its events are unpacked; NULL: nobody wants that, or there is none. */
const escqrs_schema *esc_topic_schema(esc_topic *topic, const escqrs_type *type);

/* ---- inline.c -------------------------------------------------------------------------------- */

void esc_inliner_init(escqrs_projector *projector);
void esc_inliner_fini(escqrs_projector *projector);
/* All that follows: with the writing connection. The live tables of an inline read model are level,
 * at the store's head: from now on the commits write them. */
void esc_inline_enter(escqrs_readmodel *model, int64_t head);
/* They are not, any more. */
void esc_inline_leave(escqrs_readmodel *model);
void esc_inliner_end(escqrs_projector *projector);

/* ---- follower.c ------------------------------------------------------------------------------ */

void esc_control_fini(esc_control *control);
/* Statements on the writing connection are finalized by whoever has it. */
void esc_follower_finalize(esc_follower *follower);
/* That of a projection, prepared when first used. */
escqrs_status esc_follower_statement(esc_follower *follower, size_t index, sqlite3 *db,
                                     sqlite3_stmt **statement, escqrs_error *error) ESCQRS_MUST_USE;
/* Every event up to `position` is applied and committed. */
void esc_follower_advance(esc_follower *follower, int64_t position, int64_t head);
/* Further attempts that its policy allows at the event. */
uint32_t esc_follower_attempts_left(const esc_follower *follower, int64_t position);
/* It cannot take an event: it waits and tries again, or stops. */
void esc_follower_stop(esc_follower *follower, const escqrs_error *error);
/* The machine is to blame: later again. */
void esc_model_trouble(escqrs_readmodel *model, const escqrs_error *error);

/* ---- park.c ---------------------------------------------------------------------------------- */

void esc_park_init(esc_follower *follower);
void esc_park_fini(esc_follower *follower);
/* What its database has of parked events. */
escqrs_status esc_park_load(esc_follower *follower, sqlite3 *db,
                            escqrs_error *error) ESCQRS_MUST_USE;
/* A transaction was taken back: look it up anew. */
void esc_park_forget(esc_follower *follower);
bool esc_park_holds(const esc_follower *follower, escqrs_slice stream);
/* Write an item to the dead letters. `failure`: its own; NULL: it waits behind an earlier one. */
escqrs_status esc_park_put(esc_follower *follower, const esc_item *item, sqlite3 *db,
                           const escqrs_error *failure, escqrs_error *error) ESCQRS_MUST_USE;
/* Do what was asked with parked events. False: nothing was. */
bool esc_park_turn(escqrs_readmodel *model);
void esc_park_end(escqrs_readmodel *model);

/* ---- reading.c ------------------------------------------------------------------------------- */

void esc_readings_init(esc_readings *self);
void esc_readings_fini(esc_readings *self);
/* NULL: as stored, there is no reader. NO_MEMORY. */
escqrs_status esc_readings_find(esc_readings *self, const escqrs_projector *projector,
                                const escqrs_type *type, const esc_reading **reading,
                                escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_readings_all(esc_readings *self, escqrs_projector *projector,
                               esc_topic **all) ESCQRS_MUST_USE;

/* ---- rebuild.c ------------------------------------------------------------------------------- */

/* Begin or end a rebuild if it is time; false: there was nothing to do, or it has to be tried again
 * later. */
bool esc_rebuild_turn(escqrs_readmodel *model, int64_t head);

/* ---- copy.c ---------------------------------------------------------------------------------- */

/* Empty tables in a database that is gone when it is closed. */
escqrs_status esc_copy_make_temporary(escqrs_readmodel *model, esc_follower **copy,
                                      escqrs_error *error) ESCQRS_MUST_USE;
/* Those of a rebuild, which are found again after a crash. The old copy is gone by now. */
escqrs_status esc_copy_begin(escqrs_readmodel *model, esc_follower **copy,
                             escqrs_error *error) ESCQRS_MUST_USE;
/* When it is opened, the live tables being there: go on with the rebuild that was under way. */
escqrs_status esc_copy_resume(escqrs_readmodel *model, escqrs_error *error) ESCQRS_MUST_USE;
/* Within a transaction on the database of the live tables: no rebuild is under way any more. */
escqrs_status esc_copy_forget(const escqrs_readmodel *model, sqlite3 *db,
                              escqrs_error *error) ESCQRS_MUST_USE;
/* Remove the copy, if there is one. */
void esc_copy_remove(escqrs_readmodel *model);
/* The rebuild is over without a swap: forget it, and remove the copy. */
void esc_copy_drop(escqrs_readmodel *model);
/* Close its database; its file stays. */
void esc_copy_close(esc_follower *copy);
void esc_copy_destroy(esc_follower *copy); /* closes it first; NULL is fine */

/* ---- stream_build.c -------------------------------------------------------------------------- */

/* Make the rows of one stream anew. READ_MODEL_STOPPED: an event cannot be applied; INVALID: they
 * cannot be told from others. */
escqrs_status esc_stream_build(escqrs_readmodel *model, const char *stream,
                               escqrs_error *error) ESCQRS_MUST_USE;

/* ---- batch.c --------------------------------------------------------------------------------- */

/* Read and decode the events after a position, up to `bound`. OK, and the batch reaches at least
 * one event further; DONE: there is none. CORRUPT: the next event cannot be read. */
escqrs_status esc_batch_read(escqrs_projector *projector, int64_t after, int64_t bound,
                             escqrs_error *error) ESCQRS_MUST_USE;
/* Likewise the next events of a stream, by its cursor, that are at `upto` at most; `*version`
 * becomes that of the last. DONE: there is none. */
escqrs_status esc_batch_read_stream(escqrs_projector *projector, escqrs_cursor *cursor,
                                    int64_t upto, int64_t *version,
                                    escqrs_error *error) ESCQRS_MUST_USE;
void esc_batch_clear(esc_batch *batch);
void esc_batch_fini(esc_batch *batch);
void esc_projector_close_feeds(escqrs_projector *projector);

/* ---- run.c ----------------------------------------------------------------------------------- */

/* One transaction: apply the batch's items from `first` on to the active members. */
typedef struct esc_run {
    escqrs_projector *projector;
    esc_follower *const *members;
    size_t member_count;
    size_t first; /* item */
    size_t next;  /* result: the first item not taken */
    int64_t upto; /* result: every event up to here is applied, or beyond its follower's limit */
    bool copies;  /* members are copies, else live */
    bool parked;  /* the items were parked: one that fails again fails the run */
    bool savepoints;
    bool attached;
    esc_buffer *json; /* room to work in; NULL: the projector's */
    /* an event that ended the transaction when it failed: to be parked without another attempt */
    const esc_follower *doomed;
    int64_t doomed_position;
    escqrs_error doomed_failure;
    int64_t end_before; /* the next such event; 0: none */
    int64_t begun_ns;
    const esc_follower *culprit; /* result: whose checkpoint was not where it should be, or NULL */
} esc_run;

/* OK: committed; followers whose limit is at most `upto` have failed there, `failure` says why.
 * Anything else: nothing was applied, the machine is to blame, and trying again may help. */
escqrs_status esc_run_transaction(esc_run *run, sqlite3 *db, esc_control *control,
                                  escqrs_error *error) ESCQRS_MUST_USE;
/* Within the transaction of a commit: have the inline read models apply one of its events.
 * REJECTED: one cannot. */
escqrs_status esc_run_inline(esc_run *run, const esc_item *item, sqlite3 *db,
                             escqrs_error *error) ESCQRS_MUST_USE;
/* Move a checkpoint from where the follower stands. CORRUPT: it is not there. */
escqrs_status esc_run_move(const esc_follower *follower, int64_t to, sqlite3 *db,
                           esc_control *control, escqrs_error *error) ESCQRS_MUST_USE;
/* Within the caller's transaction on the writing connection: apply the batch, one parked event, and
 * move no checkpoint. REPLAY: it failed again, the member's `failure` says why. */
escqrs_status esc_run_parked(esc_run *run, sqlite3 *db, esc_control *control,
                             escqrs_error *error) ESCQRS_MUST_USE;

#endif
