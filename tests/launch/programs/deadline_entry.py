"""What the first region with a time limit meets, and what it leaves behind."""

import sys
import threading

from mpi4py import MPI

import allraise

WORLD = MPI.COMM_WORLD
ME = WORLD.rank


def threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("allraise")]


def expect(kind, function):
    try:
        function()
    except allraise.CheckpointException as error:
        report = str(error.report)
        assert kind in report, report
    else:
        print("WRONG nothing was raised", flush=True)
        sys.exit(1)


def failed_further_out():
    with allraise.guard(WORLD, "outer"):
        if ME == 0:
            msg = "before the first time limit"
            raise OSError(msg)
        with allraise.guard(WORLD, "inner", timeout=1000.0):
            pass


def only_some():
    with allraise.guard(WORLD, "write", timeout=1000.0 if ME else None):
        pass


def some_later():
    for limit in (1000.0 if ME else None, None if ME else 1000.0):
        with allraise.guard(WORLD, "mixed", timeout=limit):
            pass


def split():
    half = WORLD.Split(ME % 2)
    for _ in range(3):
        with (
            allraise.guard(WORLD, "whole", timeout=1000.0),
            allraise.guard(half, "half", timeout=500.0),
        ):
            pass
        allraise.agree(None, half, timeout=1000)
    half.Free()


with allraise.guard(WORLD, "without"):
    pass
assert threads() == [], threads()
if WORLD.size > 1:
    expect("before the first time limit", failed_further_out)
    assert allraise.collect(None, WORLD) is None
    expect("ranks met at different steps", only_some)
for _ in range(100):
    with allraise.guard(WORLD, "with", timeout=1000.0):
        pass
assert threads() == ["allraise deadline"], threads()
some_later()
split()
if ME == 0:
    print("ok", flush=True)
