/* Streams: references to send to, and queues to read from outside of actors.
 *
 * A stream is a sink. `newest` is a stack of messages, linked by next, with two flags in its low
 * bits; who delivers pushes, unless it is CLOSED, so nothing comes after the close and nothing is
 * lost beside it. Readers take the whole stack, turn it round and share it as `pending`, under
 * `lock`, which no deliverer takes.
 *
 * Whoever is to be told of something says so in `waiting`: readers count themselves, and ARMED
 * stands for escqrs_stream_arm. Both look for messages afterwards, and a deliverer looks at
 * `waiting` after its push; all four are seq_cst, so one of the two sees the other. Readers sleep
 * on `word`. A push wakes one of them: each that is woken looks, also when its time is over, so a
 * message has always somebody who looks after it.
 *
 * Locks: `lock`, and that of the system's streams; both are leaves, no callback is made under them.
 */
#include "base/error.h"
#include "runtime/cell.h"
#include "runtime/runtime.h"

#include <limits.h>

/* In `newest`. */
#define CLOSED ((uintptr_t)1)   /* nothing is taken any more */
#define STOPPING ((uintptr_t)2) /* the system stops: no actor waits for more */
#define FLAGS (CLOSED | STOPPING)

/* In `waiting`. */
#define ARMED 1u
#define SLEEPER 2u /* one reader that sleeps, or is about to */

struct escqrs_stream {
    escqrs_sink sink;
    escqrs_stream_options options; /* does not change */
    _Atomic(uintptr_t) newest;
    _Atomic(uint32_t) waiting;
    _Atomic(uint32_t) word; /* futex: changes where somebody waits and something has come */

    esc_mutex lock;
    escqrs_message *pending; /* guarded by `lock`: taken from `newest`, oldest first */

    esc_list_node in_system; /* guarded by the system's streams.lock; until it is closed by it */
};

static escqrs_stream *stream_of(escqrs_sink *sink)
{
    return ESC_CONTAINER_OF(sink, escqrs_stream, sink);
}

/* ---- delivering ------------------------------------------------------------------------------- */

/* Tell at most `count` readers, and whoever armed. Async-signal-safe but for `ready`. */
static void wake(escqrs_stream *self, int count)
{
    /* seq_cst: see above; after the push, or the flag */
    uint32_t waiting = atomic_load_explicit(&self->waiting, memory_order_seq_cst);
    if (waiting >= SLEEPER) {
        /* release: pairs with the acquire in sleep_until_something */
        atomic_fetch_add_explicit(&self->word, 1, memory_order_release);
        esc_futex_wake(&self->word, count);
    }
    if ((waiting & ARMED) != 0 && escqrs_stream_disarm(self)) {
        self->options.ready(self->options.data);
    }
}

static bool stream_deliver(escqrs_sink *sink, escqrs_envelope *envelope)
{
    escqrs_stream *self = stream_of(sink);
    escqrs_message *message = &envelope->message;
    /* relaxed: only the value is used, and the exchange below checks it */
    uintptr_t newest = atomic_load_explicit(&self->newest, memory_order_relaxed);
    do {
        if ((newest & CLOSED) != 0) {
            return false;
        }
        message->next = (escqrs_message *)(newest & ~FLAGS);
        /* seq_cst: see above; as a release it pairs with collect */
    } while (!atomic_compare_exchange_weak_explicit(&self->newest, &newest,
                                                    (uintptr_t)message | (newest & FLAGS),
                                                    memory_order_seq_cst, memory_order_relaxed));
    wake(self, 1);
    return true;
}

static void stream_released(escqrs_sink *sink)
{
    escqrs_stream *self = stream_of(sink);
    if (self->options.released != NULL) {
        self->options.released(self->options.data);
    }
    esc_mutex_fini(&self->lock);
    escqrs_free(self);
}

static const escqrs_sink_ops stream_ops = {stream_deliver, stream_released};

bool esc_ref_is_stream(const escqrs_ref *ref)
{
    return ref->ops == &esc_sink_ops && ((const escqrs_sink *)ref)->sink_ops == &stream_ops;
}

bool esc_stream_is_closed(const escqrs_ref *ref)
{
    const escqrs_stream *self = (const escqrs_stream *)ref;
    /* relaxed: at once out of date */
    return (atomic_load_explicit(&self->newest, memory_order_relaxed) & CLOSED) != 0;
}

/* ---- taking ----------------------------------------------------------------------------------- */

/* With the lock held and `pending` empty: what has come, and the flags. */
static uintptr_t collect(escqrs_stream *self)
{
    /* seq_cst: see above; as an acquire it pairs with stream_deliver */
    uintptr_t word = atomic_fetch_and_explicit(&self->newest, FLAGS, memory_order_seq_cst);
    escqrs_message *message = (escqrs_message *)(word & ~FLAGS);
    while (message != NULL) {
        escqrs_message *next = message->next;
        message->next = self->pending;
        self->pending = message;
        message = next;
    }
    return word & FLAGS;
}

/* With the lock held. OK: `pending` has something; TIMEOUT, CLOSED. */
static escqrs_status look(escqrs_stream *self)
{
    uintptr_t flags = self->pending == NULL ? collect(self) : 0;
    if (self->pending != NULL) {
        return ESCQRS_OK;
    }
    bool closed = (flags & CLOSED) != 0;
    if ((flags & STOPPING) != 0 && escqrs_actor_current() != NULL) {
        closed = true;
    }
    return closed ? ESCQRS_CLOSED : ESCQRS_TIMEOUT;
}

static escqrs_status take(escqrs_stream *self, escqrs_envelope **message)
{
    esc_mutex_lock(&self->lock);
    escqrs_status status = look(self);
    if (status == ESCQRS_OK) {
        *message = (escqrs_envelope *)self->pending;
        self->pending = self->pending->next;
        (*message)->message.next = NULL;
    }
    esc_mutex_unlock(&self->lock);
    return status;
}

/* Until there is something to take. */
static escqrs_status sleep_until_something(escqrs_stream *self, int64_t deadline_ns)
{
    bool in_time = true;
    for (;;) {
        /* acquire: pairs with wake */
        uint32_t seen = atomic_load_explicit(&self->word, memory_order_acquire);
        esc_mutex_lock(&self->lock);
        escqrs_status status = look(self);
        esc_mutex_unlock(&self->lock);
        if (status != ESCQRS_TIMEOUT || !in_time) {
            return status;
        }
        in_time = esc_futex_wait(&self->word, seen, deadline_ns);
    }
}

static escqrs_status wait_for_something(escqrs_stream *self, int64_t deadline_ns)
{
    escqrs_status status = ESCQRS_NO_MEMORY;
    if (escqrs_runtime_block()) {
        /* seq_cst: see above; before the look */
        atomic_fetch_add_explicit(&self->waiting, SLEEPER, memory_order_seq_cst);
        status = sleep_until_something(self, deadline_ns);
        /* release: pairs with escqrs_stream_release */
        atomic_fetch_sub_explicit(&self->waiting, SLEEPER, memory_order_release);
    }
    escqrs_runtime_unblock();
    return status;
}

/* Manual: run an actor instead of waiting. OK: look again. */
static escqrs_status step(escqrs_stream *self, int64_t deadline_ns)
{
    bool in_time = esc_deadline_after(0) < deadline_ns;
    return in_time && escqrs_actor_system_step(self->sink.system) ? ESCQRS_OK : ESCQRS_TIMEOUT;
}

static escqrs_status say(escqrs_status status, escqrs_error *error)
{
    switch (status) {
    case ESCQRS_OK:
        return status;
    case ESCQRS_TIMEOUT:
        return escqrs_error_set(error, status, "nothing came to the stream in time");
    case ESCQRS_CLOSED:
        return escqrs_error_set(error, status, "the stream is closed");
    case ESCQRS_INVALID:
        return escqrs_error_set(error, status, "no stream, or no place for its message");
    default:
        return escqrs_error_set(error, status,
                                "no thread can be started for those that would send");
    }
}

escqrs_status escqrs_stream_next(escqrs_stream *stream, int64_t deadline_ns,
                                 escqrs_envelope **message, escqrs_error *error)
{
    escqrs_status status = escqrs_stream_try_next(stream, message);
    while (status == ESCQRS_TIMEOUT) {
        status = stream->sink.system->manual ? step(stream, deadline_ns)
                                             : wait_for_something(stream, deadline_ns);
        if (status != ESCQRS_OK) {
            break;
        }
        status = take(stream, message); /* unless another reader was faster */
    }
    return say(status, error);
}

escqrs_status escqrs_stream_try_next(escqrs_stream *stream, escqrs_envelope **message)
{
    if (message != NULL) {
        *message = NULL;
    }
    return stream == NULL || message == NULL ? ESCQRS_INVALID : take(stream, message);
}

escqrs_status escqrs_stream_wait(escqrs_stream *stream, int64_t deadline_ns, escqrs_error *error)
{
    return say(stream == NULL ? ESCQRS_INVALID : wait_for_something(stream, deadline_ns), error);
}

/* ---- being told ------------------------------------------------------------------------------- */

static bool has_something(escqrs_stream *self)
{
    esc_mutex_lock(&self->lock);
    bool has = self->pending != NULL;
    esc_mutex_unlock(&self->lock);
    /* seq_cst: see above; after ARMED */
    uintptr_t newest = atomic_load_explicit(&self->newest, memory_order_seq_cst);
    return has || (newest & ~STOPPING) != 0;
}

bool escqrs_stream_arm(escqrs_stream *stream)
{
    ESC_ASSERT(stream->options.ready != NULL);
    /* seq_cst: see above */
    atomic_fetch_or_explicit(&stream->waiting, ARMED, memory_order_seq_cst);
    return !has_something(stream) || !escqrs_stream_disarm(stream);
}

bool escqrs_stream_disarm(escqrs_stream *stream)
{
    /* acq_rel: whoever takes it back sees what was done before it was set */
    return (atomic_fetch_and_explicit(&stream->waiting, ~ARMED, memory_order_acq_rel) & ARMED) != 0;
}

/* ---- life ------------------------------------------------------------------------------------- */

escqrs_status escqrs_stream_open(escqrs_actor_system *system, const escqrs_stream_options *options,
                                 escqrs_stream **stream, escqrs_error *error)
{
    if (system == NULL || stream == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a stream needs an actor system");
    }
    *stream = NULL;
    escqrs_stream *made = escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory opening a stream");
    }
    if (options != NULL) {
        made->options = *options;
    }
    esc_mutex_init(&made->lock);
    esc_streams *all = &system->streams;
    esc_mutex_lock(&all->lock);
    bool closed = all->closed;
    if (!closed) {
        atomic_init(&made->newest, all->stopping ? STOPPING : 0);
        escqrs_sink_init(&made->sink, &stream_ops, system);
        esc_list_push_back(&all->list, &made->in_system);
    }
    esc_mutex_unlock(&all->lock);
    if (closed) {
        esc_mutex_fini(&made->lock);
        escqrs_free(made);
        return escqrs_error_set(error, ESCQRS_CLOSED, "the actor system has stopped");
    }
    *stream = made;
    return ESCQRS_OK;
}

escqrs_ref *escqrs_stream_ref(escqrs_stream *stream)
{
    return &stream->sink.ref;
}

void escqrs_stream_close(escqrs_stream *stream)
{
    /* seq_cst: see above; before the look at who waits */
    if (stream != NULL &&
        (atomic_fetch_or_explicit(&stream->newest, CLOSED, memory_order_seq_cst) & CLOSED) == 0) {
        wake(stream, INT_MAX);
    }
}

void escqrs_stream_release(escqrs_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    esc_streams *all = &stream->sink.system->streams;
    esc_mutex_lock(&all->lock);
    if (esc_list_contains_node(&stream->in_system)) {
        esc_list_remove(&stream->in_system);
    }
    esc_mutex_unlock(&all->lock);
    /* acquire: pairs with wait_for_something; nobody reads any more */
    ESC_ASSERT(atomic_load_explicit(&stream->waiting, memory_order_acquire) < SLEEPER);
    (void)escqrs_stream_disarm(stream);
    escqrs_stream_close(stream);
    escqrs_envelope *unread;
    while (take(stream, &unread) == ESCQRS_OK) {
        esc_dead_letter_send(stream->sink.system, &stream->sink.ref, unread);
    }
    escqrs_ref_release(&stream->sink.ref);
}

/* ---- the system's ----------------------------------------------------------------------------- */

void esc_streams_init(esc_streams *streams)
{
    esc_mutex_init(&streams->lock);
    esc_list_init(&streams->list);
}

void esc_streams_fini(esc_streams *streams)
{
    esc_mutex_fini(&streams->lock);
}

void esc_streams_stop(esc_streams *streams)
{
    esc_mutex_lock(&streams->lock);
    streams->stopping = true;
    for (esc_list_node *node = esc_list_first(&streams->list); node != NULL;
         node = esc_list_next(&streams->list, node)) {
        escqrs_stream *stream = ESC_CONTAINER_OF(node, escqrs_stream, in_system);
        /* seq_cst, and release: as in escqrs_stream_close and wake. Whoever armed waits outside. */
        atomic_fetch_or_explicit(&stream->newest, STOPPING, memory_order_seq_cst);
        atomic_fetch_add_explicit(&stream->word, 1, memory_order_release);
        esc_futex_wake(&stream->word, INT_MAX);
    }
    esc_mutex_unlock(&streams->lock);
}

void esc_streams_close(esc_streams *streams)
{
    for (;;) {
        esc_mutex_lock(&streams->lock);
        streams->closed = true;
        esc_list_node *node = esc_list_pop_front(&streams->list);
        escqrs_stream *stream = ESC_CONTAINER_OF(node, escqrs_stream, in_system);
        if (stream != NULL) { /* whoever releases it waits for the lock: it is there */
            escqrs_ref_hold(&stream->sink.ref);
        }
        esc_mutex_unlock(&streams->lock);
        if (stream == NULL) {
            return;
        }
        escqrs_stream_close(stream);
        escqrs_ref_release(&stream->sink.ref);
    }
}
