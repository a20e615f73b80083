#ifndef ALLRAISE_REGION_H
#define ALLRAISE_REGION_H

/* A rank's side of a communicator, its regions, and what ends them; see _plain.c. */

#include "_plain.h"

/* ---- _region.c ---- */

/* Of the vector that is reduced; `verdict` says what its numbers are. */
enum { LENGTH = 8, SEVERITY = 0, PLACE = 2, DIGEST = 3, MINUS_DIGEST = 4 };
#define PLACE_BITS 33
#define EVERYWHERE (1LL << (PLACE_BITS - 1))
#define COUNT_BITS 40
#define PENDING (-1)

/* Of a region that is open; `private` says what a tuple of them holds. */
enum { SIDE, REGION, DEPTH, NUMBER, AROUND, OUTER, CELL, N_OPENED };

typedef struct {
    PyObject_HEAD
    PyObject *innermost, *settled, *comm, *reduce, *mine, *total, *tried;
    long long n_within, size;
    unsigned long thread;
    char is_plain, closed, is_reduced, is_waiting;
} Side;

extern PyTypeObject Side_Type;

/* Whether it is a region as `private` has them. */
int is_opened(PyObject *object);

/* Return a region that can be opened as nothing is special; NULL where something is,
   or with an error set. */
PyObject *plain_region(Side *side, PyObject *step);

/* Open a region, whose reference it takes. What is replaced is in the region, so
   alive: nothing fails here, and nothing else runs. */
void open_region(Side *side, PyObject *opened);

/* Close the innermost region. */
void close_region(Side *side, PyObject *opened);

/* Reduce the vector, as a rank that has not failed. Returns 1 if no rank has, and
   all stand at one step; 0 if not, or if nothing was begun. What the side notes tells
   the two apart, and what was raised. */
int succeeds(Side *side, PyObject *opened, long long place);

/* ---- _given.c ---- */

/* What a guard is given; NULL where it is not. */
typedef struct {
    PyObject *comm, *step, *root, *everywhere, *timeout;
} Given;

/* Return this rank's side, borrowed, if the arguments are plain and known to be right;
   else NULL with no error set. A communicator that is known was checked before. */
Side *checked_before(const Given *given, long long *place);

/* Read an argument of a guard that has a name. Returns 0 where Python is to say what is
   wrong. */
int read_named(Given *given, PyObject *name, PyObject *value);

/* Read the arguments of a guard. Returns 0 as the one above. */
int read_given(PyObject *args, PyObject *kwargs, Given *given);

/* Note that a side is there no more. */
void forget_side(Side *side);

/* ---- _ending.c ---- */

/* What Python does at the end of a region: `_exit` of a block, or `agreement.leave`. */
typedef struct {
    PyObject *block, *entered, *const *now; /* what it had entered, and where it notes */
    PyObject *leave, *opened, *place; /* without a block */
} Ending;

/* End a region, again where a signal's handler has raised before that began: what it
   raised is the rank's failure then. */
PyObject *end_slowly(const Ending *ending, PyObject *type, PyObject *exc,
                     PyObject *traceback);

/* ---- what each puts into the module; 0, or -1 with an error set ---- */

int add_region(PyObject *made);
int add_given(PyObject *made);
int add_ending(PyObject *made);
int add_block(PyObject *made);

#endif
