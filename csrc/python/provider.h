/* python/provider.h - a provider that is written in Python, below the core's journal. See
 * provider.c. */
#ifndef ESC_PYTHON_PROVIDER_H
#define ESC_PYTHON_PROVIDER_H

#include "python/store.h"

/* Store._open_provider(bridge, name, max_message_bytes): open it on a bridge of _provider.py. */
PyObject *esc_py_store_open_provider(PyObject *self, PyObject *args);
/* Store._provider_changed(): somebody has committed to the provider; who waits at the head looks.
 */
PyObject *esc_py_store_provider_changed(PyObject *self, PyObject *ignored);
/* Store._name_rows(number): files of read models that were made for that number are this store's.
 */
PyObject *esc_py_store_name_rows(PyObject *self, PyObject *number);
/* Whether this thread is inside a call of a provider's method: then it must not wait for commits,
 * which may wait for it. */
bool esc_py_in_provider(void);

#endif
