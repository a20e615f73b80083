/* Calls of MPI's own functions, for _plain.c; see _direct.c. */

#ifndef ALLRAISE_DIRECT_H
#define ALLRAISE_DIRECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject Reduction_Type, Barrier_Type, Look_Type;

/* Reduce `mine` of a `Reduction` to `total`. Returns 0, or -1 with an error set. */
int reduction_run(PyObject *reduction);

/* Return where the numbers of a `Reduction` are, if they are those of the two
   objects; else NULL with no error set. */
int reduction_vectors(PyObject *reduction, PyObject *mine, PyObject *total,
                      long long **mine_at, long long **total_at);

/* Start a `Barrier` and look for some time whether all have come. Returns 1 if they
   have; 0 with the request in `*request` if not yet, or -1 with an error set. */
int barrier_begin(PyObject *barrier, PyObject **request);

#endif
