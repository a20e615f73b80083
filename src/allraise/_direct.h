#ifndef ALLRAISE_DIRECT_H
#define ALLRAISE_DIRECT_H

/* Handles of MPI's as numbers, and what is called with them; see _direct.c. */

#include "_plain.h"
#include <stdint.h>
#include <string.h>

typedef uintptr_t Handle;

/* mpi4py's communicator, and where in it the handle is. */
typedef struct {
    PyObject *object;
    const void *handle;
    Py_ssize_t width;
} Comm;

static inline Handle
handle_of(const Comm *comm)
{
    Handle whole = 0;
    memcpy(&whole, comm->handle, (size_t)comm->width);
    return whole;
}

/* Take what is given of a communicator. Returns 0, or -1 with an error set. */
int read_comm(Comm *comm, PyObject *object, PyObject *address, Py_ssize_t width);

/* Raise mpi4py's exception of a code. Returns -1. */
int raise_code(PyObject *error, int code);

#endif
