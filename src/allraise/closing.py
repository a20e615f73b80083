"""How a region is closed where that takes more than one Allreduce.

Owns the way from the end of a region that did not simply go well to what its rank
raises::

    settled further out       leave without communicating
    one rank                  its failure is the outcome
    else, with signals held   record -> wake who waits -> Allreduce -> outcome
    back and room to call     | MPI fails in it: see whether a process has died

`agreement.leave` sees to the signals and the room. Knows nothing of how a region is
opened.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from allraise.chains import is_a, put_on_top
from allraise.contribution import capture_early
from allraise.errors import PeerFailure
from allraise.failing import fail_alone, fail_with_peers
from allraise.impasse import come_by, note_skip
from allraise.inside import free_duplicates
from allraise.nesting import close_region, outermost
from allraise.private import step_of
from allraise.reducing import reduce_vector
from allraise.registry import after_the_end
from allraise.spooling import keep_failure
from allraise.verdict import (
    EVERYWHERE,
    is_asked,
    is_for_twin,
    is_success,
    is_told,
    read_verdict,
)
from allraise.waking import announce, look_outside, tell_outside

if TYPE_CHECKING:
    from allraise.contribution import Captured
    from allraise.private import Opened, Private


def close_agreed(
    opened: Opened,
    exc: BaseException | None,
    place: int,
    refused: bool,  # noqa: FBT001
    is_reduced: bool,  # noqa: FBT001
) -> BaseException | None:
    """Close the innermost region, agreed with the others on how it ended.

    Collective over comm, unless a failure further out is settled.

    Args:
        opened: The region, the innermost of this thread.
        exc: What ended the region on this rank, or None.
        place: Root and ``everywhere``, from `place_of`.
        refused: Whether `exc` says that this rank's arguments were wrong.
        is_reduced: Whether the Allreduce has been done, with no failure here.

    Returns:
        What this rank must raise, or None.
    """
    private = opened[0]
    if not is_reduced:
        failed_depth, outcome = settled_for(private)
        if outcome is not None:
            _close(opened, failed_depth)
            note_skip()
            return outcome
    if private.closed and (ended := after_the_end()) is not None:
        _close(opened, None)
        return put_on_top(ended, exc)
    if private.comm is None:
        return _close_alone(opened, exc, refused=refused)
    return _agree(opened, exc, place, refused, is_reduced)


def settled_for(private: Private) -> tuple[int | None, BaseException | None]:
    """Return what is settled here or around, while this rank is on its way there.

    Not collective. The depth is None where it is another communicator's.
    """
    if private.settled is not None:
        return private.settled
    for side in private.watched:
        if side.settled is not None:
            return None, side.settled[1]
    return None, None


def close_broken(
    opened: Opened, exc: BaseException | None, error: BaseException
) -> BaseException:
    """Close the region in which MPI itself failed: there is no agreement."""
    from allraise.survivors import end_if_died

    end_if_died(opened[0], exc, error)
    _close(opened, None)
    return error


def overlap(opened: Opened, exc: BaseException | None) -> BaseException:
    """Return the outcome of a region that the one around it has not waited for.

    Not collective: on each rank where this one has ended first, it is so here too;
    the others learn that they stand at different steps.
    """
    msg = (
        f"the guard of step {step_of(opened[1])!r} ends after one that was entered "
        "before it, in the same thread. Guards nest, so that all ranks end them in "
        "one order: put one guard around coroutines that run at the same time, or "
        "around the loop over a generator, and none in them"
    )
    return put_on_top(RuntimeError(msg), exc)


def _close_alone(
    opened: Opened, exc: BaseException | None, *, refused: bool
) -> BaseException | None:
    """Close a region on a communicator of one rank."""
    private = opened[0]
    # A region around this one has failed: that passes, as it does where there
    # are more ranks here.
    woken = is_a(exc, PeerFailure) and outermost() is not None
    if exc is not None and not refused and not woken:
        exc = fail_alone(private, exc)
    _close(opened, None)
    if exc is not None:
        note_skip()
    return exc


def _agree(
    opened: Opened,
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
    private = opened[0]
    captured, late = None, None
    try:
        woke = private.wakes
        if not is_reduced:
            is_outermost = opened[4] is None or outermost() is private
            captured = _prepare(opened, exc, place, is_outermost, refused=refused)
            if is_outermost:
                exc = come_by(private, exc)
            before = exc
            exc, late = reduce_vector(opened, exc, place, refused)
            if exc is not before:
                captured = None
        if is_asked(private):
            exc, late = _answer(opened, exc, late, place, refused)
            woke = True
        if is_success(private):
            failure = None
            if is_told(private):
                private.beacon.flush()
            _close(opened, None)
        else:
            woke = woke or is_told(private)
            verdict = read_verdict(private)
            failure = fail_with_peers(
                private, exc, verdict, captured=captured, refused=refused, woke=woke
            )
            private.settled = (verdict.depth, failure)
            _close(opened, verdict.depth)
            note_skip()
    except PeerFailure as woken:
        # A region around this one, on another communicator, has failed. The
        # other ranks here learn it too, and nobody waits for this one.
        tell_outside(private)
        _close(opened, None)
        note_skip()
        return woken if exc is None else exc
    except BaseException as error:
        raise close_broken(opened, exc, error)  # noqa: B904 it is the same one
    if late is not None:
        raise late
    return failure


def _answer(
    opened: Opened,
    exc: BaseException | None,
    late: BaseException | None,
    place: int,
    refused: bool,  # noqa: FBT001 as it came
) -> tuple[BaseException | None, BaseException | None]:
    """Do the reduction again, after one in which a peer asked for something.

    Collective over comm. Nobody had failed; if this rank was not asking itself, its
    agreement is to come. Once a communicator, so its price does not count.

    Returns:
        What `reduce_vector` returns.
    """
    private = opened[0]
    while True:
        if is_for_twin(private):
            private.beacon.flush()  # a rank may have told where it stands besides
        if private.asking:
            return exc, late
        if late is not None:
            exc = late  # whatever a signal's handler raised is a failure by then
            is_outermost = opened[4] is None or outermost() is private
            _prepare(opened, exc, place, is_outermost, refused=False)
        exc, late = reduce_vector(opened, exc, place, refused)
        if not is_asked(private):  # a peer may ask for more, while this rank waits here
            return exc, late


def _prepare(
    opened: Opened,
    exc: BaseException | None,
    place: int,
    is_outermost: bool,  # noqa: FBT001
    *,
    refused: bool,
) -> Captured | None:
    """Look whether this rank is to agree here; wake those who wait for it.

    Not collective.

    Returns:
        The record of its failure, made while nobody waits for this rank alone.

    Raises:
        PeerFailure: A region around this one has failed.
    """
    private = opened[0]
    if private.watched:
        look_outside(private)
    if exc is None:
        return None
    if not is_outermost:
        note_skip()
    private.failed_at = time.monotonic()
    private.spooled = keep_failure(opened[1], exc)
    if private.wakes:
        announce(private)
    if refused:
        return None
    return capture_early(private, exc, whole=bool(place & EVERYWHERE))


def _close(opened: Opened, failed_depth: int | None) -> None:
    """Forget the innermost region; past the failed one all count anew, alike."""
    private, _, depth, number, *_ = opened
    if failed_depth == depth:
        private.settled = None
        number = 0
    private.over = 0
    close_region(opened, n_within=number)
    if private.to_free and private.innermost is None:
        kept, private.to_free = private.to_free, []
        for side in kept:
            # Whatever MPI makes of it: the outcome of the region matters more.
            with suppress(Exception):
                free_duplicates(side)
