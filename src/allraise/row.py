"""A row of regions that make one collective step, and what moves in them.

Owns the agreement at the end of each part of a step, and the collectives that move
bytes. A part that moves any begins where all ranks have agreed that their bytes are
ready, so each of them counts on the others to come::

    signals held back   ---------------------------------------------------->
    let through          map, pickle          unpickle, reduce
    all ranks                        agree  gather                agree  ...

A handler that raised between the agreement and the gather would leave the others in
it. So signals wait from the first region to the last, but for the user's own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from allraise.agreement import enter, leave
from allraise.signals import signals_held_back
from allraise.values import checked_list, dump_value, load_value

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from allraise.private import Private, Region

T = TypeVar("T")


class Row:
    """The regions of one step, in a block. Collective over comm.

    Args:
        private: This rank's side.
        region: What all of the regions are.
        place: From `place_of`, with the coordinator as the root.
        coordinator_rank: The coordinator.
    """

    def __init__(
        self, private: Private, region: Region, place: int, coordinator_rank: int
    ) -> None:
        self._private = private
        self._region = region
        self._place = place
        self._coordinator_rank = coordinator_rank
        self._is_coordinator = private.rank == coordinator_rank
        self._held = signals_held_back()
        self._is_agreed = False  # whether ranks have agreed to go on with this step

    def __enter__(self) -> Self:
        self._held.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, exc, traceback)

    def alone(self, part: Callable[[], T]) -> T:
        """Do a part in which ranks wait for nobody; raise if it failed on any.

        Collective over comm, at its end.
        """
        return self.together(lambda: self.let(part))

    def let(self, part: Callable[[], T]) -> T:
        """Run the user's code, with signals let through. Not collective."""
        return self._held.let_through(part)

    def together(self, part: Callable[[], T]) -> T:
        """Do a part that moves bytes; raise on every rank if it failed on any.

        Collective over comm.
        """
        # Once a part was agreed on, the others may be in the collective of the next:
        # what is heard of regions around must wait until the agreement after it.
        opened = enter(self._private, self._region, looks=not self._is_agreed)
        failure = outcome = None
        try:
            try:
                result = part()
            except BaseException as error:
                failure = error
            outcome = leave(opened, failure, self._place)
            if outcome is not None:
                raise outcome
            self._is_agreed = True
            return result
        finally:
            # Else this frame and the traceback that holds it keep each other,
            # and all that the user's frames hold, alive.
            del failure, outcome

    # Below: in a part of `together`, collective over comm. A single rank keeps its
    # objects: torch without a process group does not pickle either.

    def _move(self, collective: str, data: Any, **root: int) -> Any:
        return getattr(self._private.comm, collective)(data, **root)

    def gather(self, data: Any) -> list[Any] | None:
        """Return every rank's value on the coordinator."""
        if self._private.comm is None:
            return [data]
        chunks = self._move("gather", data, root=self._coordinator_rank)
        return self._load_each(chunks) if self._is_coordinator else None

    def gather_everywhere(self, data: Any) -> list[Any]:
        """Return every rank's value."""
        if self._private.comm is None:
            return [data]
        return self._load_each(self._move("allgather", data))

    def spread(self, data: Any) -> Any:
        """Return the coordinator's value."""
        if self._private.comm is None:
            return data
        return self._load(self._move("bcast", data, root=self._coordinator_rank))

    def scatter(self, data: list[Any] | None) -> Any:
        """Return this rank's part of the coordinator's."""
        if self._private.comm is None:
            return data[0] if data else None
        return self._load(self._move("scatter", data, root=self._coordinator_rank))

    def _load(self, data: bytes) -> Any:
        return self.let(lambda: load_value(data, self._coordinator_rank))

    def _load_each(self, chunks: list[bytes]) -> list[Any]:
        return self.let(lambda: [load_value(data, i) for i, data in enumerate(chunks)])

    # Not collective.

    def dump(self, value: object, giver: str) -> Any:
        """Pickle a value that is to be moved."""
        return value if self._private.comm is None else dump_value(value, giver)

    def dump_each(self, values: object, giver: str) -> list[Any]:
        """Pickle one value for each rank."""
        checked = checked_list(values, self._private.size, giver)
        return [self.dump(value, giver) for value in checked]
