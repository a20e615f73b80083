/* The collectives of g.comm behind their gates, compiled.

   Owns `Gated`, and what of a small collective the gate brings by itself:

       look at the arguments (Python) -> gate -> mpi4py's method
            | which may tell that         | all ranks have the same word in their slots:
            v the slots can do it         v nothing is left to be done
       a word and the data in this     Bcast       copy what the root's slot has
       rank's slot                     Allreduce   reduce the slots here, by MPI's own
                                                   MPI_Reduce_local

   All ranks see the same slots, so they agree on whether mpi4py's method follows. With
   two ranks, a gate and a collective take twice as long as one of them. Signals: as in
   _plain.c. */

#include "_plain.h"
#include <stdint.h>
#include <string.h>

static PyObject *s_gate;

/* In the word of a slot: bytes of data, what they are, and what the look has told. */
enum { NOTHING, BCAST, ALLREDUCE };
#define KIND_BITS 8
#define TOLD_BITS 16

/* What the look of an Allreduce tells: which operation, and of which numbers. The first
   of them are rounded, so that their sums depend on the order: MPI's, but for two. */
#define OP_BITS 8
#define N_ROUNDED 2
#define MAX_HANDLES 32

typedef uintptr_t Handle;
typedef int (*ReduceLocal)(const void *, void *, int, Handle, Handle);

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *look, *plain, *name, *dict;
    int kind;
    /* Of an Allreduce. */
    ReduceLocal reduce;
    Handle ops[MAX_HANDLES], types[MAX_HANDLES], widths[MAX_HANDLES];
    int n_ops, n_types;
} Gated;

/* What a rank has put into its slot, and where the result goes. */
typedef struct {
    Slots slots;
    long long word;
    Py_buffer into;
} Offer;

/* Return the memory of an argument: itself, or the first of a list or tuple of two. */
static PyObject *
memory_of(PyObject *spec)
{
    if (PyList_Check(spec) && PyList_GET_SIZE(spec) == 2) {
        return PyList_GET_ITEM(spec, 0);
    }
    if (PyTuple_Check(spec) && PyTuple_GET_SIZE(spec) == 2) {
        return PyTuple_GET_ITEM(spec, 0);
    }
    return spec;
}

/* Copy what is given into this rank's slot. The look has compared the lengths: without
   any, it is MPI.IN_PLACE, and the result's memory has it. Returns 1, or 0 with no error
   set: also where a reduction is given its result's memory, which MPI refuses. */
static int
copy_given(const Gated *self, PyObject *spec, const Offer *offer)
{
    Py_buffer given;
    int is_right;

    if (PyObject_GetBuffer(memory_of(spec), &given, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        return 0;
    }
    is_right = given.len == 0
               || (given.len == offer->into.len
                   && (self->kind == BCAST || given.buf != offer->into.buf));
    if (is_right) {
        memcpy(offer->slots.mine + HEAD, given.len ? given.buf : offer->into.buf,
               (size_t)offer->into.len);
    }
    PyBuffer_Release(&given);
    return is_right;
}

/* Put into this rank's slot what the others need, if a slot has room for that; also
   where this rank is not the root, whose slot alone counts. */
static void
make_offer(const Gated *self, Offer *offer, PyObject *told, PyObject *const *args,
           Py_ssize_t n_args)
{
    long long number = PyLong_AsLongLong(told);
    int n_buffers = self->kind == BCAST ? 1 : 2;

    if (PyErr_Occurred() || n_args <= n_buffers
        || PyObject_GetBuffer(memory_of(args[n_buffers]), &offer->into, PyBUF_WRITABLE)
               < 0) {
        PyErr_Clear();
        return;
    }
    if (offer->into.len <= SLOT - HEAD && copy_given(self, args[1], offer)) {
        offer->word = (number << TOLD_BITS) | (self->kind << KIND_BITS)
                      | offer->into.len;
        memcpy(offer->slots.mine, &offer->word, HEAD);
    }
}

/* Reduce the slots to the first. Returns 1, or 0 where MPI has to tell what is wrong, or
   the order would not be that of MPI. */
static int
reduce_slots(const Gated *self, const Offer *offer)
{
    long long number = offer->word >> TOLD_BITS;
    int op = (int)(number >> OP_BITS), type = (int)(number & ((1 << OP_BITS) - 1));
    const Slots *slots = &offer->slots;

    if (op >= self->n_ops || type >= self->n_types
        || (type < N_ROUNDED && slots->n > 2) || offer->into.len % self->widths[type]) {
        return 0;
    }
    for (Py_ssize_t rank = slots->n - 1; rank > 0; rank--) {
        char *above = slots->found + SLOT * rank + HEAD;
        if (self->reduce(above - SLOT, above, (int)(offer->into.len / self->widths[type]),
                         self->types[type], self->ops[op])
            != 0) {
            return 0;
        }
        memcpy(above - SLOT, above, (size_t)offer->into.len);
    }
    return 1;
}

/* Take the result from the slots. Returns 1, or 0 if it is not there: on all ranks. */
static int
take_result(const Gated *self, const Offer *offer)
{
    const Slots *slots = &offer->slots;
    Py_ssize_t root = 0;

    for (Py_ssize_t rank = 0; rank < slots->n; rank++) {
        if (memcmp(slots->found + SLOT * rank, &offer->word, HEAD) != 0) {
            return 0;
        }
    }
    if (self->kind == BCAST) {
        root = offer->word >> TOLD_BITS;
    }
    else if (!reduce_slots(self, offer)) {
        return 0;
    }
    memcpy(offer->into.buf, slots->found + SLOT * root + HEAD, (size_t)offer->into.len);
    return 1;
}

/* Raise what a signal's handler has raised at the gate, on top of what the collective
   has, if anything. */
static void
raise_late(PyObject *late, int has_failed)
{
    PyObject *error = has_failed ? take_error() : NULL;

    if (error == NULL || error == late) {
        PyErr_SetObject((PyObject *)Py_TYPE(late), late);
    }
    else {
        put_context(late, Py_NewRef(error));
        /* PyErr_SetObject would put what is being handled there instead. */
        PyErr_Restore(Py_NewRef(Py_TYPE(late)), Py_NewRef(late),
                      PyException_GetTraceback(late));
    }
    Py_XDECREF(error);
}

static PyObject *
Gated_call(PyObject *callable, PyObject *const *args, size_t n_given, PyObject *names)
{
    Gated *self = (Gated *)callable;
    Py_ssize_t n_args = PyVectorcall_NARGS(n_given);
    PyObject *told, *gate, *late, *result = NULL;
    Offer offer = {0};

    if (n_args < 1) {
        PyErr_SetString(PyExc_TypeError, "called without its communicator");
        return NULL;
    }
    told = PyObject_Vectorcall(self->look, args, (size_t)n_args, names);
    if (told == NULL) {
        return NULL;
    }
    gate = PyObject_GetAttr(args[0], s_gate);
    if (gate == NULL) {
        Py_DECREF(told);
        return NULL;
    }
    if (self->kind != NOTHING && PyLong_CheckExact(told)) {
        offer.slots = turnstile_slots(gate);
        if (offer.slots.n) {
            make_offer(self, &offer, told, args, n_args);
        }
    }
    Py_DECREF(told);
    late = PyObject_CallFunctionObjArgs(gate, args[0], self->name, NULL);
    if (late != NULL && offer.word && take_result(self, &offer)) {
        result = Py_NewRef(Py_None);
    }
    if (offer.word) { /* it says nothing but at its own gate */
        memset(offer.slots.mine, 0, HEAD);
    }
    PyBuffer_Release(&offer.into);
    Py_DECREF(gate); /* not before: the slots are its */
    if (late != NULL && result == NULL) {
        result = PyObject_Vectorcall(self->plain, args, (size_t)n_args, names);
    }
    if (late != NULL && late != Py_None) {
        raise_late(late, result == NULL);
        Py_CLEAR(result);
    }
    Py_XDECREF(late);
    return result;
}

/* Read numbers of a tuple. Returns how many, or -1 with an error set. */
static int
read_handles(PyObject *numbers, Handle *into)
{
    Py_ssize_t n = PyTuple_GET_SIZE(numbers);

    if (n > MAX_HANDLES) {
        PyErr_SetString(PyExc_ValueError, "too many handles");
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        into[i] = (Handle)PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(numbers, i));
    }
    return PyErr_Occurred() ? -1 : (int)n;
}

/* Take what an Allreduce is done with. Returns 0, or -1 with an error set. */
static int
read_reduction(Gated *self, PyObject *reduce, PyObject *ops, PyObject *types,
               PyObject *widths)
{
    self->reduce = (ReduceLocal)(uintptr_t)PyLong_AsVoidPtr(reduce);
    self->n_ops = read_handles(ops, self->ops);
    self->n_types = read_handles(types, self->types);
    if (self->n_ops < 0 || self->n_types < 0
        || read_handles(widths, self->widths) != self->n_types) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a width for each type");
        }
        return -1;
    }
    for (int i = 0; i < self->n_types; i++) {
        if (self->widths[i] == 0) {
            PyErr_SetString(PyExc_ValueError, "a type without width");
            return -1;
        }
    }
    if (self->reduce == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "no function");
    }
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *
Gated_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *look, *plain, *name, *reduce = NULL, *ops, *types, *widths;
    int kind = NOTHING;
    Gated *self;

    if (!PyArg_ParseTuple(args, "OOU|i(O!O!O!O!):Gated", &look, &plain, &name, &kind,
                          &PyLong_Type, &reduce, &PyTuple_Type, &ops, &PyTuple_Type,
                          &types, &PyTuple_Type, &widths)
        || (self = (Gated *)type->tp_alloc(type, 0)) == NULL) {
        return NULL;
    }
    self->vectorcall = Gated_call;
    self->look = Py_NewRef(look);
    self->plain = Py_NewRef(plain);
    self->name = Py_NewRef(name);
    self->kind = kind;
    if (reduce != NULL && read_reduction(self, reduce, ops, types, widths) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
Gated_dealloc(Gated *self)
{
    Py_XDECREF(self->look);
    Py_XDECREF(self->plain);
    Py_XDECREF(self->name);
    Py_XDECREF(self->dict);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

PyObject *
method_of(PyObject *self, PyObject *instance, PyObject *Py_UNUSED(owner))
{
    return IS_NONE(instance) ? Py_NewRef(self) : PyMethod_New(self, instance);
}

static PyTypeObject Gated_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.Gated",
    .tp_basicsize = sizeof(Gated),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL
                | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_new = Gated_new,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Gated, vectorcall),
    .tp_dictoffset = offsetof(Gated, dict),
    .tp_getattro = PyObject_GenericGetAttr,
    .tp_setattro = PyObject_GenericSetAttr,
    .tp_descr_get = method_of,
    .tp_dealloc = (destructor)Gated_dealloc,
};

int
add_gated(PyObject *made)
{
    if (intern(&s_gate, "gate") < 0 || PyModule_AddType(made, &Gated_Type) < 0
        || PyModule_AddIntMacro(made, SLOT) < 0
        || PyModule_AddIntMacro(made, HEAD) < 0
        || PyModule_AddIntMacro(made, MAX_SLOTS) < 0
        || PyModule_AddIntMacro(made, N_ROUNDED) < 0) {
        return -1;
    }
    return 0;
}
