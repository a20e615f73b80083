"""A job that fails in the way that its first argument names, most on rank 1."""

import atexit
import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time

import allraise

fault = sys.argv[1]
if (
    fault == "import"
    and os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK")) == "1"
):
    import a_module_that_is_not_there  # noqa: F401

from mpi4py import MPI  # noqa: E402 after what fails without it

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size


def wait():
    comm.Barrier()
    print(f"rank {rank} passed", flush=True)


def exit_with(code):
    if rank == 1:
        sys.exit(code)
    wait()


def nothing():
    wait()


def one():
    if rank == 1:
        raise ValueError(f"wrong on rank {rank}")
    wait()


def root():
    if rank == 0:
        raise ValueError(f"wrong on rank {rank}")
    wait()


def every():
    raise ValueError(f"wrong on rank {rank}")


def late():
    """One fails, another half a second later: within the grace period."""
    if rank == 1:
        raise ValueError("the first")
    if rank == 2:
        time.sleep(0.5)
        raise KeyError("the second")
    wait()


def unprinted():
    """Leave text in Python's buffer."""
    sys.stdout.write(f"rank {rank} was here\n")
    one()


def exit0():
    exit_with(0)


def exit3():
    exit_with(3)


def exit256():
    exit_with(256)


def exit_text():
    exit_with("this is the end")


def all_exit0():
    wait()
    sys.exit(0)


def exit0_before_a_guard():
    """The first on the communicator, a later one, or one with `g.comm`."""
    where = sys.argv[2]
    if where != "first":
        allraise.agree(None, comm)
    if rank == 1:
        sys.exit(0)
    with allraise.guard(comm, "save") as g:
        if where == "g.comm":
            g.comm.barrier()


def early_and_healthy():
    """Leave while the others have much to do, without the one that left."""
    rest = comm.Split(int(rank == 1), rank)
    allraise.agree(None, comm)
    if rank == 1:
        sys.exit(0)
    with allraise.guard(rest):
        time.sleep(0 if rank else float(sys.argv[2]))
    end = time.monotonic() + float(sys.argv[2])
    while rest.allreduce(time.monotonic() < end, MPI.LAND):
        pass
    print(f"rank {rank} is done", flush=True)


def interrupt():
    if rank == 1:
        raise KeyboardInterrupt
    wait()


def thread():
    """An exception in a thread is told if the job fails, and only then."""
    if rank == 1:
        worker = threading.Thread(target=lambda: 1 / 0)
        worker.start()
        worker.join()
    if len(sys.argv) > 2:
        one()
    wait()


def at_exit():
    def broken():
        raise RuntimeError("broken at exit")

    if rank == 1:
        atexit.register(broken)
        return
    wait()


def guard():
    with allraise.guard(comm, "write shards"):
        if rank:
            raise OSError(28, "No space left on device")


def guard_split():
    half = comm.Split(rank % 2, -rank)
    with allraise.guard(half, "write odd" if rank % 2 else "write even"):
        if rank == 1:
            raise OSError(28, "No space left on device")
    wait()


def raised_from():
    try:
        guard()
    except allraise.CheckpointException as error:
        raise RuntimeError("giving up") from error


def first_step(*, waits=False):
    """Fail together, of one rank's failure; the others may be woken."""
    with allraise.guard(comm, "first") as g:
        if rank == 1:
            raise ValueError("the first failure")
        if waits:
            g.comm.barrier()


def woken():
    with allraise.guard(comm, "ready") as g:
        g.comm.barrier()
    with allraise.guard(comm, "woken") as g:
        if rank == 1:
            time.sleep(0.5)
            raise ValueError("the first failure")
        try:
            g.comm.allreduce(1)
        finally:
            if len(sys.argv) > 2 and rank == 0:
                raise KeyError("while it is woken")


def wrong_length():
    steps = allraise.CollectiveSteps(comm)
    steps.reduce_scatter("wrong", lambda: rank, lambda values: values[1:])


def refused():
    with allraise.guard(comm, "refused", timeout=-1 if rank == 1 else 1):
        pass


def refused_by_mpi():
    with allraise.guard(comm, "refused by MPI") as g:
        if rank == 1:
            g.comm.Send([bytearray(1), 1, MPI.DATATYPE_NULL], 0)


def raise_anew():
    raise OSError(28, "No space left on device")


def after_handling():
    """The rank named raises while it handles what all have agreed on."""
    try:
        first_step(waits="woken" in sys.argv)
    except allraise.CheckpointException:
        if rank == int(sys.argv[2]):
            raise_anew()
    wait()


def anew_among_others():
    """One rank raises something new, the others let out what was agreed."""
    try:
        first_step()
    except allraise.CheckpointException:
        if rank == 1:
            raise_anew()
        raise


def from_agreed_on_one():
    try:
        first_step()
    except allraise.CheckpointException as error:
        if rank == 1:
            raise OSError(28, "No space left on device") from error
    wait()


def from_none():
    """Not even the chain tells of what was handled."""
    try:
        first_step()
    except allraise.CheckpointException:
        if rank == 1:
            raise OSError(28, "No space left on device") from None
        raise


def exit_after_agreed():
    try:
        first_step()
    except allraise.CheckpointException:
        sys.exit(3)


def two_agreed():
    """Rank 1 handles the failure that ends rank 0, and fails with rank 2."""
    part = comm.Split(int(rank > 0), rank)
    try:
        first_step()
    except allraise.CheckpointException:
        if rank == 0:
            raise
    with allraise.guard(part, "second"):
        if rank == 1:
            raise_anew()


def hook():
    def on_exception(kind, value, traceback):
        print(f"the hook of rank {rank} saw {kind.__name__}", flush=True)

    sys.excepthook = on_exception
    one()


def aborting_hook():
    """The recipe that most MPI programs have."""

    def on_exception(kind, value, traceback):
        comm.Abort(5)

    sys.excepthook = on_exception
    one()


def own_sigterm():
    """A program that handles SIGTERM itself goes on to do so."""
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    signal.raise_signal(signal.SIGTERM)
    assert faulthandler.is_enabled()
    print(f"rank {rank} handled {seen}", flush=True)
    wait()


def sigterm():
    """Say that all are there, then wait for ever."""
    comm.Barrier()
    print(f"ready {rank} {os.getpid()};", flush=True)
    if rank == 1:
        time.sleep(600)
    comm.Barrier()


def in_a_step():
    """Rank 0 waits in a collective step, which holds Python's handlers back."""
    steps = allraise.CollectiveSteps(comm)
    print(f"ready {rank} {os.getpid()};", flush=True)
    if rank == 0:
        steps.barrier()
    comm.recv(source=0)


def in_the_first_guard():
    """Rank 0 waits for the others to make a guard's communicator with it."""
    half = comm.Dup()
    with allraise.guard(comm):
        print(f"ready {rank} {os.getpid()};", flush=True)
        if rank == 0:
            with allraise.guard(half):
                pass
        comm.recv(source=0)


def finalized():
    """Fail after MPI is gone."""
    wait()
    MPI.Finalize()
    if rank == 1:
        raise ValueError("too late for MPI")


def forked():
    """A forked child ends by SIGTERM as ever, and its rank does not."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    child.start()
    child.terminate()
    child.join()
    print(f"the child of rank {rank} ended with {child.exitcode}", flush=True)
    wait()


def root_holds_the_gil():
    """Rank 0 is in C code that lets no other thread run."""
    comm.Barrier()
    if rank == 0:
        ctypes.PyDLL(None).sleep(600)
    one()


def hostile():
    if rank == 1:
        raise ValueError(
            "\x1b[2J\x1b]0;owned\x07\u202etxt\0\udcff"
            "\nTraceback (most recent call last): (RANK 5)\n<script>alert(1)</script>"
        )
    wait()


def raising(_self):
    raise KeyError("a property of the exception")


def hostile_class():
    """An exception of which hardly anything can be asked."""
    names = ["__class__", "__cause__", "__context__", "__traceback__", "__notes__"]
    members = {name: property(raising) for name in names}
    members |= {"__str__": raising, "__repr__": raising, "__bool__": raising}
    if rank == 1:
        raise type("Hostile", (Exception,), members)("hostile text")
    wait()


def hostile_exit():
    if rank == 1:
        raise type("NoCode", (SystemExit,), {"code": property(raising)})
    wait()


faults = {name: value for name, value in globals().items() if callable(value)}
faults.get(fault, nothing)()
