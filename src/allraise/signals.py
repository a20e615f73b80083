"""Signals held back, and room on the stack, while ranks depend on each other.

Owns one thing: neither a signal handler of this process nor the recursion limit
may throw a rank out between two collectives of the failure path, where every
other rank waits for it.
"""

from __future__ import annotations

# Its functions take a fifteenth of what those of `signal` take, which make enums.
import _signal  # type: ignore[import-not-found]
import sys
import threading
from contextlib import suppress
from functools import cache, partial
from itertools import compress
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

T = TypeVar("T")

# Any of them may have a handler in Python, and any handler may raise: of Ctrl-C, of a
# scheduler's warning that the time is up, of a timer.
ALL_SIGNALS: Final = tuple(map(int, _signal.valid_signals()))

# Calls that the failure path may nest, pickling included. A rank may stand at
# its recursion limit when it fails: that may be what failed.
STACK_ROOM: Final = 500

# Signals whose handlers raise one after the other right where other ranks count on
# this one: no more than that can be meant. Also, a rank that cannot do a single call
# would try for ever.
MAX_TRIES: Final = 100

# Of one signal that is held back: a timer may come a hundred times a second.
MAX_NOTED: Final = 2

# A limit that the C stack ends long before: it needs no room, and some set it to
# the largest that sys.setrecursionlimit takes.
ENDLESS: Final = 1_000_000


class _Rooms:
    """How many blocks are open in this process, and how many were given room.

    The limit is the interpreter's, not the thread's: blocks open in several threads
    at once raise it by one room each, and each end takes one back, in whatever order
    they come. To restore what was found would leave the limit higher with each
    overlap.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler may open a block within another.
        self.lock = threading.RLock()
        self.n_open = self.n_given = 0


ROOMS: Final = _Rooms()


def take_room_back() -> bool:
    """Lower the limit to what the open blocks need. Not collective.

    Refused where the stack is deeper than the limit to come: that room is taken back
    by the next block that ends higher up. So is that which a signal's handler kept
    from being taken back.

    Returns:
        Whether no more room is given than there are open blocks.
    """
    with ROOMS.lock:
        while ROOMS.n_given > ROOMS.n_open:
            limit = sys.getrecursionlimit() - STACK_ROOM
            ROOMS.n_given -= 1  # no call, so no handler, between this and the next
            try:
                sys.setrecursionlimit(limit)
            except RecursionError:
                ROOMS.n_given += 1
                return False
    return True


# Handlers of our own. To put one aside would also undo what C code has put before
# it, such as the stacks that `faulthandler` writes at SIGTERM. By identity, for to
# compare a user's handler may be code of the user's.
NEVER_RAISE: Final[dict[int, object]] = {}


class room_on_the_stack:  # noqa: N801 reads as the block it is
    """A block that may call as deep as the failure path needs.

    Not collective. `agreement.leave` does the same in one piece, by C code alone.
    """

    def __enter__(self) -> None:
        ROOMS.n_open += 1
        try:
            with ROOMS.lock:
                limit = sys.getrecursionlimit()
                if limit < ENDLESS:
                    ROOMS.n_given += 1
                    sys.setrecursionlimit(limit + STACK_ROOM)
        except BaseException:  # of a signal's handler
            ROOMS.n_open -= 1
            take_room_back()
            raise

    def __exit__(self, *_exc_info: object) -> None:
        ROOMS.n_open -= 1
        take_room_back()


class signals_held_back:  # noqa: N801 reads as the block it is
    """A block in which Python signal handlers wait; they run at its end.

    Not collective. Signals without a Python handler act as ever: their default
    action ends the process, which no exception handling survives anyway. So do
    handlers in `NEVER_RAISE`.
    """

    def __enter__(self) -> Self:
        self._seen: list[int] = []
        self._handlers: dict[int, Any] = {}
        try:
            self._hold()
        except BaseException:  # of a handler that is not held back yet
            self._restore()
            raise
        return self

    def _hold(self) -> None:
        if threading.get_ident() != threading.main_thread().ident:
            return
        # By C code: a loop in Python takes as long as all else that a failing rank does
        # before it agrees, if others share its core.
        handlers = map(_signal.getsignal, ALL_SIGNALS)
        for number in compress(ALL_SIGNALS, map(callable, handlers)):
            handler = _signal.getsignal(number)
            if (
                callable(handler)  # still: a handler may have run
                and id(handler) not in NEVER_RAISE
                and handler != self._note
            ):
                self._handlers[number] = handler
                _put(number, self._note, handler)

    def let_through(self, function: Callable[[], T]) -> T:
        """Call a function in which handlers run as ever, and in the block again wait.

        Not collective. What has waited raises before the function is called.
        """
        is_held, raised = False, None
        try:
            self._end()
            return function()
        finally:
            while not is_held:
                try:
                    self._hold()
                    is_held = True
                except BaseException as error:  # of a handler not held back yet
                    raised = error
            if raised is not None:
                raise raised

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # Python runs a handler once for all that came before it could. Twice here, for
        # a second one may be meant to end what the first has not.
        if self._seen.count(number) < MAX_NOTED:
            self._seen.append(number)

    def _restore(self) -> None:
        """Put every handler back, also where one of them raises meanwhile."""
        raised = None
        for number, handler in self._handlers.items():
            while _signal.getsignal(number) == self._note:
                try:
                    _put(number, handler, handler)
                except BaseException as error:
                    raised = error
        try:
            if raised is not None:
                raise raised
        finally:
            del raised  # its traceback holds this frame

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Put the handlers back, and have run those whose signals came.

        All of them, as Python does, also where one raises.
        """
        try:
            self._restore()
        finally:
            self._handlers.clear()
            if self._seen:
                self._run_seen()

    def _run_seen(self) -> None:
        raised: BaseException | None = None
        while self._seen:
            number = self._seen.pop(0)
            handler = _signal.getsignal(number)
            try:
                if callable(handler):
                    # Not raised anew: C code has seen the signal when it came.
                    handler(number, sys._getframe())  # noqa: SLF001 as Python does
                else:  # another handler has put the system's own in its place
                    _signal.raise_signal(number)
            except BaseException as error:
                if error.__context__ is None:
                    error.__context__ = raised
                raised = error
        try:
            if raised is not None:
                raise raised
        finally:
            del raised  # its traceback holds this frame

    def behind(self, number: int) -> Any:
        """Return the handler put aside for this block. Not collective."""
        return self._handlers.get(number)


# More than a `struct sigaction` has on any system: 152 bytes with glibc.
_ACTION_BYTES: Final = 512


@cache
def _load_sigaction() -> tuple[Any, Any]:
    """Return C's ``sigaction``, and what makes room for an action.

    Once: each makes a type of its own, which is garbage in a cycle.
    """
    import ctypes

    return ctypes.CDLL(None).sigaction, ctypes.c_char * _ACTION_BYTES


def _put(number: int, handler: Any, users: Any) -> None:
    """Have Python call another handler, and leave all else of the signal as it is.

    Not collective. `signal.signal` would undo what C code has put before Python's
    handler (`faulthandler.register` with ``chain``, cysignals), and what
    `signal.siginterrupt` has set.

    Args:
        number: The signal.
        handler: What Python is to call.
        users: The program's own handler. Of the one that Python itself installs for
            Ctrl-C nobody has said more, and `ctypes` takes its time to load.
    """
    put_back: Callable[[], object] | None = None
    if users is not _signal.default_int_handler:
        # Where it cannot be loaded, no file descriptor left say, holding back matters
        # more.
        with suppress(Exception):
            sigaction, new_action = _load_sigaction()
            action = new_action()
            if sigaction(number, None, action) == 0:
                put_back = partial(sigaction, number, action, None)
    try:
        _signal.signal(number, handler)
    finally:
        if put_back is not None:
            put_back()


def handler_of(number: int) -> Any:
    """Return the handler of a signal, held back or not. Not collective.

    Returns:
        As `signal.getsignal`. None too where a block ends just now, in the main
        thread, which then runs the handler itself.
    """
    handler = _signal.getsignal(number)
    while isinstance(block := getattr(handler, "__self__", None), signals_held_back):
        handler = block.behind(number)
    return handler
