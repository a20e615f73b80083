"""What a signal tells of a rank whose main thread is in MPI.

Owns SIGTERM, and the Ctrl-C that nobody handles, under ``allraise run``::

    C part of the handler      Python part
    ---------------------      -----------
    at once, in any thread     in the main thread, when MPI has returned: if ever
      | a pipe
      v
    helper thread: is the main thread running Python?  no: tell of the signal

Knows nothing of who is told.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Final

from allraise.signals import handler_of
from allraise.stacks import Pulse, stack_record
from allraise.standstill import call_in_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.record import Record

# A main thread that has not run Python for so long is not about to handle Ctrl-C.
INTERRUPT_S: Final = 1.0


class Alarm:
    """The signals of one rank.

    Not collective.

    Args:
        tell: Tells of a signal, from the helper thread: its number, its name, and
            where the main thread stands.
        hand_over: Gives a signal to the helper thread, from the main thread, and
            waits until the job has ended.
    """

    def __init__(
        self,
        tell: Callable[[int, str, Record], None],
        hand_over: Callable[[int], None],
    ) -> None:
        self.is_over = False  # the job ends: a signal is no news any more
        self.pulse = Pulse()
        self._tell = tell
        self._hand_over = hand_over
        self._interrupted_at: float | None = None

    def on_sigterm(self, number: int, _frame: object) -> None:
        """Handle SIGTERM, in the main thread, if that runs Python again."""
        if not self.is_over:
            self._hand_over(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def take(self, number: int) -> None:
        """Take in a signal that has come, in the helper thread."""
        handler = handler_of(number)
        if number == signal.SIGTERM and handler == self.on_sigterm:
            self._signalled(number)
        if number == signal.SIGINT and handler is signal.default_int_handler:
            self.pulse.silent_s()
            self._interrupted_at = time.monotonic()

    def watch(self) -> None:
        """Act on a Ctrl-C that the main thread cannot see within MPI."""
        if self._interrupted_at is None:
            return
        if not self.pulse.silent_s():
            self._interrupted_at = None
        elif time.monotonic() - self._interrupted_at > INTERRUPT_S:
            self._interrupted_at = None
            self._signalled(signal.SIGINT)

    def _signalled(self, number: int) -> None:
        if self.is_over:
            return
        name = signal.Signals(number).name
        call = call_in_progress()
        where = f"in {call.text}" if call else ""
        self._tell(number, name, stack_record("signalled", name, where))
