"""The methods of ``g.comm``: one of mpi4py's, after what its kind is.

Owns what is done before and behind each of mpi4py's methods; of which kind it is, is told
by the table in `operations`, what it may be given by `calls`. What one rank alone may
get wrong is looked for before the ranks meet: past the gate nothing wakes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allraise import objects, operations, pending, trees
from allraise.broadcast import bcast, broadcast_rest
from allraise.calls import LOOKS, at_gate, look_at_init
from allraise.kinds import mpi
from allraise.plain import Broadcast, Gated
from allraise.signals import signals_held_back
from allraise.tally import ANYBODY, MANY, TO_MEET, TO_RECEIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.tally import Awaited, Tally


def method_of(  # noqa: PLR0911 - a table
    base: type, name: str, *, revokes: bool
) -> Any:
    """Make one method, after the table. Not collective."""
    if name in operations.OWN | operations.NEIGHBOR_OBJECTS:
        return _translated(base, name) if revokes else _of_objects(name)
    if name in operations.REFUSED:
        return _refused(name, operations.REFUSED[name])
    if name in operations.DERIVED:
        return _deriving(name)
    if name in operations.STARTED:
        return _starting(base, name)
    if name in operations.GATED_INIT:
        return _gated_init(base, name)
    if name in operations.GATED:
        return _translated(base, name) if revokes else _gated(base, name)
    return _refused(name, "it is newer than this version of allraise")


def _named(name: str, method: Any, doc: str | None) -> Any:
    method.__name__ = name
    method.__qualname__ = f"Interruptible.{name}"
    method.__doc__ = doc
    return method


def _refused(name: str, reason: str) -> Any:
    def method(self: Any, *_args: Any, **_kwargs: Any) -> None:
        message = f"g.comm.{name}() could not be interrupted: {reason}"
        raise NotImplementedError(message)

    return _named(name, method, f"Not available: {reason}.")


def _gated(base: type, name: str) -> Any:
    plain = getattr(base, name)
    look = LOOKS[name]

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        look(self, *args, **kwargs)
        late = self.gate(self, name)
        if late is None:
            return plain(self, *args, **kwargs)
        try:
            return plain(self, *args, **kwargs)
        finally:
            raise late

    # Compiled, the same: but no argument is packed and unpacked, and what is small is
    # done at the gate.
    made: Any = method if Gated is None else Gated(look, plain, name, *at_gate(name))
    made.__wrapped__ = look  # for `inspect`
    return _named(name, made, f"{name} behind a gate. Collective.")


def _gated_init(base: type, name: str) -> Any:
    look = look_at_init(base, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        look(self, *args, **kwargs)
        with signals_held_back(), self.behind_gate(name) as plain:
            request = getattr(plain, name)(*args, **kwargs)
        return pending.adopt(request, self._channel, (args, kwargs))

    return _named(name, method, f"{name} behind a gate. Collective.")


def _starting(base: type, name: str) -> Any:
    plain = getattr(base, name)
    count = _counting(name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        channel = self._begin(name)
        awaited = count(self.tally, args, kwargs)
        try:
            request = plain(self, *args, **kwargs)
        except Exception:
            channel.raise_if_failed(name)  # revoked meanwhile
            raise
        return pending.adopt(request, channel, (args, kwargs), awaited)

    return _named(name, method, f"{name}, returns an interruptible request.")


def _counting(name: str) -> Callable[[Tally, Any, Any], Awaited | None]:
    """Return what counts what is about to be started, and tells what is awaited then."""
    to, of = operations.DEST.get(name), operations.SOURCE.get(name)
    n = MANY if name.endswith("_init") else 1

    def send(tally: Tally, args: Any, kwargs: Any) -> None:
        tally.note_sent(args[to] if len(args) > to else kwargs.get("dest"), n)  # type: ignore[operator]

    def receive(tally: Tally, args: Any, kwargs: Any) -> Awaited:
        source = args[of] if len(args) > of else kwargs.get("source", ANYBODY)  # type: ignore[operator]
        return tally, TO_RECEIVE, source

    def meet(tally: Tally, _args: Any, _kwargs: Any) -> Awaited:
        tally.begun += 1
        return tally, TO_MEET, tally.begun

    def nothing(_tally: Tally, _args: Any, _kwargs: Any) -> None:
        """Count nothing: it is not known when it is started."""

    if to is not None:  # also of those that receive, too: which is waited for?
        return send
    if name in {"Recv_init", "Precv_init"}:
        return nothing
    return meet if of is None else receive


def _deriving(name: str) -> Any:
    look = LOOKS[name]

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        look(self, *args, **kwargs)
        with signals_held_back(), self.behind_gate(name) as plain:
            new = getattr(plain, name)(*args, **kwargs)
            return self._adopt(new)

    return _named(name, method, f"{name} behind a gate; interruptible. Collective.")


def _of_objects(name: str) -> Any:
    if name != "bcast":
        return getattr(objects, name, None) or getattr(trees, name)
    if Broadcast is None:
        return bcast
    method = Broadcast(bcast, broadcast_rest, mpi())
    method.__wrapped__ = bcast  # for `inspect`
    return _named(name, method, bcast.__doc__)


def _translated(base: type, name: str) -> Any:
    """Make a method that is mpi4py's, and tells a revoke from other errors."""
    plain = getattr(base, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._generation != self._channel.generation:
            raise self._channel.stale(name)
        try:
            result = plain(self, *args, **kwargs)
        except Exception:
            # Not only MPI's: a revoked receive may return half a pickle.
            self._channel.raise_if_failed(name)
            raise
        if isinstance(result, self._mpi.Message):
            return pending.adopt_message(result, self._channel)
        return result

    return _named(name, method, f"{name}, interrupted by a revoke.")
