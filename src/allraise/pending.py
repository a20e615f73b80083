"""Requests and matched messages whose waiting a peer's failure interrupts.

Owns the classes of what an interruptible communicator returns from its
nonblocking operations. A request knows its channel, which does the waiting.
::

    g.comm.Irecv() -> Request ---- Wait, wait, Test ... ---> channel.wait, .poll
                              ---- Waitall([...]) ---------> channel.wait_all

``MPI.Request.Waitall(requests)``, called on mpi4py's own class, is mpi4py's and
cannot be interrupted: call it on the class of the requests,
``type(requests[0]).Waitall(requests)``, or as ``g.comm.Waitall(requests)``.
``MPI.Message.Probe(g.comm)`` likewise: use ``g.comm.Mprobe()``.
"""

# ruff: noqa: D102, N802 - mpi4py's methods, with mpi4py's names and meaning

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from allraise.completions import (
    channel_of,
    forget,
    note_received,
    plain,
    wait_all,
    wait_any,
    wait_some,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpi4py import MPI

    from allraise.channel import Channel
    from allraise.tally import Awaited

# Where in what Test and its like return the flag stands.
_FLAG: dict[str, Callable[[Any], Any]] = {
    "Testall": bool,
    "testall": lambda result: result[0],
    "Testany": lambda result: result[1],
    "testany": lambda result: result[1],
    "Testsome": lambda result: result != [],  # None: nothing to wait for
    "testsome": lambda result: result[0] != [],
    "Get_status_all": bool,
    "get_status_all": bool,
    "Get_status_any": lambda result: result[1],
    "get_status_any": lambda result: result[1],
    "Get_status_some": lambda result: result != [],
    "get_status_some": lambda result: result != [],
}


@functools.cache
def classes() -> SimpleNamespace:
    """Return ``Request``, ``Prequest`` and ``Message``; not collective.

    Made at the first use, because to import ``mpi4py.MPI`` starts MPI.
    """
    from mpi4py import MPI

    class Request(MPI.Request, Waiting):
        """A request whose waiting can be interrupted."""

    class Prequest(MPI.Prequest, Waiting):
        """A persistent request whose waiting can be interrupted."""

    for cls in (Request, Prequest):
        for name in dir(Waiting):
            # mpi4py's class comes first among the bases: layout demands it.
            if not name.startswith("__"):
                setattr(cls, name, Waiting.__dict__[name])
        for name in _FLAG:
            setattr(cls, name, _testing(name))
    return SimpleNamespace(Request=Request, Prequest=Prequest, Message=_message())


class Waiting:
    """The waiting methods of a request; a mixin."""

    _channel: Channel
    _generation: int
    _buffers: object
    awaited: Awaited | None  # what is waited for, where that is known

    def _ready(self, operation: str) -> Channel:
        channel = self._channel
        if self._generation != channel.generation:
            raise channel.stale(operation)
        return channel

    def _done(self, status: MPI.Status | None) -> None:
        if not self:  # type: ignore[truthy-bool] # a persistent one stays
            self._channel.started.pop(id(self), None)
            note_received(self, status)

    def Wait(self, status: MPI.Status | None = None) -> bool:
        from mpi4py import MPI

        self._ready("Wait").wait(self, "Wait", status, self.awaited)  # type: ignore[arg-type]
        self._done(status)
        if not self:  # type: ignore[truthy-bool] # done unseen by mpi4py, see `direct`
            MPI.Request.Test(self)  # type: ignore[arg-type] # it lets go of the buffer
        return True

    def wait(self, status: MPI.Status | None = None) -> Any:
        from mpi4py import MPI

        channel = self._ready("wait")
        result = channel.wait_first(MPI.Request.waitany, [self], "wait", status)  # type: ignore[list-item]
        self._done(status)
        return result[1]

    def Test(self, status: MPI.Status | None = None) -> bool:
        from mpi4py import MPI

        channel = self._ready("Test")
        done = MPI.Request.Test(self, status)  # type: ignore[arg-type]
        if done:
            self._done(status)
        else:
            channel.poll("Test")
        return done

    def test(self, status: MPI.Status | None = None) -> tuple[bool, Any]:
        from mpi4py import MPI

        channel = self._ready("test")
        result = MPI.Request.test(self, status)  # type: ignore[arg-type]
        if result[0]:
            self._done(status)
        else:
            channel.poll("test")
        return result

    def Cancel(self) -> None:
        from mpi4py import MPI

        self.awaited = None  # what is cancelled is not received
        MPI.Request.Cancel(self)  # type: ignore[arg-type]

    cancel = Cancel

    def Get_status(self, status: MPI.Status | None = None) -> bool:
        from mpi4py import MPI

        channel = self._ready("Get_status")
        done = MPI.Request.Get_status(self, status)  # type: ignore[arg-type]
        if not done:
            channel.poll("Get_status")
        return done

    get_status = Get_status

    @classmethod
    def Waitall(
        cls,
        requests: Sequence[MPI.Request],
        statuses: list[MPI.Status] | None = None,
    ) -> bool:
        wait_all(requests, statuses, "Waitall", lowercase=False)
        return True

    @classmethod
    def waitall(
        cls,
        requests: Sequence[MPI.Request],
        statuses: list[MPI.Status] | None = None,
    ) -> list[Any]:
        return wait_all(requests, statuses, "waitall", lowercase=True)

    @classmethod
    def Waitany(
        cls, requests: Sequence[MPI.Request], status: MPI.Status | None = None
    ) -> int:
        from mpi4py import MPI

        return wait_any(MPI.Request.Waitany, requests, "Waitany", status)  # type: ignore[no-any-return]

    @classmethod
    def waitany(
        cls, requests: Sequence[MPI.Request], status: MPI.Status | None = None
    ) -> tuple[int, Any]:
        from mpi4py import MPI

        return wait_any(MPI.Request.waitany, requests, "waitany", status)  # type: ignore[no-any-return]

    @classmethod
    def Waitsome(
        cls,
        requests: Sequence[MPI.Request],
        statuses: list[MPI.Status] | None = None,
    ) -> list[int] | None:
        from mpi4py import MPI

        done = wait_some(MPI.Request.Waitsome, requests, "Waitsome", statuses)
        return None if done is None else [i for i, _, _ in done]

    @classmethod
    def waitsome(
        cls,
        requests: Sequence[MPI.Request],
        statuses: list[MPI.Status] | None = None,
    ) -> tuple[list[int] | None, list[Any] | None]:
        from mpi4py import MPI

        done = wait_some(MPI.Request.waitsome, requests, "waitsome", statuses)
        if done is None:
            return None, None
        return [i for i, _, _ in done], [obj for _, _, obj in done]


def _testing(name: str) -> classmethod[Any, Any, Any]:
    """Make one of the tests of several requests: no loop of them may be deaf."""
    method = plain(name)
    flag = _FLAG[name]

    def test(_cls: type, requests: Sequence[MPI.Request], *rest: Any) -> Any:
        channel = channel_of(requests, name)
        result = method(requests, *rest)
        if channel is not None:
            if flag(result):
                forget(channel, requests)
            else:
                channel.poll(name)
        return result

    test.__name__ = name
    return classmethod(test)


def _message() -> type:
    from mpi4py import MPI

    class Message(MPI.Message):
        """A matched message whose receipt can be interrupted."""

        _channel: Channel
        _generation: int
        _n_bytes: int

        def _start(self, name: str, *args: Any) -> Any:
            if self._generation != self._channel.generation:
                raise self._channel.stale(name)
            request = getattr(MPI.Message, name)(self, *args)
            return adopt(request, self._channel)

        def Irecv(self, buf: Any) -> Any:
            return self._start("Irecv", buf)

        def irecv(self) -> Any:
            return self._start("irecv")

        def Recv(self, buf: Any, status: MPI.Status | None = None) -> None:
            self._start("Irecv", buf).Wait(status)

        def recv(self, status: MPI.Status | None = None) -> Any:
            return self._start("irecv").wait(status)

    return Message


def adopt(
    request: MPI.Request,
    channel: Channel,
    buffers: object = None,
    awaited: Awaited | None = None,
) -> Any:
    """Return a request of mpi4py as an interruptible one. Not collective.

    Args:
        request: mpi4py's.
        channel: does the waiting.
        buffers: kept with it: mpi4py 4.1 does not hold those of nonblocking and
            persistent collectives.
        awaited: what is waited for, if that is known.
    """
    from mpi4py import MPI

    made = classes()
    cls = made.Prequest if isinstance(request, MPI.Prequest) else made.Request
    mine = cls(request)
    mine._channel = channel
    mine._generation = channel.generation
    mine._buffers = buffers
    mine.awaited = awaited
    channel.keep(mine)
    return mine


def adopt_message(message: MPI.Message, channel: Channel) -> Any:
    """Return a matched message as an interruptible one. Not collective."""
    mine = classes().Message(message)
    mine._channel = channel  # noqa: SLF001
    mine._generation = channel.generation  # noqa: SLF001
    return mine
