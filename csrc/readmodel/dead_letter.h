/* readmodel/dead_letter.h - the table of events that read models have not applied.
 *
 *   escqrs_dead_letter(readmodel, position, stream, version, type, state, attempts, error,
 *                      traceback, event, time, reason)
 *
 * state: 'parked': it failed, `error` says why; 'held': it waits behind a parked event of its
 * stream; 'skipped': left out on purpose, `reason` says why. `event` is the event as JSON, NULL
 * where it cannot be decoded; `time` is when it was put there, text in UTC.
 *
 * It lies beside the read model's tables, in the same database, and is made with the first read
 * model. Everything here runs on a connection that the caller has to himself, in his
 * transaction. */
#ifndef ESC_READMODEL_DEAD_LETTER_H
#define ESC_READMODEL_DEAD_LETTER_H

#include <escqrs/readmodel.h>
#include <sqlite3.h>

#include "base/vector.h"

typedef struct esc_dead_letter {
    const char *readmodel;
    const char *state;
    int64_t position;
    int64_t version;
    escqrs_slice stream, type;
    uint32_t attempts;
    escqrs_slice error, traceback, event, reason; /* empty: NULL */
} esc_dead_letter;

escqrs_status esc_dead_letter_make_table(sqlite3 *db, escqrs_error *error) ESCQRS_MUST_USE;
/* Replaces one of the same position. */
escqrs_status esc_dead_letter_put(sqlite3 *db, const esc_dead_letter *letter,
                                  escqrs_error *error) ESCQRS_MUST_USE;
escqrs_status esc_dead_letter_delete(sqlite3 *db, const char *readmodel, int64_t position,
                                     escqrs_error *error) ESCQRS_MUST_USE;
/* Leave out an event that is parked or held. DONE: it is neither. */
escqrs_status esc_dead_letter_skip(sqlite3 *db, const char *readmodel, int64_t position,
                                   escqrs_slice reason, escqrs_error *error) ESCQRS_MUST_USE;
/* A parked or held event has failed (again). */
escqrs_status esc_dead_letter_fail(sqlite3 *db, const char *readmodel, int64_t position,
                                   escqrs_slice text, escqrs_slice traceback,
                                   escqrs_error *error) ESCQRS_MUST_USE;
/* Streams of events that are parked or held, in the order of their first (char *, the caller frees
 * them), and the number of such events. A database without the table has none. */
escqrs_status esc_dead_letter_streams(sqlite3 *db, const char *readmodel, esc_vector *streams,
                                      int64_t *events, escqrs_error *error) ESCQRS_MUST_USE;
/* The first event of a stream that is parked or held, behind a position; 0: none. */
escqrs_status esc_dead_letter_next(sqlite3 *db, const char *readmodel, const char *stream,
                                   int64_t after, int64_t *position,
                                   escqrs_error *error) ESCQRS_MUST_USE;
/* The stream of one of them, to be freed; NULL: it is neither parked nor held. */
escqrs_status esc_dead_letter_stream(sqlite3 *db, const char *readmodel, int64_t position,
                                     char **stream, escqrs_error *error) ESCQRS_MUST_USE;
/* Put those of another database in the place of a read model's, or of one stream's alone (`stream`
 * is not empty). */
escqrs_status esc_dead_letter_replace(sqlite3 *db, const char *readmodel, escqrs_slice stream,
                                      sqlite3 *from, escqrs_error *error) ESCQRS_MUST_USE;

#endif
