/* Texts that are more than UTF-8: dates, times of day, decimals, UUIDs. */
#ifndef ESC_SCHEMA_FORM_H
#define ESC_SCHEMA_FORM_H

#include <escqrs/schema.h>

/* Is the text what a value of that kind is written as? True for kinds that have no form. */
bool esc_form_valid(escqrs_kind kind, const uint8_t *text, size_t size);
/* What it is not, for error texts. */
const char *esc_form_fault(escqrs_kind kind);

#endif
