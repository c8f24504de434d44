/* What protobuf-c wants to know of a message: its descriptor, built by hand at sealing.
 *
 * Text is BYTES here, because a Python string may hold NULs; on the wire the two are the same.
 * Every singular field is OPTIONAL with a `has` flag, lists of numbers are packed, a map is a list
 * of entries. */
#include <stdlib.h>
#include <string.h>

#include "schema/schema.h"

#define NUMBER_1 1
#define NUMBER_2 2

static const ProtobufCFieldDescriptor timestamp_fields[] = {
    {.name = "seconds",
     .id = NUMBER_1,
     .label = PROTOBUF_C_LABEL_OPTIONAL,
     .type = PROTOBUF_C_TYPE_INT64,
     .quantifier_offset = offsetof(escqrs_timestamp, has_seconds),
     .offset = offsetof(escqrs_timestamp, seconds)},
    {.name = "nanos",
     .id = NUMBER_2,
     .label = PROTOBUF_C_LABEL_OPTIONAL,
     .type = PROTOBUF_C_TYPE_INT32,
     .quantifier_offset = offsetof(escqrs_timestamp, has_nanos),
     .offset = offsetof(escqrs_timestamp, nanos)},
};
static const unsigned timestamp_by_name[] = {1, 0};
static const ProtobufCIntRange timestamp_ranges[] = {{1, 0}, {0, 2}};

const ProtobufCMessageDescriptor escqrs_timestamp_descriptor = {
    .magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
    .name = "google.protobuf.Timestamp",
    .short_name = "Timestamp",
    .c_name = "Google__Protobuf__Timestamp",
    .package_name = "google.protobuf",
    .sizeof_message = sizeof(escqrs_timestamp),
    .n_fields = 2,
    .fields = timestamp_fields,
    .fields_sorted_by_name = timestamp_by_name,
    .n_field_ranges = 1,
    .field_ranges = timestamp_ranges,
};

const ProtobufCMessageDescriptor escqrs_duration_descriptor = {
    .magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
    .name = "google.protobuf.Duration",
    .short_name = "Duration",
    .c_name = "Google__Protobuf__Duration",
    .package_name = "google.protobuf",
    .sizeof_message = sizeof(escqrs_duration),
    .n_fields = 2,
    .fields = timestamp_fields, /* the same two */
    .fields_sorted_by_name = timestamp_by_name,
    .n_field_ranges = 1,
    .field_ranges = timestamp_ranges,
};

static ProtobufCType type_of(escqrs_kind kind)
{
    switch (kind) {
    case ESCQRS_KIND_INT:
        return PROTOBUF_C_TYPE_INT64;
    case ESCQRS_KIND_FLOAT:
        return PROTOBUF_C_TYPE_DOUBLE;
    case ESCQRS_KIND_BOOL:
        return PROTOBUF_C_TYPE_BOOL;
    case ESCQRS_KIND_ENUM:
        return PROTOBUF_C_TYPE_ENUM;
    case ESCQRS_KIND_INT32:
        return PROTOBUF_C_TYPE_INT32;
    case ESCQRS_KIND_UINT32:
        return PROTOBUF_C_TYPE_UINT32;
    case ESCQRS_KIND_UINT64:
        return PROTOBUF_C_TYPE_UINT64;
    case ESCQRS_KIND_SINT32:
        return PROTOBUF_C_TYPE_SINT32;
    case ESCQRS_KIND_SINT64:
        return PROTOBUF_C_TYPE_SINT64;
    case ESCQRS_KIND_FLOAT32:
        return PROTOBUF_C_TYPE_FLOAT;
    case ESCQRS_KIND_FIXED32:
        return PROTOBUF_C_TYPE_FIXED32;
    case ESCQRS_KIND_FIXED64:
        return PROTOBUF_C_TYPE_FIXED64;
    case ESCQRS_KIND_SFIXED32:
        return PROTOBUF_C_TYPE_SFIXED32;
    case ESCQRS_KIND_SFIXED64:
        return PROTOBUF_C_TYPE_SFIXED64;
    case ESCQRS_KIND_TIME:
    case ESCQRS_KIND_DURATION:
    case ESCQRS_KIND_MESSAGE:
        return PROTOBUF_C_TYPE_MESSAGE;
    case ESCQRS_KIND_STRING:
    case ESCQRS_KIND_BYTES:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
        break;
    }
    return PROTOBUF_C_TYPE_BYTES;
}

/* Runs of consecutive numbers: where each begins and which index it has; ended by the count.
 * `numbers` gives the i-th number. NULL when out of memory. */
static ProtobufCIntRange *make_ranges(esc_arena *arena, const int *numbers, size_t count,
                                      unsigned *range_count)
{
    ProtobufCIntRange *ranges = esc_arena_alloc(arena, (count + 1) * sizeof *ranges);
    if (ranges == NULL) {
        return NULL;
    }
    unsigned made = 0;
    for (size_t i = 0; i < count; i++) {
        /* Compared as 64 bits: an enum may have both ends of 32. */
        if (i == 0 || (int64_t)numbers[i] != (int64_t)numbers[i - 1] + 1) {
            ranges[made++] = (ProtobufCIntRange){numbers[i], (unsigned)i};
        }
    }
    ranges[made] = (ProtobufCIntRange){0, (unsigned)count};
    *range_count = made;
    return ranges;
}

static const char *short_name_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL ? dot + 1 : name;
}

/* The part of a dotted name before its last dot, in the arena; "" for a name without. */
static const char *package_of(esc_arena *arena, const char *name)
{
    const char *dot = strrchr(name, '.');
    return esc_arena_strdup(arena, (escqrs_slice){name, dot != NULL ? (size_t)(dot - name) : 0});
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const ProtobufCEnumValueIndex *)a)->name,
                  ((const ProtobufCEnumValueIndex *)b)->name);
}

static const ProtobufCEnumDescriptor *make_enum(esc_arena *arena, const escqrs_field *field)
{
    size_t count = field->enum_value_count;
    ProtobufCEnumDescriptor *made = esc_arena_alloc_zero(arena, sizeof *made);
    ProtobufCEnumValue *values = esc_arena_alloc(arena, count * sizeof *values);
    ProtobufCEnumValueIndex *by_name = esc_arena_alloc(arena, count * sizeof *by_name);
    int *numbers = esc_arena_alloc(arena, count * sizeof *numbers);
    if (made == NULL || values == NULL || by_name == NULL || numbers == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        const escqrs_enum_value *value = &field->enum_values[i]; /* sorted by number */
        values[i] = (ProtobufCEnumValue){value->name, value->name, value->number};
        by_name[i] = (ProtobufCEnumValueIndex){value->name, (unsigned)i};
        numbers[i] = value->number;
    }
    qsort(by_name, count, sizeof *by_name, compare_names);
    made->magic = PROTOBUF_C__ENUM_DESCRIPTOR_MAGIC;
    made->name = field->enum_name;
    made->short_name = short_name_of(field->enum_name);
    made->c_name = made->short_name;
    made->package_name = package_of(arena, field->enum_name);
    made->n_values = (unsigned)count;
    made->values = values;
    made->n_value_names = (unsigned)count;
    made->values_by_name = by_name;
    made->value_ranges = make_ranges(arena, numbers, count, &made->n_value_ranges);
    return made->value_ranges != NULL && made->package_name != NULL ? made : NULL;
}

static bool fill_field(escqrs_schema *schema, const escqrs_field *field,
                       ProtobufCFieldDescriptor *out)
{
    bool repeated = field->label == ESCQRS_LIST || field->label == ESCQRS_MAP;
    bool map = field->label == ESCQRS_MAP;
    *out = (ProtobufCFieldDescriptor){
        .name = field->name,
        .id = field->number,
        .label = repeated ? PROTOBUF_C_LABEL_REPEATED : PROTOBUF_C_LABEL_OPTIONAL,
        .type = map ? PROTOBUF_C_TYPE_MESSAGE : type_of(field->kind),
        .quantifier_offset = (unsigned)(repeated ? field->count_offset : field->has_offset),
        .offset = (unsigned)field->value_offset,
        .flags = field->label == ESCQRS_LIST && esc_kind_is_packable(field->kind)
                     ? PROTOBUF_C_FIELD_FLAG_PACKED
                     : 0,
    };
    if (map) {
        out->descriptor = &field->entry->descriptor;
    } else if (field->kind == ESCQRS_KIND_MESSAGE) {
        out->descriptor = &field->message->descriptor;
    } else if (field->kind == ESCQRS_KIND_TIME) {
        out->descriptor = &escqrs_timestamp_descriptor;
    } else if (field->kind == ESCQRS_KIND_DURATION) {
        out->descriptor = &escqrs_duration_descriptor;
    } else if (field->kind == ESCQRS_KIND_ENUM) {
        out->descriptor = make_enum(&schema->arena, field);
        return out->descriptor != NULL;
    }
    return true;
}

escqrs_status esc_descriptor_build(escqrs_schema *schema)
{
    ProtobufCMessageDescriptor *descriptor = &schema->descriptor;
    size_t count = schema->field_count;
    descriptor->short_name = short_name_of(descriptor->name);
    descriptor->c_name = descriptor->short_name;
    descriptor->package_name = package_of(&schema->arena, descriptor->name);
    if (descriptor->package_name == NULL) {
        return ESCQRS_NO_MEMORY;
    }
    descriptor->n_fields = (unsigned)count;
    if (count > 0) { /* protobuf-c looks at fields[0] unless `fields` is NULL */
        ProtobufCFieldDescriptor *fields = esc_arena_alloc(&schema->arena, count * sizeof *fields);
        unsigned *by_name = esc_arena_alloc(&schema->arena, count * sizeof *by_name);
        int *numbers = esc_arena_alloc(&schema->arena, count * sizeof *numbers);
        if (fields == NULL || by_name == NULL || numbers == NULL) {
            return ESCQRS_NO_MEMORY;
        }
        for (size_t i = 0; i < count; i++) {
            ProtobufCFieldDescriptor made;
            if (!fill_field(schema, &schema->fields[i], &made)) {
                return ESCQRS_NO_MEMORY;
            }
            size_t at = i;
            while (at > 0 && fields[at - 1].id > made.id) {
                fields[at] = fields[at - 1];
                at--;
            }
            fields[at] = made;
        }
        for (size_t i = 0; i < count; i++) {
            numbers[i] = (int)fields[i].id;
            size_t at = i;
            while (at > 0 && strcmp(fields[by_name[at - 1]].name, fields[i].name) > 0) {
                by_name[at] = by_name[at - 1];
                at--;
            }
            by_name[at] = (unsigned)i;
        }
        descriptor->fields = fields;
        descriptor->fields_sorted_by_name = by_name;
        descriptor->field_ranges =
            make_ranges(&schema->arena, numbers, count, &descriptor->n_field_ranges);
        if (descriptor->field_ranges == NULL) {
            return ESCQRS_NO_MEMORY;
        }
    }
    descriptor->magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC;
    return ESCQRS_OK;
}
