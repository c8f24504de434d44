/* python/json.h - Python values as JSON text, the same as the core writes for fields of messages.
 */
#ifndef ESC_PYTHON_JSON_H
#define ESC_PYTHON_JSON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/buffer.h"

struct esc_py_state;

int esc_py_json_exec(void);

/* Append a value: None, bool, int, float, str, bytes, datetime, date, time, Decimal, UUID, Enum,
 * message, and lists, tuples and dicts of them. An enum is its name, bytes are base64, a datetime
 * is "2026-01-31T12:00:00.000000Z", keys are str or int. -1 with TypeError or ValueError: what JSON
 * or the engine cannot hold (NaN, infinities, integers beyond 64 bits, other types, nesting beyond
 * ESC_PY_DEPTH_MAX). May run Python code. */
int esc_py_json_write(struct esc_py_state *state, PyObject *value, esc_buffer *out);

/* An aware datetime in UTC, with this text between date and time:
 * "2026-01-31{between}12:00:00.000000+00:00". New reference; ValueError for one without a time
 * zone. */
PyObject *esc_py_json_time(PyObject *value, const char *between);

/* The text that a date, time, Decimal or UUID is stored as: a new reference in `text`, or NULL
 * where the value is none of these. -1 with an exception. */
int esc_py_json_stored_text(struct esc_py_state *state, PyObject *value, PyObject **text);

#endif
