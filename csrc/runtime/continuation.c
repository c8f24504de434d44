/* Going on later inside an actor: continuations, and asking without blocking, which is built on
 * them.
 *
 * A continuation shares the message that was current when it was made, by a lease: counted shares,
 * one of the turn that made the first one, one of each continuation. Whoever drops the last one
 * finishes the message. */
#include <string.h>

#include "base/error.h"
#include "runtime/cell.h"

/* ---- leases ----------------------------------------------------------------------------------- */

/* The turn's share; the last share finishes the message. */
void esc_lease_drop(esc_cell *cell, esc_lease *lease)
{
    /* acq_rel: the last one sees what all others did */
    if (lease == NULL || atomic_fetch_sub_explicit(&lease->shares, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (cell != NULL) {
        esc_cell_finish(cell, lease->envelope);
    } else {
        escqrs_envelope_destroy(lease->envelope);
    }
    escqrs_free(lease);
}

/* A share of the current message; *lease NULL: there is none to share. */
static bool lease_current(esc_cell *cell, esc_lease **lease)
{
    *lease = NULL;
    if (cell->current == NULL || esc_type_is_lifecycle(cell->current->type)) {
        return true;
    }
    esc_extra *extra = esc_cell_extra(cell);
    if (extra == NULL) {
        return false;
    }
    if (extra->lease == NULL) {
        extra->lease = escqrs_alloc(sizeof *extra->lease);
        if (extra->lease == NULL) {
            return false;
        }
        extra->lease->envelope = cell->current;
        atomic_init(&extra->lease->shares, 1);
        cell->actor.kept = true;
    }
    /* relaxed: the caller has one */
    atomic_fetch_add_explicit(&extra->lease->shares, 1, memory_order_relaxed);
    *lease = extra->lease;
    return true;
}

/* ---- continuations ---------------------------------------------------------------------------- */

escqrs_status escqrs_context_continuation_init(escqrs_context *context,
                                               escqrs_continuation *continuation,
                                               escqrs_error *error)
{
    esc_cell *cell = esc_context_cell(context);
    esc_lease *lease;
    if (!lease_current(cell, &lease)) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory going on later");
    }
    continuation->next = NULL;
    continuation->kind = ESC_SIGNAL_CONTINUATION;
    continuation->actor = esc_cell_ref(cell);
    escqrs_ref_hold(continuation->actor);
    continuation->instance = cell->instance_number;
    continuation->lease = lease;
    return ESCQRS_OK;
}

void escqrs_continuation_post(escqrs_continuation *continuation)
{
    esc_signal_send((esc_cell *)continuation->actor, (esc_signal *)continuation);
}

/* The message and the actor are let go of by whoever comes here. */
static void end(escqrs_continuation *continuation)
{
    escqrs_ref *actor = continuation->actor;
    continuation->done(continuation);
    escqrs_ref_release(actor);
}

void esc_continuation_drop(escqrs_continuation *continuation)
{
    esc_lease *lease = continuation->lease;
    continuation->lease = NULL;
    esc_lease_drop(NULL, lease);
    end(continuation);
}

escqrs_turn_end esc_continuation_run(esc_cell *cell, escqrs_continuation *continuation)
{
    if (continuation->instance != cell->instance_number) {
        esc_continuation_drop(continuation);
        return ESCQRS_TURN_NEXT;
    }
    esc_lease *lease = continuation->lease;
    continuation->lease = NULL;
    if (lease != NULL) {
        cell->current = lease->envelope;
        esc_cell_has(cell)->lease = lease;
        cell->actor.kept = true;
    }
    escqrs_turn_end turn =
        cell->props->guard != NULL
            ? esc_guard_continue(cell, continuation)
            : continuation->run(esc_cell_context(cell), cell->instance, continuation);
    end(continuation);
    return esc_cell_after_callback(cell, turn);
}

/* ---- ask --------------------------------------------------------------------------------------- */

/* Whoever completes or abandons the future posts the continuation; it is freed when both are
 * through with it, and the timer. */
typedef struct question {
    escqrs_continuation continuation;
    escqrs_future future;
    _Atomic(uint32_t) users;
    escqrs_timer *timer;
    escqrs_then then;
    void *data;
    escqrs_envelope *answer;
    escqrs_error error; /* status OK: there is an answer */
} question;

static void question_release(question *self)
{
    /* acq_rel: the last one sees what the others did */
    if (atomic_fetch_sub_explicit(&self->users, 1, memory_order_acq_rel) == 1) {
        escqrs_envelope_destroy(self->answer);
        escqrs_free(self);
    }
}

static escqrs_turn_end question_run(escqrs_context *context, void *state,
                                    escqrs_continuation *continuation)
{
    question *self = ESC_CONTAINER_OF(continuation, question, continuation);
    if (self->error.status == ESCQRS_OK) {
        return self->then(context, state, self->data, self->answer, NULL);
    }
    escqrs_failure failure = {.status = self->error.status,
                              .text = self->error.message,
                              .path = self->error.subject,
                              .message = "",
                              .who = self->future.target};
    return self->then(context, state, self->data, NULL, &failure);
}

static void question_done(escqrs_continuation *continuation)
{
    question *self = ESC_CONTAINER_OF(continuation, question, continuation);
    escqrs_timer *timer = self->timer;
    self->timer = NULL;
    if (timer != NULL) {
        escqrs_timer_cancel(timer);
        escqrs_timer_release(timer); /* its end lets go of the question, too */
    }
    question_release(self);
}

static void question_complete(escqrs_future *future, escqrs_envelope *answer,
                              const escqrs_failure *failure)
{
    question *self = ESC_CONTAINER_OF(future, question, future);
    self->answer = answer;
    if (failure != NULL) {
        escqrs_status status = escqrs_error_set(&self->error, failure->status, "%s", failure->text);
        (void)status; /* in the error */
        esc_error_subject(&self->error, escqrs_slice_of(failure->path));
    }
    escqrs_continuation_post(&self->continuation);
}

static void question_released(escqrs_future *future)
{
    question_release(ESC_CONTAINER_OF(future, question, future));
}

static const escqrs_future_ops question_ops = {question_complete, question_released};

static void question_timeout(void *data)
{
    question *self = data;
    if (escqrs_future_abandon(&self->future)) {
        escqrs_status status =
            escqrs_error_set(&self->error, ESCQRS_TIMEOUT, "%s", "there was no answer in time");
        (void)status; /* in the error */
        escqrs_continuation_post(&self->continuation);
    }
}

static void question_timer_end(void *data)
{
    question_release(data);
}

escqrs_status escqrs_context_ask(escqrs_context *context, escqrs_ref *to, escqrs_envelope *envelope,
                                 int64_t timeout_ns, escqrs_then then, void *data,
                                 escqrs_error *error)
{
    esc_cell *cell = esc_context_cell(context);
    escqrs_status status = ESCQRS_NO_MEMORY;
    question *self = NULL;
    if (then == NULL) {
        status = escqrs_error_set(error, ESCQRS_INVALID, "an answer needs a function");
        goto fail;
    }
    self = escqrs_alloc_zero(sizeof *self);
    if (self == NULL) {
        escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory asking");
        goto fail;
    }
    self->then = then;
    self->data = data;
    self->continuation.run = question_run;
    self->continuation.done = question_done;
    status = escqrs_context_continuation_init(context, &self->continuation, error);
    if (status != ESCQRS_OK) {
        goto fail;
    }
    escqrs_future_init(&self->future, &question_ops, to);
    atomic_init(&self->users, timeout_ns > 0 ? 3 : 2); /* continuation, future, timer */
    if (timeout_ns > 0) {
        status = esc_timer_call(cell->system, timeout_ns, question_timeout, question_timer_end,
                                self, &self->timer, error);
        if (status != ESCQRS_OK) {
            esc_lease_drop(cell, self->continuation.lease);
            escqrs_ref_release(self->continuation.actor);
            escqrs_ref_release(to);
            goto fail;
        }
    }
    escqrs_tell(to, envelope, &self->future.ref); /* what is refused completes the future */
    escqrs_ref_release(&self->future.ref);
    return ESCQRS_OK;

fail:
    escqrs_free(self);
    escqrs_envelope_destroy(envelope);
    return status;
}
