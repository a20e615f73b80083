"""The protocol: whether a region failed, where, and who raises what.

Owns the agreement of the ranks of one communicator. Knows exceptions and
records; knows nothing of with statements. One region, entry to exit::

    enter    counts and depth; raises what is settled
    (user)
    leave    Allreduce(MAX) of eight int64                    every rank, always
             | nobody failed, all at one step: return         the success path
             | all carry one agreed failure: pass it on
             | else capture -> gather to the root -> bcast a summary
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

import time
from typing import TYPE_CHECKING

from allraise.contribution import capture_early
from allraise.errors import PeerFailure
from allraise.failing import fail_alone, fail_with_peers
from allraise.impasse import come_by, note_skip
from allraise.nesting import (
    OPEN,
    close_region,
    cut_back,
    innermost,
    is_within,
    open_nested,
    outermost,
)
from allraise.parts import is_a, is_of_mpi, put_on_top
from allraise.private import step_of
from allraise.signals import room_on_the_stack, signals_held_back
from allraise.spooling import keep_failure
from allraise.verdict import (
    is_asked,
    is_success,
    is_told,
    read_verdict,
    reduce_vector,
    succeeds,
    was_reduced,
)
from allraise.waking import announce, look_outside, tell_outside

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.bundle import Bundle
    from allraise.private import Private, Region


def enter(private: Private, region: Region) -> int:
    """Open a region.

    Not collective.

    Returns:
        Its depth, which `leave` wants to know.

    Raises:
        BaseException: The outcome of a failure further out that is settled,
            while this rank is on its way there. It opens nothing.
    """
    settled = private.settled
    if settled is not None and len(private.steps) >= settled[0]:
        raise settled[1]
    regions = OPEN.regions
    if not regions or regions[-1] is private:
        regions += (private,)
    else:
        prepare_nested(private.size, private.group)
        open_nested(private)
    if private.watched:
        try:
            look_outside(private)
        except BaseException:
            tell_outside(private)  # nobody is to wait for this rank within
            close_region(private)
            raise
    private.counts[-1] += 1
    private.counts += (0,)
    private.steps += (region,)
    return len(private.steps)


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
    if around is not None and size > 1:
        # It must be able to wake this rank. Those further out were asked then.
        wake_from_now_on(around)


def wake_from_now_on(private: Private) -> None:
    """Let a failing rank wake its peers on this communicator from now on.

    Collective over comm at its first use on a communicator, not collective
    afterwards. A failing rank tells nobody before that, so that a failure costs
    no message where nobody could be blocked. A rank asks when it first takes
    ``g.comm``, or first enters a region within one on this communicator; the
    others answer wherever they come to agree: at a guard's end they agree again
    afterwards, and a rank that has failed before is met here, and not waited for.

    Raises:
        BaseException: What was agreed instead, or is settled: the peers that are
            on their way out are not to be waited for.
    """
    _, due = _settled(private)
    if due is not None:
        raise due
    if private.wakes or private.comm is None:
        return
    depth = enter(private, "")
    private.asking = True
    private.note_plain()
    try:
        outcome = leave(private, depth, None, 0)
    finally:
        private.asking = False
        private.note_plain()
    if outcome is not None:
        raise outcome
    private.counts[-1] -= 1  # others may not have asked


def leave(  # noqa: C901, PLR0912 in one piece, as signals may come with each call
    private: Private,
    depth: int,
    exc: BaseException | None,
    place: int,
    *,
    refused: bool = False,
) -> BaseException | None:
    """Close a region, and agree on how it ended.

    Collective over comm, unless a failure further out is settled.

    Args:
        private: This rank's side.
        depth: Of the region, as `enter` told it. Those within that a signal's
            handler has kept from closing are forgotten.
        exc: What ended the region on this rank, or None.
        place: Root and ``everywhere``, from `place_of`.
        refused: Whether `exc` says that this rank's arguments were wrong.

    Returns:
        What this rank must raise: ``exc`` itself where that is the agreed
        failure already, or where every rank's arguments were refused; None if
        no rank failed.
    """
    is_reduced, tried = False, None
    regions = OPEN.regions
    if len(private.steps) != depth or regions[-1] is not private:
        cut_back(private, depth)
    if exc is None and private.is_plain and private.settled is None:
        try:
            if succeeds(private, depth, place):
                # No call and no loop here, so no signal's handler in between.
                del private.steps[-1], private.counts[-1], regions[-1]
                return None
            is_reduced = True
        except BaseException as error:
            is_reduced, tried = was_reduced(private), error
    else:
        failed_depth, outcome = _settled(private)
        if outcome is not None:
            _close(private, failed_depth)
            note_skip()
            return outcome
        if private.comm is None:
            return _leave_alone(private, exc, refused=refused)
    # More than one Allreduce. No call before the signals are held back, and another
    # try where one has come: the others may be waiting for this rank by now.
    late, is_begun, outcome = None, False, None
    while not is_begun:
        try:
            if tried is not None and not is_of_mpi(tried):
                if is_reduced:
                    late = tried
                elif not is_a(tried, RecursionError):  # it has room from here
                    exc, refused = put_on_top(tried, exc), False
                tried = None
            with room_on_the_stack(), signals_held_back():
                is_begun = True
                if tried is not None:
                    raise _of_mpi(private, exc, tried)
                outcome = _agree(private, exc, place, refused, is_reduced)
        except BaseException as error:
            if is_begun:
                raise
            tried = error
    if late is not None:
        raise late
    return outcome


def _of_mpi(
    private: Private, exc: BaseException | None, error: BaseException
) -> BaseException:
    """Close the region in which MPI itself failed: there is no agreement."""
    from allraise.survivors import end_if_died

    end_if_died(private, exc, error)
    _close(private, None)
    return error


def _agree(
    private: Private,
    exc: BaseException | None,
    place: int,
    refused: bool,  # noqa: FBT001
    is_reduced: bool,  # noqa: FBT001
) -> BaseException | None:
    """Agree on how the innermost region ended, and close it.

    Collective over comm, with signals held back.

    Returns:
        What this rank must raise, or None.
    """
    captured, late = None, None
    try:
        woke = private.wakes
        if not is_reduced:
            captured = _prepare(private, exc, refused=refused)
            if outermost() is private:
                exc = come_by(private, exc)
            before = exc
            exc, late = reduce_vector(private, exc, place, refused)
            if exc is not before:
                captured = None
        if is_asked(private) and not private.asking:
            exc, late = _reduce_again(private, exc, late, place, refused)
            woke = True
        if is_success(private):
            failure = None
            if is_told(private):
                private.beacon.flush()
            _close(private, None)
        else:
            woke = woke or is_told(private)
            verdict = read_verdict(private)
            failure = fail_with_peers(
                private, exc, verdict, captured=captured, refused=refused, woke=woke
            )
            private.settled = (verdict.depth, failure)
            _close(private, verdict.depth)
            note_skip()
    except PeerFailure as woken:
        # A region around this one, on another communicator, has failed. The
        # other ranks here learn it too, and nobody waits for this one.
        tell_outside(private)
        _close(private, None)
        note_skip()
        return woken if exc is None else exc
    except BaseException as error:
        raise _of_mpi(private, exc, error)  # noqa: B904 it is the same one
    if late is not None:
        raise late
    return failure


def _reduce_again(
    private: Private,
    exc: BaseException | None,
    late: BaseException | None,
    place: int,
    refused: bool,  # noqa: FBT001 as it came
) -> tuple[BaseException | None, BaseException | None]:
    """Do the reduction again, after one in which a peer asked to be woken.

    Collective over comm. Nobody had failed, and this rank was not asking: its
    agreement is to come. Once a communicator, so its price does not count.

    Returns:
        What `reduce_vector` returns.
    """
    if late is not None:
        exc = late  # whatever a signal's handler raised is a failure by then
        _prepare(private, exc, refused=False)
    return reduce_vector(private, exc, place, refused)


def _settled(private: Private) -> tuple[int | None, BaseException | None]:
    """Return what is settled here or around, while this rank is on its way there.

    Not collective. The depth is None where it is another communicator's.
    """
    if private.settled is not None:
        return private.settled
    for side in private.watched:
        if side.settled is not None:
            return None, side.settled[1]
    return None, None


def _prepare(
    private: Private, exc: BaseException | None, *, refused: bool
) -> Bundle | None:
    """Look whether this rank is to agree here; wake those who wait for it.

    Not collective.

    Returns:
        The record of its failure, made while nobody waits for this rank alone.

    Raises:
        PeerFailure: A region around this one has failed.
    """
    if private.watched:
        look_outside(private)
    if exc is None:
        return None
    if outermost() is not private:
        note_skip()
    private.failed_at = time.monotonic()
    private.spooled = keep_failure(step_of(private.steps[-1]), exc)
    if private.wakes:
        announce(private)
    return None if refused else capture_early(private, exc)


def _close(private: Private, failed_depth: int | None) -> None:
    """Forget the innermost region; past the failed one all count anew, alike."""
    if failed_depth == len(private.steps):
        private.settled = None
        private.counts[-2] = 0
    del private.steps[-1], private.counts[-1]
    private.over = 0
    close_region(private)


def _leave_alone(
    private: Private, exc: BaseException | None, *, refused: bool
) -> BaseException | None:
    """Close a region on a communicator of one rank."""
    # A region around this one has failed: that passes, as it does where there
    # are more ranks here.
    woken = is_a(exc, PeerFailure) and outermost() is not private
    if exc is not None and not refused and not woken:
        with room_on_the_stack():
            exc = fail_alone(private, exc)
    _close(private, None)
    if exc is not None:
        note_skip()
    return exc
