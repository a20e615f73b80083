"""The communicator ``g.comm``: mpi4py's, but a peer's failure interrupts it.

Owns the classes of interruptible communicators, and what all of them have; which
method is of which kind is told by the table in `operations`, what one of each kind does
by `methods`, how to wait by `channel`, how objects travel by `objects`.
::

    Gather(buffers)      look at them (`calls`) -> numbered gate -> mpi4py's Gather
    Allreduce(buffers)   the same; but the gate brings what is small, see `slots`
    Recv(buffer)         Irecv -> wait for it or for a failure
    recv()               look for a message or for a failure -> receive it
    allgather(object)    pickle -> gate -> bytes -> unpickle
    Irecv(buffer)        mpi4py's request, as one that can be interrupted
    Split(), Dup(), ...  look -> gate -> mpi4py's, as one that can be interrupted

Only the gate of a collective can be given up; past it all ranks are inside and
it ends. So what one rank alone may get wrong is looked for before the gate. Where
ULFM is active (`ulfm`), all methods are mpi4py's own with their error translated.

Not interrupted: what other code does with the communicator's handle (C code,
``MPI.Win``, ``MPI.File``), ``MPI.Request.Waitall`` and its like (see `pending`),
and what waits inside a real collective because the ranks' arguments do not match.
"""

# ruff: noqa: D102, N802 - mpi4py's methods, with mpi4py's names and meaning

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from allraise import operations, pending
from allraise.direct import entry, turnstile
from allraise.gates import Gates
from allraise.lane import agreed_ident
from allraise.messaging import Messaging
from allraise.methods import method_of
from allraise.probing import Probing
from allraise.signals import signals_held_back
from allraise.slots import MAX_RANKS, Slots
from allraise.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.channel import Channel
    from allraise.ulfm import RevokeChannel


def communicator(channel: Channel | RevokeChannel) -> MPI.Intracomm:
    """Return ``g.comm``: the channel's lane, interruptible. Not collective.

    The same object until the channel is drained; then the old one raises at once,
    whatever is called, and a new one is to be asked for.
    """
    if channel.lane is None:
        message = (
            "g.comm: MPI has no communicator left; each failed region that exchanged "
            "messages on g.comm has used up one"
        )
        raise RuntimeError(message)
    if channel.cached is None:
        channel.cached = _wrap(channel.lane, channel, channel.gates[0])
    return channel.cached  # type: ignore[no-any-return]


def _wrap(comm: Any, channel: Any, gates: Gates) -> Any:
    from mpi4py import MPI

    topologies = (MPI.Cartcomm, MPI.Graphcomm, MPI.Distgraphcomm)
    base: type = next((t for t in topologies if isinstance(comm, t)), MPI.Intracomm)
    mine = _class(base, revokes=channel.revokes)(comm)
    mine._channel = channel  # noqa: SLF001
    mine._gates = gates  # noqa: SLF001
    mine._generation = channel.generation  # noqa: SLF001
    mine.tally = Tally(gates.ident, comm)
    gates.tallies.append(mine.tally)
    mine._run_on(comm)  # noqa: SLF001
    return mine


@functools.cache
def _class(base: type, *, revokes: bool) -> type:
    """Make the interruptible class of one of mpi4py's."""
    from mpi4py import MPI

    # mpi4py's class must come first among the bases, and its methods would win: so
    # all that is ours is put into the class itself.
    written = dict(vars(Interruptible))
    if not revokes:
        written.update(vars(Probing) | vars(Messaging))
    namespace = {k: v for k, v in written.items() if not k.startswith("__")}
    for name in dir(base):
        if not (name.startswith("_") or name in operations.LOCAL or name in written):
            namespace[name] = method_of(base, name, revokes=revokes)
    namespace["_mpi"] = MPI
    namespace["__doc__"] = f"An interruptible {base.__name__}."
    return type("Interruptible" + base.__name__, (base,), namespace)


class BehindGate:
    """Runs a block on the plain communicator once all ranks are there.

    Collective over the communicator. The block must not raise before it has made
    its MPI calls, so it stands in one of `signals_held_back`.
    """

    __slots__ = ("_comm", "_late", "_operation")

    def __init__(self, comm: Any, operation: str) -> None:
        self._comm = comm
        self._operation = operation
        self._late: BaseException | None = None

    def __enter__(self) -> Any:
        self._late = self._comm.pass_gate(self._operation)
        return self._comm.plain

    def __exit__(self, *exc_info: object) -> None:
        channel = self._comm._channel  # noqa: SLF001
        if channel.revokes and exc_info[0] is not None:
            channel.raise_if_failed(self._operation)
        if self._late is not None:
            raise self._late


class Interruptible:
    """What all interruptible communicators have; copied into each class."""

    _channel: Any
    _gates: Gates
    _generation: int
    _mpi: Any
    _start: Callable[[], MPI.Request]
    gate: Callable[[Any, str], BaseException | None]  # `pass_gate`, but quicker
    plain: Any  # mpi4py's communicator of the same handle
    tally: Tally  # of the messages on it
    _hidden: tuple[Any, Tally] | None = None
    sizes: Any = None  # see objects
    slots: Slots | None = None

    def _run_on(self, comm: Any) -> None:
        """Have a communicator of mpi4py's, and the gates of it. Not collective."""
        self.plain = comm
        self.slots = None
        if comm and comm.size <= MAX_RANKS and not self._channel.revokes:
            self.slots = Slots(comm.size)
        self._start = entry(comm, self.slots)
        self.gate = turnstile(self._channel, self._gates, self._start)

    def _begin(self, operation: str) -> Any:
        """Raise where the region has failed; else the channel is in use."""
        channel = self._channel
        if self._generation != channel.generation:
            raise channel.stale(operation)
        if channel.failed or channel.enclosing:
            channel.raise_if_failed(operation)
        channel.used = True
        return channel

    def pass_gate(self, operation: str, start: Any = None) -> BaseException | None:
        """Pass a gate of this communicator, see `Channel.pass_gate`. Collective."""
        channel = self._channel
        if self._generation != channel.generation:
            raise channel.stale(operation)
        start = self._start if start is None else start
        return channel.pass_gate(start, self._gates, operation)  # type: ignore[no-any-return]

    def wait_at_gate(
        self, operation: str, begun: list[MPI.Request], late: BaseException | None
    ) -> BaseException | None:
        """Pass a gate that `gate` has begun, see `Channel.pass_gate`. Collective."""
        gates, start = self._gates, self._start
        return self._channel.pass_gate(start, gates, operation, begun, late)  # type: ignore[no-any-return]

    def knows_failure(self) -> bool:
        """Tell whether a rank is known to have failed here. Not collective."""
        channel = self._channel
        return channel.failed or any(c.has_failed_around for c in channel.enclosing)

    def behind_gate(self, operation: str) -> BehindGate:
        """Return a context to run a block in once all ranks are there."""
        return BehindGate(self, operation)

    def hidden(self, operation: str) -> tuple[Any, Any, Tally]:
        """Return the channel, the duplicate for trees of objects, and its tally.

        Collective over the communicator.
        """
        if self._hidden is None:
            with signals_held_back(), self.behind_gate(operation) as plain:
                made = plain.Dup()
                self._hidden = made, Tally(self._gates.ident + 1, made)
            self._channel.derived.append(made)
            self._gates.tallies.append(self._hidden[1])
        return self._begin(operation), *self._hidden

    def _adopt(self, new: Any) -> Any:
        """Return a derived communicator as an interruptible one. Collective."""
        channel = self._channel
        channel.used = True
        mine = new
        if new:
            gates = Gates(agreed_ident(new))
            channel.gates.append(gates)
            channel.derived.append(new)
            if channel.revokes:
                channel.adopt(new)
            mine = _wrap(new, channel, gates)
        if channel.revokes:
            self.plain.Barrier()  # nobody revokes it while it is being made
        return mine

    def Free(self) -> None:
        """Free a communicator derived from g.comm. Collective."""
        channel = self._channel
        if self._gates is channel.gates[0] or self._generation != channel.generation:
            message = "g.comm is not the caller's to free"
            raise ValueError(message)
        with signals_held_back(), self.behind_gate("Free") as plain:
            channel.gates = [g for g in channel.gates if g is not self._gates]
            channel.forget(plain)
            if self._hidden is not None:
                channel.forget(self._hidden[0])
                self._hidden[0].Free()
            self.tally.comm = self._mpi.COMM_NULL
            self._run_on(self._mpi.COMM_NULL)
            type(plain).Free(self)  # so that this one, too, is null

    Disconnect = free = Free

    # Of several requests; see `pending` why not MPI.Request's.

    def Waitall(self, requests: Any, statuses: Any = None) -> Any:
        return pending.classes().Request.Waitall(requests, statuses)

    def waitall(self, requests: Any, statuses: Any = None) -> Any:
        return pending.classes().Request.waitall(requests, statuses)

    def Waitany(self, requests: Any, status: Any = None) -> Any:
        return pending.classes().Request.Waitany(requests, status)

    def waitany(self, requests: Any, status: Any = None) -> Any:
        return pending.classes().Request.waitany(requests, status)

    def Waitsome(self, requests: Any, statuses: Any = None) -> Any:
        return pending.classes().Request.Waitsome(requests, statuses)

    def waitsome(self, requests: Any, statuses: Any = None) -> Any:
        return pending.classes().Request.waitsome(requests, statuses)
