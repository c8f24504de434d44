/* See journal.h.
 *
 * A commit's `state` says who waits for it: ASYNC nobody; WAITING a thread inside commit or run;
 * then LEAD, when that thread is to lead, or FINISHED. A waiting thread sleeps on it as a futex.
 * Work for `run` stands in the same queue as a commit with RUN set, and only its own thread,
 * leading, takes it out.
 *
 * Such work may last for as long as a program's code does. Who waits behind it for longer than
 * LEAVE_AFTER_NS, and says that it need not, makes its commit ASYNC, which is still in the queue
 * then, and leaves. */
#include "store/journal.h"

#include <limits.h>
#include <string.h>

#include "base/assert.h"
#include "base/error.h"

#define LEAVE_AFTER_NS INT64_C(20000000)

enum {
    STATE_ASYNC = 0,
    STATE_WAITING = 1,
    STATE_LEAD = 2,
    STATE_FINISHED = 3,
    STATE_MASK = 3,
    STATE_RUN = 4,
    STATE_REFUSED = 8, /* the leader's: its lane had failed before the batch */
};

static _Atomic uint32_t *state_of(const escqrs_commit *commit)
{
    return (_Atomic uint32_t *)&commit->state;
}

/* relaxed: by the leader, who alone changes what it asks about; the lead itself is handed over in
 * order */
static uint32_t peek(const escqrs_commit *commit)
{
    return atomic_load_explicit(state_of(commit), memory_order_relaxed);
}

/* ---- start and stop --------------------------------------------------------------------------- */

static void run_thread(void *context);
static size_t lead(esc_journal *journal, escqrs_commit *mine);

escqrs_status esc_journal_start(esc_journal *journal, escqrs_provider *provider,
                                const escqrs_log *log, bool manual, escqrs_error *error)
{
    memset(journal, 0, sizeof *journal);
    journal->provider = provider;
    journal->log = log;
    journal->manual = manual;
    esc_mutex_init(&journal->mutex);
    esc_cond_init(&journal->thread_wake);
    esc_cond_init(&journal->idle);
    if (manual) {
        return ESCQRS_OK;
    }
    escqrs_status status =
        esc_thread_create(&journal->thread, "escqrs-journal", 0, run_thread, journal, error);
    journal->has_thread = status == ESCQRS_OK;
    if (status != ESCQRS_OK) {
        esc_journal_fini(journal);
    }
    return status;
}

void esc_journal_fini(esc_journal *journal)
{
    ESC_ASSERT(journal->first == NULL);
    esc_mutex_fini(&journal->mutex);
    esc_cond_fini(&journal->thread_wake);
    esc_cond_fini(&journal->idle);
}

void esc_journal_stop(esc_journal *journal)
{
    esc_mutex_lock(&journal->mutex);
    journal->closing = true;
    bool pump = journal->manual;
    esc_mutex_unlock(&journal->mutex);
    while (pump && esc_journal_pump(journal) > 0) {
    }
    esc_mutex_lock(&journal->mutex);
    while (journal->first != NULL || journal->leading) {
        if (journal->leading) {
            esc_cond_wait(&journal->idle, &journal->mutex);
        } else { /* manual: left by who led last */
            journal->leading = true;
            (void)lead(journal, NULL);
        }
    }
    journal->thread_ends = true;
    esc_cond_signal(&journal->thread_wake);
    esc_mutex_unlock(&journal->mutex);
    if (journal->has_thread) {
        esc_thread_join(&journal->thread);
        journal->has_thread = false;
    }
}

/* ---- answers ---------------------------------------------------------------------------------- */

static void answer(esc_journal *journal, escqrs_commit *commit)
{
    bool waited =
        (peek(commit) & STATE_WAITING) != 0; /* read before `done`, which may free an async one */
    /* relaxed: a number for others to look at */
    atomic_fetch_sub_explicit(&journal->backlog, 1, memory_order_relaxed);
    if (commit->done != NULL) {
        commit->done(commit);
    }
    if (waited) {
        /* release: pairs with the acquire in await; after it the commit may be gone, and waking an
         * address that is nobody's does no harm */
        atomic_store_explicit(state_of(commit), STATE_FINISHED, memory_order_release);
        esc_futex_wake(state_of(commit), INT_MAX);
    }
}

static void answer_all(esc_journal *journal, escqrs_commit *batch)
{
    while (batch != NULL) {
        escqrs_commit *next = batch->next;
        answer(journal, batch);
        batch = next;
    }
}

/* ---- a batch ---------------------------------------------------------------------------------- */

static void set_failure(escqrs_commit *commit, const escqrs_error *error)
{
    commit->status = error->status;
    commit->position = 0;
    commit->repeated = false;
    if (commit->error != NULL) {
        *commit->error = *error;
    }
    /* nothing was built on a commit without events */
    if (commit->lane != NULL && commit->lane->failed == ESCQRS_OK && commit->write_count > 0) {
        commit->lane->failed = error->status;
    }
}

static void set_aborted(escqrs_commit *commit)
{
    escqrs_error error = {0};
    (void)escqrs_error_set(
        &error, ESCQRS_ABORTED,
        "an earlier commit of the same lane failed (%s), so this one was not tried",
        escqrs_status_name(commit->lane->failed));
    set_failure(commit, &error);
}

/* Nothing of the batch is stored: all that were tried fail with that error. */
static void fail_batch(escqrs_commit *batch, const escqrs_error *error)
{
    for (escqrs_commit *commit = batch; commit != NULL; commit = commit->next) {
        if (commit->lane != NULL && !(peek(commit) & STATE_REFUSED)) {
            commit->lane->failed = ESCQRS_OK; /* what made it fail in this batch is undone too */
        }
    }
    for (escqrs_commit *commit = batch; commit != NULL; commit = commit->next) {
        if (commit->lane != NULL && commit->lane->failed != ESCQRS_OK) {
            set_aborted(commit);
        } else {
            set_failure(commit, error);
        }
    }
}

static void apply(escqrs_provider *provider, escqrs_commit *commit, escqrs_error *error)
{
    if (commit->lane != NULL && commit->lane->failed != ESCQRS_OK) {
        set_aborted(commit);
        return;
    }
    commit->status = provider->functions->apply(provider, commit, error);
    if (commit->status != ESCQRS_OK) {
        error->status = commit->status;
        set_failure(commit, error);
    }
}

/* A batch that was taken back is tried once more: what failed in it has not. */
static void forget_failures(escqrs_commit *batch)
{
    for (escqrs_commit *commit = batch; commit != NULL; commit = commit->next) {
        if (commit->lane != NULL && !(peek(commit) & STATE_REFUSED)) {
            commit->lane->failed = ESCQRS_OK;
        }
    }
}

static escqrs_status try_batch(esc_journal *journal, escqrs_commit *batch, escqrs_error *error)
{
    escqrs_provider *provider = journal->provider;
    if (provider->failed) {
        *error = journal->failure;
        return error->status;
    }
    provider->refused = provider->broken = false;
    escqrs_status status = provider->functions->begin(provider, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    for (escqrs_commit *commit = batch; commit != NULL; commit = commit->next) {
        apply(provider, commit, error);
        if (provider->broken) {
            provider->functions->rollback(provider);
            provider->broken = false;
            return commit->status != ESCQRS_OK
                       ? commit->status
                       : escqrs_error_set(error, ESCQRS_IO,
                                          "the provider took a batch back and did not say why");
        }
    }
    return provider->functions->end(provider, error);
}

static escqrs_status write_batch(esc_journal *journal, escqrs_commit *batch, escqrs_error *error)
{
    escqrs_provider *provider = journal->provider;
    escqrs_status status = try_batch(journal, batch, error);
    if (status != ESCQRS_OK && provider->refused && !provider->failed) {
        forget_failures(batch);
        provider->careful = true;
        status = try_batch(journal, batch, error);
        provider->careful = false;
    }
    return status;
}

/* From now on everything is refused. */
static void note_failure(esc_journal *journal, const escqrs_error *cause)
{
    if (!journal->provider->failed || journal->failure.status != ESCQRS_OK) {
        return;
    }
    (void)escqrs_error_set(
        &journal->failure, ESCQRS_IO,
        "the store takes no more commits, as it could not make sure of what is on "
        "the disk; restart it, or close it and open it again. The cause: %s",
        cause->message[0] != '\0' ? cause->message : "moving the WAL failed");
    journal->failure.system_error = cause->system_error;
    escqrs_log_write(journal->log, ESCQRS_LOG_ERROR, "%s", journal->failure.message);
}

static void keep_up(esc_journal *journal)
{
    static const escqrs_error said = {0}; /* upkeep says itself why it failed */
    journal->provider->functions->upkeep(journal->provider);
    note_failure(journal, &said);
}

static void process(esc_journal *journal, escqrs_commit *batch)
{
    escqrs_error error = {0};
    for (escqrs_commit *commit = batch; commit != NULL; commit = commit->next) {
        if (commit->lane != NULL && commit->lane->failed != ESCQRS_OK) {
            atomic_fetch_or_explicit(state_of(commit), STATE_REFUSED, memory_order_relaxed);
        }
    }
    escqrs_status status = write_batch(journal, batch, &error);
    if (status != ESCQRS_OK) {
        error.status = status;
        note_failure(journal, &error);
        fail_batch(batch, &error);
    } else {
        esc_journal_wake(journal);
    }
    answer_all(journal, batch);
    keep_up(journal);
}

/* ---- the lead --------------------------------------------------------------------------------- */

/* Under the mutex: the next batch, linked and ended by NULL; NULL if the queue is empty or work for
 * `run` stands first. */
static escqrs_commit *take_batch(esc_journal *journal, size_t *count)
{
    escqrs_commit *batch = journal->first;
    size_t events = 0, bytes = 0;
    *count = 0;
    if (batch == NULL || (peek(batch) & STATE_RUN)) {
        return NULL;
    }
    escqrs_commit *last = NULL;
    for (escqrs_commit *commit = batch; commit != NULL && !(peek(commit) & STATE_RUN);
         commit = commit->next) {
        events += commit->event_count;
        bytes += commit->bytes;
        if (last != NULL && (events > ESC_BATCH_EVENTS_MAX || bytes > ESC_BATCH_BYTES_MAX ||
                             *count >= ESC_BATCH_COMMITS_MAX)) {
            break;
        }
        last = commit;
        (*count)++;
    }
    ESC_ASSERT(last != NULL); /* a batch begins with a commit */
    journal->first = last->next;
    if (journal->first == NULL) {
        journal->last = NULL;
    }
    last->next = NULL;
    return batch;
}

static void make_leader(escqrs_commit *commit)
{
    /* release: pairs with the acquire in await: the new leader sees what the old one did */
    atomic_store_explicit(state_of(commit), (peek(commit) & STATE_RUN) | STATE_LEAD,
                          memory_order_release);
    esc_futex_wake(state_of(commit), INT_MAX);
}

/* Under the mutex, by the leader: somebody else leads, or nobody. */
static void hand_over(esc_journal *journal)
{
    escqrs_commit *heir = journal->first;
    if (heir != NULL &&
        journal->manual) { /* nobody else would commit what stands before a waiter */
        while (heir != NULL && (peek(heir) & STATE_MASK) != STATE_WAITING) {
            heir = heir->next;
        }
    }
    if (heir == NULL) {
        journal->leading = false;
        if (journal->first == NULL || journal->closing) {
            esc_cond_broadcast(&journal->idle);
        }
    } else if ((peek(heir) & STATE_MASK) == STATE_WAITING) {
        make_leader(heir);
    } else {
        journal->thread_leads = true;
        esc_cond_signal(&journal->thread_wake);
    }
}

/* Under the mutex (let go meanwhile): commit batches until `mine` is answered, the queue is empty,
 * or somebody's work stands first; then hand over. Returns the number of commits answered. */
static size_t lead(esc_journal *journal, escqrs_commit *mine)
{
    size_t total = 0, count;
    escqrs_commit *batch;
    while ((mine == NULL || (peek(mine) & STATE_MASK) != STATE_FINISHED) &&
           (batch = take_batch(journal, &count)) != NULL) {
        esc_mutex_unlock(&journal->mutex);
        process(journal, batch);
        total += count;
        esc_mutex_lock(&journal->mutex);
    }
    hand_over(journal);
    return total;
}

static void run_thread(void *context)
{
    esc_journal *journal = context;
    esc_mutex_lock(&journal->mutex);
    for (;;) {
        while (!journal->thread_leads && !journal->thread_ends) {
            esc_cond_wait(&journal->thread_wake, &journal->mutex);
        }
        if (journal->thread_ends) {
            break;
        }
        journal->thread_leads = false;
        (void)lead(journal, NULL);
    }
    esc_mutex_unlock(&journal->mutex);
}

size_t esc_journal_pump(esc_journal *journal)
{
    size_t count = 0;
    esc_mutex_lock(&journal->mutex);
    if (!journal->leading && journal->first != NULL) {
        journal->leading = true;
        count = lead(journal, NULL);
    }
    esc_mutex_unlock(&journal->mutex);
    return count;
}

/* ---- into the queue --------------------------------------------------------------------------- */

/* Under the mutex. */
static void enqueue(esc_journal *journal, escqrs_commit *commit)
{
    commit->next = NULL;
    if (journal->last == NULL) {
        journal->first = commit;
    } else {
        journal->last->next = commit;
    }
    journal->last = commit;
    atomic_fetch_add_explicit(&journal->backlog, 1, memory_order_relaxed);
}

static escqrs_status refuse_closed(escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_CLOSED, "the store is closed");
}

escqrs_status esc_journal_submit(esc_journal *journal, escqrs_commit *commit, escqrs_error *error)
{
    commit->state = STATE_ASYNC;
    esc_mutex_lock(&journal->mutex);
    bool closing = journal->closing;
    if (!closing) {
        enqueue(journal, commit);
        if (!journal->leading && !journal->manual) {
            journal->leading = journal->thread_leads = true;
            esc_cond_signal(&journal->thread_wake);
        }
    }
    esc_mutex_unlock(&journal->mutex);
    return closing ? refuse_closed(error) : ESCQRS_OK;
}

/* Sleep until the commit is finished or this thread is to lead; that state. WAITING: neither in
 * time. */
static uint32_t await(escqrs_commit *commit, int64_t deadline_ns)
{
    for (;;) {
        /* acquire: pairs with the releases in answer and make_leader */
        uint32_t state = atomic_load_explicit(state_of(commit), memory_order_acquire);
        if ((state & STATE_MASK) != STATE_WAITING) {
            return state & STATE_MASK;
        }
        if (!esc_futex_wait(state_of(commit), state, deadline_ns)) {
            return STATE_WAITING;
        }
    }
}

/* Make it a commit that nobody waits for. False: it is not in the queue any more, or this thread is
 * to lead. */
static bool leave(esc_journal *journal, escqrs_commit *commit, bool *waits)
{
    esc_mutex_lock(&journal->mutex);
    escqrs_commit *at = journal->first;
    while (at != NULL && at != commit) {
        at = at->next;
    }
    bool leaves = at != NULL && (peek(commit) & STATE_MASK) == STATE_WAITING;
    if (leaves) { /* both are read by whoever takes it out, under the mutex */
        *waits = false;
        atomic_store_explicit(state_of(commit), STATE_ASYNC, memory_order_relaxed);
    }
    esc_mutex_unlock(&journal->mutex);
    return leaves;
}

bool esc_journal_withdraw(esc_journal *journal, escqrs_commit *commit)
{
    esc_mutex_lock(&journal->mutex);
    escqrs_commit *before = NULL, *at = journal->first;
    while (at != NULL && at != commit) {
        before = at;
        at = at->next;
    }
    if (at != NULL) { /* somebody leads, as the queue is not empty, and will find the rest */
        ESC_ASSERT(peek(at) == STATE_ASYNC);
        *(before == NULL ? &journal->first : &before->next) = at->next;
        if (journal->last == at) {
            journal->last = before;
        }
        /* relaxed: as in answer */
        atomic_fetch_sub_explicit(&journal->backlog, 1, memory_order_relaxed);
    }
    esc_mutex_unlock(&journal->mutex);
    return at != NULL;
}

/* Queue it; true if this thread leads at once. */
static bool enqueue_waiting(esc_journal *journal, escqrs_commit *commit, bool *closing)
{
    esc_mutex_lock(&journal->mutex);
    *closing = journal->closing;
    bool leads = false;
    if (!*closing) {
        enqueue(journal, commit);
        leads = !journal->leading;
        journal->leading = true;
    }
    esc_mutex_unlock(&journal->mutex);
    return leads;
}

escqrs_status esc_journal_commit(esc_journal *journal, escqrs_commit *commit, bool *waits,
                                 escqrs_error *error)
{
    bool closing, may_leave = waits != NULL && !journal->manual;
    escqrs_error *own = commit->error;
    if (own == NULL) {
        commit->error = error;
    }
    commit->state = STATE_WAITING;
    bool leads = enqueue_waiting(journal, commit, &closing);
    if (closing) {
        commit->error = own;
        return refuse_closed(error);
    }
    for (;;) {
        uint32_t state = STATE_LEAD;
        if (!leads) {
            state =
                await(commit, may_leave ? esc_deadline_after(LEAVE_AFTER_NS) : ESC_DEADLINE_NEVER);
        }
        if (state == STATE_FINISHED) {
            break;
        }
        if (state == STATE_WAITING) {
            ESC_ASSERT(may_leave);
            if (leave(journal, commit, waits)) {
                return ESCQRS_DONE;
            }
            may_leave = false; /* what is under way is a batch, or its turn has come */
            continue;
        }
        leads = false;
        /* WAITING again, so that whoever takes over from this thread can wake it */
        atomic_store_explicit(state_of(commit), STATE_WAITING, memory_order_relaxed);
        esc_mutex_lock(&journal->mutex);
        (void)lead(journal, commit);
        esc_mutex_unlock(&journal->mutex);
    }
    if (own != NULL && error != NULL && own != error && commit->status != ESCQRS_OK) {
        *error = *own;
    }
    commit->error = own;
    return commit->status;
}

static escqrs_status do_work(escqrs_provider *provider, esc_work_kind kind, esc_work work,
                             void *context, escqrs_error *error)
{
    return kind == ESC_WORK_SQL || kind == ESC_WORK_SQL_UNSYNCED
               ? provider->functions->run(provider, kind == ESC_WORK_SQL, work, context, error)
               : work(context, provider, error);
}

static escqrs_status execute(esc_journal *journal, esc_work_kind kind, esc_work work, void *context,
                             escqrs_error *error)
{
    escqrs_provider *provider = journal->provider;
    if (provider->failed && kind != ESC_WORK_RESTART) {
        if (error != NULL) {
            *error = journal->failure;
        }
        return ESCQRS_IO;
    }
    escqrs_error detail = {0};
    escqrs_status status = do_work(provider, kind, work, context, &detail);
    if (kind == ESC_WORK_RESTART && status == ESCQRS_OK) {
        provider->failed = false;
        journal->failure = (escqrs_error){0};
    }
    if (status != ESCQRS_OK && error != NULL) {
        *error = detail;
    }
    note_failure(journal, &detail);
    if (!provider->failed) {
        keep_up(journal);
    }
    return status;
}

escqrs_status esc_journal_run(esc_journal *journal, esc_work_kind kind, esc_work work,
                              void *context, escqrs_error *error)
{
    bool closing;
    escqrs_commit turn;
    memset(&turn, 0, sizeof turn);
    turn.state = STATE_RUN | STATE_WAITING;
    bool leads = enqueue_waiting(journal, &turn, &closing);
    if (closing) {
        return refuse_closed(error);
    }
    for (;;) {
        if (!leads) {
            (void)await(&turn, ESC_DEADLINE_NEVER); /* nobody but this thread finishes it */
        }
        leads = false;
        atomic_store_explicit(state_of(&turn), STATE_RUN | STATE_WAITING, memory_order_relaxed);
        esc_mutex_lock(&journal->mutex);
        if (journal->first == &turn) {
            break;
        }
        (void)lead(journal, &turn); /* those before it; hands the lead back when it stands first */
        esc_mutex_unlock(&journal->mutex);
    }
    journal->first = turn.next;
    if (journal->first == NULL) {
        journal->last = NULL;
    }
    esc_mutex_unlock(&journal->mutex);
    /* Before the work, which asks whether others wait for it. */
    atomic_fetch_sub_explicit(&journal->backlog, 1, memory_order_relaxed);
    escqrs_status status = execute(journal, kind, work, context, error);
    esc_mutex_lock(&journal->mutex);
    hand_over(journal);
    esc_mutex_unlock(&journal->mutex);
    return status;
}

/* ---- waiting for the head --------------------------------------------------------------------- */

void esc_journal_wake(esc_journal *journal)
{
    /* seq_cst: pairs with the increment in wait. Either the waiter's look comes after the head
     * moved, or this load sees the waiter. */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&journal->waiter_count, memory_order_seq_cst) > 0) {
        atomic_fetch_add_explicit(&journal->wake_count, 1, memory_order_seq_cst);
        esc_futex_wake(&journal->wake_count, INT_MAX);
    }
}

escqrs_status esc_journal_wait(esc_journal *journal, int64_t position, const _Atomic(int) *cancel,
                               bool (*closed)(void *context), void *context, int64_t deadline_ns)
{
    escqrs_status status = ESCQRS_OK;
    /* seq_cst: see wake */
    atomic_fetch_add_explicit(&journal->waiter_count, 1, memory_order_seq_cst);
    for (;;) {
        uint32_t seen = atomic_load_explicit(&journal->wake_count, memory_order_seq_cst);
        atomic_thread_fence(memory_order_seq_cst);
        if (closed(context)) {
            status = ESCQRS_CLOSED;
            break;
        }
        if (esc_provider_head(journal->provider) > position) {
            break;
        }
        /* acquire: pairs with the caller's store before escqrs_store_wake */
        if (cancel != NULL && atomic_load_explicit(cancel, memory_order_acquire) != 0) {
            status = ESCQRS_DONE;
            break;
        }
        if (escqrs_clock_monotonic_ns(NULL) >= deadline_ns) {
            status = ESCQRS_TIMEOUT;
            break;
        }
        (void)esc_futex_wait(&journal->wake_count, seen, deadline_ns);
    }
    atomic_fetch_sub_explicit(&journal->waiter_count, 1, memory_order_seq_cst);
    return status;
}
