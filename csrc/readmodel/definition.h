/* readmodel/definition.h - what a read model is by its author's words, checked.
 *
 * Design
 *   - The schema runs in a scratch database in memory, under an authorizer. What it makes there is
 *     what the read model owns: its objects (tables, indexes, views, triggers) and the rows that
 *     the schema itself puts in. It never runs in the store's file: there the objects are made from
 *     the scratch's sqlite_schema, so that nothing else in the author's text (DROP TABLE IF EXISTS
 *     ...) can touch what belongs to others.
 *   - Every statement is prepared in the same scratch first. Nobody else's tables are there, so a
 *     statement that is accepted cannot read or write them in the file either.
 * Not thread-safe: one thread at a time. Locks: none. */
#ifndef ESC_READMODEL_DEFINITION_H
#define ESC_READMODEL_DEFINITION_H

#include <escqrs/readmodel.h>
#include <sqlite3.h>

#include "base/vector.h"
#include "readmodel/binding.h"

typedef struct esc_projection {
    char *type; /* "": every event */
    char **tags;
    size_t tag_count;
    const escqrs_schema *schema;
    ProtobufCMessage *defaults; /* or NULL */
    char *sql;                  /* NULL: apply */
    esc_binding_plan plan;      /* sql */
    escqrs_status (*apply)(void *context, const escqrs_recorded *recorded, void *sqlite,
                           escqrs_error *error);
    void *context;
} esc_projection;

typedef enum esc_object_kind {
    ESC_OBJECT_TABLE = 0, /* in the order in which they are made */
    ESC_OBJECT_VIRTUAL,
    ESC_OBJECT_SHADOW, /* made by a virtual table */
    ESC_OBJECT_INDEX,
    ESC_OBJECT_VIEW,
    ESC_OBJECT_TRIGGER,
} esc_object_kind;

typedef struct esc_object {
    char *name;
    char *sql;
    esc_object_kind kind;
} esc_object;

#define ESC_FINGERPRINT_SIZE 33 /* 32 hexadecimal digits and the NUL */

typedef struct esc_definition {
    char *name;
    char *file;          /* NULL: the store's */
    char *stream_column; /* of every table; or NULL */
    esc_projection *projections;
    size_t projection_count;
    esc_vector objects; /* esc_object */
    sqlite3 *scratch;
    bool rebuild_manual;
    bool is_inline;
    bool has_virtual; /* its tables cannot be copied row by row */
    bool has_apply;
    escqrs_failure_policy on_error;         /* delays are set */
    char fingerprint[ESC_FINGERPRINT_SIZE]; /* of schema, version, types, SQL and handlers */
    /* the authorizer's: what the statement under way may not do; "" if nothing */
    const char *denied;
    bool guarded;        /* the authorizer's: the author's text is being read */
    bool running_schema; /* the authorizer's */
} esc_definition;

/* Errors: INVALID (names read model and statement), NO_MEMORY. `definition` is zeroed or valid
 * memory of the caller; it must not move afterwards. After a failure there is nothing to fini. */
escqrs_status esc_definition_init(esc_definition *definition, const escqrs_readmodel_spec *spec,
                                  escqrs_error *error) ESCQRS_MUST_USE;
void esc_definition_fini(esc_definition *definition);

/* May the read model run this statement in a projection? One statement that writes or reads its own
 * tables only; `must_write`: and that changes something. On OK `*statement` (may be NULL) is
 * prepared in the scratch. */
escqrs_status esc_definition_check(esc_definition *definition, escqrs_slice sql, bool must_write,
                                   sqlite3_stmt **statement, escqrs_error *error) ESCQRS_MUST_USE;

/* A new database with the tables as the schema makes them, and with the rows of `from`: the scratch
 * has those that the schema itself puts in. `in_memory`: else it may spill to
 * a temporary file, which is gone when the process is. */
escqrs_status esc_definition_make_copy(const esc_definition *definition, sqlite3 *from,
                                       bool in_memory, sqlite3 **copy,
                                       escqrs_error *error) ESCQRS_MUST_USE;

#endif
