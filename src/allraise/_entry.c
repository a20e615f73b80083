/* A gate, started and looked at without mpi4py in between; see direct.py.

   Owns `Entry`, an Ibarrier or Iallgather that most often needs no request of mpi4py's,
   and `Look`, which tells whether one of mpi4py's is done. How MPI's functions are called:
   see _direct.c. */

#include "_direct.h"
#include <time.h>

typedef int (*Ibarrier)(Handle, Handle *);
typedef int (*Iallgather)(const void *, int, Handle, void *, int, Handle, Handle,
                          Handle *);
typedef int (*Test)(Handle *, int *, void *);

/* How long a rank looks before it gives the core to others: with a core for each, all
   have come within that time. By the clock, for a look takes a tenth of a microsecond in
   one MPI, half of one in another. */
#define LOOK_NS 3000

/* More than any MPI's status takes; MPI_STATUS_IGNORE is another value in each. */
#define STATUS_BYTES 256

/* Looks at requests of mpi4py's, where the handle is so many bytes into the object. */
typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *error;
    PyTypeObject *type;
    Py_ssize_t offset;
    Test test;
} Look;

typedef struct {
    PyObject_HEAD
    Comm comm;
    PyObject *error, *adopt, *null; /* makes mpi4py's request of a handle; the null one */
    Ibarrier start;
    Test test;
    /* Where there are slots, instead of `start`: but for a communicator that was freed,
       with which Open MPI 5.0.11 crashes in MPI_Iallgather, and not in MPI_Ibarrier. */
    Iallgather exchange;
    Handle byte, freed;
    Py_buffer mine, found;
} Entry;

/* Test a request for some time. Returns MPI's code. */
static int
test_for(Test test, Handle *request, int *is_done)
{
    _Alignas(16) char status[STATUS_BYTES];
    struct timespec clock;
    long long now = 0, end = 0;
    int code = 0;

    while (code == 0 && !*is_done && now <= end) {
        code = test(request, is_done, status);
        clock_gettime(CLOCK_MONOTONIC, &clock);
        now = clock.tv_sec * 1000000000LL + clock.tv_nsec;
        end = end ? end : now + LOOK_NS;
    }
    return code;
}

/* ---- Entry ---- */

PyDoc_STRVAR(entry_doc, "Starts a gate, of which mpi4py need not know when it is over.");

static PyObject *
Entry_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *start, *test, *object, *address, *adopt, *null, *error;
    PyObject *exchange = NULL, *byte = NULL, *freed, *mine, *found = NULL;
    Py_ssize_t width;
    Entry *self;

    if (!PyArg_ParseTuple(args, "O!O!OO!nOOO|O!O!O!OO:Entry", &PyLong_Type, &start,
                          &PyLong_Type, &test, &object, &PyLong_Type, &address, &width,
                          &adopt, &null, &error, &PyLong_Type, &exchange, &PyLong_Type,
                          &byte, &PyLong_Type, &freed, &mine, &found)
        || (self = (Entry *)type->tp_alloc(type, 0)) == NULL) {
        return NULL;
    }
    self->error = Py_NewRef(error);
    self->adopt = Py_NewRef(adopt);
    self->null = Py_NewRef(null);
    self->start = (Ibarrier)(uintptr_t)PyLong_AsVoidPtr(start);
    self->test = (Test)(uintptr_t)PyLong_AsVoidPtr(test);
    if (found != NULL) {
        self->exchange = (Iallgather)(uintptr_t)PyLong_AsVoidPtr(exchange);
        self->byte = (Handle)PyLong_AsUnsignedLongLongMask(byte);
        self->freed = (Handle)PyLong_AsUnsignedLongLongMask(freed);
        if (!PyErr_Occurred() && PyObject_GetBuffer(mine, &self->mine, PyBUF_WRITABLE) == 0
            && PyObject_GetBuffer(found, &self->found, PyBUF_WRITABLE) == 0
            && (self->exchange == NULL || self->mine.len != SLOT
                || self->found.len % SLOT || self->found.len > SLOT * MAX_SLOTS)) {
            PyErr_SetString(PyExc_ValueError, "no function, or no slots");
        }
    }
    if (PyErr_Occurred() || self->start == NULL || self->test == NULL
        || read_comm(&self->comm, object, address, width) < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "no functions");
        }
        Py_DECREF(self);
        return NULL;
    }
    if (self->comm.width == sizeof(int)) { /* as `handle_of` reads them */
        self->freed = (unsigned int)self->freed;
    }
    return (PyObject *)self;
}

static void
Entry_dealloc(Entry *self)
{
    PyBuffer_Release(&self->mine);
    PyBuffer_Release(&self->found);
    Py_XDECREF(self->comm.object);
    Py_XDECREF(self->error);
    Py_XDECREF(self->adopt);
    Py_XDECREF(self->null);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* Start it. Returns MPI's code. */
static int
begin(const Entry *self, Handle *request)
{
    Handle comm = handle_of(&self->comm);

    return self->exchange == NULL || comm == self->freed
               ? self->start(comm, request)
               : self->exchange(self->mine.buf, SLOT, self->byte, self->found.buf, SLOT,
                                self->byte, comm, request);
}

/* Return mpi4py's request of a handle. It takes an int, with its sign, as the pointer
   that C makes of it. */
static PyObject *
adopted(Entry *self, Handle handle)
{
    Handle number = self->comm.width == sizeof(int) ? (Handle)(intptr_t)(int)handle
                                                    : handle;
    return PyObject_CallFunction(self->adopt, "K", (unsigned long long)number);
}

int
entry_begin(PyObject *entry, PyObject **request)
{
    Entry *self = (Entry *)entry;
    Handle handle = 0;
    int code, is_begun, is_open = 0;

    Py_INCREF(self);
    Py_BEGIN_ALLOW_THREADS
    code = begin(self, &handle);
    is_begun = code == 0;
    if (is_begun) {
        code = test_for(self->test, &handle, &is_open);
    }
    Py_END_ALLOW_THREADS
    if (code != 0) {
        raise_code(self->error, code);
    }
    else if (!is_open) {
        *request = adopted(self, handle);
    }
    else {
        *request = Py_NewRef(self->null);
    }
    if (*request == NULL && is_begun) {
        return ENTRY_LOST; /* with the reference: MPI may still write to the slots */
    }
    Py_DECREF(self);
    return *request == NULL ? -1 : is_open;
}

static PyObject *
Entry_call(PyObject *self, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    Entry *entry = (Entry *)self;
    PyObject *request;
    Handle handle = 0;
    int code;

    Py_BEGIN_ALLOW_THREADS
    code = begin(entry, &handle);
    Py_END_ALLOW_THREADS
    if (code != 0) {
        raise_code(entry->error, code);
        return NULL;
    }
    request = adopted(entry, handle);
    if (request == NULL) {
        Py_INCREF(self); /* for good: MPI may still write to the slots */
    }
    return request;
}

Slots
entry_slots(PyObject *entry)
{
    Entry *self = (Entry *)entry;
    return (Slots){self->mine.buf, self->found.buf, self->found.len / SLOT};
}

PyTypeObject Entry_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.Entry",
    .tp_doc = entry_doc,
    .tp_basicsize = sizeof(Entry),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Entry_new,
    .tp_dealloc = (destructor)Entry_dealloc,
    .tp_call = Entry_call,
};

/* ---- Look ---- */

PyDoc_STRVAR(look_doc, "Tells whether a request is done, after a few looks.");

static PyObject *
Look_call(PyObject *look, PyObject *const *args, size_t n_given, PyObject *names)
{
    Look *self = (Look *)look;
    PyObject *request = PyVectorcall_NARGS(n_given) == 1 ? args[0] : NULL;
    int code, is_done = 0;

    if (request == NULL || names != NULL || !PyObject_TypeCheck(request, self->type)) {
        PyErr_SetString(PyExc_TypeError, "takes one request");
        return NULL;
    }
    Py_INCREF(request);
    Py_BEGIN_ALLOW_THREADS
    code = test_for(self->test, (Handle *)((char *)request + self->offset), &is_done);
    Py_END_ALLOW_THREADS
    Py_DECREF(request);
    if (code != 0) {
        raise_code(self->error, code);
        return NULL;
    }
    return PyBool_FromLong(is_done);
}

static PyObject *
Look_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *test, *request_type, *error;
    Py_ssize_t offset;
    Look *self;

    if (!PyArg_ParseTuple(args, "O!nO!O:Look", &PyLong_Type, &test, &offset, &PyType_Type,
                          &request_type, &error)
        || (self = (Look *)type->tp_alloc(type, 0)) == NULL) {
        return NULL;
    }
    self->vectorcall = Look_call;
    self->error = Py_NewRef(error);
    self->type = (PyTypeObject *)Py_NewRef(request_type);
    self->offset = offset;
    self->test = (Test)(uintptr_t)PyLong_AsVoidPtr(test);
    if (self->test == NULL || offset < (Py_ssize_t)sizeof(PyObject)
        || offset + (Py_ssize_t)sizeof(Handle) > self->type->tp_basicsize) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "no function, or no place of a handle");
        }
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
Look_dealloc(Look *self)
{
    Py_XDECREF(self->error);
    Py_XDECREF(self->type);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyTypeObject Look_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.Look",
    .tp_doc = look_doc,
    .tp_basicsize = sizeof(Look),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_new = Look_new,
    .tp_dealloc = (destructor)Look_dealloc,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Look, vectorcall),
};

int
add_entry(PyObject *made)
{
    return PyModule_AddType(made, &Entry_Type) < 0 ? -1
                                                   : PyModule_AddType(made, &Look_Type);
}
