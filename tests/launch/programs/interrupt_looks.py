"""What is looked at before a gate is what mpi4py looks at behind it.

mpi4py looks at a persistent collective as at the blocking one, and moves nothing yet.
"""

import inspect
from array import array

import numpy as np
from mpi4py import MPI

from allraise import operations
from allraise.calls import LOOKS, look_at_init

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
N = 2 * P


def wrong(*words):
    print("WRONG", *words, f"on rank {ME}", flush=True)


# The parameters are mpi4py's, by name, kind and whether they have a default.
def parameters(function):
    found = list(inspect.signature(function).parameters.values())[1:]
    return [(p.name, p.kind, p.default is p.empty) for p in found]


for cls in (MPI.Intracomm, MPI.Cartcomm, MPI.Graphcomm, MPI.Distgraphcomm):
    for name in operations.GATED | operations.DERIVED:
        plain = getattr(cls, name, None)
        if plain is not None and parameters(plain) != parameters(LOOKS[name]):
            wrong(name, inspect.signature(plain))
    for name in operations.GATED_INIT:
        plain, collective = getattr(cls, name, None), name.removesuffix("_init")
        if plain is not None:
            *taken, (info, _, _) = parameters(plain)
            there = parameters(LOOKS[collective]) if collective in LOOKS else []
            if info != "info" or taken != there:
                wrong(name, inspect.signature(plain))
            look_at_init(cls, name)


def readonly(n):
    found = np.zeros(n)
    found.flags.writeable = False
    return found


class Counted:
    """A sequence that is no list."""

    def __len__(self):
        return P

    def __getitem__(self, i):
        return 1


ODD = MPI.DOUBLE.Create_vector(2, 1, 2).Commit()
BUFFERS = {
    "array": np.zeros,
    "array of int32": lambda n: np.zeros(n, "i4"),
    "array of half": lambda n: np.zeros(n, "f2"),
    "matrix": lambda n: np.zeros((n, 1)),
    "Fortran": lambda n: np.asfortranarray(np.zeros((2, n // 2 or 1))),
    "strided": lambda n: np.zeros(2 * n)[::2],
    "reversed": lambda n: np.zeros(n)[::-1],
    "read-only": readonly,
    "unaligned": lambda n: np.zeros(8 * n + 1, "u1")[1:].view("f8"),
    "swapped": lambda n: np.zeros(n, np.dtype("f8").newbyteorder()),
    "objects": lambda n: np.zeros(n, object),
    "records": lambda n: np.zeros(n, "i4,f8"),
    "text": lambda n: np.zeros(n, "U3"),
    "dates": lambda n: np.zeros(n, "M8[s]"),
    "dates as numbers": lambda n: [np.zeros(n, "M8[s]"), MPI.INT64_T],
    "scalar": lambda _: np.zeros(()),
    "empty": lambda _: np.zeros(0),
    "one too many": lambda n: np.zeros(n + 1),
    "numbers": lambda n: [0.0] * n,
    "bytes": lambda n: bytes(8 * n),
    "bytearray": lambda n: bytearray(8 * n),
    "array.array": lambda n: array("d", [0.0] * n),
    "memoryview": lambda n: memoryview(bytearray(8 * n)).cast("d"),
    "strided view": lambda n: memoryview(bytearray(2 * n))[::2],
    "str": lambda _: "text",
    "None": lambda _: None,
    "in place": lambda _: MPI.IN_PLACE,
    "number": lambda _: 7,
    "[]": lambda _: [],
    "[b]": lambda n: [np.zeros(n)],
    "[b, type]": lambda n: [np.zeros(n), MPI.DOUBLE],
    "(b, type)": lambda n: (np.zeros(n), MPI.DOUBLE),
    "[b, code]": lambda n: [np.zeros(n), "d"],
    "[b, no code]": lambda n: [np.zeros(n), "nosuch"],
    "[b, other type]": lambda n: [np.zeros(n), MPI.INT],
    "[b, null]": lambda n: [np.zeros(n), MPI.DATATYPE_NULL],
    "[b, odd type]": lambda n: [np.zeros(3 * n), ODD],
    "[b, type] uneven": lambda n: [bytearray(8 * n + 1), MPI.DOUBLE],
    "[strided, type]": lambda n: [np.zeros(2 * n)[::2], MPI.DOUBLE],
    "[read-only, type]": lambda n: [readonly(n), MPI.DOUBLE],
    "[b, n]": lambda n: [np.zeros(n), n],
    "[b, n, type]": lambda n: [np.zeros(n), n, MPI.DOUBLE],
    "[b, numpy's n, type]": lambda n: [np.zeros(n), np.int64(n), MPI.DOUBLE],
    "[b, 1.0, type]": lambda n: [np.zeros(n), 1.0, MPI.DOUBLE],
    "[b, -1, type]": lambda n: [np.zeros(n), -1, MPI.DOUBLE],
    "[b, None, type]": lambda n: [np.zeros(n), None, MPI.DOUBLE],
    "[b, (n, 1), type]": lambda n: [np.zeros(n + 1), (n, 1), MPI.DOUBLE],
    "[b, [None, 1], type]": lambda n: [np.zeros(n + 1), [None, 1], MPI.DOUBLE],
    "[b, (n, -1), type]": lambda n: [np.zeros(n), (n, -1), MPI.DOUBLE],
    "[b, n, 0, type]": lambda n: [np.zeros(n), n, 0, MPI.DOUBLE],
    "[b, n, 0, type, 1]": lambda n: [np.zeros(n), n, 0, MPI.DOUBLE, 1],
    "[None, 0, type]": lambda _: [None, 0, MPI.DOUBLE],
    "[[b], n, type]": lambda n: [[np.zeros(n)], n, MPI.DOUBLE],
}
ONES = [1] * P
EACH = {
    "[b, ones]": lambda n: [np.zeros(n), ONES],
    "[b, (ones, None)]": lambda n: [np.zeros(n), (ONES, None)],
    "[b, (ones, zeros)]": lambda n: [np.zeros(n), (ONES, [0] * P)],
    "[b, [ones, zeros]]": lambda n: [np.zeros(n), [ONES, [0] * P]],
    "[b, ones, type]": lambda n: [np.zeros(n), ONES, MPI.DOUBLE],
    "[b, ones, zeros, type]": lambda n: [np.zeros(n), ONES, [0] * P, MPI.DOUBLE],
    "[b, ones, zeros, None]": lambda n: [np.zeros(n), ONES, [0] * P, None],
    "[b, ones, 1, type]": lambda n: [np.zeros(n), ONES, 1, MPI.DOUBLE],
    "[b, numpy's ones]": lambda n: [np.zeros(n), np.ones(P, "i4")],
    "[b, numpy's floats]": lambda n: [np.zeros(n), np.ones(P)],
    "[b, array of ones]": lambda n: [np.zeros(n), array("i", ONES)],
    "[b, a sequence of ones]": lambda n: [np.zeros(n), Counted()],
    "[b, a set]": lambda n: [np.zeros(n), set(range(P))],
    "[b, a range]": lambda n: [np.zeros(n), range(P)],
    "[b, floats]": lambda n: [np.zeros(n), [1.0] * P],
    "[b, words]": lambda n: [np.zeros(n), ["1"] * P],
    "[b, True]": lambda n: [np.zeros(n), [True] * P],
    "[b, one too many]": lambda n: [np.zeros(n), [1] * (P + 1)],
    "[b, huge]": lambda n: [np.zeros(n), [1 << 70] * P],
    "[b, (ones, too few)]": lambda n: [np.zeros(n), (ONES, [0] * (P - 1))],
    "[Fortran, ones]": lambda n: [np.asfortranarray(np.zeros((2, n))), ONES],
    "[strided, ones]": lambda n: [np.zeros(2 * n)[::2], ONES],
    "[objects, ones]": lambda n: [np.zeros(n, object), ONES],
}
ANY = {
    "types": lambda n: [np.zeros(n), [MPI.DOUBLE] * P],
    "ones, types": lambda n: [np.zeros(n), (ONES, [0] * P), [MPI.DOUBLE] * P],
    "ones, zeros, types": lambda n: [np.zeros(n), ONES, [0] * P, [MPI.DOUBLE] * P],
    "ones, None, types": lambda n: [np.zeros(n), ONES, None, [MPI.DOUBLE] * P],
    "too few types": lambda n: [np.zeros(n), [MPI.DOUBLE] * (P - 1)],
    "codes": lambda n: [np.zeros(n), ["d"] * P],
    "one type": lambda n: [np.zeros(n), MPI.DOUBLE],
    "no buffer": lambda _: [None, [MPI.DOUBLE] * P],
    "no buffer, ones": lambda _: [None, [0] * P, [0] * P, [MPI.DOUBLE] * P],
    "strided": lambda n: [np.zeros(2 * n)[::2], [MPI.DOUBLE] * P],
    "read-only": lambda n: [readonly(n), [MPI.DOUBLE] * P],
    "alone": lambda n: [np.zeros(n)],
    "not at all": lambda _: None,
}
ROOTS = [0, True, 0.0, np.int64(0), np.array(0), "0", None, [], -1, P, MPI.ROOT]


def pairs(sends, receives, n_send, n_receive):
    good = {"good": np.zeros}
    if sends is ANY:
        good = {"good": ANY["types"]}
    for s, r in [(s, r) for s in sends for r in good] + [
        (s, r) for s in good for r in receives
    ]:
        yield (
            f"({s}, {r})",
            lambda s=s, r=r: (
                {**sends, **good}[s](n_send),
                {**receives, **good}[r](n_receive),
            ),
        )


def each_case():
    for n_send, n_receive, names in (
        (N, N, ("Allreduce", "Scan", "Exscan")),
        (N, 2, ("Reduce_scatter_block",)),
        (2, N, ("Allgather",)),
        (N, N, ("Alltoall",)),
        (N, N, ("Reduce",)),
        (2, N, ("Gather",)),
        (N, 2, ("Scatter",)),
    ):
        for name in names:
            for what, make in pairs(BUFFERS, BUFFERS, n_send, n_receive):
                yield name, what, make
    whole = {**BUFFERS, **EACH}
    for name, sends in (
        ("Alltoallv", whole),
        ("Allgatherv", {"one": lambda _: np.zeros(1)}),
        ("Gatherv", BUFFERS),
        ("Scatterv", whole),
    ):
        receives = BUFFERS if name == "Scatterv" else whole
        for what, make in pairs(sends, receives, P, P):
            yield name, what, make
    for what, make in pairs(ANY, ANY, P, P):
        yield "Alltoallw", what, make
    for what, make in BUFFERS.items():
        yield "Bcast", what, lambda make=make: (make(N),)
    for root in ROOTS:
        yield "Bcast", f"root {root!r}", lambda root=root: (np.zeros(N), root)
    for counts in ([2] * P, None, [2] * (P + 1), [1] * P, ["2"] * P, np.full(P, 2)):
        args = np.zeros(N), np.zeros(2), counts
        yield "Reduce_scatter", f"{counts}", lambda args=args: args
        yield (
            "Reduce_scatter",
            f"in place {counts}",
            lambda counts=counts: (MPI.IN_PLACE, np.zeros(N), counts),
        )


def outcome(call, args):
    try:
        request = call(*args)
    except NotImplementedError:
        raise
    except Exception as error:
        return error
    if isinstance(request, MPI.Request):  # a look may return a number
        request.Free()
    return None


comm = WORLD.Dup()
n_cases = 0
try:
    for name, what, make in each_case():
        for again in range(2):  # what was seen before is known then
            looked = outcome(LOOKS[name], (comm, *make()))
            plain = outcome(getattr(comm, name + "_init"), make())
            n_cases += 1
            if isinstance(plain, MPI.Exception):
                # What only MPI refuses, we may or may not.
                same = looked is None or isinstance(looked, (MPI.Exception, ValueError))
            elif "[b, -1, type]" in what and plain is None:
                # MPI would refuse it later, where it is looked at.
                same = isinstance(looked, (ValueError, type(None)))
            else:
                same = type(looked) is type(plain)
            if not same:
                wrong(name, what, again, "look:", repr(looked), "plain:", repr(plain))
except NotImplementedError:  # this MPI has none
    n_cases = "none to compare with"
if ME == 0:
    print("ok", n_cases, flush=True)
