"""Whether ranks that hang can be woken, so that the job need not be ended.

Owns the conditions. Where every missing rank is blocked on ``g.comm``, those that
have arrived can wake it, as a failing rank would; then all ranks raise.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from allraise.own import is_own_file

if TYPE_CHECKING:
    from allraise.private import Private

# What a rank is in that is blocked on ``g.comm``, or on a request made there.
_LANE: Final = frozenset(
    str(Path(__file__).with_name(f"{name}.py"))
    for name in (
        "interruptible",
        "messaging",
        "probing",
        "methods",
        "objects",
        "pending",
        "ulfm",
        "several",
        "waits",
    )
)


def _may_call_mpi() -> bool:
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Query_thread() == mpi.THREAD_MULTIPLE


def is_wakeable(private: Private, thread: int) -> bool:
    """Whether a thread is blocked on the communicator that the channel wakes."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 the documented way
    inside = False
    while frame is not None and is_own_file(frame.f_code.co_filename):
        inside = inside or frame.f_code.co_filename in _LANE
        frame = frame.f_back
    return inside and private.channel is not None and _may_call_mpi()


def may_wake(private: Private) -> bool:
    """Whether a helper thread may use the channel of a rank that has arrived.

    Its main thread does not, unless it waits for regions around this one too.
    """
    listens = private.watched or private.has_twin
    return private.channel is not None and not listens and _may_call_mpi()
