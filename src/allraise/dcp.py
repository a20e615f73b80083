"""The private names of ``torch.distributed.checkpoint``, over MPI.

Owns nothing: code that was written on torch's names runs on MPI by changing one
import, ``from allraise.dcp import _DistWrapper``. A process group is a
communicator here, a rank is a rank of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allraise.exceptions import CheckpointException
from allraise.private import Private
from allraise.registry import resolve_comm
from allraise.steps import CollectiveSteps
from allraise.wrapped import WrappedException
from allraise.wrapped import is_wrapped_exception as _is_wrapped_exception
from allraise.wrapped import wrap_exception as _wrap_exception

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = [
    "WRAPPED_EXCEPTION",
    "CheckpointException",
    "_DistWrapper",
    "_get_failure_dict",
    "_is_wrapped_exception",
    "_wrap_exception",
]

WRAPPED_EXCEPTION = WrappedException


def _get_failure_dict(results: list[Any]) -> dict[int, WrappedException]:
    """Return the wrapped exceptions among the results, by position.

    Not collective.
    """
    return {
        rank: result
        for rank, result in enumerate(results)
        if _is_wrapped_exception(result)
    }


class _DistWrapper(CollectiveSteps):
    """`CollectiveSteps` with torch's constructor.

    Args:
        group: The communicator; None for ``COMM_WORLD``.
        use_dist: Whether to communicate at all. If not, this is rank 0 of 1,
            and MPI is not started.
        coordinator_rank: The coordinator's rank in the group.
    """

    def __init__(
        self,
        group: MPI.Intracomm | None,
        use_dist: bool,  # noqa: FBT001 torch's signature
        coordinator_rank: int,
    ) -> None:
        self.group = group
        self.use_dist = use_dist
        if use_dist:
            super().__init__(group, coordinator_rank)
            self.global_coordinator_rank = self._in_world(coordinator_rank)
        else:
            self._begin(Private(None, 0, 1), 0)
            # Torch keeps what it was given, and is the coordinator all the same.
            self.coordinator_rank = coordinator_rank
            self.global_coordinator_rank = 0

    def _in_world(self, rank: int) -> int:
        world = resolve_comm(None)
        if self.group is None:
            return rank
        theirs, ours = self.group.Get_group(), world.Get_group()
        try:
            return theirs.Translate_ranks([rank], ours)[0]
        finally:
            theirs.Free()
            ours.Free()
