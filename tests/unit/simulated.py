"""A communicator of simulated ranks, on which a deadlock is found, not waited for.

Each rank is a thread, and a baton sees to it that exactly one runs. A rank gives
the baton away only where it has to wait; where nobody can take it, the ranks are
deadlocked. Every message here has a named source, so what each rank computes
does not depend on the order in which ranks run (a Kahn network): one order
stands for all.

Stricter than MPI: every collective synchronises, a send waits for its receive,
and collectives of different kinds or roots that meet are an error at once.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from allraise.private import Private

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RANKS = 64


class Deadlock(BaseException):
    """What every communication raises once the ranks cannot go on."""


# As an error of MPI: the protocol does not take it for a failure of a rank.
Deadlock.__module__ = "mpi4py.MPI"

_threads = ThreadPoolExecutor(MAX_RANKS, thread_name_prefix="rank")


class World:
    """The ranks of one run, and the one baton."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.trouble = ""  # why the ranks cannot go on
        self.n_calls = [0] * size  # communication calls of each rank
        self._batons = [threading.Lock() for _ in range(size)]
        self._ready: list[Callable[[], bool] | None] = [lambda: True] * size
        self._doing = [""] * size
        self._slots: list[dict[str, Any]] = []
        self._n_collectives = [0] * size
        self._letters: dict[tuple[int, int, int], list[object]] = {}

    def run(self, main: Callable[[SimulatedComm], object]) -> list[object]:
        """Run a function on every rank; return what each returned.

        Raises:
            Deadlock: The ranks could not go on.
        """
        for baton in self._batons:
            baton.acquire()
        comms = [SimulatedComm(self, rank) for rank in range(self.size)]
        futures = [_threads.submit(self._be_rank, main, comm) for comm in comms]
        self._batons[0].release()
        wait(futures)
        # What a rank raised is nearer to the cause than that others waited.
        results = [future.result() for future in futures]
        if self.trouble:
            raise Deadlock(self.trouble)
        return results

    def _be_rank(
        self, main: Callable[[SimulatedComm], object], comm: SimulatedComm
    ) -> object:
        self._batons[comm.rank].acquire()
        self._ready[comm.rank] = None
        try:
            return main(comm)
        except Deadlock:
            return None
        finally:
            self._doing[comm.rank] = "has ended"
            self._hand_on(comm.rank)

    def _hand_on(self, rank: int) -> None:
        """Give the baton to the next rank that can run."""
        for distance in range(1, self.size + 1):
            heir = (rank + distance) % self.size
            ready = self._ready[heir]
            if ready is not None and (self.trouble or ready()):
                self._ready[heir] = None
                self._batons[heir].release()
                return
        if any(self._ready):
            doing = "; ".join(f"rank {r} {what}" for r, what in enumerate(self._doing))
            self.fail(f"deadlock: {doing}")
            self._hand_on(rank)

    def fail(self, trouble: str) -> None:
        """Note the first trouble; from now on all communication raises."""
        self.trouble = self.trouble or trouble

    def wait(self, rank: int, ready: Callable[[], bool], doing: str) -> None:
        """Let others run until something is so."""
        if self.trouble:
            raise Deadlock(self.trouble)
        if not ready():
            self._ready[rank] = ready
            self._doing[rank] = f"waits in {doing}"
            self._hand_on(rank)
            self._batons[rank].acquire()
            self._doing[rank] = "runs"
        if self.trouble:
            raise Deadlock(self.trouble)

    def meet(self, rank: int, name: str, value: object, root: int = 0) -> list[Any]:
        """Take part in a collective; return what every rank brought."""
        self.n_calls[rank] += 1
        number = self._n_collectives[rank]
        self._n_collectives[rank] += 1
        if number == len(self._slots):
            self._slots.append({"what": (name, root), "brought": {}})
        slot = self._slots[number]
        if slot["what"] != (name, root):
            self.fail(f"rank {rank} is in {name, root}, others in {slot['what']}")
        brought: dict[int, object] = slot["brought"]
        brought[rank] = value
        self.wait(rank, lambda: len(brought) == self.size, f"{name} {number}")
        return [brought[other] for other in range(self.size)]

    def post(self, rank: int, dest: int, tag: int, value: object) -> None:
        """Send, and wait until it is received."""
        self.n_calls[rank] += 1
        box = self._letters.setdefault((rank, dest, tag), [])
        box.append(value)
        self.wait(rank, lambda: not box, f"send to {dest}")

    def take(self, rank: int, source: int, tag: int) -> Any:
        """Receive."""
        self.n_calls[rank] += 1
        box = self._letters.setdefault((source, rank, tag), [])
        self.wait(rank, lambda: bool(box), f"recv from {source}")
        return box.pop(0)


class SimulatedComm:
    """What allraise calls on a communicator, as one rank sees it."""

    def __init__(self, world: World, rank: int) -> None:
        self.world = world
        self.rank = rank
        # A single rank talks to nobody, as `private_of` has it.
        traffic = self if world.size > 1 else None
        self.private = Private(traffic, rank, world.size, "MAX")

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.world.size

    def Allreduce(self, send: object, receive: Any, op: object) -> None:
        assert op == "MAX"
        mine = memoryview(send).cast("B").cast("q").tolist()  # type: ignore[arg-type]
        brought = self.world.meet(self.rank, "Allreduce", mine)
        total = memoryview(receive).cast("B").cast("q")
        for position, column in enumerate(zip(*brought, strict=True)):
            total[position] = max(column)

    def gather(self, value: object, root: int = 0) -> list[Any] | None:
        brought = self.world.meet(self.rank, "gather", value, root)
        return brought if self.rank == root else None

    def allgather(self, value: object) -> list[Any]:
        return self.world.meet(self.rank, "allgather", value)

    def bcast(self, value: object, root: int = 0) -> Any:
        return self.world.meet(self.rank, "bcast", value, root)[root]

    def scatter(self, values: list[object] | None, root: int = 0) -> Any:
        return self.world.meet(self.rank, "scatter", values, root)[root][self.rank]

    def isend(self, value: object, dest: int, tag: int = 0) -> Any:
        self.world.post(self.rank, dest, tag, value)
        return SimpleNamespace(test=lambda: (True, None), wait=lambda: None)

    def recv(self, _buffer: object, source: int, tag: int = 0) -> Any:
        return self.world.take(self.rank, source, tag)


def resolve(comm: object) -> object:
    """Stand in for `allraise.private.resolve_comm`."""
    return comm


def private_of(comm: SimulatedComm) -> Private:
    """Stand in for `allraise.private.private_of`."""
    return comm.private
