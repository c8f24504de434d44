/* May data written with one definition be read with another?
 *
 * Wire types would let many changes pass that change what the data means: a field renamed in the
 * middle, two of one type swapped, a text that became bytes. So fields are compared by number and
 * name and type, and what differs is refused with both meanings and the mend. Pairs of messages are
 * compared one after the other from a list that each enters once, so definitions that contain
 * themselves end. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/vector.h"
#include "schema/schema.h"

#define TYPE_TEXT_SIZE 640

typedef struct pair {
    const escqrs_schema *now;
    const escqrs_schema *stored;
} pair;

static const char *kind_name(const escqrs_field *field, escqrs_kind kind)
{
    switch (kind) {
    case ESCQRS_KIND_INT:
        return "int";
    case ESCQRS_KIND_FLOAT:
        return "float";
    case ESCQRS_KIND_BOOL:
        return "bool";
    case ESCQRS_KIND_STRING:
        return "str";
    case ESCQRS_KIND_BYTES:
        return "bytes";
    case ESCQRS_KIND_TIME:
        return "datetime";
    case ESCQRS_KIND_INT32:
        return "es.int32";
    case ESCQRS_KIND_UINT32:
        return "es.uint32";
    case ESCQRS_KIND_UINT64:
        return "es.uint64";
    case ESCQRS_KIND_SINT32:
        return "es.sint32";
    case ESCQRS_KIND_SINT64:
        return "es.sint64";
    case ESCQRS_KIND_FLOAT32:
        return "protobuf's float";
    case ESCQRS_KIND_FIXED32:
        return "protobuf's fixed32";
    case ESCQRS_KIND_FIXED64:
        return "protobuf's fixed64";
    case ESCQRS_KIND_SFIXED32:
        return "protobuf's sfixed32";
    case ESCQRS_KIND_SFIXED64:
        return "protobuf's sfixed64";
    case ESCQRS_KIND_DURATION:
        return "timedelta";
    case ESCQRS_KIND_DATE:
        return "date";
    case ESCQRS_KIND_CLOCK:
        return "time";
    case ESCQRS_KIND_LOCAL:
        return "es.naive_datetime";
    case ESCQRS_KIND_DECIMAL:
        return "Decimal";
    case ESCQRS_KIND_UUID:
        return "UUID";
    case ESCQRS_KIND_ENUM:
        return field->enum_name;
    case ESCQRS_KIND_MESSAGE:
        return field->message->descriptor.name;
    }
    return "?";
}

/* As it is annotated in Python. Returns `text`. */
static const char *type_text(const escqrs_field *field, char text[TYPE_TEXT_SIZE])
{
    const char *kind = kind_name(field, field->kind);
    switch (field->label) {
    case ESCQRS_ONE:
        snprintf(text, TYPE_TEXT_SIZE, "%s", kind);
        break;
    case ESCQRS_OPTIONAL:
        snprintf(text, TYPE_TEXT_SIZE, "%s | None", kind);
        break;
    case ESCQRS_LIST:
        snprintf(text, TYPE_TEXT_SIZE, "list[%s]", kind);
        break;
    case ESCQRS_MAP:
        snprintf(text, TYPE_TEXT_SIZE, "dict[%s, %s]", kind_name(field, field->key_kind), kind);
        break;
    }
    return text;
}

/* What a comparison has to say, and whom to. */
typedef struct comparison {
    esc_vector pairs; /* of `pair` */
    void (*visit)(void *context, const escqrs_change *change);
    void *context;
} comparison;

#define CHANGE_TEXT_SIZE 1024

__attribute__((format(printf, 5, 6))) static void tell(const comparison *c, escqrs_change_kind kind,
                                                       const pair *p, const char *field,
                                                       const char *format, ...)
{
    if (c->visit == NULL) {
        return;
    }
    char text[CHANGE_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    escqrs_change change = {kind, p->now->descriptor.name, field, text};
    c->visit(c->context, &change);
}

static bool lists(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* One and the same, by its name or by what either side says that it was: an older program meets
 * what a newer one has renamed, too. */
static bool same_field(const escqrs_field *now, const escqrs_field *stored)
{
    return strcmp(now->name, stored->name) == 0 || lists(now->was, now->was_count, stored->name) ||
           lists(stored->was, stored->was_count, now->name);
}

static bool same_message(const escqrs_schema *now, const escqrs_schema *stored)
{
    const char *name = now->descriptor.name;
    const char *before = stored->descriptor.name;
    return strcmp(name, before) == 0 ||
           lists((const char *const *)now->was, now->was_count, before) ||
           lists((const char *const *)stored->was, stored->was_count, name);
}

static escqrs_status refuse_name(const pair *p, const escqrs_field *now, const escqrs_field *stored,
                                 escqrs_error *error)
{
    char was[TYPE_TEXT_SIZE];
    char is[TYPE_TEXT_SIZE];
    const char *message = p->now->descriptor.name;
    unsigned long number = stored->number;
    const escqrs_field *moved = escqrs_schema_find(p->now, escqrs_slice_of(stored->name));
    if (moved != NULL) {
        return escqrs_error_set(
            error, ESCQRS_SCHEMA_MISMATCH,
            "%s: field %lu was `%s: %s` in stored data and is now `%s: %s`; `%s` has become field "
            "%lu. "
            "Stored values would be read under the wrong names: give `%s` its number back with "
            "`es.field(%lu)`, and `%s` one that was never used",
            message, number, stored->name, type_text(stored, was), now->name, type_text(now, is),
            stored->name, (unsigned long)moved->number, stored->name, number, now->name);
    }
    if (now->kind == stored->kind && now->label == stored->label) {
        return escqrs_error_set(
            error, ESCQRS_SCHEMA_MISMATCH,
            "%s: field %lu was `%s: %s` in stored data and is now `%s: %s`. Stored values would be "
            "read under another name: if it is the same field, write `%s: %s = es.field(%lu, "
            "was=\"%s\")`; if it is another one, give it a number that was never used with "
            "`es.field(...)`, and a default",
            message, number, stored->name, type_text(stored, was), now->name, type_text(now, is),
            now->name, is, number, stored->name);
    }
    return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                            "%s: field %lu was `%s: %s` in stored data and is now `%s: %s`. Stored "
                            "values would be misread: `%s` is another field, so give it a number "
                            "that was never used with `es.field(...)`, and a default, or declare "
                            "number %lu as reserved",
                            message, number, stored->name, type_text(stored, was), now->name,
                            type_text(now, is), now->name, number);
}

/* Two classes of a union under one number. Their names here are those of the union's fields. */
static escqrs_status refuse_member(const pair *p, const escqrs_field *now,
                                   const escqrs_field *stored, escqrs_error *error)
{
    if (now == NULL) {
        return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                                "%s: the union had the class %s (`%s` = %lu) in stored data and "
                                "has none of that number now. Stored values could not be read: "
                                "keep the class in the union",
                                p->now->descriptor.name, stored->message->descriptor.name,
                                stored->name, (unsigned long)stored->number);
    }
    return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                            "%s: class %lu of the union was %s (`%s`) in stored data and is now %s "
                            "(`%s`). Stored values would be read as another class: keep the "
                            "union's classes in their order, under their names, and add new ones "
                            "at the end",
                            p->now->descriptor.name, (unsigned long)stored->number,
                            stored->message->descriptor.name, stored->name,
                            now->message->descriptor.name, now->name);
}

static escqrs_status refuse_type(const pair *p, const escqrs_field *now, const escqrs_field *stored,
                                 escqrs_error *error)
{
    char was[TYPE_TEXT_SIZE];
    char is[TYPE_TEXT_SIZE];
    type_text(stored, was);
    type_text(now, is);
    if (stored->label == ESCQRS_OPTIONAL && now->label == ESCQRS_ONE && stored->kind == now->kind) {
        return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                                "%s: field %lu was `%s: %s` in stored data and is now `%s: %s`. "
                                "Stored data may have None "
                                "there: keep `%s`, or write an `@es.upcast` function",
                                p->now->descriptor.name, (unsigned long)stored->number,
                                stored->name, was, now->name, is, was);
    }
    return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                            "%s: field %lu was `%s: %s` in stored data and is now `%s: %s`. Stored "
                            "values cannot be read so: "
                            "keep `%s`, and put the new type into a field with a new name, a "
                            "number that was never used and a default; or give the event's class "
                            "the next version and write an `@es.upcast` function",
                            p->now->descriptor.name, (unsigned long)stored->number, stored->name,
                            was, now->name, is, was);
}

static const escqrs_enum_value *find_value(const escqrs_field *field, int32_t number)
{
    for (size_t i = 0; i < field->enum_value_count; i++) {
        if (field->enum_values[i].number == number) {
            return &field->enum_values[i];
        }
    }
    return NULL;
}

static escqrs_status compare_enums(const comparison *c, const pair *p, const escqrs_field *now,
                                   const escqrs_field *stored, escqrs_error *error)
{
    for (size_t i = 0; i < stored->enum_value_count; i++) {
        const escqrs_enum_value *was = &stored->enum_values[i];
        const escqrs_enum_value *is = find_value(now, was->number);
        if (is == NULL) {
            return escqrs_error_set(
                error, ESCQRS_SCHEMA_MISMATCH,
                "%s: field %lu (`%s`): the enum %s had the member `%s` = %ld in stored data and "
                "has none "
                "of that number now. Stored values could not be read: keep the member; or give "
                "the event's class the next version and write an `@es.upcast` function",
                p->now->descriptor.name, (unsigned long)stored->number, stored->name,
                now->enum_name, was->name, (long)was->number);
        }
        if (strcmp(is->name, was->name) != 0) {
            return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                                    "%s: field %lu (`%s`): %ld meant `%s` of the enum %s in stored "
                                    "data and means `%s` now. "
                                    "Stored values would be misread: keep the members with their "
                                    "numbers, and add new ones "
                                    "behind them",
                                    p->now->descriptor.name, (unsigned long)stored->number,
                                    stored->name, (long)was->number, was->name, now->enum_name,
                                    is->name);
        }
    }
    for (size_t i = 0; i < now->enum_value_count; i++) {
        if (find_value(stored, now->enum_values[i].number) == NULL) {
            tell(c, ESCQRS_CHANGE_ADDED, p, now->name, "the enum %s has got the member `%s` = %ld",
                 now->enum_name, now->enum_values[i].name, (long)now->enum_values[i].number);
        }
    }
    return ESCQRS_OK;
}

/* Of a Literal, or of an enum whose members are keys. A side that has none takes any value. */
static escqrs_status compare_values(const comparison *c, const pair *p, const escqrs_field *now,
                                    const escqrs_field *stored, escqrs_error *error)
{
    const char *what = "Literal";
    const char *const *is = now->literals;
    const char *const *was = stored->literals;
    size_t is_count = now->literal_count;
    size_t was_count = stored->literal_count;
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; is_count > 0 && i < was_count; i++) {
            if (!lists(is, is_count, was[i])) {
                return escqrs_error_set(
                    error, ESCQRS_SCHEMA_MISMATCH,
                    "%s: field %lu (`%s`): the %s had `%s` in stored data and has it no more. "
                    "Stored values could not be read: keep it; or give the event's class the next "
                    "version and write an `@es.upcast` function",
                    p->now->descriptor.name, (unsigned long)stored->number, stored->name, what,
                    was[i]);
            }
        }
        for (size_t i = 0; was_count > 0 && i < is_count; i++) {
            if (!lists(was, was_count, is[i])) {
                tell(c, ESCQRS_CHANGE_ADDED, p, now->name, "the %s has got `%s`", what, is[i]);
            }
        }
        if (is_count == 0 && was_count > 0) {
            tell(c, ESCQRS_CHANGE_WIDENED, p, now->name,
                 "field %lu, `%s`, takes any value now, and not those of a %s alone",
                 (unsigned long)now->number, now->name, what);
        }
        what = "enum of the keys";
        is = now->key_names;
        was = stored->key_names;
        is_count = now->key_name_count;
        was_count = stored->key_name_count;
    }
    return ESCQRS_OK;
}

static escqrs_status enter(esc_vector *pairs, const escqrs_schema *now, const escqrs_schema *stored,
                           escqrs_error *error)
{
    for (size_t i = 0; i < pairs->count; i++) {
        const pair *known = &ESC_VECTOR_AT(pairs, pair, i);
        if (known->now == now && known->stored == stored) {
            return ESCQRS_OK;
        }
    }
    pair entered = {now, stored};
    if (esc_vector_push(pairs, &entered) != ESCQRS_OK) {
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "out of memory for comparing %s",
                                now->descriptor.name);
    }
    return ESCQRS_OK;
}

/* Does the new kind read what was written as the old one, with the same meaning? */
static bool is_wider(escqrs_kind now, escqrs_kind stored)
{
    switch (stored) {
    case ESCQRS_KIND_INT32:
        return now == ESCQRS_KIND_INT;
    case ESCQRS_KIND_UINT32:
        return now == ESCQRS_KIND_INT || now == ESCQRS_KIND_UINT64;
    case ESCQRS_KIND_SINT32:
        return now == ESCQRS_KIND_SINT64;
    default:
        return false;
    }
}

static bool kinds_agree(const escqrs_field *now, const escqrs_field *stored)
{
    if (now->kind != stored->kind && !is_wider(now->kind, stored->kind)) {
        return false;
    }
    if (now->kind == ESCQRS_KIND_MESSAGE && now->message->is_union != stored->message->is_union) {
        return false;
    }
    return now->label != ESCQRS_MAP || now->key_kind == stored->key_kind ||
           is_wider(now->key_kind, stored->key_kind);
}

/* Both are one field, of types that agree. */
static void tell_field(const comparison *c, const pair *p, const escqrs_field *now,
                       const escqrs_field *stored)
{
    char was[TYPE_TEXT_SIZE];
    char is[TYPE_TEXT_SIZE];
    if (strcmp(now->name, stored->name) != 0) {
        tell(c, ESCQRS_CHANGE_RENAMED, p, now->name, "field %lu was `%s` and is `%s` now",
             (unsigned long)now->number, stored->name, now->name);
    }
    if (now->label != stored->label || now->kind != stored->kind ||
        now->key_kind != stored->key_kind) {
        tell(c, ESCQRS_CHANGE_WIDENED, p, now->name, "field %lu was `%s: %s` and is `%s: %s` now",
             (unsigned long)now->number, stored->name, type_text(stored, was), now->name,
             type_text(now, is));
    }
}

/* The message that stands for a tuple is named by the message and field that have it, as a union
 * is, and so renamed with them. */
static bool is_tuple(const escqrs_schema *nested, const escqrs_schema *owner)
{
    size_t size = strlen(owner->descriptor.name);
    return strncmp(nested->descriptor.name, owner->descriptor.name, size) == 0 &&
           nested->descriptor.name[size] == '.' && nested->field_count > 0 &&
           strcmp(nested->fields[0].name, "item_1") == 0;
}

static escqrs_status compare_nested(comparison *c, const pair *p, const escqrs_field *now,
                                    const escqrs_field *stored, escqrs_error *error)
{
    bool named_by_owner = now->message->is_union ||
                          (is_tuple(now->message, p->now) && is_tuple(stored->message, p->stored));
    if (!named_by_owner && !same_message(now->message, stored->message)) {
        return p->now->is_union ? refuse_member(p, now, stored, error)
                                : refuse_type(p, now, stored, error);
    }
    if (!named_by_owner &&
        strcmp(now->message->descriptor.name, stored->message->descriptor.name) != 0) {
        tell(c, ESCQRS_CHANGE_RENAMED, p, now->name, "the class %s was named %s",
             now->message->descriptor.name, stored->message->descriptor.name);
    }
    return enter(&c->pairs, now->message, stored->message, error);
}

static escqrs_status compare_fields(comparison *c, const pair *p, const escqrs_field *now,
                                    const escqrs_field *stored, escqrs_error *error)
{
    bool is_union = p->now->is_union && p->stored->is_union;
    /* the fields of a union are named by their classes */
    if (!same_field(now, stored) && !(is_union && same_message(now->message, stored->message))) {
        return is_union ? refuse_member(p, now, stored, error) : refuse_name(p, now, stored, error);
    }
    bool labels = now->label == stored->label ||
                  (now->label == ESCQRS_OPTIONAL && stored->label == ESCQRS_ONE);
    if (!labels || !kinds_agree(now, stored)) {
        return refuse_type(p, now, stored, error);
    }
    tell_field(c, p, now, stored);
    escqrs_status status = compare_values(c, p, now, stored, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (now->kind == ESCQRS_KIND_ENUM) {
        return compare_enums(c, p, now, stored, error);
    }
    return now->kind == ESCQRS_KIND_MESSAGE ? compare_nested(c, p, now, stored, error) : ESCQRS_OK;
}

/* A field that the stored definition does not have under its number. */
static escqrs_status compare_added(const comparison *c, const pair *p, const escqrs_field *now,
                                   escqrs_error *error)
{
    char is[TYPE_TEXT_SIZE];
    const char *message = p->now->descriptor.name;
    if (p->now->is_union) {
        tell(c, ESCQRS_CHANGE_ADDED, p, now->name, "the union has got the class %s",
             now->message->descriptor.name);
        return ESCQRS_OK;
    }
    for (size_t i = 0; i < p->stored->field_count; i++) {
        const escqrs_field *stored = &p->stored->fields[i];
        if (same_field(now, stored)) {
            return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                                    "%s: `%s` was field %lu in stored data and is now field %lu. "
                                    "Stored values would not be "
                                    "found: give it its number back with `es.field(%lu)`",
                                    message, stored->name, (unsigned long)stored->number,
                                    (unsigned long)now->number, (unsigned long)stored->number);
        }
    }
    if (!now->has_default) {
        const char *nothing = now->label == ESCQRS_OPTIONAL ? ", e.g. `= None`"
                              : now->label == ESCQRS_LIST   ? ", e.g. `= []`"
                              : now->label == ESCQRS_MAP    ? ", e.g. `= {}`"
                                                            : "";
        return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                                "%s: field %lu, `%s: %s`, is new and has no default, and stored "
                                "data does not have it: give it a default%s, or write an "
                                "`@es.upcast` function",
                                message, (unsigned long)now->number, now->name, type_text(now, is),
                                nothing);
    }
    tell(c, ESCQRS_CHANGE_ADDED, p, now->name, "field %lu, `%s: %s`, is new and has a default",
         (unsigned long)now->number, now->name, type_text(now, is));
    return ESCQRS_OK;
}

/* A difference that stops the comparison, or one that is told and passed. */
static escqrs_status settle(const comparison *c, const pair *p, const char *field,
                            escqrs_status status, escqrs_error *error)
{
    if (status != ESCQRS_SCHEMA_MISMATCH || c->visit == NULL) {
        return status;
    }
    tell(c, ESCQRS_CHANGE_MISREAD, p, field, "%s", error->message);
    *error = (escqrs_error){0};
    return ESCQRS_OK;
}

static escqrs_status compare_stored(comparison *c, const pair *p, const escqrs_field *stored,
                                    escqrs_error *error)
{
    const escqrs_field *now = esc_schema_find_number(p->now, stored->number);
    if (now != NULL) {
        return compare_fields(c, p, now, stored, error);
    }
    if (p->stored->is_union) {
        return refuse_member(p, NULL, stored, error);
    }
    /* its values are kept as unknown fields */
    tell(c, ESCQRS_CHANGE_REMOVED, p, stored->name, "field %lu, `%s`, is gone",
         (unsigned long)stored->number, stored->name);
    return ESCQRS_OK;
}

static escqrs_status compare_messages(comparison *c, const pair *p, escqrs_error *error)
{
    escqrs_status status = ESCQRS_OK;
    if (!p->now->sealed) {
        return escqrs_error_set(error, ESCQRS_INVALID, "%s is nested but not sealed",
                                p->now->descriptor.name);
    }
    /* First what would be misread, then what is missing: a shift of numbers is told as such. */
    for (size_t i = 0; status == ESCQRS_OK && i < p->stored->field_count; i++) {
        const escqrs_field *stored = &p->stored->fields[p->stored->by_number[i]];
        status = settle(c, p, stored->name, compare_stored(c, p, stored, error), error);
    }
    for (size_t i = 0; status == ESCQRS_OK && i < p->now->field_count; i++) {
        const escqrs_field *now = &p->now->fields[i];
        if (esc_schema_find_number(p->stored, now->number) == NULL) {
            status = settle(c, p, now->name, compare_added(c, p, now, error), error);
        }
    }
    return status;
}

static escqrs_status compare(comparison *c, const escqrs_schema *schema, escqrs_slice record,
                             escqrs_error *error)
{
    escqrs_schema *stored = NULL;
    escqrs_status status = escqrs_schema_load(record, &stored, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    c->pairs = (esc_vector)ESC_VECTOR_OF(pair);
    status = enter(&c->pairs, schema, stored, error);
    for (size_t i = 0; status == ESCQRS_OK && i < c->pairs.count; i++) {
        pair p = ESC_VECTOR_AT(&c->pairs, pair, i); /* a copy: the vector grows */
        status = compare_messages(c, &p, error);
    }
    esc_vector_fini(&c->pairs);
    escqrs_schema_destroy(stored);
    return status;
}

escqrs_status escqrs_schema_compare(const escqrs_schema *schema, escqrs_slice record,
                                    escqrs_error *error)
{
    comparison c = {.visit = NULL};
    return compare(&c, schema, record, error);
}

escqrs_status escqrs_schema_changes(const escqrs_schema *schema, escqrs_slice record,
                                    void (*visit)(void *context, const escqrs_change *change),
                                    void *context, escqrs_error *error)
{
    escqrs_error own = {0};
    comparison c = {.visit = visit, .context = context};
    escqrs_status status = compare(&c, schema, record, &own);
    if (status != ESCQRS_OK && error != NULL) {
        *error = own;
    }
    return status;
}
