/* python/match.c - see match.h. */
#include "python/match.h"

#include "python/state.h"
#include "python/text.h"

/* The slices of a tuple of str; NULL for an empty one with *count 0. Borrowed from the str
 * objects. */
static escqrs_slice *slices_of(PyObject *tuple, size_t *count)
{
    *count = (size_t)PyTuple_GET_SIZE(tuple);
    escqrs_slice *slices = escqrs_alloc_array(*count + 1, sizeof *slices);
    for (size_t i = 0; slices != NULL && i < *count; i++) {
        slices[i] = esc_py_slice_of(PyTuple_GET_ITEM(tuple, (Py_ssize_t)i));
        if (slices[i].data == NULL) {
            escqrs_free(slices);
            return NULL;
        }
    }
    if (slices == NULL) {
        PyErr_NoMemory();
    }
    return slices;
}

static void matches_free(escqrs_match *matches, size_t count)
{
    for (size_t i = 0; matches != NULL && i < count; i++) {
        escqrs_free((void *)matches[i].types);
        escqrs_free((void *)matches[i].tags);
    }
    escqrs_free(matches);
}

/* `list`: of (tuple of str, tuple of str). */
static escqrs_match *matches_of(PyObject *list, size_t *count)
{
    *count = (size_t)PyList_GET_SIZE(list);
    escqrs_match *matches = escqrs_alloc_zero((*count + 1) * sizeof *matches);
    if (matches == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (size_t i = 0; i < *count; i++) {
        PyObject *pair = PyList_GET_ITEM(list, (Py_ssize_t)i);
        matches[i].types = slices_of(PyTuple_GET_ITEM(pair, 0), &matches[i].type_count);
        matches[i].tags = slices_of(PyTuple_GET_ITEM(pair, 1), &matches[i].tag_count);
        if (matches[i].types == NULL || matches[i].tags == NULL) {
            matches_free(matches, *count);
            return NULL;
        }
    }
    return matches;
}

int esc_py_matches_init(esc_py_matches *self, struct esc_py_state *state, PyObject *match,
                        esc_py_backing *backing, esc_py_parts *parts)
{
    *self = (esc_py_matches){.list = PyObject_CallOneArg(state->recorded.matches, match)};
    if (self->list != NULL && parts != NULL) {
        Py_SETREF(self->list, esc_py_parts_init(parts, backing, self->list));
    }
    if (self->list != NULL) {
        self->items = matches_of(self->list, &self->count);
    }
    if (self->items == NULL) {
        self->count = 0;
        esc_py_matches_fini(self);
        return -1;
    }
    return 0;
}

void esc_py_matches_fini(esc_py_matches *self)
{
    matches_free(self->items, self->count);
    Py_XDECREF(self->list);
    *self = (esc_py_matches){0};
}
