"""Passing a numbered gate, which all ranks do or none.

Owns the one place where a rank waits for all others, and may be told meanwhile that
one of them will not come (see `gates`)::

    look who has failed, and whether there is room
    start the gate ------ Waitany([gate, listen]) ------> all are there
      |                   | a message: take it in ------> or closed: raise
      v
    from here the others count on this rank: the stack gets room, and what a
    signal's handler raises waits until the collective behind the gate is over

Collective over the communicator of the gate.
"""

from __future__ import annotations

from sys import getrecursionlimit
from typing import TYPE_CHECKING

from allraise.chains import is_of_mpi
from allraise.lane import LEAKED
from allraise.plain import begin_gate
from allraise.polling import be_as_deep
from allraise.several import WaitsForSeveral
from allraise.signals import MAX_TRIES, ROOMS, room_on_the_stack, take_room_back

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpi4py import MPI

    from allraise.gates import Gates


class Passage(WaitsForSeveral):
    """Waiting that knows gates too. Collective over `private`."""

    def pass_gate(  # noqa: C901, PLR0912, PLR0915 one piece, as signals may come with each call
        self,
        start: Callable[[], MPI.Request],
        gates: Gates,
        operation: str,
        begun: list[MPI.Request] | None = None,
        late: BaseException | None = None,
    ) -> BaseException | None:
        """Return when all ranks have entered this gate, or raise.

        Collective over the communicator of the gate. It returns on every rank or
        on none.

        Args:
            start: starts the gate: ``Ibarrier`` or another collective that ends
                nowhere before all have entered it.
            gates: of the communicator.
            operation: named in the interruption.
            begun: the gate, where it was entered already, and nothing was special
                then; the list is made longer once this is at work.
            late: what a signal's handler has raised since.

        Returns:
            What a signal's handler raised meanwhile, to be raised after the
            collective: the others are in it already.
        """
        watched: list[MPI.Request] = [] if begun is None else begun
        listens: Sequence[MPI.Request] = (self.listen,)
        closed: int | None = None
        has_room, n_tries = False, 0
        gates.entered += begun is None
        while True:
            try:
                if watched is begun:
                    begun = None
                    watched += listens
                    if not self._waitany(watched):
                        return late
                elif not watched:
                    looks = False
                    if self.standing.is_active or self.enclosing:
                        looks = self._looks()
                        self._look(gates, tells=False)
                    if self.failed or self.enclosing:
                        self._tell_if_over(gates)
                        by = self._closed_by(gates)
                        if by >= 0:
                            self._give_up([], operation, by)
                    if self.enclosing:
                        listens = self._listens()
                    # A rank at the end of its stack is to find that out before the
                    # others count on it.
                    be_as_deep()
                    if begin_gate(start, watched):
                        return None
                    watched += listens
                    if not looks and not self._waitany(watched):
                        return None
                if late is not None and (n_tries > MAX_TRIES or is_of_mpi(late)):
                    break
                if closed is None:
                    # To take in a message takes calls: `be_as_deep` came as far.
                    if not has_room:
                        room_on_the_stack().__enter__()
                        has_room = True
                    closed = self._hear(watched, gates)
                # The end of the room, in steps of which each is done once.
                if has_room:
                    ROOMS.n_open -= 1
                    has_room = False
                take_room_back()
                break
            except BaseException as error:
                if not watched:
                    gates.entered -= 1
                    raise
                watched[1:] = listens
                late = error
                try:
                    getrecursionlimit()  # the handler of a second signal runs here
                except BaseException as second:
                    late = second
                n_tries += 1
        if closed is None and late is not None:
            if has_room:
                ROOMS.n_open -= 1
                take_room_back()
            LEAKED.extend((watched[0], start))  # it holds the gate's buffers
            raise late
        if closed is not None and closed >= 0:
            try:
                self._give_up([watched[0], start], operation, closed)
            except BaseException:
                if late is None:
                    raise
                raise late  # noqa: B904 with the interruption as its context
        return late

    def _hear(self, watched: list[MPI.Request], gates: Gates) -> int:
        """Take in what peers tell until the gate opens or is closed.

        Where a signal's handler raises, it may be called again.

        Returns:
            Whose failure has closed it, or -1.
        """
        gate = watched[0]
        while gate:  # it is null when it is done
            # All, for a handler may have come between receipt and reading.
            for channel in (self, *self.enclosing):
                channel.hear()
            self._tell_if_over(gates)
            self._look(gates, tells=False)
            closed = self._closed_by(gates)
            if closed < 0 and self._looks():
                i = self._wait_a_while(watched)
                if i >= 0:
                    continue
                self._look(gates)
                closed = self._closed_by(gates)
            if closed >= 0:
                return closed
            if not self._waitany(watched):
                break
        return -1

    def _tell_if_over(self, gates: Gates) -> None:
        """Tell that this rank enters nothing within a region here that has failed.

        Where it is at an agreement here: that on which all meet, and so is not woken.
        """
        if self.has_failed_around and all(gates is not known for known in self.gates):
            self.announce()

    def _closed_by(self, gates: Gates) -> int:
        """Return whose failure closes the gate entered last: 0 this, or -1."""
        for i, channel in enumerate((self, *self.enclosing)):
            # A failure within this region's own ends nothing here.
            counts = i == 0 or channel.has_failed_around
            if counts and channel.announced.closes(gates):
                return i
        return -1
