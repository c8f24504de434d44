/* See type.h. Lock order: the registry's mutex is a leaf. */
#include "store/type.h"

#include <string.h>

#include "base/assert.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/utf8.h"

#define TABLE_CAPACITY_MIN 64
#define RECORD_SIZE_MAX (16u << 20)

static escqrs_slice type_key(const void *value)
{
    return ((const escqrs_type *)value)->identity;
}

void esc_type_registry_init(esc_type_registry *registry)
{
    memset(registry, 0, sizeof *registry);
    esc_mutex_init(&registry->mutex);
    esc_map_init(&registry->by_identity, type_key, NULL);
}

void esc_type_registry_fini(esc_type_registry *registry)
{
    /* relaxed: nobody else is left */
    esc_type_table *table = atomic_load_explicit(&registry->table, memory_order_relaxed);
    for (size_t i = 0; table != NULL && i < table->capacity; i++) {
        escqrs_free(atomic_load_explicit(&table->types[i], memory_order_relaxed));
    }
    while (table != NULL) {
        esc_type_table *older = table->older;
        escqrs_free(table);
        table = older;
    }
    esc_map_fini(&registry->by_identity);
    esc_mutex_fini(&registry->mutex);
}

escqrs_type *esc_type_registry_find(esc_type_registry *registry, int64_t id)
{
    /* acquire: pairs with the releases in put, so the table and the type are seen whole */
    esc_type_table *table = atomic_load_explicit(&registry->table, memory_order_acquire);
    if (table == NULL || id < 0 || (uint64_t)id >= table->capacity) {
        return NULL;
    }
    return atomic_load_explicit(&table->types[id], memory_order_acquire);
}

int64_t esc_type_registry_last(esc_type_registry *registry)
{
    esc_mutex_lock(&registry->mutex);
    int64_t last = registry->last_id;
    esc_mutex_unlock(&registry->mutex);
    return last;
}

/* Under the mutex. */
static escqrs_status put(esc_type_registry *registry, escqrs_type *type)
{
    esc_type_table *table = atomic_load_explicit(&registry->table, memory_order_relaxed);
    if (table == NULL || (size_t)type->id >= table->capacity) {
        size_t capacity = table == NULL ? TABLE_CAPACITY_MIN : table->capacity;
        while (capacity <= (size_t)type->id) {
            capacity *= 2;
        }
        esc_type_table *grown =
            escqrs_alloc_zero(sizeof *grown + capacity * sizeof grown->types[0]);
        if (grown == NULL) {
            return ESCQRS_NO_MEMORY;
        }
        grown->older = table;
        grown->capacity = capacity;
        for (size_t i = 0; table != NULL && i < table->capacity; i++) {
            atomic_init(&grown->types[i],
                        atomic_load_explicit(&table->types[i], memory_order_relaxed));
        }
        /* release: pairs with the acquire in find */
        atomic_store_explicit(&registry->table, grown, memory_order_release);
        table = grown;
    }
    escqrs_status status = esc_map_insert(&registry->by_identity, type);
    if (status != ESCQRS_OK) {
        return status;
    }
    /* release: pairs with the acquire in find */
    atomic_store_explicit(&table->types[type->id], type, memory_order_release);
    if (type->id > registry->last_id) {
        registry->last_id = type->id;
    }
    return ESCQRS_OK;
}

static escqrs_type *create(int64_t id, escqrs_slice name, escqrs_slice record)
{
    escqrs_type *type = escqrs_alloc_zero(sizeof *type + name.size + 1 + record.size + 1);
    if (type == NULL) {
        return NULL;
    }
    char *text = (char *)(type + 1);
    memcpy(text, name.data, name.size);
    if (record.size > 0) {
        memcpy(text + name.size + 1, record.data, record.size);
    }
    type->id = id;
    type->name = (escqrs_slice){text, name.size};
    type->record = (escqrs_slice){text + name.size + 1, record.size};
    type->identity = (escqrs_slice){text, name.size + 1 + record.size};
    type->hash = esc_hash(name, 0);
    return type;
}

escqrs_status esc_type_registry_load(esc_type_registry *registry, int64_t id, escqrs_slice name,
                                     escqrs_slice record, escqrs_type **type, escqrs_error *error)
{
    if (id < 1 || id > ESC_TYPE_COUNT_MAX || name.size == 0 || name.size > ESCQRS_TYPE_NAME_MAX ||
        memchr(name.data, 0, name.size) != NULL || !esc_utf8_valid(name)) {
        return escqrs_error_set(error, ESCQRS_CORRUPT, "the stored type %lld does not read",
                                (long long)id);
    }
    escqrs_type *fresh = create(id, name, record);
    if (fresh == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a type");
    }
    esc_mutex_lock(&registry->mutex);
    escqrs_status status = ESCQRS_OK;
    escqrs_type *known = esc_type_registry_find(registry, id);
    if (known == NULL) {
        status = put(registry, fresh);
        known = status == ESCQRS_OK ? fresh : NULL;
    } else if (!escqrs_slice_equal(known->identity, fresh->identity)) {
        status = ESCQRS_CORRUPT;
    }
    esc_mutex_unlock(&registry->mutex);
    if (known != fresh) {
        escqrs_free(fresh);
    }
    if (status != ESCQRS_OK) {
        return escqrs_error_set(error, status == ESCQRS_NO_MEMORY ? status : ESCQRS_CORRUPT,
                                status == ESCQRS_NO_MEMORY ? "no memory for a type"
                                                           : "the stored type %lld is there twice",
                                (long long)id);
    }
    /* release: pairs with the acquires of who asks whether it is used */
    atomic_store_explicit(&known->stored, true, memory_order_release);
    *type = known;
    return ESCQRS_OK;
}

escqrs_status esc_type_registry_get(esc_type_registry *registry, escqrs_slice name,
                                    escqrs_slice record, escqrs_type **type, escqrs_error *error)
{
    if (name.size == 0 || name.data == NULL || memchr(name.data, 0, name.size) != NULL ||
        !esc_utf8_valid(name)) {
        return escqrs_error_set(error, ESCQRS_INVALID, "a type needs a name of UTF-8 without NUL");
    }
    if (name.size > ESCQRS_TYPE_NAME_MAX || record.size > RECORD_SIZE_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                "the name of a type has at most %d bytes, its record %u",
                                ESCQRS_TYPE_NAME_MAX, RECORD_SIZE_MAX);
    }
    escqrs_type *fresh = create(0, name, record);
    if (fresh == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for a type");
    }
    esc_mutex_lock(&registry->mutex);
    escqrs_status status = ESCQRS_OK;
    escqrs_type *known = esc_map_get(&registry->by_identity, fresh->identity);
    if (known == NULL && registry->last_id >= ESC_TYPE_COUNT_MAX) {
        status = ESCQRS_TOO_LARGE;
    } else if (known == NULL) {
        fresh->id = registry->last_id + 1;
        status = put(registry, fresh);
        known = status == ESCQRS_OK ? fresh : NULL;
    }
    esc_mutex_unlock(&registry->mutex);
    if (known != fresh) {
        escqrs_free(fresh);
    }
    if (status != ESCQRS_OK) {
        return escqrs_error_set(error, status,
                                status == ESCQRS_NO_MEMORY
                                    ? "no memory for a type"
                                    : "a store holds at most 1,000,000 types");
    }
    *type = known;
    return ESCQRS_OK;
}

escqrs_slice escqrs_type_name(const escqrs_type *type)
{
    return type->name;
}

escqrs_slice escqrs_type_record(const escqrs_type *type)
{
    return type->record;
}

int64_t escqrs_type_id(const escqrs_type *type)
{
    return type->id;
}
