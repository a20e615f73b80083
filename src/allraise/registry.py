"""Which communicators are accepted, and which are known already.

Owns the MPI attribute under which a rank's side of the protocol is kept on the user's
communicator, and what happens when MPI deletes it: with the communicator, or as MPI
ends.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from allraise.plain import KNOWN, RUNNING, read_handles_at

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.private import Private

_HOW = "pass an intracommunicator such as MPI.COMM_WORLD, or None for COMM_WORLD"


def resolve_comm(comm: object) -> MPI.Intracomm:
    """Return the communicator meant, or say what to pass instead.

    Not collective.

    Args:
        comm: The user's argument; None means ``COMM_WORLD``.

    Raises:
        TypeError: Not a communicator, or an intercommunicator.
        ValueError: A null communicator, or MPI is not running.
    """
    from mpi4py import MPI

    if (error := after_the_end()) is not None:
        raise error
    if comm is None:
        return MPI.COMM_WORLD  # noqa: TID251 here, and nowhere else
    if not isinstance(comm, MPI.Comm):
        msg = f"comm is a {type(comm).__name__}, not a communicator: {_HOW}"
        if isinstance(comm, str):
            msg += "; a step's name is the second argument: guard(step='write')"
        elif callable(comm) and not isinstance(comm, type):
            msg += "; as a decorator write @guard()"
        raise TypeError(msg)
    if comm == MPI.COMM_NULL:
        msg = f"comm is COMM_NULL (not a member, or freed): {_HOW}"
        raise ValueError(msg)
    if comm.Is_inter() or not isinstance(comm, MPI.Intracomm):
        msg = (
            "comm is an intercommunicator; ranks agree within one group: pass an "
            "intracommunicator, for instance intercomm.Merge()"
        )
        raise TypeError(msg)
    return comm


def after_the_end() -> ValueError | None:
    """Return what to raise where MPI does not run, or None. Not collective."""
    from mpi4py import MPI

    if MPI.Is_initialized() and not MPI.Is_finalized():
        return None
    state = "has been finalized" if MPI.Is_finalized() else "is not initialized"
    msg = f"MPI {state}: ranks can agree only between MPI_Init and MPI_Finalize"
    return ValueError(msg)


def is_not_started() -> bool:
    """Tell whether the program has not started MPI. Not collective."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is None or not mpi.Is_initialized()


_keyval: int | None = None

# `KNOWN` is an index of the attribute, by the handle of the user's communicator: MPI
# takes a quarter of a microsecond to look an attribute up, twice what all else at the
# entry of a guard takes. The delete callback keeps it true.


def register(comm: MPI.Intracomm, private: Private) -> None:
    """Keep this rank's side on the user's communicator. Not collective."""
    global _keyval  # noqa: PLW0603 one a process, made when MPI runs
    from mpi4py import MPI

    RUNNING[:] = MPI.Intracomm, MPI.COMM_WORLD  # noqa: TID251 to be found, not used
    if _keyval is None:
        world = RUNNING[1]
        offset = MPI._addressof(world) - id(world)  # noqa: SLF001 - documented
        read_handles_at(offset, MPI._sizeof(world))  # noqa: SLF001
        # No copy callback: a duplicate of the user's communicator gets a
        # private one of its own.
        _keyval = MPI.Comm.Create_keyval(delete_fn=_user_freed)
        # MPI_Finalize begins with what is kept here (MPI 4.1, 11.2.4). To ask at each
        # guard whether MPI is over would take a call.
        at_end = MPI.Comm.Create_keyval(delete_fn=_finalized)
        MPI.COMM_SELF.Set_attr(at_end, None)
    private.handle = comm.handle
    comm.Set_attr(_keyval, private)
    KNOWN[private.handle] = private


def forget(private: Private) -> None:
    """Make the communicator an unknown one again. Not collective.

    What the private communicator is, stays: it may have traffic under way, and
    MPICH delivers stale messages of a freed communicator on the next one.
    """
    private.closed = True
    if KNOWN.get(private.handle) is private:
        del KNOWN[private.handle]


def registered() -> list[Private]:
    """Return this rank's side on every communicator known. Not collective."""
    return list(KNOWN.values())


def _finalized(_comm: object, _keyval: int, _value: object) -> None:
    """Know no communicator any more; MPI calls this when it is about to end."""
    for private in registered():
        forget(private)
        private.note_plain()  # a region that is open ends by itself
        if private.beacon is not None:
            with suppress(Exception):  # MPI is to end, whatever it makes of this
                private.beacon.stop_listening()


def _user_freed(_comm: object, _keyval: int, private: Private) -> None:
    """Free the duplicate; MPI calls this when the user frees the communicator."""
    if private.closed:  # given up before
        return
    forget(private)
    from allraise.inside import free_duplicates, keep_until_closed  # which need this

    if not keep_until_closed(private):
        free_duplicates(private)


def known_private(comm: object) -> Private | None:
    """Return this rank's side where it was made once, while MPI runs.

    Not collective. Takes whatever a user may pass: what is no intracommunicator
    that has been used before is not known.
    """
    if not RUNNING:
        return None
    intracomm, world = RUNNING
    if comm is None:
        comm = world
    if isinstance(comm, intracomm):
        return KNOWN.get(comm.handle)
    return None
