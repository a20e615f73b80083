"""The helper thread that is awake when a deadline passes.

Owns one thread a process, started when it is first needed, and what it waits
for: moments, and file descriptors. Knows nothing of regions, exceptions or MPI::

    main thread                        helper thread
    -----------                        -------------
    add(watch)     --- a dict --->     sleeps in select() until the earliest due
    (the block)                        watch.due passed?  watch.on_due()
    remove(watch)                      a descriptor is ready?  its function

The main thread only stores the watch: while the thread means to wake earlier
anyway, which is always in a loop of regions that all have the same time limit,
it is not told. It wakes a few times per time limit, not per region.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.stall import StallTimer

NEVER: Final = float("inf")

# How much later than meant the thread may wake before it counts as stalled: the
# interpreter may be busy, the machine too.
STALL_S: Final = 0.5

THREAD_NAME: Final = "allraise deadline"


class Watch:
    """What is watched: ``due`` on the clock of `time.monotonic`."""

    __slots__ = ("due",)
    due: float

    def on_due(self) -> float:
        """Act, in the helper thread, without waiting; return the next time due."""
        return NEVER


class Watchdog:
    """The helper thread; see the module. Not collective."""

    def __init__(self) -> None:
        # A dict, because insertion, removal and copying are single operations of
        # the interpreter: no lock on the way of a region that goes well.
        self._watches: dict[Watch, None] = {}
        self._wakes_at = NEVER
        self._sources: dict[int, Callable[[], None]] = {}
        self._wake_w = -1
        self.stall: StallTimer | None = None
        self.thread: threading.Thread | None = None

    def add(self, watch: Watch) -> None:
        """Begin to watch."""
        self._watches[watch] = None
        # Read after the watch is stored; the thread writes it before it looks.
        if watch.due < self._wakes_at:
            self._wake(watch.due)

    def remove(self, watch: Watch) -> None:
        """End to watch; what is not watched is ignored."""
        self._watches.pop(watch, None)

    def watches(self) -> list[Watch]:
        """Return what is watched now, in the order in which it was added."""
        return list(self._watches)

    def listen(self, descriptor: int, function: Callable[[], None]) -> None:
        """Call a function in the helper thread when the descriptor is readable."""
        self._sources[descriptor] = function
        self._wake(NEVER)

    def attach(self, stall: StallTimer) -> None:
        """Tell it from now on when the thread means to be awake."""
        self.stall = stall
        self._wake(self._earliest())

    def start(self) -> None:
        """Start the thread, if it does not run."""
        if self.thread is not None:
            return
        wake_r, self._wake_w = os.pipe()
        os.set_blocking(wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._sources[wake_r] = lambda: _drain(wake_r)
        self.thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self.thread.start()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Watch nothing in a forked child, which has none of the parent's threads."""
        self._watches.clear()
        self._sources.clear()
        self.thread = self.stall = None
        self._wakes_at = NEVER

    def _earliest(self) -> float:
        return min((watch.due for watch in self.watches()), default=NEVER)

    def _wake(self, due: float) -> None:
        self.start()
        if self.stall is not None and due != NEVER:
            # Here and not there: this thread may take the interpreter with it
            # before the helper has run.
            self.stall.move(due + STALL_S)
        # BlockingIOError: full, so it is about to wake.
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b"\0")

    def _run(self) -> None:
        while True:
            self._wakes_at = NEVER  # whoever adds from now on must wake us
            due = self._earliest()
            if self.stall is not None:
                self.stall.clear()
                self.stall.move(due + STALL_S)
            self._wakes_at = due
            # Months: what poll takes at most.
            rest = min(max(0.0, due - time.monotonic()), 1e6)
            ready = self._wait(None if due == NEVER else rest)
            now = time.monotonic()
            for watch in self.watches():
                if watch.due <= now:
                    watch.due = self._guarded(watch.on_due)
            for descriptor in ready:
                function = self._sources.get(descriptor)
                if function is not None:
                    self._guarded(function)

    def _wait(self, rest: float | None) -> list[int]:
        poll = select.poll()  # not select(): a job may have 1024 files open
        for descriptor in list(self._sources):
            poll.register(descriptor, select.POLLIN)
        found = poll.poll(None if rest is None else rest * 1000 + 1)
        return [descriptor for descriptor, _ in found]

    @staticmethod
    def _guarded(function: Callable[[], float | None]) -> float:
        """Call a function; whatever it raises, the thread lives on."""
        try:
            found = function()
        except BaseException as error:
            text = f"allraise: {type(error).__name__} in the helper thread: {error}\n"
            with contextlib.suppress(Exception):
                sys.stderr.write(text)
            return NEVER
        return NEVER if found is None else found


def _drain(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(descriptor, 4096)
