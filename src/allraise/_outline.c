/* What a failure is first told by, compiled; see outline.py.

   Owns `tell_plainly`: for an exception of Python's own that holds plain values and
   stands alone, what `outline` and `native` find out in Python, and no more. Where
   anything else is the case it finds nothing, and they do. No code of a user's runs.

   Why compiled. It is what every rank does that fails, before it can agree with the
   others; with 32 ranks on a core, in Python, a quarter of all that a failure costs. */

#include "_plain.h"
#include <stdio.h>
#include <string.h>

/* Of the texts together, of arguments, of frames. More is for Python, which has caps of
   its own. */
#define MAX_PLAIN_CHARS 4096
#define MAX_PLAIN_VALUES 16
#define MAX_PLAIN_FRAMES 1000

static PyObject *s_tb_lineno;

/* What is told of the frames, in the order of `outline._fingerprint_of`. */
typedef struct {
    char *bytes;
    Py_ssize_t used, room;
} Told;

static int
append(Told *told, const char *bytes, Py_ssize_t n)
{
    if (told->used + n + 1 > told->room) {
        Py_ssize_t room = 2 * (told->used + n + 1);
        char *grown = PyMem_Realloc(told->bytes, (size_t)room);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        told->bytes = grown;
        told->room = room;
    }
    memcpy(told->bytes + told->used, bytes, (size_t)n);
    told->used += n;
    told->bytes[told->used++] = '\0'; /* between, and one too many at the end */
    return 0;
}

static int
append_text(Told *told, PyObject *text)
{
    Py_ssize_t n;
    const char *bytes = text == NULL ? NULL : PyUnicode_AsUTF8AndSize(text, &n);
    return bytes == NULL ? -1 : append(told, bytes, n);
}

static int
append_number(Told *told, long number)
{
    char digits[3 * sizeof number + 2];
    return append(told, digits, snprintf(digits, sizeof digits, "%ld", number));
}

static int
append_bytes(Told *told, PyObject *value)
{
    if (value == NULL || !PyBytes_Check(value)) {
        return -1;
    }
    return append(told, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
}

/* Tell whether all values are plain, and few and short. */
static int
are_plain(PyObject *values)
{
    Py_ssize_t n_chars = 0, n = PyTuple_GET_SIZE(values);

    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *value = PyTuple_GET_ITEM(values, i);
        int overflow = 0;
        if (PyUnicode_CheckExact(value)) {
            n_chars += PyUnicode_GET_LENGTH(value);
        }
        else if (PyLong_CheckExact(value)) {
            (void)PyLong_AsLongLongAndOverflow(value, &overflow);
        }
        else if (value != Py_None && !PyBool_Check(value)
                 && !PyFloat_CheckExact(value)) {
            return 0;
        }
        if (overflow != 0) {
            return 0;
        }
    }
    return n <= MAX_PLAIN_VALUES && n_chars <= MAX_PLAIN_CHARS;
}

/* Tell whether the receiver gets this OSError from these arguments, as
   `native._is_as_made` does. Returns -1 with an error set. */
static int
is_as_made(PyObject *exc, PyObject *arguments)
{
    PyObject *object = PyObject_Call((PyObject *)Py_TYPE(exc), arguments, NULL);
    PyOSErrorObject *made = (PyOSErrorObject *)object, *now = (PyOSErrorObject *)exc;
    int is_same;

    if (object == NULL) {
        return -1;
    }
    is_same = Py_TYPE(object) == Py_TYPE(exc)
              && OR_NONE(made->myerrno) == OR_NONE(now->myerrno)
              && OR_NONE(made->strerror) == OR_NONE(now->strerror)
              && OR_NONE(made->filename) == OR_NONE(now->filename)
              && OR_NONE(made->filename2) == OR_NONE(now->filename2)
              && now->written == -1 && now->args != NULL
              && PyTuple_GET_SIZE(made->args) == PyTuple_GET_SIZE(now->args);
    for (Py_ssize_t i = 0; is_same && i < PyTuple_GET_SIZE(made->args); i++) {
        is_same = PyTuple_GET_ITEM(made->args, i) == PyTuple_GET_ITEM(now->args, i);
    }
    Py_DECREF(object);
    return is_same;
}

/* Return what the exception is made of, if all of it is plain; NULL where it is not,
   or with an error set. */
static PyObject *
arguments_of(PyObject *exc, int is_os_error)
{
    PyObject *reduced, *arguments;
    int is_right;

    if (!is_os_error) {
        arguments = Py_XNewRef(((PyBaseExceptionObject *)exc)->args);
    }
    else {
        reduced = PyObject_CallMethod(exc, "__reduce__", NULL);
        if (reduced == NULL) {
            return NULL;
        }
        arguments = PyTuple_Check(reduced) && PyTuple_GET_SIZE(reduced) > 1
                        ? Py_NewRef(PyTuple_GET_ITEM(reduced, 1))
                        : NULL;
        Py_DECREF(reduced);
    }
    is_right = arguments != NULL && PyTuple_CheckExact(arguments)
               && are_plain(arguments);
    if (is_right && is_os_error) {
        is_right = is_as_made(exc, arguments) == 1;
    }
    if (!is_right) {
        Py_CLEAR(arguments);
    }
    return arguments;
}

/* Return the pickle of a call, as `native.dump_native` does. */
static PyObject *
pickle_of(const char *name, PyObject *arguments, PyObject *dumps)
{
    static const char head[] = "\x80\x03" "cbuiltins\n", tail[] = "\nR.";
    PyObject *protocol = PyLong_FromLong(3), *told = NULL, *body = NULL;
    size_t n_head = sizeof head - 1, n_name = strlen(name), n;
    char *at;

    if (protocol != NULL) {
        told = PyObject_CallFunctionObjArgs(dumps, arguments, protocol, NULL);
        Py_DECREF(protocol);
    }
    if (told == NULL || !PyBytes_Check(told) || PyBytes_GET_SIZE(told) < 3) {
        Py_XDECREF(told);
        return NULL;
    }
    n = (size_t)PyBytes_GET_SIZE(told) - 3; /* without protocol and end */
    body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(n_head + n_name + n + 3));
    if (body != NULL) {
        at = PyBytes_AS_STRING(body);
        memcpy(at, head, n_head);
        memcpy(at += n_head, name, n_name);
        *(at += n_name) = tail[0];
        memcpy(++at, PyBytes_AS_STRING(told) + 2, n);
        memcpy(at + n, tail + 1, 2);
    }
    Py_DECREF(told);
    return body;
}

/* Note where the source of a frame's file is, if that is not known, as
   `frames.places_of` does. Returns 0, or -1 with an error set. */
static int
note_source(PyFrameObject *frame, PyObject *file, PyObject *sources, PyObject *note)
{
    PyObject *globals, *noted;

    if (PyDict_GetItemWithError(sources, file) != NULL) {
        return 0;
    }
    globals = PyErr_Occurred() ? NULL : PyFrame_GetGlobals(frame);
    noted = globals ? PyObject_CallFunctionObjArgs(note, file, globals, NULL) : NULL;
    Py_XDECREF(globals);
    Py_XDECREF(noted);
    return noted == NULL ? -1 : 0;
}

/* Return where the frames are, as `outline._places_of` does; NULL where only Python can
   tell, or with an error set. */
static PyObject *
places_of(PyObject *traceback, PyObject *folder, PyObject *sources, PyObject *note)
{
    PyObject *places = PyList_New(0);
    int is_own = 1;

    for (PyObject *next; places != NULL && traceback != NULL; traceback = next) {
        PyTracebackObject *at = (PyTracebackObject *)traceback;
        PyCodeObject *code = PyFrame_GetCode(at->tb_frame);
        PyObject *file = code->co_filename, *place;
        PyObject *lineno = PyObject_GetAttr(traceback, s_tb_lineno);

        is_own = PyUnicode_Tailmatch(file, folder, 0, PY_SSIZE_T_MAX, -1) == 1;
        if (lineno == NULL || !PyLong_CheckExact(lineno) /* of code without lines */
            || PyUnicode_GET_LENGTH(file) == 0 || PyUnicode_READ_CHAR(file, 0) == '<'
            || note_source(at->tb_frame, file, sources, note) < 0) {
            Py_CLEAR(places);
        }
        else if (!is_own || PyList_GET_SIZE(places) > 0) {
            place = Py_BuildValue("(OiO)", code, at->tb_lasti, lineno);
            if (place == NULL || PyList_Append(places, place) < 0) {
                Py_CLEAR(places);
            }
            Py_XDECREF(place);
        }
        Py_DECREF(code);
        Py_XDECREF(lineno);
        next = (PyObject *)at->tb_next;
    }
    if (places != NULL && (is_own || PyList_GET_SIZE(places) > MAX_PLAIN_FRAMES)) {
        Py_CLEAR(places);
    }
    return places;
}

/* Return the fingerprint, as `outline._fingerprint_of` does. */
static PyObject *
fingerprint_of(const char *name, PyObject *places, PyObject *hash)
{
    Told told = {NULL, 0, 0};
    PyObject *digest = NULL, *result = NULL;
    Py_ssize_t n = PyList_GET_SIZE(places);
    int failed = 0;

    for (Py_ssize_t i = 0; i < n && !failed; i++) {
        PyObject *code = PyTuple_GET_ITEM(PyList_GET_ITEM(places, i), 0);
        failed = append_bytes(&told, ((PyCodeObject *)code)->co_linetable);
    }
    failed = failed || append(&told, name, (Py_ssize_t)strlen(name));
    for (Py_ssize_t i = 0; i < n && !failed; i++) {
        PyObject *place = PyList_GET_ITEM(places, i);
        PyCodeObject *code = (PyCodeObject *)PyTuple_GET_ITEM(place, 0);
        failed = append_text(&told, code->co_filename)
                 || append_text(&told, code->co_qualname)
                 || append_number(&told, code->co_firstlineno)
                 || append_number(&told, PyLong_AsLong(PyTuple_GET_ITEM(place, 2)))
                 || append_number(&told, PyLong_AsLong(PyTuple_GET_ITEM(place, 1)));
    }
    if (!failed) {
        digest = PyObject_CallFunction(hash, "y#", told.bytes, told.used - 1);
    }
    if (digest != NULL) {
        result = PyObject_CallMethod(digest, "hexdigest", NULL);
        Py_DECREF(digest);
    }
    PyMem_Free(told.bytes);
    return result;
}

PyDoc_STRVAR(tell_plainly_doc,
             "Return name, message, pickle, fingerprint and places of an exception that\n"
             "stands alone and holds plain values, or None. Not collective.");

static PyObject *
tell_plainly(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *exc, *flag, *cause, *context, *traceback, *result = NULL;
    PyObject *arguments = NULL, *places = NULL, *message = NULL, *body = NULL;
    PyObject *fingerprint = NULL;
    PyBaseExceptionObject *base;
    const char *name;

    if (n_args != 7 || !PyDict_Check(args[1]) || !PyUnicode_Check(args[2])
        || !PyDict_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError,
                        "tell_plainly takes an exception, its possible types, a folder,"
                        " the sources known, a hash, pickle's dumps and linecache's"
                        " lazycache");
        return NULL;
    }
    exc = args[0];
    /* Of another metaclass even to look a class up may be code of a user's. */
    flag = Py_IS_TYPE(Py_TYPE(exc), &PyType_Type)
               ? PyDict_GetItemWithError(args[1], (PyObject *)Py_TYPE(exc))
               : NULL;
    if (flag == NULL || !PyExceptionInstance_Check(exc)
        || PySys_GetObject("tracebacklimit") != NULL) {
        goto done;
    }
    base = (PyBaseExceptionObject *)exc;
    name = Py_TYPE(exc)->tp_name;
    cause = PyException_GetCause(exc);
    context = PyException_GetContext(exc);
    traceback = PyException_GetTraceback(exc);
    if (cause == NULL && context == NULL && traceback != NULL
        && PyTraceBack_Check(traceback)
        && !base->suppress_context
        && (base->dict == NULL || PyDict_GET_SIZE(base->dict) == 0)
        && (arguments = arguments_of(exc, flag == Py_True)) != NULL
        && (places = places_of(traceback, args[2], args[3], args[6])) != NULL
        && (message = PyObject_Str(exc)) != NULL
        && (body = pickle_of(name, arguments, args[5])) != NULL
        && (fingerprint = fingerprint_of(name, places, args[4])) != NULL) {
        result = Py_BuildValue("(sOOOO)", name, message, body, fingerprint, places);
    }
    Py_XDECREF(cause);
    Py_XDECREF(context);
    Py_XDECREF(traceback);
    Py_XDECREF(arguments);
    Py_XDECREF(places);
    Py_XDECREF(message);
    Py_XDECREF(body);
    Py_XDECREF(fingerprint);
done:
    if (result == NULL) { /* Python finds out why, and tells it */
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return result;
}

static PyMethodDef outline_functions[] = {
    {"tell_plainly", (PyCFunction)(void (*)(void))tell_plainly, METH_FASTCALL,
     tell_plainly_doc},
    {NULL, NULL, 0, NULL},
};

int
add_outline(PyObject *made)
{
    return intern(&s_tb_lineno, "tb_lineno") < 0
               ? -1
               : PyModule_AddFunctions(made, outline_functions);
}
