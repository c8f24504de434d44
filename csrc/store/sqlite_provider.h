/* The SQLite provider, shared by its files; docs/format.md describes what is in the file.
 *
 *   sqlite_file.c    open and close, the table of functions
 *   sqlite_format.c  what a file must be; its tables, numbers, types
 *   sqlite_connection.c  connections and their statements; errors
 *   sqlite_writer.c  the writing connection: batches, `run`, checkpoints of the WAL
 *   sqlite_restart.c  beginning anew after a failure
 *   sqlite_commit.c  one commit: its checks and its rows
 *   sqlite_inline.c  what others write along with commits
 *   sqlite_index.c   the index of streams on disk: look-up, merge, reading the tail at open
 *   sqlite_backup.c  copies of the file, the list of its streams
 *   sqlite_verify.c  the proof that a file is whole, with sqlite_verify_event.c and
 *                    sqlite_verify_aid.c
 *   sqlite_stats.c   counts of what it holds
 *   sqlite_erase.c   deleting events, and what says that they were there
 *   sqlite_compact.c giving free pages back
 *   sqlite_reader.c  the pool of reading connections; pages of events
 *   wanted.c         a page's positions as a table, to be joined with the rows
 *   sqlite_aid.c     keys, checkpoints
 *   sqlite_snapshot.c  snapshots
 *   sqlite_chain.c   the hash chain, on the disk
 *   fork_vfs.c       what SQLite opens files with
 *   network.c        refusing file systems of other machines
 *   watch.c          being told of other processes' commits
 *   sqlite_condition.c  conditions of commits, unique ids, the index of tags
 *
 * One connection writes and checkpoints: the leader's. Readers have connections of their own that
 * never write. Lock order: `pool.mutex` and the stream index's mutex are leaves, never held over a
 * call of SQLite, but `refresh_mutex` is: read-only stores alone take it, before either. */
#ifndef ESC_STORE_SQLITE_PROVIDER_H
#define ESC_STORE_SQLITE_PROVIDER_H

#include <escqrs/store.h>

#include <sqlite3.h>

#include "base/buffer.h"
#include "base/list.h"
#include "base/thread.h"
#include "store/chain.h"
#include "store/lock.h"
#include "store/memory_vfs.h"
#include "store/provider.h"
#include "store/stream_index.h"
#include "store/stream_names.h"
#include "store/wanted.h"

#define ESC_APPLICATION_ID 0x65736371 /* "escq" */
#define ESC_FORMAT_VERSION 2
#define ESC_PAGE_SIZE 4096
#define ESC_WAL_HEADER_SIZE 32 /* as SQLite lays it out */
#define ESC_WAL_FRAME_SIZE (24 + ESC_PAGE_SIZE)
#define ESC_POSITION_MAX                                                                           \
    (INT64_MAX / 2)                 /* of positions and numbers; a file with more is damaged       \
                                     */
#define ESC_CHECKPOINT_FRAMES 1000  /* the WAL is checkpointed from that many pages on */
#define ESC_LONG_WAL_BYTES 67108864 /* longer by a reader: said, and cut when it is begun anew */
#define ESC_BUSY_TIMEOUT_MS 5000    /* another program's transaction on our file */
#define ESC_INDEX_ROW_POSITIONS 128
#define ESC_EVENT_COLUMN_COUNT 9
#define ESC_MERGE_SLICE_MIN 512 /* index rows written together */
#define ESC_MERGE_SLICE_MAX 8192

typedef enum esc_statement {
    ESC_SQL_BEGIN_WRITE,
    ESC_SQL_BEGIN_READ,
    ESC_SQL_COMMIT,
    ESC_SQL_ROLLBACK,
    ESC_SQL_META,
    ESC_SQL_SET_META,
    ESC_SQL_ADD_EVENT,
    ESC_SQL_ADD_STREAM,
    ESC_SQL_ADD_TYPE,
    ESC_SQL_TYPES,
    ESC_SQL_TYPE,
    ESC_SQL_HEAD,
    ESC_SQL_TAIL,
    ESC_SQL_LAST_STREAM,
    ESC_SQL_STREAM_ID,
    ESC_SQL_STREAM,
    ESC_SQL_STREAM_NAME,
    ESC_SQL_EVENTS_WANTED,
    ESC_SQL_EVENT,
    ESC_SQL_EVENT_TAKEN,
    ESC_SQL_EVENTS,
    ESC_SQL_EVENTS_REVERSE,
    ESC_SQL_INDEX_ROW,
    ESC_SQL_INDEX_LAST,
    ESC_SQL_PUT_INDEX,
    ESC_SQL_SNAPSHOTS,
    ESC_SQL_PUT_SNAPSHOT,
    ESC_SQL_DELETE_SNAPSHOTS,
    ESC_SQL_TRIM_SNAPSHOTS,
    ESC_SQL_ALL_SNAPSHOTS,
    ESC_SQL_KEY,
    ESC_SQL_PUT_KEY,
    ESC_SQL_CHECKPOINT,
    ESC_SQL_PUT_CHECKPOINT,
    ESC_SQL_EVENT_TYPES,
    ESC_SQL_TAG_AFTER,
    ESC_SQL_TAG_BEFORE,
    ESC_SQL_PUT_TAG,
    ESC_SQL_ID,
    ESC_SQL_PUT_ID,
    ESC_SQL_STREAMS,
    ESC_SQL_LINK,
    ESC_SQL_LAST_LINK,
    ESC_SQL_PUT_LINK,
    ESC_SQL_GAP_AT,
    ESC_SQL_GAP_AFTER,
    ESC_SQL_PUT_GAP,
    ESC_SQL_DELETE_GAP,
    ESC_SQL_ERASED,
    ESC_SQL_PUT_ERASED,
    ESC_SQL_DELETE_EVENT,
    ESC_SQL_DELETE_TAG,
    ESC_SQL_DELETE_ID,
    ESC_SQL_DELETE_INDEX,
    ESC_SQL_DELETE_KEYS,
    ESC_SQL_COUNT,
} esc_statement;

typedef struct esc_place {   /* a file, as the file system numbers it */
    uint64_t device, number; /* 0: not known yet */
} esc_place;

typedef struct esc_connection {
    sqlite3 *db;
    sqlite3_stmt *statements[ESC_SQL_COUNT]; /* prepared when first used */
    esc_list_node node;                      /* readers: in `idle` or `busy`, under pool.mutex */
    esc_wanted wanted;                       /* readers: what EVENTS_WANTED looks for */
    esc_stream_names names;                  /* readers: that were met in events */
    struct esc_page_reader *taking;          /* readers: who has the rows of the statement */
} esc_connection;

typedef struct esc_sqlite {
    escqrs_provider base;
    char *path;      /* absolute, as SQLite opens it */
    char *shown;     /* as given, for messages */
    char *lock_path; /* read-only stores: of the lock file */
    const char *vfs; /* name */
    bool readonly;
    bool had_wal;   /* when it was opened */
    bool immutable; /* read-only and the folder too: SQLite looks for no WAL */
    escqrs_durability durability;
    escqrs_clock clock;
    escqrs_random random;
    escqrs_log log;
    esc_lock *lock;
    esc_memory_vfs *memory;
    uint64_t salt;
    bool chained; /* the file keeps a hash chain */
    int64_t tail_events_max;
    esc_stream_index index;

    struct { /* the leader's */
        esc_connection connection;
        esc_vector streams; /* esc_stream *, by write: of the commit under way, once checked */
        esc_vector inlined; /* escqrs_recorded: of the commit under way, for the inliner */
        bool in_batch;
        bool synced; /* the connection's mode: whether a commit is fsynced */
        int64_t next_position;
        int64_t last_time_us;
        int64_t batch_time_us; /* last_time_us as the running batch found it */
        int64_t last_stream;
        int64_t opened_at; /* the head when the file was opened */
        esc_vector types;  /* escqrs_type *, written in the running batch */
        esc_buffer header; /* of the event being written */
        esc_chain chain;
        uint8_t batch_link[ESCQRS_CHAIN_LINK_SIZE]; /* chain.link as the running batch found it */
        esc_place places[2]; /* what the names of the file and of its WAL stood for at first */
        int64_t file_size;   /* bytes after the last checkpoint */
        int wal_frames;      /* in the WAL after the last commit, 0 if the file has them, too */
        int wal_end;         /* the same, whether the file has them or not; 0: not known yet */
        bool to_rescue;      /* the WAL's name is gone, and a reader kept a part of it */
        int checkpoint_at;   /* wal_frames from which to try again */
        int long_wal_frames; /* from which on its length is said once more */
        bool half_moved;     /* a checkpoint left off where a reader stood, its pages not synced */
        bool lost;           /* ... and a later one's sync failed: they may be on no disk */
        size_t merge_credit;
        size_t merge_next; /* frozen streams merged, the running batch included */
    } writer;

    struct {
        esc_mutex mutex;
        esc_cond returned;
        esc_list idle; /* mutex: last used at the front */
        esc_list busy; /* mutex */
        size_t count;  /* mutex: open ones */
        size_t count_max;
        bool stopped; /* mutex */
    } pool;

    esc_place opened;        /* read-only stores: the file */
    esc_mutex refresh_mutex; /* read-only stores: who refreshes is the stream index's leader */
    int64_t scanned;         /* refresh_mutex: the tail is read up to here */
} esc_sqlite;

/* ---- sqlite_connection.c ---- */

/* Say what SQLite refused; maps its code to a status. `doing` reads like "cannot write". */
escqrs_status esc_sqlite_error(const esc_sqlite *sqlite, sqlite3 *db, int code, escqrs_error *error,
                               const char *doing);
/* The same of a COMMIT, for which SQLite keeps no number of the system: `system_error` is errno as
 * the step left it, with 0 before it, and counts where writing failed. */
escqrs_status esc_sqlite_commit_error(const esc_sqlite *sqlite, sqlite3 *db, int code,
                                      int system_error, escqrs_error *error) ESCQRS_MUST_USE;
/* After such a code nobody knows what is on the disk. */
bool esc_sqlite_is_final(int extended_code);
escqrs_status esc_connection_open(const esc_sqlite *sqlite, bool writes, esc_connection *connection,
                                  escqrs_error *error) ESCQRS_MUST_USE;
void esc_connection_close(const esc_sqlite *sqlite, esc_connection *connection);
/* The prepared statement, reset and without bindings of importance. */
escqrs_status esc_connection_statement(const esc_sqlite *sqlite, esc_connection *connection,
                                       esc_statement which, sqlite3_stmt **statement,
                                       escqrs_error *error) ESCQRS_MUST_USE;
/* Run a statement that gives no rows. */
escqrs_status esc_connection_run(const esc_sqlite *sqlite, esc_connection *connection,
                                 esc_statement which, escqrs_error *error) ESCQRS_MUST_USE;
int esc_sqlite_execute(sqlite3 *db, const char *text); /* an SQLite code */

/* ---- sqlite_format.c ---- */

/* Before SQLite opens it: is the file empty, or one of ours? NOT_A_STORE, CORRUPT, IO. */
escqrs_status esc_sqlite_check_header(const esc_sqlite *sqlite,
                                      escqrs_error *error) ESCQRS_MUST_USE;
/* Once it is open: make the tables of an empty file, or look whether its format is known. */
escqrs_status esc_sqlite_prepare(esc_sqlite *sqlite, esc_connection *connection,
                                 escqrs_error *error) ESCQRS_MUST_USE;
/* Salt, chain, and how far the index goes. */
escqrs_status esc_sqlite_read_numbers(esc_sqlite *sqlite, esc_connection *connection,
                                      escqrs_error *error) ESCQRS_MUST_USE;
/* Always `status`: "<the file> <what>". */
escqrs_status esc_sqlite_refuse(const esc_sqlite *sqlite, escqrs_status status, escqrs_error *error,
                                const char *what);
/* Is there a file of that name and suffix (not an empty one, `with_bytes`)? */
bool esc_sqlite_has_companion(const esc_sqlite *sqlite, const char *suffix, bool with_bytes);
/* The number that a pragma or query answers; an SQLite code. */
int esc_sqlite_pragma(sqlite3 *db, const char *text, int64_t *value);
/* Read one number of escqrs_store; OK and *found false where it is missing. */
escqrs_status esc_sqlite_meta(const esc_sqlite *sqlite, esc_connection *connection,
                              const char *name, int64_t *value, bool *found,
                              escqrs_error *error) ESCQRS_MUST_USE;
/* Can a journal that ends at `head` have an index that ends at `indexed`? CORRUPT. */
escqrs_status esc_sqlite_check_ends(const esc_sqlite *sqlite, int64_t head, int64_t indexed,
                                    escqrs_error *error) ESCQRS_MUST_USE;
/* Always CORRUPT: the stream cannot have that number. */
escqrs_status esc_sqlite_bad_number(const esc_sqlite *sqlite, escqrs_slice stream, int64_t number,
                                    escqrs_error *error) ESCQRS_MUST_USE;
/* Always CORRUPT: the stream has a number, and no events that the index knows. */
escqrs_status esc_sqlite_not_indexed(const esc_sqlite *sqlite, escqrs_slice stream, int64_t number,
                                     escqrs_error *error) ESCQRS_MUST_USE;
/* Load all types of the file into the registry. */
escqrs_status esc_sqlite_load_types(esc_sqlite *sqlite, esc_connection *connection,
                                    escqrs_error *error) ESCQRS_MUST_USE;
/* The type of that number: it may be one that another process has added since this read-only store
 * was opened. OK and *type NULL where the file has none either. */
escqrs_status esc_sqlite_type(esc_sqlite *sqlite, esc_connection *connection, int64_t id,
                              escqrs_type **type, escqrs_error *error) ESCQRS_MUST_USE;

/* Position and time of the last event that is or was there, the end of the index and the count of
 * deletions, as the connection sees them. */
typedef struct esc_ends {
    int64_t head, time_us, indexed, deletions;
} esc_ends;
escqrs_status esc_sqlite_ends(const esc_sqlite *sqlite, esc_connection *connection, esc_ends *ends,
                              escqrs_error *error) ESCQRS_MUST_USE;
/* In the running batch: a file of format 1 gets the tables of format 2. */
escqrs_status esc_sqlite_upgrade(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;

/* ---- sqlite_file.c ---- */

/* Are the file and its WAL still what their names stand for? What is written after somebody has
 * deleted, moved or replaced one is lost. IO. Between two transactions: where it is the WAL that is
 * gone, what was committed to it is moved into the file. */
escqrs_status esc_sqlite_check_places(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;
/* The same for the file of a read-only store: who goes on reading it learns of no commit any more.
 * IO. Any thread. */
escqrs_status esc_sqlite_check_opened(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;
/* ESCQRS_IO if somebody took a part of the file or of its WAL away: what is written behind it would
 * be lost. Not within a transaction. */
escqrs_status esc_sqlite_check_sizes(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;
/* The file has another size from now on: a checkpoint made it longer, or gave pages back. */
void esc_sqlite_note_size(esc_sqlite *sqlite);
/* Is the lock file? Otherwise another process may be writing too. IO. */
escqrs_status esc_sqlite_check_lock(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;

/* ---- checksums (sqlite_reader.c) ---- */

typedef struct esc_row { /* a row of escqrs_journal but for header and data */
    int64_t position, stream, version, type, time_us, ordinal;
    uint64_t name_hash, type_hash;
} esc_row;

/* As stored: see docs/format.md. */
int32_t esc_row_checksum(const esc_row *row, escqrs_slice header, escqrs_slice data, uint64_t salt);
int32_t esc_snapshot_checksum(int64_t stream, int64_t version, const escqrs_type *type,
                              escqrs_slice data, uint64_t salt);

/* ---- sqlite_chain.c ---- */

/* The tables of a chain, in the transaction that makes the file: an SQLite code. */
int esc_sqlite_chain_create(sqlite3 *db);
/* The writer begins: the last link must be that of the head. */
escqrs_status esc_sqlite_chain_start(esc_sqlite *sqlite, int64_t head,
                                     escqrs_error *error) ESCQRS_MUST_USE;
/* The link of the event that is being written, into the table. A failure to be rolled back. */
escqrs_status esc_sqlite_chain_add(esc_sqlite *sqlite, const esc_row *row, escqrs_slice stream,
                                   const escqrs_new_event *event, escqrs_slice header,
                                   escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_sqlite_chain(escqrs_provider *self, int64_t position, uint8_t *link,
                               escqrs_error *error);

/* ---- sqlite_inline.c ---- */

/* Have the inliner write what belongs to a commit that was checked. Not OK: the commit is refused
 * and has left nothing, or the batch is broken. */
escqrs_status esc_sqlite_inline(esc_sqlite *sqlite, const escqrs_commit *commit,
                                escqrs_error *error) ESCQRS_MUST_USE;

/* ---- sqlite_index.c ---- */

/* Positions of versions first .. first + count - 1 of a stream. CORRUPT where one is missing. */
escqrs_status esc_sqlite_index_look(const esc_sqlite *sqlite, esc_connection *connection,
                                    int64_t stream, int64_t first, size_t count, int64_t *positions,
                                    escqrs_error *error) ESCQRS_MUST_USE;
/* The last version that the index has; 0 where it has none. */
escqrs_status esc_sqlite_index_last(const esc_sqlite *sqlite, esc_connection *connection,
                                    int64_t stream, int64_t *version,
                                    escqrs_error *error) ESCQRS_MUST_USE;
/* The same of a row: first_version, count and positions, from that column on. */
escqrs_status esc_sqlite_index_last_of(const esc_sqlite *sqlite, sqlite3_stmt *statement,
                                       int column, int64_t stream, int64_t *version,
                                       escqrs_error *error) ESCQRS_MUST_USE;
/* In the running transaction: merge about that many index rows of what is frozen, from
 * writer.merge_next on. */
escqrs_status esc_sqlite_index_merge(esc_sqlite *sqlite, size_t rows,
                                     escqrs_error *error) ESCQRS_MUST_USE;
/* Read the tail of positions above `after` (`upto`: the last that must be there) into a stream
 * index: the store's, or one that is to become it. */
escqrs_status esc_sqlite_index_scan(esc_sqlite *sqlite, esc_stream_index *index,
                                    esc_connection *connection, int64_t after, int64_t upto,
                                    escqrs_error *error) ESCQRS_MUST_USE;

/* ---- sqlite_writer.c ---- */

escqrs_status esc_sqlite_writer_start(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;
/* What the leader remembers, and the stream index, as the file has it; then the head. */
escqrs_status esc_sqlite_remember(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;
/* Overwrite in the WAL what a failed COMMIT may have left there: an SQLite code. */
int esc_sqlite_overwrite_remains(esc_sqlite *sqlite);
/* Write and sync all of the WAL once more, as it is: an SQLite code. */
int esc_sqlite_write_wal_again(sqlite3 *db);
/* Merge what is left of the tail, if that is quick, and close the connection. */
void esc_sqlite_writer_stop(esc_sqlite *sqlite);
escqrs_status esc_sqlite_begin(escqrs_provider *self, escqrs_error *error);
escqrs_status esc_sqlite_end(escqrs_provider *self, escqrs_error *error);
void esc_sqlite_rollback(escqrs_provider *self);
void esc_sqlite_upkeep(escqrs_provider *self);
escqrs_status esc_sqlite_run(escqrs_provider *self, bool sync,
                             escqrs_status (*work)(void *, void *, escqrs_error *), void *context,
                             escqrs_error *error);
/* The leader's: bring all of the tail to disk, in batches of its own. */
escqrs_status esc_sqlite_merge_rest(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;
/* The leader's: what is committed from now on is as durable as the options say. */
escqrs_status esc_sqlite_set_synced(esc_sqlite *sqlite, escqrs_error *error) ESCQRS_MUST_USE;
/* The leader's: move what is in the WAL into the file, as far as readers let it. */
void esc_sqlite_checkpoint_wal(esc_sqlite *sqlite);

/* In the running batch, which is broken from now on: what SQLite refused. */
escqrs_status esc_sqlite_fail(esc_sqlite *sqlite, int code, escqrs_error *error);
escqrs_status esc_sqlite_no_memory(esc_sqlite *sqlite, escqrs_error *error); /* likewise */

/* ---- sqlite_restart.c ---- */

escqrs_status esc_sqlite_restart(escqrs_provider *self, escqrs_error *error);

/* ---- sqlite_commit.c ---- */

/* The leader's: the stream of that name, known from memory or disk, or made in memory alone. */
escqrs_status esc_sqlite_resolve(esc_sqlite *sqlite, escqrs_slice name, esc_stream **stream,
                                 escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_sqlite_apply(escqrs_provider *self, escqrs_commit *commit, escqrs_error *error);
/* Of a write of the commit under way, which has been checked. */
static inline esc_stream *esc_sqlite_stream_of(const esc_sqlite *sqlite, size_t write)
{
    return ESC_VECTOR_AT(&sqlite->writer.streams, esc_stream *, write);
}
/* `planned` is zero again in all of them. */
void esc_sqlite_unplan(esc_sqlite *sqlite);

/* ---- sqlite_pool.c ---- */

/* A connection of the pool, for this thread alone until it is given back. CLOSED after
 * stop_readers. */
escqrs_status esc_sqlite_take_reader(esc_sqlite *sqlite, esc_connection **connection,
                                     escqrs_error *error) ESCQRS_MUST_USE;
void esc_sqlite_give_reader(esc_sqlite *sqlite, esc_connection *connection);
escqrs_status esc_sqlite_reader(escqrs_provider *self, void **db, escqrs_error *error);
void esc_sqlite_reader_return(escqrs_provider *self, void *db);
void esc_sqlite_stop_readers(escqrs_provider *self);
void esc_sqlite_close_readers(esc_sqlite *sqlite);

/* ---- sqlite_reader.c ---- */

/* Make the SQL function `escqrs_take` in that reader, which must not move. A code of SQLite. */
int esc_sqlite_register_take(esc_connection *connection);
/* Number and durable version of a stream, from memory or disk; 0 and 0 where it is unknown. */
escqrs_status esc_sqlite_stream(esc_sqlite *sqlite, esc_connection *connection, escqrs_slice name,
                                int64_t *id, int64_t *version, escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_sqlite_read(escqrs_provider *self, const escqrs_query *query, escqrs_page *page,
                              escqrs_error *error);
escqrs_status esc_sqlite_version(escqrs_provider *self, escqrs_slice stream, int64_t *version,
                                 int64_t *hint, escqrs_error *error);
escqrs_status esc_sqlite_refresh(escqrs_provider *self, escqrs_error *error);

/* ---- sqlite_aid.c ---- */

escqrs_status esc_sqlite_checkpoint(escqrs_provider *self, escqrs_slice name, int64_t *position,
                                    escqrs_error *error);
escqrs_status esc_sqlite_snapshots(escqrs_provider *self, const escqrs_snapshot_visitor *visitor,
                                   escqrs_error *error);
escqrs_status esc_sqlite_snapshot(escqrs_provider *self, escqrs_slice stream, int64_t upto,
                                  escqrs_snapshot *snapshot, escqrs_error *error);
/* The version of a snapshot that verifies, at `least` or later; 0 where there is none. */
escqrs_status esc_sqlite_snapshot_version(esc_sqlite *sqlite, esc_connection *connection,
                                          int64_t stream, int64_t least, int64_t *version,
                                          escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_sqlite_key(escqrs_provider *self, escqrs_slice scope, escqrs_slice key,
                             void **reply, size_t *size, int64_t *position, escqrs_error *error);

/* ---- sqlite_snapshot.c: deleting ---- */

escqrs_status esc_sqlite_delete_snapshots(escqrs_provider *self, escqrs_slice stream, int64_t upto,
                                          escqrs_error *error);

/* ---- sqlite_backup.c ---- */

escqrs_status esc_sqlite_backup(escqrs_provider *self, const char *path, escqrs_error *error);
/* The same to an empty or missing file of that VFS (NULL: the platform's). */
escqrs_status esc_sqlite_copy(escqrs_provider *self, const char *path, const char *vfs,
                              escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_sqlite_streams(escqrs_provider *self, int64_t after, size_t max,
                                 bool (*visit)(void *context, const escqrs_stream_info *stream),
                                 void *context, escqrs_error *error);

/* ---- sqlite_verify.c ---- */

escqrs_status esc_sqlite_verify(escqrs_provider *self, const escqrs_observer *observer,
                                escqrs_verification *found, escqrs_error *error);

/* ---- sqlite_stats.c ---- */

escqrs_status esc_sqlite_stats(escqrs_provider *self, escqrs_statistics *found,
                               void (*visit)(void *context, escqrs_slice type, int64_t count),
                               void *context, escqrs_error *error);

/* ---- sqlite_erase.c ---- */

typedef struct esc_gap { /* positions whose events were deleted */
    int64_t first, last; /* last 0: none */
    int64_t time_us;     /* of the event at `last` */
} esc_gap;

int32_t esc_gap_checksum(const esc_gap *gap, uint64_t salt);
int32_t esc_erased_checksum(int64_t stream, int64_t upto, int64_t closed, int64_t time_us,
                            uint64_t salt);
/* The first gap (the last if `reverse`) that has a position in low .. high; `last` is 0 where there
 * is none. What the connection sees counts. */
escqrs_status esc_sqlite_gap(const esc_sqlite *sqlite, esc_connection *connection, int64_t low,
                             int64_t high, bool reverse, esc_gap *gap,
                             escqrs_error *error) ESCQRS_MUST_USE;
/* The last gap of all. */
escqrs_status esc_sqlite_last_gap(const esc_sqlite *sqlite, esc_connection *connection,
                                  esc_gap *gap, escqrs_error *error) ESCQRS_MUST_USE;
/* What was deleted of the stream of that number. */
escqrs_status esc_sqlite_erased_of(const esc_sqlite *sqlite, esc_connection *connection,
                                   int64_t stream, escqrs_erased *erased,
                                   escqrs_error *error) ESCQRS_MUST_USE;
/* Always DELETED: nothing can be written to the stream. */
escqrs_status esc_sqlite_say_closed(escqrs_slice stream, int64_t version,
                                    escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_sqlite_erase(escqrs_provider *self, escqrs_erasure *erasures, size_t count,
                               escqrs_error *error);
escqrs_status esc_sqlite_erased(escqrs_provider *self, escqrs_slice stream, escqrs_erased *erased,
                                escqrs_error *error);

/* ---- sqlite_compact.c ---- */

escqrs_status esc_sqlite_compact(escqrs_provider *self, int64_t pages, int64_t *bytes, bool *more,
                                 escqrs_error *error);

/* ---- sqlite_condition.c ---- */

/* In the running batch: does an event match? CONDITION_FAILED. */
escqrs_status esc_sqlite_check_condition(esc_sqlite *sqlite, const escqrs_condition *condition,
                                         escqrs_error *error) ESCQRS_MUST_USE;
/* Are the ids that the commit gives new? KEY_REUSED. */
escqrs_status esc_sqlite_check_ids(esc_sqlite *sqlite, const escqrs_commit *commit,
                                   escqrs_error *error) ESCQRS_MUST_USE;
/* Enter the tags and the id of the event written at `position`: SQLITE_DONE, or what failed. */
int esc_sqlite_index_event(esc_sqlite *sqlite, const escqrs_new_event *event, int64_t position,
                           escqrs_error *error) ESCQRS_MUST_USE;
/* The first position in low .. high (the last if `reverse`) whose event bears all tags of one of
 * the matches, each of which has tags; 0 where there is none. Any connection. */
escqrs_status esc_sqlite_next_tagged(const esc_sqlite *sqlite, esc_connection *connection,
                                     const escqrs_match *matches, size_t count, int64_t low,
                                     int64_t high, bool reverse, int64_t *position,
                                     escqrs_error *error) ESCQRS_MUST_USE;

/* ---- open ---- */

/* Is it one of these? */
bool esc_sqlite_is(const escqrs_provider *provider);
/* Open or create; see escqrs_store_open. `source` (or NULL): a store in memory begins as a copy of
 * it. */
escqrs_status esc_sqlite_open(const char *path, const escqrs_store_options *options,
                              escqrs_provider *source, escqrs_provider **provider,
                              escqrs_error *error) ESCQRS_MUST_USE;

#endif
