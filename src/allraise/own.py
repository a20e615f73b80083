"""What of a stack is allraise's own, and whether it is told.

Owns what people read of the library's own frames: nothing, where they are no news.
Knows nothing of exceptions and of ranks.
"""

from __future__ import annotations

import os
import sys
from traceback import extract_stack
from typing import TYPE_CHECKING, Final

from allraise.frames import frames_from_summary

if TYPE_CHECKING:
    from types import FrameType

    from allraise.record import Frame, Link

OWN_FOLDER: Final = os.path.dirname(__file__) + os.sep  # noqa: PTH120 pathlib: 5 ms
_OF_USERS_VALUES: Final = f"{OWN_FOLDER}values.py"
_PYTHON: Final = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120


def is_own_file(filename: str) -> bool:
    """Tell whether a source file is one of allraise's."""
    return filename.startswith(OWN_FOLDER)


def _is_of_python(filename: str) -> bool:
    """Tell whether a source file is one of Python's own library."""
    if filename.startswith("<frozen "):
        return True
    return filename.startswith(_PYTHON) and "-packages" not in filename


def _own_start_dropped(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Leave out where allraise called the user's function."""
    for position, frame in enumerate(frames):
        if not is_own_file(frame.filename):
            return frames[position:]
    return frames  # allraise's own error: then they are the news


def own_end_dropped(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Leave out where allraise is below the last line of the user: it is no news.

    With what it calls of Python's library. All frames where the user has no line.
    """
    first = end = len(frames)
    while first:
        is_own = is_own_file(frames[first - 1].filename)
        if not is_own and not _is_of_python(frames[first - 1].filename):
            return frames[:end]
        first -= 1
        end = first if is_own else end
    return frames


def _raised_here(frames: tuple[Frame, ...]) -> bool:
    """Tell whether allraise has raised for a reason of the user's, not by a defect.

    By a statement of its own, or by Python where that pickles what the user gave.
    """
    if not frames or not is_own_file(frames[-1].filename):
        return False
    is_raise = frames[-1].source.lstrip().startswith("raise ")
    return is_raise or frames[-1].filename == _OF_USERS_VALUES


def _line_of_caller() -> tuple[Frame, ...]:
    """Return the line of the user that this thread is in; none if there is none.

    Never raises.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 the documented way
    while frame is not None and is_own_file(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None or _is_of_python(frame.f_code.co_filename):  # a helper thread
        return ()
    try:
        return frames_from_summary(extract_stack(frame, limit=1))
    except BaseException:  # asks a module's loader for the source: user code
        return ()


def without_own(links: list[Link]) -> None:
    """Leave out of a chain where allraise called the user's function: it is no news.

    And tell what allraise itself has raised by the user's line that led to it.
    """
    links[0] = links[0]._replace(frames=_own_start_dropped(links[0].frames))
    for position, link in enumerate(links):
        if not _raised_here(link.frames):
            continue
        frames = own_end_dropped(link.frames)
        if position == 0 and _raised_here(frames):  # raised before it came to the user
            frames = _line_of_caller() or frames
        links[position] = link._replace(frames=frames)
