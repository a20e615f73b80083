"""Bytes moved behind gates, to the end, whatever is raised on the way.

Owns how a rank gets through an operation of several collectives, each behind a gate
or behind the one before it::

    gate            may be given up: no rank is in the collective yet
    collective      all ranks are in it, or come: to the end, and then what was raised
    room and gate   memory for what the first collective has told of is a matter of
                    each rank: where it has none, the others are still at a gate
    collective      as above

A signal's handler may raise with each call. So each step is noted by what is no call,
and the operation is begun again where it was. Collective over the communicator.
"""

from __future__ import annotations

from array import array
from itertools import starmap
from sys import getrecursionlimit
from typing import TYPE_CHECKING, Any, Self, TypeVar

from allraise.chains import is_a, is_of_mpi, put_on_top
from allraise.signals import MAX_TRIES

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_ONCE = (None,)


class Course:
    """How far a rank has come in an operation.

    Args:
        comm: The interruptible communicator.
        operation: Named in an interruption.
        start: Starts the first gate; in C code, for `pass_gate` depends on that.

    Attributes:
        comm: The interruptible communicator.
    """

    __slots__ = (
        "_done",
        "_error",
        "_into",
        "_is_begun",
        "_is_past",
        "_late",
        "_made",
        "_operation",
        "_start",
        "comm",
    )

    def __init__(
        self, comm: Any, operation: str, start: Callable[[], Any] | None = None
    ) -> None:
        self.comm, self._operation, self._start = comm, operation, start
        self._is_begun = False  # the first gate is passed
        self._is_past = False  # the second one too
        # A result for each collective that was done, and what they have filled.
        self._done: list[None] = []
        self._into: list[Any] = []
        self._made: Any = None  # for what comes behind the second gate
        # What a signal's handler raised, to be raised once nobody waits for this rank;
        # and what was raised last, by whatever.
        self._late: BaseException | None = None
        self._error: BaseException | None = None

    def behind(
        self,
        done: list[None],
        late: BaseException | None = None,
        error: BaseException | None = None,
    ) -> Self:
        """Begin behind the first gate. Not collective.

        Args:
            done: A result, if the first collective was done.
            late: What was raised at the gate, or None.
            error: What was raised since, or None.
        """
        self._done, self._into = done, [None]
        self._late, self._error = late, error
        self._is_begun = True
        return self

    def once(self, place: int, into: Any, collective: Any, *args: Any) -> Any:
        """Do the collective of a place, unless it was done; return what it has filled.

        Collective over the communicator. It is done by C code, and noted by an
        operation that is no call: so no signal's handler comes in between.
        """
        if len(self._done) == place:
            self._into[place:] = (into,)
            self._done += starmap(collective, (args,))
        return self._into[place]

    def room(self, make: Callable[[], T]) -> T:
        """Return what was made, once all ranks have made theirs.

        Collective over the communicator.

        Args:
            make: Gets the memory for what comes.
        """
        if self._made is None:
            self._made = make()
        if not self._is_past:
            late = self.comm.pass_gate(self._operation)
            self._is_past = True
            if late is not None:
                self._late = late
        return self._made  # type: ignore[no-any-return]

    def run(self, move: Callable[[Course], T], begun: list[None] | None = None) -> T:
        """Pass the gate, go on to the end, then raise what was raised on the way.

        Collective over the communicator.

        Args:
            move: Does the collectives with `once`, and makes `room` between the first
                and the next. Called again where it has raised.
            begun: Made longer once this is at work: what a signal's handler raises
                before that, the caller has to deal with.
        """
        n_tries = 0
        while True:
            try:
                if begun is not None:
                    begun += _ONCE
                if self._error is not None:
                    is_last = n_tries > MAX_TRIES or is_of_mpi(self._error)
                    if is_last or self._is_given_up(self._error):
                        break
                    self._late, self._error = self._error, None
                if not self._is_begun:
                    self._late = self.comm.pass_gate(self._operation, self._start)
                    self._is_begun = True
                result = move(self)
                break
            except BaseException as error:
                self._error = error
                try:
                    getrecursionlimit()  # the handler of a second signal runs here
                except BaseException as second:
                    self._error = second
                n_tries += 1
        if self._late is not None and self._error is not None:
            put_on_top(self._late, self._error)
        due = self._error if self._late is None else self._late
        if due is not None:
            raise due
        return result

    def _is_given_up(self, error: BaseException) -> bool:
        """Tell whether the others are at a gate still, and woken. Not collective."""
        if not self._is_begun:
            return True
        if self._is_past or not self._done:
            return False  # they are in a collective
        return is_a(error, MemoryError) or self.comm.knows_failure()


def gated(
    comm: Any,
    operation: str,
    collective: Any,
    args: tuple[Any, ...],
    move: Callable[[Course], T],
    *,
    tells: Any = (True,),
) -> T | None:
    """Do a collective behind a gate, and what follows it.

    Collective over the communicator. Where all goes well, without a `Course`: to make
    one takes as long as the gate.

    Args:
        comm: The interruptible communicator.
        operation: Named in an interruption.
        collective: C code.
        args: Of it.
        move: From there to the end, see `Course.run`.
        tells: What it has filled; the first tells whether nothing follows.

    Returns:
        If all went well and nothing follows, None; else what `move` has returned.

    Raises:
        BaseException: This rank did not pass the gate; or what was raised on the way.
    """
    passed: list[BaseException | None] = []
    done: list[None] = []
    begun: list[None] = []
    error: BaseException | None = None
    n_tries = 0
    while True:
        try:
            if not passed:
                # Noted by what is no call: so no signal's handler comes in between.
                passed += starmap(comm.gate, ((comm, operation),))
                done += starmap(collective, (args,))
                if passed[0] is None and tells[0]:
                    return None
            course = Course(comm, operation).behind(done, passed[0], error)
            return course.run(move, begun)
        except BaseException as raised:
            # Passed, the others count on this rank.
            if not passed or begun or n_tries > MAX_TRIES:
                raise
            if error is None or not is_of_mpi(error):
                error = raised
            try:
                getrecursionlimit()  # the handler of a second signal runs here
            except BaseException as second:
                error = second
            n_tries += 1


def words(n: int) -> array[int]:
    """Return n numbers for MPI to fill. Not collective."""
    return array("q", bytes(8 * n))
