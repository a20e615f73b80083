/* The end of a region where Python is to do it, whatever signals' handlers raise.

   Owns the way from C to `guard.__exit__` and `agreement.leave`: with room to call, and
   again where a handler has raised before they began. */

#include "_region.h"

static PyObject *s_exit;

void
give_room(int calls)
{
    int limit = Py_GetRecursionLimit();
    if (limit < ENDLESS) {
        Py_SetRecursionLimit(limit + calls);
    }
}

PyObject *
take_error(void)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(error, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

static PyObject *
end_region(const Ending *ending, PyObject *type, PyObject *exc, PyObject *traceback)
{
    if (ending->block != NULL) {
        return PyObject_CallMethodObjArgs(ending->block, s_exit, type, exc,
                                          traceback, NULL);
    }
    return PyObject_CallFunctionObjArgs(ending->leave, ending->opened, exc,
                                        ending->place, NULL);
}

static int
has_begun(const Ending *ending)
{
    if (ending->block != NULL) {
        return *ending->now != ending->entered || ending->entered == Py_None;
    }
    return ((Side *)PyTuple_GET_ITEM(ending->opened, SIDE))->innermost
           != ending->opened;
}

/* Let what a signal's handler has raised come from what the region had ended with;
   takes the reference of the first, and returns the one on top. */
static PyObject *
put_on_top(PyObject *error, PyObject *exc)
{
    PyObject *module, *result = NULL;

    for (int n = 0; exc != Py_None && result == NULL && n < MAX_TRIES; n++) {
        give_room(ROOM);
        module = PyImport_ImportModule("allraise.chains");
        result = module ? PyObject_CallMethod(module, "put_on_top", "OO", error, exc)
                        : NULL;
        Py_XDECREF(module);
        give_room(-ROOM);
        if (result == NULL) { /* another handler */
            PyObject *newer = take_error();
            if (newer != error) {
                PyException_SetContext(newer, error);
                error = newer;
            }
            else {
                Py_DECREF(newer);
            }
        }
    }
    Py_XDECREF(result);
    return error;
}

PyObject *
end_slowly(const Ending *ending, PyObject *type, PyObject *exc, PyObject *traceback)
{
    PyObject *error = Py_NewRef(exc), *result;

    Py_INCREF(traceback);
    for (int n = 0;; n++) {
        give_room(ROOM);
        result = end_region(ending, type, error, traceback);
        give_room(-ROOM);
        if (result != NULL || has_begun(ending) || n >= MAX_TRIES) {
            break;
        }
        Py_SETREF(error, put_on_top(take_error(), error));
        type = (PyObject *)Py_TYPE(error);
        Py_SETREF(traceback, PyException_GetTraceback(error));
        if (traceback == NULL) {
            traceback = Py_NewRef(Py_None);
        }
    }
    Py_DECREF(traceback);
    Py_DECREF(error);
    return result;
}

int
add_ending(PyObject *Py_UNUSED(made))
{
    return intern(&s_exit, "_exit");
}
