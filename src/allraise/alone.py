"""``g.comm`` where there is one rank: nobody to wait for, nobody to be woken by.

Owns the methods that ``g.comm`` has beyond mpi4py's. It shares the handle of the
guard's communicator, so what a rank sends to itself on either can be received on the
other; with more ranks it cannot.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI

WAITS = ("Waitall", "Waitany", "Waitsome", "waitall", "waitany", "waitsome")


def communicator_of_one(comm: MPI.Intracomm) -> MPI.Intracomm:
    """Return ``g.comm`` of a guard on a communicator of one rank. Not collective."""
    comm = getattr(comm, "plain", comm)  # made of another g.comm
    base: type = type(comm)
    found: MPI.Intracomm = _class(base)(comm)
    return found


@functools.cache
def _class(base: type) -> Any:
    from mpi4py import MPI

    namespace: dict[str, Any] = {
        n: staticmethod(getattr(MPI.Request, n)) for n in WAITS
    }
    namespace["__doc__"] = f"A {base.__name__} of one rank, as `g.comm` is."
    return type(f"Lone{base.__name__}", (base,), namespace)
