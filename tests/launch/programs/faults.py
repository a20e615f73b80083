"""A job that fails in the way that its arguments name, one fault a run.

usage: faults.py CASE [WORD] [--on RANKS] [--timeout S] [--plain]

With ``--plain`` nothing of allraise is used: what a program does without it. The
table of all faults is ``tests/fault_cases.py``.
"""

import argparse
import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("case")
parser.add_argument("word", nargs="?", default="")
parser.add_argument("--on", default="1", help="the ranks that fail, such as 0,2")
parser.add_argument("--timeout", type=float)
parser.add_argument("--plain", action="store_true")
options = parser.parse_args()
ON = {int(rank) for rank in options.on.split(",")}

# Where a rank stands that is still there shortly before its job is ended.
faulthandler.dump_traceback_later(50)


def started_as():
    """Return the rank that the launcher gave, before MPI is there."""
    names = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")
    return int(next(os.environ[name] for name in names if name in os.environ))


if options.case == "import" and started_as() in ON:
    import a_module_that_is_not_there  # noqa: F401

from mpi4py import MPI  # noqa: E402 after what fails without it

WORLD = MPI.COMM_WORLD
ME, P = WORLD.rank, WORLD.size
FIRST = min(ON)
FOREVER_S = 1000
MEGABYTES = 1 << 20


class Unguarded:
    """Stands in for a guard where there is no allraise."""

    def __init__(self, comm, _step, **_how):
        self.comm = comm

    def __enter__(self):
        return self

    def __exit__(self, *_exc):
        return False


if options.plain:
    guard = Unguarded
else:
    import allraise

    guard = allraise.guard


def fail():
    msg = f"broken on rank {ME}"
    raise ValueError(msg)


def fail_here():
    if ME in ON:
        fail()


def limited(comm, step):
    return guard(comm, step, timeout=options.timeout)


def said(text):
    print(f"rank {ME} {text}", flush=True)


# -- guards in guards ----------------------------------------------------------


def nest(outer, inner):
    """Fail before, inside or after a guard that is inside another one."""
    with limited(outer, "outer"):
        if options.word == "before":
            fail_here()
        with guard(inner, "inner"):
            if options.word == "inside":
                fail_here()
        if options.word == "after":
            fail_here()


def nested():
    nest(WORLD, WORLD)


def halves():
    return WORLD.Split(ME % 2, ME)


def split_in_world():
    nest(WORLD, halves())


def world_in_split():
    with guard(WORLD, "both"):
        nest(halves(), WORLD)


def world_in_split_alone():
    nest(halves(), WORLD)


def overlapping_splits():
    """Rows and columns of a square of four: each pair has one rank in common."""
    with guard(WORLD, "both"):
        nest(WORLD.Split(ME // 2, ME), halves())


def swallowed():
    """An inner failure is passed over by all ranks, or by those that failed."""
    with guard(WORLD, "outer"):
        try:
            with guard(WORLD, "inner"):
                fail_here()
        except BaseException as error:
            if options.word == "by some" and ME not in ON:
                raise
            said(f"passes over {type(error).__name__}")
    said("goes on")


def swallowed_outer():
    """A failure further out is passed over by those that stand deeper."""
    with guard(WORLD, "outer"):
        fail_here()
        for _ in range(3):
            with contextlib.suppress(BaseException), guard(WORLD, "inner"):
                pass
    said("goes on")


# -- guards that not all ranks enter -------------------------------------------


def skipped():
    if ME not in ON:
        with guard(WORLD, "for some"):
            pass
    with guard(WORLD, "for all"):
        pass


def skipped_for_good():
    """A rank comes to no guard at all, and ends."""
    with limited(WORLD, "the first"):
        pass
    if ME not in ON:
        with limited(WORLD, "for some"):
            pass


def loop():
    """One rank leaves a loop early, or fails in its second turn."""
    for turn in range(2 if ME in ON and options.word == "short" else 3):
        with guard(WORLD, "in the loop"):
            if options.word == "failing" and turn == 1:
                fail_here()
    with guard(WORLD, "after the loop"):
        pass


# -- peers that are blocked -----------------------------------------------------

BIG = bytearray(8 * MEGABYTES)  # no MPI sends this before it is received
OPERATIONS = {
    "barrier": lambda c: c.Barrier(),
    "bcast": lambda c: c.bcast(None, root=FIRST),
    "reduce": lambda c: c.reduce(1, root=(FIRST + 1) % P),
    "allreduce": lambda c: c.allreduce(1),
    "gather": lambda c: c.gather(1, root=(FIRST + 1) % P),
    "scatter": lambda c: c.scatter(None, root=FIRST),
    "alltoall": lambda c: c.alltoall([ME] * P),
    "send": lambda c: c.Send(BIG, FIRST),
    "recv": lambda c: c.recv(source=FIRST),
    "sendrecv": lambda c: c.sendrecv(ME, FIRST, source=FIRST),
    "probe": lambda c: c.probe(FIRST),
    "wait": lambda c: c.irecv(source=FIRST).wait(),
}


def blocked():
    with guard(WORLD, "exchange") as g:
        g.comm.Barrier()
        if ME in ON:
            time.sleep(0.2)  # the others are blocked by now: the usual case
            fail()
        OPERATIONS[options.word](g.comm)
        if options.word == "send":
            g.comm.Barrier()  # Open MPI: a send that was revoked may return well


# -- ends ------------------------------------------------------------------------


def leave_early():
    if options.word == "interrupt":
        raise KeyboardInterrupt
    sys.exit({"exit 0": 0, "exit text": "this is the end"}[options.word])


def leaves():
    if ME in ON:
        leave_early()
    WORLD.Barrier()


def leaves_guarded():
    with guard(WORLD, "exit"):
        if ME in ON:
            leave_early()


def leaves_before_a_guard():
    with guard(WORLD, "the first"):
        pass
    if ME in ON:
        leave_early()
    with guard(WORLD, "later"):
        if options.plain:  # what the end of a guard is
            WORLD.Barrier()


def frees():
    """A rank cleans up as it fails."""
    own = WORLD.Dup()
    with guard(own, "own") as g:
        g.comm.Barrier()
        try:
            if ME in ON:
                fail()
            g.comm.Barrier()
        finally:
            if ME in ON:
                own.Free()


def dies():
    if ME in ON:
        if options.word == "exit":
            os._exit(0)
        elif options.word == "abort":
            ctypes.CDLL(None).abort()
        else:
            signal.raise_signal(getattr(signal, options.word))


def killed():
    """A rank ends without a word while the others wait for it."""
    with limited(WORLD, "the first"):
        pass
    with limited(WORLD, "deadly"):
        dies()
        if options.plain:  # what the end of a guard is
            WORLD.Barrier()


def terminated():
    """The launcher is asked to end, as schedulers do at the time limit."""
    WORLD.Barrier()
    if ME in ON:
        os.kill(os.getsid(0), signal.SIGTERM)  # mpirun.start: a session a job
        time.sleep(FOREVER_S)
    WORLD.Barrier()


def in_thread():
    with guard(WORLD, "threads"):
        if ME in ON:
            worker = threading.Thread(target=fail)
            worker.start()
            worker.join()
    if options.word == "and fail":
        fail_here()
        WORLD.Barrier()


def uncaught():
    fail_here()
    WORLD.Barrier()


def imported():
    WORLD.Barrier()


def finalized():
    """Fail when MPI is over: outside of a guard, or at the entry of one."""
    WORLD.Barrier()
    MPI.Finalize()
    if options.word == "guard":
        with guard(WORLD, "too late"):
            said("is in the block")
    fail_here()


# -- failures of the report --------------------------------------------------------


class NoText(ValueError):
    def __str__(self):  # noqa: PLE0307 - on purpose
        fail()

    __repr__ = __str__


class Unpicklable(ValueError):
    def __reduce__(self):
        raise TypeError("not to be pickled")


def refuse():
    raise SystemExit(0)


class Trap(ValueError):
    """Can be pickled, and ends who unpickles it, but for its own process."""

    home = os.getpid()

    def __reduce__(self):
        return spring, (self.home, *self.args)


class Ballast:
    def __init__(self):
        self.data = bytes(64 * MEGABYTES)


def spring(home, *args):
    return ValueError(*args) if os.getpid() == home else refuse()


MADE = {
    "no text": NoText,
    "unpicklable": Unpicklable,
    "trap": Trap,
    "lock": lambda text: ValueError(text, threading.Lock(), lambda: None),
    "huge object": lambda text: ValueError(text, Ballast()),
    "huge text": lambda text: ValueError(text + " x" * MEGABYTES),
}


def hostile():
    with guard(WORLD, "hostile"):
        if ME in ON:
            raise MADE[options.word](f"broken on rank {ME}")


def report_fails():
    """The root cannot make its report: what it calls raises."""
    if not options.plain and ME == 0:
        import allraise.agreement
        import allraise.bundle
        import allraise.exceptions
        import allraise.failing
        import allraise.record

        def broken(*_args, **_how):
            raise MemoryError("no room for a report")

        owner, name = {
            "merge": (allraise.bundle.Bundle, "merge"),
            "summary": (allraise.failing, "summarise"),
            "decode": (allraise.bundle.Bundle, "decode"),
            "rebuild": (pickle, "loads"),
            "text": (allraise.bundle.Bundle, "records"),
        }[options.word]
        setattr(owner, name, broken)
    with guard(WORLD, "reported"):
        fail_here()


# -- never ---------------------------------------------------------------------------


def sleeps():
    time.sleep(FOREVER_S)


def holds():
    ctypes.PyDLL(None).sleep(FOREVER_S)  # PyDLL: the GIL stays held


def stuck():
    """Ranks that never come: only a deadline ends this."""
    raw = WORLD.Dup()
    with limited(WORLD, "the first"):
        pass
    with limited(WORLD, "stuck") as g:
        if ME in ON:
            {
                "sleep": sleeps,
                "gil": holds,
                "g.comm": lambda: g.comm.recv(source=FIRST, tag=99),
                "raw": lambda: raw.recv(source=FIRST, tag=99),
            }[options.word]()
        if options.plain:
            WORLD.Barrier()


cases = {
    name: value
    for name, value in globals().items()
    if callable(value) and getattr(value, "__module__", "") == __name__
}
cases["import"] = imported
cases[options.case]()
