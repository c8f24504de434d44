/* Sending: to an actor's mailbox or box, to a future, to a sink; and what nobody takes.
 *
 * The fast path is an actor without a box: one compare-and-swap, which also says whether the
 * mailbox is closed. */
#include <stdio.h>

#include "runtime/cell.h"
#include "runtime/mailbox.h"
#include "runtime/runtime.h"

/* ---- types ------------------------------------------------------------------------------------ */

const escqrs_message_type esc_internal_types[ESC_INTERNAL_COUNT] = {
    [ESC_INTERNAL_POISON] = {.name = "Poison", .quiet = true},
    [ESC_INTERNAL_TICK] = {.name = "Tick", .destroy = esc_tick_destroy, .quiet = true},
    [ESC_INTERNAL_ROUTER] = {.name = "RouterOrder",
                             .destroy = esc_router_order_destroy,
                             .quiet = true},
};

void escqrs_envelope_describe(const escqrs_envelope *envelope, char *text, size_t size)
{
    if (envelope->type->describe != NULL) {
        envelope->type->describe(envelope, text, size);
    } else {
        snprintf(text, size, "%s", envelope->type->name);
    }
}

/* ---- mailboxes ------------------------------------------------------------------------------- */

/* False: the mailbox is closed, and the message still the caller's. */
static inline bool push(esc_cell *cell, escqrs_envelope *envelope)
{
    esc_pushed pushed = esc_mailbox_push(&cell->actor, &envelope->message, false);
    if (pushed == ESC_PUSHED_STARTS) {
        esc_actor_schedule(&cell->actor);
    }
    return pushed != ESC_PUSHED_CLOSED;
}

/* ---- boxes ------------------------------------------------------------------------------------ */

/* A dead letter, since there is no room for it. */
static void full_letter_send(esc_cell *cell, escqrs_envelope *envelope)
{
    esc_question_refuse(envelope, ESCQRS_MAILBOX_FULL, esc_cell_ref(cell), "has a full mailbox");
    esc_dead_letter_send(cell->system, esc_cell_ref(cell), envelope);
}

static escqrs_status put_into_box(esc_cell *cell, escqrs_envelope *envelope, bool forced)
{
    esc_box *box = esc_cell_has(cell)->box;
    int64_t now_ns = esc_box_wants_time(box) ? esc_timers_now(&cell->system->timers) : 0;
    escqrs_envelope *dropped = NULL;
    switch (esc_box_put(box, envelope, forced, now_ns, &dropped)) {
    case ESC_PUT_WAKE:
        esc_cell_request(cell, ESC_REQUEST_BOX);
        break;
    case ESC_PUT_OK:
        break;
    case ESC_PUT_DROPPED:
        full_letter_send(cell, envelope);
        return ESCQRS_OK;
    case ESC_PUT_FULL:
        return ESCQRS_MAILBOX_FULL;
    case ESC_PUT_NO_MEMORY:
        return ESCQRS_NO_MEMORY;
    case ESC_PUT_CLOSED:
        return ESCQRS_CLOSED;
    }
    if (dropped != NULL) {
        full_letter_send(cell, dropped);
    }
    return ESCQRS_OK;
}

escqrs_status esc_send_forced(esc_cell *cell, escqrs_envelope *envelope)
{
    if (cell->actor.ops == &esc_boxed_cell_ops) {
        return put_into_box(cell, envelope, true);
    }
    return push(cell, envelope) ? ESCQRS_OK : ESCQRS_CLOSED;
}

/* ---- tell ------------------------------------------------------------------------------------- */

/* A future or a sink. */
static escqrs_status tell_other(escqrs_ref *to, escqrs_envelope *envelope)
{
    if (esc_ref_is_future(to)) {
        if (!esc_future_answer((escqrs_future *)to, envelope)) {
            escqrs_envelope_destroy(envelope);
        }
        return ESCQRS_OK;
    }
    escqrs_sink *sink = (escqrs_sink *)to;
    if (sink->sink_ops->deliver(sink, envelope)) {
        return ESCQRS_OK;
    }
    esc_dead_letter_send(sink->system, to, envelope);
    return ESCQRS_CLOSED;
}

/* MAILBOX_FULL and NO_MEMORY: not taken. */
static escqrs_status put(escqrs_ref *to, escqrs_envelope *envelope)
{
    if (__builtin_expect(to->ops == &esc_cell_ops, 1)) {
        if (__builtin_expect(push((esc_cell *)to, envelope), 1)) {
            return ESCQRS_OK;
        }
    } else if (to->ops == &esc_boxed_cell_ops) {
        escqrs_status status = put_into_box((esc_cell *)to, envelope, false);
        if (status != ESCQRS_CLOSED) {
            return status;
        }
    } else {
        return tell_other(to, envelope);
    }
    esc_dead_letter_send(((esc_cell *)to)->system, to, envelope);
    return ESCQRS_CLOSED;
}

static inline void set_sender(escqrs_envelope *envelope, escqrs_ref *sender)
{
    if (sender != NULL) {
        escqrs_ref_hold(sender);
    }
    escqrs_ref *before = envelope->sender;
    envelope->sender = sender;
    if (__builtin_expect(before != NULL, 0)) {
        escqrs_ref_release(before); /* of a message that is sent on */
    }
}

static escqrs_status refuse(escqrs_ref *to, escqrs_envelope *envelope, escqrs_status status)
{
    esc_question_refuse(envelope, status, to,
                        status == ESCQRS_MAILBOX_FULL ? "has a full mailbox" : "has no memory");
    escqrs_envelope_destroy(envelope);
    return status;
}

escqrs_status esc_tell_set(escqrs_ref *to, escqrs_envelope *envelope)
{
    for (;;) {
        escqrs_status status = put(to, envelope);
        if (__builtin_expect(status != ESCQRS_MAILBOX_FULL && status != ESCQRS_NO_MEMORY, 1)) {
            return status;
        }
        if (status == ESCQRS_NO_MEMORY || !escqrs_ref_may_block(to) ||
            escqrs_ref_wait_room(to, ESC_DEADLINE_NEVER, NULL) != ESCQRS_OK) {
            return refuse(to, envelope, status);
        }
    }
}

/* Apart, as the next one, so that a send to an actor that is busy needs no frame. */
static __attribute__((noinline)) escqrs_status schedule(escqrs_actor *actor)
{
    esc_actor_schedule(actor);
    return ESCQRS_OK;
}

/* What most sends are: to an actor without a box that has not stopped. */
static inline escqrs_status tell(escqrs_ref *to, escqrs_envelope *envelope)
{
    if (__builtin_expect(to->ops == &esc_cell_ops, 1)) {
        escqrs_actor *actor = (escqrs_actor *)to;
        switch (esc_mailbox_push(actor, &envelope->message, false)) {
        case ESC_PUSHED:
            return ESCQRS_OK;
        case ESC_PUSHED_STARTS:
            return schedule(actor);
        case ESC_PUSHED_CLOSED:
            break;
        }
    }
    return esc_tell_set(to, envelope);
}

static __attribute__((noinline)) escqrs_status tell_from(escqrs_ref *to, escqrs_envelope *envelope,
                                                         escqrs_ref *sender)
{
    set_sender(envelope, sender);
    return tell(to, envelope);
}

escqrs_status escqrs_tell(escqrs_ref *to, escqrs_envelope *envelope, escqrs_ref *sender)
{
    if (__builtin_expect(sender != NULL || envelope->sender != NULL, 0)) {
        return tell_from(to, envelope, sender);
    }
    return tell(to, envelope);
}

escqrs_status escqrs_tell_now(escqrs_ref *to, escqrs_envelope *envelope, escqrs_ref *sender)
{
    set_sender(envelope, sender);
    escqrs_status status = put(to, envelope);
    return status == ESCQRS_NO_MEMORY ? refuse(to, envelope, status) : status;
}

void escqrs_untold_destroy(escqrs_ref *to, escqrs_envelope *envelope)
{
    (void)refuse(to, envelope, ESCQRS_MAILBOX_FULL);
}

void escqrs_untold_publish(escqrs_ref *to, escqrs_envelope *envelope)
{
    full_letter_send((esc_cell *)to, envelope);
}

escqrs_status escqrs_ref_wait_room(escqrs_ref *ref, int64_t deadline_ns, escqrs_error *error)
{
    if (escqrs_actor_current() != NULL) {
        return escqrs_error_set(error, ESCQRS_DEADLOCK, "an actor cannot wait for a mailbox");
    }
    if (ref->ops != &esc_boxed_cell_ops) {
        return ESCQRS_OK;
    }
    escqrs_status status = esc_box_wait_room(esc_cell_has((esc_cell *)ref)->box, deadline_ns);
    return status == ESCQRS_OK
               ? status
               : escqrs_error_set(error, status, "the mailbox stayed full for too long");
}

bool escqrs_ref_run(escqrs_ref *to, escqrs_envelope *envelope, escqrs_ref *sender)
{
    if (to->ops != &esc_cell_ops) {
        return false;
    }
    if (!escqrs_actor_is_idle((escqrs_actor *)to)) {
        return false;
    }
    set_sender(envelope, sender);
    if (escqrs_actor_run((escqrs_actor *)to, &envelope->message)) {
        return true;
    }
    set_sender(envelope, NULL);
    return false;
}

/* ---- ends ------------------------------------------------------------------------------------- */

void escqrs_stop(escqrs_ref *ref)
{
    if (!esc_ref_is_cell(ref)) {
        return;
    }
    esc_cell *cell = (esc_cell *)ref;
    if (escqrs_actor_current() == &cell->actor) { /* its own thread: no signal is needed */
        cell->wanted |= ESC_REQUEST_STOP;
        cell->actor.nudge_again = true;
        return;
    }
    esc_cell_request(cell, ESC_REQUEST_STOP);
}

escqrs_status escqrs_poison(escqrs_ref *ref)
{
    if (!esc_ref_is_cell(ref)) {
        return ESCQRS_OK;
    }
    escqrs_envelope *poison = escqrs_alloc_zero(sizeof *poison);
    if (poison == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    poison->type = &esc_internal_types[ESC_INTERNAL_POISON];
    escqrs_status status = esc_send_forced((esc_cell *)ref, poison);
    if (status != ESCQRS_OK) {
        escqrs_envelope_destroy(poison);
    }
    return status;
}
