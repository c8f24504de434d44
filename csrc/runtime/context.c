/* An actor seen from inside: its context is its cell. */
#include "runtime/cell.h"
#include "runtime/runtime.h"

escqrs_ref *escqrs_context_self(escqrs_context *context)
{
    return esc_cell_ref(esc_context_cell(context));
}

escqrs_ref *escqrs_context_parent(escqrs_context *context)
{
    return escqrs_ref_parent((escqrs_ref *)context);
}

escqrs_actor_system *escqrs_context_system(escqrs_context *context)
{
    return esc_context_cell(context)->system;
}

void *escqrs_context_user_data(escqrs_context *context)
{
    return esc_context_cell(context)->props->user_data;
}

void *escqrs_context_state(escqrs_context *context)
{
    return esc_context_cell(context)->instance;
}

escqrs_context *escqrs_context_current(void)
{
    escqrs_ref *current = (escqrs_ref *)escqrs_actor_current();
    return current != NULL && esc_ref_is_cell(current) ? (escqrs_context *)current : NULL;
}

escqrs_envelope *escqrs_context_message(escqrs_context *context)
{
    return esc_context_cell(context)->current;
}

escqrs_ref *escqrs_context_sender(escqrs_context *context)
{
    const escqrs_envelope *current = esc_context_cell(context)->current;
    return current == NULL ? NULL : current->sender;
}

/* It is not the callback's: continuations share it, or it is of the lifecycle. */
static escqrs_envelope *take_copy(const escqrs_envelope *envelope)
{
    if (envelope == NULL || esc_type_is_lifecycle(envelope->type)) {
        return NULL;
    }
    escqrs_envelope *copy = envelope->type->copy == NULL ? NULL : envelope->type->copy(envelope);
    if (copy != NULL && envelope->sender != NULL) {
        escqrs_ref_hold(envelope->sender);
        copy->sender = envelope->sender;
    }
    return copy;
}

escqrs_envelope *escqrs_context_take(escqrs_context *context)
{
    esc_cell *cell = esc_context_cell(context);
    escqrs_envelope *envelope = cell->current;
    if (__builtin_expect(cell->actor.kept, 0)) {
        return take_copy(envelope);
    }
    cell->current = NULL;
    return envelope;
}

/* ---- sending ---------------------------------------------------------------------------------- */

static inline escqrs_status send(esc_cell *cell, escqrs_ref *to, escqrs_envelope *envelope,
                                 escqrs_ref *sender)
{
    if (__builtin_expect(cell->props->wraps_sends, 0)) {
        return esc_middleware_send(cell, to, envelope, sender);
    }
    return escqrs_tell(to, envelope, sender);
}

escqrs_status escqrs_context_tell(escqrs_context *context, escqrs_ref *to,
                                  escqrs_envelope *envelope)
{
    return send(esc_context_cell(context), to, envelope, NULL);
}

escqrs_status escqrs_context_request(escqrs_context *context, escqrs_ref *to,
                                     escqrs_envelope *envelope, escqrs_ref *sender)
{
    esc_cell *cell = esc_context_cell(context);
    return send(cell, to, envelope, sender == NULL ? esc_cell_ref(cell) : sender);
}

escqrs_status escqrs_context_respond(escqrs_context *context, escqrs_envelope *envelope)
{
    esc_cell *cell = esc_context_cell(context);
    escqrs_ref *sender = escqrs_context_sender(context);
    if (sender == NULL) {
        esc_dead_letter_send(cell->system, NULL, envelope);
        return ESCQRS_CLOSED;
    }
    return send(cell, sender, envelope, NULL);
}

escqrs_status escqrs_context_forward(escqrs_context *context, escqrs_ref *to)
{
    escqrs_envelope *envelope = escqrs_context_take(context);
    if (envelope == NULL) {
        return ESCQRS_INVALID;
    }
    return send(esc_context_cell(context), to, envelope, envelope->sender);
}
