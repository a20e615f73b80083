"""The protocol: whether a region failed, where, and who raises what.

Owns the agreement of the ranks of one communicator. Knows exceptions and
records; knows nothing of with statements. One region, entry to exit::

    enter    counts and depth; raises what is settled
    (user)
    leave    Allreduce(MAX) of eight int64                    every rank, always
             | nobody failed, all at one step: return         the success path
             | else, with room to call and signals held back, see `closing`:
             | all carry one agreed failure: pass it on
             | else capture -> gather to the root -> a summary for all
             |      -> each stack to the root, once, where it lacks it
             outcome: one CheckpointException a rank

**Nested regions cannot deadlock each other.** They share the private
communicator, so a rank that fails in the outer region before it reaches the
inner one meets the others' inner agreement in the same Allreduce. Let d be the
outermost depth at which any rank stands. A rank that stands deeper keeps the
outcome as *settled*: it leaves its inner regions without communicating, enters
no new one, and at its region of depth d raises what is settled, even if code in
between swallowed it. Without this rule one in four random programs deadlocks.
"""

from __future__ import annotations

from _thread import get_ident
from functools import cache
from sys import getrecursionlimit, setrecursionlimit
from typing import TYPE_CHECKING

from allraise.chains import is_a, is_of_mpi, put_on_top
from allraise.exceptions import CheckpointException
from allraise.nesting import (
    cell_here,
    close_region,
    contains,
    cut_back,
    innermost,
    is_nested,
    is_part,
    is_within,
    note_nested,
    open_sides,
)
from allraise.plain import OPEN, PENDING
from allraise.signals import (
    ENDLESS,
    MAX_TRIES,
    ROOMS,
    STACK_ROOM,
    signals_held_back,
    take_room_back,
)
from allraise.verdict import FOR_TWIN, TO_WAKE, succeeds
from allraise.waking import look_outside, tell_outside

if TYPE_CHECKING:
    from types import ModuleType

    from mpi4py import MPI

    from allraise.private import Opened, Private, Region


def enter(private: Private, region: Region, *, looks: bool = True) -> Opened:
    """Open a region.

    Not collective.

    Args:
        private: This rank's side.
        region: What the region is.
        looks: Whether to look first if a region around has failed. Not where the
            others count on this rank to come.

    Returns:
        What `leave` wants to know of it.

    Raises:
        BaseException: The outcome of a failure further out that is settled,
            while this rank is on its way there. It opens nothing.
    """
    thread = get_ident()
    try:
        cell = OPEN[thread]
    except KeyError:
        cell = cell_here()
    settled = private.settled
    if settled is not None and private.depth >= settled[0]:
        raise settled[1]
    around = cell[0]
    nested = around is not None and is_nested(private, around)
    if nested and (private.size > 1 or is_part(private)):
        prepare_nested(private.size, private.group)
    outer, number = private.innermost, private.n_within + 1
    depth = 1 if outer is None else outer[2] + 1
    opened = (private, region, depth, number, around, outer, cell)
    # From here no call, and so no signal's handler, but for a region within another:
    # it is open, or it is not.
    private.innermost = cell[0] = opened
    private.n_within = 0
    private.thread = thread
    if nested:
        note_nested(private)
    if private.watched and looks:
        try:
            look_outside(private)
        except BaseException:
            tell_outside(private)  # nobody is to wait for this rank within
            close_region(opened, n_within=number - 1)
            raise
    return opened


def prepare_nested(size: int, group: MPI.Group | None) -> None:
    """Let a region open within those that are open.

    Collective over the communicator of the innermost one, at the first region
    within one there; else not collective.

    Raises:
        BaseException: What `wake_from_now_on` raises.
    """
    if not is_within(size, group):
        return  # its other ranks know nothing of the regions here: it comes first
    around = innermost()
    if around is None:
        return
    # It must be able to wake this rank. Those further out were asked then.
    wake_from_now_on(around)
    for side in dict.fromkeys(open_sides()):
        # Some of its ranks may come to stand within it in a region of these ranks, and
        # others in it alone.
        is_new = side.size == size and side.group is not group and not side.has_twin
        if is_new and contains(side, group):
            wake_from_now_on(side, is_twin=True)


def wake_from_now_on(
    private: Private, operation: str = "", *, is_twin: bool = False
) -> None:
    """Let a failing rank wake its peers on this communicator from now on.

    Collective over comm at its first use on a communicator, not collective
    afterwards. A failing rank tells nobody before that, so that a failure costs
    no message where nobody could be blocked. A rank asks when it first takes
    ``g.comm``, or first enters a region within one on this communicator; the
    others answer wherever they come to agree: at a guard's end they agree again
    afterwards, and a rank that has failed before is met here, and not waited for.

    Args:
        private: This rank's side.
        operation: What the user asked for, if anything, to be told as interrupted.
        is_twin: Whether to ask for `Private.has_twin`, too.

    Raises:
        PeerFailure: A rank has failed instead of coming here, and the user asked.
        BaseException: What was agreed instead, or is settled: the peers that are
            on their way out are not to be waited for.
    """
    _, due = _load_closing().settled_for(private)
    if due is not None:
        raise due
    if (private.has_twin if is_twin else private.wakes) or private.comm is None:
        return
    if private.asking:
        return  # it is the region here of an ask that is to open
    try:
        private.asking, private.asks_for = FOR_TWIN if is_twin else TO_WAKE, operation
        opened = enter(private, "")
        private.note_plain()
        outcome = leave(opened, None, 0)
    finally:
        private.asking, private.asks_for = 0, ""
        private.note_plain()
    if outcome is not None:
        if operation and is_a(outcome, CheckpointException):
            raise private.beacon.interruption(outcome.ranks[0], operation)
        raise outcome
    private.n_within -= 1  # others may not have asked


@cache
def _load_closing() -> ModuleType:
    """Return `closing`, which was loaded when the side was made.

    See `arguments.private_of`. Once: an import statement takes as long as ten calls
    where many ranks share a core and each finds nothing in the caches.
    """
    from allraise import closing

    return closing


def leave(  # noqa: C901, PLR0912, PLR0915 one piece, as signals may come with each call
    opened: Opened,
    exc: BaseException | None,
    place: int,
    *,
    refused: bool = False,
) -> BaseException | None:
    """Close a region, and agree on how it ended.

    Collective over comm, unless a failure further out is settled.

    Args:
        opened: The region, as `enter` returned it. Those within that a signal's
            handler has kept from closing are forgotten.
        exc: What ended the region on this rank, or None.
        place: Root and ``everywhere``, from `place_of`.
        refused: Whether `exc` says that this rank's arguments were wrong.

    Returns:
        What this rank must raise: ``exc`` itself where that is the agreed
        failure already, or where every rank's arguments were refused; None if
        no rank failed.
    """
    private, region, depth, number, around, outer, cell = opened
    late, outcome, is_begun, has_room, n_tries = None, None, False, False, 0
    # What a compiled block has come to, see `plain`.
    is_reduced, tried = private.is_reduced, private.tried
    private.is_reduced, private.tried = False, None
    if is_reduced and exc is not None:
        late, exc = exc, None  # a signal's handler has raised since
    if not is_reduced:
        private.total[0] = PENDING
    try:
        if (
            exc is None
            and tried is None
            and not is_reduced
            and private.is_plain
            and private.settled is None
            and private.innermost is cell[0] is opened
        ):
            if private.comm is None or succeeds(private, region, depth, number, place):
                # No call and no loop here, so no signal's handler in between.
                private.innermost, private.n_within, cell[0] = outer, number, around
                return None
            is_reduced = True
    except BaseException as error:
        is_reduced, tried = private.total[0] != PENDING, error
    # The others may be waiting for this rank by now: neither the end of the stack
    # nor a signal's handler may throw it out before it has agreed.
    ROOMS.n_open += 1
    try:
        while not is_begun:
            try:
                if not has_room:
                    # By C code alone: `enter` came as far, but no call of a
                    # function in Python did.
                    with ROOMS.lock:
                        limit = getrecursionlimit()
                        has_room = True
                        if limit < ENDLESS:
                            ROOMS.n_given += 1
                            setrecursionlimit(limit + STACK_ROOM)
                if tried is not None and not is_of_mpi(tried):
                    if is_a(tried, RecursionError):
                        pass  # it has room from here
                    elif is_reduced:
                        late = tried
                    else:
                        exc, refused = put_on_top(tried, exc), False
                    tried = None
                closing = _load_closing()
                if not private.innermost is cell[0] is opened and not cut_back(opened):
                    outcome = closing.overlap(opened, exc)
                    break
                with signals_held_back():
                    is_begun = True
                    outcome = (
                        closing.close_agreed(opened, exc, place, refused, is_reduced)
                        if tried is None
                        else closing.close_broken(opened, exc, tried)
                    )
            except BaseException as error:
                n_tries += 1
                if is_begun or n_tries > MAX_TRIES:
                    if outcome is not None:
                        put_on_top(error, outcome)
                    raise
                tried = error
    finally:
        ROOMS.n_open -= 1
        private.is_plain = False  # so that the next agreement here comes by
        try:
            if take_room_back():
                private.note_plain()
        except BaseException as error:  # of a signal's handler
            put_on_top(error, outcome)
            raise
    if late is not None:
        raise late if outcome is None else put_on_top(late, outcome)
    return outcome
