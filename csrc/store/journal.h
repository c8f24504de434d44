/* The journal: commits of many threads become batches of one provider.
 *
 * Whoever finds nobody leading becomes the leader and commits for all that are queued: a thread
 * inside escqrs_store_commit, or the journal's own thread, which submit wakes when nobody else
 * leads. When a leader's own commit is answered it hands the lead on to the first in the queue who
 * waits, or to the thread. `done` is called in the order of submission by the leader, outside the
 * lock.
 *
 * A batch that cannot be written fails as a whole; a commit that fails its checks fails alone.
 * After a failure that leaves open what the disk has (a failed fsync), the journal refuses
 * everything: open the store again.
 *
 * Lock order: `mutex` is a leaf, never held over a call of the provider or of `done`. */
#ifndef ESC_STORE_JOURNAL_H
#define ESC_STORE_JOURNAL_H

#include <escqrs/store.h>

#include <stdatomic.h>

#include "base/thread.h"
#include "store/provider.h"

#define ESC_BATCH_EVENTS_MAX 10000
#define ESC_BATCH_COMMITS_MAX 10000
#define ESC_BATCH_BYTES_MAX (8u << 20)

typedef enum esc_work_kind {
    ESC_WORK_SQL,          /* gets the writing connection; what it commits is fsynced */
    ESC_WORK_SQL_UNSYNCED, /* likewise, and is not */
    ESC_WORK_STORE,        /* of the store itself: gets the provider */
    ESC_WORK_RESTART,      /* likewise, also after a failure, which is over when it answers OK */
} esc_work_kind;

typedef escqrs_status (*esc_work)(void *context, void *sqlite, escqrs_error *error);

typedef struct esc_journal {
    escqrs_provider *provider;
    const escqrs_log *log;
    bool manual;
    bool has_thread;
    esc_thread thread;

    esc_mutex mutex;
    escqrs_commit *first, *last; /* mutex: the queue */
    bool leading;                /* mutex: somebody leads, or was told to */
    bool closing;                /* mutex */
    bool thread_leads;           /* mutex: the lead was handed to the thread */
    bool thread_ends;            /* mutex */
    esc_cond thread_wake;        /* mutex */
    esc_cond idle;               /* mutex: nobody leads and nothing is queued */

    escqrs_error failure;   /* the leader's: why `provider->failed` */
    _Atomic size_t backlog; /* queued or under way */

    _Atomic uint32_t wake_count; /* futex of who waits for the head */
    _Atomic uint32_t waiter_count;
} esc_journal;

/* Starts the thread unless `manual`. IO, NO_MEMORY. */
escqrs_status esc_journal_start(esc_journal *journal, escqrs_provider *provider,
                                const escqrs_log *log, bool manual,
                                escqrs_error *error) ESCQRS_MUST_USE;
/* Refuse new commits, finish the queued ones, join the thread. Blocks. Once. */
void esc_journal_stop(esc_journal *journal);
void esc_journal_fini(esc_journal *journal);

/* Never blocks. CLOSED. */
escqrs_status esc_journal_submit(esc_journal *journal, escqrs_commit *commit,
                                 escqrs_error *error) ESCQRS_MUST_USE;
/* Blocks until the commit is answered; its status. waits: see escqrs_store_commit_or_leave; NULL:
 * it does not leave. */
escqrs_status esc_journal_commit(esc_journal *journal, escqrs_commit *commit, bool *waits,
                                 escqrs_error *error) ESCQRS_MUST_USE;
/* See escqrs_store_withdraw; not for one that a thread waits for. */
bool esc_journal_withdraw(esc_journal *journal, escqrs_commit *commit) ESCQRS_MUST_USE;
/* Blocks until it is its turn, then runs `work` between two batches on this thread. */
escqrs_status esc_journal_run(esc_journal *journal, esc_work_kind kind, esc_work work,
                              void *context, escqrs_error *error) ESCQRS_MUST_USE;
size_t esc_journal_pump(esc_journal *journal);

/* Wait for the head; see escqrs_store_wait. `closed` is looked at as well. */
escqrs_status esc_journal_wait(esc_journal *journal, int64_t position, const _Atomic(int) *cancel,
                               bool (*closed)(void *context), void *context,
                               int64_t deadline_ns) ESCQRS_MUST_USE;
void esc_journal_wake(esc_journal *journal);

#endif
