"""Where the threads of this process stand, without asking them.

Owns how a live stack becomes a record, and how it is known that the main thread runs.
Everything here works while it is blocked in C code that has released the GIL, as mpi4py
does, and runs no code of the user.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from traceback import extract_stack
from typing import TYPE_CHECKING, Final

from allraise.capture import origin_here
from allraise.frames import frames_from_summary
from allraise.own import is_own_file, own_end_dropped
from allraise.record import Link, Record

if TYPE_CHECKING:
    from types import FrameType

    from allraise.record import Frame

_LAUNCHERS: Final = ("<frozen runpy>", "runpy.py", "mpi4py/run.py")


def program_frames(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Leave out what lies between Python and the user's program, and below that.

    Not what the user's functions call, but what allraise does for them.
    """
    return own_end_dropped(without_launcher(frames))


def without_launcher(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Leave out what lies between Python and the user's program.

    And the handler of SIGTERM, in which a main thread that runs Python waits.
    """
    start, end = 0, len(frames)
    for position, frame in enumerate(frames):
        if not is_own_file(frame.filename):
            continue
        if frame.name == "on_sigterm":
            end = position
            break
        if "launcher" in frame.filename:
            start = position + 1
    while start < end and frames[start].filename.endswith(_LAUNCHERS):
        start += 1
    return frames[start:end]


def main_frame() -> FrameType | None:
    """Return the innermost frame of the main thread."""
    ident = threading.main_thread().ident
    return sys._current_frames().get(ident or 0)  # noqa: SLF001 the documented way


def main_stack() -> tuple[Frame, ...]:
    """Return the stack of the main thread, the program's part of it."""
    frame = main_frame()
    if frame is None:
        return ()
    return program_frames(frames_from_summary(extract_stack(frame)))


def stack_record(kind: str, type_name: str, message: str = "") -> Record:
    """Take down where the main thread stands.

    Not collective. Never raises.
    """
    try:
        frames = main_stack()
    except Exception:
        frames = ()
    line = f"{type_name}: {message}\n" if message else f"{type_name}\n"
    link = Link(type_name, message, (line,), (), frames)
    return Record((link,), origin=origin_here(), kind=kind)


class Pulse:
    """Tells whether the main thread has run any Python since it was asked.

    Not collective. A thread that is blocked stands at one instruction, but so
    does, whenever one looks, a loop of short calls. A pending call of the
    interpreter tells them apart: it runs in the main thread between two
    instructions, and not within a call of a C function.
    """

    def __init__(self) -> None:
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._beat)
        self._asked_at: float | None = None

    def _beat(self, _argument: object) -> int:
        self._asked_at = None
        return 0

    def silent_s(self) -> float:
        """Return for how long nothing has run, counted from the first question."""
        asked_at = self._asked_at
        if asked_at is not None:
            return time.monotonic() - asked_at
        self._asked_at = time.monotonic()
        if ctypes.pythonapi.Py_AddPendingCall(self._callback, None):
            self._asked_at = None  # the queue is full; it is asked again
        return 0.0
