/* References: what is the same for actors, futures and sinks. An actor's reference is its cell. */
#include <stdio.h>
#include <string.h>

#include "runtime/cell.h"

escqrs_ref_kind escqrs_ref_kind_of(const escqrs_ref *ref)
{
    if (esc_ref_is_cell(ref)) {
        return ESCQRS_REF_ACTOR;
    }
    return esc_ref_is_future(ref) ? ESCQRS_REF_FUTURE : ESCQRS_REF_SINK;
}

void escqrs_ref_hold(escqrs_ref *ref)
{
    /* relaxed: whoever holds has been given it in an ordered way */
    if (esc_ref_is_cell(ref)) {
        escqrs_actor_hold((escqrs_actor *)ref);
    } else if (esc_ref_is_future(ref)) {
        atomic_fetch_add_explicit(&((escqrs_future *)ref)->references, 1, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&((escqrs_sink *)ref)->references, 1, memory_order_relaxed);
    }
}

static void sink_release(escqrs_sink *sink)
{
    /* acq_rel: the last one sees what all others did */
    if (atomic_fetch_sub_explicit(&sink->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    escqrs_actor_system *system = sink->system;
    sink->sink_ops->released(sink);
    if (system != NULL) {
        escqrs_actor_release(&system->root.actor);
    }
}

void escqrs_ref_release(escqrs_ref *ref)
{
    if (ref == NULL) {
        return;
    }
    if (esc_ref_is_cell(ref)) {
        escqrs_actor_release((escqrs_actor *)ref);
    } else if (esc_ref_is_future(ref)) {
        esc_future_let_go((escqrs_future *)ref);
    } else {
        sink_release((escqrs_sink *)ref);
    }
}

/* ---- sinks ------------------------------------------------------------------------------------ */

/* Never called; its address is the kind. */
static escqrs_turn_end sink_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)actor;
    (void)message;
    return ESCQRS_TURN_NEXT;
}

static void sink_destroy(escqrs_actor *actor)
{
    (void)actor;
}

static void sink_describe(const escqrs_actor *actor, char *text, size_t size)
{
    (void)actor;
    snprintf(text, size, "sink");
}

const escqrs_actor_ops esc_sink_ops = {sink_receive, sink_destroy, sink_describe};

void escqrs_sink_init(escqrs_sink *sink, const escqrs_sink_ops *ops, escqrs_actor_system *system)
{
    sink->ref.ops = &esc_sink_ops;
    atomic_init(&sink->references, 1);
    sink->sink_ops = ops;
    sink->system = system;
    if (system != NULL) { /* its memory, for the dead letters */
        escqrs_actor_hold(&system->root.actor);
    }
}

/* ---- what one can know of it ------------------------------------------------------------------ */

escqrs_ref_state escqrs_ref_state_of(const escqrs_ref *ref)
{
    if (esc_ref_is_cell(ref)) {
        return esc_cell_state((const esc_cell *)ref);
    }
    bool closed = esc_ref_is_stream(ref) && esc_stream_is_closed(ref);
    return closed ? ESCQRS_REF_STOPPED : ESCQRS_REF_RUNNING;
}

const char *escqrs_ref_state_name(escqrs_ref_state state)
{
    static const char *const names[] = {"starting",   "running",  "failed",
                                        "restarting", "stopping", "stopped"};
    return (size_t)state < sizeof names / sizeof names[0] ? names[state] : "?";
}

uint64_t escqrs_ref_id(const escqrs_ref *ref)
{
    return esc_ref_is_cell(ref) ? ((const esc_cell *)ref)->id : 0;
}

static const char *kind_name(const escqrs_ref *ref)
{
    if (esc_ref_is_future(ref)) {
        return "future";
    }
    return esc_ref_is_stream(ref) ? "stream" : "sink";
}

size_t escqrs_ref_name(const escqrs_ref *ref, char *text, size_t size)
{
    if (!esc_ref_is_cell(ref)) {
        return (size_t)snprintf(text, size, "%s", kind_name(ref));
    }
    const esc_cell *cell = (const esc_cell *)ref;
    if (cell->name != NULL) {
        return (size_t)snprintf(text, size, "%s", cell->name);
    }
    return (size_t)snprintf(text, size, "$%llx", (unsigned long long)cell->id);
}

size_t escqrs_ref_path(const escqrs_ref *ref, char *text, size_t size)
{
    const esc_cell *cell = (const esc_cell *)ref;
    if (!esc_ref_is_cell(ref) || cell->parent == NULL || cell->parent->parent == NULL) {
        return escqrs_ref_name(ref, text, size);
    }
    /* the whole length first, then the names from the end to the front */
    size_t length = 0;
    for (const esc_cell *at = cell; at->parent != NULL; at = at->parent) {
        length += escqrs_ref_name((const escqrs_ref *)at, NULL, 0) + 1;
    }
    length--;
    size_t end = length;
    for (const esc_cell *at = cell; at->parent != NULL; at = at->parent) {
        char name[ESC_NAME_MAX + 1];
        size_t name_size = escqrs_ref_name((const escqrs_ref *)at, name, sizeof name);
        end -= name_size;
        for (size_t i = 0; i < name_size && end + i + 1 < size; i++) {
            text[end + i] = name[i];
        }
        if (end > 0) {
            end--;
            if (end + 1 < size) {
                text[end] = '/';
            }
        }
    }
    if (size > 0) {
        text[length < size ? length : size - 1] = '\0';
    }
    return length;
}

escqrs_ref *escqrs_ref_parent(const escqrs_ref *ref)
{
    if (!esc_ref_is_cell(ref)) {
        return NULL;
    }
    esc_cell *parent = ((const esc_cell *)ref)->parent;
    return parent == NULL || parent->parent == NULL ? NULL : esc_cell_ref(parent);
}

void *escqrs_ref_user_data(const escqrs_ref *ref)
{
    return esc_ref_is_cell(ref) ? ((const esc_cell *)ref)->props->user_data : NULL;
}

const escqrs_actor_class *escqrs_ref_class(const escqrs_ref *ref)
{
    return esc_ref_is_cell(ref) ? ((const esc_cell *)ref)->props->actor_class : NULL;
}

escqrs_actor_system *escqrs_ref_system(const escqrs_ref *ref)
{
    return esc_ref_is_cell(ref) ? ((const esc_cell *)ref)->system : NULL;
}

bool escqrs_ref_may_block(const escqrs_ref *ref)
{
    return ref->ops == &esc_boxed_cell_ops &&
           esc_box_blocks(esc_cell_has((const esc_cell *)ref)->box);
}

bool escqrs_ref_mailbox_stats(const escqrs_ref *ref, escqrs_mailbox_stats *stats)
{
    return ref->ops == &esc_boxed_cell_ops &&
           esc_box_stats(esc_cell_has((const esc_cell *)ref)->box, stats);
}

void escqrs_ref_resume(escqrs_ref *ref)
{
    if (esc_ref_is_cell(ref)) {
        escqrs_actor_resume((escqrs_actor *)ref);
    }
}
