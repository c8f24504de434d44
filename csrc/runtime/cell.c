/* A cell: an actor of an actor system, from its making to the end of its memory, and its turns.
 *
 * Two kinds of turn. A *message* turn hands a message of the mailbox to the actor's receive. A
 * *nudge* turn looks at the signals: those that need no code of the user are handled at once, then
 * one thing that does is done (next_action says which), and where more is due another nudge turn
 * follows. Either may suspend: then `resume` ends what the turn began.
 *
 * States: STARTING (create, Started) - RUNNING - FAILED (waits for the supervisor) - RESTARTING
 * (Restarting was handled, waits for the children) - STOPPING (Stopping was handled, waits for the
 * children) - STOPPED (Stopped was handled; what comes are dead letters). In all but RUNNING and
 * STOPPED the mailbox is paused. In STOPPED it is closed as soon as it is empty, and
 * esc_cell_closed tells the rest of the world: so whoever hears of the end finds the mailbox closed
 * and the name free.
 */
#include "runtime/cell.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "runtime/mailbox.h"

_Static_assert(offsetof(esc_cell, parent) <= 2 * (size_t)ESC_CACHE_LINE,
               "a message touches two cache lines of its actor");

/* ---- memory ----------------------------------------------------------------------------------- */

#define ID_BLOCK 4096

/* Blocks that a worker keeps, each with the address of the next one in it: actors that come and go
 * by hundreds would have malloc split and join. A sanitizer is to see each of them freed. */
#define SPARE_MAX 512
#ifdef __SANITIZE_ADDRESS__
#define KEEPS_SPARE false
#else
#define KEEPS_SPARE true
#endif

static void *block_take(void)
{
    esc_worker *worker = esc_thread_here.worker;
    if (worker == NULL || worker->spare == NULL) {
        return escqrs_alloc(sizeof(esc_cell) + ESC_CACHE_LINE - ESC_ALLOC_ALIGNMENT);
    }
    void *block = worker->spare;
    worker->spare = *(void **)block;
    worker->spare_count--;
    return block;
}

static void block_free(void *block)
{
    esc_worker *worker = esc_thread_here.worker;
    if (!KEEPS_SPARE || worker == NULL || worker->spare_count >= SPARE_MAX) {
        escqrs_free(block);
        return;
    }
    *(void **)block = worker->spare;
    worker->spare = block;
    worker->spare_count++;
}

void esc_cell_blocks_free(esc_worker *worker)
{
    while (worker->spare != NULL) {
        void *block = worker->spare;
        worker->spare = *(void **)block;
        escqrs_free(block);
    }
}

/* Of a manual system its own, so that names and consistent hashing are the same in each run. */
static uint64_t next_id(escqrs_actor_system *system)
{
    if (system->manual) {
        return atomic_fetch_add_explicit(&system->last_id, 1, memory_order_relaxed) + 1;
    }
    static _Atomic(uint64_t) blocks;
    static _Thread_local uint64_t next;
    if (next % ID_BLOCK == 0) {
        /* relaxed: only unique */
        next = (atomic_fetch_add_explicit(&blocks, 1, memory_order_relaxed)) * ID_BLOCK;
        next += next == 0; /* 0 is none */
    }
    return next++;
}

esc_extra *esc_cell_extra(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (extra != NULL) {
        return extra;
    }
    extra = escqrs_alloc_zero(sizeof *extra);
    if (extra == NULL) {
        return NULL;
    }
    esc_list_init(&extra->watchers);
    esc_list_init(&extra->timers);
    esc_vector_init(&extra->behaviours, sizeof(escqrs_receive));
    esc_vector_init(&extra->unanswered, sizeof(escqrs_future *));
    /* release: pairs with esc_cell_has of other threads */
    atomic_store_explicit(&cell->extra, extra, memory_order_release);
    return extra;
}

escqrs_status esc_cell_init(esc_cell *cell, escqrs_actor_system *system, esc_cell *parent,
                            escqrs_props *props, escqrs_slice name, escqrs_error *error)
{
    escqrs_actor_init(&cell->actor, system->runtime, props->host,
                      props->boxed ? &esc_boxed_cell_ops : &esc_cell_ops);
    cell->actor.paused = true;
    cell->props = props;
    cell->system = system;
    cell->id = next_id(system);
    atomic_init(&cell->state, ESCQRS_REF_STARTING);
    if (name.size > 0) {
        cell->name = escqrs_strdup(name);
        if (cell->name == NULL) {
            goto fail;
        }
    }
    if (props->boxed) {
        esc_extra *extra = esc_cell_extra(cell);
        if (extra == NULL || esc_box_create(&props->mailbox, &extra->box) != ESCQRS_OK) {
            goto fail;
        }
    }
    escqrs_props_hold(props);
    if (parent != NULL) {
        cell->parent = parent;
        escqrs_actor_hold(&parent->actor);
    }
    return ESCQRS_OK;

fail:
    escqrs_free(cell->name);
    escqrs_free(esc_cell_has(cell));
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory spawning an actor");
}

escqrs_status esc_cell_create(escqrs_actor_system *system, esc_cell *parent, escqrs_props *props,
                              escqrs_slice name, esc_cell **cell, escqrs_error *error)
{
    /* where a cache line begins, for the assertion above to hold */
    void *block = block_take();
    if (block == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory spawning an actor");
    }
    uintptr_t address = ((uintptr_t)block + ESC_CACHE_LINE - 1) & ~(uintptr_t)(ESC_CACHE_LINE - 1);
    esc_cell *made = (esc_cell *)address;
    *made = (esc_cell){.block = block};
    escqrs_status status = esc_cell_init(made, system, parent, props, name, error);
    if (status != ESCQRS_OK) {
        block_free(block);
        return status;
    }
    *cell = made;
    return ESCQRS_OK;
}

static void extra_destroy(esc_extra *extra)
{
    /* relaxed: nobody else has it any more */
    esc_tree_destroy(atomic_load_explicit(&extra->tree, memory_order_relaxed));
    esc_router_fini(atomic_load_explicit(&extra->router, memory_order_relaxed));
    esc_box_destroy(extra->box);
    esc_vector_fini(&extra->behaviours);
    esc_vector_fini(&extra->unanswered);
    esc_map_fini(&extra->watching);
    escqrs_free(extra->last_words);
    escqrs_free(extra->restarts);
    escqrs_free(extra);
}

/* Its memory and what it alone refers to. Returns the parent where that had its last reference
 * here: not by recursion, for a tree may be deep. */
static esc_cell *cell_free(esc_cell *cell)
{
    for (escqrs_message *message = escqrs_actor_take(&cell->actor); message != NULL;
         message = escqrs_actor_take(&cell->actor)) {
        escqrs_envelope_destroy((escqrs_envelope *)message); /* it was never run to its end */
    }
    esc_cell *parent = cell->parent;
    esc_extra *extra = esc_cell_has(cell);
    if (extra != NULL) {
        extra_destroy(extra);
    }
    escqrs_props_release(cell->props);
    escqrs_free(cell->name);
    if (parent == NULL) {
        esc_system_free(cell->system);
    } else {
        block_free(cell->block);
    }
    return parent != NULL && esc_actor_let_go(&parent->actor) ? parent : NULL;
}

static void cell_destroy(escqrs_actor *actor)
{
    for (esc_cell *cell = esc_cell_of(actor); cell != NULL;) {
        cell = cell_free(cell);
    }
}

/* The root has no name that anybody could know. */
static void cell_describe(const escqrs_actor *actor, char *text, size_t size)
{
    text[0] = '\0';
    if (((const esc_cell *)actor)->parent != NULL) {
        escqrs_ref_path((const escqrs_ref *)actor, text, size);
    }
}

/* ---- signals in, states ----------------------------------------------------------------------- */

void esc_cell_request(esc_cell *cell, uint32_t requests)
{
    /* release: pairs with the exchange in nudge_turn */
    atomic_fetch_or_explicit(&cell->requests, requests, memory_order_release);
    esc_actor_nudge(&cell->actor); /* closed: it needs nothing any more */
}

static void set_state(esc_cell *cell, escqrs_ref_state state)
{
    /* release: pairs with esc_cell_state */
    atomic_store_explicit(&cell->state, (uint8_t)state, memory_order_release);
    cell->actor.paused = state != ESCQRS_REF_RUNNING && state != ESCQRS_REF_STOPPED;
}

void esc_cell_set_slow(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    cell->actor.slow = esc_cell_state(cell) != ESCQRS_REF_RUNNING ||
                       (extra != NULL && extra->receive_timeout_ns > 0);
}

escqrs_turn_end esc_cell_behave(esc_cell *cell, escqrs_envelope *message)
{
    esc_extra *extra = esc_cell_has(cell);
    escqrs_receive receive = cell->props->actor_class->receive;
    if (extra != NULL && extra->behaviours.count > 0) {
        receive = ESC_VECTOR_AT(&extra->behaviours, escqrs_receive, extra->behaviours.count - 1);
    }
    return receive(esc_cell_context(cell), cell->instance, message);
}

void esc_cell_set_receive(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (cell->props->guard != NULL) {
        cell->receive = esc_guard_receive;
    } else if (cell->props->receive_middleware_count > 0) {
        cell->receive = esc_middleware_receive;
    } else if (extra != NULL && extra->behaviours.count > 0) {
        cell->receive =
            ESC_VECTOR_AT(&extra->behaviours, escqrs_receive, extra->behaviours.count - 1);
    } else {
        cell->receive = cell->props->actor_class->receive;
    }
}

/* ---- the end of a message --------------------------------------------------------------------- */

static void destroy_content(escqrs_envelope *envelope)
{
    if (envelope->type->destroy != NULL) {
        envelope->type->destroy(envelope);
    } else {
        escqrs_free(envelope);
    }
}

void esc_cell_finish(esc_cell *cell, escqrs_envelope *envelope)
{
    escqrs_ref *sender = envelope->sender;
    if (sender != NULL) {
        envelope->sender = NULL;
        if (esc_ref_is_future(sender) &&
            !escqrs_future_is_complete((const escqrs_future *)sender)) {
            esc_unanswered_keep(cell, (escqrs_future *)sender);
        } else {
            escqrs_ref_release(sender);
        }
    }
    destroy_content(envelope);
}

void escqrs_envelope_destroy(escqrs_envelope *envelope)
{
    if (envelope == NULL) {
        return;
    }
    escqrs_ref *sender = envelope->sender;
    envelope->sender = NULL;
    escqrs_ref_release(sender);
    destroy_content(envelope);
}

/* The turn lets go of its share of the message. */
static void end_lease(esc_cell *cell, esc_extra *extra)
{
    esc_lease *lease = extra->lease;
    extra->lease = NULL;
    esc_lease_drop(cell, lease);
}

void esc_cell_finish_current(esc_cell *cell)
{
    escqrs_envelope *current = cell->current;
    bool kept = cell->actor.kept;
    cell->current = NULL;
    cell->actor.kept = false;
    if (current == NULL) {
        return;
    }
    esc_extra *extra = esc_cell_has(cell);
    if (!kept) {
        esc_cell_finish(cell, current);
    } else if (extra != NULL && extra->lease != NULL) {
        end_lease(cell, extra);
    } else if (current->type == &escqrs_terminated) {
        esc_watch_drop(ESC_CONTAINER_OF(current, esc_watch, terminated.envelope));
    }
}

/* ---- lifecycle -------------------------------------------------------------------------------- */

#define LIFECYCLE_TYPE(text)                                                                       \
    {                                                                                              \
        .name = (text)                                                                             \
    }
const escqrs_message_type escqrs_started = LIFECYCLE_TYPE("Started");
const escqrs_message_type escqrs_stopping = LIFECYCLE_TYPE("Stopping");
const escqrs_message_type escqrs_stopped = LIFECYCLE_TYPE("Stopped");
const escqrs_message_type escqrs_restarting = LIFECYCLE_TYPE("Restarting");

/* Never written: they have no sender and are in no mailbox. */
static escqrs_envelope started_message = {.type = &escqrs_started};
static escqrs_envelope stopping_message = {.type = &escqrs_stopping};
static escqrs_envelope stopped_message = {.type = &escqrs_stopped};
static escqrs_envelope restarting_message = {.type = &escqrs_restarting};

static void instance_destroy(esc_cell *cell)
{
    if (!cell->has_instance) {
        return;
    }
    cell->has_instance = false;
    void *instance = cell->instance;
    cell->instance = NULL;
    const escqrs_actor_class *actor_class = cell->props->actor_class;
    if (actor_class->destroy != NULL) {
        actor_class->destroy(instance, cell->props->user_data);
    }
    if (cell->props->guard != NULL) {
        cell->props->guard->end(cell);
    }
}

static escqrs_turn_end deliver(esc_cell *cell, escqrs_envelope *message, esc_step step)
{
    cell->step = (uint8_t)step;
    cell->current = message;
    cell->actor.kept = true;
    return esc_cell_after_callback(cell,
                                   cell->receive(esc_cell_context(cell), cell->instance, message));
}

escqrs_turn_end esc_cell_deliver(esc_cell *cell, escqrs_envelope *message)
{
    return deliver(cell, message, ESC_STEP_NONE);
}

static escqrs_turn_end start(esc_cell *cell)
{
    cell->instance_number++;
    esc_behaviours_clear(cell);
    esc_cell_set_receive(cell);
    const escqrs_actor_class *actor_class = cell->props->actor_class;
    cell->instance = cell->props->user_data;
    if (actor_class->create != NULL) {
        cell->instance = NULL;
        if (actor_class->create(esc_cell_context(cell), cell->props->user_data, &cell->instance) ==
            ESCQRS_TURN_FAILED) {
            cell->step = ESC_STEP_NONE;
            set_state(cell, ESCQRS_REF_FAILED);
            esc_failure_raise(cell, NULL);
            return ESCQRS_TURN_NEXT;
        }
    }
    cell->has_instance = true;
    if (cell->props->receive_timeout_ns > 0 && esc_cell_extra(cell) != NULL) {
        esc_cell_has(cell)->receive_timeout_ns = cell->props->receive_timeout_ns;
    }
    return deliver(cell, &started_message, ESC_STEP_STARTED);
}

/* What ends with an instance, whatever comes after it. */
static void end_instance(esc_cell *cell)
{
    instance_destroy(cell);
    esc_timers_of_cell_cancel(cell);
    esc_extra *extra = esc_cell_has(cell);
    if (extra != NULL) {
        extra->receive_timeout_ns = 0;
    }
}

static escqrs_turn_end begin_restart(esc_cell *cell)
{
    cell->wanted &= ~(ESC_REQUEST_RESTART | ESC_REQUEST_RESUME);
    esc_failure_forget(cell);
    set_state(cell, ESCQRS_REF_RESTARTING);
    if (!cell->has_instance) {
        esc_children_request(cell, ESC_REQUEST_STOP, NULL);
        return ESCQRS_TURN_NEXT;
    }
    return deliver(cell, &restarting_message, ESC_STEP_RESTARTING);
}

static escqrs_turn_end finish_restart(esc_cell *cell)
{
    end_instance(cell);
    esc_stash_return(cell);
    set_state(cell, ESCQRS_REF_STARTING);
    return start(cell);
}

static escqrs_turn_end begin_stop(esc_cell *cell)
{
    esc_failure_forget(cell);
    set_state(cell, ESCQRS_REF_STOPPING);
    if (!cell->has_instance) {
        esc_children_request(cell, ESC_REQUEST_STOP, NULL);
        return ESCQRS_TURN_NEXT;
    }
    return deliver(cell, &stopping_message, ESC_STEP_STOPPING);
}

/* Stopped was handled, or there is no instance to handle it. */
static void become_stopped(esc_cell *cell)
{
    end_instance(cell);
    esc_stash_return(cell);
    esc_extra *extra = esc_cell_has(cell);
    if (extra != NULL) {
        esc_deferred_answer(cell);
        esc_unanswered_end(cell);
        esc_watching_end(cell);
        esc_router_stopped(cell);
        if (extra->box != NULL) {
            esc_box_close(extra->box);
            cell->wanted |= ESC_REQUEST_BOX; /* what is in it becomes dead letters */
        }
    }
    set_state(cell, ESCQRS_REF_STOPPED);
    cell->actor.slow = true;
    cell->actor.closing = true;
}

static escqrs_turn_end finish_stop(esc_cell *cell)
{
    if (!cell->has_instance) {
        become_stopped(cell);
        return ESCQRS_TURN_NEXT;
    }
    return deliver(cell, &stopped_message, ESC_STEP_STOPPED);
}

/* A lifecycle message was handled. */
static void after_step(esc_cell *cell, esc_step step)
{
    switch (step) {
    case ESC_STEP_STARTED:
        set_state(cell, ESCQRS_REF_RUNNING);
        esc_last_words_forget(cell);
        esc_cell_set_slow(cell);
        esc_receive_timeout_arm(cell);
        break;
    case ESC_STEP_RESTARTING:
    case ESC_STEP_STOPPING:
        esc_children_request(cell, ESC_REQUEST_STOP, NULL);
        break;
    case ESC_STEP_STOPPED:
        become_stopped(cell);
        break;
    case ESC_STEP_NONE:
        break;
    }
}

static void callback_failed(esc_cell *cell, esc_step step)
{
    switch (step) {
    case ESC_STEP_RESTARTING:
        esc_failure_note(cell, cell->current, ESCQRS_DIRECTIVE_RESTART);
        break;
    case ESC_STEP_STOPPING:
    case ESC_STEP_STOPPED:
        esc_failure_note(cell, cell->current, ESCQRS_DIRECTIVE_STOP);
        break;
    case ESC_STEP_STARTED:
    case ESC_STEP_NONE:
        set_state(cell, ESCQRS_REF_FAILED);
        esc_failure_raise(cell, cell->current);
        break;
    }
}

void esc_cell_fail_for_child(esc_cell *cell)
{
    set_state(cell, ESCQRS_REF_FAILED);
}

/* ---- nudge turns ------------------------------------------------------------------------------ */

typedef enum action {
    ACTION_NONE,
    ACTION_START,
    ACTION_BEGIN_STOP,
    ACTION_FINISH_STOP,
    ACTION_BEGIN_RESTART,
    ACTION_FINISH_RESTART,
    ACTION_RESUME,
    ACTION_DEFERRED,
    ACTION_RECEIVE_TIMEOUT,
    ACTION_BOX,
    ACTION_LETTERS, /* of a box, after the end */
} action;

static action next_action_running(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    if (cell->wanted & ESC_REQUEST_STOP) {
        return ACTION_BEGIN_STOP;
    }
    if (cell->wanted & ESC_REQUEST_RESTART) {
        return ACTION_BEGIN_RESTART;
    }
    if (extra == NULL) {
        return ACTION_NONE;
    }
    if (extra->deferred != NULL) {
        return ACTION_DEFERRED;
    }
    if (cell->wanted & ESC_REQUEST_RECEIVE_TIMEOUT) {
        return ACTION_RECEIVE_TIMEOUT;
    }
    return cell->wanted & ESC_REQUEST_BOX ? ACTION_BOX : ACTION_NONE;
}

static action next_action(esc_cell *cell)
{
    switch (esc_cell_state(cell)) {
    case ESCQRS_REF_STARTING:
        return ACTION_START;
    case ESCQRS_REF_RUNNING:
        return next_action_running(cell);
    case ESCQRS_REF_FAILED:
        if (cell->wanted & ESC_REQUEST_STOP) {
            return ACTION_BEGIN_STOP;
        }
        if (cell->wanted & ESC_REQUEST_RESTART) {
            return ACTION_BEGIN_RESTART;
        }
        return cell->wanted & ESC_REQUEST_RESUME ? ACTION_RESUME : ACTION_NONE;
    case ESCQRS_REF_RESTARTING:
        return esc_children_gone(cell) ? ACTION_FINISH_RESTART : ACTION_NONE;
    case ESCQRS_REF_STOPPING:
        return esc_children_gone(cell) ? ACTION_FINISH_STOP : ACTION_NONE;
    case ESCQRS_REF_STOPPED:
        return cell->wanted & ESC_REQUEST_BOX ? ACTION_LETTERS : ACTION_NONE;
    }
    return ACTION_NONE;
}

/* The supervisor said: go on. So does the child whose failure this one has escalated. */
static void resume_after_failure(esc_cell *cell)
{
    cell->wanted &= ~ESC_REQUEST_RESUME;
    esc_failure_resume_escalated(cell);
    esc_failure_forget(cell);
    if (!cell->has_instance) { /* create has failed: there is nothing to go on with */
        cell->wanted |= ESC_REQUEST_STOP;
        return;
    }
    set_state(cell, ESCQRS_REF_RUNNING);
    esc_last_words_forget(cell);
    esc_cell_set_slow(cell);
}

static escqrs_turn_end box_turn(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    esc_box *box = extra->box;
    if (extra->front != NULL) {
        escqrs_envelope *first = (escqrs_envelope *)extra->front;
        extra->front = extra->front->next;
        return esc_cell_look(cell, first);
    }
    int64_t now_ns = esc_box_wants_time(box) ? esc_timers_now(&cell->system->timers) : 0;
    escqrs_envelope *envelope = esc_box_take(box, now_ns);
    if (envelope == NULL) {
        cell->wanted &= ~ESC_REQUEST_BOX;
        return ESCQRS_TURN_NEXT;
    }
    return esc_cell_look(cell, envelope);
}

static escqrs_turn_end deferred_turn(esc_cell *cell)
{
    esc_extra *extra = esc_cell_has(cell);
    esc_signal *signal = extra->deferred;
    extra->deferred = signal->next;
    if (signal->kind == ESC_SIGNAL_TERMINATED) {
        return esc_watch_deliver(cell, ESC_CONTAINER_OF(signal, esc_watch, signal));
    }
    return esc_continuation_run(cell, (escqrs_continuation *)signal);
}

static escqrs_turn_end act(esc_cell *cell, action what)
{
    switch (what) {
    case ACTION_NONE:
        break;
    case ACTION_START:
        return start(cell);
    case ACTION_BEGIN_STOP:
        return begin_stop(cell);
    case ACTION_FINISH_STOP:
        return finish_stop(cell);
    case ACTION_BEGIN_RESTART:
        return begin_restart(cell);
    case ACTION_FINISH_RESTART:
        return finish_restart(cell);
    case ACTION_RESUME:
        resume_after_failure(cell);
        break;
    case ACTION_DEFERRED:
        return deferred_turn(cell);
    case ACTION_RECEIVE_TIMEOUT:
        cell->wanted &= ~ESC_REQUEST_RECEIVE_TIMEOUT;
        return esc_receive_timeout_due(cell);
    case ACTION_BOX:
    case ACTION_LETTERS:
        return box_turn(cell);
    }
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end nudge_turn(esc_cell *cell)
{
    esc_signals_collect(cell);
    /* acquire: pairs with esc_cell_request */
    if (atomic_load_explicit(&cell->requests, memory_order_relaxed) != 0) {
        cell->wanted |= atomic_exchange_explicit(&cell->requests, 0, memory_order_acquire);
    }
    escqrs_ref_state state = esc_cell_state(cell);
    if (state == ESCQRS_REF_RUNNING) { /* stale: it was decided on before it stopped or restarted */
        cell->wanted &= ~ESC_REQUEST_RESUME;
    }
    escqrs_turn_end turn = act(cell, next_action(cell));
    if (turn != ESCQRS_TURN_SUSPEND) {
        cell->actor.nudge_again = next_action(cell) != ACTION_NONE;
    }
    return turn;
}

/* ---- message turns ---------------------------------------------------------------------------- */

/* A callback has answered. */
escqrs_turn_end esc_cell_after_callback(esc_cell *cell, escqrs_turn_end turn)
{
    if (turn == ESCQRS_TURN_SUSPEND) {
        return turn;
    }
    esc_step step = (esc_step)cell->step;
    cell->step = ESC_STEP_NONE;
    if (turn == ESCQRS_TURN_FAILED) {
        callback_failed(cell, step);
    }
    esc_cell_finish_current(cell);
    if (turn != ESCQRS_TURN_FAILED || step != ESC_STEP_STARTED) {
        after_step(cell, step);
    }
    return ESCQRS_TURN_NEXT;
}

escqrs_turn_end esc_cell_call_resume(esc_cell *cell)
{
    const escqrs_actor_class *class = cell->props->actor_class;
    if (class->resume == NULL) {
        return escqrs_context_fail(esc_cell_context(cell), ESCQRS_INVALID, NULL,
                                   "it suspended, and its class %s has no resume",
                                   class->name != NULL ? class->name : "");
    }
    return class->resume(esc_cell_context(cell), cell->instance);
}

static escqrs_turn_end resume_turn(esc_cell *cell)
{
    escqrs_turn_end turn =
        cell->props->guard != NULL ? esc_guard_resume(cell) : esc_cell_call_resume(cell);
    turn = esc_cell_after_callback(cell, turn);
    if (turn != ESCQRS_TURN_SUSPEND) {
        cell->actor.nudge_again = cell->actor.nudge_again || next_action(cell) != ACTION_NONE;
    }
    return turn;
}

static escqrs_turn_end internal_turn(esc_cell *cell, escqrs_envelope *envelope)
{
    const escqrs_message_type *type = envelope->type;
    if (type == &esc_internal_types[ESC_INTERNAL_TICK]) {
        envelope = esc_tick_take(cell, envelope);
        return envelope == NULL ? ESCQRS_TURN_NEXT : esc_cell_look(cell, envelope);
    }
    if (type == &esc_internal_types[ESC_INTERNAL_ROUTER]) {
        return esc_router_handle(cell, envelope);
    }
    escqrs_envelope_destroy(envelope);
    cell->wanted |= ESC_REQUEST_STOP;
    cell->actor.nudge_again = true;
    return ESCQRS_TURN_NEXT;
}

/* It has stopped, or counts its messages for the receive timeout. */
static bool look_closer(esc_cell *cell, escqrs_envelope *envelope)
{
    if (esc_cell_state(cell) == ESCQRS_REF_STOPPED) {
        if (esc_type_is_internal(envelope->type)) {
            escqrs_envelope_destroy(envelope);
        } else {
            esc_dead_letter_send(cell->system, esc_cell_ref(cell), envelope);
        }
        return true;
    }
    if (!envelope->type->quiet) {
        esc_cell_has(cell)->active_ns = esc_timers_now(&cell->system->timers);
    }
    return false;
}

escqrs_turn_end esc_cell_look(esc_cell *cell, escqrs_envelope *envelope)
{
    if (cell->actor.slow && look_closer(cell, envelope)) {
        return ESCQRS_TURN_NEXT;
    }
    if (esc_type_is_internal(envelope->type)) {
        return internal_turn(cell, envelope);
    }
    return esc_cell_hand_over(cell, envelope);
}

static escqrs_turn_end cell_receive(escqrs_actor *actor, escqrs_message *message)
{
    esc_cell *cell = esc_cell_of(actor);
    if (message == &actor->nudge) {
        return nudge_turn(cell);
    }
    return message == NULL ? resume_turn(cell) : esc_cell_look(cell, (escqrs_envelope *)message);
}

/* Two of the same, to be told apart by their addresses. */
const escqrs_actor_ops esc_cell_ops = {cell_receive, cell_destroy, cell_describe};
const escqrs_actor_ops esc_boxed_cell_ops = {cell_receive, cell_destroy, cell_describe};

/* ---- the end ---------------------------------------------------------------------------------- */

void esc_cell_closed(escqrs_actor *actor)
{
    esc_cell *cell = esc_cell_of(actor);
    escqrs_actor_system *system = cell->system;
    esc_signals_answer(cell);
    if (cell->parent != NULL) {
        esc_tree_leave(cell);
    }
    if (esc_cell_has(cell) != NULL) {
        esc_watchers_tell(cell);
    }
    /* relaxed: a count */
    atomic_fetch_sub_explicit(&system->actor_count, cell->parent != NULL, memory_order_relaxed);
    /* seq_cst: pairs with who waits for it, and stands before the look at their count */
    atomic_store_explicit(&cell->ended, true, memory_order_seq_cst);
    esc_system_actor_stopped(system);
    escqrs_actor_release(actor); /* the tree's; nothing may be touched after it */
}
