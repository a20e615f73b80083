"""The private communicator, and what a rank keeps beside it.

Owns one rank's side of the protocol, around the duplicate of the user's communicator
that all traffic of allraise runs on: made collectively at the first use (`creation`),
kept on the user's communicator (`registry`) and freed with it. So our messages never
meet the user's, and the duplicate is paid for once.

Never the lowercase ``reduce``, ``allreduce``, ``scan`` and ``exscan`` of mpi4py
here: their first call hides an ``MPI_Comm_dup`` made with the GIL held (mpi4py
issue 784), which deadlocks with a thread that holds it elsewhere.
"""

from __future__ import annotations

from _thread import get_ident  # `threading` takes a millisecond to load
from array import array
from typing import TYPE_CHECKING, Any

from allraise.direct import reduction
from allraise.plain import Side

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.bundle import Bundle
    from allraise.gates import Gates

# What a region is told from others by: its step, and where it is a part of one
# of the collective steps, which; two of these that differ must not go together,
# for different collectives follow them.
Region = str | tuple[str, str]


def step_of(region: Region) -> str:
    """Return the step of a region. Not collective."""
    return region if isinstance(region, str) else region[0]


# An open region: its side, itself, its depth and its number among those in the region
# around it on this communicator; the region around it in its thread, that around it
# on this communicator; and the cell where the thread keeps its innermost (see
# `nesting`). A tuple, never changed: to open or close one is to store a reference or
# two, which takes no call, and touches little memory.
Cell = list["Opened | None"]
Opened = tuple["Private", Region, int, int, "Opened | None", "Opened | None", Cell]


# The numbers of the vector that is reduced; `verdict` says what they are.
VECTOR_LENGTH = 8


def _never() -> None:
    """Stand in for the reduction where there is nobody to agree with."""


class Private(Side):
    """One rank's side of the protocol on one communicator.

    Attributes:
        handle: Of the user's communicator.
        comm: The private duplicate; None where there is one rank, which has
            nobody to talk to.
        reduce: Reduces `mine` to `total` on it.
        rank: This rank in it, the same as in the user's communicator.
        size: Its size.
        innermost: The region here that was opened last and is open still.
        n_within: How many regions were entered within that one so far.
        thread: The number of the thread that opened a region here last.
        entered_in: An outermost region here, and
        entered: the idents of communicators within on which this rank has entered
            regions in it, or that it has revoked.
        was_nested: Whether this rank has entered a region here within one elsewhere.
        spooled: Whether a failure is written down that the peers do not know yet.
        sent: Messages of the failure path that may be under way yet.
        settled: The depth at which a failure was agreed, and the exception that
            is due there, while this rank is still deeper.
        to_free: Those that the user has freed in a region here, see
            `inside.keep_until_closed`.
        closed: Whether the user has freed the communicator, or MPI is over.
        n_failed: How many agreements ended in failure; every rank counts alike.
        failed_at: When this rank last failed, on its monotonic clock.
        met_at: When the ranks last met in an agreement that failed.
        wakes: Whether a failing rank wakes its peers here; every rank knows it
            alike (see `agreement.wake_from_now_on`).
        asking: What the innermost region asks the peers for, if it is a request of
            this rank's for `wakes` or `has_twin`: see `verdict`. Else 0.
        asks_for: What the user has called for that, if anything.
        channel: What wakes those blocked on ``g.comm`` (see `channel`, `ulfm`).
        beacon: The channel by messages, the same one but under ULFM.
        gates: The agreements as numbered gates, for those nested in a region on
            another communicator.
        has_twin: Whether a region on another communicator of the same ranks has been
            within one here; every rank knows it alike, as with `wakes`.
        watched: The sides of the open regions on other communicators that
            contain this one, innermost first.
        watched_before: What was watched around each open region that is nested in
            one elsewhere, outermost first.
        is_plain: Whether an agreement here is one Allreduce at most, which no message
            of another kind ends or passes through. From `note_plain`.
        is_reduced: Whether a compiled block (see `plain`) has done the Allreduce of
            the region that closes, with no failure here, for `agreement.leave`.
        tried: What was raised in that, or None.
        is_waiting: Whether a compiled block is in that Allreduce now.
        group: The group of the communicator.
        lifeboat: A duplicate that is never revoked, under ULFM (see `survivors`).
        last: The token of the last failure and what this rank knows of it.
        skips: Whether this rank skips something within, where this is around all
            that is open: it has failed there, or left a region that has.
        over: The depth of a failure that ends all within (see `impasse`), or 0.
    """

    __slots__ = (
        "asking",
        "asks_for",
        "beacon",
        "channel",
        "entered",
        "entered_in",
        "failed_at",
        "gates",
        "group",
        "handle",
        "has_twin",
        "last",
        "lifeboat",
        "met_at",
        "n_failed",
        "op",
        "over",
        "rank",
        "sent",
        "skips",
        "spooled",
        "to_free",
        "wakes",
        "was_nested",
        "watched",
        "watched_before",
    )

    def __init__(self, comm: Any, rank: int, size: int, op: Any = None) -> None:
        self.wakes = self.skips = self.is_reduced = False
        self.asking = 0
        self.is_waiting = False
        self.tried: BaseException | None = None
        self.over = 0
        self.asks_for = ""
        self.channel: Any = None
        self.beacon: Any = None
        self.gates: Gates | None = None
        self.has_twin = self.was_nested = False
        self.watched: tuple[Private, ...] = ()
        self.watched_before: list[tuple[Private, ...]] = []
        self.group: MPI.Group | None = None
        self.lifeboat: Any = None
        self.spooled = False
        self.closed = False
        self.to_free: list[Private] = []
        self.comm: Any = None
        self.reduce: Callable[[], object] = _never
        self.rank = rank
        self.size = size
        self.op = op
        self.handle = 0
        self.innermost: Opened | None = None
        self.n_within = 0
        self.thread = get_ident()
        self.entered_in: Opened | None = None
        self.entered: set[int] = set()
        self.settled: tuple[int, BaseException] | None = None
        self.sent: list[MPI.Request] = []
        self.n_failed = 0
        self.failed_at = self.met_at = 0.0
        self.last: tuple[int, Bundle] | None = None
        # Preallocated: the success path allocates nothing.
        self.mine = array("q", bytes(8 * VECTOR_LENGTH))
        self.total = array("q", bytes(8 * VECTOR_LENGTH))
        if comm is not None:
            self.communicate_on(comm)
        self.note_plain()

    def communicate_on(self, comm: Any, datatype: Any = None) -> None:
        """Take the communicator that agreements run on. Not collective.

        Args:
            comm: The private duplicate.
            datatype: Of a number.
        """
        self.comm = comm
        self.reduce = reduction(comm, self.mine, self.total, datatype, self.op)

    def opened(self) -> list[Opened]:
        """Return the open regions here, outermost first. Not collective."""
        found: list[Opened] = []
        opened = self.innermost
        while opened is not None:
            found.append(opened)
            opened = opened[5]
        return found[::-1]

    def note_entered(self, side: Private) -> None:
        """Note that this rank enters a region within one here. Not collective.

        What was entered before this one was open is forgotten then, so that the
        success path has nothing to clear.
        """
        region = self.opened()[0]
        if self.entered_in is not region:
            self.entered_in, self.entered = region, set()
        if side.gates is not None:
            self.entered.add(side.gates.ident)

    @property
    def depth(self) -> int:
        """How many regions are open here."""
        return 0 if self.innermost is None else self.innermost[2]

    @property
    def steps(self) -> list[Region]:
        """What each open region is, outermost first."""
        return [opened[1] for opened in self.opened()]

    @property
    def counts(self) -> list[int]:
        """The number of each open region among those in the one around it."""
        return [opened[3] for opened in self.opened()]

    def listens(self) -> bool:
        """Tell whether messages can end an agreement here, or pass through it."""
        return bool(
            self.has_twin or self.watched or (self.wakes and self.beacon.needs_relay)
        )

    def note_plain(self) -> None:
        """Work out `is_plain` anew, whenever something it depends on has changed."""
        self.is_plain = not (
            self.asking
            or self.skips
            or self.closed
            or self.to_free
            or self.watched_before
            or self.listens()
        )
