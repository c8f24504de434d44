/* python/exception.c - exceptions that cross threads.
 *
 * A handler's exception is handed over as the object it is. Its frames are let go, since they would
 * keep the handler's locals alive and grow with every raise of the same object; what they say stays
 * as text in one note, which a later raise of the same object replaces. So do those of the
 * exceptions that it is linked to: causes, contexts, members of groups. The GIL is held throughout.
 */
#include "python/reply.h"
#include "python/state.h"

#define FRAMES_MAX 20
#define CHAIN_MAX 100 /* exceptions that one is linked to */
static const char note_prefix[] = "Traceback in the handler of ";

/* The current exception, normalised, taken off the thread; its traceback (or NULL) in *traceback.
 */
static PyObject *fetch(PyObject **traceback)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *exception = PyErr_GetRaisedException();
    *traceback = PyException_GetTraceback(exception);
    return exception;
#else
    PyObject *type, *value;
    PyErr_Fetch(&type, &value, traceback);
    PyErr_NormalizeException(&type, &value, traceback);
    Py_XDECREF(type);
    return value;
#endif
}

static PyObject *source_line(PyObject *file, PyObject *number)
{
    PyObject *linecache = PyImport_ImportModule("linecache");
    PyObject *line = NULL;
    if (linecache != NULL) {
        PyObject *raw = PyObject_CallMethod(linecache, "getline", "OO", file, number);
        if (raw != NULL) {
            line = PyObject_CallMethod(raw, "strip", NULL);
            Py_DECREF(raw);
        }
        Py_DECREF(linecache);
    }
    return line;
}

/* "  File ..., line ..., in ...\n    source\n" for one entry of a traceback. */
static PyObject *frame_text(PyObject *entry)
{
    PyObject *text = NULL, *code = NULL, *file = NULL, *name = NULL, *line = NULL;
    PyObject *frame = PyObject_GetAttrString(entry, "tb_frame");
    PyObject *number = PyObject_GetAttrString(entry, "tb_lineno");
    if (frame == NULL || number == NULL) {
        goto fail;
    }
    code = PyObject_GetAttrString(frame, "f_code");
    if (code == NULL) {
        goto fail;
    }
    file = PyObject_GetAttrString(code, "co_filename");
    name = PyObject_GetAttrString(code, "co_name");
    if (file == NULL || name == NULL) {
        goto fail;
    }
    line = source_line(file, number);
    if (line == NULL) {
        PyErr_Clear(); /* a source that cannot be had is left out */
    }
    if (line != NULL && PyUnicode_GET_LENGTH(line) > 0) {
        text = PyUnicode_FromFormat("\n  File \"%U\", line %S, in %U\n    %U", file, number, name,
                                    line);
    } else {
        text = PyUnicode_FromFormat("\n  File \"%U\", line %S, in %U", file, number, name);
    }
fail:
    Py_XDECREF(line);
    Py_XDECREF(name);
    Py_XDECREF(file);
    Py_XDECREF(code);
    Py_XDECREF(number);
    Py_XDECREF(frame);
    return text;
}

static PyObject *traceback_text(const char *where, PyObject *what, PyObject *traceback)
{
    bool frames = traceback != NULL && traceback != Py_None; /* else what C raised */
    PyObject *text =
        PyUnicode_FromFormat("%s%s for %U%s", note_prefix, where, what,
                             frames ? " (most recent call last):" : ": no frames of Python");
    PyObject *entry = Py_XNewRef(traceback);
    for (int i = 0; text != NULL && entry != NULL && entry != Py_None && i < FRAMES_MAX; i++) {
        PyObject *frame = frame_text(entry);
        if (frame == NULL) {
            Py_CLEAR(text);
            break;
        }
        PyUnicode_AppendAndDel(&text, frame);
        Py_SETREF(entry, PyObject_GetAttrString(entry, "tb_next"));
    }
    Py_XDECREF(entry);
    return text;
}

/* Put the note in the place of an earlier one of ours. */
static int set_note(PyObject *exception, PyObject *note)
{
    PyObject *notes = PyList_New(0);
    if (notes == NULL) {
        return -1;
    }
    PyObject *old = PyObject_GetAttrString(exception, "__notes__");
    if (old == NULL) {
        PyErr_Clear();
    } else if (PyList_Check(old)) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(old); i++) {
            PyObject *item = PyList_GET_ITEM(old, i);
            const char *text = PyUnicode_Check(item) ? PyUnicode_AsUTF8(item) : NULL;
            if (text == NULL) {
                PyErr_Clear();
            } else if (strncmp(text, note_prefix, sizeof note_prefix - 1) == 0) {
                continue;
            }
            if (PyList_Append(notes, item) < 0) {
                goto fail;
            }
        }
    }
    if (PyList_Append(notes, note) < 0 ||
        PyObject_SetAttrString(exception, "__notes__", notes) < 0) {
        goto fail;
    }
    Py_XDECREF(old);
    Py_DECREF(notes);
    return 0;
fail:
    Py_XDECREF(old);
    Py_DECREF(notes);
    return -1;
}

/* Replace the frames of one exception, whose traceback is given (or NULL), by a note. */
static void let_go(PyObject *exception, PyObject *traceback, const char *where, PyObject *what)
{
    PyObject *note = traceback_text(where, what, traceback);
    if (note == NULL || set_note(exception, note) < 0) {
        PyErr_Clear(); /* the exception matters more than its note */
    }
    Py_XDECREF(note);
    (void)PyException_SetTraceback(exception, Py_None);
}

/* Add it to the list, unless it is none, or there already. The list begins with what is not ours.
 */
static int enlist(PyObject *list, PyObject *exception)
{
    if (exception == NULL || !PyExceptionInstance_Check(exception)) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (PyList_GET_ITEM(list, i) == exception) {
            return 0;
        }
    }
    return PyList_Append(list, exception);
}

static int enlist_members(PyObject *list, PyObject *group)
{
    PyObject *members = PyObject_GetAttrString(group, "exceptions");
    int result = members == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; result == 0 && PyTuple_Check(members) && i < PyTuple_GET_SIZE(members);
         i++) {
        result = enlist(list, PyTuple_GET_ITEM(members, i));
    }
    Py_XDECREF(members);
    return result;
}

/* The same for its causes, its contexts and the members of groups: they hold frames too. Not for
 * the exception that the caller is handling, which is the context of all that is raised on his
 * thread. */
static int let_go_chain(PyObject *exception, const char *where, PyObject *what)
{
    PyObject *handled = PyErr_GetHandledException();
    PyObject *chain = PyList_New(0);
    int result = chain == NULL ? -1 : enlist(chain, handled);
    Py_ssize_t first = chain == NULL ? 0 : PyList_GET_SIZE(chain);
    Py_XDECREF(handled); /* the list has it */
    if (result == 0) {
        result = enlist(chain, exception);
    }
    for (Py_ssize_t i = first; result == 0 && i < PyList_GET_SIZE(chain) && i < CHAIN_MAX; i++) {
        PyObject *one = PyList_GET_ITEM(chain, i);
        PyObject *cause = PyException_GetCause(one);
        PyObject *context = PyException_GetContext(one);
        PyObject *traceback = one == exception ? NULL : PyException_GetTraceback(one);
        if (traceback != NULL) {
            let_go(one, traceback, where, what);
        }
        if (enlist(chain, cause) < 0 || enlist(chain, context) < 0 ||
            (PyObject_TypeCheck(one, (PyTypeObject *)PyExc_BaseExceptionGroup) &&
             enlist_members(chain, one) < 0)) {
            result = -1;
        }
        Py_XDECREF(cause);
        Py_XDECREF(context);
        Py_XDECREF(traceback);
    }
    Py_XDECREF(chain);
    return result;
}

PyObject *esc_py_exception_take(const char *where, PyObject *what)
{
    PyObject *traceback = NULL;
    PyObject *exception = fetch(&traceback);
    let_go(exception, traceback, where, what);
    Py_XDECREF(traceback);
    if (let_go_chain(exception, where, what) < 0) {
        PyErr_Clear();
    }
    return exception;
}

void esc_py_exception_raise(PyObject *exception)
{
    (void)PyException_SetTraceback(exception, Py_None);
    PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
}
