"""How a rank waits for the first of several requests.

Owns the choice between two ways, of which each is right for one family of MPIs::

    Open MPI           Waitany            gives the processor away while it waits
    MPICH, Intel MPI   Testany, yield     their Waitany never does (their Wait does)

Measured with an ``Ibarrier`` and a receive, on 2 cores, microseconds each:

    ranks                     2       4       8
    MPICH 5.0.2, Waitany    1.3    5116   23440
    MPICH 5.0.2, yielding   1.9      19      95
    MPICH 5.0.2, Barrier    2.8      26      91

Not collective.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from allraise.plain import N_LOOKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

_LOOK_BEFORE: Final = range(N_LOOKS)

# For each way to wait the way to look, whether something was found, and what the
# former would have returned then.
_LOOKS: Final[dict[str, tuple[str, Callable[[Any], bool], Callable[[Any], Any]]]] = {
    "Waitany": ("Testany", lambda found: found[1], lambda found: found[0]),
    "waitany": ("testany", lambda found: found[1], lambda found: (found[0], found[2])),
    "Waitsome": ("Testsome", lambda found: found != [], lambda found: found),
    "waitsome": ("testsome", lambda found: found[0] != [], lambda found: found),
}


@cache
def way_to(name: str) -> Callable[..., Any]:
    """Return how to wait as mpi4py's ``Waitany``, ``waitsome`` and so on do.

    Not collective. What is returned takes requests and a status, as mpi4py's.
    """
    from mpi4py import MPI

    if _yields():
        return getattr(MPI.Request, name)  # type: ignore[no-any-return]
    if name == "Waitany":
        return _yielding_any(MPI.Request.Testany)
    return _yielding(*way_to_look(name))


@cache
def way_to_look(
    name: str,
) -> tuple[Callable[..., Any], Callable[[Any], bool], Callable[[Any], Any]]:
    """Return how to look whether what mpi4py's ``Waitany`` and so on wait for is there.

    Not collective.

    Returns:
        The look; whether something was found, of what it returns; and what the wait
        would have returned then.
    """
    from mpi4py import MPI

    look, *of_found = _LOOKS[name]
    return getattr(MPI.Request, look), *of_found


def _yields() -> bool:
    """Tell whether this MPI gives the core away itself, or there is none at all."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is None or mpi.get_vendor()[0] == "Open MPI"


def receive(comm: MPI.Intracomm, source: int, tag: int) -> Any:
    """Receive an object as ``comm.recv`` does.

    Not collective. mpi4py waits in ``MPI_Mprobe``, in which MPICH keeps the core.
    """
    if _yields():
        return comm.recv(None, source, tag)
    while (message := comm.improbe(source, tag)) is None:
        os.sched_yield()
    return message.recv()


def be_as_deep() -> int:
    """Call as deep as who waits in Python. Not collective.

    Raises:
        RecursionError: It cannot.
    """
    return sys.getrecursionlimit()


def be_as_deep_at_a_gate() -> int:
    """Call as deep as who waits at a gate in `passage`. Not collective.

    What follows behind the gate counts on that: the others do on this rank.

    Raises:
        RecursionError: It cannot.
    """
    return _within_a_method()


def _within_a_method() -> int:
    return be_as_deep()


def _yielding_any(look: Callable[..., tuple[int, bool]]) -> Callable[..., int]:
    """As the other one, without the calls: every ``g.comm`` operation waits here."""

    def wait_any(requests: Any, status: Any = None) -> int:
        for _ in _LOOK_BEFORE:
            place, is_done = look(requests, status)
            if is_done:
                return place
        while True:
            os.sched_yield()
            place, is_done = look(requests, status)
            if is_done:
                return place

    return wait_any


def _yielding(
    look: Callable[..., Any],
    is_found: Callable[[Any], bool],
    result_of: Callable[[Any], Any],
) -> Callable[..., Any]:
    def wait(requests: Any, status: Any = None) -> Any:
        n_looks = 0
        while not is_found(found := look(requests, status)):
            n_looks += 1
            if n_looks >= N_LOOKS:
                os.sched_yield()
        return result_of(found)

    return wait
