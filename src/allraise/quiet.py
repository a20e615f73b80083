"""Listening that stops as the process ends, and goes on if somebody still guards.

Owns what is done about the receive that each channel has under way when MPI ends. Some
transports complain about one at ``MPI_Finalize``, which mpi4py calls after all that is
registered with `atexit`. So it is cancelled there. But handlers that were registered
before ours come after it, and may have guards of their own::

    handler, registered after the first guard    listens
    ours                                         cancels, takes in what has come
    handler, registered before                   listens again when it first waits, or
                                                 receives what peers have told
    Python takes its modules apart               cancels that, too
    mpi4py, as the last of all                   MPI_Finalize

Not collective: each rank stops and begins where it is.
"""

from __future__ import annotations

import atexit
import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.channel import Channel

_open: weakref.WeakSet[Channel] = weakref.WeakSet()


class _Late:
    """Stops a receive that was begun after all was stopped.

    No handler comes after those that are running. What a module holds goes after them.
    """

    def __init__(self, listen: MPI.Prequest) -> None:
        self._listen = listen

    def __del__(self) -> None:
        if self._listen:  # not null: it was not freed since, nor was MPI finalized
            self._listen.Cancel()
            self._listen.Wait()
            self._listen.Free()


_late: list[_Late] = []

# Python empties a module at its end only where something holds the module itself; and
# what MPI holds of ours, which is never let go, holds no more than our functions.
_this = sys.modules[__name__]


def stop_at_exit(channel: Channel) -> None:
    """Stop a channel's listening when the process ends."""
    _open.add(channel)
    _register()


def forget(channel: Channel) -> None:
    """Leave alone a channel that has stopped for good."""
    _open.discard(channel)


@functools.cache
def _register() -> None:
    atexit.register(_stop_all)


def _stop_all() -> None:
    from mpi4py import MPI

    if not MPI.Is_finalized():
        for channel in list(_open):
            _pause(channel)


def _pause(channel: Channel) -> None:
    from mpi4py import MPI

    status = MPI.Status()
    while True:
        channel.listen.Cancel()
        channel.listen.Wait(status)
        if status.Is_cancelled():
            break
        channel.read()  # a message came first
    channel.listen.Free()
    # From now on to ask for `listen` is to listen. By another class, as a look whether
    # it is stopped would be paid for by every operation.
    kind: Any = type(channel)
    channel.__class__ = _paused(kind)


@functools.cache
def _paused(base: Any) -> Any:
    def listen(self: Any) -> Any:
        self.__class__ = base
        self.start_listening()
        _late.append(_Late(self.listen))
        return self.listen

    return type(base.__name__, (base,), {"listen": property(listen)})
