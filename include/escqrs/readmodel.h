/* escqrs/readmodel.h - read models: tables that follow the events.
 *
 * A projector follows the feed of one store on one thread and keeps all read models of it. Each
 * read model sees every event exactly once, in global order; its checkpoint commits with its rows,
 * in the events' own file. Read models at the same position share one decoding and one transaction.
 * One that cannot take an event has nothing of it applied, and then does what its policy says: it
 * tries again after a while, stops there, or parks the event; the others go on.
 *
 * Parked: the event, and the later ones of its stream that the read model takes, are listed in the
 * table escqrs_dead_letter (see readmodel/dead_letter.h) in place of being applied, until somebody
 * has them applied after all or leaves one out.
 *
 * The transactions of a projection are not fsynced: its rows can be made again from the events, and
 * checkpoint and rows are lost or kept together. */
#ifndef ESCQRS_READMODEL_H
#define ESCQRS_READMODEL_H

#include <escqrs/base.h>
#include <escqrs/runtime.h>
#include <escqrs/schema.h>
#include <escqrs/store.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct escqrs_projector escqrs_projector;
typedef struct escqrs_readmodel escqrs_readmodel;

/* What one read model does with one type of event: SQL, or a function. Several for one type run in
 * order. */
typedef struct escqrs_projection {
    escqrs_slice type;           /* name of the event's type; empty: every event */
    const escqrs_schema *schema; /* of the event; outlives the projector; NULL: every event */
    const escqrs_slice *tags;    /* only events that bear all of these */
    size_t tag_count;
    /* a packed message that holds the defaults of the event's fields; may be empty */
    escqrs_slice defaults;
    /* one statement; parameters :field, :_stream :_position :_version :_time :_id :_type, and
     * :_event, the event as JSON (NULL where its schema is not known). Empty: `apply` */
    escqrs_slice sql;
    /* Name of a field that is a list or a map: the statement runs once for each of its items in
     * their order, with the parameters :_index (from 0), :_item, for items that are messages
     * :_item_{field}, and for maps :_key. Empty: once */
    escqrs_slice each;
    /* Called attached to the host, within the transaction, with the writing connection (sqlite3 *).
     * Anything but OK fails the event. It must not commit, nor wait for the system. */
    escqrs_status (*apply)(void *context, const escqrs_recorded *recorded, void *sqlite,
                           escqrs_error *error);
    void *context;
    escqrs_slice name; /* of `apply`; another name means: build anew */
} escqrs_projection;

typedef enum escqrs_failure_action {
    ESCQRS_FAILURE_STOP = 0,
    ESCQRS_FAILURE_PARK,
} escqrs_failure_action;

/* What becomes of an event that cannot be applied. Not for a full disk and the like: these are
 * waited out. */
typedef struct escqrs_failure_policy {
    uint32_t retry_count;       /* further attempts before `then` */
    int64_t retry_delay_ns;     /* before the first; each is twice as long; 0: 100 ms */
    int64_t retry_delay_max_ns; /* 0: 30 s */
    escqrs_failure_action then;
} escqrs_failure_policy;

typedef struct escqrs_readmodel_spec {
    escqrs_slice name;
    escqrs_slice schema;  /* one or more SQL statements that make its tables */
    escqrs_slice version; /* free text; a change means: build anew */
    /* Where its tables lie: empty: in the store's file; ":memory:": in memory, built from the first
     * event each time it is opened; else an SQLite file of its own or of several read models,
     * relative to the folder of the store's. Checkpoint and dead letters lie there, too. */
    escqrs_slice file;
    /* refuse to open what has changed (SCHEMA_MISMATCH) instead of building it anew */
    bool rebuild_manual;
    const escqrs_projection *projections; /* copied, but for what their comments say */
    size_t projection_count;
    escqrs_failure_policy on_error;
    /* Written in the transactions of the commits themselves, once it is level; SQL alone. A commit
     * whose events it cannot apply fails with REJECTED. `on_error` is for catching up. */
    bool is_inline;
    /* A column that every table has, which holds the name of the stream whose events alone have
     * made the row: so one stream can be made anew. Empty: there is none. */
    escqrs_slice stream_column;
} escqrs_readmodel_spec;

typedef enum escqrs_readmodel_state {
    ESCQRS_READMODEL_CATCHING_UP = 1,
    ESCQRS_READMODEL_LIVE = 2,
    ESCQRS_READMODEL_STOPPED = 3,
    ESCQRS_READMODEL_RETRYING = 4, /* waits before it tries the failing event again */
} escqrs_readmodel_state;

typedef struct escqrs_readmodel_status {
    escqrs_readmodel_state state;
    int64_t position;  /* of the last event applied, committed */
    int64_t head;      /* of the store */
    bool rebuilding;   /* a new copy is being made beside the live one */
    int64_t rebuilt;   /* how far it is: position of the last event applied; -1: no copy yet */
    int64_t lag_us;    /* since the first event was stored that it has not seen; 0: none */
    double rate;       /* events a second, lately */
    int64_t parked;    /* events in its dead letters that are not left out */
    uint32_t attempts; /* at the failing event; 0 where none fails */
    /* What failed last and is not mended: the event at error.position, if not 0, which has stopped
     * it (STOPPED), is tried again (RETRYING), or was parked; or a rebuild that was given up, until
     * the next one begins or it is cancelled. */
    escqrs_error error;
} escqrs_readmodel_status;

/* What parameters are bound to: int, float, str, bytes as they are; a bool as 0 or 1; an enum by
 * its name; a time, and :_time, as text "2026-01-31 12:00:00.000000+00:00" in UTC; lists, maps and
 * messages as JSON; what is absent on purpose as NULL. NaN fails the event. A stopped read model is
 * tried again when the store is next opened. */

/* `host` runs the functions of projections (its ops may be NULL where all is SQL). Starts no thread
 * yet. */
ESCQRS_MUST_USE escqrs_status escqrs_projector_create(escqrs_store *store,
                                                      const escqrs_host_ops *host,
                                                      void *host_context, const escqrs_log *log,
                                                      escqrs_projector **projector,
                                                      escqrs_error *error);
/* How events of one stored type are applied. */
typedef enum escqrs_reading {
    ESCQRS_READING_AS_STORED = 0,
    ESCQRS_READING_AS_TYPE = 1, /* the type was renamed: as events of another one */
    ESCQRS_READING_UPCAST = 2,  /* as what `upcast` makes of each */
    ESCQRS_READING_REFUSED = 3, /* they would be misread: who wants them stops */
} escqrs_reading;

/* How stored events become those that projections know: for programs whose events have changed.
 * Both functions are called by the threads that project and commit, attached to no host. */
typedef struct escqrs_event_reader {
    /* Asked once for each stored type. AS_TYPE: `*as` becomes the type. Anything but OK: REFUSED,
     * with the reason. */
    escqrs_status (*look)(void *context, const escqrs_type *type, escqrs_reading *reading,
                          const escqrs_type **as, escqrs_error *error);
    /* Calls `add` for each event that the stored one is now, in order, with its type, data, part
     * and part_count; the rest is taken from the stored one, but for its id, which is `id_text`
     * where that is not empty. What `add` is given need not outlive the call. Anything but OK:
     * every read model stops at the event; also what `add` answers is answered. */
    escqrs_status (*upcast)(void *context, const escqrs_recorded *recorded,
                            escqrs_status (*add)(void *sink, const escqrs_recorded *event,
                                                 escqrs_error *error),
                            void *sink, escqrs_error *error);
    void *context;
} escqrs_event_reader;

/* Before read models are added; copied. */
void escqrs_projector_set_reader(escqrs_projector *projector, const escqrs_event_reader *reader);
/* Likewise: by which failed attempts are made again, instead of the system's. For tests that step;
 * the thread that `start` makes sleeps by the system's. */
void escqrs_projector_set_clock(escqrs_projector *projector, const escqrs_clock *clock);

/* Would these be accepted together, as far as can be told without a store? Errors: INVALID,
 * NAME_CLASH, as below. Any thread. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_check(const escqrs_readmodel_spec *specs,
                                                     size_t count, escqrs_error *error);
/* Check the SQL against its schema in a scratch database and compare with what the file has; writes
 * nothing. Errors: INVALID (bad SQL, unknown parameter, an empty statement: names read model and
 * statement), NAME_CLASH (a table of another read model, of the engine or of somebody else),
 * SCHEMA_MISMATCH, READ_ONLY (readonly stores: a read model that the file does not have as
 * specified). */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_add(escqrs_projector *projector,
                                                   const escqrs_readmodel_spec *spec,
                                                   escqrs_readmodel **readmodel,
                                                   escqrs_error *error);
/* Make the tables of new read models, all or none, bring inline ones level (which takes as long as
 * their events do) and follow the feed; no read model is added after it. Readonly stores: does
 * nothing. Errors: as for adding; FULL, IO and the like. */
ESCQRS_MUST_USE escqrs_status escqrs_projector_start(escqrs_projector *projector,
                                                     escqrs_error *error);
/* Let the thread rest after the transaction that it is in, until it is resumed. TIMEOUT: it is
 * still in one, in the author's code perhaps, and rests afterwards. Any thread; blocks. */
ESCQRS_MUST_USE escqrs_status escqrs_projector_pause(escqrs_projector *projector,
                                                     int64_t deadline_ns);
void escqrs_projector_resume(escqrs_projector *projector);
/* End the thread after the transaction that it is in. Call detached; blocks. Twice is once. */
void escqrs_projector_stop(escqrs_projector *projector);
void escqrs_projector_destroy(escqrs_projector *projector); /* stops first; NULL is fine */
/* Instead of start, for tests: all that start does but for the thread, and then one turn on this
 * thread (a batch for one group of read models); false: nothing to do, before `next_due_ns` by its
 * clock (INT64_MAX: no attempt waits). Detached, as that thread would be. A step that comes without
 * a prepare makes the tables itself, and says in the log what goes wrong. */
ESCQRS_MUST_USE escqrs_status escqrs_projector_prepare(escqrs_projector *projector,
                                                       escqrs_error *error);
bool escqrs_projector_step(escqrs_projector *projector);
int64_t escqrs_projector_next_due_ns(escqrs_projector *projector);
/* or NULL */
escqrs_readmodel *escqrs_projector_find(escqrs_projector *projector, escqrs_slice name);

void escqrs_readmodel_get_status(escqrs_readmodel *readmodel, escqrs_readmodel_status *status);
/* A connection (sqlite3 *) to read its tables with: the store's, or one to its own file. Give it
 * back with no statement running. Any thread; as escqrs_store_reader. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_reader(escqrs_readmodel *readmodel, void **sqlite,
                                                      escqrs_error *error);
void escqrs_readmodel_reader_return(escqrs_readmodel *readmodel, void *sqlite);
/* Are its tables in the store's file? */
bool escqrs_readmodel_is_in_store(const escqrs_readmodel *readmodel);
/* Wait until it has applied the event at `position`. OK; READ_MODEL_STOPPED (error filled: name,
 * position, cause); FULL, IO and the like where an attempt made meanwhile failed for that reason
 * (it goes on by itself once there is room); TIMEOUT; CLOSED. Detached. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_wait(escqrs_readmodel *readmodel, int64_t position,
                                                    int64_t deadline_ns, escqrs_error *error);
/* Wait until no rebuild is wanted or under way. OK; READ_MODEL_STOPPED, also where a rebuild was
 * given up since the last such wait (the read model goes on as before); TIMEOUT; CLOSED.
 * Detached. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_wait_rebuilt(escqrs_readmodel *readmodel,
                                                            int64_t deadline_ns,
                                                            escqrs_error *error);
/* Wait until the rows that queries see may be others than when `*seen` was given (0: at first),
 * which becomes what is now, or for a kick: OK. TIMEOUT; CLOSED. A read-only store's are looked at
 * while somebody waits. Detached. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_wait_changed(escqrs_readmodel *readmodel,
                                                            uint64_t *seen, int64_t deadline_ns,
                                                            escqrs_error *error);
/* End such waits. Any thread; does not block. */
void escqrs_readmodel_kick(escqrs_readmodel *readmodel);
/* Build it anew from position 1 beside the live copy and swap when level. Returns at once. What
 * skip left out is tried again. One that has begun (`rebuilt` is not -1) goes on where it was when
 * the store is opened again; readmodel/copy.c says how. A read model with virtual tables is emptied
 * first and filled in place. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_rebuild(escqrs_readmodel *readmodel,
                                                       escqrs_error *error);
/* Give a rebuild up that was asked for; the live rows stay, and are followed as before. One that
 * has failed is no longer said in the status. INVALID: none is under way or has failed, or the live
 * rows are of an older definition. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_cancel_rebuild(escqrs_readmodel *readmodel,
                                                              escqrs_error *error);
/* Wait until a rebuild that is under way is at another position than `*seen`, which becomes that:
 * OK. DONE: none is under way any more. TIMEOUT; CLOSED. Detached. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_wait_progress(escqrs_readmodel *readmodel,
                                                             int64_t *seen, int64_t deadline_ns,
                                                             escqrs_error *error);
/* A stopped one, or one that waits before a further attempt: try the failing event now. INVALID if
 * it is neither. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_retry(escqrs_readmodel *readmodel,
                                                     escqrs_error *error);
/* A stopped one: leave the failing event out on purpose. It is listed with the reason among the
 * dead letters, and said in the log as a warning. INVALID if it is not stopped. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_skip(escqrs_readmodel *readmodel,
                                                    escqrs_slice reason, escqrs_error *error);

/* What is to be done with the parked events, or the rows, of a stream. Zeroed fields are unused. */
typedef struct escqrs_unpark {
    escqrs_slice stream; /* try this one's alone; empty: every stream's */
    int64_t skip;        /* position: leave that event out first, then try its stream's rest */
    escqrs_slice reason; /* of the skip */
    /* Make the rows and dead letters of `stream` anew from its events, up to where the read model
     * stands, in one transaction; see readmodel/stream_build.c. READ_MODEL_STOPPED: an event cannot
     * be applied. INVALID: no stream_column, or rows that cannot be told by it. */
    bool rebuild;
} escqrs_unpark;

/* Have parked events applied after all, stream by stream in their order, each until one fails
 * again. Returns at once; `*ticket` is for the wait, which tells what came of it: OK, also where
 * events failed again (the dead letters say why); INVALID: no such event is parked; FULL and the
 * like. TIMEOUT, CLOSED. The wait blocks: call it detached. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_unpark(escqrs_readmodel *readmodel,
                                                      const escqrs_unpark *wanted, uint64_t *ticket,
                                                      escqrs_error *error);
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_wait_unparked(escqrs_readmodel *readmodel,
                                                             uint64_t ticket, int64_t deadline_ns,
                                                             escqrs_error *error);
/* For functions of projections, before they answer an error: more about it (a traceback), kept with
 * a dead letter. Copied; without memory it is left out. */
void escqrs_readmodel_explain(escqrs_readmodel *readmodel, escqrs_slice detail);

/* ---- comparing with a fresh build ---------------------------------------------------------------- */

typedef struct escqrs_comparison escqrs_comparison;

/* Copy the rows that the store has of the read model, as they are at one moment, and make an empty
 * copy of its tables; `reader` is the projector's, or NULL; `*readmodel` is what functions of its
 * projections belong to. Holds nothing of the store afterwards, which has to outlive it. INVALID:
 * the file has no rows of this definition, or they are in virtual tables. One thread at a time;
 * blocks. */
ESCQRS_MUST_USE escqrs_status escqrs_comparison_open(
    escqrs_store *store, const escqrs_host_ops *host, void *host_context,
    const escqrs_event_reader *reader, const escqrs_log *log, const escqrs_readmodel_spec *spec,
    escqrs_comparison **comparison, escqrs_readmodel **readmodel, escqrs_error *error);
/* Build the copy a batch further. OK; DONE: it is where the live rows are; else the event that it
 * cannot take, or what the machine is to blame for. Detached from the host; `*host_state` is this
 * thread's, and another one afterwards. */
ESCQRS_MUST_USE escqrs_status escqrs_comparison_step(escqrs_comparison *comparison,
                                                     void **host_state, escqrs_error *error);
int64_t escqrs_comparison_position(const escqrs_comparison *comparison);
int64_t escqrs_comparison_target(const escqrs_comparison *comparison);
/* The database (sqlite3 *) with the fresh or the live rows. */
void *escqrs_comparison_rows(escqrs_comparison *comparison, bool fresh);
void escqrs_comparison_close(escqrs_comparison *comparison); /* NULL is fine */

/* For functions of projections, within `apply`: a statement (sqlite3_stmt *) of the read model's
 * own, on the connection that `apply` was given; it may read and write the read model's tables and
 * nothing else. Kept and reset by the read model: give it back before `apply` returns. INVALID: bad
 * SQL, or what it may not do. */
ESCQRS_MUST_USE escqrs_status escqrs_readmodel_statement(escqrs_readmodel *readmodel, void *sqlite,
                                                         escqrs_slice sql, void **statement,
                                                         escqrs_error *error);
void escqrs_readmodel_statement_return(escqrs_readmodel *readmodel, void *sqlite, void *statement);

#ifdef __cplusplus
}
#endif

#endif
