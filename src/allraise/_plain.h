/* What the compiled parts of allraise._plain have in common. */

#ifndef ALLRAISE_PLAIN_H
#define ALLRAISE_PLAIN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

/* What is called next is in Python, and may be called at the end of the stack: calls
   enough until it gives itself room. ENDLESS and MAX_TRIES as in `signals`. */
#define ROOM 16
/* Calls that C code may nest then: from 3.12 on Python counts them apart, and no limit
   that can be set is theirs. As `STACK_ROOM` in `signals`. */
#define ROOM_IN_C 500
#define ENDLESS 1000000
#define MAX_TRIES 100

#define IS_NONE(object) ((object) == NULL || (object) == Py_None)
#define OR_NONE(object) ((object) == NULL ? Py_None : (object))

#define OBJECT(type, name, attribute) {attribute, T_OBJECT, offsetof(type, name), 0, NULL}
#define BOOL(type, name) {#name, T_BOOL, offsetof(type, name), 0, NULL}

/* Note a string that Python looks up by its address. Returns 0, or -1 with an error
   set. */
int intern(PyObject **place, const char *name);

/* ---- _ending.c ---- */

/* Give room on the stack; returns what to take back. By the difference, for another
   thread may do the same meanwhile. */
int give_room(void);
void take_room(int given);

/* Let an exception come from another one, as Python does: no cycle of contexts is made.
   Takes the reference of the second. */
void put_context(PyObject *error, PyObject *context);

/* Return the exception that is set, with its traceback, and set none. */
PyObject *take_error(void);

/* ---- _direct.c ---- */

extern PyTypeObject Reduction_Type;

/* Reduce `mine` of a `Reduction` to `total`. Returns 0, or -1 with an error set. */
int reduction_run(PyObject *reduction);

/* Tell where the numbers of a `Reduction` are, and return whether they are those of
   the two objects. */
int reduction_vectors(PyObject *reduction, PyObject *mine, PyObject *total,
                      long long **mine_at, long long **total_at);

/* ---- _entry.c ---- */

extern PyTypeObject Entry_Type;

/* Of `slots`: the bytes of one, and of the word it begins with; and with how many ranks
   a gate has them. */
#define SLOT 128
#define HEAD 8
#define MAX_SLOTS 16

/* This rank's slot, those of all, and how many those are: none, where a gate has none. */
typedef struct {
    char *mine, *found;
    Py_ssize_t n;
} Slots;

Slots entry_slots(PyObject *entry);

/* Start an `Entry` and look for some time whether all have come. Returns 1 if they
   have, 0 if not yet, both with the request in `*request`; or with an error set -1 if it
   was not started, ENTRY_LOST if nobody can wait for it. */
#define ENTRY_LOST (-2)
int entry_begin(PyObject *entry, PyObject **request);

/* ---- _gates.c ---- */

/* Return the slots of what passes a gate, none if it is not a `Turnstile`. */
Slots turnstile_slots(PyObject *gate);

/* ---- _gated.c ---- */

/* Bind what is called to an instance, as a function in Python. */
PyObject *method_of(PyObject *self, PyObject *instance, PyObject *owner);

/* ---- what each puts into the module; 0, or -1 with an error set ---- */

int add_direct(PyObject *made);
int add_entry(PyObject *made);
int add_gates(PyObject *made);
int add_gated(PyObject *made);
int add_objects(PyObject *made);
int add_outline(PyObject *made);

#endif
