/* MPI's own functions, called without mpi4py in between; see direct.py.

   Owns `Reduction`, an Allreduce of two arrays that are always the same: mpi4py looks at
   each argument of each call anew, which takes as long as the Allreduce of two ranks.
   What starts a gate, and looks at it, is in _entry.c.

   No header of an MPI is needed, and none is used: the functions come as addresses,
   from the library that mpi4py runs on, and the handles as numbers. Those are `int` in
   some MPIs and pointers in others; in a register one is passed like the other, on the
   processors below. The communicator's is read from mpi4py's object at each call, for
   that object may have been freed. */

#include "_direct.h"

/* What is known of how arguments are passed; elsewhere mpi4py is called. */
#if defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__)) \
    && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define IS_KNOWN 1
#else
#define IS_KNOWN 0
#endif

typedef int (*Allreduce)(const void *, void *, int, Handle, Handle, Handle);

typedef struct {
    PyObject_HEAD
    Comm comm;
    PyObject *error; /* mpi4py's exception, called with a code */
    Allreduce call;
    Handle datatype, op;
    Py_buffer mine, total;
} Reduction;

int
read_comm(Comm *comm, PyObject *object, PyObject *address, Py_ssize_t width)
{
    void *handle = PyLong_AsVoidPtr(address);
    if (handle == NULL || !IS_KNOWN
        || (width != sizeof(int) && width != sizeof(void *))) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "handles of a kind that is not known");
        }
        return -1;
    }
    *comm = (Comm){Py_NewRef(object), handle, width};
    return 0;
}

int
raise_code(PyObject *error, int code)
{
    PyObject *made = PyObject_CallFunction(error, "i", code);
    if (made != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(made), made);
        Py_DECREF(made);
    }
    return -1;
}

PyDoc_STRVAR(reduction_doc, "An Allreduce of two arrays that are always the same.");

static PyObject *
Reduction_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    PyObject *call, *object, *address, *datatype, *op, *error, *mine, *total;
    Py_ssize_t width;
    Reduction *self;

    if (!PyArg_ParseTuple(args, "O!OO!nO!O!OOO:Reduction", &PyLong_Type, &call, &object,
                          &PyLong_Type, &address, &width, &PyLong_Type, &datatype,
                          &PyLong_Type, &op, &mine, &total, &error)
        || (self = (Reduction *)type->tp_alloc(type, 0)) == NULL) {
        return NULL;
    }
    self->error = Py_NewRef(error);
    self->call = (Allreduce)(uintptr_t)PyLong_AsVoidPtr(call);
    self->datatype = (Handle)PyLong_AsUnsignedLongLongMask(datatype);
    self->op = (Handle)PyLong_AsUnsignedLongLongMask(op);
    if (PyErr_Occurred() || self->call == NULL
        || read_comm(&self->comm, object, address, width) < 0
        || PyObject_GetBuffer(mine, &self->mine, PyBUF_WRITABLE) < 0
        || PyObject_GetBuffer(total, &self->total, PyBUF_WRITABLE) < 0
        || self->mine.len != self->total.len) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "no function, or two different lengths");
        }
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
Reduction_dealloc(Reduction *self)
{
    PyBuffer_Release(&self->mine);
    PyBuffer_Release(&self->total);
    Py_XDECREF(self->comm.object);
    Py_XDECREF(self->error);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

int
reduction_run(PyObject *reduction)
{
    Reduction *self = (Reduction *)reduction;
    int n = (int)(self->mine.len / (Py_ssize_t)sizeof(long long)), code;

    Py_INCREF(self); /* whatever other threads do meanwhile */
    Py_BEGIN_ALLOW_THREADS
    code = self->call(self->mine.buf, self->total.buf, n, self->datatype, self->op,
                      handle_of(&self->comm));
    Py_END_ALLOW_THREADS
    if (code != 0) {
        raise_code(self->error, code);
    }
    Py_DECREF(self);
    return code == 0 ? 0 : -1;
}

int
reduction_vectors(PyObject *reduction, PyObject *mine, PyObject *total,
                  long long **mine_at, long long **total_at)
{
    Reduction *self = (Reduction *)reduction;
    *mine_at = self->mine.buf;
    *total_at = self->total.buf;
    return self->mine.obj == mine && self->total.obj == total;
}

static PyObject *
Reduction_call(PyObject *self, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    if (reduction_run(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyTypeObject Reduction_Type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "allraise._plain.Reduction",
    .tp_doc = reduction_doc,
    .tp_basicsize = sizeof(Reduction),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = Reduction_new,
    .tp_dealloc = (destructor)Reduction_dealloc,
    .tp_call = Reduction_call,
};

int
add_direct(PyObject *made)
{
    return PyModule_AddType(made, &Reduction_Type);
}
