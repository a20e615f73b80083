/* A broadcast of a small object at its gate, compiled.

   Owns `Broadcast`, which does what `broadcast.bcast` does where nothing about a call is
   special, and leaves to Python what is, and what has more bytes than a slot:

       pickle on the root -> its slot -> gate -> unpickle
                                              -> else the rest, in Python

   The Python of it takes as long as the gate. Signals: as in _plain.c. */

#include "_plain.h"
#include <string.h>

static PyObject *s_gate, *s_rank, *s_pickle, *s_dumps, *s_loads, *s_bcast, *s_root;

/* Of the word of a slot, as in `broadcast`: whether the slot has all, what it is of, and
   how many bytes there are. */
#define IS_ALL 1
#define OF_BROADCAST (3 << 8)
#define COUNT_BITS 16

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *slowly, *rest, *mpi, *dict;
} Broadcast;

/* Call a function of mpi4py's pickle, which a user may have replaced. */
static PyObject *
call_pickle(const Broadcast *self, PyObject *name, PyObject *argument)
{
    PyObject *pickle = PyObject_GetAttr(self->mpi, s_pickle), *result = NULL;

    if (pickle != NULL) {
        result = PyObject_CallMethodOneArg(pickle, name, argument);
        Py_DECREF(pickle);
    }
    return result;
}

/* Put an object into this rank's slot. Returns its bytes, or NULL with an error set. */
static PyObject *
put_in_slot(const Broadcast *self, const Slots *slots, PyObject *object)
{
    PyObject *data = call_pickle(self, s_dumps, object);
    long long word;
    Py_ssize_t n;

    if (data != NULL && !PyBytes_CheckExact(data)) { /* of a pickle of the user's */
        Py_SETREF(data, PyBytes_FromObject(data));
    }
    if (data == NULL) {
        return NULL;
    }
    n = PyBytes_GET_SIZE(data);
    word = (long long)n << COUNT_BITS | OF_BROADCAST | (n <= SLOT - HEAD ? IS_ALL : 0);
    memcpy(slots->mine, &word, HEAD);
    memcpy(slots->mine + HEAD, PyBytes_AS_STRING(data),
           (size_t)(n < SLOT - HEAD ? n : SLOT - HEAD));
    return data;
}

/* Return the object in a slot that has all of it. From a copy: what unpickles may pass
   the next gate, or keep the bytes. What the root has put there may be of another
   operation, where the ranks do not call the same one: no more is read than there is. */
static PyObject *
object_in(const Broadcast *self, const char *slot)
{
    PyObject *data, *object = NULL;
    unsigned long long word, n;

    memcpy(&word, slot, HEAD);
    n = word >> COUNT_BITS;
    data = PyBytes_FromStringAndSize(slot + HEAD, n < SLOT - HEAD ? (Py_ssize_t)n
                                                                  : SLOT - HEAD);
    if (data != NULL) {
        object = call_pickle(self, s_loads, data);
        Py_DECREF(data);
    }
    return object;
}

/* Tell which rank is the root, or -1 where only Python can. */
static Py_ssize_t
root_of(PyObject *const *args, Py_ssize_t n_args, PyObject *names)
{
    Py_ssize_t n_names = names ? PyTuple_GET_SIZE(names) : 0, root = 0;

    if (n_args < 2 || n_args + n_names > 3
        || (n_names && PyTuple_GET_ITEM(names, 0) != s_root)) {
        return -1;
    }
    if (n_args + n_names == 3) {
        root = PyLong_CheckExact(args[2]) ? PyLong_AsSsize_t(args[2]) : -1;
        PyErr_Clear();
    }
    return root;
}

/* Tell whether this rank is the root: 1, 0, or -1 with an error set. */
static int
is_root(PyObject *comm, Py_ssize_t root)
{
    PyObject *number = PyObject_GetAttr(comm, s_rank);
    Py_ssize_t rank = number ? PyLong_AsSsize_t(number) : -1;

    Py_XDECREF(number);
    return PyErr_Occurred() ? -1 : rank == root;
}

/* Broadcast the rest of what is longer than a slot. Again where a signal's handler has
   raised before that began: the others count on this rank. */
static PyObject *
send_rest(const Broadcast *self, PyObject *comm, Py_ssize_t root, PyObject *data,
          PyObject *late)
{
    PyObject *number = PyLong_FromSsize_t(root), *begun = PyList_New(0), *result = NULL;

    Py_INCREF(late);
    for (int n = 0; number != NULL && begun != NULL && n < MAX_TRIES; n++) {
        int room = give_room();
        result = PyObject_CallFunctionObjArgs(self->rest, comm, number, OR_NONE(data),
                                              late, begun, NULL);
        take_room(room);
        if (result != NULL || PyList_GET_SIZE(begun)) {
            break;
        }
        Py_SETREF(late, take_error());
    }
    if (result == NULL && !PyErr_Occurred()) {
        PyErr_SetObject((PyObject *)Py_TYPE(late), late);
    }
    Py_DECREF(late);
    Py_XDECREF(number);
    Py_XDECREF(begun);
    return result;
}

/* Broadcast past the gate, from what has come with it. */
static PyObject *
finish(const Broadcast *self, const Slots *slots, PyObject *comm, Py_ssize_t root,
       PyObject *data, PyObject *late)
{
    const char *slot = slots->found + SLOT * root;

    if ((slot[0] & IS_ALL) == 0) {
        return send_rest(self, comm, root, data, late);
    }
    if (late != Py_None) {
        PyErr_SetObject((PyObject *)Py_TYPE(late), late);
        return NULL;
    }
    return object_in(self, slot);
}

static PyObject *
Broadcast_call(PyObject *callable, PyObject *const *args, size_t n_given, PyObject *names)
{
    Broadcast *self = (Broadcast *)callable;
    Py_ssize_t n_args = PyVectorcall_NARGS(n_given), root = root_of(args, n_args, names);
    PyObject *gate = root < 0 ? NULL : PyObject_GetAttr(args[0], s_gate);
    PyObject *data = NULL, *late, *result = NULL;
    Slots slots = gate ? turnstile_slots(gate) : (Slots){0};
    int here = 0, is_known = root >= 0 && root < slots.n;

    if (is_known) {
        here = is_root(args[0], root);
        data = here > 0 ? put_in_slot(self, &slots, args[1]) : NULL;
    }
    if (PyErr_Occurred()) {
        Py_XDECREF(gate);
        return NULL;
    }
    if (!is_known) {
        Py_XDECREF(gate);
        return PyObject_Vectorcall(self->slowly, args, (size_t)n_args, names);
    }
    late = PyObject_CallFunctionObjArgs(gate, args[0], s_bcast, NULL);
    if (late != NULL) {
        result = finish(self, &slots, args[0], root, data, late);
        Py_DECREF(late);
    }
    if (here) { /* it says nothing but at its own gate */
        memset(slots.mine, 0, HEAD);
    }
    Py_XDECREF(data);
    Py_DECREF(gate); /* not before: the slots are its */
    return result;
}

static PyObject *
Broadcast_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *slowly, *rest, *mpi;
    Broadcast *self;

    if (!PyArg_ParseTuple(args, "OOO:Broadcast", &slowly, &rest, &mpi)
        || (self = (Broadcast *)type->tp_alloc(type, 0)) == NULL) {
        return NULL;
    }
    self->vectorcall = Broadcast_call;
    self->slowly = Py_NewRef(slowly);
    self->rest = Py_NewRef(rest);
    self->mpi = Py_NewRef(mpi);
    return (PyObject *)self;
}

static void
Broadcast_dealloc(Broadcast *self)
{
    Py_XDECREF(self->slowly);
    Py_XDECREF(self->rest);
    Py_XDECREF(self->mpi);
    Py_XDECREF(self->dict);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyTypeObject Broadcast_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.Broadcast",
    .tp_basicsize = sizeof(Broadcast),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL
                | Py_TPFLAGS_METHOD_DESCRIPTOR,
    .tp_new = Broadcast_new,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Broadcast, vectorcall),
    .tp_dictoffset = offsetof(Broadcast, dict),
    .tp_getattro = PyObject_GenericGetAttr,
    .tp_setattro = PyObject_GenericSetAttr,
    .tp_descr_get = method_of,
    .tp_dealloc = (destructor)Broadcast_dealloc,
};

int
add_objects(PyObject *made)
{
    return intern(&s_gate, "gate") < 0 || intern(&s_rank, "rank") < 0
                   || intern(&s_pickle, "pickle") < 0 || intern(&s_dumps, "dumps") < 0
                   || intern(&s_loads, "loads") < 0 || intern(&s_bcast, "bcast") < 0
                   || intern(&s_root, "root") < 0
               ? -1
               : PyModule_AddType(made, &Broadcast_Type);
}
