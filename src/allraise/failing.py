"""What the ranks of a communicator do once they know that one has failed.

Owns the way from the verdict to what each rank raises::

    records -> gather to the root -> a summary down to every rank -> outcome

Knows nothing of how the verdict came about, nor of open regions.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from allraise.bundle import Bundle
from allraise.contribution import brief, contribution
from allraise.exceptions import Agreed, CheckpointException
from allraise.gathering import gather_bundle, spread_bytes
from allraise.lane import UNKNOWN
from allraise.mismatch import explain_mismatch, position_of, stand_of
from allraise.parts import describe
from allraise.private import step_of
from allraise.record import FAILURE, INTERRUPTED, dump_plain, load_plain, minimal
from allraise.spooling import discard_failure
from allraise.verdict import EVERYWHERE, Verdict, severity_of, token_of
from allraise.waking import clear

if TYPE_CHECKING:
    from allraise.private import Private


def fail_alone(private: Private, exc: BaseException) -> BaseException:
    """Make the outcome on a communicator of one rank."""
    if token_of(private, exc):
        return exc
    private.n_failed += 1
    private.met_at = private.failed_at = time.monotonic()
    own, live = contribution(private, exc, 0, None)
    own.settle_ages(time.time())
    bundle = own if own.ranks else brief(private, exc)
    agreed = Agreed(private.n_failed, private, 0)
    return _outcome(step_of(private.steps[-1]), bundle, severity_of(exc), live, agreed)


def fail_with_peers(
    private: Private,
    exc: BaseException | None,
    verdict: Verdict,
    *,
    captured: Bundle | None,
    refused: bool,
    woke: bool,
) -> BaseException:
    """Bring the failures together, and make what this rank raises.

    Collective over comm, right after an agreement that is no success.

    Args:
        private: This rank's side.
        exc: This rank's exception, or None.
        verdict: What was agreed.
        captured: What `capture_early` made of the exception.
        refused: Whether this rank's arguments were refused.
        woke: Whether ranks that had failed before have woken their peers.

    Returns:
        What this rank must raise.
    """
    # All ranks leave the reduction within microseconds, whatever their clocks
    # say. So failures are dated by how long before that they were.
    private.met_at = time.monotonic()
    if woke:
        clear(private, verdict.depth)
    failure = _fail(private, exc, verdict, captured, refused=refused)
    if private.spooled:
        private.spooled = False
        discard_failure()
    return failure


def _fail(
    private: Private,
    exc: BaseException | None,
    verdict: Verdict,
    captured: Bundle | None,
    *,
    refused: bool,
) -> BaseException:
    """Find out what failed, and make what this rank raises.

    Collective over comm.
    """
    if exc is not None and refused and verdict.minus_refused:
        return exc  # every rank's arguments were refused: each says why
    private.n_failed += 1
    agreed = Agreed(private.n_failed, private, private.rank)
    if not verdict.severity:
        return _mismatch(private, verdict, agreed)
    if exc is not None and 0 < verdict.token_high == -verdict.minus_token_low:
        return exc  # every rank carries it: it is passed on, not wrapped again
    if refused and exc is not None:
        # Raised in a check of ours: what is wrong is the line that called it.
        captured = Bundle.of(private.rank, stand_of(exc, FAILURE))
    own, live = contribution(private, exc, verdict.token_high, captured)
    if private.asks_for and not own.ranks:
        # It is to be told with those who were waiting on g.comm already.
        woken = private.beacon.interruption(UNKNOWN, private.asks_for)
        own = Bundle.of(private.rank, stand_of(woken, INTERRUPTED))
    root = verdict.root
    gathered = _gather(private, own, root)
    step, data = _spread(private, gathered, verdict)
    if not data:
        # Nobody who passed a failure on had failed: what they know is all.
        if exc is not None:
            own = brief(private, exc)
        gathered = _gather(private, own, root)
        step, data = _spread(private, gathered, verdict)
    if private.rank == root:
        bundle, where = gathered, ""
    else:
        # Most often the root's is the only one that is read. And while many ranks of a
        # core read theirs, the root waits for its turn.
        mine = None if verdict.everywhere else own
        rank = private.rank
        bundle = Bundle.later(lambda: _known(data, mine, rank))
        where = "" if verdict.everywhere else _where(private, root)
    private.last = (agreed.token, bundle)
    made = _outcome(step, bundle, verdict.severity, live, agreed)
    made.locate(private.size, where)
    return made


def _known(data: bytes, own: Bundle | None, rank: int) -> Bundle:
    """Return what a rank knows, of what the root has told and of its own."""
    try:
        told = Bundle.decode(data)
        if own is None or rank not in own.ranks:
            return told
        mine = own.only(rank)
        # That it was interrupted is less than what others tell of it.
        return Bundle.merge((mine.without_interrupted(), told, mine))
    except Exception as error:  # nobody is to be left without a report for that
        text = f"what the root told cannot be read: {describe(error)}"
        told = Bundle.of(rank, minimal("<unknown>", text, reason=text))
        return told if own is None else Bundle.merge((own, told))


def _gather(private: Private, own: Bundle, root: int) -> Bundle:
    """Bring the failures together, dated on the root's clock.

    Collective over comm.
    """
    gathered = gather_bundle(private, own, root)
    met = time.time() - (time.monotonic() - private.met_at)
    for bundle in (gathered, own):
        bundle.settle_ages(met)
    return gathered


def _where(private: Private, root: int) -> str:
    return f"rank {root} of {private.size} has the whole report"


def _spread(private: Private, gathered: Bundle, verdict: Verdict) -> tuple[str, bytes]:
    """Tell every rank the step that failed and what it may know.

    Collective over comm.
    """
    data = b""
    if private.rank == verdict.root:
        step = step_of(private.steps[verdict.depth - 1])
        try:
            told = gathered
            if not verdict.everywhere:
                told = gathered.summarise(_where(private, verdict.root))
            data = dump_plain((step, told.encode() if told.ranks else b""))
        except BaseException as error:
            # The others wait for this broadcast; the root has its report.
            reason = f"the root could not tell: {error!r:.200}"
            told = Bundle.of(verdict.root, minimal("<unknown>", reason))
            data = dump_plain((step, told.encode()))
    step, data = load_plain(spread_bytes(private, data, verdict.root))
    return step, data


def _mismatch(
    private: Private, verdict: Verdict, agreed: Agreed
) -> CheckpointException:
    """Make the outcome where nobody failed but the ranks stand apart.

    Collective over comm.
    """
    own = Bundle.of(
        private.rank,
        position_of(private.steps[-1], private.depth, private.counts[-1]),
    )
    gathered = gather_bundle(private, own, verdict.root)
    if private.rank == verdict.root:
        gathered = explain_mismatch(gathered)
    # The table is for everybody, whatever the ranks asked for.
    told_all = verdict._replace(place=verdict.place | EVERYWHERE)
    step, data = _spread(private, gathered, told_all)
    bundle = Bundle.decode(data)
    private.last = (agreed.token, bundle)
    made = _outcome(step, bundle, 1, None, agreed)
    # One rank prints all of it, whoever knows it.
    where = "" if private.rank == verdict.root else _where(private, verdict.root)
    made.locate(private.size, where, is_whole=True)
    return made


def _outcome(
    step: str,
    bundle: Bundle,
    severity: int,
    live: BaseException | None,
    agreed: Agreed,
) -> CheckpointException:
    """Make the exception, caused by this rank's own."""
    made = CheckpointException.from_bundle(
        step, bundle, ordinary=severity <= 1, live=live, agreed=agreed
    )
    if live is not None:
        made.__cause__ = live
    return made
