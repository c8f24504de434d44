/* Futures: senders that take one answer.
 *
 * `references` counts those who may still answer; the last one to let go of a future that is not
 * complete completes it with CLOSED. `completed` goes once from OPEN to something else, by whoever
 * completes it or by the asker who gives up; that decides who calls `complete`. A completer holds a
 * reference, so `released` comes after `complete` has returned.
 *
 * An actor that has handled a question without answering keeps its reference until it stops. What
 * it keeps is looked through when the array would grow, so asking on costs nothing in the end.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "runtime/cell.h"
#include "runtime/runtime.h"

#define OPEN 0u
#define COMPLETE 1u /* bit 0: escqrs_actor_wait_until */
#define ABANDONED 2u

/* Never called; its address is the kind. */
static escqrs_turn_end future_receive(escqrs_actor *actor, escqrs_message *message)
{
    (void)actor;
    (void)message;
    return ESCQRS_TURN_NEXT;
}

static void future_destroy(escqrs_actor *actor)
{
    (void)actor;
}

static void future_describe(const escqrs_actor *actor, char *text, size_t size)
{
    (void)actor;
    snprintf(text, size, "future");
}

const escqrs_actor_ops esc_future_ops = {future_receive, future_destroy, future_describe};

void escqrs_future_init(escqrs_future *future, const escqrs_future_ops *ops, escqrs_ref *target)
{
    future->ref.ops = &esc_future_ops;
    atomic_init(&future->references, 1);
    atomic_init(&future->completed, OPEN);
    atomic_init(&future->sent_to, 0);
    future->future_ops = ops;
    future->target = target;
    if (target != NULL) {
        escqrs_ref_hold(target);
    }
}

void escqrs_future_send_on(escqrs_future *future, const escqrs_ref *to)
{
    /* relaxed: it is compared only, and need not be there any more */
    atomic_store_explicit(&future->sent_to, (uintptr_t)to, memory_order_relaxed);
}

bool escqrs_future_was_sent_to(const escqrs_future *future, const escqrs_ref *ref)
{
    /* relaxed: as above */
    return atomic_load_explicit(&future->sent_to, memory_order_relaxed) == (uintptr_t)ref;
}

static bool claim(escqrs_future *future, uint32_t as)
{
    uint32_t open = OPEN;
    /* acq_rel: who finds it claimed sees what the claimer did before */
    return atomic_compare_exchange_strong_explicit(&future->completed, &open, as,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

bool escqrs_future_abandon(escqrs_future *future)
{
    return claim(future, ABANDONED);
}

bool escqrs_future_is_complete(const escqrs_future *future)
{
    /* acquire: pairs with claim */
    return atomic_load_explicit(&future->completed, memory_order_acquire) != OPEN;
}

bool esc_future_answer(escqrs_future *future, escqrs_envelope *answer)
{
    if (!claim(future, COMPLETE)) {
        return false;
    }
    future->future_ops->complete(future, answer, NULL);
    return true;
}

void esc_future_fail(escqrs_future *future, const escqrs_failure *failure)
{
    if (claim(future, COMPLETE)) {
        future->future_ops->complete(future, NULL, failure);
    }
}

static void nobody_answers(escqrs_future *future)
{
    char path[ESC_PATH_SIZE] = "the actor";
    char text[ESC_PATH_SIZE + 64];
    if (future->target != NULL) {
        escqrs_ref_path(future->target, path, sizeof path);
    }
    snprintf(text, sizeof text, "%s stopped without answering", path);
    escqrs_failure failure = {
        .status = ESCQRS_CLOSED, .text = text, .path = path, .message = "", .who = future->target};
    esc_future_fail(future, &failure);
}

void esc_future_let_go(escqrs_future *future)
{
    /* acq_rel: the last one sees what all others did */
    if (atomic_fetch_sub_explicit(&future->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (!escqrs_future_is_complete(future)) {
        nobody_answers(future);
    }
    escqrs_ref *target = future->target;
    future->future_ops->released(future);
    escqrs_ref_release(target);
}

void esc_question_fail(const escqrs_envelope *envelope, const escqrs_failure *failure)
{
    if (envelope != NULL && envelope->sender != NULL && esc_ref_is_future(envelope->sender)) {
        esc_future_fail((escqrs_future *)envelope->sender, failure);
    }
}

void esc_question_refuse(const escqrs_envelope *envelope, escqrs_status status, escqrs_ref *to,
                         const char *what)
{
    if (envelope->sender == NULL || !esc_ref_is_future(envelope->sender)) {
        return;
    }
    char path[ESC_PATH_SIZE] = "nobody";
    char words[512] = ""; /* why it has stopped */
    char text[ESC_PATH_SIZE + 64 + sizeof words];
    if (to != NULL) {
        escqrs_ref_path(to, path, sizeof path);
    }
    if (to != NULL && status == ESCQRS_CLOSED) {
        escqrs_ref_failure(to, words, sizeof words);
    }
    snprintf(text, sizeof text, "%s %s%s%s", path, what, words[0] == '\0' ? "" : ": ", words);
    escqrs_failure failure = {
        .status = status, .text = text, .path = path, .message = "", .who = to};
    esc_question_fail(envelope, &failure);
}

/* ---- questions without an answer -------------------------------------------------------------- */

static void drop_answered(esc_vector *unanswered)
{
    for (size_t i = 0; i < unanswered->count;) {
        escqrs_future *future = ESC_VECTOR_AT(unanswered, escqrs_future *, i);
        if (escqrs_future_is_complete(future)) {
            esc_vector_remove_unordered(unanswered, i);
            esc_future_let_go(future);
        } else {
            i++;
        }
    }
}

void esc_unanswered_keep(esc_cell *cell, escqrs_future *future)
{
    esc_extra *extra = esc_cell_extra(cell);
    if (extra != NULL) {
        if (extra->unanswered.count == extra->unanswered.capacity) {
            drop_answered(&extra->unanswered);
        }
        if (esc_vector_push(&extra->unanswered, &future) == ESCQRS_OK) {
            return;
        }
    }
    esc_future_let_go(future); /* out of memory: its asker hears of it now */
}

void esc_unanswered_end(esc_cell *cell)
{
    esc_vector *unanswered = &esc_cell_has(cell)->unanswered;
    while (unanswered->count > 0) {
        escqrs_future *future = ESC_VECTOR_AT(unanswered, escqrs_future *, unanswered->count - 1);
        esc_vector_pop(unanswered);
        esc_future_let_go(future);
    }
    esc_vector_fini(unanswered);
}

/* ---- ask --------------------------------------------------------------------------------------- */

#define NOT_DONE 0u
#define AWAITED 1u
#define DONE 2u

/* The asker waits; freed by the last of the two who let go. */
typedef struct asker {
    escqrs_future future;
    _Atomic(uint32_t) done;  /* futex; 1: answer or error is there */
    _Atomic(uint32_t) users; /* the asker, and the future */
    escqrs_envelope *answer;
    escqrs_wait wait;
    escqrs_error error;
} asker;

static void asker_release(asker *self)
{
    /* acq_rel: the last one sees what the other did */
    if (atomic_fetch_sub_explicit(&self->users, 1, memory_order_acq_rel) == 1) {
        escqrs_envelope_destroy(self->answer);
        escqrs_free(self);
    }
}

static void asker_complete(escqrs_future *future, escqrs_envelope *answer,
                           const escqrs_failure *failure)
{
    asker *self = ESC_CONTAINER_OF(future, asker, future);
    self->answer = answer;
    if (failure != NULL) {
        escqrs_status status = escqrs_error_set(&self->error, failure->status, "%s", failure->text);
        (void)status; /* in the error */
        esc_error_subject(&self->error, escqrs_slice_of(failure->path));
    }
    /* acq_rel: release pairs with is_done; this thread may let go of it last */
    if (atomic_exchange_explicit(&self->done, DONE, memory_order_acq_rel) == AWAITED) {
        esc_futex_wake(&self->done, 1);
    }
}

static void asker_released(escqrs_future *future)
{
    asker_release(ESC_CONTAINER_OF(future, asker, future));
}

static const escqrs_future_ops asker_ops = {asker_complete, asker_released};

static bool is_done(asker *self)
{
    /* acquire: pairs with asker_complete */
    return atomic_load_explicit(&self->done, memory_order_acquire) == DONE;
}

/* False: the deadline has passed. */
static bool sleep_until_done(asker *self, int64_t deadline_ns)
{
    uint32_t expected = NOT_DONE;
    /* relaxed: only says that somebody sleeps */
    atomic_compare_exchange_strong_explicit(&self->done, &expected, AWAITED, memory_order_relaxed,
                                            memory_order_relaxed);
    return expected == DONE || esc_futex_wait(&self->done, AWAITED, deadline_ns);
}

/* Manual: run the actors instead of waiting; where the time is virtual, a timer may have them go on
 * for ever. */
static escqrs_status step_until_answered(asker *self, escqrs_actor_system *system,
                                         int64_t deadline_ns, escqrs_error *error)
{
    while (!is_done(self)) {
        if (deadline_ns != ESC_DEADLINE_NEVER && esc_deadline_after(0) >= deadline_ns &&
            escqrs_future_abandon(&self->future)) {
            return escqrs_error_set(error, ESCQRS_TIMEOUT, "there was no answer in time");
        }
        if (!escqrs_actor_system_step(system) && escqrs_future_abandon(&self->future)) {
            return escqrs_error_set(error, ESCQRS_TIMEOUT,
                                    "there is no answer, and nothing is left to do");
        }
    }
    return ESCQRS_OK;
}

static escqrs_status wait_for_answer(asker *self, int64_t deadline_ns, escqrs_error *error)
{
    escqrs_actor_system *system =
        self->future.target == NULL ? NULL : escqrs_ref_system(self->future.target);
    if (system != NULL && system->manual) {
        return step_until_answered(self, system, deadline_ns, error);
    }
    bool goes_on = escqrs_runtime_block();
    escqrs_status status = ESCQRS_OK;
    if (!goes_on) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY,
                                  "no thread can be started for the actor that was asked");
    }
    while (status == ESCQRS_OK && !is_done(self)) {
        if (!sleep_until_done(self, deadline_ns) && !is_done(self)) {
            status = escqrs_error_set(error, ESCQRS_TIMEOUT, "there was no answer in time");
        }
    }
    escqrs_runtime_unblock();
    if (status != ESCQRS_OK && !escqrs_future_abandon(&self->future)) {
        while (!is_done(self)) { /* it is being completed at this moment */
            sleep_until_done(self, ESC_DEADLINE_NEVER);
        }
        status = ESCQRS_OK;
    }
    return status;
}

static escqrs_status ask(asker *self, escqrs_ref *to, escqrs_envelope *envelope,
                         int64_t deadline_ns, escqrs_error *error)
{
    escqrs_actor *waiter = escqrs_actor_current();
    escqrs_actor *target = esc_ref_is_cell(to) ? (escqrs_actor *)to : NULL;
    if (target != NULL) {
        escqrs_status status = escqrs_actor_wait_begin(waiter, target, error);
        if (status != ESCQRS_OK) {
            escqrs_envelope_destroy(envelope);
            return status;
        }
    }
    escqrs_status status = ESCQRS_OK;
    bool ran = escqrs_ref_run(to, envelope, &self->future.ref);
    if (target != NULL && !escqrs_ref_system(to)->manual) { /* which runs others to wait */
        escqrs_actor_wait_until(waiter, &self->wait, &self->future.completed);
    }
    if (!ran) {
        escqrs_tell(to, envelope, &self->future.ref); /* what is refused completes the future */
    }
    escqrs_ref_release(&self->future.ref);
    if (!is_done(self)) {
        status = wait_for_answer(self, deadline_ns, error);
    }
    if (target != NULL && waiter != NULL) {
        escqrs_actor_wait_end(waiter);
    }
    return status;
}

escqrs_status escqrs_ask(escqrs_ref *to, escqrs_envelope *envelope, int64_t deadline_ns,
                         escqrs_envelope **answer, escqrs_error *error)
{
    *answer = NULL;
    asker *self = escqrs_alloc(sizeof *self); /* the error's texts need no zeros */
    if (self == NULL) {
        escqrs_envelope_destroy(envelope);
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory asking");
    }
    atomic_init(&self->done, NOT_DONE);
    self->answer = NULL;
    self->error.status = ESCQRS_OK;
    escqrs_future_init(&self->future, &asker_ops, to);
    atomic_init(&self->users, 2);
    escqrs_status status = ask(self, to, envelope, deadline_ns, error);
    if (status == ESCQRS_DEADLOCK && !is_done(self)) {
        escqrs_future_abandon(&self->future);
        escqrs_ref_release(&self->future.ref); /* it was not sent */
    } else if (status == ESCQRS_OK && self->answer == NULL) {
        status = self->error.status;
        if (error != NULL) {
            *error = self->error;
        }
    } else if (status == ESCQRS_OK) {
        *answer = self->answer;
        self->answer = NULL;
    }
    asker_release(self);
    return status;
}
