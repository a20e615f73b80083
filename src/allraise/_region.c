/* A rank's side, and the regions on it in which nobody fails, compiled.

   Owns `Side` and what `agreement.enter`, the first lines of `agreement.leave` and
   `verdict.succeeds` do where nothing is special about the region. */

#include "_region.h"
#include <string.h>

static PyObject *OPEN;   /* thread -> list of its innermost open region, or None */
static PyObject *HASHES; /* region -> number */

int
is_opened(PyObject *object)
{
    return PyTuple_CheckExact(object) && PyTuple_GET_SIZE(object) == N_OPENED;
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
    forget_side(self);
    Side_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef Side_members[] = {
    OBJECT(Side, innermost, "innermost"),
    OBJECT(Side, settled, "settled"),
    OBJECT(Side, comm, "comm"),
    OBJECT(Side, reduce, "reduce"),
    OBJECT(Side, mine, "mine"),
    OBJECT(Side, total, "total"),
    OBJECT(Side, tried, "tried"),
    {"n_within", T_LONGLONG, offsetof(Side, n_within), 0, NULL},
    {"size", T_LONGLONG, offsetof(Side, size), 0, NULL},
    {"thread", T_ULONG, offsetof(Side, thread), 0, NULL},
    BOOL(Side, is_plain),
    BOOL(Side, closed),
    BOOL(Side, is_reduced),
    BOOL(Side, is_waiting),
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject Side_Type = {
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

/* ---- regions ---- */

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

PyObject *
plain_region(Side *side, PyObject *step)
{
    PyObject *cell, *around, *outer, *depth, *number, *opened;

    if (side->closed || !side->is_plain || !IS_NONE(side->settled)
        || (cell = cell_here()) == NULL) {
        return NULL;
    }
    around = PyList_GET_ITEM(cell, 0);
    outer = OR_NONE(side->innermost);
    if ((around != Py_None
         && !(is_opened(around) && PyTuple_GET_ITEM(around, SIDE) == (PyObject *)side))
        || (outer != Py_None && !is_opened(outer))) {
        return NULL;
    }
    depth = PyLong_FromLong(
        outer == Py_None ? 1 : PyLong_AsLong(PyTuple_GET_ITEM(outer, DEPTH)) + 1);
    number = PyLong_FromLongLong(side->n_within + 1);
    opened = depth && number
                 ? PyTuple_Pack(N_OPENED, side, step, depth, number, around, outer, cell)
                 : NULL;
    Py_XDECREF(depth);
    Py_XDECREF(number);
    return opened;
}

void
open_region(Side *side, PyObject *opened)
{
    PyObject *cell = PyTuple_GET_ITEM(opened, CELL), *old = PyList_GET_ITEM(cell, 0);
    Py_XSETREF(side->innermost, Py_NewRef(opened));
    PyList_SET_ITEM(cell, 0, opened);
    Py_DECREF(old);
    side->n_within = 0;
    side->thread = PyThread_get_thread_ident();
}

void
close_region(Side *side, PyObject *opened)
{
    PyObject *cell = PyTuple_GET_ITEM(opened, CELL), *old = PyList_GET_ITEM(cell, 0);
    side->n_within = PyLong_AsLongLong(PyTuple_GET_ITEM(opened, NUMBER));
    PyList_SET_ITEM(cell, 0, Py_NewRef(PyTuple_GET_ITEM(opened, AROUND)));
    Py_XSETREF(side->innermost, Py_NewRef(PyTuple_GET_ITEM(opened, OUTER)));
    Py_DECREF(old);
}

int
succeeds(Side *side, PyObject *opened, long long place)
{
    PyObject *hash = PyDict_GetItemWithError(HASHES, PyTuple_GET_ITEM(opened, REGION));
    long long depth = PyLong_AsLongLong(PyTuple_GET_ITEM(opened, DEPTH));
    long long number = PyLong_AsLongLong(PyTuple_GET_ITEM(opened, NUMBER));
    long long digest, *mine, *total;
    Py_buffer sent = {0}, received = {0};
    PyObject *reduce = side->reduce;
    int is_success, is_direct = 0, code;

    if (hash == NULL) { /* of a step that is new; Python computes it */
        PyErr_Clear();
        return 0;
    }
    digest = PyLong_AsLongLong(hash) + (depth << COUNT_BITS) + number;
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    if (reduce != NULL && Py_IS_TYPE(reduce, &Reduction_Type)) {
        is_direct = reduction_vectors(reduce, side->mine, side->total, &mine, &total);
    }
    if (!is_direct) {
        if (PyObject_GetBuffer(side->mine, &sent, PyBUF_WRITABLE) < 0
            || PyObject_GetBuffer(side->total, &received, PyBUF_WRITABLE) < 0) {
            PyErr_Clear();
            PyBuffer_Release(&sent);
            return 0;
        }
        mine = sent.buf;
        total = received.buf;
    }
    mine[PLACE] = place - (depth << PLACE_BITS);
    mine[DIGEST] = digest;
    mine[MINUS_DIGEST] = -digest;
    total[SEVERITY] = PENDING;
    Py_INCREF(reduce);
    side->is_waiting = 1; /* for other threads: no frame of Python shows it */
    if (is_direct) {
        code = reduction_run(reduce);
    }
    else {
        PyObject *result = PyObject_CallNoArgs(reduce);
        code = result == NULL ? -1 : 0;
        Py_XDECREF(result);
    }
    side->is_waiting = 0;
    is_success = code == 0 && memcmp(mine, total, LENGTH * sizeof(long long)) == 0;
    if (!is_success) {
        side->is_reduced = total[SEVERITY] != PENDING;
    }
    if (code < 0) {
        Py_XSETREF(side->tried, take_error());
    }
    PyBuffer_Release(&sent);
    PyBuffer_Release(&received);
    Py_DECREF(reduce);
    return is_success;
}

int
add_region(PyObject *made)
{
    OPEN = PyDict_New();
    HASHES = PyDict_New();
    return OPEN == NULL || HASHES == NULL || PyModule_AddType(made, &Side_Type) < 0
                   || PyModule_AddObjectRef(made, "OPEN", OPEN) < 0
                   || PyModule_AddObjectRef(made, "HASHES", HASHES) < 0
                   || PyModule_AddIntMacro(made, LENGTH) < 0
                   || PyModule_AddIntMacro(made, PLACE_BITS) < 0
                   || PyModule_AddIntMacro(made, COUNT_BITS) < 0
                   || PyModule_AddIntMacro(made, PENDING) < 0
               ? -1
               : 0;
}
