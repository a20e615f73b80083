"""Small collectives give what mpi4py's give, wherever the slots are exchanged.

The argument tells that: "gate", "behind" it, not at all ("none"), or "mixed": at the
gate, and rank 0 has nothing compiled.
"""
# ruff: noqa: E402, E731 - what is compiled is chosen first; and small functions

import os
import sys

WHERE = sys.argv[1]
RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
if WHERE == "mixed" and "0" in [
    os.environ[name] for name in RANKS if name in os.environ
]:
    os.environ["ALLRAISE_PURE"] = "1"

import numpy as np
from mpi4py import MPI

import allraise
from allraise import interruptible, methods, plain, slots

if WHERE == "behind":
    slots.MAX_AT_GATE = 0
if WHERE == "none":
    interruptible.MAX_RANKS = 0

WORLD = MPI.COMM_WORLD
P, ME = WORLD.size, WORLD.rank
OPS = ["SUM", "PROD", "MAX", "MIN", "LAND", "LOR", "LXOR", "BAND", "BOR", "BXOR"]
n_behind = 0  # collectives that a gate did not spare


def counted(Gated):
    """Count the calls of mpi4py's method that is behind a gate."""

    def gated(look, method, *rest):
        def counting(*args, **kwargs):
            global n_behind  # noqa: PLW0603
            n_behind += 1
            return method(*args, **kwargs)

        return Gated(look, counting, *rest)

    return gated


compiled = plain.Gated is not None
if compiled:
    methods.Gated = counted(plain.Gated)


def numbers(code, n, rank=ME):
    """Return n numbers of a rank: with fractions, of both signs, with the last bits."""
    values = (np.arange(n) + 1) * 0.1 * (rank + 1) ** 3 * (-1) ** rank
    return (values if code in "fd" else np.rint(10 * values)).astype(code)


def datatype(code):
    return MPI.Datatype.fromcode(code)


def reduced(c, send, into, *args, **kwargs):
    c.Allreduce(send, into, *args, **kwargs)
    return into if isinstance(into, np.ndarray) else into[0]


def broadcast(c, buf, *args, **kwargs):
    c.Bcast(buf, *args, **kwargs)
    return buf if isinstance(buf, np.ndarray) else buf[0]


def read_only(array):
    array.flags.writeable = False
    return array


def each_reduction():
    """Go through calls, and whether nothing is left to be done behind their gate."""
    for code in "fd?bhilqBHILQ":
        exact = code not in "fd" or P <= 2
        for op in OPS:
            new = lambda code=code: (numbers(code, 3), np.zeros(3, code))
            is_valid = op[0] in (
                "L" if code == "?" else "SPM" if code in "fd" else "SPMLB"
            )
            yield (
                f"{op} {code}",
                exact and is_valid,
                lambda c, new=new, op=op: reduced(c, *new(), getattr(MPI, op)),
            )
    for n in (0, 1, 14, 15, 16, 1000):
        fits = n <= 15 and P <= 2
        mine = numbers("d", n)
        yield (
            f"{n} numbers",
            fits,
            lambda c, n=n: reduced(c, numbers("d", n), np.ones(n)),
        )
        yield (
            f"{n} in place",
            fits,
            lambda c, a=mine: reduced(c, MPI.IN_PLACE, a.copy()),
        )
        yield (
            f"{n} typed",
            fits,
            lambda c, n=n, a=mine: reduced(
                c, [a, MPI.DOUBLE], [np.zeros(n), MPI.DOUBLE]
            ),
        )
        yield (
            f"{n} some typed",
            fits,
            lambda c, n=n, a=mine: reduced(
                c,
                *(
                    [[a, MPI.DOUBLE], [np.zeros(n), MPI.DOUBLE]]
                    if ME
                    else [a, np.zeros(n)]
                ),
            ),
        )
    ints = lambda: (numbers("i", 2), np.zeros(2, "i"))
    yield "keyword", True, lambda c: reduced(c, *ints(), op=MPI.MAX)
    yield "a copy of an op", True, lambda c: reduced(c, *ints(), MPI.Op(MPI.MIN))
    yield (
        "matrices",
        True,
        lambda c: reduced(c, numbers("i", 4).reshape(2, 2), np.zeros((2, 2), "i")),
    )
    yield (
        "a part",
        True,
        lambda c: reduced(c, numbers("i", 9)[3:5], np.zeros(9, "i")[2:4]),
    )
    yield (
        "read-only",
        False,
        lambda c: reduced(c, read_only(numbers("i", 2)), np.zeros(2, "i")),
    )
    yield (
        "some read-only",
        False,
        lambda c: reduced(
            c, read_only(numbers("i", 2)) if ME else numbers("i", 2), np.zeros(2, "i")
        ),
    )
    yield (
        "with a count",
        False,
        lambda c: reduced(
            c, [numbers("d", 5), 2, MPI.DOUBLE], [np.zeros(5), 2, MPI.DOUBLE]
        ),
    )
    yield "complex", False, lambda c: reduced(c, numbers("d", 2) * 1j, np.zeros(2, "D"))
    pairs = np.dtype([("value", "d"), ("place", "i")], align=True)
    pair = lambda rank: np.array([(rank % 3, rank)], pairs)
    yield (
        "pairs",
        False,
        lambda c: reduced(
            c, [pair(ME), MPI.DOUBLE_INT], [pair(0), MPI.DOUBLE_INT], MPI.MINLOC
        ),
    )
    yield (
        "nan",
        P <= 2,
        lambda c: reduced(
            c, np.array([np.nan if ME else 1.0, np.inf, 0.0]), np.zeros(3)
        ),
    )


def each_broadcast():
    roots = sorted({0, P // 2, P - 1})
    for root in roots:
        for n in (0, 1, 15, 16, 1000):
            fits, mine = n <= 15, numbers("d", n)
            yield (
                f"{n} from {root}",
                fits,
                lambda c, a=mine, r=root: broadcast(c, a.copy(), r),
            )
            yield (
                f"{n} typed",
                fits,
                lambda c, a=mine, r=root: broadcast(c, (a.copy(), MPI.DOUBLE), root=r),
            )
        yield "bytes", True, lambda c, r=root: broadcast(c, np.full(120, ME, "u1"), r)
        yield (
            "121 bytes",
            False,
            lambda c, r=root: broadcast(c, np.full(121, ME, "u1"), r),
        )
        yield "complex", True, lambda c, r=root: broadcast(c, numbers("d", 2) * 1j, r)
        yield (
            "of different shapes",
            True,
            lambda c, r=root: broadcast(
                c, numbers("d", 4).reshape((2, 2) if ME % 2 else 4), r
            ).ravel(),
        )
        yield (
            "read-only at the root",
            False,
            lambda c, r=root: broadcast(
                c, (read_only if r == ME else np.array)(numbers("d", 2)), r
            ),
        )
        yield (
            "with a count",
            False,
            lambda c, r=root: broadcast(c, [numbers("d", 5), 2, MPI.DOUBLE], r),
        )
        yield (
            "keywords",
            False,
            lambda c, r=root: [
                c.Bcast(buf=(a := numbers("d", 5)), root=r),
                a,
            ][1],
        )
        for obj in (
            None,
            1,
            -1.5,
            "x" * 100,
            "x" * 105,
            "x" * 110,
            b"y" * 5000,
            [{}, ()],
        ):
            yield (
                f"object {obj!r:.9}",
                True,
                lambda c, o=obj, r=root: c.bcast(
                    o if r == ME else "not the root's", root=r
                ),
            )


class Talkative:
    """Broadcasts while it is unpickled: what is read must not change meanwhile."""

    comm = None

    def __getstate__(self):
        return {"text": "t" * 20}  # so that a slot has all

    def __setstate__(self, state):
        # Not on the communicator that the root pickles for mpi4py.
        self.found = self.comm.bcast("b" * 100, root=P - 1), state

    def __repr__(self):
        return f"Talkative({self.found})"


def talking(c):
    Talkative.comm = c
    return c.bcast(Talkative(), root=P - 1)


def each_other_case():
    yield "unpickling that broadcasts", True, talking
    mine = numbers("i", 3)
    yield "a view of its own memory", False, lambda c: reduced(c, mine, mine[:])
    alone = lambda c, new: reduced(c.Split(ME), *new, MPI.BAND)
    floats = lambda: (numbers("d", 2), np.zeros(2))
    yield "bits of floats, alone", False, lambda c: alone(c, floats())
    yield "sums, alone", True, lambda c: reduced(c.Split(ME), *floats())


def outcome(case, c):
    try:
        return case(c)
    except MPI.Exception as error:
        return type(error), error.Get_error_class()


def reduces_its_own_memory(c):
    """Refused before the gate on the rank that does, so that no other waits for it."""
    if ME == P - 1:
        with_itself = numbers("i", 3)
        try:
            c.Allreduce(with_itself, with_itself)
        except ValueError as error:
            assert "MPI.IN_PLACE" in str(error), error  # noqa: PT017
        else:
            print("WRONG its own memory was taken", flush=True)
    c.Barrier()


PLAIN = WORLD.Dup()
PLAIN.Set_errhandler(MPI.ERRORS_RETURN)
n_cases = n_spared = 0
with allraise.guard(WORLD, "small") as g:
    cases = [*each_reduction(), *each_broadcast(), *each_other_case()]
    if P > 1:
        reduces_its_own_memory(g.comm)
        reduces_its_own_memory(g.comm)  # known by then
    for name, is_small, case in cases:
        expected = outcome(case, PLAIN)
        for _ in range(2):  # what was seen before is known then
            n_behind = 0
            got = outcome(case, g.comm)
            g.comm.Barrier()
            if repr(got) != repr(expected):
                print(f"WRONG {name} on {ME}: {got} is not {expected}", flush=True)
        n_cases += 1
        n_spared += not n_behind
        if 1 < P <= 16 and WHERE == "gate" and compiled and bool(n_behind) == is_small:
            print(f"WRONG {name} on {ME}: {n_behind} collectives behind it", flush=True)
if ME == 0:
    print("ok", WHERE, n_cases, n_spared, flush=True)
