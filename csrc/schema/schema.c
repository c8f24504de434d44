/* Message types made at run time: collecting fields, laying out the C struct, sealing.
 *
 * A schema is written by one thread until it is sealed and by nobody afterwards, so it has no lock;
 * only the cached fingerprint is written later, atomically. Everything a schema points to lies in
 * its own arena, except the nested schemas: those are referred to by address and may be sealed
 * later, which lets a message contain itself. Pointers to `descriptor` and `plan` of a nested
 * schema are taken before they are filled; both lie inside the schema's struct, so their addresses
 * hold. */
#include "schema/schema.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "schema/check.h"

#define ALIGNMENT 8
#define ARENA_BLOCK_SIZE 1024

/* ---- names ------------------------------------------------------------------------------------ */

static bool is_letter(unsigned char c)
{
    /* Beyond ASCII the author's language has decided what a letter is. */
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static bool is_identifier(const char *data, size_t size)
{
    if (size == 0 || !is_letter((unsigned char)data[0])) {
        return false;
    }
    for (size_t i = 1; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        if (!is_letter(c) && !(c >= '0' && c <= '9')) {
            return false;
        }
    }
    return esc_utf8_valid((escqrs_slice){data, size});
}

/* One or more identifiers with dots between them, of at most ESC_SCHEMA_NAME_SIZE_MAX bytes. */
static bool is_name(escqrs_slice name)
{
    if (name.size == 0 || name.size > ESC_SCHEMA_NAME_SIZE_MAX) {
        return false;
    }
    const char *at = name.data;
    const char *end = at + name.size;
    for (;;) {
        const char *dot = memchr(at, '.', (size_t)(end - at));
        const char *stop = dot != NULL ? dot : end;
        if (!is_identifier(at, (size_t)(stop - at))) {
            return false;
        }
        if (dot == NULL) {
            return true;
        }
        at = dot + 1;
    }
}

size_t escqrs_kind_size(escqrs_kind kind)
{
    switch (kind) {
    case ESCQRS_KIND_INT:
    case ESCQRS_KIND_FLOAT:
    case ESCQRS_KIND_UINT64:
    case ESCQRS_KIND_SINT64:
    case ESCQRS_KIND_FIXED64:
    case ESCQRS_KIND_SFIXED64:
        return 8;
    case ESCQRS_KIND_INT32:
    case ESCQRS_KIND_UINT32:
    case ESCQRS_KIND_SINT32:
    case ESCQRS_KIND_FLOAT32:
    case ESCQRS_KIND_FIXED32:
    case ESCQRS_KIND_SFIXED32:
        return 4;
    case ESCQRS_KIND_BOOL:
        return sizeof(protobuf_c_boolean);
    case ESCQRS_KIND_ENUM:
        return sizeof(int);
    case ESCQRS_KIND_STRING:
    case ESCQRS_KIND_BYTES:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_DECIMAL:
    case ESCQRS_KIND_UUID:
        return sizeof(ProtobufCBinaryData);
    case ESCQRS_KIND_TIME:
    case ESCQRS_KIND_DURATION:
    case ESCQRS_KIND_MESSAGE:
        return sizeof(ProtobufCMessage *);
    }
    return 0;
}

/* ---- create, destroy -------------------------------------------------------------------------- */

escqrs_status escqrs_schema_create(escqrs_slice name, escqrs_schema **schema, escqrs_error *error)
{
    *schema = NULL;
    if (!is_name(name)) {
        int shown = name.size > 300 ? 300 : (int)name.size;
        return escqrs_error_set(
            error, ESCQRS_INVALID,
            "`%.*s` cannot be the name of a message: a name is identifiers with "
            "dots between them, of at most %d bytes",
            shown, name.size > 0 ? (const char *)name.data : "", ESC_SCHEMA_NAME_SIZE_MAX);
    }
    escqrs_schema *made = escqrs_alloc_zero(sizeof *made);
    if (made == NULL) {
        goto fail;
    }
    esc_arena_init(&made->arena, ARENA_BLOCK_SIZE);
    made->descriptor.name = esc_arena_strdup(&made->arena, name);
    if (made->descriptor.name == NULL) {
        goto fail;
    }
    *schema = made;
    return ESCQRS_OK;

fail:
    escqrs_schema_destroy(made);
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
}

void escqrs_schema_destroy(escqrs_schema *schema)
{
    if (schema == NULL) {
        return;
    }
    for (size_t i = 0; i < schema->owned_count; i++) {
        escqrs_schema_destroy(schema->owned[i]);
    }
    escqrs_free(schema->owned);
    escqrs_free(schema->fields);
    esc_arena_fini(&schema->arena);
    escqrs_free(schema);
}

static bool grow(void **items, size_t *capacity, size_t count, size_t item_size)
{
    if (count < *capacity) {
        return true;
    }
    size_t wanted = *capacity == 0 ? 8 : *capacity * 2;
    void *moved = escqrs_realloc(*items, wanted * item_size);
    if (moved == NULL) {
        return false;
    }
    *items = moved;
    *capacity = wanted;
    return true;
}

void escqrs_schema_make_union(escqrs_schema *schema)
{
    ESC_ASSERT(!schema->sealed && schema->field_count == 0);
    schema->is_union = true;
}

bool escqrs_schema_is_union(const escqrs_schema *schema)
{
    return schema->is_union;
}

const char *const *escqrs_schema_was(const escqrs_schema *schema, size_t *count)
{
    *count = schema->was_count;
    return (const char *const *)schema->was;
}

escqrs_status escqrs_schema_add_was(escqrs_schema *schema, escqrs_slice name, escqrs_error *error)
{
    ESC_ASSERT(!schema->sealed);
    if (!is_name(name)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "%s: a former name is one that a message can have",
                                schema->descriptor.name);
    }
    const char **grown = esc_arena_alloc(&schema->arena, (schema->was_count + 1) * sizeof *grown);
    char *copy = esc_arena_strdup(&schema->arena, name);
    if (grown == NULL || copy == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    for (size_t i = 0; i < schema->was_count; i++) {
        grown[i] = schema->was[i];
    }
    grown[schema->was_count] = copy;
    schema->was = grown;
    schema->was_count++;
    return ESCQRS_OK;
}

escqrs_status escqrs_schema_own(escqrs_schema *owner, escqrs_schema *nested)
{
    void *items = owner->owned;
    if (!grow(&items, &owner->owned_capacity, owner->owned_count, sizeof(escqrs_schema *))) {
        return ESCQRS_NO_MEMORY;
    }
    owner->owned = items;
    owner->owned[owner->owned_count++] = nested;
    return ESCQRS_OK;
}

/* ---- adding fields ---------------------------------------------------------------------------- */

static escqrs_status check_enum(const escqrs_schema *schema, const escqrs_field_spec *spec,
                                escqrs_error *error)
{
    if (spec->enum_name == NULL || !is_name(escqrs_slice_of(spec->enum_name))) {
        return escqrs_error_set(error, ESCQRS_INVALID, "%s.%s: an enum needs a name",
                                schema->descriptor.name, spec->name);
    }
    if (spec->enum_value_count == 0) {
        return escqrs_error_set(error, ESCQRS_INVALID, "%s.%s: the enum %s has no members",
                                schema->descriptor.name, spec->name, spec->enum_name);
    }
    if (spec->enum_value_count > ESC_SCHEMA_ENUM_VALUES_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE,
                                "%s.%s: the enum %s has %zu members, more than %d",
                                schema->descriptor.name, spec->name, spec->enum_name,
                                spec->enum_value_count, ESC_SCHEMA_ENUM_VALUES_MAX);
    }
    for (size_t i = 0; i < spec->enum_value_count; i++) {
        const char *name = spec->enum_values[i].name;
        if (name == NULL || !is_identifier(name, strlen(name))) {
            return escqrs_error_set(
                error, ESCQRS_INVALID, "%s.%s: `%s` cannot be the name of a member of the enum %s",
                schema->descriptor.name, spec->name, name != NULL ? name : "", spec->enum_name);
        }
    }
    return ESCQRS_OK;
}

static escqrs_status check_spec(const escqrs_schema *schema, const escqrs_field_spec *spec,
                                escqrs_error *error)
{
    const char *message = schema->descriptor.name;
    const char *name = spec->name != NULL ? spec->name : "";
    size_t name_size = strlen(name);
    if (name_size > ESC_SCHEMA_NAME_SIZE_MAX || !is_identifier(name, name_size) || name[0] == '_') {
        return escqrs_error_set(
            error, ESCQRS_INVALID,
            "%s: `%.300s` cannot be the name of a field: a name is an identifier of "
            "at most %d bytes that does not begin with `_`",
            message, name, ESC_SCHEMA_NAME_SIZE_MAX);
    }
    if (spec->number == 0 || spec->number > ESC_SCHEMA_NUMBER_MAX ||
        (spec->number >= ESC_SCHEMA_NUMBER_RESERVED_FIRST &&
         spec->number <= ESC_SCHEMA_NUMBER_RESERVED_LAST)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "%s.%s: %lu cannot be the number of a field: protobuf allows 1 to "
                                "536,870,911 without 19,000 to 19,999",
                                message, name, (unsigned long)spec->number);
    }
    if (schema->field_count == ESC_SCHEMA_FIELDS_MAX) {
        return escqrs_error_set(error, ESCQRS_TOO_LARGE, "%s has more than %d fields", message,
                                ESC_SCHEMA_FIELDS_MAX);
    }
    if (spec->kind < ESCQRS_KIND_INT || spec->kind > ESCQRS_KIND_LAST || spec->label < ESCQRS_ONE ||
        spec->label > ESCQRS_MAP) {
        return escqrs_error_set(error, ESCQRS_INVALID, "%s.%s: unknown kind %d or label %d",
                                message, name, (int)spec->kind, (int)spec->label);
    }
    if (spec->label == ESCQRS_MAP && !escqrs_kind_is_key(spec->key_kind)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "%s.%s: the keys of a dict are integers, `bool` or text, nothing "
                                "else",
                                message, name);
    }
    if (schema->is_union && (spec->kind != ESCQRS_KIND_MESSAGE || spec->label != ESCQRS_OPTIONAL)) {
        return escqrs_error_set(error, ESCQRS_INVALID,
                                "%s.%s: what a union is made of are messages", message, name);
    }
    if (spec->kind == ESCQRS_KIND_MESSAGE && spec->message == NULL) {
        return escqrs_error_set(error, ESCQRS_INVALID, "%s.%s: a nested message needs its schema",
                                message, name);
    }
    for (size_t i = 0; i < schema->field_count; i++) {
        if (strcmp(schema->fields[i].name, name) == 0) {
            return escqrs_error_set(error, ESCQRS_INVALID, "%s has two fields named `%s`", message,
                                    name);
        }
        if (schema->fields[i].number == spec->number) {
            return escqrs_error_set(
                error, ESCQRS_INVALID,
                "%s: the fields `%s` and `%s` both have the number %lu; give one of "
                "them another",
                message, schema->fields[i].name, name, (unsigned long)spec->number);
        }
    }
    return spec->kind == ESCQRS_KIND_ENUM ? check_enum(schema, spec, error) : ESCQRS_OK;
}

static int compare_value_numbers(const void *a, const void *b)
{
    int32_t x = ((const escqrs_enum_value *)a)->number;
    int32_t y = ((const escqrs_enum_value *)b)->number;
    return (x > y) - (x < y);
}

static int compare_value_names(const void *a, const void *b)
{
    return strcmp(((const escqrs_enum_value *)a)->name, ((const escqrs_enum_value *)b)->name);
}

/* The members are kept sorted by number, whatever the order of declaration. */
static escqrs_status copy_enum(escqrs_schema *schema, const escqrs_field_spec *spec,
                               escqrs_field *field, escqrs_error *error)
{
    size_t count = spec->enum_value_count;
    escqrs_enum_value *values = esc_arena_alloc(&schema->arena, count * sizeof *values);
    field->enum_name = esc_arena_strdup(&schema->arena, escqrs_slice_of(spec->enum_name));
    if (values == NULL || field->enum_name == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    for (size_t i = 0; i < count; i++) {
        values[i].number = spec->enum_values[i].number;
        values[i].name =
            esc_arena_strdup(&schema->arena, escqrs_slice_of(spec->enum_values[i].name));
        if (values[i].name == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
        }
    }
    qsort(values, count, sizeof *values, compare_value_names);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(values[i - 1].name, values[i].name) == 0) {
            return escqrs_error_set(
                error, ESCQRS_INVALID, "%s.%s: the enum %s has two members named `%s`",
                schema->descriptor.name, spec->name, spec->enum_name, values[i].name);
        }
    }
    qsort(values, count, sizeof *values, compare_value_numbers);
    for (size_t i = 1; i < count; i++) {
        if (values[i - 1].number == values[i].number) {
            return escqrs_error_set(error, ESCQRS_INVALID,
                                    "%s.%s: the members `%s` and `%s` of the enum %s both have the "
                                    "number %ld",
                                    schema->descriptor.name, spec->name, values[i - 1].name,
                                    values[i].name, spec->enum_name, (long)values[i].number);
        }
    }
    field->enum_values = values;
    field->enum_value_count = count;
    return ESCQRS_OK;
}

/* A map is a list of entries, messages with the fields key = 1 and value = 2. */
static escqrs_status make_entry(escqrs_schema *schema, const escqrs_field_spec *spec,
                                escqrs_field *field, escqrs_error *error)
{
    escqrs_schema *entry = NULL;
    escqrs_status status = escqrs_schema_create(escqrs_slice_of("Entry"), &entry, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    status = escqrs_schema_own(schema, entry);
    if (status != ESCQRS_OK) {
        escqrs_schema_destroy(entry);
        return escqrs_error_set(error, status, "out of memory for a message type");
    }
    ESC_ASSERT(entry != NULL);
    /* Owned from here on. Errors of an entry should read as errors of the field that has it. */
    size_t size = strlen(schema->descriptor.name) + 1 + strlen(spec->name);
    char *name = esc_arena_alloc(&entry->arena, size + 1);
    if (name == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    size_t prefix = strlen(schema->descriptor.name);
    memcpy(name, schema->descriptor.name, prefix);
    name[prefix] = '.';
    memcpy(name + prefix + 1, spec->name, strlen(spec->name) + 1);
    entry->descriptor.name = name;
    entry->is_entry = true;

    escqrs_field_spec key = {.name = "key",
                             .number = 1,
                             .kind = spec->key_kind,
                             .label = ESCQRS_ONE,
                             .has_default = true};
    escqrs_field_spec value = *spec;
    value.name = "value";
    value.number = 2;
    value.label = ESCQRS_ONE;
    value.has_default = true;
    value.was_count = 0;
    value.literal_count = 0;
    value.key_name_count = 0;
    status = escqrs_schema_add(entry, &key, error);
    if (status == ESCQRS_OK) {
        status = escqrs_schema_add(entry, &value, error);
    }
    if (status == ESCQRS_OK) {
        status = escqrs_schema_seal(entry, error);
    }
    field->entry = entry;
    return status;
}

static escqrs_status copy_was(escqrs_schema *schema, const escqrs_field_spec *spec,
                              escqrs_field *field, escqrs_error *error)
{
    const char **was = esc_arena_alloc(&schema->arena, (spec->was_count + 1) * sizeof *was);
    if (was == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    for (size_t i = 0; i < spec->was_count; i++) {
        size_t size = spec->was[i] == NULL ? 0 : strlen(spec->was[i]);
        if (size > ESC_SCHEMA_NAME_SIZE_MAX || !is_identifier(spec->was[i], size)) {
            return escqrs_error_set(error, ESCQRS_INVALID,
                                    "%s.%s: a former name is one that a field can have",
                                    schema->descriptor.name, spec->name);
        }
        was[i] = esc_arena_strdup(&schema->arena, escqrs_slice_of(spec->was[i]));
        if (was[i] == NULL) {
            return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
        }
    }
    field->was = was;
    field->was_count = spec->was_count;
    return ESCQRS_OK;
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted, whatever the order of declaration. */
static escqrs_status copy_texts(escqrs_schema *schema, const char *const *texts, size_t count,
                                const char *const **copy, escqrs_error *error)
{
    const char **made = esc_arena_alloc(&schema->arena, (count + 1) * sizeof *made);
    for (size_t i = 0; made != NULL && i < count; i++) {
        if (!esc_utf8_valid(escqrs_slice_of(texts[i]))) {
            return escqrs_error_set(error, ESCQRS_INVALID, "%s: a value that is not UTF-8",
                                    schema->descriptor.name);
        }
        made[i] = esc_arena_strdup(&schema->arena, escqrs_slice_of(texts[i]));
        made = made[i] != NULL ? made : NULL;
    }
    if (made == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    qsort(made, count, sizeof *made, compare_texts);
    *copy = made;
    return ESCQRS_OK;
}

static escqrs_status copy_values(escqrs_schema *schema, const escqrs_field_spec *spec,
                                 escqrs_field *field, escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    if (spec->literal_count > 0) {
        field->literal_count = spec->literal_count;
        status = copy_texts(schema, spec->literals, spec->literal_count, &field->literals, error);
    }
    if (status == ESCQRS_OK && spec->key_name_count > 0) {
        field->key_name_count = spec->key_name_count;
        status =
            copy_texts(schema, spec->key_names, spec->key_name_count, &field->key_names, error);
    }
    return status;
}

escqrs_status escqrs_schema_add(escqrs_schema *schema, const escqrs_field_spec *spec,
                                escqrs_error *error)
{
    ESC_ASSERT(!schema->sealed);
    escqrs_status status = check_spec(schema, spec, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    void *items = schema->fields;
    if (!grow(&items, &schema->field_capacity, schema->field_count, sizeof(escqrs_field))) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    schema->fields = items;

    escqrs_field field = {
        .name = esc_arena_strdup(&schema->arena, escqrs_slice_of(spec->name)),
        .number = spec->number,
        .kind = spec->kind,
        .label = spec->label,
        .has_default = spec->has_default,
        .message = spec->kind == ESCQRS_KIND_MESSAGE ? spec->message : NULL,
    };
    if (field.name == NULL) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
    }
    if (spec->kind == ESCQRS_KIND_ENUM) {
        status = copy_enum(schema, spec, &field, error);
    }
    if (status == ESCQRS_OK && spec->was_count > 0) {
        status = copy_was(schema, spec, &field, error);
    }
    if (status == ESCQRS_OK) {
        status = copy_values(schema, spec, &field, error);
    }
    if (status == ESCQRS_OK && spec->label == ESCQRS_MAP) {
        field.key_kind = spec->key_kind;
        status = make_entry(schema, spec, &field, error);
    }
    if (status == ESCQRS_OK) {
        schema->fields[schema->field_count++] = field;
    }
    return status;
}

/* ---- sealing ---------------------------------------------------------------------------------- */

static bool has_flag(const escqrs_field *field)
{
    bool one = field->label == ESCQRS_ONE || field->label == ESCQRS_OPTIONAL;
    return one && !escqrs_kind_is_pointer(field->kind);
}

/* Everything of eight bytes first, then what has four, so that there is no padding between. */
static void lay_out(escqrs_schema *schema)
{
    size_t offset = sizeof(ProtobufCMessage);
    for (size_t i = 0; i < schema->field_count; i++) {
        escqrs_field *field = &schema->fields[i];
        if (field->label == ESCQRS_LIST || field->label == ESCQRS_MAP) {
            field->count_offset = offset;
            field->value_offset = offset + sizeof(size_t);
            offset += sizeof(size_t) + sizeof(void *);
        } else if (escqrs_kind_size(field->kind) % ALIGNMENT == 0) {
            field->value_offset = offset;
            offset += escqrs_kind_size(field->kind);
        }
    }
    for (size_t i = 0; i < schema->field_count; i++) {
        escqrs_field *field = &schema->fields[i];
        if (field->value_offset == 0) {
            field->value_offset = offset;
            offset += escqrs_kind_size(field->kind);
        }
        if (has_flag(field)) {
            field->has_offset = offset;
            offset += sizeof(protobuf_c_boolean);
        }
    }
    offset = (offset + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    schema->descriptor.sizeof_message = offset;
}

/* Insertion into an index of at most ESC_SCHEMA_FIELDS_MAX; usually few and nearly in order. */
static void sort_by_name(const escqrs_schema *schema, uint32_t *index)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        size_t at = i;
        while (at > 0 && strcmp(schema->fields[index[at - 1]].name, schema->fields[i].name) > 0) {
            index[at] = index[at - 1];
            at--;
        }
        index[at] = (uint32_t)i;
    }
}

static void sort_by_number(const escqrs_schema *schema, uint32_t *index)
{
    for (size_t i = 0; i < schema->field_count; i++) {
        size_t at = i;
        while (at > 0 && schema->fields[index[at - 1]].number > schema->fields[i].number) {
            index[at] = index[at - 1];
            at--;
        }
        index[at] = (uint32_t)i;
    }
}

escqrs_status escqrs_schema_seal(escqrs_schema *schema, escqrs_error *error)
{
    if (schema->sealed) {
        return ESCQRS_OK;
    }
    lay_out(schema);
    size_t size = (schema->field_count + 1) * sizeof(uint32_t);
    uint32_t *by_name = esc_arena_alloc(&schema->arena, size);
    uint32_t *by_number = esc_arena_alloc(&schema->arena, size);
    if (by_name == NULL || by_number == NULL) {
        goto fail;
    }
    sort_by_name(schema, by_name);
    sort_by_number(schema, by_number);
    schema->by_name = by_name;
    schema->by_number = by_number;
    if (esc_descriptor_build(schema) != ESCQRS_OK || esc_plan_build(schema) != ESCQRS_OK) {
        goto fail;
    }
    schema->sealed = true;
    return ESCQRS_OK;

fail:
    return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for a message type");
}

/* ---- looking at a schema ---------------------------------------------------------------------- */

const char *escqrs_schema_name(const escqrs_schema *schema)
{
    return schema->descriptor.name;
}

size_t escqrs_schema_field_count(const escqrs_schema *schema)
{
    return schema->field_count;
}

const escqrs_field *escqrs_schema_field(const escqrs_schema *schema, size_t index)
{
    return index < schema->field_count ? &schema->fields[index] : NULL;
}

const escqrs_field *escqrs_schema_find(const escqrs_schema *schema, escqrs_slice name)
{
    ESC_ASSERT(schema->sealed);
    size_t low = 0;
    size_t high = schema->field_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const escqrs_field *field = &schema->fields[schema->by_name[middle]];
        size_t size = strlen(field->name);
        size_t common = size < name.size ? size : name.size;
        int order = common > 0 ? memcmp(field->name, name.data, common) : 0;
        if (order == 0 && size == name.size) {
            return field;
        }
        if (order < 0 || (order == 0 && size < name.size)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

const escqrs_field *esc_schema_find_number(const escqrs_schema *schema, uint32_t number)
{
    ESC_ASSERT(schema->sealed);
    const esc_plan_field *found = esc_plan_find(&schema->plan, number);
    return found == NULL ? NULL : &schema->fields[schema->by_number[found - schema->plan.fields]];
}

const ProtobufCMessageDescriptor *escqrs_schema_descriptor(const escqrs_schema *schema)
{
    return &schema->descriptor;
}

size_t escqrs_schema_struct_size(const escqrs_schema *schema)
{
    ESC_ASSERT(schema->sealed);
    return schema->descriptor.sizeof_message;
}
