"""The way of a block in which nobody fails.

Owns what such a block touches, and nothing else: of a rank's side of the protocol
(`Side`), of a guard (`Block`), of threads and of steps; what a gate of ``g.comm``
touches; and, compiled alone, what a rank notes first that fails with an exception of
Python's own. What is done with it is told by `agreement` and `passage`. Twice there is one
of each:

    here      plain classes; a guard does all in Python
    _plain    the same ones, compiled (from _plain.c and what that names) where there was
              a compiler at install: a `Block` is made, enters and exits by itself, as
              long as nothing is special, and calls `guard` where something is

The compiled ones take a third of the time at most (docs/performance.md), and leave a
signal's handler no place between the block and its agreement. `ALLRAISE_PURE=1` does
without. Not collective.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import starmap
from typing import TYPE_CHECKING, Any, Final

from allraise.settings import is_pure

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.private import Cell, Private, Region

# The innermost open region of each thread, by the thread's number. Not a
# `threading.local`: on a core that other ranks have used meanwhile that takes four
# times as long. A thread that gets the number of one that has ended finds an empty
# cell, for what that one opened, it closed.
OPEN: dict[int, Cell] = {}

# This rank's side on each communicator that is known, by the handle of the user's; see
# `registry`.
KNOWN: dict[int, Private] = {}

# While one is: the type of communicators, and COMM_WORLD.
RUNNING: list[Any] = []

# The timeout where none is given, once that was looked up; see `arguments`.
DEFAULT: list[float | None] = []

# The number of each step seen. A dict and not `functools.lru_cache`, whose call takes
# longer than all of this.
HASHES: dict[Region, int] = {}

# Where in its place in the vector the depth stands; see `verdict`.
PLACE_BITS: Final = 33

# Of the number that tells steps apart: above the count, the depth.
COUNT_BITS: Final = 40

# A severity that no rank sends: the reduction has not happened yet.
PENDING: Final = -1


class Side:
    """What a plain block touches of a rank's side; `Private` tells what each is."""

    __slots__ = (
        "closed",
        "comm",
        "innermost",
        "is_plain",
        "is_reduced",
        "is_waiting",
        "mine",
        "n_within",
        "reduce",
        "settled",
        "size",
        "thread",
        "total",
        "tried",
    )


class Block:
    """What a plain block touches of a guard, which tells what each is."""

    __slots__ = ("_comm", "_entered", "_place", "_private", "_step", "_timeout")

    _comm: MPI.Intracomm | None
    _entered: tuple[Any, Any] | None
    _place: int
    _private: Private | None
    _step: str
    _timeout: float | None


class LaneState:
    """What a gate looks at of a lane, which tells what each is."""

    __slots__ = ("enclosing", "failed", "generation", "standing")

    enclosing: tuple[Any, ...]
    failed: bool
    generation: int
    standing: Any


class StandingState:
    """What a gate looks at of where others stand."""

    __slots__ = ("is_active",)

    is_active: bool


class GateCount:
    """How many gates this process has entered on one communicator."""

    __slots__ = ("entered",)

    entered: int


class Signature:
    """The signature of a class whose ``__init__`` is a block's, to be inspected."""

    __slots__ = ("_written",)

    def __init__(self, written: Callable[..., None]) -> None:
        self._written = written  # what is called where anything is special

    def __get__(self, instance: object, owner: type) -> object:
        if instance is not None or owner.__init__ is not Block.__init__:  # type: ignore[misc]
            raise AttributeError(name="__signature__", obj=owner)
        import inspect  # here: it takes a tenth of the import of allraise

        found = inspect.signature(self._written)
        return found.replace(
            parameters=list(found.parameters.values())[1:],
            return_annotation=inspect.Signature.empty,
        )


def agree_plainly(*_arguments: object) -> Any:
    """Open a region and close it, agreed, if nothing about it is special.

    Collective over comm.

    Args:
        _arguments: `agreement.leave`, for what goes wrong; comm, step, root,
            everywhere, timeout and exc, as a user has given them.

    Returns:
        What `agreement.leave` returned, or None as it would; ``NotImplemented`` if
        nothing was done, so always where nothing is compiled.
    """
    return NotImplemented


# Looks before others are given the core: with a core for each rank, all have come
# within that time, some three microseconds.
N_LOOKS: Final = 8

_LOOKS: Final = range(N_LOOKS)
_ONE_CALL: Final = ((),)  # to `starmap`: a call without arguments


def begin_gate(start: Callable[[], MPI.Request], watched: list[MPI.Request]) -> bool:
    """Start a gate, note it, and look whether it has opened.

    Collective over the communicator of the gate.

    Args:
        start: Starts it.
        watched: Gets the request, by C code and an operation that is no call: so no
            signal's handler comes in between.

    Returns:
        Whether all ranks have entered it already.
    """
    watched += starmap(start, _ONE_CALL)
    look = watched[0].Test
    for _ in _LOOKS:  # noqa: SIM110 each call of a generator costs as much as a look
        if look():
            return True
    return False


def tell_plainly(*_arguments: object) -> Any:
    """Take down a plain exception that stands alone. Not collective.

    Args:
        _arguments: The exception; the types that may be plain; the folder of allraise;
            the source files that are known; a hash; ``pickle.dumps``; what notes where
            the source of a file is.

    Returns:
        Its name, message, pickle, fingerprint and places, see `outline`; None if
        anything is special about it, so always where nothing is compiled.
    """
    return None


def call_directly(cls: type[Any]) -> type[Any]:
    """Have a class of blocks called without its arguments packed. Not collective."""
    return cls


def read_handles_at(_offset: int, _width: int) -> None:
    """Say where in a communicator of mpi4py's its handle is. Not collective.

    Args:
        _offset: So many bytes into the object.
        _width: Of how many bytes.
    """


# There only where they are compiled: calls of MPI's own functions, see `direct`; and
# methods, see `methods`.
Reduction: Any = None
Entry: Any = None
Look: Any = None
Turnstile: Any = None
Gated: Any = None
Broadcast: Any = None

# Of the compiled part. In an editable install it may be of another day.
REVISION: Final = 16

IS_COMPILED = False

if not TYPE_CHECKING and not is_pure():
    with suppress(ImportError):
        from allraise import _plain

        if getattr(_plain, "REVISION", 0) == REVISION:
            OPEN, HASHES, KNOWN = _plain.OPEN, _plain.HASHES, _plain.KNOWN
            RUNNING, DEFAULT = _plain.RUNNING, _plain.DEFAULT
            Block, Side = _plain.Block, _plain.Side
            agree_plainly, begin_gate = _plain.agree_plainly, _plain.begin_gate
            Reduction, Entry, Look = _plain.Reduction, _plain.Entry, _plain.Look
            LaneState, StandingState = _plain.LaneState, _plain.StandingState
            GateCount = _plain.GateCount
            Turnstile, Gated = _plain.Turnstile, _plain.Gated
            Broadcast = _plain.Broadcast
            tell_plainly, call_directly = _plain.tell_plainly, _plain.call_directly
            read_handles_at = _plain.read_handles_at
            IS_COMPILED = True
