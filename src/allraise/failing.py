"""What the ranks of a communicator do once they know that one has failed.

Owns the way from the verdict to what each rank raises::

    records -> gather to the root -> a summary down to every rank
            -> from some ranks the stack, where the root lacks it -> outcome

Knows nothing of how the verdict came about, nor of open regions.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from allraise.bundle import Bundle
from allraise.chains import describe
from allraise.contribution import brief, contribution
from allraise.exceptions import Agreed, CheckpointException
from allraise.gathering import (
    complete_outlines,
    gather_bundle,
    ranks_to_ask,
    send_whole,
    spread_bytes,
)
from allraise.lane import UNKNOWN
from allraise.mismatch import explain_mismatch, position_of, stand_of
from allraise.private import step_of
from allraise.record import FAILURE, INTERRUPTED, minimal
from allraise.spooling import discard_failure
from allraise.summary import read_summary, summarise, summarise_one
from allraise.verdict import EVERYWHERE, Verdict, severity_of, token_of
from allraise.waking import clear
from allraise.wire import dump_plain, load_plain

if TYPE_CHECKING:
    from allraise.contribution import Captured
    from allraise.outline import Outline
    from allraise.private import Private


def fail_alone(private: Private, exc: BaseException) -> BaseException:
    """Make the outcome on a communicator of one rank."""
    if token_of(private, exc):
        return exc
    private.n_failed += 1
    private.met_at = private.failed_at = time.monotonic()
    own, live = contribution(private, exc, 0, None)
    own.settle_ages(time.time())
    bundle = own or brief(private, exc)
    agreed = Agreed(private.n_failed, private, 0)
    return _outcome(step_of(private.steps[-1]), bundle, severity_of(exc), live, agreed)


def fail_with_peers(
    private: Private,
    exc: BaseException | None,
    verdict: Verdict,
    *,
    captured: Captured | None,
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
    captured: Captured | None,
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
        captured = Bundle.of(private.rank, stand_of(exc, FAILURE)), None
    known, outline = captured or (None, None)
    own, live = contribution(private, exc, verdict.token_high, known)
    if outline is not None and verdict.everywhere:
        # Asked for at another guard than the one that this rank stood at.
        with suppress(Exception):  # no memory: the others wait, and may ask for it
            own = own.reshaped(outline.whole_while_others_wait())
            outline = None
    if private.asks_for and not own:
        # It is to be told with those who were waiting on g.comm already.
        woken = private.beacon.interruption(UNKNOWN, private.asks_for)
        own = Bundle.of(private.rank, stand_of(woken, INTERRUPTED))
    step, bundle, where = _bring_together(private, exc, own, outline, verdict)
    private.last = (agreed.token, bundle)
    made = _outcome(step, bundle, verdict.severity, live, agreed)
    made.locate(private.size, where)
    return made


def _bring_together(
    private: Private,
    exc: BaseException | None,
    own: Bundle,
    outline: Outline | None,
    verdict: Verdict,
) -> tuple[str, Bundle, str]:
    """Gather the failures on the root, and tell the others.

    Collective over comm.

    Args:
        private: This rank's side.
        exc: This rank's exception, or None.
        own: What this rank tells of it.
        outline: That of its own failure, if that is how it is told.
        verdict: What was agreed.

    Returns:
        The step, what this rank knows, and who knows more, in words.
    """
    root, whole = verdict.root, {}
    if private.rank == root and outline is not None:
        # Now, for the others are on their way still.
        whole = outline.whole_while_others_wait()
    gathered = _gather(private, own, root)
    step, data, asked = _spread(private, gathered, verdict, outline)
    if not data:
        # Nobody who passed a failure on had failed: what they know is all.
        if exc is not None:
            own = brief(private, exc)
        gathered = _gather(private, own, root)
        step, data, _ = _spread(private, gathered, verdict)
    elif private.rank == root:
        gathered = complete_outlines(private, gathered, whole, asked)
    elif private.rank in asked:
        send_whole(private, outline, root)
    if private.rank == root:
        return step, gathered, ""
    # Most often the root's is the only one that is read. And while many ranks of a
    # core read theirs, the root waits for its turn.
    rank, mine = private.rank, own
    where = _where(private, root)
    if verdict.everywhere:
        where, mine = "", Bundle()
    known = Bundle.later(lambda: _known(data, mine, rank, outline, where))
    return step, known, where


def _known(
    data: bytes, own: Bundle, rank: int, outline: Outline | None, where: str
) -> Bundle:
    """Return what a rank knows, of what the root has told and of its own."""
    if outline is not None:
        own = own.reshaped(outline.whole())
    try:
        if not where:
            return Bundle.decode(data)
        told = read_summary(data, where)
        if rank not in own.ranks:
            return told
        mine = own.only(rank)
        # That it was interrupted is less than what others tell of it.
        failures = mine.without_interrupted(), told.without_interrupted()
        return Bundle.merge((*failures, mine, told))
    except Exception as error:  # nobody is to be left without a report for that
        text = f"what the root told cannot be read: {describe(error)}"
        told = Bundle.of(rank, minimal("<unknown>", text, reason=text))
        return Bundle.merge((own, told))


def _gather(private: Private, own: Bundle, root: int) -> Bundle:
    """Bring the failures together, dated on the root's clock.

    Collective over comm.
    """
    gathered = gather_bundle(private, own, root)
    met = time.time() - (time.monotonic() - private.met_at)
    own.settle_ages(met)
    if private.rank == root:
        gathered.settle_ages(met)
    return gathered


def _where(private: Private, root: int) -> str:
    return f"rank {root} of {private.size} has the whole report"


def _spread(
    private: Private,
    gathered: Bundle,
    verdict: Verdict,
    outline: Outline | None = None,
) -> tuple[str, bytes, tuple[int, ...]]:
    """Tell every rank the step that failed and what it may know.

    Collective over comm.

    Returns:
        The step, what is told, and the ranks that the root asks for their stack.
    """
    data, root = b"", verdict.root
    if private.rank == root:
        # What this rank asks for is no step, but a part of the one around.
        is_in_step = private.depth > verdict.depth or not private.asking
        step = step_of(private.steps[verdict.depth - (1 if is_in_step else 2)])
        try:
            asked = ranks_to_ask(private, gathered, outline)
            if verdict.everywhere:
                told = gathered.encode() if gathered else b""
            else:
                told = summarise(gathered)
            data = dump_plain((step, told, asked))
        except BaseException as error:
            # The others wait for this broadcast; the root has its report.
            reason = f"the root could not tell: {error!r:.200}"
            if verdict.everywhere:
                told = Bundle.of(root, minimal("<unknown>", reason)).encode()
            else:
                told = summarise_one(root, "<unknown>", reason)
            data = dump_plain((step, told, ()))
    step, data, asked = load_plain(spread_bytes(private, data, root))
    return step, data, asked


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
    step, data, _ = _spread(private, gathered, told_all)
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
