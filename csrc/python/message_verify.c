/* python/message_verify.c - what the codec cannot know of decoded bytes: enum members, Literals,
 * unions, and fields that must be there.
 *
 * Reads layouts only: runs on any thread, without the GIL, once a layout is ready. No locks.
 */
#include "python/message_parts.h"

#include <string.h>

#include "base/error.h"

static escqrs_status bad(const esc_py_layout *layout, const esc_py_field *field, const char *what,
                         escqrs_error *error)
{
    return escqrs_error_set(error, ESCQRS_CORRUPT, "%s.%s: %s", escqrs_schema_name(layout->schema),
                            field->in->name, what);
}

static bool is_literal(const esc_py_field *field, const void *at)
{
    for (size_t i = 0; i < field->literal_count; i++) {
        const esc_py_literal *literal = &field->literals[i];
        if (field->kind == ESCQRS_KIND_INT) {
            if (*(const int64_t *)at == literal->number) {
                return true;
            }
            continue;
        }
        const ProtobufCBinaryData *text = at;
        if (text->len == literal->size &&
            (text->len == 0 || memcmp(text->data, literal->text, text->len) == 0)) {
            return true;
        }
    }
    return false;
}

static escqrs_status verify_one(const esc_py_layout *layout, const esc_py_field *field,
                                const void *at, escqrs_error *error)
{
    if (field->kind == ESCQRS_KIND_ENUM) {
        int32_t number = *(const int *)at;
        if (esc_py_member_numbered(field, number) == NULL) {
            return escqrs_error_set(error, ESCQRS_CORRUPT,
                                    "%s.%s: %ld is not the number of a member of the enum %s",
                                    escqrs_schema_name(layout->schema), field->in->name,
                                    (long)number, field->in->enum_name);
        }
    } else if (field->kind == ESCQRS_KIND_TIME) {
        const escqrs_timestamp *stamp = *(escqrs_timestamp *const *)at;
        if (stamp->seconds < ESC_PY_SECONDS_MIN || stamp->seconds > ESC_PY_SECONDS_MAX ||
            stamp->nanos < 0 || stamp->nanos > 999999999) {
            return bad(layout, field, "a time outside the years 1 to 9999", error);
        }
    } else if (field->kind == ESCQRS_KIND_MESSAGE) {
        const ProtobufCMessage *inner = *(ProtobufCMessage *const *)at;
        if (field->parts != NULL) {
            return esc_py_layout_verify(field->parts, inner, error);
        }
        if (!field->is_union) {
            return esc_py_layout_verify(((const esc_py_message_type *)field->type)->layout, inner,
                                        error);
        }
        const esc_py_member *member = NULL;
        inner = esc_py_union_value(field, inner, &member);
        if (inner == NULL) {
            return bad(layout, field, ESC_PY_NOT_ONE, error);
        }
        return esc_py_layout_verify(esc_py_member_layout(member), inner, error);
    } else if (field->literals != NULL && !is_literal(field, at)) {
        return bad(layout, field, "the stored value is none of those of its Literal", error);
    }
    return ESCQRS_OK;
}

static bool may_be_absent(const esc_py_field *field)
{
    if (field->label == ESCQRS_OPTIONAL || field->default_value != NULL ||
        field->default_factory != NULL) {
        return true;
    }
    if (field->kind == ESCQRS_KIND_ENUM) {
        return esc_py_member_numbered(field, 0) != NULL;
    }
    if (field->literals != NULL) {
        return esc_py_zero_literal(field) != NULL;
    }
    switch (field->kind) {
    case ESCQRS_KIND_TIME:
    case ESCQRS_KIND_DATE:
    case ESCQRS_KIND_CLOCK:
    case ESCQRS_KIND_LOCAL:
    case ESCQRS_KIND_UUID:
    case ESCQRS_KIND_MESSAGE:
        return false;
    default:
        return true;
    }
}

static escqrs_status verify_map(const esc_py_layout *layout, const esc_py_field *field,
                                const ProtobufCMessage *packed, escqrs_error *error)
{
    const char *base = (const char *)packed;
    size_t count = *(const size_t *)(base + field->in->count_offset);
    ProtobufCMessage *const *entries =
        *(ProtobufCMessage *const *const *)(base + field->in->value_offset);
    const escqrs_field *key = escqrs_schema_field(field->in->entry, 0);
    const escqrs_field *value = escqrs_schema_field(field->in->entry, 1);
    esc_py_field alone = *field; /* an entry's value has no default */
    alone.label = ESCQRS_ONE;
    alone.default_value = NULL;
    alone.default_factory = NULL;
    esc_py_field key_alone = alone;
    key_alone.kind = field->key_kind;
    key_alone.literals = NULL;
    for (size_t i = 0; i < count; i++) {
        escqrs_status status = ESCQRS_OK;
        if (!esc_py_is_absent(value, entries[i])) {
            status =
                verify_one(layout, field, (const char *)entries[i] + value->value_offset, error);
        } else if (!may_be_absent(&alone)) {
            status = bad(layout, field, ESC_PY_NO_VALUE, error);
        }
        bool no_key = esc_py_is_absent(key, entries[i]);
        if (status == ESCQRS_OK && no_key && !may_be_absent(&key_alone)) {
            status = bad(layout, field, ESC_PY_NO_KEY, error);
        }
        const void *text = (const char *)entries[i] + key->value_offset;
        if (status == ESCQRS_OK && field->keys != NULL &&
            (no_key || esc_py_key_of_text(field, text) == NULL)) {
            status = bad(layout, field, ESC_PY_UNKNOWN_KEY, error);
        }
        if (status != ESCQRS_OK) {
            return status;
        }
    }
    return ESCQRS_OK;
}

static escqrs_status verify_field(const esc_py_layout *layout, const esc_py_field *field,
                                  const ProtobufCMessage *packed, escqrs_error *error)
{
    const char *base = (const char *)packed;
    if (field->label == ESCQRS_MAP) {
        return verify_map(layout, field, packed, error);
    }
    if (field->label == ESCQRS_LIST) {
        size_t count = *(const size_t *)(base + field->in->count_offset);
        const char *items = *(const char *const *)(base + field->in->value_offset);
        size_t step = escqrs_kind_size(field->kind);
        for (size_t i = 0; i < count; i++) {
            escqrs_status status = verify_one(layout, field, items + i * step, error);
            if (status != ESCQRS_OK) {
                return status;
            }
        }
        return ESCQRS_OK;
    }
    if (!esc_py_is_absent(field->in, packed)) {
        return verify_one(layout, field, base + field->in->value_offset, error);
    }
    if (!may_be_absent(field)) {
        return bad(layout, field, "the stored message does not have this field; give it a default",
                   error);
    }
    return ESCQRS_OK;
}

escqrs_status esc_py_layout_verify(const esc_py_layout *layout, const ProtobufCMessage *packed,
                                   escqrs_error *error)
{
    if (!layout->checked) {
        return ESCQRS_OK;
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        const esc_py_field *field = &layout->fields[i];
        if (esc_py_field_is_verified(field)) {
            escqrs_status status = verify_field(layout, field, packed, error);
            if (status != ESCQRS_OK) {
                return status;
            }
        }
    }
    return ESCQRS_OK;
}
