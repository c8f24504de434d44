/* A box: the mailbox of an actor that wants more than the lock-free one gives: bounds, priorities,
 * statistics. One lock; a ring, or a heap where there are priorities. The actor is woken (a
 * request) by the put that finds it with nothing to take, and takes one message a turn.
 */
#include <string.h>

#include "runtime/cell.h"
#include "runtime/runtime.h"

typedef struct entry {
    escqrs_envelope *envelope;
    int64_t priority;
    uint64_t sequence;
    int64_t put_ns;
} entry;

struct esc_box {
    esc_mutex lock;
    esc_cond room;
    escqrs_mailbox_options options; /* does not change */

    /* guarded by `lock` */
    entry *entries;  /* a ring, or a heap */
    size_t capacity; /* of `entries`, a power of two or 0 */
    size_t first;    /* ring: the oldest */
    size_t count;
    size_t waiting; /* threads that wait for room */
    uint64_t sequence;
    bool awake;    /* the actor has been told, and has not found the box empty since */
    bool poisoned; /* what comes now comes too late */
    bool closed;
    escqrs_mailbox_stats stats;
};

escqrs_status esc_box_create(const escqrs_mailbox_options *options, esc_box **box)
{
    esc_box *made = escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    made->options = *options;
    esc_mutex_init(&made->lock);
    esc_cond_init(&made->room);
    *box = made;
    return ESCQRS_OK;
}

bool esc_box_wants_time(const esc_box *box)
{
    return box->options.statistics;
}

bool esc_box_blocks(const esc_box *box)
{
    return box->options.capacity > 0 && box->options.on_full == ESCQRS_ON_FULL_BLOCK;
}

/* ---- entries; all with the lock held ---------------------------------------------------------- */

static bool is_before(const entry *a, const entry *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->sequence < b->sequence;
}

static entry *ring_at(esc_box *box, size_t index)
{
    return &box->entries[(box->first + index) & (box->capacity - 1)];
}

static bool grow(esc_box *box)
{
    if (box->count < box->capacity) {
        return true;
    }
    size_t capacity = box->capacity == 0 ? 8 : box->capacity * 2;
    entry *grown = escqrs_alloc_array(capacity, sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    for (size_t i = 0; i < box->count; i++) {
        grown[i] = *ring_at(box, i); /* a heap's `first` is 0 */
    }
    escqrs_free(box->entries);
    box->entries = grown;
    box->capacity = capacity;
    box->first = 0;
    return true;
}

static void heap_up(entry *entries, size_t at)
{
    entry moved = entries[at];
    while (at > 0 && is_before(&moved, &entries[(at - 1) / 2])) {
        entries[at] = entries[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    entries[at] = moved;
}

static void heap_down(entry *entries, size_t count, size_t at)
{
    entry moved = entries[at];
    for (size_t child = at * 2 + 1; child < count; child = at * 2 + 1) {
        if (child + 1 < count && is_before(&entries[child + 1], &entries[child])) {
            child++;
        }
        if (!is_before(&entries[child], &moved)) {
            break;
        }
        entries[at] = entries[child];
        at = child;
    }
    entries[at] = moved;
}

static entry take_first(esc_box *box)
{
    entry first = *ring_at(box, 0);
    box->count--;
    if (box->options.priority == NULL) {
        box->first = (box->first + 1) & (box->capacity - 1);
    } else if (box->count > 0) {
        box->entries[0] = box->entries[box->count];
        heap_down(box->entries, box->count, 0);
    }
    return first;
}

/* With priorities, the oldest of the least. */
static entry take_dropped(esc_box *box)
{
    if (box->options.priority == NULL) {
        return take_first(box);
    }
    size_t least = 0;
    for (size_t i = 1; i < box->count; i++) {
        const entry *a = &box->entries[i];
        const entry *b = &box->entries[least];
        if (a->priority < b->priority ||
            (a->priority == b->priority && a->sequence < b->sequence)) {
            least = i;
        }
    }
    entry dropped = box->entries[least];
    box->count--;
    if (least < box->count) {
        box->entries[least] = box->entries[box->count];
        heap_down(box->entries, box->count, least);
        heap_up(box->entries, least);
    }
    return dropped;
}

static void append(esc_box *box, escqrs_envelope *envelope, int64_t priority, int64_t now_ns)
{
    entry added = {
        .envelope = envelope, .priority = priority, .sequence = box->sequence++, .put_ns = now_ns};
    if (box->options.priority == NULL) {
        *ring_at(box, box->count) = added;
        box->count++;
    } else {
        box->entries[box->count] = added;
        heap_up(box->entries, box->count++);
    }
    if (box->count > box->stats.length_max) {
        box->stats.length_max = box->count;
    }
}

/* ---- putting ---------------------------------------------------------------------------------- */

/* With the lock held: what being full means now. OK: there is room, or has been made. */
static esc_put make_room(esc_box *box, escqrs_envelope **dropped)
{
    if (box->options.capacity == 0 || box->count < box->options.capacity) {
        return ESC_PUT_OK;
    }
    switch (box->options.on_full) {
    case ESCQRS_ON_FULL_DROP_NEW:
        box->stats.dropped++;
        return ESC_PUT_DROPPED;
    case ESCQRS_ON_FULL_DROP_OLD:
        box->stats.dropped++;
        *dropped = take_dropped(box).envelope;
        return ESC_PUT_OK;
    case ESCQRS_ON_FULL_BLOCK:
    case ESCQRS_ON_FULL_FAIL:
        break;
    }
    return ESC_PUT_FULL;
}

static esc_put put(esc_box *box, escqrs_envelope *envelope, bool forced, int64_t priority,
                   int64_t now_ns, escqrs_envelope **dropped)
{
    if (box->closed || box->poisoned) {
        return ESC_PUT_CLOSED;
    }
    if (!grow(box)) {
        return ESC_PUT_NO_MEMORY;
    }
    if (!forced) {
        esc_put room = make_room(box, dropped);
        if (room != ESC_PUT_OK) {
            return room;
        }
    }
    append(box, envelope, priority, now_ns);
    if (box->awake) {
        return ESC_PUT_OK;
    }
    box->awake = true;
    return ESC_PUT_WAKE;
}

esc_put esc_box_put(esc_box *box, escqrs_envelope *envelope, bool forced, int64_t now_ns,
                    escqrs_envelope **dropped)
{
    bool poison = envelope->type == &esc_internal_types[ESC_INTERNAL_POISON];
    int64_t priority = 0;
    if (poison) {
        priority = INT64_MIN;
    } else if (box->options.priority != NULL && !esc_type_is_internal(envelope->type)) {
        priority = box->options.priority(box->options.context, envelope);
    }
    esc_mutex_lock(&box->lock);
    esc_put result = put(box, envelope, forced, priority, now_ns, dropped);
    if (poison && (result == ESC_PUT_OK || result == ESC_PUT_WAKE)) {
        box->poisoned = true;
        esc_cond_broadcast(&box->room); /* who waits is too late */
    }
    esc_mutex_unlock(&box->lock);
    return result;
}

/* ---- taking ----------------------------------------------------------------------------------- */

escqrs_envelope *esc_box_take(esc_box *box, int64_t now_ns)
{
    escqrs_envelope *envelope = NULL;
    esc_mutex_lock(&box->lock);
    if (box->count == 0) {
        box->awake = false;
    } else {
        entry first = take_first(box);
        envelope = first.envelope;
        box->stats.handled++;
        int64_t waited_ns = now_ns - first.put_ns;
        box->stats.waited_ns += (uint64_t)(waited_ns > 0 ? waited_ns : 0);
        if (waited_ns > box->stats.waited_max_ns) {
            box->stats.waited_max_ns = waited_ns;
        }
        if (box->waiting > 0) {
            esc_cond_signal(&box->room);
        }
    }
    esc_mutex_unlock(&box->lock);
    return envelope;
}

void esc_box_close(esc_box *box)
{
    esc_mutex_lock(&box->lock);
    box->closed = true;
    esc_cond_broadcast(&box->room);
    esc_mutex_unlock(&box->lock);
}

void esc_box_destroy(esc_box *box)
{
    if (box == NULL) {
        return;
    }
    while (box->count > 0) {
        escqrs_envelope_destroy(take_first(box).envelope);
    }
    escqrs_free(box->entries);
    esc_cond_fini(&box->room);
    esc_mutex_fini(&box->lock);
    escqrs_free(box);
}

escqrs_status esc_box_wait_room(esc_box *box, int64_t deadline_ns)
{
    bool in_time = true;
    esc_mutex_lock(&box->lock);
    box->waiting++;
    while (in_time && !box->closed && !box->poisoned && box->options.capacity > 0 &&
           box->count >= box->options.capacity) {
        in_time = esc_cond_wait_until(&box->room, &box->lock, deadline_ns);
    }
    box->waiting--;
    esc_mutex_unlock(&box->lock);
    return in_time ? ESCQRS_OK : ESCQRS_TIMEOUT;
}

bool esc_box_stats(esc_box *box, escqrs_mailbox_stats *stats)
{
    if (!box->options.statistics) {
        return false;
    }
    esc_mutex_lock(&box->lock);
    *stats = box->stats;
    stats->length = box->count;
    esc_mutex_unlock(&box->lock);
    return true;
}

size_t esc_box_length(esc_box *box)
{
    esc_mutex_lock(&box->lock);
    size_t length = box->count;
    esc_mutex_unlock(&box->lock);
    return length;
}
