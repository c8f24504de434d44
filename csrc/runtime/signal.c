/* Signals: what the system says to an actor, beside the messages of others. They are pushed to the
 * cell's own queue, then the actor is nudged. One whose mailbox is closed has nobody to look at its
 * queue, so whoever finds that out answers what is in it: esc_signals_answer, which several threads
 * may do at once, for each takes what it handles out of the queue. */
#include "runtime/cell.h"
#include "runtime/runtime.h"

static esc_signal *take_all(esc_cell *cell)
{
    /* relaxed: a look */
    if (atomic_load_explicit(&cell->signals, memory_order_relaxed) == NULL) {
        return NULL;
    }
    /* acquire: pairs with the release of every push */
    esc_signal *signal = atomic_exchange_explicit(&cell->signals, NULL, memory_order_acquire);
    esc_signal *oldest = NULL;
    while (signal != NULL) {
        esc_signal *next = signal->next;
        signal->next = oldest;
        oldest = signal;
        signal = next;
    }
    return oldest;
}

void esc_signal_send(esc_cell *cell, esc_signal *signal)
{
    escqrs_actor_hold(&cell->actor); /* the signal may be the sender's last tie to it */
    esc_signal *newest = atomic_load_explicit(&cell->signals, memory_order_relaxed);
    do {
        signal->next = newest;
        /* release: pairs with take_all */
    } while (!atomic_compare_exchange_weak_explicit(&cell->signals, &newest, signal,
                                                    memory_order_release, memory_order_relaxed));
    if (!esc_actor_nudge(&cell->actor)) {
        esc_signals_answer(cell);
    }
    escqrs_actor_release(&cell->actor);
}

static void answer(esc_signal *signal)
{
    switch ((esc_signal_kind)signal->kind) {
    case ESC_SIGNAL_WATCH:
        esc_watch_terminate(ESC_CONTAINER_OF(signal, esc_watch, signal));
        break;
    case ESC_SIGNAL_UNWATCH:
        esc_watch_drop(ESC_CONTAINER_OF(signal, esc_watch, unwatch));
        break;
    case ESC_SIGNAL_TERMINATED:
        esc_watch_drop(ESC_CONTAINER_OF(signal, esc_watch, signal));
        break;
    case ESC_SIGNAL_FAILURE:
        esc_failure_drop(ESC_CONTAINER_OF(signal, esc_failure_record, signal));
        break;
    case ESC_SIGNAL_CONTINUATION:
        esc_continuation_drop((escqrs_continuation *)signal);
        break;
    }
}

void esc_signals_answer(esc_cell *cell)
{
    for (esc_signal *signal = take_all(cell); signal != NULL;) {
        esc_signal *next = signal->next;
        answer(signal);
        signal = next;
    }
}

/* Its time comes when the actor runs. */
static void defer(esc_cell *cell, esc_signal *signal)
{
    esc_extra *extra = esc_cell_extra(cell);
    if (extra == NULL) { /* out of memory: only continuations can come here without an extra */
        answer(signal);
        return;
    }
    signal->next = NULL;
    if (extra->deferred == NULL) {
        extra->deferred = signal;
    } else {
        extra->deferred_last->next = signal;
    }
    extra->deferred_last = signal;
}

static void collect(esc_cell *cell, esc_signal *signal)
{
    switch ((esc_signal_kind)signal->kind) {
    case ESC_SIGNAL_WATCH:
        esc_watch_begin(cell, ESC_CONTAINER_OF(signal, esc_watch, signal));
        break;
    case ESC_SIGNAL_UNWATCH:
        esc_watch_end(ESC_CONTAINER_OF(signal, esc_watch, unwatch));
        break;
    case ESC_SIGNAL_FAILURE:
        esc_failure_decide(cell, ESC_CONTAINER_OF(signal, esc_failure_record, signal));
        break;
    case ESC_SIGNAL_TERMINATED:
    case ESC_SIGNAL_CONTINUATION:
        defer(cell, signal);
        break;
    }
}

void esc_signals_collect(esc_cell *cell)
{
    bool stopped = esc_cell_state(cell) == ESCQRS_REF_STOPPED;
    for (esc_signal *signal = take_all(cell); signal != NULL;) {
        esc_signal *next = signal->next;
        if (stopped) {
            answer(signal);
        } else {
            collect(cell, signal);
        }
        signal = next;
    }
}

void esc_deferred_answer(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    while (extra->deferred != NULL) {
        esc_signal *signal = extra->deferred;
        extra->deferred = signal->next;
        answer(signal);
    }
}
