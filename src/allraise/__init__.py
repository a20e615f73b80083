"""One rank raises, every rank raises, and rank 0 shows every traceback.

Importing this starts no MPI and changes nothing in the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allraise.caught import agree, collect
from allraise.errors import HangError, PeerFailure, RemoteError, StepMismatchError
from allraise.exceptions import CheckpointError, CheckpointException
from allraise.guard import guard
from allraise.wrapped import WrappedException, is_wrapped_exception, wrap_exception

if TYPE_CHECKING:
    from allraise.report import Report, load_report
    from allraise.steps import CollectiveSteps

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "CheckpointException",
    "CollectiveSteps",
    "HangError",
    "PeerFailure",
    "RemoteError",
    "Report",
    "StepMismatchError",
    "WrappedException",
    "agree",
    "collect",
    "guard",
    "is_wrapped_exception",
    "load_report",
    "wrap_exception",
]


def __getattr__(name: str) -> object:
    """Bring what few jobs use when it is asked for: an import takes its time."""
    if name in {"Report", "load_report"}:
        from allraise import report

        return getattr(report, name)
    if name == "CollectiveSteps":
        from allraise import steps

        return steps.CollectiveSteps
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
