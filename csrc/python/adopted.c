/* python/adopted.c - see adopted.h. The module's state has a dictionary from adopted class to twin
 * for each kind; a class that is not in it is shown to _protobuf.py once. */
#include "python/adopted.h"

#include "python/state.h"

static PyObject *twins_of(const esc_py_state *state, esc_py_kind kind)
{
    return kind == ESC_PY_COMMAND ? state->message.command_twins : state->message.event_twins;
}

/* Borrowed from the dictionary; NULL as esc_py_class_for. */
static PyTypeObject *twin_of(esc_py_state *state, PyObject *cls, esc_py_kind kind)
{
    PyObject *twins = twins_of(state, kind);
    PyObject *twin = PyDict_GetItemWithError(twins, cls);
    if (twin != NULL || PyErr_Occurred()) {
        return (PyTypeObject *)twin;
    }
    if (state->message.adopt == NULL) {
        PyObject *module = PyImport_ImportModule("escqrs._protobuf");
        state->message.adopt = module == NULL ? NULL : PyObject_GetAttrString(module, "adopt");
        Py_XDECREF(module);
        if (state->message.adopt == NULL) {
            return NULL;
        }
    }
    twin = PyObject_CallFunction(state->message.adopt, "Os", cls,
                                 kind == ESC_PY_COMMAND ? "command" : "event");
    if (twin == NULL || twin == Py_None) {
        Py_XDECREF(twin);
        return NULL;
    }
    if (esc_py_class_kind(state, twin) != kind) {
        PyErr_Format(PyExc_TypeError, "%R does not stand for a class as expected", twin);
        Py_DECREF(twin);
        return NULL;
    }
    int failed = PyDict_SetItem(twins, cls, twin);
    Py_DECREF(twin); /* the dictionary has it */
    return failed ? NULL : (PyTypeObject *)twin;
}

PyTypeObject *esc_py_class_for(esc_py_state *state, PyObject *object, esc_py_kind kind)
{
    esc_py_kind own = esc_py_message_kind(state, object);
    if (own == kind) {
        return Py_TYPE(object);
    }
    return own != ESC_PY_NONE ? NULL : twin_of(state, (PyObject *)Py_TYPE(object), kind);
}

PyTypeObject *esc_py_class_standing_for(esc_py_state *state, PyObject *cls)
{
    if (esc_py_class_kind(state, cls) != ESC_PY_NONE) {
        return (PyTypeObject *)cls;
    }
    return PyType_Check(cls) ? twin_of(state, cls, ESC_PY_EVENT) : NULL;
}

/* ---- bytes ------------------------------------------------------------------------------------ */

static PyObject *parse(PyTypeObject *twin, PyObject *bytes)
{
    const esc_py_message_type *type = (const esc_py_message_type *)twin;
    PyObject *object =
        PyObject_CallMethodOneArg(type->adopted, type->state->message.from_string, bytes);
    if (object == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyObject *kind, *value, *traceback;
        PyErr_Fetch(&kind, &value, &traceback);
        PyErr_NormalizeException(&kind, &value, &traceback);
        PyErr_Format(esc_py_error_class(type->state, ESCQRS_CORRUPT), "%U: %S", type->stored_name,
                     value == NULL ? Py_None : value);
        Py_XDECREF(kind);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    return object;
}

static PyObject *serialize(esc_py_state *state, PyObject *object)
{
    PyObject *arguments[] = {object, Py_True};
    PyObject *bytes = PyObject_VectorcallMethod(state->message.to_string, arguments,
                                                1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                                state->message.to_string_names);
    if (bytes != NULL && !PyBytes_Check(bytes)) {
        PyErr_Format(PyExc_TypeError, "%s.SerializeToString gave %s, not bytes",
                     Py_TYPE(object)->tp_name, Py_TYPE(bytes)->tp_name);
        Py_CLEAR(bytes);
    }
    return bytes;
}

/* What was written by another library must be readable by the core, too. */
static int prove(const esc_py_message_type *twin, const escqrs_schema *schema, escqrs_slice data)
{
    escqrs_limits limits = {.bytes_max = data.size + 1};
    escqrs_error error;
    escqrs_status status = escqrs_message_check(schema, data, &limits, &error);
    if (status == ESCQRS_OK) {
        return 0;
    }
    if (status == ESCQRS_CORRUPT) {
        PyErr_Format(PyExc_ValueError, "this event cannot be stored: %s", error.message);
    } else {
        esc_py_raise(twin->state, &error);
    }
    return -1;
}

int esc_py_event_pack(PyTypeObject *cls, PyObject *event, esc_buffer *out)
{
    const esc_py_message_type *type = (const esc_py_message_type *)cls;
    if (type->adopted == NULL) {
        return esc_py_message_pack(event, out);
    }
    const escqrs_schema *schema = esc_py_message_schema(cls);
    PyObject *bytes = schema == NULL ? NULL : serialize(type->state, event);
    if (bytes == NULL) {
        return -1;
    }
    escqrs_slice data = {PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    int result = prove(type, schema, data);
    if (result == 0 && esc_buffer_append(out, data.data, data.size) != ESCQRS_OK) {
        PyErr_NoMemory();
        result = -1;
    }
    Py_DECREF(bytes);
    return result;
}

PyObject *esc_py_command_keep(esc_py_state *state, PyObject *command)
{
    if (esc_py_message_kind(state, command) != ESC_PY_NONE) {
        return Py_NewRef(command);
    }
    PyTypeObject *twin = esc_py_class_for(state, command, ESC_PY_COMMAND);
    PyObject *bytes = twin == NULL ? NULL : serialize(state, command);
    PyObject *copy = bytes == NULL ? NULL : parse(twin, bytes);
    Py_XDECREF(bytes);
    return copy;
}

PyObject *esc_py_adopted_decode(PyTypeObject *twin, escqrs_slice data, const escqrs_limits *limits)
{
    const escqrs_schema *schema = esc_py_message_schema(twin);
    escqrs_error error;
    if (schema == NULL) {
        return NULL;
    }
    if (escqrs_message_check(schema, data, limits, &error) != ESCQRS_OK) {
        return esc_py_raise(((esc_py_message_type *)twin)->state, &error);
    }
    PyObject *bytes = PyBytes_FromStringAndSize(data.data, (Py_ssize_t)data.size);
    PyObject *object = bytes == NULL ? NULL : parse(twin, bytes);
    Py_XDECREF(bytes);
    return object;
}

PyObject *esc_py_adopted_wrap(PyTypeObject *twin, ProtobufCMessage *packed)
{
    size_t size = protobuf_c_message_get_packed_size(packed);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (bytes != NULL && size > 0) {
        protobuf_c_message_pack(packed, (uint8_t *)PyBytes_AS_STRING(bytes));
    }
    escqrs_message_free(packed);
    PyObject *object = bytes == NULL ? NULL : parse(twin, bytes);
    Py_XDECREF(bytes);
    return object;
}

/* ---- module ----------------------------------------------------------------------------------- */

static PyObject *core_stand_for(PyObject *module, PyObject *args)
{
    PyObject *twin = NULL;
    PyObject *adopted = NULL;
    if (!PyArg_ParseTuple(args, "OO:stand_for", &twin, &adopted)) {
        return NULL;
    }
    if (esc_py_class_kind(esc_py_state_of(module), twin) == ESC_PY_NONE) {
        PyErr_Format(PyExc_TypeError, "expected a message class, got %R", twin);
        return NULL;
    }
    Py_XSETREF(((esc_py_message_type *)twin)->adopted, Py_NewRef(adopted));
    Py_RETURN_NONE;
}

static PyObject *core_twin(PyObject *module, PyObject *args)
{
    PyObject *cls = NULL;
    const char *kind = NULL;
    if (!PyArg_ParseTuple(args, "Os:twin", &cls, &kind)) {
        return NULL;
    }
    esc_py_state *state = esc_py_state_of(module);
    if (!PyType_Check(cls) || esc_py_class_kind(state, cls) != ESC_PY_NONE) {
        return Py_NewRef(cls);
    }
    PyTypeObject *twin =
        twin_of(state, cls, strcmp(kind, "command") == 0 ? ESC_PY_COMMAND : ESC_PY_EVENT);
    if (twin == NULL && PyErr_Occurred()) {
        return NULL;
    }
    return Py_NewRef(twin == NULL ? cls : (PyObject *)twin);
}

static PyObject *core_event_bytes(PyObject *module, PyObject *event)
{
    esc_buffer bytes = {0};
    PyTypeObject *cls = esc_py_class_for(esc_py_state_of(module), event, ESC_PY_EVENT);
    PyObject *result = NULL;
    if (cls != NULL && esc_py_event_pack(cls, event, &bytes) == 0) {
        result = PyBytes_FromStringAndSize((const char *)bytes.data, (Py_ssize_t)bytes.size);
    } else if (cls == NULL && !PyErr_Occurred()) {
        PyErr_Format(PyExc_TypeError, "expected an event, got %s", Py_TYPE(event)->tp_name);
    }
    esc_buffer_fini(&bytes);
    return result;
}

static PyMethodDef functions[] = {
    {"stand_for", core_stand_for, METH_VARARGS,
     "stand_for(twin, adopted): from now on the message class stands for the other one."},
    {"twin", core_twin, METH_VARARGS,
     "twin(cls, kind): the message class that stands for a class generated by protobuf, used as a "
     "'command' or an 'event'; any other class is returned as it is."},
    {"event_bytes", core_event_bytes, METH_O, "event_bytes(event): what a store keeps of it."},
    {NULL, NULL, 0, NULL},
};

int esc_py_adopted_exec(PyObject *module)
{
    esc_py_message_state *section = &esc_py_state_of(module)->message;
    section->event_twins = PyDict_New();
    section->command_twins = PyDict_New();
    section->from_string = PyUnicode_InternFromString("FromString");
    section->to_string = PyUnicode_InternFromString("SerializeToString");
    section->to_string_names = Py_BuildValue("(s)", "deterministic");
    if (section->event_twins == NULL || section->command_twins == NULL ||
        section->from_string == NULL || section->to_string == NULL ||
        section->to_string_names == NULL) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
