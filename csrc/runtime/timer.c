/* Timers: a heap by due time under one lock, and one thread that sleeps until the first is due; or,
 * with virtual time, whoever moves it.
 *
 * A timer that tells its own actor sends a *tick*, which lies in the timer itself; the actor looks
 * at the timer when it handles the tick, so that one that was cancelled meanwhile is not handled. A
 * timer is counted: one reference of the heap while it is in it, one of the tick in a mailbox,
 * those of handles. It holds its owner and the system, whose lock it needs.
 */
#include "base/error.h"
#include "runtime/cell.h"
#include "runtime/runtime.h"

const escqrs_message_type escqrs_receive_timeout = {.name = "ReceiveTimeout"};
static escqrs_envelope receive_timeout_message = {.type = &escqrs_receive_timeout};

typedef enum timer_kind {
    TIMER_MESSAGE,
    TIMER_REQUEST,
    TIMER_CALL,
} timer_kind;

struct escqrs_timer {
    escqrs_envelope tick;
    _Atomic(uint32_t) references;
    timer_kind kind;
    escqrs_actor_system *system; /* held */
    esc_cell *owner;             /* held; NULL: TIMER_CALL */
    uint32_t instance;           /* of the owner, whose timer it is */
    uint32_t request;
    int64_t interval_ns;       /* 0: once */
    escqrs_ref *to;            /* held; NULL: the owner */
    escqrs_envelope *envelope; /* once, to the owner: the actor's thread takes it */
    void (*function)(void *data);
    void (*released)(void *data);
    void *data;
    _Atomic(bool) cancelled;
    _Atomic(bool) tick_sent; /* it is in the owner's mailbox */

    /* guarded by the timers' lock */
    size_t place; /* in the heap, from 1; 0: not in it */
    int64_t due_ns;
    uint64_t sequence; /* of two that are due together */
    esc_list_node in_owner;
};

/* ---- references ------------------------------------------------------------------------------- */

void escqrs_timer_hold(escqrs_timer *timer)
{
    /* relaxed: the caller has one */
    atomic_fetch_add_explicit(&timer->references, 1, memory_order_relaxed);
}

void escqrs_timer_release(escqrs_timer *timer)
{
    /* acq_rel: the last one sees what all others did */
    if (timer == NULL ||
        atomic_fetch_sub_explicit(&timer->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (timer->released != NULL) {
        timer->released(timer->data);
    }
    escqrs_envelope_destroy(timer->envelope);
    escqrs_ref_release(timer->to);
    escqrs_ref_release((escqrs_ref *)timer->owner);
    escqrs_actor_release(&timer->system->root.actor);
    escqrs_free(timer);
}

/* ---- the heap; all with the lock held --------------------------------------------------------- */

static bool is_before(const escqrs_timer *a, const escqrs_timer *b)
{
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->sequence < b->sequence;
}

static void place_at(esc_timers *timers, escqrs_timer *timer, size_t place)
{
    timers->heap[place - 1] = timer;
    timer->place = place;
}

static void sift(esc_timers *timers, escqrs_timer *timer, size_t place)
{
    while (place > 1 && is_before(timer, timers->heap[place / 2 - 1])) {
        place_at(timers, timers->heap[place / 2 - 1], place);
        place /= 2;
    }
    for (;;) {
        size_t child = place * 2;
        if (child > timers->count) {
            break;
        }
        if (child < timers->count && is_before(timers->heap[child], timers->heap[child - 1])) {
            child++;
        }
        if (!is_before(timers->heap[child - 1], timer)) {
            break;
        }
        place_at(timers, timers->heap[child - 1], place);
        place = child;
    }
    place_at(timers, timer, place);
}

static bool reserve(esc_timers *timers)
{
    if (timers->count < timers->capacity) {
        return true;
    }
    size_t capacity = timers->capacity == 0 ? 16 : timers->capacity * 2;
    escqrs_timer **grown = escqrs_realloc(timers->heap, capacity * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    timers->heap = grown;
    timers->capacity = capacity;
    return true;
}

static void insert(esc_timers *timers, escqrs_timer *timer)
{
    timer->sequence = ++timers->sequence;
    timers->count++;
    sift(timers, timer, timers->count);
}

/* The heap's reference is the caller's from now on. */
static void take_out(esc_timers *timers, escqrs_timer *timer)
{
    size_t place = timer->place;
    timer->place = 0;
    escqrs_timer *last = timers->heap[timers->count - 1];
    timers->count--;
    if (last != timer) {
        sift(timers, last, place);
    }
}

static void leave_owner(escqrs_timer *timer)
{
    if (esc_list_contains_node(&timer->in_owner)) {
        esc_list_remove(&timer->in_owner);
    }
}

/* ---- time ------------------------------------------------------------------------------------- */

int64_t esc_timers_now(esc_timers *timers)
{
    if (!timers->is_virtual) {
        return escqrs_clock_monotonic_ns(NULL);
    }
    esc_mutex_lock(&timers->lock);
    int64_t now_ns = timers->virtual_ns;
    esc_mutex_unlock(&timers->lock);
    return now_ns;
}

int64_t escqrs_actor_system_now(escqrs_actor_system *system)
{
    return esc_timers_now(&system->timers);
}

static int64_t after(int64_t now_ns, int64_t delay_ns)
{
    int64_t due_ns;
    return __builtin_add_overflow(now_ns, delay_ns < 0 ? 0 : delay_ns, &due_ns) ? INT64_MAX
                                                                                : due_ns;
}

/* ---- going off --------------------------------------------------------------------------------- */

static void send_tick(escqrs_timer *timer)
{
    /* acq_rel: pairs with esc_tick_take; one that is still there stands for this one */
    if (atomic_exchange_explicit(&timer->tick_sent, true, memory_order_acq_rel)) {
        return;
    }
    escqrs_timer_hold(timer);
    if (esc_send_forced(timer->owner, &timer->tick) != ESCQRS_OK) {
        escqrs_timer_release(timer);
    }
}

static void tell(escqrs_timer *timer, escqrs_envelope *envelope)
{
    if (timer->to == NULL) {
        send_tick(timer);
        return;
    }
    if (timer->interval_ns > 0) {
        envelope = timer->envelope->type->copy(timer->envelope);
    }
    if (envelope == NULL) {
        escqrs_log_write(&timer->system->log, ESCQRS_LOG_ERROR,
                         "out of memory copying the message of a timer; a tick is left out");
    } else if (escqrs_tell_now(timer->to, envelope, esc_cell_ref(timer->owner)) ==
               ESCQRS_MAILBOX_FULL) {
        escqrs_untold_publish(timer->to, envelope);
    }
}

static void go_off(escqrs_timer *timer, escqrs_envelope *envelope)
{
    switch (timer->kind) {
    case TIMER_MESSAGE:
        tell(timer, envelope);
        break;
    case TIMER_REQUEST:
        esc_cell_request(timer->owner, timer->request);
        break;
    case TIMER_CALL:
        timer->function(timer->data);
        break;
    }
}

/* With the lock held, released and taken again. False: nothing is due. */
static bool fire_first(esc_timers *timers, int64_t now_ns)
{
    if (timers->count == 0 || timers->heap[0]->due_ns > now_ns) {
        return false;
    }
    escqrs_timer *timer = timers->heap[0];
    escqrs_envelope *envelope = NULL;
    if (timer->interval_ns > 0) {
        escqrs_timer_hold(timer);
        timer->due_ns = after(timer->due_ns, timer->interval_ns);
        timer->sequence = ++timers->sequence;
        sift(timers, timer, 1);
    } else {
        take_out(timers, timer);
        leave_owner(timer);
        if (timer->to != NULL) {
            envelope = timer->envelope;
            timer->envelope = NULL;
        }
    }
    esc_mutex_unlock(&timers->lock);
    go_off(timer, envelope);
    escqrs_timer_release(timer);
    esc_mutex_lock(&timers->lock);
    return true;
}

static void timers_main(void *context)
{
    esc_timers *timers = context;
    esc_mutex_lock(&timers->lock);
    while (!timers->stopping) {
        if (fire_first(timers, escqrs_clock_monotonic_ns(NULL))) {
            continue;
        }
        if (timers->count == 0) {
            esc_cond_wait(&timers->changed, &timers->lock);
        } else {
            esc_cond_wait_until(&timers->changed, &timers->lock, timers->heap[0]->due_ns);
        }
    }
    esc_mutex_unlock(&timers->lock);
}

void escqrs_actor_system_advance(escqrs_actor_system *system, int64_t now_ns)
{
    esc_timers *timers = &system->timers;
    esc_mutex_lock(&timers->lock);
    while (timers->count > 0 && timers->heap[0]->due_ns <= now_ns) {
        if (timers->heap[0]->due_ns > timers->virtual_ns) {
            timers->virtual_ns = timers->heap[0]->due_ns;
        }
        fire_first(timers, timers->virtual_ns);
    }
    if (now_ns > timers->virtual_ns) {
        timers->virtual_ns = now_ns;
    }
    esc_mutex_unlock(&timers->lock);
}

int64_t escqrs_actor_system_next_due(escqrs_actor_system *system)
{
    esc_timers *timers = &system->timers;
    esc_mutex_lock(&timers->lock);
    int64_t due_ns = timers->count == 0 ? INT64_MAX : timers->heap[0]->due_ns;
    esc_mutex_unlock(&timers->lock);
    if (system->stepper.next_due_ns != NULL) {
        int64_t beside_ns = system->stepper.next_due_ns(system->stepper.context);
        due_ns = beside_ns < due_ns ? beside_ns : due_ns;
    }
    return due_ns;
}

/* ---- life ------------------------------------------------------------------------------------- */

void esc_timers_init(esc_timers *timers, bool is_virtual)
{
    *timers = (esc_timers){.is_virtual = is_virtual};
    esc_mutex_init(&timers->lock);
    esc_cond_init(&timers->changed);
}

void esc_timers_stop(esc_timers *timers)
{
    esc_mutex_lock(&timers->lock);
    timers->stopping = true;
    bool join = timers->started;
    timers->started = false;
    esc_cond_broadcast(&timers->changed);
    esc_mutex_unlock(&timers->lock);
    if (join) {
        esc_thread_join(&timers->thread);
    }
    esc_mutex_lock(&timers->lock);
    while (timers->count > 0) {
        escqrs_timer *timer = timers->heap[0];
        take_out(timers, timer);
        leave_owner(timer);
        esc_mutex_unlock(&timers->lock);
        escqrs_timer_release(timer);
        esc_mutex_lock(&timers->lock);
    }
    esc_mutex_unlock(&timers->lock);
}

void esc_timers_fini(esc_timers *timers)
{
    ESC_ASSERT(timers->count == 0);
    escqrs_free(timers->heap);
    esc_cond_fini(&timers->changed);
    esc_mutex_fini(&timers->lock);
}

/* With the lock held. */
static escqrs_status start_thread(esc_timers *timers, escqrs_error *error)
{
    if (timers->stopping) {
        return escqrs_error_set(error, ESCQRS_CLOSED, "the actor system has stopped");
    }
    if (timers->started || timers->is_virtual) {
        return ESCQRS_OK;
    }
    escqrs_status status =
        esc_thread_create(&timers->thread, "esc-timer", 0, timers_main, timers, error);
    timers->started = status == ESCQRS_OK;
    return status;
}

/* Whether it can be added or not, the heap's reference is gone from the caller. */
static escqrs_status add(escqrs_timer *timer, int64_t delay_ns, escqrs_error *error)
{
    esc_timers *timers = &timer->system->timers;
    int64_t now_ns = esc_timers_now(timers);
    esc_mutex_lock(&timers->lock);
    escqrs_status status = start_thread(timers, error);
    if (status == ESCQRS_OK && !reserve(timers)) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory setting a timer");
    }
    if (status == ESCQRS_OK) {
        timer->due_ns = after(now_ns, delay_ns);
        insert(timers, timer);
        if (timer->owner != NULL && esc_cell_has(timer->owner) != NULL) {
            esc_list_push_back(&esc_cell_has(timer->owner)->timers, &timer->in_owner);
        }
        if (timer->place == 1) {
            esc_cond_signal(&timers->changed);
        }
    }
    esc_mutex_unlock(&timers->lock);
    return status;
}

static escqrs_timer *timer_new(escqrs_actor_system *system, esc_cell *owner, timer_kind kind)
{
    escqrs_timer *timer = escqrs_alloc_zero(sizeof *timer);
    if (timer == NULL) {
        return NULL;
    }
    timer->tick.type = &esc_internal_types[ESC_INTERNAL_TICK];
    atomic_init(&timer->references, 2); /* the heap's and the caller's */
    timer->kind = kind;
    timer->system = system;
    escqrs_actor_hold(&system->root.actor);
    timer->owner = owner;
    if (owner != NULL) {
        escqrs_actor_hold(&owner->actor);
        timer->instance = owner->instance_number;
    }
    return timer;
}

/* Give the caller's reference out or drop it; where it was not added, both. */
static escqrs_status hand_out(escqrs_timer *timer, escqrs_status status, escqrs_timer **out)
{
    if (status != ESCQRS_OK) {
        escqrs_timer_release(timer);
        escqrs_timer_release(timer);
        return status;
    }
    if (out != NULL) {
        *out = timer;
    } else {
        escqrs_timer_release(timer);
    }
    return ESCQRS_OK;
}

static escqrs_status no_memory(escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory setting a timer");
}

escqrs_status esc_timer_request(esc_cell *cell, uint32_t request, int64_t delay_ns,
                                escqrs_timer **timer, escqrs_error *error)
{
    escqrs_timer *made = timer_new(cell->system, cell, TIMER_REQUEST);
    if (made == NULL) {
        return no_memory(error);
    }
    made->request = request;
    return hand_out(made, add(made, delay_ns, error), timer);
}

escqrs_status esc_timer_call(escqrs_actor_system *system, int64_t delay_ns,
                             void (*function)(void *data), void (*released)(void *data), void *data,
                             escqrs_timer **timer, escqrs_error *error)
{
    escqrs_timer *made = timer_new(system, NULL, TIMER_CALL);
    if (made == NULL) {
        return no_memory(error);
    }
    made->function = function;
    made->data = data;
    escqrs_status status = add(made, delay_ns, error);
    if (status == ESCQRS_OK) {
        made->released = released;
    }
    return hand_out(made, status, timer);
}

escqrs_status escqrs_context_schedule(escqrs_context *context, escqrs_ref *to,
                                      escqrs_envelope *envelope, int64_t delay_ns,
                                      int64_t interval_ns, escqrs_timer **timer,
                                      escqrs_error *error)
{
    esc_cell *cell = esc_context_cell(context);
    if (delay_ns < 0 || interval_ns < 0 || (interval_ns > 0 && envelope->type->copy == NULL)) {
        escqrs_envelope_destroy(envelope);
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "a timer's times are not negative, and the message of a "
                                "repeating one needs a copy function");
    }
    escqrs_timer *made =
        esc_cell_extra(cell) == NULL ? NULL : timer_new(cell->system, cell, TIMER_MESSAGE);
    if (made == NULL) {
        escqrs_envelope_destroy(envelope);
        return no_memory(error);
    }
    made->envelope = envelope;
    made->interval_ns = interval_ns;
    if (to != NULL && to != esc_cell_ref(cell)) {
        escqrs_ref_hold(to);
        made->to = to;
    }
    return hand_out(made, add(made, delay_ns, error), timer);
}

/* With the lock held. True: the heap's reference is the caller's. */
static bool cancel(esc_timers *timers, escqrs_timer *timer)
{
    /* release: pairs with esc_tick_take */
    atomic_store_explicit(&timer->cancelled, true, memory_order_release);
    leave_owner(timer);
    if (timer->place == 0) {
        return false;
    }
    take_out(timers, timer);
    return true;
}

bool escqrs_timer_cancel(escqrs_timer *timer)
{
    esc_timers *timers = &timer->system->timers;
    esc_mutex_lock(&timers->lock);
    bool before = atomic_load_explicit(&timer->cancelled, memory_order_relaxed);
    bool was_in = cancel(timers, timer);
    esc_mutex_unlock(&timers->lock);
    if (was_in) {
        escqrs_timer_release(timer);
    }
    return was_in || (!before && atomic_load_explicit(&timer->tick_sent, memory_order_acquire));
}

void esc_timers_of_cell_cancel(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra == NULL) {
        return;
    }
    esc_timers *timers = &cell->system->timers;
    esc_mutex_lock(&timers->lock);
    for (esc_list_node *node = esc_list_first(&extra->timers); node != NULL;
         node = esc_list_first(&extra->timers)) {
        escqrs_timer *timer = ESC_CONTAINER_OF(node, escqrs_timer, in_owner);
        if (cancel(timers, timer)) {
            esc_mutex_unlock(&timers->lock);
            escqrs_timer_release(timer);
            esc_mutex_lock(&timers->lock);
        }
    }
    esc_mutex_unlock(&timers->lock);
    escqrs_timer_release(extra->receive_timer);
    extra->receive_timer = NULL;
}

/* ---- in the actor ----------------------------------------------------------------------------- */

void esc_tick_destroy(escqrs_envelope *tick)
{
    escqrs_timer *timer = ESC_CONTAINER_OF(tick, escqrs_timer, tick);
    atomic_store_explicit(&timer->tick_sent, false, memory_order_release);
    escqrs_timer_release(timer);
}

escqrs_envelope *esc_tick_take(esc_cell *cell, escqrs_envelope *tick)
{
    escqrs_timer *timer = ESC_CONTAINER_OF(tick, escqrs_timer, tick);
    escqrs_envelope *envelope = NULL;
    /* acquire: pairs with cancel */
    if (!atomic_load_explicit(&timer->cancelled, memory_order_acquire) &&
        timer->instance == cell->instance_number) {
        if (timer->interval_ns > 0) {
            envelope = timer->envelope->type->copy(timer->envelope);
        } else {
            envelope = timer->envelope;
            timer->envelope = NULL;
        }
    }
    esc_tick_destroy(tick);
    return envelope;
}

static escqrs_status arm(esc_cell *cell, int64_t delay_ns, escqrs_error *error)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra->receive_timer != NULL) {
        escqrs_timer_cancel(extra->receive_timer);
        escqrs_timer_release(extra->receive_timer);
        extra->receive_timer = NULL;
    }
    if (extra->receive_timeout_ns == 0) {
        return ESCQRS_OK;
    }
    return esc_timer_request(cell, ESC_REQUEST_RECEIVE_TIMEOUT, delay_ns, &extra->receive_timer,
                             error);
}

void esc_receive_timeout_arm(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra == NULL || extra->receive_timeout_ns == 0) {
        return;
    }
    extra->active_ns = esc_timers_now(&cell->system->timers);
    escqrs_error error = {0};
    if (arm(cell, extra->receive_timeout_ns, &error) != ESCQRS_OK) {
        escqrs_log_write(&cell->system->log, ESCQRS_LOG_ERROR, "no receive timeout: %s",
                         error.message);
    }
}

escqrs_turn_end esc_receive_timeout_due(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra->receive_timeout_ns == 0) {
        return ESCQRS_TURN_NEXT;
    }
    int64_t quiet_ns = esc_timers_now(&cell->system->timers) - extra->active_ns;
    if (quiet_ns >= extra->receive_timeout_ns) {
        esc_receive_timeout_arm(cell);
        return esc_cell_deliver(cell, &receive_timeout_message);
    }
    escqrs_error error = {0};
    if (arm(cell, extra->receive_timeout_ns - quiet_ns, &error) != ESCQRS_OK) {
        escqrs_log_write(&cell->system->log, ESCQRS_LOG_ERROR, "no receive timeout: %s",
                         error.message);
    }
    return ESCQRS_TURN_NEXT;
}

escqrs_status escqrs_context_set_receive_timeout(escqrs_context *context, int64_t timeout_ns,
                                                 escqrs_error *error)
{
    esc_cell *cell = esc_context_cell(context);
    if (timeout_ns < 0) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a receive timeout cannot be negative");
    }
    esc_extra *extra = esc_cell_extra(cell);
    if (extra == NULL) {
        return no_memory(error);
    }
    extra->receive_timeout_ns = timeout_ns;
    esc_cell_set_slow(cell);
    extra->active_ns = esc_timers_now(&cell->system->timers);
    return arm(cell, timeout_ns, error);
}
