/* Topics: which read models want which type of event.
 *
 * Made while read models are added, constant once the projector has started. Locks: none. */
#include "readmodel/projector.h"

#include "base/error.h"

static escqrs_slice topic_key(const void *topic)
{
    return escqrs_slice_of(((const esc_topic *)topic)->type);
}

void esc_topics_init(escqrs_projector *projector)
{
    esc_vector_init(&projector->topics, sizeof(esc_topic *));
    esc_map_init(&projector->topics_by_type, topic_key, NULL);
}

static void topic_destroy(esc_topic *topic)
{
    escqrs_free(topic->type);
    esc_vector_fini(&topic->subscriptions);
    escqrs_free(topic);
}

void esc_topics_fini(escqrs_projector *projector)
{
    for (size_t i = 0; i < projector->topics.count; i++) {
        topic_destroy(ESC_VECTOR_AT(&projector->topics, esc_topic *, i));
    }
    esc_map_fini(&projector->topics_by_type);
    esc_vector_fini(&projector->topics);
}

static escqrs_status find_topic(escqrs_projector *projector, const char *type, esc_topic **topic)
{
    *topic = esc_map_get(&projector->topics_by_type, escqrs_slice_of(type));
    if (*topic != NULL) {
        return ESCQRS_OK;
    }
    esc_topic *made = escqrs_alloc_zero(sizeof(esc_topic));
    if (made == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    esc_vector_init(&made->subscriptions, sizeof(esc_subscription));
    made->type = escqrs_strdup(escqrs_slice_of(type));
    if (made->type == NULL || esc_map_insert(&projector->topics_by_type, made) != ESCQRS_OK) {
        topic_destroy(made);
        return ESCQRS_NO_MEMORY;
    }
    if (esc_vector_push(&projector->topics, &made) != ESCQRS_OK) {
        (void)esc_map_remove(&projector->topics_by_type, escqrs_slice_of(type));
        topic_destroy(made);
        return ESCQRS_NO_MEMORY;
    }
    *topic = made;
    return ESCQRS_OK;
}

void esc_topics_unsubscribe(escqrs_readmodel *model)
{
    escqrs_projector *projector = model->projector;
    for (size_t i = 0; i < projector->topics.count; i++) {
        esc_vector *subscriptions =
            &ESC_VECTOR_AT(&projector->topics, esc_topic *, i)->subscriptions;
        while (subscriptions->count > 0 && /* the newest model's stand last */
               ESC_VECTOR_AT(subscriptions, esc_subscription, subscriptions->count - 1).model ==
                   model) {
            esc_vector_pop(subscriptions);
        }
    }
}

escqrs_status esc_topics_subscribe(escqrs_readmodel *model, escqrs_error *error)
{
    for (size_t i = 0; i < model->definition.projection_count; i++) {
        const esc_projection *projection = &model->definition.projections[i];
        esc_subscription subscription = {.model = model, .index = i};
        esc_topic *topic = NULL;
        if (find_topic(model->projector, projection->type, &topic) != ESCQRS_OK ||
            esc_vector_push(&topic->subscriptions, &subscription) != ESCQRS_OK) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for read model %s",
                                    model->definition.name);
        }
        if (projection->sql == NULL) {
            topic->whole = true;
        } else if (topic->schema == NULL) {
            topic->schema = projection->schema;
        } else if (topic->schema != projection->schema) {
            return escqrs_error_set(error, ESCQRS_NAME_CLASH,
                                    "two classes for one name: %s, in read model %s",
                                    projection->type, model->definition.name);
        }
    }
    return ESCQRS_OK;
}
