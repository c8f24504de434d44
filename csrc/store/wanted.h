/* Positions as a table of SQLite: what a page of one stream asks for.
 *
 * A statement that joins `escqrs_wanted` with the journal finds all rows of the page in one run, in
 * the order of the positions given. Starting a statement anew for each row costs twice as much: the
 * cursor is opened, placed and closed again each time.
 *
 * The table belongs to one connection, and to the thread that has it. Outside of a read it is
 * empty.
 */
#ifndef ESC_STORE_WANTED_H
#define ESC_STORE_WANTED_H

#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

typedef struct esc_wanted {
    const int64_t *positions; /* the reader's, for as long as the statement runs */
    size_t count;
    /* why the table could not be made: INTERRUPT or NOMEM; SQLite says ERROR for both */
    int failure;
} esc_wanted;

/* Make the table `escqrs_wanted(position)` in that connection. `wanted` must outlive it. Returns a
 * code of SQLite. */
int esc_wanted_register(sqlite3 *db, esc_wanted *wanted);

#endif
