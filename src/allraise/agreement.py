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

from allraise.bundle import Bundle
from allraise.contribution import brief, contribution
from allraise.exceptions import Agreed, CheckpointException, PeerFailure
from allraise.gathering import gather_bundle, spread_bytes
from allraise.mismatch import explain_mismatch, position_of
from allraise.nesting import close_region, enclosing, is_nested, open_region, outermost
from allraise.record import dump_plain, load_plain, minimal
from allraise.signals import room_on_the_stack, signals_held_back
from allraise.spool import discard_failure, keep_failure
from allraise.survivors import end_if_died
from allraise.verdict import (
    EVERYWHERE,
    Verdict,
    read_verdict,
    reduce_vector,
    severity_of,
    token_of,
)
from allraise.waking import announce, clear, look_outside, tell_outside

if TYPE_CHECKING:
    from allraise.private import Private, Region


def enter(private: Private, region: Region) -> None:
    """Open a region.

    Not collective.

    Raises:
        BaseException: The outcome of a failure further out that is settled,
            while this rank is on its way there. It opens nothing.
    """
    settled = private.settled
    if settled is not None and len(private.steps) >= settled[0]:
        raise settled[1]
    if is_nested(private):
        # What is around must be able to wake this rank here.
        for side in reversed(enclosing(private.group, private)):
            wake_from_now_on(side)
    open_region(private)
    if private.watched:
        try:
            look_outside(private)
        except BaseException:
            tell_outside(private)  # nobody is to wait for this rank within
            close_region(private)
            raise
    private.counts[-1] += 1
    private.counts.append(0)
    private.steps.append(region)


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
    enter(private, "")
    private.asking = True
    try:
        outcome = leave(private, None, 0)
    finally:
        private.asking = False
    if outcome is not None:
        raise outcome
    private.counts[-1] -= 1  # others may not have asked


def leave(
    private: Private, exc: BaseException | None, place: int, *, refused: bool = False
) -> BaseException | None:
    """Close the region that was opened last, and agree on how it ended.

    Collective over comm, unless a failure further out is settled.

    Args:
        private: This rank's side.
        exc: What ended the region on this rank, or None.
        place: Root and ``everywhere``, from `place_of`.
        refused: Whether `exc` says that this rank's arguments were wrong.

    Returns:
        What this rank must raise: ``exc`` itself where that is the agreed
        failure already, or where every rank's arguments were refused; None if
        no rank failed.
    """
    if private.settled is not None or private.watched:
        depth, outcome = _settled(private)
        if outcome is not None:
            _close(private, depth)
            return outcome
    if private.comm is None:
        return _leave_alone(private, exc, refused=refused)
    try:
        if private.watched or exc is not None:
            _look_around(private, exc)
        exc, interruption, woke = _reduce(private, exc, place, refused=refused)
    except PeerFailure as woken:
        # A region around this one, on another communicator, has failed. The
        # other ranks here learn it too, and nobody waits for this one.
        tell_outside(private)
        _close(private, None)
        return woken if exc is None else exc
    except BaseException as error:  # MPI itself failed: there is no agreement
        end_if_died(private, exc, error)
        _close(private, None)
        raise
    # Severity 0 and one hash: nobody failed, and all stand at one step. Read in
    # place, for this is every guard that goes well.
    total = private.total
    if total[0] == 0 and (total[3] == -total[4] or private.asking):
        _close(private, None)
        failure = None
    else:
        with room_on_the_stack(), signals_held_back():
            verdict = read_verdict(private)
            failure = _fail_with_peers(
                private, exc, verdict, refused=refused, woke=woke
            )
            private.settled = (verdict.depth, failure)
            _close(private, verdict.depth)
    if interruption is not None:
        raise interruption
    return failure


def _reduce(
    private: Private, exc: BaseException | None, place: int, *, refused: bool
) -> tuple[BaseException | None, BaseException | None, bool]:
    """Do the reduction; once more where a peer only asked to be woken.

    Collective over comm.

    Returns:
        What `reduce_vector` returns, and whether a rank that had failed before it
        has woken its peers.
    """
    woke = private.wakes
    try:
        exc, late = reduce_vector(private, exc, place, refused=refused)
    except RecursionError:  # of this rank, before it could send anything
        with room_on_the_stack():
            exc, late = reduce_vector(private, exc, place, refused=refused)
    total = private.total
    if not total[7]:
        return exc, late, woke
    private.wakes = True
    if total[0] or private.asking:
        return exc, late, woke
    # Nobody has failed, and this rank was not asking: its agreement is to come.
    if late is not None:
        exc = late  # whatever a signal's handler raised is a failure by then
        _look_around(private, exc)
    with room_on_the_stack():  # once a communicator: its price does not count
        return *reduce_vector(private, exc, place, refused=refused), True


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


def _look_around(private: Private, exc: BaseException | None) -> None:
    """Wake those who wait for this rank, unless it is itself to leave.

    Not collective.

    Raises:
        PeerFailure: A region around this one has failed.
    """
    with room_on_the_stack():
        if private.watched:
            look_outside(private)
        if exc is not None:
            private.failed_at = time.monotonic()
            private.spooled = keep_failure(_step_of(private.steps[-1]), exc)
            if private.wakes:
                announce(private)


def _close(private: Private, failed_depth: int | None) -> None:
    """Forget the innermost region; past the failed one all count anew, alike."""
    if failed_depth == len(private.steps):
        private.settled = None
        private.counts[-2] = 0
    private.steps.pop()
    private.counts.pop()
    close_region(private)


def _leave_alone(
    private: Private, exc: BaseException | None, *, refused: bool
) -> BaseException | None:
    """Close a region on a communicator of one rank."""
    # A region around this one has failed: that passes, as it does where there
    # are more ranks here.
    woken = isinstance(exc, PeerFailure) and outermost() is not private
    if exc is not None and not refused and not woken:
        with room_on_the_stack():
            exc = _fail_alone(private, exc)
    _close(private, None)
    return exc


def _fail_alone(private: Private, exc: BaseException) -> BaseException:
    """Make the outcome on a communicator of one rank."""
    if token_of(private, exc):
        return exc
    private.n_failed += 1
    private.met_at = private.failed_at = time.monotonic()
    own, live = contribution(private, exc, 0)
    own.settle_ages(time.time())
    bundle = own if own.ranks else brief(private, exc)
    agreed = Agreed(private.n_failed, private, 0)
    return _outcome(_step_of(private.steps[-1]), bundle, severity_of(exc), live, agreed)


def _fail_with_peers(
    private: Private,
    exc: BaseException | None,
    verdict: Verdict,
    *,
    refused: bool,
    woke: bool,
) -> BaseException:
    """Do as `_fail`, and end the job where a process dies meanwhile.

    Collective over comm.
    """
    # All ranks leave the reduction within microseconds, whatever their clocks
    # say. So failures are dated by how long before that they were.
    private.met_at = time.monotonic()
    try:
        if woke:
            clear(private, verdict.depth)
        failure = _fail(private, exc, verdict, refused=refused)
        if private.spooled:
            private.spooled = False
            discard_failure()
        return failure
    except BaseException as error:  # MPI itself failed: there is no report
        end_if_died(private, exc, error)
        _close(private, None)
        raise


def _fail(
    private: Private, exc: BaseException | None, verdict: Verdict, *, refused: bool
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
    own, live = contribution(private, exc, verdict.token_high)
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
        bundle = Bundle.decode(data)
        where = "" if verdict.everywhere else _where(private, root)
        if private.rank in own.ranks and not verdict.everywhere:
            mine = own.only(private.rank)
            # That it was interrupted is less than what others tell of it.
            bundle = Bundle.merge((mine.without_interrupted(), bundle, mine))
    private.last = (agreed.token, bundle)
    made = _outcome(step, bundle, verdict.severity, live, agreed)
    made.locate(private.size, where)
    return made


def _gather(private: Private, own: Bundle, root: int) -> Bundle:
    """Bring the failures together, dated on the root's clock.

    Collective over comm.
    """
    gathered = gather_bundle(private, own, root)
    met = time.time() - (time.monotonic() - private.met_at)
    for bundle in (gathered, own):
        bundle.settle_ages(met)
    return gathered


def _step_of(region: Region) -> str:
    return region if isinstance(region, str) else region[0]


def _where(private: Private, root: int) -> str:
    return f"rank {root} of {private.size} has the whole report"


def _spread(private: Private, gathered: Bundle, verdict: Verdict) -> tuple[str, bytes]:
    """Tell every rank the step that failed and what it may know.

    Collective over comm.
    """
    data = b""
    if private.rank == verdict.root:
        step = _step_of(private.steps[verdict.depth - 1])
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
        position_of(private.steps[-1], len(private.steps), private.counts[-2]),
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
    made.locate(private.size, "")
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
