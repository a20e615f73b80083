"""The channel where ULFM is really active: the failing rank revokes.

Open MPI 5 wakes every rank that is blocked on a revoked communicator, at no
price on the success path; no messages, no gates. It does so only where fault
tolerance was switched on by whoever launched the job. Having the method means
nothing: without fault tolerance ``Revoke`` returns success and wakes nobody,
elsewhere it is not there, emulated or aborts the job. So `is_active` tries it.
::

    failing rank                   a rank blocked on the lane
    ------------                   --------------------------
    announce(): Revoke(lane) ----> MPI error; is the lane revoked?
                                   announce(), raise interruption
    agreement <==== Allreduce on private, by the caller ====> agreement
    drain()   <====  a new lane, Barrier on private     ====> drain()

Its traps, each met in stress runs on Open MPI 5.0.11:

- a revoke while a peer is still inside the ``Dup`` that makes the communicator is
  a segmentation fault: every creation is followed by a barrier on another one;
- the lowercase reductions of mpi4py run on a duplicate it hides: that one is made
  with the lane, and revoked with it;
- a revoked operation may return as if it had succeeded, with half the data: any
  exception on a revoked communicator is taken for an interruption;
- error classes are unreliable (16, 18, 75, 77 for the same revoke): the
  communicator is asked instead;
- ``Waitall`` over a receive and a large send aborts the job when it is revoked:
  the requests are waited for one by one.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from allraise.channel import Channel
from allraise.lane import LEAKED, Lane, agreed_ident

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpi4py import MPI

    from allraise.gates import Gates
    from allraise.lane import Interruption
    from allraise.tally import Awaited

PROBE_TESTS = 1000  # a revoked receive raises at the second Test


@functools.cache
def is_active() -> bool:
    """Whether a revoke wakes pending operations here. Not collective.

    Some 200 microseconds, once per process, on a communicator of this rank alone.
    """
    from mpi4py import MPI

    # Intel MPI returns success and crashes later; MPICH's is switched off.
    if not MPI.Get_library_version().startswith("Open MPI"):
        return False
    comm = MPI.COMM_SELF.Dup()
    pending = comm.Irecv(bytearray(1), source=0)
    # Has a pending receive at the end, so it is never freed.
    LEAKED.extend((comm, pending))
    try:
        comm.Revoke()
    except NotImplementedError:  # Open MPI 4
        pending.Cancel()
        pending.Wait()
        comm.Free()
        return False
    try:
        for _ in range(PROBE_TESTS):
            pending.Test()
    except MPI.Exception:
        return True
    return False


def make_channels(
    private: MPI.Intracomm,
    lane: MPI.Intracomm,
    ident: int,
    interruption: Interruption,
    *,
    revokes: bool,
) -> tuple[Channel | RevokeChannel, Channel]:
    """Make the channel that works here, and the one by messages.

    Collective over `private` where it revokes, else not collective.

    Args:
        private: this library's own communicator.
        lane: a duplicate for the users of ``g.comm``.
        ident: names the lane, the same on all ranks.
        interruption: makes the exception that a woken rank raises.
        revokes: whether `is_active` on all ranks.

    Returns:
        The channel of the lane, and one that can be waited for together with an
        operation on another communicator: the same one, unless a revoke wakes.
    """
    if not revokes:
        channel = Channel(private, lane, ident, interruption)
        return channel, channel
    # Its gates are never used; it needs a number of its own all the same.
    beacon = Channel(private, None, ident ^ 1, interruption)
    return RevokeChannel(private, lane, ident, interruption), beacon


class RevokeChannel(Lane):
    """Wakes and is woken by a revoke. Collective over `private`.

    Takes the arguments of `Channel` and has its interface. The rank that failed
    is not known to those it wakes: they are told `lane.UNKNOWN`.
    """

    revokes = True
    needs_relay = False
    _adopted: list[tuple[MPI.Intracomm, MPI.Intracomm]]  # with mpi4py's below

    def __init__(
        self,
        private: MPI.Intracomm,
        lane: MPI.Intracomm,
        ident: int,
        interruption: Interruption,
    ) -> None:
        self.enclosing: tuple[RevokeChannel, ...] = ()
        super().__init__(private, lane, ident, interruption)
        self.adopt(lane)
        # Nobody may revoke it before all have left the Dup that made it.
        private.Barrier()

    def make_lane(self, ident: int) -> None:
        """Make a lane. Collective over `private`."""
        lane = self.private.Dup()
        self.lane = lane
        self.renew(ident)
        self.adopt(lane)
        # Nobody may revoke it before all have left the Dup that made it.
        self.private.Barrier()

    def adopt(self, comm: MPI.Intracomm) -> None:
        """Revoke this communicator too, and mpi4py's below it.

        Collective over `comm`. To be followed by a barrier on another one.
        """
        from mpi4py import MPI

        hidden, _tag = MPI._commctx_intra(comm)  # noqa: SLF001
        self._adopted.append((comm, hidden))

    def forget(self, comm: MPI.Intracomm) -> None:
        """Forget a derived communicator that is about to be freed. Not collective."""
        super().forget(comm)
        self._adopted = [pair for pair in self._adopted if pair[0] != comm]

    def revocable(self) -> list[MPI.Intracomm]:
        """Return all communicators that a failure here revokes. Not collective."""
        return [comm for pair in self._adopted for comm in pair]

    def renew(self, ident: int) -> None:
        """Begin a new generation. Not collective."""
        super().renew(ident)
        self._adopted = []

    # -- waiting: not collective, one rank's part of it --------------------------

    def translated(self, operation: str, function: Callable[[], Any]) -> Any:
        """Call a function, and raise the interruption where it was revoked."""
        try:
            return function()
        except Exception:  # not only MPI's: a revoked receive may return half a pickle
            self.raise_if_failed(operation)
            raise

    def wait(
        self,
        request: MPI.Request,
        operation: str,
        status: MPI.Status | None = None,
        awaited: Awaited | None = None,  # noqa: ARG002
    ) -> None:
        """Wait for an operation of this rank, or raise the interruption."""
        from mpi4py import MPI

        plain = MPI.Request.Wait  # the request may be of a class that calls this
        self.translated(operation, lambda: plain(request, status))

    def wait_first(
        self,
        waitany: Callable[..., Any],
        requests: Sequence[MPI.Request],
        operation: str,
        status: MPI.Status | None,
    ) -> Any:
        """Do what `waitany` does (``Waitany`` or ``waitany``), or raise."""
        return self.translated(operation, lambda: waitany(requests, status))

    def wait_some(
        self,
        waitsome: Callable[..., Any],
        requests: Sequence[MPI.Request],
        operation: str,
        statuses: list[MPI.Status],
    ) -> list[tuple[int, MPI.Status, Any]]:
        """Wait until some of the requests are done, or raise."""
        result = self.translated(operation, lambda: waitsome(requests, statuses))
        places, objects = result if isinstance(result, tuple) else (result, None)
        return [
            (i, statuses[k], objects and objects[k]) for k, i in enumerate(places or ())
        ]

    def wait_all(
        self,
        lowercase: bool,  # noqa: FBT001
        requests: Sequence[MPI.Request],
        operation: str,
    ) -> list[tuple[MPI.Status, Any]]:
        """Wait for all requests, or raise; returns statuses and objects."""
        from mpi4py import MPI

        wait = MPI.Request.wait if lowercase else MPI.Request.Wait
        results = []
        for request in requests:
            status = MPI.Status()
            obj = self.translated(operation, functools.partial(wait, request, status))
            results.append((status, obj))
        return results

    def pass_gate(
        self,
        start: Callable[[], MPI.Request],  # noqa: ARG002
        gates: Gates,  # noqa: ARG002
        operation: str,
    ) -> None:
        """Do nothing but look: the collective itself can be woken."""
        self.raise_if_failed(operation)

    def hear(self) -> bool:
        """Do nothing: a revoke is not told, it is found. Not collective."""
        return False

    def poll(self, operation: str) -> bool:
        """Look once whether a peer has failed, and raise if so."""
        self.raise_if_failed(operation)
        return False

    def relay_until(self, request: MPI.Request) -> None:
        """Wait for a request; there is nothing to pass on."""
        request.Wait()

    def raise_if_failed(self, operation: str) -> None:
        """Raise the interruption where a communicator was revoked."""
        channels = (self, *self.enclosing)
        for k in reversed(range(len(channels))):
            channel = channels[k]
            if channel.failed or any(c.Is_revoked() for c in channel.revocable()):
                channel.failed = True
                # A communicator derived from the lane was perhaps not revoked by
                # the failing rank, if that one is not in it.
                channel.announce(channels[:k])
                raise self.interruption(channel.failed_rank, operation)

    # -- announcing and after ----------------------------------------------------

    def announce(self, inner: Sequence[RevokeChannel] = ()) -> None:
        """Revoke what this rank communicates on. Not collective, never waits.

        Args:
            inner: channels whose group lies within this one's, given up with it.
        """
        if not self.failed:
            self.failed, self.failed_rank = True, self.rank
        for channel in (self, *inner):
            for comm in channel.revocable():
                if not comm.Is_revoked():
                    comm.Revoke()

    def drain(self) -> None:
        """Make a new lane, and be as new.

        Collective over `private`, to be called by every rank right after an
        agreement that says that a rank has failed.
        """
        ident = agreed_ident(self.private)
        LEAKED.extend(self.revocable())
        self.replace_lane(ident)
