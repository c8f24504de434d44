/* Values as JSON text, for whoever has them not in a message: escqrs_message_to_json writes the
 * same. */
#ifndef ESC_SCHEMA_JSON_H
#define ESC_SCHEMA_JSON_H

#include "schema/writer.h"

void esc_json_text(esc_writer *w, const uint8_t *text, size_t size);
void esc_json_bytes(esc_writer *w, const uint8_t *data, size_t size); /* base64 */
/* The shortest of 15 to 17 digits that reads back as the same number, always recognisable as a
 * float. `value` is finite. */
void esc_json_double(esc_writer *w, double value);

#endif
