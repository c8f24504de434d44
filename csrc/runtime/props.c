/* Props: how to make an actor. Counted and immutable, so that any number of actors share them. */
#include <escqrs/actor.h>

#include <string.h>

#include "runtime/cell.h"

/* NULL and count 0: nothing. False: out of memory. */
static bool copy_array(void **copy, const void *items, size_t count, size_t size)
{
    if (count == 0) {
        return true;
    }
    *copy = escqrs_alloc_array(count, size);
    if (*copy == NULL) {
        return false;
    }
    memcpy(*copy, items, count * size);
    return true;
}

static void props_free(escqrs_props *props)
{
    escqrs_free(props->receive_middleware);
    escqrs_free(props->send_middleware);
    escqrs_free(props->spawn_middleware);
    escqrs_free(props->guard_data);
    escqrs_free(props);
}

escqrs_status escqrs_props_create(const escqrs_props_options *options, escqrs_props **props,
                                  escqrs_error *error)
{
    const escqrs_actor_class *actor_class = options->actor_class;
    if (actor_class == NULL || actor_class->receive == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "an actor's class needs a receive");
    }
    if (options->receive_timeout_ns < 0) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a receive timeout cannot be negative");
    }
    escqrs_props *made = escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        goto fail;
    }
    atomic_init(&made->references, 1);
    made->actor_class = actor_class;
    made->failure_release = actor_class->failure_release;
    made->user_data = options->user_data;
    made->release_data = options->user_data;
    made->host = options->host;
    made->mailbox = options->mailbox;
    made->boxed = options->mailbox.capacity > 0 || options->mailbox.priority != NULL ||
                  options->mailbox.statistics;
    if (options->supervisor != NULL) {
        made->supervisor = *options->supervisor;
    }
    made->receive_timeout_ns = options->receive_timeout_ns;
    made->stash_max = options->stash_max == 0 ? ESC_STASH_MAX_DEFAULT : options->stash_max;
    if (!copy_array((void **)&made->receive_middleware, options->receive_middleware,
                    options->receive_middleware_count, sizeof *made->receive_middleware) ||
        !copy_array((void **)&made->send_middleware, options->send_middleware,
                    options->send_middleware_count, sizeof *made->send_middleware) ||
        !copy_array((void **)&made->spawn_middleware, options->spawn_middleware,
                    options->spawn_middleware_count, sizeof *made->spawn_middleware)) {
        goto fail;
    }
    made->receive_middleware_count = options->receive_middleware_count;
    made->send_middleware_count = options->send_middleware_count;
    made->wraps_sends = made->send_middleware_count > 0;
    made->spawn_middleware_count = options->spawn_middleware_count;
    made->release = options->release;
    *props = made;
    return ESCQRS_OK;

fail:
    if (made != NULL) {
        props_free(made);
    }
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making props");
}

void escqrs_props_hold(escqrs_props *props)
{
    /* relaxed: whoever holds has been given it in an ordered way */
    atomic_fetch_add_explicit(&props->references, 1, memory_order_relaxed);
}

void escqrs_props_release(escqrs_props *props)
{
    if (props == NULL) {
        return;
    }
    /* acq_rel: the last one sees what all others did */
    if (atomic_fetch_sub_explicit(&props->references, 1, memory_order_acq_rel) > 1) {
        return;
    }
    if (props->release != NULL) {
        props->release(props->release_data);
    }
    props_free(props);
}

static void release_original(void *original)
{
    escqrs_props_release(original);
}

escqrs_status esc_props_with_statistics(escqrs_props *props, escqrs_props **made,
                                        escqrs_error *error)
{
    escqrs_props_options options = {
        .actor_class = props->actor_class,
        .user_data = props->user_data,
        .host = props->host,
        .mailbox = props->mailbox,
        .supervisor = &props->supervisor,
        .receive_middleware = props->receive_middleware,
        .receive_middleware_count = props->receive_middleware_count,
        .send_middleware = props->send_middleware,
        .send_middleware_count = props->send_middleware_count,
        .spawn_middleware = props->spawn_middleware,
        .spawn_middleware_count = props->spawn_middleware_count,
        .receive_timeout_ns = props->receive_timeout_ns,
        .stash_max = props->stash_max,
    };
    options.mailbox.statistics = true;
    escqrs_status status = escqrs_props_create(&options, made, error);
    if (status == ESCQRS_OK) {
        escqrs_props_hold(props);
        (*made)->release = release_original;
        (*made)->release_data = props;
    }
    return status;
}
