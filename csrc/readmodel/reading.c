/* Readings: how stored events become those that projections know.
 *
 * The host says once for each stored type whether its events are applied as they are, under the
 * name of another type, not at all, or as what its upcasters make of each. Answers are kept by the
 * type's number: an event that needs none of it costs one look into an array.
 *
 * What an upcaster would have made of an event is not known where it fails, so nobody knows who
 * would have wanted it: every read model stops there.
 *
 * The thread that projects has one set of readings; the inliner has another, for whoever commits.
 * Locks: none. */
#include "readmodel/projector.h"

#include <string.h>

#include "base/error.h"

void esc_readings_init(esc_readings *self)
{
    esc_vector_init(&self->by_type, sizeof(esc_reading *));
    self->all = NULL;
}

void esc_readings_fini(esc_readings *self)
{
    for (size_t i = 0; i < self->by_type.count; i++) {
        escqrs_free(ESC_VECTOR_AT(&self->by_type, esc_reading *, i));
    }
    esc_vector_fini(&self->by_type);
    if (self->all != NULL) {
        esc_vector_fini(&self->all->subscriptions);
        escqrs_free(self->all);
    }
}

escqrs_status esc_readings_find(esc_readings *self, const escqrs_projector *projector,
                                const escqrs_type *type, const esc_reading **reading,
                                escqrs_error *error)
{
    *reading = NULL;
    if (projector->reader.look == NULL) {
        return ESCQRS_OK;
    }
    size_t id = (size_t)escqrs_type_id(type);
    esc_reading *made = NULL;
    while (self->by_type.count <= id) {
        if (esc_vector_push(&self->by_type, &made) != ESCQRS_OK) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for types of events");
        }
    }
    made = ESC_VECTOR_AT(&self->by_type, esc_reading *, id);
    if (made == NULL) {
        made = escqrs_alloc_zero(sizeof *made);
        if (made == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for types of events");
        }
        made->as = type;
        escqrs_status status = projector->reader.look(projector->reader.context, type, &made->how,
                                                      &made->as, &made->failure);
        if (status == ESCQRS_NO_MEMORY) {
            escqrs_free(made);
            return escqrs_error_set(error, status, "no memory for types of events");
        }
        if (status != ESCQRS_OK) {
            made->how = ESCQRS_READING_REFUSED;
            made->failure.status = status;
        }
        ESC_VECTOR_AT(&self->by_type, esc_reading *, id) = made;
    }
    *reading = made;
    return ESCQRS_OK;
}

escqrs_status esc_readings_all(esc_readings *self, escqrs_projector *projector, esc_topic **all)
{
    if (self->all == NULL) {
        esc_topic *made = escqrs_alloc_zero(sizeof *made);
        if (made == NULL) {
            return ESCQRS_NO_MEMORY;
        }
        esc_vector_init(&made->subscriptions, sizeof(esc_subscription));
        self->all = made;
        for (size_t i = 0; i < projector->models.count; i++) {
            esc_subscription one = {.model = esc_projector_model(projector, i)};
            if (one.model->definition.projection_count > 0 &&
                esc_vector_push(&made->subscriptions, &one) != ESCQRS_OK) {
                esc_vector_fini(&made->subscriptions);
                escqrs_free(made);
                self->all = NULL;
                return ESCQRS_NO_MEMORY;
            }
        }
    }
    *all = self->all;
    return ESCQRS_OK;
}
