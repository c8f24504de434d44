/* readmodel/checkpoint.h - what the store's file remembers of read models.
 *
 *   escqrs_readmodel(name, position, fingerprint)     position: of the last event applied
 *   escqrs_readmodel_object(name, kind, readmodel)    tables, indexes, views and triggers, and
 *   whose they are
 *
 * Both are made with the first read model. Everything here runs on a connection that the caller has
 * to himself; what writes runs within his transaction. */
#ifndef ESC_READMODEL_CHECKPOINT_H
#define ESC_READMODEL_CHECKPOINT_H

#include "readmodel/definition.h"

typedef struct esc_checkpoint {
    bool found;
    int64_t position;
    char fingerprint[ESC_FINGERPRINT_SIZE];
    bool complete; /* every object that the definition makes is there */
} esc_checkpoint;

/* What the file has of this read model. Reads only; a file without the tables has nothing. */
escqrs_status esc_checkpoint_load(sqlite3 *db, const esc_definition *definition,
                                  esc_checkpoint *checkpoint, escqrs_error *error) ESCQRS_MUST_USE;
/* Is what was found whole, and of this definition? */
bool esc_checkpoint_is_of(const esc_checkpoint *checkpoint, const esc_definition *definition);
/* NAME_CLASH where a name that the definition makes is taken by another read model or by somebody
 * else. */
escqrs_status esc_checkpoint_check_names(sqlite3 *db, const esc_definition *definition,
                                         escqrs_error *error) ESCQRS_MUST_USE;
/* Drop what the read model has, make its tables with the rows of `from`, and write its
 * checkpoint. */
escqrs_status esc_checkpoint_replace(sqlite3 *db, const esc_definition *definition, sqlite3 *from,
                                     int64_t position, escqrs_error *error) ESCQRS_MUST_USE;

/* The statement that moves a checkpoint: 1 name, 2 from, 3 to; it changes one row, or the
 * checkpoint was not there. */
extern const char *const esc_checkpoint_move_sql;

#endif
