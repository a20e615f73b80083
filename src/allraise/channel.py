"""The error channel: how a failing rank wakes those that wait for it.

Owns one tag of the private communicator handed to it, and the waiting that a
message on it interrupts. Knows gates (`gates`) and the lane (`lane`), nothing of
exceptions: what a woken rank raises is made by a function it is given.
::

    failing rank                    a rank blocked on the lane
    ------------                    --------------------------
    announce()                      Waitany([operation, listen])
      Isend(private, TAG) --------->  listen completes: read, pass on, listen
                                      gate that will open?  wait on
                                      otherwise  announce(), raise interruption
    agreement <===== Allreduce on private, by the caller =====> agreement
    drain()   <== every rank receives exactly what was sent to it ==> drain()
              <==   a new lane where the old one may be dirty     ==>

**Who is told.** Up to `DIRECT_LIMIT` ranks, a rank tells all others itself. Above,
it tells its neighbours rank +- 2^k, and each passes on what is news to it, as in
the reliable broadcast of ULFM's revoke (Bosilca et al.): P failures cost of the
order of P log P messages. A rank passes on only while it looks at the channel: so
where `Channel.needs_relay`, ranks wait for their agreement with
`Channel.relay_until`, or a rank behind them is never woken.

A channel is used by one thread at a time.
"""

from __future__ import annotations

import atexit
import functools
import weakref
from array import array
from typing import TYPE_CHECKING, Any

from allraise.gates import Announced, new_ident
from allraise.lane import LEAKED, UNKNOWN, Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from mpi4py import MPI

    from allraise.gates import Gates
    from allraise.lane import Interruption

TAG = 1201  # of announcements, on the private communicator
DIRECT_LIMIT = 64  # ranks; 63 small sends cost a failing rank some 30 us

# A message: the rank that failed first, how many pairs follow, then pairs of
# (communicator, gates entered). Long lists go in several messages.
HEAD = 2
MAX_PAIRS = 31
WORDS = HEAD + 2 * MAX_PAIRS


_OPEN: weakref.WeakSet[Channel] = weakref.WeakSet()


class Channel(Lane):
    """Wakes and is woken through messages. Collective over `private`.

    Args:
        private: this library's own communicator, on which tag `TAG` is left to
            the channel.
        interruption: called as ``interruption(rank, operation)`` in a woken rank,
            with the rank of `private` that failed first and what was given up,
            returns the exception to raise.
    """

    def __init__(self, private: MPI.Intracomm, interruption: Interruption) -> None:
        from mpi4py import MPI

        super().__init__(private, interruption)
        self._waitany = MPI.Request.Waitany  # what subclasses of Request override
        #: channels of enclosing guards whose group contains this one's, inner first
        self.enclosing: tuple[Channel, ...] = ()
        self.needs_relay = self.size > DIRECT_LIMIT
        self.announced = Announced()
        self._told = told_ranks(self.rank, self.size)
        self._n_sent = array("q", bytes(8 * self.size))
        self._n_received = 0
        self._sends: list[MPI.Request] = []
        # Persistent, so that lists of requests to wait for stay valid.
        self._message = array("q", [UNKNOWN]) * WORDS
        self.listen: MPI.Prequest = private.Recv_init(self._message, tag=TAG)
        self.listen.Start()
        _OPEN.add(self)
        _stop_at_exit()

    # -- waiting: not collective, one rank's part of it ---------------------------

    def wait(
        self, request: MPI.Request, operation: str, status: MPI.Status | None = None
    ) -> None:
        """Wait for an operation of this rank, or raise the interruption."""
        if self.failed or self.enclosing:
            self._give_up_if_failed([request], operation)
        watched = [request, self.listen]
        if self.enclosing:
            watched += [channel.listen for channel in self.enclosing]
        # Inside MPI and without the GIL. Loops of Test are 40-200 times slower
        # under MPICH when cores are busy.
        try:
            while i := self._waitany(watched, status):
                self._heard(i - 1)
                self._give_up_if_failed([], operation)
        except BaseException:  # a signal's handler may raise as well
            LEAKED.append(request)
            raise

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
        while True:
            result = waitany(watched, status)
            i = result[0] if isinstance(result, tuple) else result
            if i < len(requests):
                return result
            self._heard(i - len(requests))
            self._give_up_if_failed(requests, operation)

    def wait_some(
        self,
        waitsome: Callable[..., Any],
        requests: Sequence[MPI.Request],
        operation: str,
        statuses: list[MPI.Status],
    ) -> list[tuple[int, MPI.Status, Any]]:
        """Wait until some of the requests are done, or raise.

        Returns:
            For each that is done its place in `requests`, its status, and its
            object where `waitsome` is the lowercase one.
        """
        self._give_up_if_failed(requests, operation)
        watched = [*requests, *self._listens()]
        while True:
            result = waitsome(watched, statuses)
            places, objects = result if isinstance(result, tuple) else (result, None)
            done = []
            for k, i in enumerate(places):
                if i < len(requests):
                    done.append((i, statuses[k], objects and objects[k]))
                else:
                    self._heard(i - len(requests))
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

        waitsome = MPI.Request.waitsome if lowercase else MPI.Request.Waitsome
        results = [(MPI.Status(), None) for _ in requests]
        waiting = [i for i, request in enumerate(requests) if request]
        while waiting:
            rest = [requests[i] for i in waiting]
            done = self.wait_some(waitsome, rest, operation, [])
            for i, status, obj in done:
                results[waiting[i]] = (status, obj)
            gone = {i for i, _, _ in done}
            waiting = [i for k, i in enumerate(waiting) if k not in gone]
        return results

    def pass_gate(
        self, start: Callable[[], MPI.Request], gates: Gates, operation: str
    ) -> BaseException | None:
        """Return when all ranks have entered this gate, or raise.

        Collective over the communicator of the gate. It returns on every rank or
        on none.

        Args:
            start: starts the gate: ``Ibarrier`` or another collective that ends
                nowhere before all have entered it.
            gates: of the communicator.
            operation: named in the interruption.

        Returns:
            What a signal's handler raised meanwhile, to be raised after the
            collective: the others are in it already.
        """
        gates.entered += 1
        if self.failed or self.enclosing:
            self._give_up_if_closed(gates, [], operation)
        gate = start()
        watched = [gate, self.listen]
        if self.enclosing:
            watched += [channel.listen for channel in self.enclosing]
        try:
            while i := self._waitany(watched):
                self._heard(i - 1)
                self._give_up_if_closed(gates, [gate, start], operation)
        except BaseException as exc:
            if gate:
                LEAKED.extend((gate, start))  # it holds the gate's buffers
                raise
            return exc
        return None

    def poll(self, operation: str) -> None:
        """Look once whether a peer has failed, and raise if so."""
        for channel in (self, *self.enclosing):
            if channel.listen.Test():
                channel.read()
        self.raise_if_failed(operation)

    def relay_until(self, request: MPI.Request) -> None:
        """Wait for a request, passing on what is heard; never interrupted.

        For the agreement, where `needs_relay`.
        """
        watched = [request, *self._listens()]
        while i := self._waitany(watched):
            self._heard(i - 1)

    def raise_if_failed(self, operation: str) -> None:
        """Raise the interruption where a failure is known already."""
        self._give_up_if_failed([], operation)

    def _listens(self) -> list[MPI.Request]:
        return [self.listen, *(channel.listen for channel in self.enclosing)]

    def _heard(self, i: int) -> None:
        (self, *self.enclosing)[i].read()

    def _give_up_if_failed(
        self, abandoned: Sequence[object], operation: str
    ) -> None:
        # Receives and sends are given up for any failure: it woke the peer too.
        if self.failed or any(channel.failed for channel in self.enclosing):
            self._give_up(abandoned, operation)

    def _give_up_if_closed(
        self, gates: Gates, abandoned: Sequence[object], operation: str
    ) -> None:
        channels = (self, *self.enclosing)
        if any(channel.announced.closes(gates) for channel in channels):
            self._give_up(abandoned, operation)

    def _give_up(self, abandoned: Sequence[object], operation: str) -> NoReturn:
        LEAKED.extend(abandoned)
        channels = (self, *self.enclosing)
        # Where an enclosing guard has failed, this rank stops for that one.
        outer = max(i for i, channel in enumerate(channels) if channel.failed)
        channels[outer].announce(channels[:outer])
        raise self.interruption(channels[outer].failed_rank, operation)

    # -- announcing ----------------------------------------------------------------

    def announce(self, inner: Sequence[Channel] = ()) -> None:
        """Tell the peers that this rank stops here. Not collective, never waits.

        What the peers know already is not told again, so it may be called any
        number of times.

        Args:
            inner: channels whose group lies within this one's. They are given up
                with it, so their gates are told too.
        """
        if not self.failed:
            self.failed, self.failed_rank = True, self.rank
        numbers = {
            gates.ident: gates.entered
            for channel in (self, *inner)
            for gates in channel.gates
        }
        self._tell(self.announced.learn(numbers))

    def read(self) -> None:
        """Take in the message that was received, and listen for the next."""
        message = self._message.tolist()
        self._message[0] = UNKNOWN
        self.listen.Start()
        rank, n_pairs, *pairs = message
        if rank == UNKNOWN:
            return
        self._n_received += 1
        if not self.failed:
            self.failed, self.failed_rank = True, rank
        pairs = pairs[: 2 * n_pairs]
        numbers = dict(zip(pairs[::2], pairs[1::2], strict=True))
        news = self.announced.learn(numbers)
        if self.needs_relay:
            self._tell(news)

    def _tell(self, news: dict[int, int]) -> None:
        pairs = list(news.items())
        for i in range(0, len(pairs), MAX_PAIRS):
            part = pairs[i : i + MAX_PAIRS]
            message = array("q", [self.failed_rank, len(part)])
            for pair in part:
                message.extend(pair)
            for rank in self._told:
                # Small enough to leave at once; held until drain() all the same.
                self._sends.append(self.private.Isend(message, rank, TAG))
                self._n_sent[rank] += 1

    # -- after the agreement -------------------------------------------------------

    def drain(self) -> None:
        """Receive what is still under way, and be as new.

        Collective over `private`, to be called by every rank right after an
        agreement that says that a rank has failed. Communicators taken from the
        lane before raise at once from now on.
        """
        from mpi4py import MPI

        self.needs_relay, needs_relay = False, self.needs_relay  # counts are final
        n_expected = array("q", [0])
        self.private.Reduce_scatter_block(self._n_sent, n_expected)
        # A signal may have come between the receipt of a message and its reading.
        if self.listen.Test():
            self.read()
        while self._n_received < n_expected[0]:
            self.listen.Wait()
            self.read()
        MPI.Request.Waitall(self._sends)
        # The lane is clean if nothing but gates took place on it, and all ranks
        # have entered all of them.
        entered = self.gates[0].entered
        mine = array("q", [self.used, entered, -entered, new_ident()])
        most = array("q", bytes(8 * len(mine)))
        # It also keeps every rank here until all have received everything, so
        # that a next region's announcement is not taken for one of this region.
        self.private.Allreduce(mine, most, MPI.MAX)
        self.announced = Announced()
        self._n_sent = array("q", bytes(8 * self.size))
        self._n_received = 0
        self._sends.clear()
        self.needs_relay = needs_relay
        if most[0] or most[1] != -most[2]:
            self.leak()
            self.make_lane(most[3])
        else:
            self.renew(most[3])

    def close(self) -> None:
        """Stop listening and free the lane, before `private` is freed.

        Collective over `private`.
        """
        self.stop_listening()
        super().close()

    def stop_listening(self) -> None:
        """Cancel the receive that is always under way. Not collective."""
        _OPEN.discard(self)
        self.listen.Cancel()
        self.listen.Wait()
        self.listen.Free()


@functools.cache
def _stop_at_exit() -> None:
    # Some transports complain about a receive that is under way at MPI_Finalize,
    # which mpi4py calls after the functions registered here.
    atexit.register(_stop_all)


def _stop_all() -> None:
    from mpi4py import MPI

    if not MPI.Is_finalized():
        for channel in list(_OPEN):
            channel.stop_listening()


def told_ranks(rank: int, size: int) -> list[int]:
    """Return the ranks that a rank tells what is news to it."""
    if size <= DIRECT_LIMIT:
        return [other for other in range(size) if other != rank]
    steps = [1 << k for k in range(size.bit_length()) if 1 << k < size]
    near = {(rank + sign * step) % size for step in steps for sign in (1, -1)}
    return sorted(near - {rank})
