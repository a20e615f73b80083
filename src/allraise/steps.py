"""Torch's collective steps over an MPI communicator: a function, or all raise.

Owns `CollectiveSteps`. The semantics are those of ``_DistWrapper`` of
``torch.distributed.checkpoint.utils`` (PyTorch 2.13). Where that deadlocks or
loses the error (a value that cannot be pickled, a reduce list of the wrong
length), this raises the right `CheckpointException` on every rank. A wrapped pair
that a map returns is a value here, and no failure.

Each step is a row of regions, each closed by an agreement, so that values move
only when every rank is known to have its bytes ready. ``all_reduce``, where only
the coordinator unpickles and reduces::

    map, pickle --agree-- gather, reduce, pickle --agree-- bcast, unpickle --agree-->
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from allraise.arguments import check_arguments, check_step, locate, refuse
from allraise.row import Row
from allraise.verdict import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.private import Private

T = TypeVar("T")
R = TypeVar("R")


class CollectiveSteps:
    """Steps taken by all ranks together: each returns on every rank, or raises there.

    Collective over comm, in every method but `get_rank` and `get_world_size`. A step
    runs functions and moves their values::

        steps = allraise.CollectiveSteps(comm)
        steps.all_reduce("save", write_shard, publish)

    Here every rank calls ``write_shard()``. Only if all succeed, the coordinator calls
    ``publish(values)``, with their values in order of ranks; its result is returned on
    every rank. If anything fails on any rank, every rank raises `CheckpointException`,
    with every rank's failure in its ``failures``. A failure of the coordinator's part
    is listed under the coordinator's rank. The functions should not communicate.

    A step has no deadline of its own: put a `guard` with ``timeout`` around it.

    Args:
        comm: The ranks; None for ``COMM_WORLD``.
        coordinator_rank: The rank in comm that reduces, broadcasts and scatters.

    Raises:
        TypeError: On every rank that passes the wrong kind of argument.
        ValueError: On every rank whose argument is impossible.

    Attributes:
        rank: This rank in comm.
        coordinator_rank: The coordinator's rank in comm.
        is_coordinator: Whether this rank is the coordinator.
    """

    def __init__(
        self, comm: MPI.Intracomm | None = None, coordinator_rank: int = 0
    ) -> None:
        name = "coordinator_rank"
        arguments = check_arguments(comm, "", root=coordinator_rank, root_name=name)
        self._comm = comm
        self._begin(locate(comm, arguments.root, root_name=name), arguments.root)

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
        """Call a function on every rank, reduce the values, give each rank its part.

        Collective over comm.

        Args:
            step: The name of what is done, in reports; the same on every rank.
            map_fun: Returns this rank's value.
            reduce_fun: Called on the coordinator with all values, in order of ranks;
                returns a list of as many results.

        Returns:
            This rank's result.

        Raises:
            CheckpointException: On every rank, if ``map_fun`` failed on any (then
                nothing is reduced), if ``reduce_fun`` failed, or if a value could
                not be pickled or unpickled.

        Success costs three ``Allreduce`` of 64 bytes, a gather and a scatter.
        """
        with self._row("reduce_scatter", step) as row:
            value = row.alone(lambda: row.dump(map_fun(), "map_fun"))

            def reduce() -> list[Any] | None:
                values = row.gather(value)
                if values is None:
                    return None
                return row.let(lambda: row.dump_each(reduce_fun(values), "reduce_fun"))

            results = row.together(reduce)
            return cast("R", row.together(lambda: row.scatter(results)))

    def all_reduce(
        self,
        step: str,
        map_fun: Callable[[], T],
        reduce_fun: Callable[[list[T]], R],
    ) -> R:
        """Call a function on every rank, reduce the values, give all the result.

        Collective over comm.

        Args:
            step: The name of what is done, in reports; the same on every rank.
            map_fun: Returns this rank's value.
            reduce_fun: Called on the coordinator with all values, in order of ranks;
                returns the result.

        Returns:
            The result, on every rank.

        Raises:
            CheckpointException: As for `reduce_scatter`.

        Success costs three ``Allreduce`` of 64 bytes, a gather and a bcast.
        """
        with self._row("all_reduce", step) as row:
            value = row.alone(lambda: row.dump(map_fun(), "map_fun"))

            def reduce() -> Any:
                values = row.gather(value)
                if values is None:
                    return None
                return row.let(lambda: row.dump(reduce_fun(values), "reduce_fun"))

            result = row.together(reduce)
            return cast("R", row.together(lambda: row.spread(result)))

    def all_gather(self, step: str, map_fun: Callable[[], T]) -> list[T]:
        """Call a function on every rank, and give all ranks every value.

        Collective over comm.

        Args:
            step: The name of what is done, in reports; the same on every rank.
            map_fun: Returns this rank's value.

        Returns:
            The values, in order of ranks, on every rank.

        Raises:
            CheckpointException: On every rank, if ``map_fun`` failed on any, or if a
                value could not be pickled or unpickled.

        Success costs two ``Allreduce`` of 64 bytes and an allgather.
        """
        with self._row("all_gather", step) as row:
            value = row.alone(lambda: row.dump(map_fun(), "map_fun"))
            return row.together(lambda: row.gather_everywhere(value))

    def broadcast(self, step: str, map_fun: Callable[[], T]) -> T:
        """Call a function on the coordinator alone, and give all ranks its value.

        Collective over comm.

        Args:
            step: The name of what is done, in reports; the same on every rank.
            map_fun: Returns the value; not called on the other ranks.

        Returns:
            The value, on every rank.

        Raises:
            CheckpointException: On every rank, if ``map_fun`` failed, or if the value
                could not be pickled or unpickled.

        Success costs two ``Allreduce`` of 64 bytes and a bcast.
        """
        with self._row("broadcast", step) as row:

            def map_here() -> Any:
                return row.dump(map_fun(), "map_fun") if self.is_coordinator else None

            value = row.alone(map_here)
            return cast("T", row.together(lambda: row.spread(value)))

    def barrier(self) -> None:
        """Wait until every rank is here.

        Collective over comm.

        Raises:
            CheckpointException: On every rank, if one failed in a guard around this
                instead of coming here.

        Costs one ``Allreduce`` of 64 bytes.
        """
        with self._row("barrier", "barrier") as row:
            row.together(lambda: None)

    def broadcast_object(self, value: T | None) -> T:
        """Return the coordinator's value on every rank. Collective over comm."""
        return cast("T", self.broadcast("broadcast_object", lambda: value))

    def gather_object(self, value: T) -> list[T] | None:
        """Return every rank's value on the coordinator. Collective over comm.

        The other ranks get None.
        """
        with self._row("gather_object", "gather_object") as row:
            data = row.alone(lambda: row.dump(value, "gather_object"))
            return row.together(lambda: row.gather(data))

    def all_gather_object(self, value: T) -> list[T]:
        """Return every rank's value, in order, on all ranks. Collective over comm."""
        return self.all_gather("all_gather_object", lambda: value)

    def scatter_object(self, values: list[T] | None) -> T:
        """Return to each rank its part of the coordinator's list. Collective over comm."""
        with self._row("scatter_object", "scatter_object") as row:

            def dump_here() -> Any:
                giver = "scatter_object"
                return row.dump_each(values, giver) if self.is_coordinator else None

            data = row.alone(dump_here)
            return cast("T", row.together(lambda: row.scatter(data)))

    def _row(self, kind: str, step: str) -> Row:
        """Return the regions of a step, told from those of others.

        Not collective where the step is a str. All ranks must name one
        coordinator, for they communicate with it in the parts.
        """
        if self._private.closed:
            # Raises, and says why, unless it was only given up.
            self._private = locate(self._comm, self._place)
        try:
            check_step(step)
        except TypeError as error:
            raise refuse(self._private, error)  # noqa: B904 the cause is set
        region = step, f"{kind}, coordinator {self.coordinator_rank}"
        return Row(self._private, region, self._place, self.coordinator_rank)
