/* The way of a block in which nobody fails, compiled; see plain.py.

   Owns `Side` and `Block`: what `agreement.enter`, the first lines of
   `agreement.leave` and `verdict.succeeds` do, for the block of a guard, where
   nothing is special about the region. Where anything is, nothing was changed, and
   the guard's methods in Python do all of it:

       __enter__   open the region                      | else self._enter()
       (user)
       __exit__    Allreduce, all well: close it        | else self._exit(...)

   Why compiled. The Python of it takes as long as the Allreduce, and with several
   ranks on a core four times as long, for each finds its memory in no cache. And
   Python runs signal handlers where a function in Python begins, not where one in C
   does: so there is no place between the block and its agreement where one could
   raise and leave the other ranks in it.

   One GIL: a build of Python without one gets none of this (see hatch_build.py). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <string.h>
#include <structmember.h>

/* Raised with each change that plain.py must know of: an editable install may hold a
   module of another day. */
#define REVISION 2

/* Of the vector that is reduced; `verdict` says what its numbers are. */
enum { LENGTH = 8, SEVERITY = 0, PLACE = 2, DIGEST = 3, MINUS_DIGEST = 4 };
#define PLACE_BITS 33
#define COUNT_BITS 40
#define PENDING (-1)

/* Of a region that is open; `private` says what a tuple of them holds. */
enum { SIDE, REGION, DEPTH, NUMBER, AROUND, OUTER, CELL, N_OPENED };

/* The block may end at the end of the stack, and `_exit` is in Python: calls enough
   until `agreement.leave` gives itself room. ENDLESS and MAX_TRIES as in `signals`. */
#define ROOM 16
#define ENDLESS 1000000
#define MAX_TRIES 100

static PyObject *OPEN;   /* thread -> list of its innermost open region, or None */
static PyObject *HASHES; /* region -> number */
static PyObject *s_enter, *s_exit, *s_test;

typedef struct {
    PyObject_HEAD
    PyObject *innermost, *settled, *comm, *reduce, *mine, *total, *tried;
    long long n_within;
    unsigned long thread;
    char is_plain, closed, is_reduced, is_waiting;
} Side;

typedef struct {
    PyObject_HEAD
    PyObject *entered, *private, *step, *place, *timeout;
} Block;

static PyTypeObject Side_Type, Block_Type;

#define IS_NONE(object) ((object) == NULL || (object) == Py_None)
#define OR_NONE(object) ((object) == NULL ? Py_None : (object))

static int
is_opened(PyObject *object)
{
    return PyTuple_CheckExact(object) && PyTuple_GET_SIZE(object) == N_OPENED;
}

/* Return the cell of this thread, borrowed, or NULL with no error set. */
static PyObject *
cell_here(void)
{
    PyObject *ident = PyLong_FromUnsignedLong(PyThread_get_thread_ident());
    PyObject *cell = ident ? PyDict_GetItemWithError(OPEN, ident) : NULL;
    Py_XDECREF(ident);
    PyErr_Clear();
    return cell != NULL && PyList_CheckExact(cell) && PyList_GET_SIZE(cell) == 1
               ? cell
               : NULL;
}

/* ---- Side ---- */

#define SIDE_OBJECTS(VISIT) \
    VISIT(innermost) VISIT(settled) VISIT(comm) VISIT(reduce) VISIT(mine) \
    VISIT(total) VISIT(tried)

static int
Side_traverse(Side *self, visitproc visit, void *arg)
{
#define VISIT(name) Py_VISIT(self->name);
    SIDE_OBJECTS(VISIT)
#undef VISIT
    return 0;
}

static int
Side_clear(Side *self)
{
#define CLEAR(name) Py_CLEAR(self->name);
    SIDE_OBJECTS(CLEAR)
#undef CLEAR
    return 0;
}

static void
Side_dealloc(Side *self)
{
    PyObject_GC_UnTrack(self);
    Side_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

#define OBJECT(type, name, attribute) {attribute, T_OBJECT, offsetof(type, name), 0, NULL}
#define BOOL(type, name) {#name, T_BOOL, offsetof(type, name), 0, NULL}

static PyMemberDef Side_members[] = {
    OBJECT(Side, innermost, "innermost"),
    OBJECT(Side, settled, "settled"),
    OBJECT(Side, comm, "comm"),
    OBJECT(Side, reduce, "reduce"),
    OBJECT(Side, mine, "mine"),
    OBJECT(Side, total, "total"),
    OBJECT(Side, tried, "tried"),
    {"n_within", T_LONGLONG, offsetof(Side, n_within), 0, NULL},
    {"thread", T_ULONG, offsetof(Side, thread), 0, NULL},
    BOOL(Side, is_plain),
    BOOL(Side, closed),
    BOOL(Side, is_reduced),
    BOOL(Side, is_waiting),
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject Side_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.Side",
    .tp_doc = "What a plain block touches of a rank's side, see allraise.plain.",
    .tp_basicsize = sizeof(Side),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = (traverseproc)Side_traverse,
    .tp_clear = (inquiry)Side_clear,
    .tp_dealloc = (destructor)Side_dealloc,
    .tp_members = Side_members,
};

/* ---- Block ---- */

/* Open the region if nothing is special. Returns 1 if it is open, 0 if not, -1 with
   an error set. */
static int
open_plain(Block *self)
{
    PyObject *cell, *around, *outer, *depth, *number, *opened, *entered, *old;
    Side *side = (Side *)self->private;

    if (!IS_NONE(self->timeout) || IS_NONE(self->private)
        || !PyObject_TypeCheck(self->private, &Side_Type) || side->closed
        || !side->is_plain || !IS_NONE(side->settled) || (cell = cell_here()) == NULL) {
        return 0;
    }
    around = PyList_GET_ITEM(cell, 0);
    outer = OR_NONE(side->innermost);
    if ((around != Py_None
         && !(is_opened(around) && PyTuple_GET_ITEM(around, SIDE) == self->private))
        || (outer != Py_None && !is_opened(outer))) {
        return 0;
    }
    depth = PyLong_FromLong(
        outer == Py_None ? 1 : PyLong_AsLong(PyTuple_GET_ITEM(outer, DEPTH)) + 1);
    number = PyLong_FromLongLong(side->n_within + 1);
    opened = depth && number
                 ? PyTuple_Pack(N_OPENED, side, OR_NONE(self->step), depth, number,
                                around, outer, cell)
                 : NULL;
    Py_XDECREF(depth);
    Py_XDECREF(number);
    entered = opened ? PyTuple_Pack(2, opened, OR_NONE(self->entered)) : NULL;
    if (entered == NULL) {
        Py_XDECREF(opened);
        return -1;
    }
    /* From here nothing fails. What is replaced is in the tuples, so alive. */
    Py_XSETREF(self->entered, entered);
    Py_XSETREF(side->innermost, Py_NewRef(opened));
    old = around;
    PyList_SET_ITEM(cell, 0, opened);
    Py_DECREF(old);
    side->n_within = 0;
    side->thread = PyThread_get_thread_ident();
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

/* Reduce the vector, as a rank that has not failed. Returns 1 if no rank has, and
   all stand at one step; 0 if not, or if nothing was begun. What the side notes tells
   the two apart, and what was raised. */
static int
succeeds(Side *side, PyObject *opened, long long place)
{
    PyObject *hash = PyDict_GetItemWithError(HASHES, PyTuple_GET_ITEM(opened, REGION));
    long long depth = PyLong_AsLongLong(PyTuple_GET_ITEM(opened, DEPTH));
    long long number = PyLong_AsLongLong(PyTuple_GET_ITEM(opened, NUMBER));
    long long digest, *mine, *total;
    Py_buffer sent, received;
    PyObject *reduce, *result;
    int is_success;

    if (hash == NULL) { /* of a step that is new; Python computes it */
        PyErr_Clear();
        return 0;
    }
    digest = PyLong_AsLongLong(hash) + (depth << COUNT_BITS) + number;
    if (PyErr_Occurred() || PyObject_GetBuffer(side->mine, &sent, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        return 0;
    }
    if (PyObject_GetBuffer(side->total, &received, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        PyBuffer_Release(&sent);
        return 0;
    }
    mine = sent.buf;
    total = received.buf;
    mine[PLACE] = place - (depth << PLACE_BITS);
    mine[DIGEST] = digest;
    mine[MINUS_DIGEST] = -digest;
    total[SEVERITY] = PENDING;
    reduce = Py_NewRef(side->reduce);
    side->is_waiting = 1; /* for other threads: no frame of Python shows it */
    result = PyObject_CallNoArgs(reduce);
    side->is_waiting = 0;
    Py_DECREF(reduce);
    is_success = result != NULL && memcmp(mine, total, LENGTH * sizeof(long long)) == 0;
    if (!is_success) {
        side->is_reduced = total[SEVERITY] != PENDING;
    }
    if (result == NULL) {
        PyObject *type, *error, *traceback;
        PyErr_Fetch(&type, &error, &traceback);
        PyErr_NormalizeException(&type, &error, &traceback);
        if (traceback != NULL) {
            PyException_SetTraceback(error, traceback);
        }
        Py_XSETREF(side->tried, error);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
    }
    Py_XDECREF(result);
    PyBuffer_Release(&sent);
    PyBuffer_Release(&received);
    return is_success;
}

/* Close the region if nothing is special and no rank has failed. Returns 1 if it is
   closed, else 0. */
static int
close_plain(Block *self)
{
    PyObject *entered = self->entered, *opened, *cell, *old;
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
    cell = PyTuple_GET_ITEM(opened, CELL);
    if (!PyObject_TypeCheck((PyObject *)side, &Side_Type) || !side->is_plain
        || !IS_NONE(side->settled) || side->innermost != opened
        || PyList_GET_ITEM(cell, 0) != opened) {
        return 0;
    }
    Py_INCREF(entered); /* and with it all that it holds: others run in between */
    if (!IS_NONE(side->comm) && !succeeds(side, opened, place)) {
        Py_DECREF(entered);
        return 0;
    }
    Py_XSETREF(side->innermost, Py_NewRef(PyTuple_GET_ITEM(opened, OUTER)));
    side->n_within = PyLong_AsLongLong(PyTuple_GET_ITEM(opened, NUMBER));
    old = PyList_GET_ITEM(cell, 0);
    PyList_SET_ITEM(cell, 0, Py_NewRef(PyTuple_GET_ITEM(opened, AROUND)));
    Py_DECREF(old);
    Py_XSETREF(self->entered, Py_NewRef(PyTuple_GET_ITEM(entered, 1)));
    Py_DECREF(entered);
    return 1;
}

/* Give room on the stack, or take it back: the difference, for another thread may do
   the same meanwhile. */
static void
give_room(int calls)
{
    int limit = Py_GetRecursionLimit();
    if (limit < ENDLESS) {
        Py_SetRecursionLimit(limit + calls);
    }
}

/* Call `_exit`, again where a signal's handler has raised before that began: what it
   raised is the rank's failure then. */
static PyObject *
exit_slowly(Block *self, PyObject *type, PyObject *exc, PyObject *traceback)
{
    PyObject *entered = Py_NewRef(OR_NONE(self->entered)), *result;
    PyObject *new_type = NULL, *new_exc = NULL, *new_traceback = NULL;

    for (int n = 0;; n++) {
        give_room(ROOM);
        result = PyObject_CallMethodObjArgs((PyObject *)self, s_exit, type, exc,
                                            traceback, NULL);
        give_room(-ROOM);
        if (result != NULL || self->entered != entered || entered == Py_None
            || n >= MAX_TRIES) {
            break;
        }
        Py_CLEAR(new_type);
        Py_CLEAR(new_exc);
        Py_CLEAR(new_traceback);
        PyErr_Fetch(&new_type, &new_exc, &new_traceback);
        PyErr_NormalizeException(&new_type, &new_exc, &new_traceback);
        if (new_traceback != NULL) {
            PyException_SetTraceback(new_exc, new_traceback);
        }
        type = new_type;
        exc = new_exc;
        traceback = OR_NONE(new_traceback);
    }
    Py_XDECREF(new_type);
    Py_XDECREF(new_exc);
    Py_XDECREF(new_traceback);
    Py_DECREF(entered);
    return result;
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
    return exit_slowly(self, args[0], args[1], args[2]);
}

#define BLOCK_OBJECTS(VISIT) \
    VISIT(entered) VISIT(private) VISIT(step) VISIT(place) VISIT(timeout)

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
    .tp_new = PyType_GenericNew,
    .tp_traverse = (traverseproc)Block_traverse,
    .tp_clear = (inquiry)Block_clear,
    .tp_dealloc = (destructor)Block_dealloc,
    .tp_members = Block_members,
    .tp_methods = Block_methods,
};

/* ---- Gates ---- */

/* Looks before others are given the core: with a core for each rank, all have come
   within that time. As in `polling`. */
#define N_LOOKS 8

PyDoc_STRVAR(begin_gate_doc, "Start a gate, note it, and look whether it has opened.");

static PyObject *
begin_gate(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *request;
    int is_open = 0;

    if (n_args != 2 || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "begin_gate takes a function and a list");
        return NULL;
    }
    request = PyObject_CallNoArgs(args[0]);
    if (request == NULL) {
        return NULL;
    }
    if (PyList_Append(args[1], request) < 0) {
        Py_DECREF(request);
        return NULL;
    }
    for (int n = 0; n < N_LOOKS && !is_open; n++) {
        PyObject *found = PyObject_CallMethodNoArgs(request, s_test);
        is_open = found == NULL ? -1 : found == Py_True;
        Py_XDECREF(found);
    }
    Py_DECREF(request);
    return is_open < 0 ? NULL : PyBool_FromLong(is_open);
}

static PyMethodDef functions[] = {
    {"begin_gate", (PyCFunction)(void (*)(void))begin_gate, METH_FASTCALL,
     begin_gate_doc},
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
    OPEN = PyDict_New();
    HASHES = PyDict_New();
    s_enter = PyUnicode_InternFromString("_enter");
    s_exit = PyUnicode_InternFromString("_exit");
    s_test = PyUnicode_InternFromString("Test");
    if (made == NULL || OPEN == NULL || HASHES == NULL || s_enter == NULL
        || s_exit == NULL || s_test == NULL || PyModule_AddType(made, &Side_Type) < 0
        || PyModule_AddType(made, &Block_Type) < 0
        || PyModule_AddObjectRef(made, "OPEN", OPEN) < 0
        || PyModule_AddObjectRef(made, "HASHES", HASHES) < 0
        || PyModule_AddIntMacro(made, REVISION) < 0
        || PyModule_AddIntMacro(made, LENGTH) < 0
        || PyModule_AddIntMacro(made, N_LOOKS) < 0
        || PyModule_AddIntMacro(made, PLACE_BITS) < 0
        || PyModule_AddIntMacro(made, COUNT_BITS) < 0
        || PyModule_AddIntMacro(made, PENDING) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
