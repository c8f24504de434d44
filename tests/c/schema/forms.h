/* A message type of the kinds that rich.h leaves out: each of INT32 to SFIXED64 alone, in a list,
 * and where it may be one as the key of a map, and a union.
 *
 *     tests.Forms                                        tests.Card
 *      1-16   int32 ... sfixed64: the kinds in order       1 number: str
 *     20-35   int32_list ...
 *     40-55   int32_map ...: dict[K, K]; no map of 45    tests.Cash
 *             and 51: neither span nor float is a key      1 amount: Decimal
 *     60      paid: Card | Cash                            2 change: Card | Cash | None
 *     61      payments: list[Card | Cash]
 *     62      by_day: dict[date, Card | Cash]            tests.Forms.Paid: card = 1, cash = 2
 */
#ifndef ESC_TESTS_SCHEMA_FORMS_H
#define ESC_TESTS_SCHEMA_FORMS_H

#include <escqrs/schema.h>

#include <stdio.h>

#define FORMS_FIRST ESCQRS_KIND_INT32
#define FORMS_LISTS 20
#define FORMS_MAPS 40

typedef struct forms {
    escqrs_schema *root;
    escqrs_schema *paid; /* the union */
    escqrs_schema *card;
    escqrs_schema *cash;
} forms;

static const char *const forms_names[] = {
    "int32",    "uint32", "uint64", "sint32",  "sint64",  "span",    "day",      "clock",
    "datetime", "price",  "uuid",   "float32", "fixed32", "fixed64", "sfixed32", "sfixed64"};

/* The kind's place in the message. */
static inline uint32_t forms_index(escqrs_kind kind)
{
    return (uint32_t)(kind - FORMS_FIRST);
}

static inline escqrs_status forms_add(escqrs_schema *schema, const char *name, uint32_t number,
                                      escqrs_kind kind, escqrs_label label, escqrs_kind key_kind,
                                      const escqrs_schema *message, escqrs_error *error)
{
    escqrs_field_spec spec = {.name = name,
                              .number = number,
                              .kind = kind,
                              .label = label,
                              .key_kind = key_kind,
                              .message = message};
    return escqrs_schema_add(schema, &spec, error);
}

static inline void forms_destroy(forms *f)
{
    escqrs_schema_destroy(f->root);
    escqrs_schema_destroy(f->paid);
    escqrs_schema_destroy(f->card);
    escqrs_schema_destroy(f->cash);
    *f = (forms){0};
}

static inline escqrs_status forms_add_kind(escqrs_schema *root, escqrs_kind kind,
                                           escqrs_error *error)
{
    uint32_t index = forms_index(kind);
    char name[32];
    escqrs_status status =
        forms_add(root, forms_names[index], index + 1, kind, ESCQRS_ONE, 0, NULL, error);
    if (status == ESCQRS_OK) {
        snprintf(name, sizeof name, "%s_list", forms_names[index]);
        status = forms_add(root, name, FORMS_LISTS + index, kind, ESCQRS_LIST, 0, NULL, error);
    }
    if (status == ESCQRS_OK && escqrs_kind_is_key(kind)) {
        snprintf(name, sizeof name, "%s_map", forms_names[index]);
        status = forms_add(root, name, FORMS_MAPS + index, kind, ESCQRS_MAP, kind, NULL, error);
    }
    return status;
}

static inline escqrs_status forms_add_unions(forms *f, escqrs_error *error)
{
    const escqrs_kind message = ESCQRS_KIND_MESSAGE;
    escqrs_schema_make_union(f->paid);
    escqrs_status status =
        forms_add(f->paid, "card", 1, message, ESCQRS_OPTIONAL, 0, f->card, error);
    if (status == ESCQRS_OK) {
        status = forms_add(f->paid, "cash", 2, message, ESCQRS_OPTIONAL, 0, f->cash, error);
    }
    if (status == ESCQRS_OK) {
        status = forms_add(f->cash, "change", 2, message, ESCQRS_OPTIONAL, 0, f->paid, error);
    }
    if (status == ESCQRS_OK) {
        status = forms_add(f->root, "paid", 60, message, ESCQRS_ONE, 0, f->paid, error);
    }
    if (status == ESCQRS_OK) {
        status = forms_add(f->root, "payments", 61, message, ESCQRS_LIST, 0, f->paid, error);
    }
    if (status == ESCQRS_OK) {
        status =
            forms_add(f->root, "by_day", 62, message, ESCQRS_MAP, ESCQRS_KIND_DATE, f->paid, error);
    }
    return status;
}

/* OK, or the failure; then nothing is left of it. */
static inline escqrs_status forms_create(forms *f, escqrs_error *error)
{
    *f = (forms){0};
    escqrs_schema **const made[] = {&f->root, &f->paid, &f->card, &f->cash};
    static const char *const names[] = {"tests.Forms", "tests.Forms.Paid", "tests.Card",
                                        "tests.Cash"};
    escqrs_status status = ESCQRS_OK;
    for (size_t i = 0; status == ESCQRS_OK && i < 4; i++) {
        status = escqrs_schema_create(escqrs_slice_of(names[i]), made[i], error);
    }
    for (int kind = FORMS_FIRST; status == ESCQRS_OK && kind <= ESCQRS_KIND_LAST; kind++) {
        status = forms_add_kind(f->root, (escqrs_kind)kind, error);
    }
    if (status == ESCQRS_OK) {
        status = forms_add(f->card, "number", 1, ESCQRS_KIND_STRING, ESCQRS_ONE, 0, NULL, error);
    }
    if (status == ESCQRS_OK) {
        status = forms_add(f->cash, "amount", 1, ESCQRS_KIND_DECIMAL, ESCQRS_ONE, 0, NULL, error);
    }
    if (status == ESCQRS_OK) {
        status = forms_add_unions(f, error);
    }
    for (size_t i = 0; status == ESCQRS_OK && i < 4; i++) {
        status = escqrs_schema_seal(*made[i], error);
    }
    if (status != ESCQRS_OK) {
        forms_destroy(f);
    }
    return status;
}

#endif
