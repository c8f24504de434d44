/* Routers: actors that hand each message on to routees.
 *
 * The list of routees belongs to the actor's thread, which changes it under a lock so that others
 * may look (escqrs_router_routees). It lies in the cell's extra and outlives the instance: a group
 * keeps its routees over a restart, a pool spawns new ones. Consistent hashing weighs every routee
 * with the key (rendezvous): one that goes moves its own keys only, and nothing has to be built.
 */
#include <string.h>

#include "base/error.h"
#include "runtime/cell.h"
#include "runtime/runtime.h"

typedef struct router_config {
    escqrs_router_options options; /* `group` is `first` */
    escqrs_ref **first;            /* each held */
    escqrs_props *pool;            /* held; NULL: a group */
} router_config;

struct esc_router {
    esc_mutex lock;
    esc_vector routees; /* escqrs_ref *, each held; written under `lock` by the actor's thread */
    size_t next;
    uint64_t random;
    bool begun; /* a group has been given its first routees */
};

typedef enum order_kind { ORDER_ADD, ORDER_REMOVE, ORDER_REPORT } order_kind;

typedef struct router_order {
    escqrs_envelope envelope; /* of a report: its sender, a future, is let go with it */
    order_kind kind;
    escqrs_ref *routee; /* held; NULL: one more of a pool; of a report */
} router_order;

static escqrs_ref *routee_at(const esc_router *router, size_t index)
{
    return ESC_VECTOR_AT(&router->routees, escqrs_ref *, index);
}

/* ---- routees ---------------------------------------------------------------------------------- */

/* Takes the reference. */
static escqrs_status add(escqrs_context *context, esc_router *router, escqrs_ref *routee,
                         escqrs_error *error)
{
    for (size_t i = 0; i < router->routees.count; i++) {
        if (routee_at(router, i) == routee) {
            escqrs_ref_release(routee);
            return ESCQRS_OK;
        }
    }
    if (escqrs_ref_kind_of(routee) == ESCQRS_REF_ACTOR) {
        escqrs_status status = escqrs_context_watch(context, routee, error);
        if (status != ESCQRS_OK) {
            escqrs_ref_release(routee);
            return status;
        }
    }
    esc_mutex_lock(&router->lock);
    escqrs_status status = esc_vector_push(&router->routees, &routee);
    esc_mutex_unlock(&router->lock);
    if (status != ESCQRS_OK) {
        escqrs_context_unwatch(context, routee);
        escqrs_ref_release(routee);
        return escqrs_error_set(error, status, "out of memory adding a routee");
    }
    return ESCQRS_OK;
}

static escqrs_status add_to_pool(escqrs_context *context, esc_router *router,
                                 const router_config *config, escqrs_error *error)
{
    escqrs_ref *routee;
    escqrs_status status =
        escqrs_context_spawn(context, config->pool, (escqrs_slice){0}, &routee, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    return add(context, router, routee, error);
}

/* The caller gets the reference; false: there is none such. */
static bool take_out(esc_router *router, escqrs_ref *routee)
{
    for (size_t i = 0; i < router->routees.count; i++) {
        if (routee_at(router, i) == routee) {
            esc_mutex_lock(&router->lock);
            escqrs_ref **items = router->routees.items; /* the order stays */
            memmove(items + i, items + i + 1, (router->routees.count - i - 1) * sizeof *items);
            router->routees.count--;
            esc_mutex_unlock(&router->lock);
            return true;
        }
    }
    return false;
}

static void clear(esc_router *router)
{
    esc_mutex_lock(&router->lock);
    esc_vector routees = router->routees;
    esc_vector_init(&router->routees, sizeof(escqrs_ref *));
    esc_mutex_unlock(&router->lock);
    for (size_t i = 0; i < routees.count; i++) {
        escqrs_ref_release(ESC_VECTOR_AT(&routees, escqrs_ref *, i));
    }
    esc_vector_fini(&routees);
}

/* ---- life ------------------------------------------------------------------------------------- */

static esc_router *router_of(esc_cell *cell)
{
    esc_extra *extra = esc_cell_extra(cell);
    if (extra == NULL) {
        return NULL;
    }
    esc_router *router = atomic_load_explicit(&extra->router, memory_order_relaxed);
    if (router != NULL) {
        return router;
    }
    router = escqrs_alloc_zero(sizeof *router);
    if (router == NULL) {
        return NULL;
    }
    esc_mutex_init(&router->lock);
    esc_vector_init(&router->routees, sizeof(escqrs_ref *));
    /* release: pairs with escqrs_router_routees */
    atomic_store_explicit(&extra->router, router, memory_order_release);
    return router;
}

static escqrs_status fill(escqrs_context *context, esc_router *router, const router_config *config,
                          escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    if (config->pool != NULL) {
        clear(router);
        for (size_t i = 0; i < config->options.pool_size && status == ESCQRS_OK; i++) {
            status = add_to_pool(context, router, config, error);
        }
        return status;
    }
    for (size_t i = 0; i < config->options.group_size && !router->begun && status == ESCQRS_OK;
         i++) {
        escqrs_ref_hold(config->first[i]);
        status = add(context, router, config->first[i], error);
    }
    router->begun = status == ESCQRS_OK;
    return status;
}

static escqrs_turn_end router_create(escqrs_context *context, void *user_data, void **state)
{
    const router_config *config = user_data;
    esc_router *router = router_of(esc_context_cell(context));
    if (router == NULL) {
        return escqrs_context_fail(context, ESCQRS_NO_MEMORY, NULL, "out of memory");
    }
    if (router->random == 0) {
        const escqrs_runtime *runtime = esc_context_cell(context)->system->runtime;
        escqrs_random_fill(esc_runtime_random(runtime, &config->options.random), &router->random,
                           sizeof router->random);
        router->random |= 1; /* xorshift does not leave 0 */
    }
    escqrs_error error = {0};
    escqrs_status status = fill(context, router, config, &error);
    if (status != ESCQRS_OK) {
        return escqrs_context_fail(context, status, NULL, "%s", error.message);
    }
    *state = router;
    return ESCQRS_TURN_NEXT;
}

void esc_router_fini(esc_router *router)
{
    if (router == NULL) {
        return;
    }
    clear(router);
    esc_mutex_fini(&router->lock);
    escqrs_free(router);
}

void esc_router_stopped(esc_cell *cell)
{
    esc_router *router = atomic_load_explicit(&esc_cell_has(cell)->router, memory_order_relaxed);
    if (router != NULL) {
        clear(router); /* they may hold each other */
    }
}

/* ---- routing ---------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t value)
{
    value ^= value >> 33;
    value *= UINT64_C(0xff51afd7ed558ccd);
    value ^= value >> 33;
    value *= UINT64_C(0xc4ceb9fe1a85ec53);
    return value ^ (value >> 33);
}

static uint64_t identity(const escqrs_ref *ref)
{
    uint64_t id = escqrs_ref_id(ref);
    return id == 0 ? (uint64_t)(uintptr_t)ref : id;
}

static size_t by_hash(const esc_router *router, uint64_t key)
{
    size_t best = 0;
    uint64_t best_weight = 0;
    for (size_t i = 0; i < router->routees.count; i++) {
        uint64_t weight = mix(mix(key) ^ mix(identity(routee_at(router, i))));
        if (i == 0 || weight > best_weight) {
            best = i;
            best_weight = weight;
        }
    }
    return best;
}

static size_t length_of(escqrs_ref *ref)
{
    if (ref->ops == &esc_boxed_cell_ops) {
        size_t length = esc_box_length(esc_cell_has((esc_cell *)ref)->box);
        return length * 2 + !escqrs_actor_is_idle((escqrs_actor *)ref);
    }
    return esc_ref_is_cell(ref) && !escqrs_actor_is_idle((escqrs_actor *)ref);
}

static size_t by_length(esc_router *router)
{
    size_t count = router->routees.count;
    size_t start = router->next++; /* of several that are equal each has its turn */
    size_t best = start % count;
    size_t best_length = length_of(routee_at(router, best));
    for (size_t i = 1; i < count && best_length > 0; i++) {
        size_t index = (start + i) % count;
        size_t length = length_of(routee_at(router, index));
        if (length < best_length) {
            best = index;
            best_length = length;
        }
    }
    return best;
}

static size_t at_random(esc_router *router)
{
    router->random ^= router->random << 13;
    router->random ^= router->random >> 7;
    router->random ^= router->random << 17;
    return (size_t)(mix(router->random) % router->routees.count);
}

static size_t pick(esc_router *router, const router_config *config, const escqrs_envelope *message)
{
    switch (config->options.routing) {
    case ESCQRS_ROUTING_RANDOM:
        return at_random(router);
    case ESCQRS_ROUTING_CONSISTENT_HASH:
        return by_hash(router, config->options.key(config->options.context, message));
    case ESCQRS_ROUTING_SMALLEST_MAILBOX:
        return by_length(router);
    case ESCQRS_ROUTING_ROUND_ROBIN:
    case ESCQRS_ROUTING_BROADCAST:
        break;
    }
    return router->next++ % router->routees.count;
}

/* What finds no room is a dead letter: its sender would not hear of it otherwise. */
static void hand_on(escqrs_ref *routee, escqrs_envelope *envelope, escqrs_ref *sender)
{
    if (sender != NULL && esc_ref_is_future(sender)) {
        escqrs_future_send_on((escqrs_future *)sender, routee);
    }
    if (escqrs_tell_now(routee, envelope, sender) == ESCQRS_MAILBOX_FULL) {
        escqrs_untold_publish(routee, envelope);
    }
}

static escqrs_turn_end broadcast(escqrs_context *context, esc_router *router,
                                 escqrs_envelope *message)
{
    size_t count = router->routees.count;
    if (count > 1 && message->type->copy == NULL) {
        return escqrs_context_fail(context, ESCQRS_INVALID, NULL,
                                   "a %s cannot be sent to several: its type has no copy",
                                   message->type->name);
    }
    for (size_t i = 0; i + 1 < count; i++) {
        escqrs_envelope *copy = message->type->copy(message);
        if (copy == NULL) {
            return escqrs_context_fail(context, ESCQRS_NO_MEMORY, NULL,
                                       "out of memory copying a %s", message->type->name);
        }
        hand_on(routee_at(router, i), copy, message->sender);
    }
    hand_on(routee_at(router, count - 1), escqrs_context_take(context), message->sender);
    return ESCQRS_TURN_NEXT;
}

static escqrs_turn_end router_receive(escqrs_context *context, void *state,
                                      escqrs_envelope *message)
{
    esc_router *router = state;
    const router_config *config = escqrs_context_user_data(context);
    if (message->type == &escqrs_terminated) {
        escqrs_ref *who = ((escqrs_terminated_message *)message)->who;
        if (take_out(router, who)) {
            escqrs_ref_release(who);
        }
        return ESCQRS_TURN_NEXT;
    }
    if (esc_type_is_lifecycle(message->type)) {
        return ESCQRS_TURN_NEXT;
    }
    if (router->routees.count == 0) {
        escqrs_ref *self = escqrs_context_self(context);
        esc_question_refuse(message, ESCQRS_CLOSED, self, "has no routees");
        esc_dead_letter_send(escqrs_context_system(context), self, escqrs_context_take(context));
        return ESCQRS_TURN_NEXT;
    }
    if (config->options.routing == ESCQRS_ROUTING_BROADCAST) {
        return broadcast(context, router, message);
    }
    size_t index = pick(router, config, message);
    if (esc_cell_has(esc_context_cell(context))->failure != NULL) {
        return ESCQRS_TURN_FAILED; /* the key has said so */
    }
    hand_on(routee_at(router, index), escqrs_context_take(context), message->sender);
    return ESCQRS_TURN_NEXT;
}

static const escqrs_actor_class router_class = {
    .name = "Router", .create = router_create, .receive = router_receive};

/* ---- orders ----------------------------------------------------------------------------------- */

void esc_router_order_destroy(escqrs_envelope *envelope)
{
    router_order *order = ESC_CONTAINER_OF(envelope, router_order, envelope);
    escqrs_ref_release(order->routee);
    escqrs_free(order);
}

static escqrs_status carry_out(esc_cell *cell, esc_router *router, router_order *order,
                               escqrs_error *error)
{
    escqrs_context *context = esc_cell_context(cell);
    const router_config *config = cell->props->user_data;
    if (order->kind == ORDER_REPORT) {
        return ESCQRS_OK;
    }
    if (order->kind == ORDER_ADD) {
        if (order->routee == NULL) {
            return add_to_pool(context, router, config, error);
        }
        escqrs_ref_hold(order->routee);
        return add(context, router, order->routee, error);
    }
    if (take_out(router, order->routee)) {
        escqrs_context_unwatch(context, order->routee);
        if (config->pool != NULL) {
            escqrs_status status = escqrs_poison(order->routee);
            if (status == ESCQRS_NO_MEMORY) {
                escqrs_stop(order->routee);
            }
        }
        escqrs_ref_release(order->routee); /* the list's */
    }
    return ESCQRS_OK;
}

escqrs_turn_end esc_router_handle(esc_cell *cell, escqrs_envelope *envelope)
{
    router_order *order = ESC_CONTAINER_OF(envelope, router_order, envelope);
    esc_router *router = cell->instance;
    escqrs_error error = {0};
    escqrs_status status = carry_out(cell, router, order, &error);
    escqrs_envelope_destroy(envelope);
    escqrs_turn_end turn = ESCQRS_TURN_NEXT;
    if (status != ESCQRS_OK) {
        turn = escqrs_context_fail(esc_cell_context(cell), status, NULL, "%s", error.message);
    }
    return esc_cell_after_callback(cell, turn);
}

static bool is_router(const escqrs_ref *ref)
{
    return esc_ref_is_cell(ref) && ((const esc_cell *)ref)->props->actor_class == &router_class;
}

/* asker: a future, of a report; or NULL. */
static escqrs_status send_order(escqrs_ref *router, order_kind kind, escqrs_ref *routee,
                                escqrs_ref *asker, escqrs_error *error)
{
    router_order *order = escqrs_alloc_zero(sizeof *order);
    if (order == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory changing a router");
    }
    order->envelope.type = &esc_internal_types[ESC_INTERNAL_ROUTER];
    order->kind = kind;
    order->routee = routee;
    order->envelope.sender = asker;
    if (routee != NULL) {
        escqrs_ref_hold(routee);
    }
    if (asker != NULL) {
        escqrs_ref_hold(asker);
    }
    escqrs_status status = esc_send_forced((esc_cell *)router, &order->envelope);
    if (status != ESCQRS_OK) {
        escqrs_envelope_destroy(&order->envelope);
        return escqrs_error_set(error, status, "the router has stopped");
    }
    return ESCQRS_OK;
}

static escqrs_status change(escqrs_ref *router, order_kind kind, escqrs_ref *routee,
                            escqrs_error *error)
{
    if (!is_router(router)) {
        return escqrs_error_set(error, ESCQRS_INVALID, "that is no router");
    }
    const router_config *config = ((esc_cell *)router)->props->user_data;
    if (routee == router) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a router cannot send to itself");
    }
    if (routee == NULL && (kind == ORDER_REMOVE || config->pool == NULL)) {
        return escqrs_error_set(error, ESCQRS_INVALID, "which routee?");
    }
    if (routee != NULL && kind == ORDER_ADD && config->pool != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a pool spawns its routees itself");
    }
    return send_order(router, kind, routee, NULL, error);
}

escqrs_status escqrs_router_add(escqrs_ref *router, escqrs_ref *routee, escqrs_error *error)
{
    return change(router, ORDER_ADD, routee, error);
}

escqrs_status escqrs_router_remove(escqrs_ref *router, escqrs_ref *routee, escqrs_error *error)
{
    return change(router, ORDER_REMOVE, routee, error);
}

escqrs_status escqrs_router_report(escqrs_ref *router, escqrs_future *asker, escqrs_error *error)
{
    if (!is_router(router)) {
        return escqrs_error_set(error, ESCQRS_INVALID, "that is no router");
    }
    return send_order(router, ORDER_REPORT, NULL, &asker->ref, error);
}

size_t escqrs_router_routees(escqrs_ref *ref, escqrs_ref **refs, size_t max)
{
    esc_extra *extra = esc_ref_is_cell(ref) ? esc_cell_has((esc_cell *)ref) : NULL;
    /* acquire: pairs with router_of */
    esc_router *router =
        extra == NULL ? NULL : atomic_load_explicit(&extra->router, memory_order_acquire);
    if (router == NULL) {
        return 0;
    }
    esc_mutex_lock(&router->lock);
    size_t count = router->routees.count;
    for (size_t i = 0; i < count && i < max; i++) {
        refs[i] = routee_at(router, i);
        escqrs_ref_hold(refs[i]);
    }
    esc_mutex_unlock(&router->lock);
    return count;
}

/* ---- props ------------------------------------------------------------------------------------ */

static void config_free(router_config *config)
{
    for (size_t i = 0; config->first != NULL && i < config->options.group_size; i++) {
        escqrs_ref_release(config->first[i]);
    }
    escqrs_free(config->first);
    escqrs_props_release(config->pool);
    escqrs_free(config);
}

static void config_release(void *user_data)
{
    router_config *config = user_data;
    if (config->options.release != NULL) {
        config->options.release(config->options.context);
    }
    config_free(config);
}

static escqrs_status check(const escqrs_router_options *options, escqrs_error *error)
{
    if ((unsigned)options->routing > ESCQRS_ROUTING_SMALLEST_MAILBOX) {
        return escqrs_error_set(error, ESCQRS_INVALID, "there is no such routing");
    }
    if (options->routing == ESCQRS_ROUTING_CONSISTENT_HASH && options->key == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "consistent hashing needs a key");
    }
    if (options->pool != NULL && options->pool->guard != NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "a pool of persistent actors has no names for them; spawn them and "
                                "make a group");
    }
    if (options->pool != NULL && options->group_size > 0) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a router is a pool or a group, not both");
    }
    return ESCQRS_OK;
}

/* The pool's props, or such that count messages where the routing needs that. */
static escqrs_status pool_props(const escqrs_router_options *options, escqrs_props **props,
                                escqrs_error *error)
{
    if (options->pool == NULL) {
        return ESCQRS_OK;
    }
    if (options->routing == ESCQRS_ROUTING_SMALLEST_MAILBOX && !options->pool->boxed) {
        return esc_props_with_statistics(options->pool, props, error);
    }
    escqrs_props_hold(options->pool);
    *props = options->pool;
    return ESCQRS_OK;
}

escqrs_status escqrs_router_props(const escqrs_router_options *options, escqrs_props **props,
                                  escqrs_error *error)
{
    escqrs_status status = check(options, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    router_config *config = escqrs_alloc_zero(sizeof *config);
    if (config == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making a router");
    }
    config->options = *options;
    config->options.group = NULL;
    if (options->group_size > 0) {
        config->first = escqrs_alloc_array(options->group_size, sizeof(escqrs_ref *));
        if (config->first == NULL) {
            status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory making a router");
            goto fail;
        }
        for (size_t i = 0; i < options->group_size; i++) {
            config->first[i] = options->group[i];
            escqrs_ref_hold(config->first[i]);
        }
    }
    status = pool_props(options, &config->pool, error);
    if (status != ESCQRS_OK) {
        goto fail;
    }
    escqrs_props_options given = {.actor_class = &router_class,
                                  .user_data = config,
                                  .release = config_release,
                                  .host = options->host,
                                  .supervisor = options->supervisor};
    status = escqrs_props_create(&given, props, error);
    if (status != ESCQRS_OK) {
        goto fail;
    }
    (*props)->failure_release = options->failure_release;
    return ESCQRS_OK;

fail:
    config_free(config);
    return status;
}
