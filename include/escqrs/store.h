/* escqrs/store.h - the event and snapshot store: providers below, the journal above them.
 *
 * A provider keeps events; the journal is what programs use: it queues the commits of many threads
 * and hands them to the provider in batches (group commit). One writer a store, any number of
 * readers.
 *
 * Streams are named "{aggregate}/{id}" by entities, and as they like by others: 1 to 2,048 bytes of
 * UTF-8 without NUL. Versions of a stream count from 1, positions of the store from 1, both without
 * gaps. Times are microseconds since 1970 UTC, from the store's clock, and never go backwards.
 *
 * Durable: when a commit answers OK at durability FULL, it survives the death of the process and of
 * the machine. What answers an error is not stored, nor any part of it; after CLOSED or IO on a
 * journal that has failed (a failed fsync) a commit may have been stored, and restarting the store
 * or opening it again tells.
 *
 * Every function that answers a status may be called by any thread, and answers CLOSED after
 * escqrs_store_close and FORKED in a child of fork(), where closing and destroying do nothing.
 * Those that read may also answer CORRUPT, IO and NO_MEMORY; those that a provider of one's own
 * leaves out, INVALID. No pointer may be NULL but `error`, `options`, `range`, and what a comment
 * says so of.
 */
#ifndef ESCQRS_STORE_H
#define ESCQRS_STORE_H

#include <escqrs/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ESCQRS_STREAM_NAME_MAX 2048         /* bytes */
#define ESCQRS_TYPE_NAME_MAX 255            /* bytes */
#define ESCQRS_COMMIT_EVENTS_MAX 100000     /* events in one commit */
#define ESCQRS_COMMIT_BYTES_MAX (1LL << 30) /* bytes in one commit */
#define ESCQRS_CHAIN_LINK_SIZE 32           /* bytes: SHA-256 */

typedef struct escqrs_store escqrs_store;   /* an open store: a provider and its journal */
typedef struct escqrs_cursor escqrs_cursor; /* an iteration over stored events */
typedef struct escqrs_type escqrs_type; /* a message type known to a store; lives as long as it */

/* ---- what is written -------------------------------------------------------------------------- */

typedef struct escqrs_pair { /* a piece of metadata, in UTF-8 */
    escqrs_slice key, value;
} escqrs_pair;

/* Where an event comes from, for one that differs from its commit. Zeroed fields are unused. */
typedef struct escqrs_origin {
    const escqrs_uuid *correlation_id; /* NULL: the same as the causation */
    escqrs_slice correlation_text;     /* instead of it: any text that is no UUID, 1 to 255 bytes;
                                          empty: none */
    const escqrs_uuid *causation_id;   /* NULL: made by the store, the same for the whole commit */
    escqrs_slice causation_text;       /* instead of it, likewise */
    const escqrs_pair *metadata;
    size_t metadata_count;
} escqrs_origin;

typedef struct escqrs_new_event {
    escqrs_type *type;     /* from escqrs_store_type */
    escqrs_slice data;     /* the packed message, stored as it is */
    const escqrs_uuid *id; /* unique in the store (else KEY_REUSED); NULL: made by the store */
    escqrs_slice id_text; /* instead of id: any text that is no UUID, 1 to 255 bytes; empty: none */
    const escqrs_slice *tags;
    size_t tag_count;
    const escqrs_origin *origin; /* NULL: as the commit says */
    int64_t time_us;     /* of an event that is moved here from elsewhere, not before the last one's
                            (else INVALID); all events of a commit have one, or none: 0, the clock's.
                            Say the causation as well: it would be derived from this event's time */
    const uint8_t *link; /* of one that stands for an event that was deleted elsewhere: its link in
                            a hash chain, which cannot be made any more; NULL: made */
} escqrs_new_event;

#define ESCQRS_EXPECT_ANY (-1)

typedef struct escqrs_write { /* what a commit adds to one stream */
    escqrs_slice stream;
    int64_t expected; /* version the writer has seen; 0: the stream is new; ESCQRS_EXPECT_ANY */
    const escqrs_new_event *events;
    size_t event_count;
    int64_t version; /* result: the stream's version after the commit */
} escqrs_write;

typedef struct escqrs_match { /* type is one of `types` (or none given), and all tags are borne */
    const escqrs_slice *types;
    size_t type_count;
    const escqrs_slice *tags;
    size_t tag_count;
} escqrs_match;

/* A commit fails with CONDITION_FAILED (position of the first such event) if an event after that
 * position matches any of these. */
typedef struct escqrs_condition {
    const escqrs_match *matches;
    size_t match_count; /* 0: every event matches */
    int64_t after;
} escqrs_condition;

typedef struct escqrs_new_snapshot {
    escqrs_slice stream;
    int64_t version;   /* of the stream, at most its version after this commit */
    escqrs_type *type; /* the state's type; its fingerprint is stored with it */
    escqrs_slice data;
    int64_t keep; /* the stream's newest ones, this included; older ones are deleted; 0: all stay;
                     below: INVALID */
} escqrs_new_snapshot;

/* Commits of one lane depend on each other in their order: once one with events has failed, the
 * later ones fail with ABORTED and are not tried, until the owner resets the lane (when none of its
 * commits is under way). Guarded by the journal. Zero it to begin. */
typedef struct escqrs_lane {
    escqrs_status failed;
} escqrs_lane;

/* One atomic commit. Zeroed fields are unused. Owned by the caller, with all that it points to,
 * until `done` was called (submit) or the call returned (commit). */
typedef struct escqrs_commit escqrs_commit;
struct escqrs_commit {
    escqrs_write *writes;
    size_t write_count;
    const escqrs_uuid *correlation_id; /* of all its events; NULL: the same as the causation */
    escqrs_slice correlation_text; /* instead of correlation_id: any text that is no UUID, 1 to 255
                                      bytes; empty: none */
    const escqrs_uuid
        *causation_id; /* NULL: made by the store, the same for all events of the commit */
    const escqrs_pair *metadata; /* of all its events */
    size_t metadata_count;
    escqrs_slice
        key; /* dedup: a commit with a used key stores nothing and repeats the first's result */
    escqrs_slice
        key_scope;      /* key is unique within this name (a stream's); empty: within the store */
    escqrs_slice reply; /* stored with the key */
    const escqrs_condition *condition;   /* or NULL; sees the commits before it in its batch */
    const escqrs_new_snapshot *snapshot; /* or NULL; stored with the events */
    escqrs_slice checkpoint;             /* name; empty: none. It only moves forward */
    int64_t checkpoint_position;
    escqrs_lane *lane; /* or NULL */

    /* Called once, when the commit is durable or has failed, by whichever thread led the batch, in
     * the order of submission. It must not block nor commit; it may submit. Afterwards the commit
     * is the owner's. */
    void (*done)(escqrs_commit *commit);
    void *context; /* the owner's */

    /* results, valid in `done` */
    escqrs_status status;
    int64_t position; /* of its last event; the head where it had none */
    bool repeated;
    escqrs_error *error; /* filled on failure; or NULL */

    escqrs_commit *next; /* this and the rest: the journal's */
    uint32_t state;
    uint32_t event_count;
    size_t bytes;
};

/* ---- what is read ----------------------------------------------------------------------------- */

/* One stored event. All memory belongs to the cursor and is valid until its next call. */
typedef struct escqrs_recorded {
    int64_t position;
    int64_t version;
    int64_t time_us;
    escqrs_slice stream;
    escqrs_type *type;
    escqrs_slice data;
    escqrs_uuid id, correlation_id, causation_id;
    escqrs_slice id_text;          /* not empty: the id is this text, not the UUID; */
    escqrs_slice correlation_text; /* likewise */
    escqrs_slice causation_text;   /* likewise */
    const escqrs_pair *metadata;
    size_t metadata_count;
    const escqrs_slice *tags;
    size_t tag_count;
    /* Of the events that an upcaster made of one stored event: 0, 1, 2 ..., and how many. Both are
     * 0 for events as they are stored. */
    uint32_t part, part_count;
} escqrs_recorded;

typedef struct escqrs_range {
    int64_t after;               /* exclusive */
    int64_t upto;                /* inclusive; 0: the end as it is when the cursor is opened */
    int64_t limit;               /* events; 0: no limit */
    bool reverse;                /* newest first */
    bool skip_deleted;           /* leave out what was deleted; else it is DELETED */
    const escqrs_match *matches; /* any of them; copied */
    size_t match_count;          /* 0: every event */
} escqrs_range;

typedef struct escqrs_snapshot { /* freed with escqrs_free(data) */
    int64_t version;
    escqrs_type *type;
    void *data;
    size_t size;
} escqrs_snapshot;

/* ---- open and close --------------------------------------------------------------------------- */

typedef enum escqrs_durability {
    ESCQRS_DURABILITY_FULL = 0, /* fsync before a commit is answered */
    ESCQRS_DURABILITY_NORMAL =
        1, /* survives the process's death; a power loss may take the last seconds */
} escqrs_durability;

typedef struct escqrs_store_options {
    escqrs_durability durability;
    bool readonly;
    bool chain; /* the store keeps a hash chain: a new one from now on, one that has none is refused
                   (INVALID). One that keeps a chain does so without being told */
    size_t event_bytes_max;  /* 0: 16 MiB; an event beyond it is TOO_LARGE */
    size_t reader_count_max; /* reader connections kept; 0: 8. More readers at once wait */
    size_t tail_events_max;  /* events whose index is kept in memory before it goes to disk; 0:
                                131,072 (tests) */
    bool manual; /* no thread of its own; submitted commits wait for escqrs_store_pump (tests) */
    escqrs_clock clock;
    escqrs_random random;
    escqrs_log log;
    const char *sqlite_vfs; /* name of a registered VFS; NULL: the platform's (tests) */
} escqrs_store_options;

/* Open or create the SQLite store at `path` (":memory:": a private one in memory, with the same
 * semantics). An empty or missing file becomes a new store. Blocks for recovery (bounded: not
 * growing with the file). Errors: LOCKED (names the process), NOT_A_STORE (another program's file,
 * a newer format), CORRUPT, READ_ONLY (no permission to write), FULL, IO. On an error the file is
 * untouched. `options` may be NULL. */
ESCQRS_MUST_USE escqrs_status escqrs_store_open(const char *path,
                                                const escqrs_store_options *options,
                                                escqrs_store **store, escqrs_error *error);
/* Open a new store that begins as a copy of `source`, as it is at one moment, at a path where there
 * is no file (else IO with EEXIST), or in memory. They have nothing in common afterwards but the
 * ids of events. Errors: as of escqrs_store_backup and escqrs_store_open. */
ESCQRS_MUST_USE escqrs_status escqrs_store_clone(escqrs_store *source, const char *path,
                                                 const escqrs_store_options *options,
                                                 escqrs_store **store, escqrs_error *error);
/* Begin anew without closing, after a failure that was final: it is over when this answers OK. What
 * was acknowledged is there; a commit that failed is not and does not come back, but for one whose
 * file was away when it was made sure of, and then the head says so. Cursors and waiting go on.
 * Without a failure it changes nothing. Blocks until it is its turn, between two batches. IO: the
 * disk still fails, or the file, its WAL or its lock is not what was opened, or closing and opening
 * alone is sound. INVALID: a provider that cannot. CLOSED, FORKED. */
ESCQRS_MUST_USE escqrs_status escqrs_store_restart(escqrs_store *store, escqrs_error *error);
/* Refuse new commits, finish those submitted, stop the thread, release the file. All cursors must
 * be closed or are ended: their next call answers CLOSED. Blocks. After it only
 * escqrs_store_destroy and calls that answer CLOSED. Twice is once. */
void escqrs_store_close(escqrs_store *store); /* NULL is fine */
/* Closes first; no other thread may use it any more, but cursors may be closed later. NULL is fine.
 */
void escqrs_store_destroy(escqrs_store *store);

/* ---- types ------------------------------------------------------------------------------------ */

/* The type of that name (1 to ESCQRS_TYPE_NAME_MAX bytes of UTF-8 without NUL) and schema record
 * (see escqrs/schema.h; empty for foreign data): found or made. It is stored with the first event
 * that uses it. Errors: INVALID, TOO_LARGE, NO_MEMORY, CLOSED. */
ESCQRS_MUST_USE escqrs_status escqrs_store_type(escqrs_store *store, escqrs_slice name,
                                                escqrs_slice record, escqrs_type **type,
                                                escqrs_error *error);
escqrs_slice escqrs_type_name(const escqrs_type *type);
escqrs_slice escqrs_type_record(const escqrs_type *type);
int64_t escqrs_type_id(
    const escqrs_type *type); /* small positive number, stable in the file once stored */
/* Every stored type: calls `visit` until it returns false. `used`: an event of it is stored. */
ESCQRS_MUST_USE escqrs_status escqrs_store_types(escqrs_store *store,
                                                 bool (*visit)(void *context, escqrs_type *type,
                                                               bool used),
                                                 void *context, escqrs_error *error);

/* ---- journal ---------------------------------------------------------------------------------- */

/* Queue the commit; `done` is called later, perhaps before this returns. Never blocks. Arguments
 * are checked here (INVALID, TOO_LARGE, CLOSED, READ_ONLY, FORKED; then `done` is not called). */
ESCQRS_MUST_USE escqrs_status escqrs_store_submit(escqrs_store *store, escqrs_commit *commit,
                                                  escqrs_error *error);
/* The same and wait until it is durable; the calling thread leads the batch where nobody else does.
 * `done` (may be NULL here) is called as well. */
ESCQRS_MUST_USE escqrs_status escqrs_store_commit(escqrs_store *store, escqrs_commit *commit,
                                                  escqrs_error *error);
/* The same for who need not wait until the end: a thread that stands behind work of
 * escqrs_store_run, which may last for as long as a handler of a read model does, is let go after
 * 20 ms with DONE. Then the commit is as one that was submitted: `done`, on another thread, says
 * what becomes of it, and *waits is false before that is called. `done` and `error` are required.
 */
ESCQRS_MUST_USE escqrs_status escqrs_store_commit_or_leave(escqrs_store *store,
                                                           escqrs_commit *commit, bool *waits,
                                                           escqrs_error *error);
/* Take a commit back that was submitted, or left. True: it stood in the queue; nothing of it is
 * stored, `done` will not be called, and it is the owner's again. False: it is being committed, or
 * has been answered, and `done` says so. Never blocks. The owner keeps it from being freed. */
ESCQRS_MUST_USE bool escqrs_store_withdraw(escqrs_store *store, escqrs_commit *commit);
/* Manual stores: commit what is queued, on this thread; the number of commits finished. */
size_t escqrs_store_pump(escqrs_store *store);

/* Run `work` alone on the writing connection (a sqlite3 *, passed as void * so that this header
 * needs no sqlite3.h) between two batches; the calling thread waits its turn. `work` begins and
 * ends its own transactions and must not stay long (milliseconds), as commits wait. `sync`: whether
 * what it commits is fsynced (a projection need not be: it is made again from the events).
 * NOT_A_STORE for providers without SQL. */
ESCQRS_MUST_USE escqrs_status escqrs_store_run(escqrs_store *store, bool sync,
                                               escqrs_status (*work)(void *context, void *sqlite,
                                                                     escqrs_error *error),
                                               void *context, escqrs_error *error);
/* Who writes in the transactions of commits, before their events are written: inline read models.
 * All is called by the journal's leader. */
typedef struct escqrs_inliner {
    /* The events of one commit, as they will be stored. OK; REJECTED: that commit fails and leaves
     * nothing; anything else: the machine is to blame, nothing of the batch is stored. */
    escqrs_status (*events)(void *context, void *sqlite, const escqrs_recorded *events,
                            size_t count, escqrs_error *error);
    /* Before the batch is committed, whose last event is at `head`. Not OK: nothing of it is. */
    escqrs_status (*end)(void *context, void *sqlite, int64_t head, escqrs_error *error);
    /* The batch is durable, and its commits are answered next. */
    void (*durable)(void *context, int64_t head);
    void *context;
} escqrs_inliner;

/* From now on, or NULL: nobody. Within the work of escqrs_store_run only; `inliner` is not copied.
 */
void escqrs_store_set_inliner(escqrs_store *store, const escqrs_inliner *inliner);
/* Commits queued or under way now; others may call to decide whether to keep `work` short. */
size_t escqrs_store_backlog(escqrs_store *store);

/* Durable and visible: position of the last event. Cheap (an atomic load, but for read-only stores,
 * which look). */
int64_t escqrs_store_head(escqrs_store *store);
/* Wait until the head is above `position`, `cancel` is non-zero, the deadline (monotonic ns,
 * INT64_MAX: never) passes or the store closes. OK, TIMEOUT, CLOSED; DONE when cancelled: set
 * *cancel, then escqrs_store_wake. */
ESCQRS_MUST_USE escqrs_status escqrs_store_wait(escqrs_store *store, int64_t position,
                                                const ESCQRS_ATOMIC(int) *cancel,
                                                int64_t deadline_ns);
void escqrs_store_wake(escqrs_store *store);

/* ---- reading: any thread, never blocked by the writer ------------------------------------------ */

/* By version. An unknown stream has no events. */
ESCQRS_MUST_USE escqrs_status escqrs_store_history(escqrs_store *store, escqrs_slice stream,
                                                   const escqrs_range *range,
                                                   escqrs_cursor **cursor, escqrs_error *error);
/* By position. */
ESCQRS_MUST_USE escqrs_status escqrs_store_events(escqrs_store *store, const escqrs_range *range,
                                                  escqrs_cursor **cursor, escqrs_error *error);
/* The last version or position that an oldest-first cursor gives: its range's, bounded by what was
 * durable when it was opened; 0 where there was nothing. */
int64_t escqrs_cursor_upto(const escqrs_cursor *cursor);
/* Leave out what is not behind `after`. Before the first read, oldest first. */
void escqrs_cursor_skip(escqrs_cursor *cursor, int64_t after);
/* OK: the next event; DONE: no more; CORRUPT: the event does not verify (stream, version, position
 * are in the error); DELETED: the next event was deleted, with all up to the version (of a stream)
 * or position in the error; CLOSED; IO. A cursor holds no connection between calls: it reads pages
 * of at most a few hundred events ahead. One thread at a time. */
ESCQRS_MUST_USE escqrs_status escqrs_cursor_next(escqrs_cursor *cursor,
                                                 const escqrs_recorded **recorded,
                                                 escqrs_error *error);
/* Many at once: up to `max` events, valid until the next call. DONE when there are no more. The hot
 * path of replay and projections: no copy, no call an event. Metadata, tags and ids of these are
 * filled in as well. */
ESCQRS_MUST_USE escqrs_status escqrs_cursor_read(escqrs_cursor *cursor, size_t max,
                                                 const escqrs_recorded **recorded, size_t *count,
                                                 escqrs_error *error);
void escqrs_cursor_close(escqrs_cursor *cursor); /* NULL is fine */

/* 0 where the stream is unknown. Sees every commit that was answered before the call. */
ESCQRS_MUST_USE escqrs_status escqrs_store_version(escqrs_store *store, escqrs_slice stream,
                                                   int64_t *version, escqrs_error *error);
/* -1 where there is none. */
ESCQRS_MUST_USE escqrs_status escqrs_store_checkpoint(escqrs_store *store, escqrs_slice name,
                                                      int64_t *position, escqrs_error *error);
typedef struct escqrs_erased { /* what was deleted of a stream */
    int64_t upto;              /* versions up to this one are gone; 0: none */
    bool closed;               /* the stream was deleted, and its name is not used again */
} escqrs_erased;

typedef struct escqrs_stream_info {
    int64_t number;    /* grows with each new stream */
    escqrs_slice name; /* valid during the call */
    int64_t version;
    escqrs_erased erased; /* what was deleted of it */
} escqrs_stream_info;

/* The streams, deleted ones among them, at most `max`, whose numbers are above `after`, in order:
 * calls `visit` until it returns false. It must not call back into the store. */
ESCQRS_MUST_USE escqrs_status escqrs_store_streams(escqrs_store *store, int64_t after, size_t max,
                                                   bool (*visit)(void *context,
                                                                 const escqrs_stream_info *stream),
                                                   void *context, escqrs_error *error);
/* Copy the store, as it is at one moment, to a new file; commits go on meanwhile. Blocks. An
 * existing file is IO with EEXIST; after a failure there is none. INVALID (no path), READ_ONLY,
 * FULL, IO, CLOSED. */
ESCQRS_MUST_USE escqrs_status escqrs_store_backup(escqrs_store *store, const char *path,
                                                  escqrs_error *error);

/* Something that is not as it should be. All of it is valid during the call. */
typedef struct escqrs_problem {
    const char *part;    /* of the store: "file", "stream", "type", "event", "index", "tag", "id",
                            "snapshot", "checkpoint", "key", "read model", "chain", "deleted" */
    const char *text;    /* what is wrong */
    escqrs_slice stream; /* empty: none, or its name does not read */
    int64_t version, position; /* 0: none */
} escqrs_problem;

/* Who is told while a whole store is read; both may be NULL, and false ends it. They are called on
 * the calling thread and must not commit. */
typedef struct escqrs_observer {
    bool (*problem)(void *context, const escqrs_problem *problem);
    bool (*progress)(void *context, int64_t position, int64_t head); /* now and then */
    void *context;
} escqrs_observer;

typedef struct escqrs_verification { /* what was read */
    int64_t events, streams;         /* streams but those that were deleted, as in statistics */
    int64_t types, snapshots, checkpoints, keys, tags, ids, read_models, links;
    int64_t problems;
} escqrs_verification;

/* `observer` may be NULL. Prove the store as it is at one moment: pages, positions, versions,
 * checksums, decodability, the index of streams, tags, ids, snapshots, checkpoints, keys and read
 * models' positions. Reads all of it and blocks nobody. OK also where there are problems; DONE
 * where the observer ended it; CLOSED, IO, NO_MEMORY. */
ESCQRS_MUST_USE escqrs_status escqrs_store_verify(escqrs_store *store,
                                                  const escqrs_observer *observer,
                                                  escqrs_verification *found, escqrs_error *error);
typedef struct escqrs_statistics { /* of a store at one moment */
    int64_t head, events, streams, snapshots, checkpoints, keys, tags, ids;
    int64_t deleted;                       /* events that were */
    int64_t created_us, first_us, last_us; /* times: of the store, its first and last event; 0: none
                                            */
    int64_t bytes;                         /* of the database, read models included */
} escqrs_statistics;

/* Count what is stored, and the events of each type (`visit` may be NULL). Reads the whole journal
 * and blocks nobody. CORRUPT, IO, NO_MEMORY, CLOSED. */
ESCQRS_MUST_USE escqrs_status escqrs_store_stats(escqrs_store *store, escqrs_statistics *found,
                                                 void (*visit)(void *context, escqrs_slice type,
                                                               int64_t count),
                                                 void *context, escqrs_error *error);
/* The newest snapshot at or below `upto` (0: any) that verifies; DONE where there is none, INVALID
 * below 0. Bad ones are skipped and said in the log. */
ESCQRS_MUST_USE escqrs_status escqrs_store_snapshot(escqrs_store *store, escqrs_slice stream,
                                                    int64_t upto, escqrs_snapshot *snapshot,
                                                    escqrs_error *error);
typedef struct escqrs_snapshot_info {
    int64_t number;      /* of its stream, see escqrs_stream_info */
    escqrs_slice stream; /* valid during the call */
    int64_t version;
    escqrs_type *type; /* NULL: it does not read */
    bool verifies;     /* its checksum does */
} escqrs_snapshot_info;

/* All snapshots, at most `max`, that come after that stream's of that version, by stream and
 * version: calls `visit` until it returns false. It must not call back into the store. */
ESCQRS_MUST_USE escqrs_status
escqrs_store_snapshots(escqrs_store *store, int64_t after_number, int64_t after_version, size_t max,
                       bool (*visit)(void *context, const escqrs_snapshot_info *snapshot),
                       void *context, escqrs_error *error);
/* Delete the snapshots of a stream up to a version (0: all). */
ESCQRS_MUST_USE escqrs_status escqrs_store_delete_snapshots(escqrs_store *store,
                                                            escqrs_slice stream, int64_t upto,
                                                            escqrs_error *error);
/* The link of the event at that position in the hash chain: a SHA-256 over the link before it and
 * all that the event says, zeros for position 0; docs/format.md has it to the byte. Who notes the
 * last one elsewhere can tell later whether the history up to it is the same. DONE where the store
 * keeps no chain or has no such position. */
ESCQRS_MUST_USE escqrs_status escqrs_store_chain(escqrs_store *store, int64_t position,
                                                 uint8_t link[ESCQRS_CHAIN_LINK_SIZE],
                                                 escqrs_error *error);
/* The reply stored with a key: OK with memory for escqrs_free; DONE where the key was not used. */
ESCQRS_MUST_USE escqrs_status escqrs_store_key(escqrs_store *store, escqrs_slice scope,
                                               escqrs_slice key, void **reply, size_t *size,
                                               int64_t *position, escqrs_error *error);

/* ---- deleting: see docs/deleting.md -------------------------------------------------------------
 */

typedef struct escqrs_erasure { /* what is to be deleted of one stream */
    escqrs_slice stream;
    int64_t upto;  /* versions up to this one, at most the last */
    bool close;    /* instead: all of it, and the name is never used again */
    bool force;    /* also where no snapshot covers it */
    int64_t count; /* result: events deleted now */
} escqrs_erasure;

/* Delete events, of all these streams in one transaction: durable when it answers OK, and nothing
 * is deleted when it does not. Blocks; commits wait for it. NOT_COVERED: there is no snapshot at
 * `upto` or later that verifies. DELETED: the stream is closed already (closing again is OK).
 * INVALID: there is no such stream, or no such version, or a stream is named twice. READ_ONLY,
 * CLOSED, FULL, IO, CORRUPT. */
ESCQRS_MUST_USE escqrs_status escqrs_store_erase(escqrs_store *store, escqrs_erasure *erasures,
                                                 size_t count, escqrs_error *error);
ESCQRS_MUST_USE escqrs_status escqrs_store_erased(escqrs_store *store, escqrs_slice stream,
                                                  escqrs_erased *erased, escqrs_error *error);
/* Grows with each escqrs_store_erase that deleted; cheap. While it stays, so does what
 * escqrs_store_erased says. */
int64_t escqrs_store_deletions(const escqrs_store *store);
/* Give free pages of the file back to the file system, some at a time; commits go on in between.
 * `bytes`: by how much the file is to shrink, which it does when no reader looks at an older state
 * any more. READ_ONLY, CLOSED, FULL, IO. */
ESCQRS_MUST_USE escqrs_status escqrs_store_compact(escqrs_store *store, int64_t *bytes,
                                                   escqrs_error *error);

/* A reading connection (sqlite3 *) for queries, opened read-only with query_only; waits for a free
 * one. Give it back with no statement running. NOT_A_STORE for providers without SQL. */
ESCQRS_MUST_USE escqrs_status escqrs_store_reader(escqrs_store *store, void **sqlite,
                                                  escqrs_error *error);
void escqrs_store_reader_return(escqrs_store *store, void *sqlite);

/* Path as opened; ":memory:" for a store in memory. */
const char *escqrs_store_path(const escqrs_store *store);

#ifdef __cplusplus
}
#endif

#endif
