"""The table of operations names every method that this mpi4py has."""

from mpi4py import MPI
from standin import Regions

from allraise import operations
from allraise.interruptible import communicator


def say(*words):
    if MPI.COMM_WORLD.rank == 0:
        print(*words)


for cls in (MPI.Intracomm, MPI.Cartcomm, MPI.Graphcomm, MPI.Distgraphcomm):
    names = {name for name in dir(cls) if not name.startswith("_")}
    say("MISSING", sorted(names - operations.KNOWN))

comm = communicator(Regions(MPI.COMM_WORLD).channel)
for name in sorted(operations.KNOWN - operations.LOCAL):
    if hasattr(MPI.Intracomm, name):
        mine, plain = getattr(type(comm), name), getattr(MPI.Intracomm, name)
        if mine is plain:
            say("PLAIN", name)
for name in operations.REFUSED:
    if hasattr(MPI.Intracomm, name):
        try:
            getattr(comm, name)()
        except NotImplementedError as error:
            if name not in str(error):
                say("UNCLEAR", error)
        else:
            say("NOT REFUSED", name)
requests = {name for name in dir(MPI.Request) if not name.startswith("_")}
LOCAL = {
    "Cancel",
    "Free",
    "cancel",
    "f2py",
    "free",
    "fromhandle",
    "fromint",
    "handle",
    "py2f",
    "toint",
}
mine = type(comm.Irecv(bytearray(1), MPI.PROC_NULL))
for name in requests - LOCAL:
    if getattr(mine, name) is getattr(MPI.Request, name):
        say("PLAIN request", name)
say("ok")
