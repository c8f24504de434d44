/* readmodel/install.h - put a read model's tables, with rows, from one database into another.
 *
 * Not thread-safe; the caller has both connections and a transaction open on `to`. */
#ifndef ESC_READMODEL_INSTALL_H
#define ESC_READMODEL_INSTALL_H

#include "readmodel/definition.h"

/* Make the objects of the definition in `to` and copy all rows of its tables from `from`. Tables
 * first, then rows, then indexes, views and triggers: no trigger fires, and indexes are built at
 * once. */
escqrs_status esc_install(const esc_definition *definition, sqlite3 *from, sqlite3 *to,
                          escqrs_error *error) ESCQRS_MUST_USE;

/* Append `name` to `buffer` as a quoted identifier. */
escqrs_status esc_install_quote(esc_buffer *buffer, const char *name) ESCQRS_MUST_USE;

/* The rows of a table to those that there are already; rowids without a name are given anew. A row
 * that collides with another one is an error, whatever its constraint says. */
escqrs_status esc_install_add_rows(sqlite3 *from, sqlite3 *to, const char *table,
                                   escqrs_error *error) ESCQRS_MUST_USE;

#endif
