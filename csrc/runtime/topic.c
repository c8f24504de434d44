/* Topics: who wants which events; dead letters and failures are two of them.
 *
 * The list of subscriptions is immutable and counted; subscribing puts a new list in its place. A
 * publisher holds the list it found and calls without the lock, so a function may subscribe,
 * unsubscribe or publish. The body of a dead letter or a failure is shared by the copies that
 * actors get.
 */
#include <string.h>

#include "base/error.h"
#include "runtime/cell.h"
#include "runtime/runtime.h"

struct escqrs_subscription {
    _Atomic(uint32_t) references; /* the handle's, and each list's that it is in */
    escqrs_actor_system *system;  /* held by the handle */
    const escqrs_message_type *type;
    escqrs_event_function function; /* NULL: to `ref` */
    void *data;
    void (*released)(void *data);
    escqrs_ref *ref;     /* held */
    _Atomic(bool) ended; /* no longer called, though a list may still have it */
};

typedef struct esc_subscriptions {
    _Atomic(uint32_t) references;
    size_t count;
    escqrs_subscription *items[];
} esc_subscriptions;

/* ---- lists ------------------------------------------------------------------------------------ */

static void subscription_drop(escqrs_subscription *subscription)
{
    /* acq_rel: the last one sees what all others did */
    if (atomic_fetch_sub_explicit(&subscription->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (subscription->released != NULL) {
        subscription->released(subscription->data);
    }
    escqrs_ref_release(subscription->ref);
    escqrs_free(subscription);
}

static void list_drop(esc_subscriptions *list)
{
    /* acq_rel: as above */
    if (list == NULL || atomic_fetch_sub_explicit(&list->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    for (size_t i = 0; i < list->count; i++) {
        subscription_drop(list->items[i]);
    }
    escqrs_free(list);
}

/* A list like `old` with `added`, or without `removed`. NULL: out of memory. */
static esc_subscriptions *list_like(const esc_subscriptions *old, escqrs_subscription *added,
                                    const escqrs_subscription *removed)
{
    size_t count = old == NULL ? 0 : old->count;
    esc_subscriptions *list =
        escqrs_alloc(sizeof *list + (count + 1) * sizeof(escqrs_subscription *));
    if (list == NULL) {
        return NULL;
    }
    atomic_init(&list->references, 1);
    list->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (old->items[i] != removed) {
            list->items[list->count++] = old->items[i];
        }
    }
    if (added != NULL) {
        list->items[list->count++] = added;
    }
    for (size_t i = 0; i < list->count; i++) {
        atomic_fetch_add_explicit(&list->items[i]->references, 1, memory_order_relaxed);
    }
    return list;
}

static esc_subscriptions *list_hold(esc_topics *topics)
{
    esc_mutex_lock(&topics->lock);
    esc_subscriptions *list = topics->list;
    if (list != NULL) {
        atomic_fetch_add_explicit(&list->references, 1, memory_order_relaxed);
    }
    esc_mutex_unlock(&topics->lock);
    return list;
}

/* NO_MEMORY, CLOSED: nothing has changed. */
static escqrs_status list_change(esc_topics *topics, escqrs_subscription *added,
                                 const escqrs_subscription *removed)
{
    escqrs_status status = ESCQRS_CLOSED;
    esc_mutex_lock(&topics->lock);
    esc_subscriptions *old = topics->list;
    esc_subscriptions *list = NULL;
    if (!topics->closed) {
        list = list_like(old, added, removed);
        status = list == NULL ? ESCQRS_NO_MEMORY : ESCQRS_OK;
    }
    if (list != NULL) {
        topics->list = list;
        /* relaxed: a hint for publishers; the list itself is under the lock */
        atomic_store_explicit(&topics->count, list->count, memory_order_relaxed);
    }
    esc_mutex_unlock(&topics->lock);
    if (status == ESCQRS_OK) {
        list_drop(old);
    }
    return status;
}

void esc_topics_init(esc_topics *topics)
{
    *topics = (esc_topics){0};
    esc_mutex_init(&topics->lock);
}

void esc_topics_close(esc_topics *topics)
{
    esc_mutex_lock(&topics->lock);
    esc_subscriptions *old = topics->list;
    topics->list = NULL;
    topics->closed = true;
    atomic_store_explicit(&topics->count, 0, memory_order_relaxed);
    esc_mutex_unlock(&topics->lock);
    list_drop(old);
}

void esc_topics_fini(esc_topics *topics)
{
    esc_topics_close(topics);
    esc_mutex_fini(&topics->lock);
}

/* ---- subscribing ------------------------------------------------------------------------------ */

static escqrs_status subscribe(escqrs_actor_system *system, const escqrs_subscription *wanted,
                               escqrs_subscription **subscription, escqrs_error *error)
{
    if (wanted->function == NULL && wanted->ref == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "a subscription needs a function or a reference");
    }
    escqrs_subscription *made = escqrs_alloc(sizeof *made);
    if (made == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory subscribing");
    }
    *made = *wanted;
    atomic_init(&made->references, 1);
    made->system = system;
    if (made->ref != NULL) {
        escqrs_ref_hold(made->ref);
    }
    escqrs_status status = list_change(&system->topics, made, NULL);
    if (status != ESCQRS_OK) {
        made->released = NULL; /* the caller's still */
        subscription_drop(made);
        return escqrs_error_set(error, status,
                                status == ESCQRS_CLOSED ? "the actor system has stopped"
                                                        : "out of memory subscribing");
    }
    if (subscription == NULL) {
        subscription_drop(made);
    } else {
        escqrs_actor_hold(&system->root.actor);
        *subscription = made;
    }
    return ESCQRS_OK;
}

escqrs_status escqrs_subscribe(escqrs_actor_system *system, const escqrs_message_type *type,
                               escqrs_event_function function, void *data,
                               void (*released)(void *data), escqrs_subscription **subscription,
                               escqrs_error *error)
{
    escqrs_subscription wanted = {
        .type = type, .function = function, .data = data, .released = released};
    return subscribe(system, &wanted, subscription, error);
}

escqrs_status escqrs_subscribe_ref(escqrs_actor_system *system, const escqrs_message_type *type,
                                   escqrs_ref *ref, escqrs_subscription **subscription,
                                   escqrs_error *error)
{
    escqrs_subscription wanted = {.type = type, .ref = ref};
    return subscribe(system, &wanted, subscription, error);
}

static void end_it(esc_topics *topics, escqrs_subscription *subscription)
{
    /* relaxed: a call may be under way in any case */
    atomic_store_explicit(&subscription->ended, true, memory_order_relaxed);
    /* without memory for a shorter list it stays in this one, unused */
    escqrs_status status = list_change(topics, NULL, subscription);
    (void)status;
}

void escqrs_unsubscribe(escqrs_subscription *subscription)
{
    if (subscription == NULL) {
        return;
    }
    escqrs_actor_system *system = subscription->system;
    end_it(&system->topics, subscription);
    subscription_drop(subscription);
    escqrs_actor_release(&system->root.actor);
}

bool escqrs_has_subscribers(escqrs_actor_system *system)
{
    return atomic_load_explicit(&system->topics.count, memory_order_relaxed) > 0;
}

/* ---- publishing ------------------------------------------------------------------------------- */

static void tell_subscriber(escqrs_ref *ref, const escqrs_envelope *event)
{
    escqrs_envelope *copy = event->type->copy == NULL ? NULL : event->type->copy(event);
    if (copy == NULL) {
        return;
    }
    if (escqrs_tell_now(ref, copy, NULL) == ESCQRS_MAILBOX_FULL) {
        escqrs_envelope_destroy(copy); /* a subscriber with bounds may miss events */
    }
}

void esc_topics_publish(esc_topics *topics, const escqrs_envelope *event)
{
    if (atomic_load_explicit(&topics->count, memory_order_relaxed) == 0) {
        return;
    }
    esc_subscriptions *list = list_hold(topics);
    for (size_t i = 0; list != NULL && i < list->count; i++) {
        escqrs_subscription *subscription = list->items[i];
        if (atomic_load_explicit(&subscription->ended, memory_order_relaxed) ||
            (subscription->type != NULL && subscription->type != event->type)) {
            continue;
        }
        if (subscription->function != NULL) {
            subscription->function(subscription->data, event);
        } else if (escqrs_ref_state_of(subscription->ref) == ESCQRS_REF_STOPPED) {
            end_it(topics, subscription);
        } else {
            tell_subscriber(subscription->ref, event);
        }
    }
    list_drop(list);
}

void escqrs_publish(escqrs_actor_system *system, escqrs_envelope *event)
{
    esc_topics_publish(&system->topics, event);
    escqrs_envelope_destroy(event);
}

/* ---- dead letters ----------------------------------------------------------------------------- */

/* The body, shared by the copies. */
typedef struct dead_body {
    _Atomic(uint32_t) references;
    escqrs_ref *to;
    escqrs_envelope *letter;
} dead_body;

typedef struct dead_event {
    escqrs_dead_letter_event event;
    dead_body *body;
} dead_event;

static void dead_destroy(escqrs_envelope *envelope)
{
    dead_event *self = ESC_CONTAINER_OF(envelope, dead_event, event.envelope);
    /* acq_rel: the last one sees what all others did */
    if (atomic_fetch_sub_explicit(&self->body->references, 1, memory_order_acq_rel) == 1) {
        escqrs_ref_release(self->body->to);
        escqrs_envelope_destroy(self->body->letter);
        escqrs_free(self->body);
    }
    escqrs_free(self);
}

static dead_event *dead_new(dead_body *body)
{
    dead_event *self = escqrs_alloc_zero(sizeof *self);
    if (self != NULL) {
        self->event.envelope.type = &escqrs_dead_letter;
        self->event.to = body->to;
        self->event.letter = body->letter;
        self->body = body;
    }
    return self;
}

static escqrs_envelope *dead_copy(const escqrs_envelope *envelope)
{
    const dead_event *self = (const dead_event *)envelope;
    dead_event *copy = dead_new(self->body);
    if (copy == NULL) {
        return NULL;
    }
    /* relaxed: the copied one has one */
    atomic_fetch_add_explicit(&self->body->references, 1, memory_order_relaxed);
    return &copy->event.envelope;
}

const escqrs_message_type escqrs_dead_letter = {
    .name = "DeadLetter", .destroy = dead_destroy, .copy = dead_copy};

void esc_dead_letter_send(escqrs_actor_system *system, escqrs_ref *to, escqrs_envelope *envelope)
{
    esc_question_refuse(envelope, ESCQRS_CLOSED, to,
                        to == NULL ? "takes no answer" : "has stopped");
    if (system == NULL || envelope->type == &escqrs_dead_letter || /* no letters about letters */
        !escqrs_has_subscribers(system)) {
        escqrs_envelope_destroy(envelope);
        return;
    }
    dead_body *body = escqrs_alloc(sizeof *body);
    dead_event *event = NULL;
    if (body != NULL) {
        *body = (dead_body){.to = to, .letter = envelope};
        atomic_init(&body->references, 1);
        event = dead_new(body);
    }
    if (event == NULL) { /* out of memory */
        escqrs_free(body);
        escqrs_envelope_destroy(envelope);
        return;
    }
    if (to != NULL) {
        escqrs_ref_hold(to);
    }
    escqrs_publish(system, &event->event.envelope);
}

/* ---- failures --------------------------------------------------------------------------------- */

typedef struct failure_copy {
    escqrs_failure_message message;
    esc_failure_record *record; /* held */
} failure_copy;

static void failure_destroy(escqrs_envelope *envelope)
{
    failure_copy *self = ESC_CONTAINER_OF(envelope, failure_copy, message.envelope);
    esc_failure_drop(self->record);
    escqrs_free(self);
}

static escqrs_envelope *failure_copy_of(const escqrs_envelope *envelope)
{
    const failure_copy *self = (const failure_copy *)envelope;
    failure_copy *copy = escqrs_alloc(sizeof *copy);
    if (copy == NULL) {
        return NULL;
    }
    *copy = *self;
    copy->message.envelope = (escqrs_envelope){.type = &escqrs_failure_event};
    /* relaxed: the copied one has one */
    atomic_fetch_add_explicit(&copy->record->references, 1, memory_order_relaxed);
    return &copy->message.envelope;
}

const escqrs_message_type escqrs_failure_event = {
    .name = "Failure", .destroy = failure_destroy, .copy = failure_copy_of};

void esc_publish_failure(escqrs_actor_system *system, esc_failure_record *record,
                         escqrs_directive directive)
{
    if (!escqrs_has_subscribers(system)) {
        return;
    }
    failure_copy event = {
        .message = {.envelope = {.type = &escqrs_failure_event},
                    .failure = &record->failure,
                    .directive = directive},
        .record = record,
    };
    esc_topics_publish(&system->topics, &event.message.envelope); /* on the stack: only borrowed */
}
