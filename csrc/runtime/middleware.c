/* Middleware: chains of functions around receive, send and spawn. An escqrs_next says where in its
 * chain the next call goes; the last one is the thing itself. */
#include <stdio.h>
#include <string.h>

#include "runtime/cell.h"
#include "runtime/runtime.h"

struct escqrs_next {
    size_t index; /* of the next one */
    /* spawn */
    escqrs_actor_system *system;
    esc_cell *parent;
    const escqrs_spawn_middleware *around;
    size_t count;
};

/* ---- receive ---------------------------------------------------------------------------------- */

escqrs_turn_end escqrs_next_receive(const escqrs_next *next, escqrs_context *context,
                                    escqrs_envelope *message)
{
    esc_cell *cell = esc_context_cell(context);
    const escqrs_props *props = cell->props;
    if (next->index == props->receive_middleware_count) {
        return esc_cell_behave(cell, message);
    }
    const escqrs_receive_middleware *middleware = &props->receive_middleware[next->index];
    escqrs_next after = {.index = next->index + 1};
    return middleware->receive(middleware->data, context, message, &after);
}

escqrs_turn_end esc_middleware_receive(escqrs_context *context, void *state,
                                       escqrs_envelope *message)
{
    (void)state; /* the cell's */
    escqrs_next first = {0};
    return escqrs_next_receive(&first, context, message);
}

/* ---- send ------------------------------------------------------------------------------------- */

escqrs_status escqrs_next_send(const escqrs_next *next, escqrs_context *context, escqrs_ref *to,
                               escqrs_envelope *envelope, escqrs_ref *sender)
{
    const escqrs_props *props = esc_context_cell(context)->props;
    if (next->index == props->send_middleware_count) {
        return props->guard != NULL
                   ? props->guard->send(esc_context_cell(context), to, envelope, sender)
                   : escqrs_tell(to, envelope, sender);
    }
    const escqrs_send_middleware *middleware = &props->send_middleware[next->index];
    escqrs_next after = {.index = next->index + 1};
    return middleware->send(middleware->data, context, to, envelope, sender, &after);
}

escqrs_status esc_middleware_send(esc_cell *cell, escqrs_ref *to, escqrs_envelope *envelope,
                                  escqrs_ref *sender)
{
    escqrs_next first = {0};
    return escqrs_next_send(&first, esc_cell_context(cell), to, envelope, sender);
}

/* ---- spawn ------------------------------------------------------------------------------------ */

escqrs_status escqrs_next_spawn(const escqrs_next *next, escqrs_context *context,
                                escqrs_props *props, escqrs_slice name, escqrs_ref **ref,
                                escqrs_error *error)
{
    if (next->index == next->count) {
        return esc_spawn(next->system, next->parent, props, name, ref, error);
    }
    const escqrs_spawn_middleware *middleware = &next->around[next->index];
    escqrs_next after = *next;
    after.index++;
    return middleware->spawn(middleware->data, context, props, name, ref, error, &after);
}

escqrs_status esc_middleware_spawn(escqrs_actor_system *system, esc_cell *parent,
                                   const escqrs_spawn_middleware *around, size_t count,
                                   escqrs_props *props, escqrs_slice name, escqrs_ref **ref,
                                   escqrs_error *error)
{
    escqrs_next first = {.system = system, .parent = parent, .around = around, .count = count};
    escqrs_context *context = parent == &system->root ? NULL : esc_cell_context(parent);
    return escqrs_next_spawn(&first, context, props, name, ref, error);
}

/* ---- ready-made ------------------------------------------------------------------------------- */

static const char *turn_name(escqrs_turn_end turn)
{
    static const char *const names[] = {"handled", "suspended in", "failed in"};
    return (size_t)turn < sizeof names / sizeof names[0] ? names[turn] : "?";
}

escqrs_turn_end escqrs_logging_middleware(void *data, escqrs_context *context,
                                          escqrs_envelope *message, const escqrs_next *next)
{
    const escqrs_log *log = data != NULL ? data : &esc_context_cell(context)->system->log;
    char path[ESC_PATH_SIZE];
    char type[ESC_TEXT_SIZE];
    escqrs_ref_path(escqrs_context_self(context), path, sizeof path);
    escqrs_envelope_describe(message, type, sizeof type); /* it may be gone afterwards */
    int64_t start_ns = escqrs_clock_monotonic_ns(NULL);
    escqrs_turn_end turn = escqrs_next_receive(next, context, message);
    escqrs_log_write(log, ESCQRS_LOG_INFO, "%s %s %s in %.1f us", path, turn_name(turn), type,
                     (double)(escqrs_clock_monotonic_ns(NULL) - start_ns) / 1e3);
    return turn;
}

escqrs_turn_end escqrs_timing_middleware(void *data, escqrs_context *context,
                                         escqrs_envelope *message, const escqrs_next *next)
{
    escqrs_timing *timing = data;
    int64_t start_ns = escqrs_clock_monotonic_ns(NULL);
    escqrs_turn_end turn = escqrs_next_receive(next, context, message);
    uint64_t took_ns = (uint64_t)(escqrs_clock_monotonic_ns(NULL) - start_ns);
    /* relaxed: numbers for people */
    atomic_fetch_add_explicit(&timing->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&timing->failed, turn == ESCQRS_TURN_FAILED, memory_order_relaxed);
    atomic_fetch_add_explicit(&timing->total_ns, took_ns, memory_order_relaxed);
    uint64_t max_ns = atomic_load_explicit(&timing->max_ns, memory_order_relaxed);
    while (took_ns > max_ns &&
           !atomic_compare_exchange_weak_explicit(&timing->max_ns, &max_ns, took_ns,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
    return turn;
}
