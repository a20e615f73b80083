"""Waiting for an operation or for a failure, whichever comes first.

Owns the waiting of a rank on a lane (`lane`), which a message on the channel
(`channel`, the subclass) interrupts::

    wait           one operation    Waitany([request, listen])
    poll           none             Test(listen)

Of several operations see `several`. Which waiting shares a core with other ranks is known
to `polling`; gates are the business of `passage`. Not collective: each is one rank's part
of an operation.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from allraise.direct import look
from allraise.gates import Announced, Gates
from allraise.lane import LEAKED, Lane
from allraise.polling import way_to, way_to_look
from allraise.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from mpi4py import MPI

    from allraise.lane import Interruption
    from allraise.tally import Awaited

    # A gate, or what else is waited for: all of these.
    Place = Gates | Sequence[Awaited]


# Where ranks may come to wait for each other, a rank tells all others where it stands if
# it waits for so long: to tell it takes as long as a hundred messages.
PATIENCE_S = 0.005


def _never_look(_channel: Waits, _place: Place, *, tells: bool) -> None:
    """Look nowhere: this is not the outermost."""


class Beside:
    """A channel that is listened to so that its ranks pass on what they hear.

    For a region that is open, and does not contain what this rank waits for: its
    failure ends nothing here, but others may hear of it from this rank alone.

    Not collective.
    """

    has_failed_around = False
    gates = ()

    def __init__(self, channel: Waits) -> None:
        self._channel = channel

    @property
    def listen(self) -> MPI.Prequest:
        """Completes when a peer has something to tell."""
        return self._channel.listen

    def read(self) -> None:
        """Take in what was received, and pass it on."""
        self._channel.read()

    def hear(self) -> bool:
        """Take in what peers have told so far, if anything."""
        return self._channel.hear()


class Waits(Lane):
    """A lane whose waiting is interrupted through `listen`.

    Collective over `private`.
    """

    listen: MPI.Prequest  # completes when a peer has something to tell

    def __init__(
        self,
        private: MPI.Intracomm,
        lane: MPI.Intracomm | None,
        ident: int,
        interruption: Interruption,
    ) -> None:
        super().__init__(private, lane, ident, interruption)
        self.announced = Announced()
        #: channels of enclosing guards whose group contains this one's, inner first;
        #: before them those that are passed on alone
        self.enclosing: tuple[Any, ...] = ()
        #: what is known of who waits for whom, where this is the outermost
        self.standing = Standing()
        #: of the agreements here within regions elsewhere, where it is that
        self.door = Gates(ident ^ 2)
        #: looks where this rank stands, and waits for what
        self.look: Callable[..., None] = _never_look
        self._waitany = way_to("Waitany")
        self._testany = way_to_look("Waitany")[0]
        #: tells whether a request is done, after a few looks
        self.is_done = look()

    def read(self) -> None:
        """Take in what `listen` has received, and listen again. Not collective."""
        raise NotImplementedError

    def announce(self, inner: Sequence[Waits] = (), depth: int = 0) -> None:
        """Tell the peers that this rank stops. Not collective."""
        raise NotImplementedError

    def wait(
        self,
        request: MPI.Request,
        operation: str,
        status: MPI.Status | None = None,
        awaited: Awaited | None = None,
    ) -> None:
        """Wait for an operation of this rank, or raise the interruption."""
        if self.failed or self.enclosing:
            self._give_up_if_failed([request], operation)
        try:
            if status is None and self.is_done(request):
                return
            watched = [request, self.listen]
            if self.enclosing:
                watched += [channel.listen for channel in self.enclosing]
            while i := (
                self._next(watched, status, awaited, operation)
                if self.standing.is_active or self.enclosing
                else self._waitany(watched, status)
            ):
                (self, *self.enclosing)[i - 1].read()
                self._give_up_if_failed([], operation)
        except BaseException:  # a signal's handler may raise as well
            LEAKED.append(request)
            raise

    def hear(self) -> bool:
        """Take in what peers have told so far, if anything. Never waits."""
        heard = False
        while self.listen.Test():
            heard = True
            self.read()
        return heard

    def poll(self, operation: str) -> bool:
        """Look once whether a peer has failed, and raise if so.

        Returns:
            Whether a peer had something to tell.
        """
        heard = [channel.hear() for channel in (self, *self.enclosing)]
        self.raise_if_failed(operation)
        return any(heard)

    def relay_until(self, request: MPI.Request) -> None:
        """Wait for a request, passing on what is heard; never interrupted.

        For the agreement, where `needs_relay`.
        """
        watched = [request, *self._listens()]
        while i := self._waitany(watched):
            (self, *self.enclosing)[i - 1].read()

    def raise_if_failed(self, operation: str) -> None:
        """Raise the interruption where a failure is known already."""
        self._give_up_if_failed([], operation)

    def _listens(self) -> list[MPI.Request]:
        return [self.listen, *(channel.listen for channel in self.enclosing)]

    def _next(
        self,
        watched: list[MPI.Request],
        status: MPI.Status | None,
        awaited: Awaited | None,
        operation: str,
    ) -> int:
        """Wait as ``Waitany`` does, and tell where this rank stands if it takes long."""
        i = self._wait_a_while(watched, status) if self._looks() else -1
        if i < 0:
            self.look_for_one(awaited, operation)
            i = self._waitany(watched, status)
        return i

    def _wait_a_while(
        self, watched: list[MPI.Request], status: MPI.Status | None = None
    ) -> int:
        """Wait as ``Waitany`` does, but not for long; return -1 if nothing has come."""
        until = time.perf_counter() + PATIENCE_S
        while True:
            place, is_done = self._testany(watched, status)
            if is_done:
                return place  # type: ignore[no-any-return]
            if time.perf_counter() > until:
                return -1
            os.sched_yield()

    def look_for_one(self, awaited: Awaited | None, operation: str) -> None:
        """Look where this rank stands, and give up if it must. Not collective."""
        self._look(() if awaited is None else (awaited,))
        self._give_up_if_failed([], operation)

    def _looks(self) -> bool:
        """Whether it may matter where this rank stands."""
        outermost = self.enclosing[-1] if self.enclosing else self
        return outermost.standing.is_active  # type: ignore[no-any-return]

    def _look(self, place: Place, *, tells: bool = True) -> None:
        if self._looks():
            (self, *self.enclosing)[-1].look(self, place, tells=tells)

    def _give_up_if_failed(self, abandoned: Sequence[object], operation: str) -> None:
        # Receives and sends are given up for any failure: it woke the peer too.
        if self.failed or any(c.has_failed_around for c in self.enclosing):
            self._give_up(abandoned, operation)

    def _give_up(
        self, abandoned: Sequence[object], operation: str, outer: int = 0
    ) -> NoReturn:
        LEAKED.extend(abandoned)
        channels = (self, *self.enclosing)
        # Where an enclosing guard has failed, this rank stops for that one.
        for i, channel in enumerate(channels):
            if i > outer and channel.has_failed_around:
                outer = i
        channels[outer].announce(channels[:outer])
        raise self.interruption(channels[outer].failed_rank, operation)
