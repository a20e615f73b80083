/* The arguments of a guard that were checked before, compiled.

   Owns what `arguments.checked_before` does: it finds this rank's side where the
   communicator is known, and all else is plain. */

#include "_region.h"
#include <stdint.h>
#include <string.h>

static PyObject *KNOWN;   /* handle of a communicator -> this rank's side */
static PyObject *RUNNING; /* the type Intracomm and COMM_WORLD, once one is known */
static PyObject *DEFAULT; /* the timeout where none is given, once it was read */
static PyObject *s_handle, *s_comm, *s_step, *s_root, *s_everywhere, *s_timeout;

/* The side found last, borrowed, and the handle of its communicator; and where in a
   communicator of mpi4py's that is, of how many bytes: 0 until that is known. To ask
   mpi4py for the handle takes half as long as to make a guard. */
static Side *LAST;
static uintptr_t LAST_HANDLE;
static Py_ssize_t HANDLE_OFFSET, HANDLE_WIDTH;

PyDoc_STRVAR(read_handles_at_doc,
             "Say so many bytes into a communicator is its handle, of so many bytes.");

static PyObject *
read_handles_at(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_ssize_t offset, width;

    if (!PyArg_ParseTuple(args, "nn", &offset, &width)) {
        return NULL;
    }
    if (offset < (Py_ssize_t)sizeof(PyObject) || width < 1
        || width > (Py_ssize_t)sizeof(uintptr_t)) {
        PyErr_SetString(PyExc_ValueError, "no place of a handle");
        return NULL;
    }
    HANDLE_OFFSET = offset;
    HANDLE_WIDTH = width;
    Py_RETURN_NONE;
}

/* Return this rank's side on a communicator of mpi4py's, borrowed, or NULL with no error
   set. */
static Side *
known_side(PyObject *comm)
{
    uintptr_t here = 0;
    PyObject *handle, *found;

    if (HANDLE_WIDTH) {
        memcpy(&here, (char *)comm + HANDLE_OFFSET, (size_t)HANDLE_WIDTH);
        if (LAST != NULL && here == LAST_HANDLE && !LAST->closed) {
            return LAST;
        }
    }
    handle = PyObject_GetAttr(comm, s_handle);
    found = handle ? PyDict_GetItemWithError(KNOWN, handle) : NULL;
    Py_XDECREF(handle);
    PyErr_Clear();
    if (found == NULL || !PyObject_TypeCheck(found, &Side_Type)) {
        return NULL;
    }
    LAST = (Side *)found;
    LAST_HANDLE = here;
    return LAST;
}

Side *
checked_before(const Given *given, long long *place)
{
    PyObject *comm = OR_NONE(given->comm), *everywhere = given->everywhere;
    Side *side;
    long long root = 0;

    if (!IS_NONE(given->timeout) || PyList_GET_SIZE(DEFAULT) != 1
        || PyList_GET_ITEM(DEFAULT, 0) != Py_None || PyList_GET_SIZE(RUNNING) != 2
        || (given->step != NULL && !PyUnicode_CheckExact(given->step))
        || (everywhere != NULL && !PyBool_Check(everywhere))
        || (given->root != NULL && !PyLong_CheckExact(given->root))) {
        return NULL;
    }
    if (comm == Py_None) {
        comm = PyList_GET_ITEM(RUNNING, 1);
    }
    if (!PyObject_TypeCheck(comm, (PyTypeObject *)PyList_GET_ITEM(RUNNING, 0))) {
        return NULL;
    }
    side = known_side(comm);
    if (given->root != NULL) {
        root = PyLong_AsLongLong(given->root);
        PyErr_Clear();
    }
    if (side == NULL || root < 0 || root >= side->size) {
        return NULL;
    }
    *place = everywhere == Py_True ? root + EVERYWHERE : root;
    return side;
}

int
read_named(Given *given, PyObject *name, PyObject *value)
{
    /* Names in a program's text are interned, so the same object. */
    PyObject **place = name == s_comm         ? &given->comm
                       : name == s_step       ? &given->step
                       : name == s_root       ? &given->root
                       : name == s_everywhere ? &given->everywhere
                       : name == s_timeout    ? &given->timeout
                                              : NULL;
    if (place == NULL || *place != NULL) {
        return 0;
    }
    *place = value;
    return 1;
}

int
read_given(PyObject *args, PyObject *kwargs, Given *given)
{
    PyObject *name, *value;
    Py_ssize_t n_args = PyTuple_GET_SIZE(args), at = 0;

    *given = (Given){0};
    if (n_args > 2) {
        return 0;
    }
    given->comm = n_args > 0 ? PyTuple_GET_ITEM(args, 0) : NULL;
    given->step = n_args > 1 ? PyTuple_GET_ITEM(args, 1) : NULL;
    while (kwargs != NULL && PyDict_Next(kwargs, &at, &name, &value)) {
        if (!read_named(given, name, value)) {
            return 0;
        }
    }
    return 1;
}

void
forget_side(Side *side)
{
    LAST = side == LAST ? NULL : LAST;
}

static PyMethodDef functions[] = {
    {"read_handles_at", read_handles_at, METH_VARARGS, read_handles_at_doc},
    {NULL, NULL, 0, NULL},
};

int
add_given(PyObject *made)
{
    KNOWN = PyDict_New();
    RUNNING = PyList_New(0);
    DEFAULT = PyList_New(0);
    return KNOWN == NULL || RUNNING == NULL || DEFAULT == NULL
                   || intern(&s_handle, "handle") < 0 || intern(&s_comm, "comm") < 0
                   || intern(&s_step, "step") < 0 || intern(&s_root, "root") < 0
                   || intern(&s_everywhere, "everywhere") < 0
                   || intern(&s_timeout, "timeout") < 0
                   || PyModule_AddFunctions(made, functions) < 0
                   || PyModule_AddObjectRef(made, "KNOWN", KNOWN) < 0
                   || PyModule_AddObjectRef(made, "RUNNING", RUNNING) < 0
                   || PyModule_AddObjectRef(made, "DEFAULT", DEFAULT) < 0
               ? -1
               : 0;
}
