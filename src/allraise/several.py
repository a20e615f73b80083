"""Waiting for several operations, or for a failure, whichever comes first.

Owns what `waits` does for one operation, for several::

    wait_first     any of several   Waitany([*requests, listen])
    wait_some      some, or all     Waitsome([*requests, listen])

Not collective: each is one rank's part of an operation.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from allraise.completions import awaited_of, note_received
from allraise.polling import way_to, way_to_look
from allraise.waits import PATIENCE_S, Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpi4py import MPI


class WaitsForSeveral(Waits):
    """Waiting for several requests. Collective over `private`."""

    def wait_first(
        self,
        waitany: Callable[..., Any],
        requests: Sequence[MPI.Request],
        operation: str,
        status: MPI.Status | None,
    ) -> Any:
        """Do what `waitany` does (``Waitany`` or ``waitany``), or raise."""
        self._give_up_if_failed(requests, operation)
        name = waitany.__name__
        while True:
            result = self._next_of(name, requests, status, operation, for_all=False)
            i = result[0] if isinstance(result, tuple) else result
            if i < len(requests):
                return result
            (self, *self.enclosing)[i - len(requests)].read()
            self._give_up_if_failed(requests, operation)

    def wait_some(
        self,
        waitsome: Callable[..., Any],
        requests: Sequence[MPI.Request],
        operation: str,
        statuses: list[MPI.Status],
        *,
        for_all: bool = False,
    ) -> list[tuple[int, MPI.Status, Any]]:
        """Wait until some of the requests are done, or raise.

        Args:
            waitsome: ``Waitsome`` or ``waitsome``.
            requests: To wait for.
            operation: Named in an interruption.
            statuses: As mpi4py's.
            for_all: Whether all are waited for in the end.

        Returns:
            For each that is done its place in `requests`, its status, and its
            object where `waitsome` is the lowercase one.
        """
        self._give_up_if_failed(requests, operation)
        name = waitsome.__name__
        while True:
            result = self._next_of(name, requests, statuses, operation, for_all=for_all)
            places, objects = result if isinstance(result, tuple) else (result, None)
            done = []
            for k, i in enumerate(places):
                if i < len(requests):
                    done.append((i, statuses[k], objects and objects[k]))
                else:
                    (self, *self.enclosing)[i - len(requests)].read()
            if done:
                return done
            self._give_up_if_failed(requests, operation)

    def wait_all(
        self,
        lowercase: bool,  # noqa: FBT001
        requests: Sequence[MPI.Request],
        operation: str,
    ) -> list[tuple[MPI.Status, Any]]:
        """Wait for all requests, or raise; returns statuses and objects."""
        from mpi4py import MPI

        cls = MPI.Request
        done: dict[int, tuple[MPI.Status, Any]] = {}
        while True:
            # Also true where the rest are persistent requests not started, which
            # the wait below would never report.
            statuses: list[MPI.Status] = []
            if lowercase:
                ended, objects = cls.testall(requests, statuses)
            else:
                ended, objects = cls.Testall(requests, statuses), None
            if ended:
                return [
                    done[i] if i in done else (statuses[i], objects and objects[i])
                    for i in range(len(requests))
                ]
            waitsome = cls.waitsome if lowercase else cls.Waitsome
            for i, status, obj in self.wait_some(
                waitsome, requests, operation, [], for_all=True
            ):
                done[i] = (status, obj)
                note_received(requests[i], status)

    def _next_of(
        self,
        name: str,
        requests: Sequence[MPI.Request],
        status: Any,
        operation: str,
        *,
        for_all: bool,
    ) -> Any:
        """Wait for the first of these and of messages of peers.

        And tell where this rank stands, if that takes long.
        """
        watched = [*requests, *self._listens()]
        if self._looks():
            look, is_found, result_of = way_to_look(name)
            until = time.perf_counter() + PATIENCE_S
            while time.perf_counter() < until:
                if is_found(found := look(watched, status)):
                    return result_of(found)
                os.sched_yield()
            self._look_for(requests, operation, for_all=for_all)
        return way_to(name)(watched, status)

    def _look_for(
        self, requests: Sequence[MPI.Request], operation: str, *, for_all: bool
    ) -> None:
        """Look where this rank stands, and give up if it must."""
        # Of several, any may come.
        self._look(awaited_of(requests) if for_all or len(requests) == 1 else ())
        self._give_up_if_failed(requests, operation)
