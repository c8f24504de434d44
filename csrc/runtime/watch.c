/* Watching: who wants to hear of another's end.
 *
 * One esc_watch for each pair, made by the watcher, with the memory for all it may have to say. It
 * goes to the target as WATCH, lies in its list, and comes back as TERMINATED. The watcher finds it
 * by its target in `watching`. Unwatch marks it, so that a TERMINATED that is under way is not
 * handled, and sends UNWATCH, which takes it out of the target's list.
 */
#include "base/error.h"
#include "runtime/cell.h"

const escqrs_message_type escqrs_terminated = {.name = "Terminated"};

static escqrs_slice target_of(const void *value)
{
    const esc_watch *watch = value;
    return (escqrs_slice){&watch->target, sizeof watch->target};
}

void esc_watch_drop(esc_watch *watch)
{
    /* acq_rel: the last one sees what all others did */
    if (atomic_fetch_sub_explicit(&watch->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    escqrs_actor_release(&watch->watcher->actor);
    escqrs_actor_release(&watch->target->actor);
    escqrs_free(watch);
}

static void hold(esc_watch *watch)
{
    /* relaxed: the caller has one */
    atomic_fetch_add_explicit(&watch->references, 1, memory_order_relaxed);
}

/* ---- the watcher ------------------------------------------------------------------------------ */

static escqrs_status no_memory(escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory watching an actor");
}

escqrs_status escqrs_context_watch(escqrs_context *context, escqrs_ref *other, escqrs_error *error)
{
    esc_cell *watcher = esc_context_cell(context);
    if (!esc_ref_is_cell(other) || other == esc_cell_ref(watcher)) {
        return escqrs_error_set(error, ESCQRS_INVALID, "only another actor can be watched");
    }
    esc_extra *extra = esc_cell_extra(watcher);
    if (extra == NULL) {
        return no_memory(error);
    }
    if (extra->watching.key == NULL) {
        esc_map_init(&extra->watching, target_of, NULL);
    }
    if (esc_map_get(&extra->watching, (escqrs_slice){&other, sizeof other}) != NULL) {
        return ESCQRS_OK;
    }
    esc_watch *watch = escqrs_alloc_zero(sizeof *watch);
    if (watch == NULL) {
        return no_memory(error);
    }
    watch->watcher = watcher;
    watch->target = (esc_cell *)other;
    watch->signal.kind = ESC_SIGNAL_WATCH;
    watch->unwatch.kind = ESC_SIGNAL_UNWATCH;
    watch->terminated =
        (escqrs_terminated_message){.envelope = {.type = &escqrs_terminated}, .who = other};
    atomic_init(&watch->references, 2);
    if (esc_map_insert(&extra->watching, watch) != ESCQRS_OK) {
        escqrs_free(watch);
        return no_memory(error);
    }
    escqrs_actor_hold(&watcher->actor);
    escqrs_ref_hold(other);
    esc_signal_send(watch->target, &watch->signal);
    return ESCQRS_OK;
}

/* It is out of `watching`. */
static void cancel(esc_watch *watch)
{
    watch->cancelled = true;
    hold(watch); /* the signal's */
    esc_signal_send(watch->target, &watch->unwatch);
    esc_watch_drop(watch);
}

void escqrs_context_unwatch(escqrs_context *context, escqrs_ref *other)
{
    esc_extra *extra = esc_cell_has(esc_context_cell(context));
    if (extra == NULL || extra->watching.key == NULL) {
        return;
    }
    esc_watch *watch = esc_map_remove(&extra->watching, (escqrs_slice){&other, sizeof other});
    if (watch != NULL) {
        cancel(watch);
    }
}

void esc_watching_end(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra->watching.key == NULL) {
        return;
    }
    size_t cursor = 0;
    for (esc_watch *watch = esc_map_next(&extra->watching, &cursor); watch != NULL;
         watch = esc_map_next(&extra->watching, &cursor)) {
        cancel(watch);
    }
    esc_map_clear(&extra->watching);
}

escqrs_turn_end esc_watch_deliver(esc_cell *cell, esc_watch *watch)
{
    if (watch->cancelled) {
        esc_watch_drop(watch);
        return ESCQRS_TURN_NEXT;
    }
    esc_extra *extra = esc_cell_has(cell);
    esc_map_remove(&extra->watching, target_of(watch));
    esc_watch_drop(watch); /* of `watching`; the signal's is dropped after the message */
    return esc_cell_deliver(cell, &watch->terminated.envelope);
}

/* As before esc_watch_deliver. False: out of memory. */
bool esc_watch_again(esc_cell *cell, esc_watch *watch)
{
    esc_extra *extra = esc_cell_has(cell);
    if (esc_map_insert(&extra->watching, watch) != ESCQRS_OK) {
        return false;
    }
    hold(watch); /* of `watching`; the signal has its own still */
    watch->signal.next = extra->deferred;
    if (extra->deferred == NULL) {
        extra->deferred_last = &watch->signal;
    }
    extra->deferred = &watch->signal;
    return true;
}

/* ---- the target ------------------------------------------------------------------------------- */

void esc_watch_begin(esc_cell *cell, esc_watch *watch)
{
    esc_extra *extra = esc_cell_extra(cell);
    if (extra == NULL) { /* out of memory: better told too early than never */
        esc_watch_terminate(watch);
        return;
    }
    esc_list_push_back(&extra->watchers, &watch->in_target);
}

void esc_watch_end(esc_watch *watch)
{
    if (esc_list_contains_node(&watch->in_target)) {
        esc_list_remove(&watch->in_target);
        esc_watch_drop(watch);
    }
    esc_watch_drop(watch);
}

void esc_watch_terminate(esc_watch *watch)
{
    watch->signal.kind = ESC_SIGNAL_TERMINATED;
    esc_signal_send(watch->watcher, &watch->signal);
}

void esc_watchers_tell(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    for (esc_list_node *node = esc_list_pop_front(&extra->watchers); node != NULL;
         node = esc_list_pop_front(&extra->watchers)) {
        esc_watch_terminate(ESC_CONTAINER_OF(node, esc_watch, in_target));
    }
}
