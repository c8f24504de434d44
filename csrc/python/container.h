/* python/container.h - the lists and dicts that fields of states hold.
 *
 * They are lists and dicts (subclasses of list and dict that add two pointers), so reading them is
 * what it is for those. Changing one is allowed only while an applier of its owner runs on this
 * thread; at any other time it raises AttributeError, which names the field. What is put in takes
 * its stored form at once, as in a message: so a state that was replayed and one that came from a
 * snapshot are the same. Copies of any kind (copy, pickle, slices, +, |) are plain ones.
 *
 * The owner is compared with the instance that is being applied, and never followed otherwise: a
 * container that outlives its state just stays as it is.
 *
 * What writes behind the methods (list.append(self.items, x), heapq) is not stopped.
 */
#ifndef ESC_PYTHON_CONTAINER_H
#define ESC_PYTHON_CONTAINER_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

struct esc_py_instance;
struct esc_py_state;

/* Methods of list and dict that ours go on to. */
enum {
    ESC_PY_LIST_CLEAR,
    ESC_PY_LIST_POP,
    ESC_PY_LIST_REMOVE,
    ESC_PY_LIST_REVERSE,
    ESC_PY_LIST_SORT,
    ESC_PY_DICT_CLEAR,
    ESC_PY_DICT_POP,
    ESC_PY_DICT_POPITEM,
    ESC_PY_CONTAINER_METHODS,
};

typedef struct esc_py_container_state {
    PyTypeObject *list; /* StateList */
    PyTypeObject *dict; /* StateDict */
    PyObject *methods[ESC_PY_CONTAINER_METHODS];
} esc_py_container_state;

/* A container of the field `title` ("Cart.items") with a copy of `from`: a list or tuple, or a
 * dict, of values in stored form. New reference. */
PyObject *esc_py_container_new(struct esc_py_state *state, const struct esc_py_instance *owner,
                               PyObject *title, PyObject *from);
/* Whether `value` is a container made for that owner and field. */
bool esc_py_container_is_of(struct esc_py_state *state, PyObject *value,
                            const struct esc_py_instance *owner, PyObject *title);
/* What may leave the state: `value` itself, or where it is a container, or a list, tuple or dict
 * that holds one at any depth, a copy with plain ones, of the same shape. New reference. */
PyObject *esc_py_container_plain(struct esc_py_state *state, PyObject *value);

int esc_py_container_exec(PyObject *module);
int esc_py_container_traverse_state(esc_py_container_state *section, visitproc visit, void *arg);
void esc_py_container_clear_state(esc_py_container_state *section);

#endif
