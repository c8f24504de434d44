/* Schemas as bytes, and back.
 *
 * A record is an escqrs.v1.Schema (proto/escqrs/v1/schema.proto), written and read by generated
 * code. It is as deep as that file and no deeper, so a damaged one cannot make protobuf-c recurse;
 * what bounds its memory is RECORD_SIZE_MAX. What it says is then checked as every definition is.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/buffer.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/varint.h"
#include "escqrs/v1/schema.pb-c.h"
#include "schema/closure.h"

#define RECORD_SIZE_MAX ((size_t)1024 * 1024)
#define FINGERPRINT_SEED 0

/* ---- writing ---------------------------------------------------------------------------------- */

static bool fill_enum(esc_arena *arena, const escqrs_field *field, Escqrs__V1__Field *out)
{
    size_t count = field->enum_value_count;
    Escqrs__V1__EnumValue *values = esc_arena_alloc(arena, count * sizeof *values);
    out->enum_values = esc_arena_alloc(arena, count * sizeof(void *));
    if (values == NULL || out->enum_values == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        escqrs__v1__enum_value__init(&values[i]);
        values[i].name = (char *)field->enum_values[i].name; /* only read */
        values[i].number = field->enum_values[i].number;
        out->enum_values[i] = &values[i];
    }
    out->n_enum_values = count;
    out->enum_name = (char *)field->enum_name;
    return true;
}

static bool fill_message(esc_arena *arena, const esc_vector *closure, const escqrs_schema *schema,
                         Escqrs__V1__Message *out)
{
    size_t count = schema->field_count;
    escqrs__v1__message__init(out);
    out->name = (char *)schema->descriptor.name;
    out->was = (char **)schema->was; /* only read */
    out->n_was = schema->was_count;
    if (count == 0) {
        return true;
    }
    Escqrs__V1__Field *fields = esc_arena_alloc(arena, count * sizeof *fields);
    out->fields = esc_arena_alloc(arena, count * sizeof(void *));
    if (fields == NULL || out->fields == NULL) {
        return false;
    }
    out->n_fields = count;
    out->is_union = schema->is_union;
    for (size_t i = 0; i < count; i++) {
        const escqrs_field *field = &schema->fields[schema->by_number[i]];
        escqrs__v1__field__init(&fields[i]);
        out->fields[i] = &fields[i];
        fields[i].name = (char *)field->name;
        fields[i].number = field->number;
        fields[i].kind = (Escqrs__V1__Kind)field->kind;
        fields[i].label = (Escqrs__V1__Label)field->label;
        fields[i].key_kind = (Escqrs__V1__Kind)field->key_kind;
        fields[i].has_default = field->has_default;
        fields[i].was = (char **)field->was; /* only read */
        fields[i].n_was = field->was_count;
        fields[i].literals = (char **)field->literals;
        fields[i].n_literals = field->literal_count;
        fields[i].key_names = (char **)field->key_names;
        fields[i].n_key_names = field->key_name_count;
        if (field->kind == ESCQRS_KIND_MESSAGE) {
            fields[i].message =
                (uint32_t)esc_closure_index(closure, field->message->descriptor.name);
        }
        if (field->kind == ESCQRS_KIND_ENUM && !fill_enum(arena, field, &fields[i])) {
            return false;
        }
    }
    return true;
}

static escqrs_status pack_closure(const esc_vector *closure, void **record, size_t *size,
                                  escqrs_error *error)
{
    esc_arena arena;
    esc_arena_init(&arena, 0);
    escqrs_status status = ESCQRS_NO_MEMORY;
    size_t count = closure->count;
    const escqrs_schema *root = ESC_VECTOR_AT(closure, const escqrs_schema *, 0);
    Escqrs__V1__Schema schema = ESCQRS__V1__SCHEMA__INIT;
    Escqrs__V1__Message *messages = esc_arena_alloc(&arena, count * sizeof *messages);
    schema.messages = esc_arena_alloc(&arena, count * sizeof(void *));
    if (messages == NULL || schema.messages == NULL) {
        goto fail;
    }
    schema.n_messages = count;
    for (size_t i = 0; i < count; i++) {
        const escqrs_schema *nested = ESC_VECTOR_AT(closure, const escqrs_schema *, i);
        if (!fill_message(&arena, closure, nested, &messages[i])) {
            goto fail;
        }
        schema.messages[i] = &messages[i];
    }
    *size = escqrs__v1__schema__get_packed_size(&schema);
    if (*size > RECORD_SIZE_MAX) {
        status = ESCQRS_TOO_LARGE;
        goto fail;
    }
    *record = escqrs_alloc(*size);
    if (*record == NULL) {
        goto fail;
    }
    escqrs__v1__schema__pack(&schema, *record);
    esc_arena_fini(&arena);
    return ESCQRS_OK;

fail:
    esc_arena_fini(&arena);
    *size = 0;
    if (status == ESCQRS_TOO_LARGE) {
        return escqrs_error_set(error, status,
                                "%s with all that it nests is too large a definition",
                                root->descriptor.name);
    }
    return escqrs_error_set(error, status, "%s: out of memory for its definition",
                            root->descriptor.name);
}

escqrs_status escqrs_schema_record(const escqrs_schema *schema, void **record, size_t *size,
                                   escqrs_error *error)
{
    *record = NULL;
    *size = 0;
    esc_vector closure = ESC_VECTOR_OF(const escqrs_schema *);
    escqrs_status status = esc_closure_collect(&schema, 1, &closure, error);
    if (status == ESCQRS_OK) {
        status = pack_closure(&closure, record, size, error);
    }
    esc_vector_fini(&closure);
    return status;
}

uint64_t escqrs_schema_fingerprint(const escqrs_schema *schema)
{
    escqrs_schema *cached = (escqrs_schema *)schema; /* the cache alone is written */
    /* Relaxed here and below: the number is all there is to see, and every thread finds the same.
     */
    uint64_t fingerprint = atomic_load_explicit(&cached->fingerprint, memory_order_relaxed);
    if (fingerprint != 0) {
        return fingerprint;
    }
    void *record = NULL;
    size_t size = 0;
    if (escqrs_schema_record(schema, &record, &size, NULL) != ESCQRS_OK) {
        return 0;
    }
    fingerprint = esc_hash((escqrs_slice){record, size}, FINGERPRINT_SEED);
    fingerprint = fingerprint != 0 ? fingerprint : 1;
    escqrs_free(record);
    atomic_store_explicit(&cached->fingerprint, fingerprint, memory_order_relaxed);
    return fingerprint;
}

/* ---- reading ---------------------------------------------------------------------------------- */

typedef struct loading {
    esc_vector schemas; /* of escqrs_schema *, as many as the record has messages */
    bool out_of_memory; /* of protobuf-c */
} loading;

static void *allocate(void *data, size_t size)
{
    loading *l = data;
    void *memory = escqrs_alloc(size);
    l->out_of_memory |= memory == NULL;
    return memory;
}

static void release(void *data, void *memory)
{
    (void)data;
    escqrs_free(memory);
}

/* A definition that is not one: what create and add say of it, but the record is at fault. */
static escqrs_status as_corrupt(escqrs_status status, escqrs_error *error)
{
    if (status == ESCQRS_OK || status == ESCQRS_NO_MEMORY) {
        return status;
    }
    esc_error_prefix(error, "a recorded definition is damaged: ");
    if (error != NULL) {
        error->status = ESCQRS_CORRUPT;
    }
    return ESCQRS_CORRUPT;
}

static escqrs_status load_field(const loading *l, escqrs_schema *schema,
                                const Escqrs__V1__Field *in, escqrs_error *error)
{
    escqrs_field_spec spec = {
        .name = in->name,
        .number = in->number,
        .kind = (escqrs_kind)in->kind,
        .label = (escqrs_label)in->label,
        .key_kind = (escqrs_kind)in->key_kind,
        .has_default = in->has_default != 0,
        .enum_name = in->enum_name,
        .was = (const char *const *)in->was,
        .was_count = in->n_was,
        .literals = (const char *const *)in->literals,
        .literal_count = in->n_literals,
        .key_names = (const char *const *)in->key_names,
        .key_name_count = in->n_key_names,
    };
    if (spec.kind == ESCQRS_KIND_MESSAGE) {
        if (in->message >= l->schemas.count) {
            return escqrs_error_set(error, ESCQRS_INVALID, "%s.%s: nested message %lu of %zu",
                                    schema->descriptor.name, in->name, (unsigned long)in->message,
                                    l->schemas.count);
        }
        spec.message = ESC_VECTOR_AT(&l->schemas, escqrs_schema *, in->message);
    }
    escqrs_enum_value *values = NULL;
    if (spec.kind == ESCQRS_KIND_ENUM) {
        values = escqrs_alloc_array(in->n_enum_values, sizeof *values);
        if (values == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
        }
        for (size_t i = 0; i < in->n_enum_values; i++) {
            values[i] = (escqrs_enum_value){in->enum_values[i]->name, in->enum_values[i]->number};
        }
        spec.enum_values = values;
        spec.enum_value_count = in->n_enum_values;
    }
    escqrs_status status = escqrs_schema_add(schema, &spec, error);
    escqrs_free(values);
    return status;
}

static escqrs_status load_messages(loading *l, const Escqrs__V1__Schema *record,
                                   escqrs_error *error)
{
    for (size_t i = 0; i < record->n_messages; i++) {
        escqrs_schema *made = NULL;
        escqrs_status status =
            escqrs_schema_create(escqrs_slice_of(record->messages[i]->name), &made, error);
        if (status == ESCQRS_OK && record->messages[i]->is_union) {
            escqrs_schema_make_union(made);
        }
        for (size_t j = 0; status == ESCQRS_OK && j < record->messages[i]->n_was; j++) {
            status =
                escqrs_schema_add_was(made, escqrs_slice_of(record->messages[i]->was[j]), error);
            if (status != ESCQRS_OK) {
                escqrs_schema_destroy(made);
                made = NULL;
            }
        }
        if (status == ESCQRS_OK && esc_vector_push(&l->schemas, &made) != ESCQRS_OK) {
            escqrs_schema_destroy(made);
            status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
        }
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    for (size_t i = 0; i < record->n_messages; i++) {
        escqrs_schema *schema = ESC_VECTOR_AT(&l->schemas, escqrs_schema *, i);
        escqrs_status status = ESCQRS_OK;
        for (size_t j = 0; status == ESCQRS_OK && j < record->messages[i]->n_fields; j++) {
            status = load_field(l, schema, record->messages[i]->fields[j], error);
        }
        if (status == ESCQRS_OK) {
            status = escqrs_schema_seal(schema, error);
        }
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    return ESCQRS_OK;
}

/* The first schema takes the others; where that fails, all of them are destroyed. */
static escqrs_status hand_over(loading *l, escqrs_schema **root, escqrs_error *error)
{
    escqrs_schema *first = ESC_VECTOR_AT(&l->schemas, escqrs_schema *, 0);
    while (l->schemas.count > 1) {
        escqrs_schema *nested = ESC_VECTOR_AT(&l->schemas, escqrs_schema *, l->schemas.count - 1);
        if (escqrs_schema_own(first, nested) != ESCQRS_OK) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
        }
        esc_vector_pop(&l->schemas);
    }
    esc_vector_pop(&l->schemas);
    *root = first;
    return ESCQRS_OK;
}

escqrs_status escqrs_schema_load(escqrs_slice record, escqrs_schema **schema, escqrs_error *error)
{
    *schema = NULL;
    if (record.size > RECORD_SIZE_MAX) {
        return escqrs_error_set(
            error, ESCQRS_CORRUPT,
            "a recorded definition of %zu bytes is larger than any that is written", record.size);
    }
    loading l = {.schemas = ESC_VECTOR_OF(escqrs_schema *)};
    ProtobufCAllocator allocator = {allocate, release, &l};
    Escqrs__V1__Schema *read = escqrs__v1__schema__unpack(&allocator, record.size, record.data);
    escqrs_status status;
    if (read == NULL && l.out_of_memory) {
        status = escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    } else if (read == NULL || read->n_messages == 0) {
        status = escqrs_error_set(error, ESCQRS_CORRUPT, "a recorded definition does not decode");
    } else {
        status = as_corrupt(load_messages(&l, read, error), error);
    }
    if (status == ESCQRS_OK) {
        status = hand_over(&l, schema, error);
    }
    for (size_t i = 0; i < l.schemas.count; i++) {
        escqrs_schema_destroy(ESC_VECTOR_AT(&l.schemas, escqrs_schema *, i));
    }
    esc_vector_fini(&l.schemas);
    if (read != NULL) {
        escqrs__v1__schema__free_unpacked(read, &allocator);
    }
    return status;
}

/* ---- versions --------------------------------------------------------------------------------- */

#define VERSION_TAG 0x10u /* Schema.version, a varint */

escqrs_status escqrs_record_version(escqrs_slice record, uint32_t *version, escqrs_error *error)
{
    loading l = {0};
    ProtobufCAllocator allocator = {allocate, release, &l};
    Escqrs__V1__Schema *read =
        record.size > RECORD_SIZE_MAX
            ? NULL
            : escqrs__v1__schema__unpack(&allocator, record.size, record.data);
    if (read == NULL) {
        return l.out_of_memory
                   ? escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type")
                   : escqrs_error_set(error, ESCQRS_CORRUPT,
                                      "a recorded definition does not decode");
    }
    *version = read->version == 0 ? 1 : read->version;
    escqrs__v1__schema__free_unpacked(read, &allocator);
    return ESCQRS_OK;
}

escqrs_status escqrs_record_set_version(escqrs_slice record, uint32_t version, void **versioned,
                                        size_t *size, escqrs_error *error)
{
    uint8_t *made = escqrs_alloc(record.size + 1 + ESC_VARINT_SIZE_MAX);
    *versioned = made;
    *size = record.size;
    if (made == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    if (record.size > 0) {
        memcpy(made, record.data, record.size);
    }
    if (version > 1) {
        made[(*size)++] = VERSION_TAG;
        *size += esc_varint_encode(version, made + *size);
    }
    return ESCQRS_OK;
}
