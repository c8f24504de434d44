/* The open store: what a program holds. It joins a provider and a journal, checks what comes in,
 * and knows when it is closed.
 *
 * `gate` counts the calls that are inside and has a bit for "closed": a call enters, works and
 * leaves; close sets the bit and waits until all have left. References keep the memory: one is the
 * program's, one each open cursor's. */
#ifndef ESC_STORE_STORE_H
#define ESC_STORE_STORE_H

#include <escqrs/store.h>

#include <stdatomic.h>

#include "base/thread.h"
#include "store/ahead.h"
#include "store/journal.h"
#include "store/page.h"
#include "store/provider.h"
#include "store/watch.h"

#define ESC_CURSORS_KEPT 8

struct escqrs_store {
    escqrs_provider *provider;
    esc_journal journal;
    escqrs_store_options options;
    char *path;
    unsigned fork_generation;
    _Atomic uint32_t gate;
    _Atomic uint32_t references;
    esc_mutex close_mutex;  /* who closes; taken before all others */
    bool closed;            /* close_mutex */
    esc_mutex cursor_mutex; /* a leaf */
    escqrs_cursor *kept;    /* cursor_mutex: closed cursors, for their memory and names */
    size_t kept_count;      /* cursor_mutex */
    esc_ahead ahead;        /* of the cursors */
    esc_mutex watch_mutex;  /* a leaf, but for the start of the thread */
    esc_watch *watch;       /* watch_mutex: read-only stores, once somebody has waited */
    _Atomic int lost;       /* escqrs_status: why the watch cannot look any more */
};

/* Enter: OK, CLOSED or FORKED. Leave after OK. Any thread; enter never blocks. */
escqrs_status esc_store_enter(escqrs_store *store, escqrs_error *error) ESCQRS_MUST_USE;
void esc_store_leave(escqrs_store *store);
void esc_store_hold(escqrs_store *store);
void esc_store_release(escqrs_store *store); /* the last one frees */

/* ---- cursor.c ---- */

void esc_cursors_free(escqrs_store *store); /* the kept ones */

#endif
