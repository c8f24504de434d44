/* The closure of nesting. Schemas are told apart by name, for that is how the store and .proto
 * files know them; two schemas of one name may be in it as long as they say the same. */
#include "schema/closure.h"

#include <string.h>

#include "base/assert.h"

bool esc_enum_equal(const escqrs_field *a, const escqrs_field *b)
{
    if (a->enum_value_count != b->enum_value_count) {
        return false;
    }
    for (size_t i = 0; i < a->enum_value_count; i++) { /* both sorted by number */
        if (a->enum_values[i].number != b->enum_values[i].number ||
            strcmp(a->enum_values[i].name, b->enum_values[i].name) != 0) {
            return false;
        }
    }
    return true;
}

static bool texts_equal(const char *const *a, size_t a_count, const char *const *b, size_t b_count)
{
    bool equal = a_count == b_count;
    for (size_t i = 0; equal && i < a_count; i++) { /* both sorted */
        equal = strcmp(a[i], b[i]) == 0;
    }
    return equal;
}

static bool fields_equal(const escqrs_field *a, const escqrs_field *b)
{
    if (a->number != b->number || a->kind != b->kind || a->label != b->label ||
        a->key_kind != b->key_kind || a->has_default != b->has_default ||
        strcmp(a->name, b->name) != 0 ||
        !texts_equal(a->literals, a->literal_count, b->literals, b->literal_count) ||
        !texts_equal(a->key_names, a->key_name_count, b->key_names, b->key_name_count)) {
        return false;
    }
    if (a->kind == ESCQRS_KIND_MESSAGE) {
        return strcmp(a->message->descriptor.name, b->message->descriptor.name) == 0;
    }
    return a->kind != ESCQRS_KIND_ENUM ||
           (strcmp(a->enum_name, b->enum_name) == 0 && esc_enum_equal(a, b));
}

static bool schemas_equal(const escqrs_schema *a, const escqrs_schema *b)
{
    if (a->field_count != b->field_count || a->is_union != b->is_union) {
        return false;
    }
    for (size_t i = 0; i < a->field_count; i++) {
        if (!fields_equal(&a->fields[a->by_number[i]], &b->fields[b->by_number[i]])) {
            return false;
        }
    }
    return true;
}

static escqrs_status add(esc_vector *out, const escqrs_schema *schema, escqrs_error *error)
{
    if (!schema->sealed) {
        return escqrs_error_set(error, ESCQRS_INVALID, "%s is nested but not sealed",
                                schema->descriptor.name);
    }
    for (size_t i = 0; i < out->count; i++) {
        const escqrs_schema *known = ESC_VECTOR_AT(out, const escqrs_schema *, i);
        if (known == schema) {
            return ESCQRS_OK;
        }
        if (strcmp(known->descriptor.name, schema->descriptor.name) == 0) {
            if (schemas_equal(known, schema)) {
                return ESCQRS_OK;
            }
            return escqrs_error_set(error, ESCQRS_NAME_CLASH,
                                    "two different messages are named %s: give one of them another "
                                    "name with `name=`",
                                    schema->descriptor.name);
        }
    }
    if (esc_vector_push(out, &schema) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    return ESCQRS_OK;
}

escqrs_status esc_closure_collect(const escqrs_schema *const *schemas, size_t count,
                                  esc_vector *out, escqrs_error *error)
{
    for (size_t i = 0; i < count; i++) {
        escqrs_status status = add(out, schemas[i], error);
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    for (size_t next = 0; next < out->count; next++) {
        const escqrs_schema *schema = ESC_VECTOR_AT(out, const escqrs_schema *, next);
        for (size_t i = 0; i < schema->field_count; i++) {
            const escqrs_field *field = &schema->fields[schema->by_number[i]];
            if (field->kind != ESCQRS_KIND_MESSAGE) {
                continue;
            }
            escqrs_status status = add(out, field->message, error);
            if (status != ESCQRS_OK) {
                return status;
            }
        }
    }
    return ESCQRS_OK;
}

size_t esc_closure_index(const esc_vector *closure, const char *name)
{
    size_t index = 0;
    while (index < closure->count &&
           strcmp(ESC_VECTOR_AT(closure, const escqrs_schema *, index)->descriptor.name, name) !=
               0) {
        index++;
    }
    ESC_ASSERT(index < closure->count);
    return index;
}
