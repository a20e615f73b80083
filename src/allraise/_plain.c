/* The way of a block in which nobody fails, compiled; see plain.py.

   Owns `Side` and `Block`: what `arguments.checked_before`, `agreement.enter`, the
   first lines of `agreement.leave` and `verdict.succeeds` do, for the block of a guard,
   where nothing is special about the region. Where anything is, nothing was changed,
   and the guard's methods in Python do all of it:

       __init__    a communicator that is known         | else self._init(...)
       __enter__   open the region                      | else self._enter()
       (user)
       __exit__    Allreduce, all well: close it        | else self._exit(...)

   And `agree_plainly`, which is the three in one.

   Why compiled. The Python of it takes as long as the Allreduce, and with several
   ranks on a core four times as long, for each finds its memory in no cache. And
   Python runs signal handlers where a function in Python begins, not where one in C
   does: so there is no place between the block and its agreement where one could
   raise and leave the other ranks in it.

   One GIL: a build of Python without one gets none of this (see hatch_build.py). */

#include "_plain.h"
#include <stdint.h>
#include <string.h>

/* Raised with each change that plain.py must know of: an editable install may hold a
   module of another day. */
#define REVISION 15

/* Of the vector that is reduced; `verdict` says what its numbers are. */
enum { LENGTH = 8, SEVERITY = 0, PLACE = 2, DIGEST = 3, MINUS_DIGEST = 4 };
#define PLACE_BITS 33
#define EVERYWHERE (1LL << (PLACE_BITS - 1))
#define COUNT_BITS 40
#define PENDING (-1)

/* Of a region that is open; `private` says what a tuple of them holds. */
enum { SIDE, REGION, DEPTH, NUMBER, AROUND, OUTER, CELL, N_OPENED };

static PyObject *OPEN;    /* thread -> list of its innermost open region, or None */
static PyObject *HASHES;  /* region -> number */
static PyObject *KNOWN;   /* handle of a communicator -> this rank's side */
static PyObject *RUNNING; /* the type Intracomm and COMM_WORLD, once one is known */
static PyObject *DEFAULT; /* the timeout where none is given, once it was read */
static PyObject *s_init, *s_enter, *s_exit, *s_handle;
static PyObject *s_comm, *s_step, *s_root, *s_everywhere, *s_timeout;

typedef struct {
    PyObject_HEAD
    PyObject *innermost, *settled, *comm, *reduce, *mine, *total, *tried;
    long long n_within, size;
    unsigned long thread;
    char is_plain, closed, is_reduced, is_waiting;
} Side;

typedef struct {
    PyObject_HEAD
    PyObject *entered, *private, *step, *place, *timeout, *comm;
} Block;

static PyTypeObject Side_Type, Block_Type;

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

/* The side found last, borrowed, and the handle of its communicator; and where in a
   communicator of mpi4py's that is, of how many bytes: 0 until that is known. To ask
   mpi4py for the handle takes half as long as to make a guard. */
static Side *LAST;
static uintptr_t LAST_HANDLE;
static Py_ssize_t HANDLE_OFFSET, HANDLE_WIDTH;

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
    LAST = self == LAST ? NULL : LAST;
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

/* ---- Arguments ---- */

/* What a guard is given; NULL where it is not. */
typedef struct {
    PyObject *comm, *step, *root, *everywhere, *timeout;
} Given;

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

/* Return this rank's side, borrowed, if the arguments are plain and known to be right;
   else NULL with no error set. A communicator that is known was checked before. */
static Side *
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

/* Read an argument of a guard that has a name. Returns 0 where Python is to say what is
   wrong. */
static int
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

/* Read the arguments of a guard. Returns 0 as the one above. */
static int
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

/* ---- Block ---- */

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
    int is_plain = n_args <= 2 && type->tp_new == PyType_GenericNew
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

/* Return a region that can be opened as nothing is special; NULL where something is,
   or with an error set. */
static PyObject *
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

/* Open a region, whose reference it takes. What is replaced is in the region, so
   alive: nothing fails here, and nothing else runs. */
static void
open_region(Side *side, PyObject *opened)
{
    PyObject *cell = PyTuple_GET_ITEM(opened, CELL), *old = PyList_GET_ITEM(cell, 0);
    Py_XSETREF(side->innermost, Py_NewRef(opened));
    PyList_SET_ITEM(cell, 0, opened);
    Py_DECREF(old);
    side->n_within = 0;
    side->thread = PyThread_get_thread_ident();
}

/* Close the innermost region. */
static void
close_region(Side *side, PyObject *opened)
{
    PyObject *cell = PyTuple_GET_ITEM(opened, CELL), *old = PyList_GET_ITEM(cell, 0);
    side->n_within = PyLong_AsLongLong(PyTuple_GET_ITEM(opened, NUMBER));
    PyList_SET_ITEM(cell, 0, Py_NewRef(PyTuple_GET_ITEM(opened, AROUND)));
    Py_XSETREF(side->innermost, Py_NewRef(PyTuple_GET_ITEM(opened, OUTER)));
    Py_DECREF(old);
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

/* What Python does at the end of a region: `_exit` of a block, or `agreement.leave`. */
typedef struct {
    Block *block;
    PyObject *entered;
    PyObject *leave, *opened, *place; /* without a block */
} Ending;

static PyObject *
end_region(const Ending *ending, PyObject *type, PyObject *exc, PyObject *traceback)
{
    if (ending->block != NULL) {
        return PyObject_CallMethodObjArgs((PyObject *)ending->block, s_exit, type, exc,
                                          traceback, NULL);
    }
    return PyObject_CallFunctionObjArgs(ending->leave, ending->opened, exc,
                                        ending->place, NULL);
}

static int
has_begun(const Ending *ending)
{
    if (ending->block != NULL) {
        return ending->block->entered != ending->entered || ending->entered == Py_None;
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

/* End a region, again where a signal's handler has raised before that began: what it
   raised is the rank's failure then. */
static PyObject *
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
    Ending ending = {.block = self, .entered = Py_NewRef(OR_NONE(self->entered))};
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
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)Block_init,
    .tp_traverse = (traverseproc)Block_traverse,
    .tp_clear = (inquiry)Block_clear,
    .tp_dealloc = (destructor)Block_dealloc,
    .tp_members = Block_members,
    .tp_methods = Block_methods,
};

/* ---- Without a block ---- */

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
    {"call_directly", call_directly, METH_O, call_directly_doc},
    {"read_handles_at", read_handles_at, METH_VARARGS, read_handles_at_doc},
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
    struct {
        PyObject **place;
        const char *name;
    } names[] = {{&s_init, "_init"},       {&s_enter, "_enter"},
                 {&s_exit, "_exit"},       {&s_handle, "handle"},    {&s_comm, "comm"},
                 {&s_step, "step"},        {&s_root, "root"},
                 {&s_timeout, "timeout"},  {&s_everywhere, "everywhere"}};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *names[i].place = PyUnicode_InternFromString(names[i].name);
        if (*names[i].place == NULL) {
            Py_CLEAR(made);
        }
    }
    OPEN = PyDict_New();
    HASHES = PyDict_New();
    KNOWN = PyDict_New();
    RUNNING = PyList_New(0);
    DEFAULT = PyList_New(0);
    if (made == NULL || OPEN == NULL || HASHES == NULL || KNOWN == NULL
        || RUNNING == NULL || DEFAULT == NULL
        || PyModule_AddType(made, &Side_Type) < 0
        || PyModule_AddType(made, &Block_Type) < 0
        || add_direct(made) < 0 || add_gates(made) < 0 || add_gated(made) < 0
        || add_objects(made) < 0 || add_outline(made) < 0
        || PyModule_AddObjectRef(made, "OPEN", OPEN) < 0
        || PyModule_AddObjectRef(made, "HASHES", HASHES) < 0
        || PyModule_AddObjectRef(made, "KNOWN", KNOWN) < 0
        || PyModule_AddObjectRef(made, "RUNNING", RUNNING) < 0
        || PyModule_AddObjectRef(made, "DEFAULT", DEFAULT) < 0
        || PyModule_AddIntMacro(made, REVISION) < 0
        || PyModule_AddIntMacro(made, LENGTH) < 0
        || PyModule_AddIntMacro(made, PLACE_BITS) < 0
        || PyModule_AddIntMacro(made, COUNT_BITS) < 0
        || PyModule_AddIntMacro(made, PENDING) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    return made;
}
