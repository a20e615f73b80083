"""What an exception means that nobody caught: an exit code, and records.

Owns the questions that ``allraise run`` asks of it. Knows nothing of helper threads,
nor of how the job ends.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

from allraise.capture import capture
from allraise.chains import cause_of, context_of, is_a, is_context_hidden
from allraise.errors import PeerFailure
from allraise.exceptions import CheckpointException, agreed_of
from allraise.findings import (
    HANDLED_PARTIAL,
    HANDLED_WHOLE,
    OWN,
    PART,
    PARTIAL,
    WHOLE,
    Finding,
)
from allraise.publishing import write_error_stream
from allraise.ranks import RankSet
from allraise.record import Record
from allraise.registry import resolve_comm
from allraise.stacks import without_launcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from allraise.bundle import Bundle

# A chain of causes that is looked through for a failure that was agreed.
_MAX_CAUSES: Final = 100


def exit_code(exc: BaseException) -> int:
    """Return the code that an uncaught exception ends the job with."""
    if is_a(exc, SystemExit):
        try:
            code: object = exc.code  # which a class may have made a property
        except Exception:
            return 1
        if code is None:
            return 0
        return code if isinstance(code, int) else 1
    if is_a(exc, KeyboardInterrupt):
        return 128 + signal.SIGINT
    if is_a(exc, CheckpointException):
        names = {record.links[0].type_name for _, record in exc.bundle.records()}
        if names == {"KeyboardInterrupt"}:
            return 128 + signal.SIGINT
    return 1


def shell_code(code: int) -> int:
    """Return the code as a shell sees it: its low byte, but not 0 for a failure."""
    return (code & 0xFF) or 1


def passed_on(exc: BaseException) -> CheckpointException | None:
    """Return the agreed failure that an exception is, or was raised from.

    Not one that was only being handled: what is raised then is a failure by itself.
    But to exit is a decision, and was made because of what was being handled.
    """
    link: BaseException | None = exc
    for _ in range(_MAX_CAUSES):
        if link is None:
            break
        if is_a(link, CheckpointException) and agreed_of(link) is not None:
            return link
        above, link = link, cause_of(link)
        if link is None and is_a(above, SystemExit):
            link = _context(above)
    return None


def _handled(exc: BaseException) -> Iterator[CheckpointException]:
    """Go through the agreed failures that an exception tells of in its chain."""
    link: BaseException | None = exc
    for _ in range(_MAX_CAUSES):
        if link is None:
            break
        if is_a(link, CheckpointException) and agreed_of(link) is not None:
            yield link
        above, link = link, cause_of(link)
        if link is None:
            link = _context(above)


def _context(exc: BaseException) -> BaseException | None:
    """Return what was being handled, unless the program asked not to tell it."""
    return None if is_context_hidden(exc) else context_of(exc)


def findings_of(
    exc: BaseException, rank: int, own: Callable[[Record], Bundle]
) -> tuple[str, list[Finding]]:
    """Return the step that an uncaught exception tells of, and what it tells.

    Not collective.

    Args:
        exc: The exception.
        rank: This rank, in ``COMM_WORLD``.
        own: Makes the bundle of a record of this rank.
    """
    passed = passed_on(exc)
    found = []
    if passed is not None:
        known, name = _in_world(passed)
        found.append(Finding(PARTIAL if passed.is_partial else WHOLE, known, name))
        if passed.is_partial and rank in known.ranks:
            found.append(Finding(PART, known.only(rank), name))
    if exc is not passed:
        record = captured(exc)
        if passed is not None and rank in known.ranks:
            record = _cut(record, passed)
        found.append(Finding(OWN, own(record)))
    for handled in _handled(exc):
        if handled is not passed:
            known, name = _in_world(handled)
            what = HANDLED_PARTIAL if handled.is_partial else HANDLED_WHOLE
            found.append(Finding(what, known, name))
    return (passed.step if passed is not None else ""), found


def _cut(record: Record, passed: CheckpointException) -> Record:
    """End a chain at the failure that was agreed: it is told by itself."""
    brief = capture(passed, beside=passed).links[0].lines
    for position, link in enumerate(record.links):
        if link.members is not None:  # the links beyond are not all below it
            break
        if link.lines == brief:
            last = link._replace(cause=-1, context=-1)
            return record._replace(links=(*record.links[:position], last))
    return record


def captured(exc: BaseException, kind: str = "failure") -> Record:
    """Take down an exception, the program's part of its stack."""
    if kind == "failure" and is_a(exc, PeerFailure):
        kind = "interrupted"
    # That one goes into the job's report by itself.
    record = capture(exc, kind=kind, beside=next(_handled(exc), None))
    top = record.links[0]
    top = top._replace(frames=without_launcher(top.frames))
    return Record((top, *record.links[1:]), (), record.reasons, record.origin, kind)


def _in_world(exc: CheckpointException) -> tuple[Bundle, str]:
    """Return the failures of an agreement under their ranks in ``COMM_WORLD``.

    And a name of the agreement, alike on all its ranks.
    """
    agreed = agreed_of(exc)
    private: Any = agreed.owner if agreed is not None else None
    number = agreed.token if agreed is not None else 0
    if private is None or private.comm is None:
        names = [resolve_comm(None).Get_rank()]
    else:
        from mpi4py import MPI

        group, world = private.comm.Get_group(), resolve_comm(None).Get_group()
        try:
            names = MPI.Group.Translate_ranks(group, None, world)
        finally:
            group.Free()
            world.Free()
    return exc.bundle.renamed(names), f"{number} of {RankSet(names)}: {exc.step}"


def call_hook(hook: Any, exc: BaseException) -> None:
    """Call the program's ``sys.excepthook``. Not collective. Never raises."""
    try:
        hook(type(exc), exc, exc.__traceback__)
    except BaseException as error:
        write_error_stream(f"sys.excepthook raised {type(error).__name__}\n")
