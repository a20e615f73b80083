"""Torch's collective steps over an MPI communicator: a function, or all raise.

Owns `CollectiveSteps`. The semantics are those of ``_DistWrapper`` of
``torch.distributed.checkpoint.utils`` (PyTorch 2.13). Where that deadlocks or
loses the error (a value that cannot be pickled, a reduce list of the wrong
length, a map that returns a wrapped pair), this raises the right
`CheckpointException` on every rank.

Each step is a row of regions, each closed by an agreement, so that values move
only when every rank is known to be there with its bytes ready::

    map, pickle  --agree--  gather  --  reduce, pickle  --agree--  scatter  --  ...
    (every rank)                        (the coordinator)

    ...  --  unpickle  --agree-- return
             (every rank)
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, TypeVar, cast

from allraise.agreement import enter, leave
from allraise.arguments import check_arguments, check_step, locate, refuse
from allraise.verdict import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.private import Private, Region

T = TypeVar("T")
R = TypeVar("R")


class CollectiveSteps:
    """Steps that every rank takes together, each of which ends alike everywhere.

    Every method that takes a step is collective over comm, and raises
    `CheckpointException` on every rank if any rank failed in it: ``failures``
    is complete on every rank, its keys are ranks of comm, ascending. A failure
    of the coordinator's part is keyed by the coordinator.

    Args:
        comm: The ranks; None for ``COMM_WORLD``.
        coordinator_rank: Its rank in comm: the one that reduces, broadcasts and
            scatters.

    Raises:
        TypeError: On every rank that passes the wrong kind of argument.
        ValueError: On every rank whose argument cannot be.

    Attributes:
        rank: This rank in comm.
        coordinator_rank: The coordinator's.
        is_coordinator: Whether they are the same.
    """

    def __init__(
        self, comm: MPI.Intracomm | None = None, coordinator_rank: int = 0
    ) -> None:
        arguments = check_arguments(comm, "", root=coordinator_rank)
        private = locate(comm, arguments.root)
        self._begin(private, arguments.root)

    def _begin(self, private: Private, coordinator_rank: int) -> None:
        self._private = private
        self._place = place_of(coordinator_rank, everywhere=True)
        self.rank = private.rank
        self.coordinator_rank = coordinator_rank
        self.is_coordinator = private.rank == coordinator_rank

    def get_rank(self) -> int:
        """Return this rank in comm. Not collective."""
        return self.rank

    def get_world_size(self) -> int:
        """Return the number of ranks. Not collective."""
        return self._private.size

    def reduce_scatter(
        self,
        step: str,
        map_fun: Callable[[], T],
        reduce_fun: Callable[[list[T]], list[R]],
    ) -> R:
        """Map on every rank, reduce on the coordinator, give each its part.

        Collective over comm.

        Args:
            step: What is done, for the report; the same on every rank.
            map_fun: Makes this rank's value.
            reduce_fun: Makes of the values, in order of ranks, as many results.

        Returns:
            This rank's result.

        Raises:
            CheckpointException: On every rank, if a map failed on any (then
                nothing is reduced), if the reduction failed, or if a value
                could not be carried.

        Success costs three ``Allreduce`` of 56 bytes, a gather and a scatter.
        """
        region = self._region("reduce_scatter", step)
        chunks = self._map_and_gather(region, map_fun)

        def reduce() -> list[Any]:
            results = reduce_fun([self._load(chunk) for chunk in chunks])
            return self._dump_each(results, "reduce_fun")

        pieces = self._attempt(region, reduce, only_coordinator=True)
        piece = self._move("scatter", pieces, root=self.coordinator_rank)
        return cast("R", self._attempt(region, lambda: self._load(piece)))

    def all_reduce(
        self,
        step: str,
        map_fun: Callable[[], T],
        reduce_fun: Callable[[list[T]], R],
    ) -> R:
        """Map on every rank, reduce on the coordinator, give all the result.

        Collective over comm.

        Args:
            step: What is done, for the report; the same on every rank.
            map_fun: Makes this rank's value.
            reduce_fun: Makes one result of the values, in order of ranks.

        Returns:
            The result, on every rank.

        Raises:
            CheckpointException: As for `reduce_scatter`.

        Success costs three ``Allreduce`` of 56 bytes, a gather and a bcast.
        """
        region = self._region("all_reduce", step)
        chunks = self._map_and_gather(region, map_fun)

        def reduce() -> Any:
            return self._dump(reduce_fun([self._load(chunk) for chunk in chunks]))

        result = self._attempt(region, reduce, only_coordinator=True)
        result = self._move("bcast", result, root=self.coordinator_rank)
        return cast("R", self._attempt(region, lambda: self._load(result)))

    def all_gather(self, step: str, map_fun: Callable[[], T]) -> list[T]:
        """Map on every rank, and give all of them every value.

        Collective over comm.

        Args:
            step: What is done, for the report; the same on every rank.
            map_fun: Makes this rank's value.

        Returns:
            The values, in order of ranks, on every rank.

        Raises:
            CheckpointException: On every rank, if a map failed on any, or if a
                value could not be carried.

        Success costs two ``Allreduce`` of 56 bytes and an allgather.
        """
        region = self._region("all_gather", step)
        data = self._attempt(region, lambda: self._dump(map_fun()))
        chunks = self._move("allgather", data)
        return self._attempt(region, lambda: [self._load(chunk) for chunk in chunks])

    def broadcast(self, step: str, map_fun: Callable[[], T]) -> T:
        """Map on the coordinator alone, and give all the value.

        Collective over comm.

        Args:
            step: What is done, for the report; the same on every rank.
            map_fun: Makes the value; not called on the other ranks.

        Returns:
            The value, on every rank.

        Raises:
            CheckpointException: On every rank, if the map failed, or if the
                value could not be carried.

        Success costs two ``Allreduce`` of 56 bytes and a bcast.
        """
        region = self._region("broadcast", step)
        data = self._attempt(
            region, lambda: self._dump(map_fun()), only_coordinator=True
        )
        data = self._move("bcast", data, root=self.coordinator_rank)
        return cast("T", self._attempt(region, lambda: self._load(data)))

    def barrier(self) -> None:
        """Wait until every rank is here.

        Collective over comm.

        Raises:
            CheckpointException: On every rank, if one has failed instead of
                coming here, in a guard around this.

        Costs one ``Allreduce`` of 56 bytes.
        """
        self._attempt(self._region("barrier", "barrier"), lambda: None)

    def broadcast_object(self, value: T | None) -> T:
        """Give all ranks the coordinator's value. Collective over comm."""
        return cast("T", self.broadcast("broadcast_object", lambda: value))

    def gather_object(self, value: T) -> list[T] | None:
        """Give the coordinator every rank's value; None elsewhere. Collective."""
        region = self._region("gather_object", "gather_object")
        chunks = self._map_and_gather(region, lambda: value)
        return self._attempt(
            region,
            lambda: [self._load(chunk) for chunk in chunks],
            only_coordinator=True,
        )

    def all_gather_object(self, value: T) -> list[T]:
        """Give all ranks every rank's value, in order. Collective over comm."""
        return self.all_gather("all_gather_object", lambda: value)

    def scatter_object(self, values: list[T] | None) -> T:
        """Give each rank its part of the coordinator's list. Collective."""
        region = self._region("scatter_object", "scatter_object")
        pieces = self._attempt(
            region,
            lambda: self._dump_each(values, "the coordinator"),
            only_coordinator=True,
        )
        piece = self._move("scatter", pieces, root=self.coordinator_rank)
        return cast("T", self._attempt(region, lambda: self._load(piece)))

    def _region(self, kind: str, step: str) -> Region:
        """Return what tells the parts of this step from those of others.

        Not collective where the step is a str. All ranks name one coordinator,
        for they communicate with it between the parts.
        """
        try:
            check_step(step)
        except TypeError as error:
            raise refuse(self._private, error) from error.__cause__
        return step, f"{kind}, coordinator {self.coordinator_rank}"

    def _attempt(
        self, region: Region, part: Callable[[], T], *, only_coordinator: bool = False
    ) -> T:
        """Do one part of a step; raise on every rank if it failed on any.

        Collective over comm. A rank that has no part returns None.
        """
        enter(self._private, region)
        result = failure = None
        try:
            if self.is_coordinator or not only_coordinator:
                result = part()
        except BaseException as error:
            failure = error
        outcome = leave(self._private, failure, self._place)
        if outcome is not None:
            raise outcome
        return cast("T", result)

    def _map_and_gather(self, region: Region, map_fun: Callable[[], T]) -> list[Any]:
        data = self._attempt(region, lambda: self._dump(map_fun()))
        gathered = self._move("gather", data, root=self.coordinator_rank)
        return cast("list[Any]", gathered)

    def _move(self, collective: str, data: Any, **root: int) -> Any:
        """Move bytes by a collective of the private communicator.

        Collective over comm. Between two agreements, so every rank is there.
        """
        if self._private.comm is None:
            return (
                [data]
                if "gather" in collective
                else (data[0] if collective == "scatter" else data)
            )
        return getattr(self._private.comm, collective)(data, **root)

    # A single rank keeps its objects: torch without a process group does not
    # pickle either.

    def _dump(self, value: object) -> Any:
        if self._private.comm is None:
            return value
        return pickle.dumps(value, protocol=5)

    def _load(self, data: Any) -> Any:
        return data if self._private.comm is None else pickle.loads(data)

    def _dump_each(self, values: object, giver: str) -> list[Any]:
        size = self._private.size
        if not isinstance(values, (list, tuple)) or len(values) != size:
            n = f"{len(values)} of them" if isinstance(values, (list, tuple)) else ""
            msg = (
                f"{giver} must give a list of {size} values, one a rank, got "
                f"{n or type(values).__name__}"
            )
            raise ValueError(msg)
        return [self._dump(value) for value in values]
