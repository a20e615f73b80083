/* The gates of g.comm that are open by the time a rank has looked at them, compiled.

   Owns `Turnstile`, which does what `passage.Passage.pass_gate` does where no failure is
   known:

       start it, looks: open            | else wait_at_gate(...)
       anything special: nothing done   | else pass_gate(...)

   The Python of it takes as long as the gate. Signals: as in _plain.c. */

#include "_plain.h"

static PyObject *s_pass_gate, *s_test, *s_wait_at_gate;

/* Looks before others are given the core: with a core for each rank, all have come
   within that time. As in `polling`. */
#define N_LOOKS 8

PyDoc_STRVAR(begin_gate_doc, "Start a gate, note it, and look whether it has opened.");

static PyObject *
begin_gate(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t n_args)
{
    PyObject *request = NULL, *found;
    int is_open = 0, is_direct;

    if (n_args != 2 || !PyList_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "begin_gate takes a function and a list");
        return NULL;
    }
    is_direct = Py_IS_TYPE(args[0], &Entry_Type);
    if (is_direct) {
        is_open = entry_begin(args[0], &request);
    }
    else {
        request = PyObject_CallNoArgs(args[0]);
    }
    if (request == NULL) {
        return NULL;
    }
    if (PyList_Append(args[1], request) < 0) {
        Py_DECREF(request);
        if (is_direct && !is_open) {
            Py_INCREF(args[0]); /* for good: MPI may still write to its slots */
        }
        return NULL;
    }
    for (int n = 0; n < N_LOOKS && !is_open && !is_direct; n++) {
        found = PyObject_CallMethodNoArgs(request, s_test);
        is_open = found == NULL ? -1 : found == Py_True;
        Py_XDECREF(found);
    }
    Py_DECREF(request);
    return is_open < 0 ? NULL : PyBool_FromLong(is_open);
}

/* What a gate looks at, of a lane, of what is known of others, of a communicator. */
typedef struct {
    PyObject_HEAD
    PyObject *enclosing, *standing;
    long long generation;
    char failed;
} LaneState;

typedef struct {
    PyObject_HEAD
    char is_active;
} StandingState;

typedef struct {
    PyObject_HEAD
    long long entered;
} GateCount;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *lane, *gates, *entry, *be_as_deep;
    long long generation;
} Turnstile;

static int
LaneState_traverse(LaneState *self, visitproc visit, void *arg)
{
    Py_VISIT(self->enclosing);
    Py_VISIT(self->standing);
    return 0;
}

static int
LaneState_clear(LaneState *self)
{
    Py_CLEAR(self->enclosing);
    Py_CLEAR(self->standing);
    return 0;
}

static void
LaneState_dealloc(LaneState *self)
{
    PyObject_GC_UnTrack(self);
    LaneState_clear(self);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef LaneState_members[] = {
    {"enclosing", T_OBJECT_EX, offsetof(LaneState, enclosing), 0, NULL},
    {"standing", T_OBJECT_EX, offsetof(LaneState, standing), 0, NULL},
    {"generation", T_LONGLONG, offsetof(LaneState, generation), 0, NULL},
    BOOL(LaneState, failed),
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject LaneState_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.LaneState",
    .tp_doc = "What a gate looks at of a lane, see allraise.plain.",
    .tp_basicsize = sizeof(LaneState),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_traverse = (traverseproc)LaneState_traverse,
    .tp_clear = (inquiry)LaneState_clear,
    .tp_dealloc = (destructor)LaneState_dealloc,
    .tp_members = LaneState_members,
};

static PyMemberDef StandingState_members[] = {
    BOOL(StandingState, is_active),
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject StandingState_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.StandingState",
    .tp_doc = "What a gate looks at of where others stand, see allraise.plain.",
    .tp_basicsize = sizeof(StandingState),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_members = StandingState_members,
};

static PyMemberDef GateCount_members[] = {
    {"entered", T_LONGLONG, offsetof(GateCount, entered), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject GateCount_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.GateCount",
    .tp_doc = "How many gates were entered, see allraise.plain.",
    .tp_basicsize = sizeof(GateCount),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_members = GateCount_members,
};

/* Wait at a gate that is not open yet. Again where a signal's handler has raised
   before that began: the others count on this rank, so what it raised comes later. */
static PyObject *
wait_at_gate(PyObject *comm, PyObject *operation, PyObject *request)
{
    PyObject *watched = PyList_New(1), *late = Py_NewRef(Py_None), *result = NULL;

    if (watched != NULL) {
        PyList_SET_ITEM(watched, 0, Py_NewRef(request));
        for (int n = 0; n < MAX_TRIES; n++) {
            int room = give_room();
            result = PyObject_CallMethodObjArgs(comm, s_wait_at_gate, operation, watched,
                                                late, NULL);
            take_room(room);
            if (result != NULL || PyList_GET_SIZE(watched) != 1) {
                break;
            }
            Py_SETREF(late, take_error());
        }
        if (result == NULL && !PyErr_Occurred()) {
            PyErr_SetObject((PyObject *)Py_TYPE(late), late);
        }
    }
    Py_XDECREF(watched);
    Py_DECREF(late);
    return result;
}

static PyObject *
Turnstile_call(PyObject *callable, PyObject *const *args, size_t n_given,
               PyObject *names)
{
    Turnstile *self = (Turnstile *)callable;
    LaneState *lane = (LaneState *)self->lane;
    GateCount *gates = (GateCount *)self->gates;
    PyObject *request = NULL, *result, *deep;
    int is_open;

    if (PyVectorcall_NARGS(n_given) != 2 || names != NULL) {
        PyErr_SetString(PyExc_TypeError, "takes the communicator and the operation");
        return NULL;
    }
    if (lane->generation != self->generation || lane->failed || lane->enclosing == NULL
        || !PyTuple_CheckExact(lane->enclosing) || PyTuple_GET_SIZE(lane->enclosing)
        || lane->standing == NULL
        || !PyObject_TypeCheck(lane->standing, &StandingState_Type)
        || ((StandingState *)lane->standing)->is_active) {
        return PyObject_CallMethodObjArgs(args[0], s_pass_gate, args[1], NULL);
    }
    deep = PyObject_CallNoArgs(self->be_as_deep);
    if (deep == NULL) {
        return NULL;
    }
    Py_DECREF(deep);
    gates->entered++;
    is_open = entry_begin(self->entry, &request);
    if (is_open < 0) {
        gates->entered -= is_open != ENTRY_LOST;
        return NULL;
    }
    result = is_open ? Py_NewRef(Py_None) : wait_at_gate(args[0], args[1], request);
    if (result == NULL) {
        Py_INCREF(self->entry); /* for good: MPI may still write to its slots */
    }
    Py_DECREF(request);
    return result;
}

static PyObject *
Turnstile_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *lane, *gates, *entry, *be_as_deep;
    Turnstile *self;

    if (!PyArg_ParseTuple(args, "O!O!O!O:Turnstile", &LaneState_Type, &lane,
                          &GateCount_Type, &gates, &Entry_Type, &entry, &be_as_deep)
        || (self = (Turnstile *)type->tp_alloc(type, 0)) == NULL) {
        return NULL;
    }
    self->vectorcall = Turnstile_call;
    self->lane = Py_NewRef(lane);
    self->gates = Py_NewRef(gates);
    self->entry = Py_NewRef(entry);
    self->be_as_deep = Py_NewRef(be_as_deep);
    self->generation = ((LaneState *)lane)->generation;
    return (PyObject *)self;
}

static int
Turnstile_traverse(Turnstile *self, visitproc visit, void *arg)
{
    Py_VISIT(self->lane);
    Py_VISIT(self->gates);
    Py_VISIT(self->entry);
    Py_VISIT(self->be_as_deep);
    return 0;
}

static void
Turnstile_dealloc(Turnstile *self)
{
    /* No tp_clear: what is in a cycle with this one can let go of it. */
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->lane);
    Py_XDECREF(self->gates);
    Py_XDECREF(self->entry);
    Py_XDECREF(self->be_as_deep);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyTypeObject Turnstile_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.Turnstile",
    .tp_doc = "Passes a gate of a communicator where nothing about it is special.",
    .tp_basicsize = sizeof(Turnstile),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_new = Turnstile_new,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Turnstile, vectorcall),
    .tp_traverse = (traverseproc)Turnstile_traverse,
    .tp_dealloc = (destructor)Turnstile_dealloc,
};

Slots
turnstile_slots(PyObject *gate)
{
    return Py_IS_TYPE(gate, &Turnstile_Type) ? entry_slots(((Turnstile *)gate)->entry)
                                             : (Slots){0};
}

static PyMethodDef functions[] = {
    {"begin_gate", (PyCFunction)(void (*)(void))begin_gate, METH_FASTCALL,
     begin_gate_doc},
    {NULL, NULL, 0, NULL},
};

int
add_gates(PyObject *made)
{
    if (intern(&s_pass_gate, "pass_gate") < 0 || intern(&s_test, "Test") < 0
        || intern(&s_wait_at_gate, "wait_at_gate") < 0
        || PyModule_AddFunctions(made, functions) < 0
        || PyModule_AddType(made, &LaneState_Type) < 0
        || PyModule_AddType(made, &StandingState_Type) < 0
        || PyModule_AddType(made, &GateCount_Type) < 0
        || PyModule_AddType(made, &Turnstile_Type) < 0
        || PyModule_AddIntMacro(made, N_LOOKS) < 0) {
        return -1;
    }
    return 0;
}
