/* The way of a block in which nobody fails, compiled; see plain.py.

   Owns the module, and the three steps of a block in one: `agree_plainly`. They are
   here for the case that nothing is special about the region. Where anything is, nothing
   was changed, and the guard's methods in Python do all of it::

       _given    __init__    a communicator that is known    | else self._init(...)
       _region   __enter__   open the region                 | else self._enter()
                 (user)
                 __exit__    Allreduce, all well: close it   | else self._exit(...)
       _ending                                               | and again after a signal
       _block    the three as methods, of `guard`

   Why compiled. The Python of it takes as long as the Allreduce, and with several
   ranks on a core four times as long, for each finds its memory in no cache. And
   Python runs signal handlers where a function in Python begins, not where one in C
   does: so there is no place between the block and its agreement where one could
   raise and leave the other ranks in it.

   One GIL: a build of Python without one gets none of this (see hatch_build.py). */

#include "_region.h"

/* Raised with each change that plain.py must know of: an editable install may hold a
   module of another day. */
#define REVISION 16

int
intern(PyObject **place, const char *name)
{
    *place = PyUnicode_InternFromString(name);
    return *place == NULL ? -1 : 0;
}

PyDoc_STRVAR(agree_plainly_doc,
             "Open a region and close it, agreed. Collective over comm.");

static PyObject *
agree_plainly(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    Side *side;
    PyObject *opened, *result, *exc;
    Ending ending;
    long long place;

    if (n_args != 7) {
        PyErr_SetString(PyExc_TypeError,
                        "agree_plainly takes a function and six arguments");
        return NULL;
    }
    exc = args[6];
    if (exc != Py_None && !PyExceptionInstance_Check(exc)) {
        Py_RETURN_NOTIMPLEMENTED; /* Python is to say what is wrong */
    }
    Given given = {args[1], args[2], args[3], args[4], args[5]};
    side = checked_before(&given, &place);
    Py_XINCREF(side); /* a collection of garbage may free the communicator */
    opened = side ? plain_region(side, given.step) : NULL;
    Py_XDECREF(side); /* the region holds it */
    ending = (Ending){.leave = args[0], .opened = opened};
    ending.place = opened ? PyLong_FromLongLong(place) : NULL;
    if (ending.place == NULL) { /* nothing is open yet: Python may try, with `exc` */
        PyErr_Clear();
        Py_XDECREF(opened);
        Py_RETURN_NOTIMPLEMENTED;
    }
    open_region(side, Py_NewRef(opened));
    if (exc == Py_None
        && (IS_NONE(side->comm) || succeeds(side, opened, place))) {
        close_region(side, opened);
        result = Py_NewRef(Py_None);
    }
    else {
        result = end_slowly(&ending, Py_None, exc, Py_None);
    }
    Py_DECREF(ending.place);
    Py_DECREF(opened);
    return result;
}

static PyMethodDef functions[] = {
    {"agree_plainly", (PyCFunction)(void (*)(void))agree_plainly, METH_FASTCALL,
     agree_plainly_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "allraise._plain",
    .m_doc = "The way of a block in which nobody fails, compiled; see allraise.plain.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__plain(void)
{
    PyObject *made = PyModule_Create(&module);

    if (made == NULL || add_region(made) < 0 || add_given(made) < 0
        || add_ending(made) < 0 || add_block(made) < 0 || add_direct(made) < 0
        || add_entry(made) < 0 || add_gates(made) < 0 || add_gated(made) < 0
        || add_objects(made) < 0 || add_outline(made) < 0
        || PyModule_AddIntMacro(made, REVISION) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
