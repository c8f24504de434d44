/* python/snapshot.c - a state as the bytes of a snapshot, and back.
 *
 * Locks: none; the GIL is held. A snapshot's type bears the definition's fingerprint in its name:
 * another definition's is skipped.
 */
#include "python/definition_parts.h"

#include "python/text.h"

static escqrs_status find_state_type(esc_py_definition *self, escqrs_error *error)
{
    if (self->state_type != NULL) {
        return ESCQRS_OK;
    }
    /* what upcasters make of the events is part of what replay does */
    PyObject *plan = self->system->keeper->backing->plan;
    PyObject *digest =
        plan == NULL ? PyUnicode_FromString("") : PyObject_GetAttrString(plan, "digest");
    PyObject *name = digest == NULL
                         ? NULL
                         : PyUnicode_FromFormat("%U@%U%S", self->name, self->fingerprint, digest);
    Py_XDECREF(digest);
    if (name == NULL) {
        PyErr_Clear();
        return escqrs_error_set(error, ESCQRS_NO_MEMORY, "no memory for the name of a state");
    }
    void *record = NULL;
    size_t size = 0;
    escqrs_status status = escqrs_schema_record(self->layout->schema, &record, &size, error);
    if (status == ESCQRS_OK) {
        status = escqrs_store_type(self->system->store, esc_py_slice_of(name),
                                   (escqrs_slice){record, size}, &self->state_type, error);
    }
    escqrs_free(record);
    Py_DECREF(name);
    return status;
}

static PyObject **values_new(const esc_py_layout *layout)
{
    PyObject **values = PyMem_Calloc(layout->count + 1, sizeof *values);
    if (values == NULL) {
        PyErr_NoMemory();
    }
    return values;
}

static void values_free(const esc_py_layout *layout, PyObject **values)
{
    for (uint32_t i = 0; values != NULL && i < layout->count; i++) {
        Py_XDECREF(values[i]);
    }
    PyMem_Free(values);
}

static int pack_fields(esc_py_instance *instance, esc_py_layout *layout, esc_buffer *out)
{
    PyObject **values = values_new(layout);
    if (values == NULL) {
        return -1;
    }
    for (uint32_t i = 0; i < layout->count; i++) {
        values[i] = esc_py_instance_get(instance, &layout->fields[i]);
    }
    int result = esc_py_values_pack(layout, values, out);
    values_free(layout, values);
    if (result == 0 && esc_buffer_reserve(out, 1) != ESCQRS_OK) {
        PyErr_NoMemory();
        result = -1;
    }
    return result;
}

escqrs_status esc_py_snapshot_pack(void *context, void *state, escqrs_type **type, void **data,
                                   size_t *size, escqrs_error *error)
{
    esc_py_definition *self = context;
    esc_py_instance *instance = state;
    if (instance->definition != self || Py_TYPE(instance) != (PyTypeObject *)self->cls) {
        return ESCQRS_DONE; /* of an older definition, about to be loaded anew */
    }
    escqrs_status status = find_state_type(self, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    escqrs_type *packed_as = self->state_type;
    esc_py_layout *layout = (esc_py_layout *)Py_NewRef((PyObject *)self->layout);
    esc_buffer buffer = {0};
    int result = pack_fields(instance, layout, &buffer);
    Py_DECREF((PyObject *)layout);
    if (result < 0) {
        esc_buffer_fini(&buffer);
        return esc_py_failure(error, ESCQRS_INVALID, "the state cannot be kept as a snapshot");
    }
    *type = packed_as;
    *size = buffer.size;
    *data = esc_buffer_take(&buffer);
    return ESCQRS_OK;
}

static int set_fields(esc_py_definition *self, esc_py_instance *instance, esc_py_layout *layout,
                      const ProtobufCMessage *message)
{
    PyObject **values = values_new(layout);
    int result = values == NULL ? -1 : esc_py_values_unpack(layout, message, values);
    if (result == 0 && layout != self->layout) {
        PyErr_Format(PyExc_TypeError, "%U was defined anew meanwhile", self->name);
        result = -1;
    }
    for (uint32_t i = 0; result == 0 && i < layout->count; i++) {
        if (values[i] != NULL) {
            result = esc_py_instance_set(instance, i, values[i]);
        }
    }
    values_free(layout, values);
    return result;
}

escqrs_status esc_py_snapshot_unpack(void *context, void *state, const escqrs_snapshot *snapshot,
                                     escqrs_error *error)
{
    esc_py_definition *self = context;
    escqrs_status status = find_state_type(self, error);
    if (status != ESCQRS_OK) {
        return status;
    }
    if (snapshot->type != self->state_type) {
        return escqrs_error_set(error, ESCQRS_SCHEMA_MISMATCH,
                                "it was taken by another definition of %s",
                                PyUnicode_AsUTF8(self->name));
    }
    ProtobufCMessage *message = NULL;
    escqrs_limits limits = {.bytes_max = SIZE_MAX};
    esc_py_layout *layout = (esc_py_layout *)Py_NewRef((PyObject *)self->layout);
    status = escqrs_message_unpack(layout->schema, (escqrs_slice){snapshot->data, snapshot->size},
                                   &limits, &message, error);
    if (status == ESCQRS_OK && set_fields(self, state, layout, message) < 0) {
        status = esc_py_failure(error, ESCQRS_CORRUPT, "the snapshot cannot be read");
    }
    escqrs_message_free(message);
    Py_DECREF((PyObject *)layout);
    if (status == ESCQRS_OK) {
        ((esc_py_instance *)state)->version = snapshot->version;
    }
    return status;
}
