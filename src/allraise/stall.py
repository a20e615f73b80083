"""The stack of a process whose interpreter is held by C code.

Owns a file in memory, a signal and a timer of the kernel. Knows nothing of
deadlines.

Where C code holds the GIL no thread can run Python, so nobody can ask where the
main thread stands. `faulthandler` can: in a signal handler, without the GIL. So
the helper thread always leaves a timer behind that goes off a little after the
moment at which it means to be awake again. If it wakes, it moves the timer; if
it cannot, the stack of all threads is written to the file, where any process of
the same user on the same host can read it. In memory, because a job that is
killed removes no files.

Not ``faulthandler.dump_traceback_later``: there is one such timer in a process,
and it is the user's, or pytest's. This timer is our own (``timer_create``), its
signal goes to the helper thread alone, so that no system call of the user's is
interrupted, and it is one that nobody handles.
"""

from __future__ import annotations

import ctypes
import faulthandler
import linecache
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any, Final

from allraise.record import Frame

_CLOCK_MONOTONIC: Final = 1  # the clock of time.monotonic()
_ABSOLUTE: Final = 1
_TO_THREAD: Final = 4  # SIGEV_THREAD_ID: to one thread of the process

_HEADER: Final = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)\b.*first\)")
_FRAME: Final = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')


class _Event(ctypes.Structure):
    """``struct sigevent`` of Linux, 64 bytes."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("padding", ctypes.c_int * 11),
    )


class _Spec(ctypes.Structure):
    """``struct itimerspec``: the interval, then when."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("is", "ins", "s", "ns"))


# Given to somebody in this process: faulthandler's signals look as if nobody
# handled them.
_taken: set[int] = set()


def take_signal() -> int:
    """Return a signal that nobody handles, from the end that is least used.

    Not collective.

    Raises:
        OSError: There is none.
    """
    for number in range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1):
        if number not in _taken and signal.getsignal(number) == signal.SIG_DFL:
            _taken.add(number)
            return number
    msg = "every real-time signal is handled by somebody"
    raise OSError(msg)


class StallTimer:
    """Writes all stacks to a file if it is not moved in time.

    Not collective.

    Attributes:
        fd: The file that is written to.

    Args:
        thread: The native number of the thread that gets the signal.

    Raises:
        OSError: It cannot be had here.
    """

    def __init__(self, thread: int) -> None:
        if sys.platform != "linux":
            msg = "only Linux sends a timer's signal to one thread"
            raise OSError(msg)
        number = take_signal()
        self.fd = os.memfd_create("allraise")
        try:
            faulthandler.register(number, self.fd, all_threads=True, chain=False)
            self._make_timer(number, thread)
        except (OSError, RuntimeError, AttributeError) as error:
            os.close(self.fd)
            msg = f"no timer: {error}"
            raise OSError(msg) from error

    def _make_timer(self, number: int, thread: int) -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            create = libc.timer_create
        except AttributeError:  # before glibc 2.34
            libc = ctypes.CDLL("librt.so.1", use_errno=True)
            create = libc.timer_create
        self._timer = ctypes.c_void_p()
        event = _Event(signal=number, notify=_TO_THREAD, thread=thread)
        if create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(self._timer)):
            raise OSError(ctypes.get_errno(), "timer_create")
        self._spec = _Spec()
        self._set: Any = libc.timer_settime

    def move(self, when: float) -> None:
        """Have the stacks written at this time, or never if it is infinite."""
        s, ns = (0, 0) if when == float("inf") else divmod(int(when * 1e9), 10**9)
        self._spec.s, self._spec.ns = s, ns
        self._set(self._timer, _ABSOLUTE, ctypes.byref(self._spec), None)

    def clear(self) -> None:
        """Forget what was written: this process was only late."""
        os.ftruncate(self.fd, 0)
        os.lseek(self.fd, 0, os.SEEK_SET)


def has_written(pid: int, fd: int) -> bool:
    """Tell whether the `StallTimer` of a process on this host has gone off.

    Not collective.
    """
    try:
        return fd >= 0 and os.stat(f"/proc/{pid}/fd/{fd}").st_size > 0  # noqa: PTH116 cheap
    except OSError:
        return False


def read_stacks(pid: int, fd: int) -> dict[int, tuple[Frame, ...]]:
    """Read what the `StallTimer` of a process on this host wrote.

    Not collective.

    Returns:
        For each thread, by its Python identifier, its frames, outermost first;
        nothing if the file is empty, not there, or not ours to read.
    """
    try:
        text = Path(f"/proc/{pid}/fd/{fd}").read_text(errors="replace")
    except OSError:
        return {}
    return parse_stacks(text)


def parse_stacks(text: str) -> dict[int, tuple[Frame, ...]]:
    """Read what `faulthandler` has written. Not collective.

    Returns:
        For each thread, by its Python identifier, its frames, outermost first.
    """
    stacks: dict[int, tuple[Frame, ...]] = {}
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = int(header[1], 16)
            stacks[current] = ()
        elif stacks and (found := _FRAME.fullmatch(line)):
            name, number, function = found.groups()
            lineno = int(number) if number.isdigit() else None
            source = linecache.getline(name, lineno or 0).rstrip("\n")
            frame = Frame(name, lineno, lineno, None, None, function, source)
            stacks[current] = (frame, *stacks[current])
    return stacks
