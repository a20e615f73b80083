/* The end of a region where Python is to do it, whatever signals' handlers raise.

   Owns the way from C to `guard.__exit__` and `agreement.leave`: with room to call, and
   again where a handler has raised before they began. */

#include "_region.h"

static PyObject *s_exit;

static void
give_room_in_c(int calls)
{
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030E0000
    PyThreadState_Get()->c_recursion_remaining += calls;
#else
    (void)calls; /* counted with those of Python, or the stack itself is looked at */
#endif
}

int
give_room(void)
{
    int limit = Py_GetRecursionLimit(), given = limit < ENDLESS ? ROOM : 0;

    Py_SetRecursionLimit(limit + given);
    give_room_in_c(ROOM_IN_C);
    return given;
}

void
take_room(int given)
{
    give_room_in_c(-ROOM_IN_C);
    Py_SetRecursionLimit(Py_GetRecursionLimit() - given);
}

#define CONTEXT(error) (((PyBaseExceptionObject *)(error))->context)

void
put_context(PyObject *error, PyObject *context)
{
    PyObject *at = context, *slow = context, *below;

    /* Without references of its own: each is held by the one above. `slow` comes after,
       and meets it where there is a cycle already. */
    for (int n = 0; at != error && (below = CONTEXT(at)) != NULL; n++) {
        if (below == error) {
            PyException_SetContext(at, NULL);
            break;
        }
        at = below;
        if (at == slow) {
            break;
        }
        slow = n % 2 ? CONTEXT(slow) : slow;
    }
    if (context != error) {
        PyException_SetContext(error, context);
    }
    else {
        Py_DECREF(context);
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
        int room = give_room();
        module = PyImport_ImportModule("allraise.chains");
        result = module ? PyObject_CallMethod(module, "put_on_top", "OO", error, exc)
                        : NULL;
        Py_XDECREF(module);
        take_room(room);
        if (result == NULL) { /* another handler */
            PyObject *newer = take_error();
            put_context(newer, error);
            error = newer;
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
        int room = give_room();
        result = end_region(ending, type, error, traceback);
        take_room(room);
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
