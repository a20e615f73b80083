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

from itertools import starmap
from sys import getrecursionlimit, setrecursionlimit
from typing import TYPE_CHECKING, Final

from allraise.lane import LEAKED
from allraise.parts import is_of_mpi
from allraise.polling import be_as_deep
from allraise.signals import ENDLESS, MAX_TRIES, ROOMS, STACK_ROOM, take_room_back
from allraise.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.gates import Gates

# To `starmap`: a call without arguments.
_ONE_CALL: Final = ((),)


class Passage(Waits):
    """Waiting that knows gates too. Collective over `private`."""

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
        watched: list[MPI.Request] = []
        gates.entered += 1
        raised = None
        try:
            if self.standing.is_active or self.enclosing:
                self._look(gates)
            if self.failed or self.enclosing:
                closed = self._closed_by(gates)
                if closed >= 0:
                    self._give_up([], operation, closed)
            listens = self._listens() if self.enclosing else (self.listen,)
            # A rank at the end of its stack is to find that out before the others
            # count on it.
            be_as_deep()
            # Started by C code, and noted by an operation that is no call: so no
            # signal's handler comes in between.
            watched += starmap(start, _ONE_CALL)
            watched += listens
            if not self._waitany(watched):
                return None
        except BaseException as error:
            if not watched:
                gates.entered -= 1
                raise
            raised = error
            try:
                getrecursionlimit()  # the handler of a second signal runs here
            except BaseException as second:
                raised = second
        return self._wait_on(watched, start, gates, operation, raised)

    def _wait_on(
        self,
        watched: list[MPI.Request],
        start: object,
        gates: Gates,
        operation: str,
        raised: BaseException | None,
    ) -> BaseException | None:
        """Wait at a gate where there was something to hear, or a handler raised.

        To take in a message takes calls, and there may be none left.

        Args:
            watched: The gate, and what is listened to meanwhile.
            start: What holds the buffers of the gate.
            gates: As `pass_gate`.
            operation: As `pass_gate`.
            raised: By a handler or by MPI, or None.

        Returns:
            As `pass_gate`.
        """
        has_room = False
        ROOMS.n_open += 1
        try:
            while not has_room:
                try:
                    # By C code alone, see `agreement.leave`: `be_as_deep` came as far.
                    with ROOMS.lock:
                        limit = getrecursionlimit()
                        has_room = True
                        if limit < ENDLESS:
                            ROOMS.n_given += 1
                            setrecursionlimit(limit + STACK_ROOM)
                except BaseException as error:
                    raised = error
            closed, late = self._hear(watched, start, gates, raised)
            if closed >= 0:
                try:
                    self._give_up([watched[0], start], operation, closed)
                except BaseException:
                    if late is None:
                        raise
                    raise late  # noqa: B904 with the interruption as its context
            return late
        finally:
            ROOMS.n_open -= 1
            take_room_back()

    def _hear(
        self,
        watched: list[MPI.Request],
        start: object,
        gates: Gates,
        late: BaseException | None,
    ) -> tuple[int, BaseException | None]:
        """Take in what peers tell until the gate opens or is closed.

        Returns:
            Whose failure has closed it, or -1; and what a signal's handler raised.
        """
        gate, closed, n_tries = watched[0], -1, 0
        if late is not None:
            self._check(late, gate, start)
        while closed < 0 and gate:  # it is null when it is done
            try:
                # All, for a handler may have come between receipt and reading.
                for channel in (self, *self.enclosing):
                    channel.hear()
                self._look(gates)
                closed = self._closed_by(gates)
                if closed < 0 and not self._waitany(watched):
                    break
            except BaseException as error:
                late = error
                try:
                    getrecursionlimit()  # the handler of a second signal runs here
                except BaseException as second:
                    late = second
                n_tries += 1
                self._check(late, gate, start, is_last=n_tries > MAX_TRIES)
        return closed, late

    def _check(
        self,
        error: BaseException,
        gate: MPI.Request,
        start: object,
        *,
        is_last: bool = False,
    ) -> None:
        """Raise what MPI has raised at a gate, and no signal's handler has.

        The others count on this rank beyond the gate, if it opens.
        """
        if is_last or is_of_mpi(error):
            LEAKED.extend((gate, start))  # it holds the gate's buffers
            raise error

    def _closed_by(self, gates: Gates) -> int:
        """Return whose failure closes the gate entered last: 0 this, or -1."""
        for i, channel in enumerate((self, *self.enclosing)):
            # A failure within this region's own ends nothing here.
            counts = i == 0 or channel.has_failed_around
            if counts and channel.announced.closes(gates):
                return i
        return -1
