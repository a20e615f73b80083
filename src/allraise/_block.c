/* The block of a guard in which nobody fails, compiled.

   Owns `Block`: its arguments are checked, its region is opened and closed, or else the
   guard's methods in Python are called. */

#include "_region.h"

typedef struct {
    PyObject_HEAD
    PyObject *entered, *private, *step, *place, *timeout, *comm;
} Block;

static PyTypeObject Block_Type;
static PyObject *s_init, *s_enter;

/* Make a block ready if its arguments are known to be right. Returns 1, or 0 if not. */
static int
fill_block(Block *self, const Given *given)
{
    long long place;
    Side *side = checked_before(given, &place);
    PyObject *packed = side ? PyLong_FromLongLong(place) : NULL;

    if (packed == NULL) {
        PyErr_Clear();
        return 0;
    }
    Py_XSETREF(self->entered, Py_NewRef(Py_None));
    Py_XSETREF(self->timeout, Py_NewRef(Py_None));
    Py_XSETREF(self->private, Py_NewRef((PyObject *)side));
    Py_XSETREF(self->place, packed);
    Py_XSETREF(self->comm, Py_NewRef(OR_NONE(given->comm)));
    Py_XSETREF(self->step,
               given->step ? Py_NewRef(given->step) : PyUnicode_FromString(""));
    return 1;
}

static int
Block_init(Block *self, PyObject *args, PyObject *kwargs)
{
    Given given;
    PyObject *method, *result;

    if (read_given(args, kwargs, &given) && fill_block(self, &given)) {
        return 0;
    }
    method = PyObject_GetAttr((PyObject *)self, s_init);
    result = method ? PyObject_Call(method, args, kwargs) : NULL;
    Py_XDECREF(method);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Call a class as `type.__call__` does, with the arguments packed for it. */
static PyObject *
call_packed(PyObject *type, PyObject *const *args, Py_ssize_t n_args, PyObject *names)
{
    Py_ssize_t n_names = names ? PyTuple_GET_SIZE(names) : 0;
    PyObject *packed = PyTuple_New(n_args), *named = PyDict_New(), *made = NULL;

    for (Py_ssize_t i = 0; i < n_args && packed != NULL; i++) {
        PyTuple_SET_ITEM(packed, i, Py_NewRef(args[i]));
    }
    for (Py_ssize_t i = 0; i < n_names && named != NULL; i++) {
        if (PyDict_SetItem(named, PyTuple_GET_ITEM(names, i), args[n_args + i]) < 0) {
            Py_CLEAR(named);
        }
    }
    if (packed != NULL && named != NULL) {
        made = PyType_Type.tp_call(type, packed, named);
    }
    Py_XDECREF(packed);
    Py_XDECREF(named);
    return made;
}

static PyObject *
make_block(PyObject *callable, PyObject *const *args, size_t n_given, PyObject *names)
{
    PyTypeObject *type = (PyTypeObject *)callable;
    Py_ssize_t n_args = PyVectorcall_NARGS(n_given);
    Given given = {.comm = n_args > 0 ? args[0] : NULL,
                   .step = n_args > 1 ? args[1] : NULL};
    /* Unless somebody has put other methods in their place since. */
    int is_plain = n_args <= 2 && type->tp_new == Block_Type.tp_new
                   && type->tp_init == (initproc)Block_init;
    PyObject *made;

    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names) && is_plain; i++) {
        is_plain = read_named(&given, PyTuple_GET_ITEM(names, i), args[n_args + i]);
    }
    if (is_plain) {
        made = type->tp_alloc(type, 0);
        if (made == NULL || fill_block((Block *)made, &given)) {
            return made;
        }
        Py_DECREF(made);
    }
    return call_packed(callable, args, n_args, names);
}

PyDoc_STRVAR(call_directly_doc,
             "Have a class of blocks called without its arguments packed.");

static PyObject *
call_directly(PyObject *Py_UNUSED(module), PyObject *type)
{
    if (!PyType_Check(type) || !PyType_IsSubtype((PyTypeObject *)type, &Block_Type)) {
        PyErr_SetString(PyExc_TypeError, "takes a class of blocks");
        return NULL;
    }
    ((PyTypeObject *)type)->tp_vectorcall = make_block; /* of this one: none inherits it */
    return Py_NewRef(type);
}

/* Open the region if nothing is special. Returns 1 if it is open, 0 if not, -1 with
   an error set. */
static int
open_plain(Block *self)
{
    PyObject *opened, *entered;

    if (!IS_NONE(self->timeout) || IS_NONE(self->private)
        || !PyObject_TypeCheck(self->private, &Side_Type)) {
        return 0;
    }
    opened = plain_region((Side *)self->private, OR_NONE(self->step));
    entered = opened ? PyTuple_Pack(2, opened, OR_NONE(self->entered)) : NULL;
    if (entered == NULL) {
        Py_XDECREF(opened);
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_XSETREF(self->entered, entered);
    open_region((Side *)self->private, opened);
    return 1;
}

static PyObject *
Block_enter(Block *self, PyObject *Py_UNUSED(ignored))
{
    int is_open = open_plain(self);
    if (is_open > 0) {
        return Py_NewRef((PyObject *)self);
    }
    return is_open < 0 ? NULL : PyObject_CallMethodNoArgs((PyObject *)self, s_enter);
}

/* Close the region if nothing is special and no rank has failed. Returns 1 if it is
   closed, else 0. */
static int
close_plain(Block *self)
{
    PyObject *entered = self->entered, *opened;
    Side *side;
    long long place = PyLong_AsLongLong(OR_NONE(self->place));

    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    if (!IS_NONE(self->timeout) || IS_NONE(entered) || !PyTuple_CheckExact(entered)
        || PyTuple_GET_SIZE(entered) != 2) {
        return 0;
    }
    opened = PyTuple_GET_ITEM(entered, 0);
    if (!is_opened(opened)) {
        return 0;
    }
    side = (Side *)PyTuple_GET_ITEM(opened, SIDE);
    if (!PyObject_TypeCheck((PyObject *)side, &Side_Type) || !side->is_plain
        || !IS_NONE(side->settled) || side->innermost != opened
        || PyList_GET_ITEM(PyTuple_GET_ITEM(opened, CELL), 0) != opened) {
        return 0;
    }
    Py_INCREF(entered); /* and with it all that it holds: others run in between */
    if (!IS_NONE(side->comm) && !succeeds(side, opened, place)) {
        Py_DECREF(entered);
        return 0;
    }
    close_region(side, opened);
    Py_XSETREF(self->entered, Py_NewRef(PyTuple_GET_ITEM(entered, 1)));
    Py_DECREF(entered);
    return 1;
}

static PyObject *
Block_exit(Block *self, PyObject *const *args, Py_ssize_t n_args)
{
    if (n_args != 3) {
        PyErr_SetString(PyExc_TypeError,
                        "__exit__ takes the type, the exception and its traceback");
        return NULL;
    }
    if (args[1] == Py_None && close_plain(self)) {
        Py_RETURN_NONE;
    }
    Ending ending = {.block = (PyObject *)self,
                     .entered = Py_NewRef(OR_NONE(self->entered)),
                     .now = &self->entered};
    PyObject *result = end_slowly(&ending, args[0], args[1], args[2]);
    Py_DECREF(ending.entered);
    return result;
}

#define BLOCK_OBJECTS(VISIT) \
    VISIT(entered) VISIT(private) VISIT(step) VISIT(place) VISIT(timeout) VISIT(comm)

static int
Block_traverse(Block *self, visitproc visit, void *arg)
{
#define VISIT(name) Py_VISIT(self->name);
    BLOCK_OBJECTS(VISIT)
#undef VISIT
    return 0;
}

static int
Block_clear(Block *self)
{
#define CLEAR(name) Py_CLEAR(self->name);
    BLOCK_OBJECTS(CLEAR)
#undef CLEAR
    return 0;
}

static void
Block_dealloc(Block *self)
{
    PyObject_GC_UnTrack(self);
    Block_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef Block_members[] = {
    OBJECT(Block, entered, "_entered"),
    OBJECT(Block, private, "_private"),
    OBJECT(Block, step, "_step"),
    OBJECT(Block, place, "_place"),
    OBJECT(Block, timeout, "_timeout"),
    OBJECT(Block, comm, "_comm"),
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef Block_methods[] = {
    {"__enter__", (PyCFunction)Block_enter, METH_NOARGS,
     "Open the region. Not collective, but at the first use on a communicator."},
    {"__exit__", (PyCFunction)(void (*)(void))Block_exit, METH_FASTCALL,
     "Close the region, agreed with the others. Collective over comm."},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject Block_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.Block",
    .tp_doc = "A block that opens and closes a region, see allraise.plain.",
    .tp_basicsize = sizeof(Block),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_init = (initproc)Block_init,
    .tp_traverse = (traverseproc)Block_traverse,
    .tp_clear = (inquiry)Block_clear,
    .tp_dealloc = (destructor)Block_dealloc,
    .tp_members = Block_members,
    .tp_methods = Block_methods,
};

static PyMethodDef functions[] = {
    {"call_directly", call_directly, METH_O, call_directly_doc},
    {NULL, NULL, 0, NULL},
};

int
add_block(PyObject *made)
{
    /* As of a class in Python, for what a user derives from it: `object.__new__` may make
       one, takes no more than the class, and refuses abstract ones. */
    Block_Type.tp_new = PyBaseObject_Type.tp_new;
    return intern(&s_init, "_init") < 0 || intern(&s_enter, "_enter") < 0
                   || PyModule_AddType(made, &Block_Type) < 0
                   || PyModule_AddFunctions(made, functions) < 0
               ? -1
               : 0;
}
