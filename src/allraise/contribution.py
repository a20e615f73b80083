"""What one rank tells the root of a failure.

Owns which failures a rank brings to the gathering: its own, and those agreed
before that it passes on or has swallowed. Knows nothing of communication.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.chains import cause_of, describe, is_a
from allraise.errors import HangError, PeerFailure
from allraise.exceptions import CheckpointException, agreed_of
from allraise.outline import outline_of
from allraise.record import FAILURE, HANG, INTERRUPTED, minimal

if TYPE_CHECKING:
    from allraise.exceptions import Agreed
    from allraise.outline import Outline
    from allraise.private import Private


# A new failure as its rank tells it; with its outline, if that is how.
Captured = tuple[Bundle, "Outline | None"]


def capture_early(
    private: Private, exc: BaseException, *, whole: bool = True
) -> Captured | None:
    """Return the record of a new failure, before its rank agrees with the others.

    Not collective. Never raises. While a rank makes its record the others may
    still be at work: made after the agreement, all would wait for it, and with
    more ranks than cores for each in turn.

    Args:
        private: This rank's side.
        exc: Its exception.
        whole: Whether its stack is to be written out in any case.

    Returns:
        None where the failure was agreed before.
    """
    if agreed_of(exc) is not None:
        return None
    rank = private.rank
    try:
        kind = kind_of(exc)
        outline = None if whole else outline_of(exc, kind)
        if outline is None:
            return Bundle.of(rank, capture(exc, kind=kind)), None
        return Bundle.of_packed(rank, outline.packed), outline
    except BaseException as error:
        return _untold(private, error), None


def contribution(
    private: Private,
    exc: BaseException | None,
    newest: int,
    captured: Bundle | None,
) -> tuple[Bundle, BaseException | None]:
    """Return what this rank knows that others may not, and its own exception.

    Not collective. Never raises: the others wait for it. Where a rank carries the last
    failure agreed here, each who failed then tells its own part again, also one that
    has swallowed it since, so that a merged report lacks nobody. Of an older one, each
    who carries it tells all it knows.

    Args:
        private: This rank's side.
        exc: This rank's exception, or None.
        newest: The token of the last failure agreed here, if a rank carries it.
        captured: What `capture_early` made of the exception, if it did.
    """
    try:
        if captured is None and exc is not None:
            early = capture_early(private, exc)
            captured = None if early is None else early[0]
        rank, retold = private.rank, None
        if private.last is not None and private.last[0] == newest > 0:
            retold = private.last[1].only(rank)
        if captured is not None:
            captured.set_age(rank, private.met_at - private.failed_at)
            # To be interrupted since is less than to have failed.
            if retold and exc is not None and kind_of(exc) == INTERRUPTED:
                return retold, exc
            return captured, exc
        return _passed_on(private, exc, retold or Bundle())
    except BaseException as error:
        return _untold(private, error), exc


def _passed_on(
    private: Private, exc: BaseException | None, retold: Bundle
) -> tuple[Bundle, BaseException | None]:
    """Return what a rank tells that has not failed anew: of what it carries, if it does."""
    agreed = None if exc is None else agreed_of(exc)
    if agreed is None or not is_a(exc, CheckpointException):
        return retold, None
    live = exc.own_exception()
    if agreed.owner is not private:
        return Bundle.merge((_from_elsewhere(private, exc, agreed), retold)), live
    if private.last is not None and agreed.token == private.last[0]:
        return retold, live
    return Bundle.merge((exc.bundle, retold)), live


def _untold(private: Private, error: BaseException) -> Bundle:
    text = f"what it knows cannot be told: {describe(error)}"
    return Bundle.of(private.rank, minimal("<unknown>", text, reason=text))


def _from_elsewhere(
    private: Private, exc: CheckpointException, agreed: Agreed
) -> Bundle:
    """Return what an outcome of another communicator tells of the ranks here.

    Also of others than this one: who failed there may have swallowed it since.
    """
    theirs = getattr(agreed.owner, "group", None)
    if theirs is None or private.group is None:  # one rank, there or here
        here = exc.bundle.only(agreed.rank, renamed=private.rank)
    else:
        from mpi4py import MPI

        names = MPI.Group.Translate_ranks(theirs, None, private.group)
        known = exc.bundle.ranks
        here = exc.bundle.among(rank for rank in known if names[rank] != MPI.UNDEFINED)
        here = here.renamed(names)
    if not here or here.without_interrupted():
        return here
    # Who has interrupted it is not of the ranks here: it alone can tell them.
    others = here.among(rank for rank in here.ranks if rank != private.rank)
    return Bundle.merge((brief(private, exc), others))


def kind_of(exc: BaseException) -> str:
    """Tell a failure from what a peer's failure, or absence, has led to.

    What was raised *from* the interruption stands for it. What was raised while it
    was handled, with it as the context, is a failure of its own: a disk that is full
    is full, also in a cleanup. So is what was raised after an agreed failure, which
    has told of its interruptions.
    """
    if issubclass(type(exc), HangError):
        return HANG
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        cls = type(link)
        if issubclass(cls, PeerFailure):
            return INTERRUPTED
        if issubclass(cls, CheckpointException):
            break
        seen.add(id(link))
        link = cause_of(link)
    return FAILURE


def brief(private: Private, exc: BaseException) -> Bundle:
    """Return what tells of a failure that was agreed elsewhere, among other ranks.

    Not collective. A line, with where it was met here and what is known of who failed.
    """
    step = exc.step if is_a(exc, CheckpointException) else ""
    text = f"step {step!r} failed on another communicator"
    # A consequence: who has failed may tell it to the ranks here as well.
    record = minimal("allraise.CheckpointException", text, INTERRUPTED)
    met = capture(exc).links[0]
    ((line,), more) = record.links[0].lines, "".join(met.lines).partition("\n")[2]
    link = record.links[0]._replace(lines=(line + more,), frames=met.frames)
    return Bundle.of(private.rank, record._replace(links=(link,)))
