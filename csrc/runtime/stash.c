/* Behaviours and the stash. Both belong to the actor's thread. */
#include "base/error.h"
#include "runtime/cell.h"

/* ---- behaviours ------------------------------------------------------------------------------- */

escqrs_status escqrs_context_become(escqrs_context *context, escqrs_receive receive,
                                    escqrs_error *error)
{
    esc_cell *cell = esc_context_cell(context);
    if (receive == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a behaviour needs a function");
    }
    esc_extra *extra = esc_cell_extra(cell);
    if (extra == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory changing behaviour");
    }
    if (extra->behaviours.count >= ESC_BEHAVIOUR_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "more than %d behaviours on each other",
                                ESC_BEHAVIOUR_MAX);
    }
    if (esc_vector_push(&extra->behaviours, &receive) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory changing behaviour");
    }
    esc_cell_set_receive(cell);
    return ESCQRS_OK;
}

void escqrs_context_unbecome(escqrs_context *context)
{
    esc_cell *cell = esc_context_cell(context);
    esc_extra *extra = esc_cell_has(cell);
    if (extra != NULL && extra->behaviours.count > 0) {
        esc_vector_pop(&extra->behaviours);
        esc_cell_set_receive(cell);
    }
}

void esc_behaviours_clear(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra != NULL) {
        esc_vector_clear(&extra->behaviours);
    }
}

/* ---- stash ------------------------------------------------------------------------------------ */

static void put_aside(esc_extra *extra, escqrs_envelope *envelope)
{
    envelope->message.next = NULL;
    if (extra->stash == NULL) {
        extra->stash = &envelope->message;
    } else {
        extra->stash_last->next = &envelope->message;
    }
    extra->stash_last = &envelope->message;
    extra->stash_count++;
}

escqrs_status escqrs_context_stash(escqrs_context *context, escqrs_error *error)
{
    esc_cell *cell = esc_context_cell(context);
    if (cell->current == NULL || esc_type_is_lifecycle(cell->current->type)) {
        return escqrs_error_set(error, ESCQRS_INVALID, "there is no message that can be stashed");
    }
    esc_extra *extra = esc_cell_extra(cell);
    if (extra == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory stashing");
    }
    if (extra->stash_count >= cell->props->stash_max) {
        return escqrs_error_set(error, ESCQRS_MAILBOX_FULL, "the stash has %zu messages already",
                                extra->stash_count);
    }
    escqrs_envelope *envelope = escqrs_context_take(context);
    if (envelope == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "the message is shared with a continuation and has no copy");
    }
    put_aside(extra, envelope);
    return ESCQRS_OK;
}

/* The current message is to come again, after the restart. False: out of memory. */
static bool put_back(esc_cell *cell, escqrs_context *context)
{
    if (cell->current->type == &escqrs_terminated) {
        esc_watch *watch = ESC_CONTAINER_OF(cell->current, esc_watch, terminated.envelope);
        if (!esc_watch_again(cell, watch)) {
            return false;
        }
        cell->current = NULL;
        return true;
    }
    if (esc_type_is_lifecycle(cell->current->type)) {
        return true;
    }
    esc_extra *extra = esc_cell_extra(cell);
    escqrs_envelope *envelope = extra == NULL ? NULL : escqrs_context_take(context);
    if (envelope == NULL) {
        return false;
    }
    put_aside(extra, envelope); /* from where a restart puts it back, behind what is there */
    return true;
}

escqrs_status escqrs_context_restart(escqrs_context *context, bool again, escqrs_error *error)
{
    esc_cell *cell = esc_context_cell(context);
    if (again && cell->current != NULL && !put_back(cell, context)) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory restarting");
    }
    cell->wanted |= ESC_REQUEST_RESTART;
    cell->actor.nudge_again = true;
    return ESCQRS_OK;
}

/* Before what has arrived: of a mailbox, what was taken from it; of a box, a list beside it. */
void esc_stash_return(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra == NULL || extra->stash == NULL) {
        return;
    }
    escqrs_message **first = &cell->actor.pending;
    escqrs_message **last = &cell->actor.pending_last;
    if (extra->box != NULL) {
        first = &extra->front;
        last = &extra->front_last;
        cell->wanted |= ESC_REQUEST_BOX;
        cell->actor.nudge_again = true;
    }
    extra->stash_last->next = *first;
    if (*first == NULL) {
        *last = extra->stash_last;
    }
    *first = extra->stash;
    extra->stash = NULL;
    extra->stash_count = 0;
}

void escqrs_context_unstash_all(escqrs_context *context)
{
    esc_stash_return(esc_context_cell(context));
}

size_t escqrs_context_stash_count(const escqrs_context *context)
{
    const esc_extra *extra = esc_cell_has(esc_context_cell(context));
    return extra == NULL ? 0 : extra->stash_count;
}
