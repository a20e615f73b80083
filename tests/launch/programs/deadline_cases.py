"""A step with a time limit, in which some ranks get stuck.

Arguments: how they get stuck, which ranks (``1,2``), and options. The rank that
fails, if any, fails in the same step.
"""

import argparse
import ctypes
import sys
import threading
import time

import mpi4py

parser = argparse.ArgumentParser()
parser.add_argument("how")
parser.add_argument("stuck")
parser.add_argument("--failing", type=int, default=-1)
parser.add_argument("--level", default="multiple")
parser.add_argument("--timeout", type=float)
parser.add_argument("--all-lead", action="store_true")
parser.add_argument("--others", default="")
options = parser.parse_args()

mpi4py.rc.thread_level = options.level
from mpi4py import MPI  # noqa: E402

import allraise  # noqa: E402
from allraise import publishing  # noqa: E402

WORLD = MPI.COMM_WORLD
RAW = WORLD.Dup()
ME = WORLD.rank
STUCK = {int(rank) for rank in options.stuck.split(",") if rank}
NEXT = (ME + 1) % WORLD.size

TAG_NOTICE = 98


def sleep():
    time.sleep(1000)


def loop():
    while True:
        pass


def receive():
    RAW.recv(source=NEXT, tag=99)


def barrier():
    RAW.Barrier()


def hidden():
    RAW.allreduce(1)  # its first call makes a duplicate, holding the GIL


def held():
    ctypes.PyDLL(None).sleep(1000)


def late():
    RAW.recv(source=0, tag=TAG_NOTICE)


def inner():
    with allraise.guard(WORLD, "inner"):
        sleep()


def narrow():
    with allraise.guard(WORLD, "narrow", timeout=options.timeout):
        if ME in STUCK:
            sleep()


def leave():
    sys.exit()


def fail():
    msg = "no such mesh"
    raise ValueError(msg)


TOO_SOON = {"before": sleep, "leave": leave, "fail": fail}  # before the step


def thread():
    threading.Thread(target=sleep, name="loader", daemon=True).start()
    sleep()


def together(_guard):
    RAW.Barrier()


def on_guards_comm(guard):
    guard.comm.Barrier()


def in_guard(_guard):
    with allraise.guard(WORLD, "inner"):
        pass


def wait_for(guard, wait):
    """Meet twice; the second time the stuck ranks do not come."""
    wait(guard)
    if ME in STUCK:
        globals()[options.how]()
    wait(guard)


def tell_of_notice():
    """Have rank 0 tell who is late that it has written its line."""
    plain = publishing.write_error_stream

    def write(text):
        plain(text)
        if "waiting for rank" in text:
            for rank in STUCK:
                RAW.send(None, rank, TAG_NOTICE)

    publishing.write_error_stream = write


def lead_all():
    """Have each rank take the census itself, at once."""
    from allraise import overdue

    overdue.find_leader = lambda peers, *_: peers.private.rank


def main():
    if options.all_lead:
        lead_all()
    if options.how == "late" and ME == 0:
        tell_of_notice()
    with allraise.guard(WORLD, "first", timeout=options.timeout):
        pass
    if options.how in TOO_SOON and ME in STUCK:
        TOO_SOON[options.how]()
    if options.how == "collect":
        if ME in STUCK:
            sleep()
        failure = OSError("disk full") if options.failing == ME else None
        allraise.agree(failure, WORLD, "collected", timeout=options.timeout)
    wide = 1000.0 if options.how == "narrow" else options.timeout
    with allraise.guard(WORLD, "write", timeout=wide) as g:
        if options.others:
            wait_for(g, globals()[options.others])
        elif options.how == "narrow":
            narrow()
        elif ME in STUCK:
            globals()[options.how]()
        if options.failing == ME:
            msg = "disk full"
            raise OSError(msg)
    print(f"rank {ME} went on", flush=True)


main()
