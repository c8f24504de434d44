/* Topics: which read models want which type of event.
 *
 * Made while read models are added. What is done with every event is a topic of its own, and part
 * of all others, in the order in which read models and their projections were added; types that
 * come up later get topics from the thread that projects. Locks: none. */
#include "readmodel/projector.h"

#include "base/error.h"

static escqrs_slice topic_key(const void *topic)
{
    return escqrs_slice_of(((const esc_topic *)topic)->type);
}

void esc_topic_set_init(esc_topic_set *set)
{
    esc_vector_init(&set->topics, sizeof(esc_topic *));
    esc_map_init(&set->by_type, topic_key, NULL);
}

static void topic_destroy(esc_topic *topic)
{
    if (topic == NULL) {
        return;
    }
    for (size_t i = 0; i < topic->loaded.count; i++) {
        escqrs_schema_destroy(ESC_VECTOR_AT(&topic->loaded, esc_loaded_schema, i).schema);
    }
    esc_vector_fini(&topic->loaded);
    escqrs_free(topic->type);
    esc_vector_fini(&topic->subscriptions);
    escqrs_free(topic);
}

void esc_topic_set_fini(esc_topic_set *set)
{
    for (size_t i = 0; i < set->topics.count; i++) {
        topic_destroy(ESC_VECTOR_AT(&set->topics, esc_topic *, i));
    }
    topic_destroy(set->every);
    esc_map_fini(&set->by_type);
    esc_vector_fini(&set->topics);
}

static esc_topic *topic_create(escqrs_slice type)
{
    esc_topic *made = escqrs_alloc_zero(sizeof(esc_topic));
    if (made == NULL) {
        return NULL;
    }
    esc_vector_init(&made->subscriptions, sizeof(esc_subscription));
    esc_vector_init(&made->loaded, sizeof(esc_loaded_schema));
    made->type = escqrs_strdup(type);
    if (made->type == NULL) {
        topic_destroy(made);
        return NULL;
    }
    return made;
}

/* What is done with every event is done with this one, too. */
static escqrs_status inherit(esc_topic *topic, const esc_topic *every)
{
    for (size_t i = 0; every != NULL && i < every->subscriptions.count; i++) {
        if (esc_vector_push(&topic->subscriptions,
                            &ESC_VECTOR_AT(&every->subscriptions, esc_subscription, i)) !=
            ESCQRS_OK) {
            return ESCQRS_NO_MEMORY;
        }
    }
    if (every != NULL) {
        topic->whole = every->whole;
        topic->tagged = every->tagged;
        topic->rendered = every->rendered;
    }
    return ESCQRS_OK;
}

static escqrs_status find_topic(esc_topic_set *set, escqrs_slice type, esc_topic **topic)
{
    *topic = esc_map_get(&set->by_type, type);
    if (*topic != NULL) {
        return ESCQRS_OK;
    }
    esc_topic *made = topic_create(type);
    if (made == NULL || inherit(made, set->every) != ESCQRS_OK ||
        esc_map_insert(&set->by_type, made) != ESCQRS_OK) {
        topic_destroy(made);
        return ESCQRS_NO_MEMORY;
    }
    if (esc_vector_push(&set->topics, &made) != ESCQRS_OK) {
        (void)esc_map_remove(&set->by_type, type);
        topic_destroy(made);
        return ESCQRS_NO_MEMORY;
    }
    *topic = made;
    return ESCQRS_OK;
}

escqrs_status esc_topic_set_find(esc_topic_set *set, const escqrs_type *type, esc_topic **topic)
{
    if (set->every != NULL) {
        return find_topic(set, escqrs_type_name(type), topic);
    }
    *topic = esc_map_get(&set->by_type, escqrs_type_name(type));
    return ESCQRS_OK;
}

const escqrs_schema *esc_topic_schema(esc_topic *topic, const escqrs_type *type)
{
    if (topic->schema != NULL || !topic->rendered) {
        return topic->schema;
    }
    for (size_t i = 0; i < topic->loaded.count; i++) {
        const esc_loaded_schema *loaded = &ESC_VECTOR_AT(&topic->loaded, esc_loaded_schema, i);
        if (loaded->type == type) {
            return loaded->schema;
        }
    }
    esc_loaded_schema loaded = {.type = type};
    escqrs_slice record = escqrs_type_record(type);
    if (record.size > 0 && escqrs_schema_load(record, &loaded.schema, NULL) != ESCQRS_OK) {
        loaded.schema = NULL;
    }
    if (esc_vector_push(&topic->loaded, &loaded) != ESCQRS_OK) {
        escqrs_schema_destroy(loaded.schema);
        return NULL;
    }
    return loaded.schema;
}

static void unsubscribe(esc_topic *topic, const escqrs_readmodel *model)
{
    esc_vector *subscriptions = &topic->subscriptions;
    while (subscriptions->count > 0 && /* the newest model's stand last */
           ESC_VECTOR_AT(subscriptions, esc_subscription, subscriptions->count - 1).model ==
               model) {
        esc_vector_pop(subscriptions);
    }
}

void esc_topic_set_unsubscribe(esc_topic_set *set, const escqrs_readmodel *model)
{
    for (size_t i = 0; i < set->topics.count; i++) {
        unsubscribe(ESC_VECTOR_AT(&set->topics, esc_topic *, i), model);
    }
    if (set->every != NULL) {
        unsubscribe(set->every, model);
    }
}

static escqrs_status subscribe(esc_topic *topic, escqrs_readmodel *model, size_t index)
{
    const esc_projection *projection = &model->definition.projections[index];
    esc_subscription subscription = {.model = model, .index = index};
    topic->whole = topic->whole || projection->sql == NULL;
    topic->tagged = topic->tagged || projection->tag_count > 0;
    topic->rendered = topic->rendered || projection->plan.wants_event;
    return esc_vector_push(&topic->subscriptions, &subscription);
}

/* To all topics that there are, and to that from which later ones inherit. */
static escqrs_status subscribe_to_every(esc_topic_set *set, escqrs_readmodel *model, size_t index)
{
    if (set->every == NULL) {
        set->every = topic_create((escqrs_slice){"", 0});
    }
    if (set->every == NULL || subscribe(set->every, model, index) != ESCQRS_OK) {
        return ESCQRS_NO_MEMORY;
    }
    for (size_t i = 0; i < set->topics.count; i++) {
        esc_topic *topic = ESC_VECTOR_AT(&set->topics, esc_topic *, i);
        if (subscribe(topic, model, index) != ESCQRS_OK) {
            return ESCQRS_NO_MEMORY;
        }
    }
    return ESCQRS_OK;
}

escqrs_status esc_topic_set_subscribe(esc_topic_set *set, escqrs_readmodel *model,
                                      escqrs_error *error)
{
    for (size_t i = 0; i < model->definition.projection_count; i++) {
        const esc_projection *projection = &model->definition.projections[i];
        esc_topic *topic = NULL;
        escqrs_status status;
        if (projection->type[0] == '\0') {
            status = subscribe_to_every(set, model, i);
        } else {
            status = find_topic(set, escqrs_slice_of(projection->type), &topic);
            if (status == ESCQRS_OK) {
                status = subscribe(topic, model, i);
            }
        }
        if (status != ESCQRS_OK) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read model %s",
                                    model->definition.name);
        }
        if (topic == NULL || projection->sql == NULL) {
            continue;
        }
        if (topic->schema == NULL) {
            topic->schema = projection->schema;
        } else if (topic->schema != projection->schema) {
            return escqrs_error_set(error, ESCQRS_NAME_CLASH,
                                    "two classes for one name: %s, in read model %s",
                                    projection->type, model->definition.name);
        }
    }
    return ESCQRS_OK;
}
