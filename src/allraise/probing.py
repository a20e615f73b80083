"""Looking for a message on an interruptible communicator, and for a failure besides.

Owns the probes that `interruptible` puts into its classes where messages, not a revoke,
wake.
"""

# ruff: noqa: D102, N802 - mpi4py's methods, with mpi4py's names and meaning

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from allraise import pending
from allraise.tally import TO_RECEIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.tally import Tally

# A probe cannot be waited for together with the channel, so it is repeated: with
# yields at first (loops without are 40-200 times slower under MPICH, where ranks
# share cores), then with sleeps.
SPIN_S = 0.005
NAP_S = 0.0002


class Probing:
    """Written out methods, copied into the classes of `interruptible`."""

    _begin: Callable[[str], Any]
    plain: Any
    tally: Tally
    _mpi: Any

    def Probe(
        self, source: int | None = None, tag: int | None = None, status: Any = None
    ) -> bool:
        channel = self._begin("Probe")
        source, tag = self._any(source, tag)
        probe = self.plain.Iprobe
        return self._until(probe, channel, "Probe", source, tag, status)  # type: ignore[no-any-return]

    probe = Probe

    def Mprobe(
        self, source: int | None = None, tag: int | None = None, status: Any = None
    ) -> Any:
        channel = self._begin("Mprobe")
        source, tag = self._any(source, tag)
        probe = self.plain.Improbe
        message = self._until(probe, channel, "Mprobe", source, tag, status)
        self._note_received(source, status)
        return pending.adopt_message(message, channel)

    def mprobe(
        self, source: int | None = None, tag: int | None = None, status: Any = None
    ) -> Any:
        channel = self._begin("mprobe")
        source, tag = self._any(source, tag)
        probe = self.plain.improbe  # keeps the buffer for recv()
        message = self._until(probe, channel, "mprobe", source, tag, status)
        self._note_received(source, status)
        return pending.adopt_message(message, channel)

    # A loop of these is a wait too: they look at the channel where they find nothing.

    def Iprobe(
        self, source: int | None = None, tag: int | None = None, status: Any = None
    ) -> bool:
        channel = self._begin("Iprobe")
        found = self.plain.Iprobe(*self._any(source, tag), status)
        if not found:
            channel.poll("Iprobe")
        return found  # type: ignore[no-any-return]

    iprobe = Iprobe

    def Improbe(
        self, source: int | None = None, tag: int | None = None, status: Any = None
    ) -> Any:
        return self._match(self.plain.Improbe, "Improbe", source, tag, status)

    def improbe(
        self, source: int | None = None, tag: int | None = None, status: Any = None
    ) -> Any:
        return self._match(self.plain.improbe, "improbe", source, tag, status)

    def _match(
        self,
        probe: Callable[..., Any],
        operation: str,
        source: int | None,
        tag: int | None,
        status: Any,
    ) -> Any:
        channel = self._begin(operation)
        source, tag = self._any(source, tag)
        message = probe(source, tag, status)
        if message is None:
            channel.poll(operation)
            return None
        self._note_received(source, status)
        return pending.adopt_message(message, channel)

    def _any(self, source: int | None, tag: int | None) -> tuple[int, int]:
        # The constants differ from one MPI to the next, so they are no defaults.
        if source is not None and tag is not None:
            return source, tag
        mpi = self._mpi
        return (
            mpi.ANY_SOURCE if source is None else source,
            mpi.ANY_TAG if tag is None else tag,
        )

    def _until(
        self,
        probe: Callable[..., Any],
        channel: Any,
        operation: str,
        source: int,
        *rest: Any,
    ) -> Any:
        """Repeat a probe until it finds a message, or raise the interruption."""
        args = source, *rest
        found = probe(*args)
        if found:
            return found
        spun = time.perf_counter() + SPIN_S
        has_looked = False
        while not found:
            heard = channel.poll(operation)
            if time.perf_counter() < spun:
                os.sched_yield()
            else:
                if heard or not has_looked:
                    awaited = self.tally, TO_RECEIVE, source
                    channel.look_for_one(awaited, operation)
                    has_looked = True
                time.sleep(NAP_S)
            found = probe(*args)
        return found

    def _note_received(self, source: int, status: Any) -> None:
        self.tally.received[int(source if status is None else status.source)] += 1
