"""What an exception means that nobody caught: an exit code, and records.

Owns the questions that ``allraise run`` asks of it. Knows nothing of helper threads,
nor of how the job ends.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

from allraise.capture import capture
from allraise.errors import PeerFailure
from allraise.exceptions import CheckpointException
from allraise.parts import is_a, link_of
from allraise.publishing import write_error_stream
from allraise.record import Record
from allraise.registry import resolve_comm
from allraise.stacks import program_frames

if TYPE_CHECKING:
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


def agreed_in(exc: BaseException | None) -> CheckpointException | None:
    """Return the agreed failure that an exception is, or comes from."""
    for _ in range(_MAX_CAUSES):
        if exc is None:
            break
        if is_a(exc, CheckpointException) and exc.agreed is not None:
            return exc
        exc = link_of(exc)
    return None


def captured(exc: BaseException, kind: str = "failure") -> Record:
    """Take down an exception, the program's part of its stack."""
    if kind == "failure" and is_a(exc, PeerFailure):
        kind = "interrupted"
    # That one goes into the job's report by itself.
    record = capture(exc, kind=kind, beside=agreed_in(exc))
    top = record.links[0]
    top = top._replace(frames=program_frames(top.frames))
    return Record((top, *record.links[1:]), (), record.reasons, record.origin, kind)


def in_world(exc: CheckpointException) -> Bundle:
    """Return the failures of an agreement under their ranks in ``COMM_WORLD``."""
    agreed = exc.agreed
    private: Any = agreed.owner if agreed is not None else None
    if private is None or private.comm is None:
        own = resolve_comm(None).Get_rank()
        return exc.bundle.renamed([own])
    from mpi4py import MPI

    group, world = private.comm.Get_group(), resolve_comm(None).Get_group()
    try:
        return exc.bundle.renamed(MPI.Group.Translate_ranks(group, None, world))
    finally:
        group.Free()
        world.Free()


def call_hook(hook: Any, exc: BaseException) -> None:
    """Call the program's ``sys.excepthook``. Not collective. Never raises."""
    try:
        hook(type(exc), exc, exc.__traceback__)
    except BaseException as error:
        write_error_stream(f"sys.excepthook raised {type(error).__name__}\n")
