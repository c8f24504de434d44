/* python/comparison.h - a read model's rows beside those of a fresh build; for ReadModel.compare.
 *
 * It owns two databases and nothing of the store. Its rows are read by es.Rows that end with it.
 * The thread that uses it is the one that made it. */
#ifndef ESC_PYTHON_COMPARISON_H
#define ESC_PYTHON_COMPARISON_H

#include "python/system.h"

/* `core` has the contexts of the handlers; `*model` becomes theirs. New reference. */
PyObject *esc_py_comparison_new(esc_py_system *system, PyObject *core,
                                const escqrs_readmodel_spec *spec, escqrs_readmodel **model);

int esc_py_comparison_exec(PyObject *module);

#endif
