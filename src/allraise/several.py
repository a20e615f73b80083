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

from allraise.completions import awaited_of
from allraise.polling import way_to
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
        watched = [*requests, *self._listens()]
        wait = way_to(waitany.__name__)
        if self._looks() and not self._comes_soon(requests):
            self._look_for(requests, operation)
        while True:
            result = wait(watched, status)
            i = result[0] if isinstance(result, tuple) else result
            if i < len(requests):
                return result
            (self, *self.enclosing)[i - len(requests)].read()
            self._look_for(requests, operation)

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
        watched = [*requests, *self._listens()]
        wait = way_to(waitsome.__name__)
        if self._looks() and not self._comes_soon(requests):
            self._look_for(requests, operation, for_all=for_all)
        while True:
            result = wait(watched, statuses)
            places, objects = result if isinstance(result, tuple) else (result, None)
            done = []
            for k, i in enumerate(places):
                if i < len(requests):
                    done.append((i, statuses[k], objects and objects[k]))
                else:
                    (self, *self.enclosing)[i - len(requests)].read()
            if done:
                return done
            self._look_for(requests, operation, for_all=for_all)

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

    def _comes_soon(self, requests: Sequence[MPI.Request]) -> bool:
        """Wait for a while; tell whether one of the requests is done."""
        until = time.perf_counter() + PATIENCE_S
        while not any(map(self._is_over, requests)):
            if time.perf_counter() > until:
                return False
            os.sched_yield()
        return True

    def _look_for(
        self, requests: Sequence[MPI.Request], operation: str, *, for_all: bool = False
    ) -> None:
        """Look where this rank stands, and give up if it must."""
        if self._looks():
            # Of several, any may come.
            self._look(awaited_of(requests) if for_all or len(requests) == 1 else ())
        self._give_up_if_failed(requests, operation)
