/* The part of an aggregate that is not an entity: its sweeper, and its end. See aggregate.c. */
#ifndef ESC_ENTITY_AGGREGATE_H
#define ESC_ENTITY_AGGREGATE_H

#include "entity/entity.h"

/* Ask the sweeper to unload idle entities, on a worker. Any thread; while the runtime exists. */
void esc_aggregate_sweep(escqrs_aggregate *aggregate);
/* The shell is being freed: no entity exists any more. */
void esc_aggregate_destroy(escqrs_aggregate *aggregate);
/* Each entity once, without a lock; entities made meanwhile may be missed. False: out of memory,
 * not all were visited. */
bool esc_aggregate_each(escqrs_aggregate *aggregate,
                        void (*visit)(escqrs_entity *entity, void *context), void *context);

#endif
