/* Who proves that a file is whole, shared by its files: sqlite_verify.c has the whole, pages,
 * streams, types, what was deleted and the index; sqlite_verify_event.c the journal and the hash
 * chain; sqlite_verify_aid.c tags, ids, snapshots, checkpoints, keys and read models. One thread.
 */
#ifndef ESC_STORE_SQLITE_VERIFIER_H
#define ESC_STORE_SQLITE_VERIFIER_H

#include <escqrs/schema.h>

#include "base/arena.h"
#include "base/vector.h"
#include "store/chain.h"
#include "store/sqlite_provider.h"

#define ESC_VERIFIED_EVENTS 8192 /* read between two calls of `progress` */

typedef struct esc_checked_stream {
    int64_t id;
    int64_t version; /* last one seen */
    int64_t erased;  /* versions up to it were deleted */
    bool closed;
    int64_t indexed; /* last version in the index */
    uint64_t name_hash;
    uint64_t sum; /* of the index, less that of the journal */
} esc_checked_stream;

typedef struct esc_checked_type {
    int64_t id;
    uint64_t hash;                          /* of the name */
    escqrs_schema *schema;                  /* NULL: foreign data */
    uint8_t digest[ESCQRS_CHAIN_LINK_SIZE]; /* where there is a chain */
} esc_checked_type;

typedef struct esc_verifier {
    esc_sqlite *sqlite;
    sqlite3 *db;
    const escqrs_observer *observer;
    escqrs_verification *counts;
    escqrs_error *error;
    esc_vector streams; /* esc_checked_stream, by id */
    esc_vector types;   /* esc_checked_type, by id */
    esc_vector gaps;    /* esc_gap, in order */
    size_t next_gap;    /* the first that is not passed */
    int64_t erased;     /* events, as the streams say; and the gaps: */
    int64_t missing;
    esc_arena arena; /* lists of one header */
    sqlite3_stmt *look_tag, *look_id;
    sqlite3_stmt *look_link, *look_name; /* NULL: no hash chain is kept */
    esc_chain chain;
    int64_t link_position; /* of chain.link */
    int64_t head, watermark;
    int64_t last_position;
    int64_t tags, ids; /* borne by events, found in the tables */
    int64_t last_time_us, last_ordinal;
    bool partial; /* the journal could not be read to its end */
    bool stopped; /* by the observer */
} esc_verifier;

typedef struct esc_verified_place { /* where: zeros where it does not apply */
    int64_t stream, version, position;
} esc_verified_place;

/* ---- sqlite_verify.c ---- */

/* Tell the observer of a problem; DONE where he ends it. */
escqrs_status esc_verifier_report(esc_verifier *in, const char *part, esc_verified_place where,
                                  const char *format, ...) ESCQRS_PRINTF(4, 5) ESCQRS_MUST_USE;
/* What SQLite could not read: a problem where the file is damaged, or an error. */
escqrs_status esc_verifier_refused(esc_verifier *in, const char *part, esc_verified_place where,
                                   int code) ESCQRS_MUST_USE;
escqrs_status esc_verifier_no_memory(esc_verifier *in) ESCQRS_MUST_USE;
escqrs_status esc_verifier_progress(esc_verifier *in, int64_t done) ESCQRS_MUST_USE;
/* Call `row` for each row of the query. */
escqrs_status esc_verifier_each(esc_verifier *in, const char *part, const char *query,
                                escqrs_status (*row)(esc_verifier *in,
                                                     sqlite3_stmt *statement)) ESCQRS_MUST_USE;
/* The first number of the query's first row; `missing` where there is none. */
escqrs_status esc_verifier_number(esc_verifier *in, const char *part, const char *query,
                                  int64_t missing, int64_t *number) ESCQRS_MUST_USE;
escqrs_slice esc_verifier_column(sqlite3_stmt *statement, int index);
/* In a vector of structs that begin with their id, in its order. Most often ids have no gaps. */
void *esc_verifier_find(const esc_vector *vector, int64_t id);
/* Can it be decoded as what it was stored as? */
escqrs_status esc_verifier_check_message(esc_verifier *in, const char *part,
                                         esc_verified_place where, const esc_checked_type *type,
                                         escqrs_slice data) ESCQRS_MUST_USE;
uint64_t esc_verifier_index_hash(int64_t version, int64_t position);
int64_t esc_verifier_behind_gaps(esc_verifier *in, int64_t position);

/* ---- sqlite_verify_event.c ---- */

escqrs_status esc_verifier_check_chain(esc_verifier *in) ESCQRS_MUST_USE;
escqrs_status esc_verifier_check_events(esc_verifier *in) ESCQRS_MUST_USE;

/* ---- sqlite_verify_aid.c ---- */

escqrs_status esc_verifier_check_aids(esc_verifier *in) ESCQRS_MUST_USE;
escqrs_status esc_verifier_check_read_models(esc_verifier *in) ESCQRS_MUST_USE;
escqrs_status esc_verifier_snapshot_row(esc_verifier *in, sqlite3_stmt *statement) ESCQRS_MUST_USE;
escqrs_status esc_verifier_checkpoint_row(esc_verifier *in,
                                          sqlite3_stmt *statement) ESCQRS_MUST_USE;
escqrs_status esc_verifier_key_row(esc_verifier *in, sqlite3_stmt *statement) ESCQRS_MUST_USE;

#endif
