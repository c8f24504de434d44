/* Guards: who stands around all that an actor handles, messages, suspensions and continuations
 * alike, whatever behaviours and middleware it has. Persistent actors have one
 * (entity/persistent.c). Actors without a guard do not pay for it: it is in cell->receive. */
#include "runtime/cell.h"

static escqrs_turn_end call(esc_cell *cell, escqrs_envelope *message)
{
    if (cell->props->receive_middleware_count > 0) {
        return esc_middleware_receive(esc_cell_context(cell), cell->instance, message);
    }
    return esc_cell_behave(cell, message);
}

escqrs_turn_end esc_guard_receive(escqrs_context *context, void *state, escqrs_envelope *message)
{
    (void)state; /* the cell's */
    esc_cell *cell = esc_context_cell(context);
    const esc_guard *guard = cell->props->guard;
    escqrs_turn_end turn = ESCQRS_TURN_NEXT;
    return guard->before(cell, message, &turn) ? guard->after(cell, call(cell, message)) : turn;
}

escqrs_turn_end esc_guard_resume(esc_cell *cell)
{
    const esc_guard *guard = cell->props->guard;
    escqrs_turn_end turn = ESCQRS_TURN_NEXT;
    if (guard->resume(cell, &turn)) {
        return turn;
    }
    return guard->after(cell, esc_cell_call_resume(cell));
}

escqrs_turn_end esc_guard_continue(esc_cell *cell, escqrs_continuation *continuation)
{
    const esc_guard *guard = cell->props->guard;
    escqrs_turn_end turn = ESCQRS_TURN_NEXT;
    if (!guard->before(cell, NULL, &turn)) {
        return turn;
    }
    return guard->after(cell,
                        continuation->run(esc_cell_context(cell), cell->instance, continuation));
}
