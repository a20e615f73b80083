"""Showing a report to people and storing it in a file.

Owns where a report goes: the terminal, and the file that was asked for or, where
that cannot be written, another. Knows nothing of how it was gathered.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from allraise.paths import is_special
from allraise.storing import write_within
from allraise.viewer import sanitise

if TYPE_CHECKING:
    from allraise.report import Report

STDERR: Final = 2  # its number, whatever ``sys.stderr`` is

# Up to here a block for each failed rank fits on a screen or two.
MAX_FAILED_SHOWN_SINGLY: Final = 8


def default_style(n_failed: int) -> str:
    """Return the style that suits so many failed ranks."""
    return "ranks" if n_failed <= MAX_FAILED_SHOWN_SINGLY else "groups"


def save_somewhere(report: Report, path: Path) -> str:
    """Save a report, if need be elsewhere; never raises.

    Not collective. Folders that are missing are made.

    Returns:
        A line that says where it is, or why it is nowhere.
    """
    try:
        if not is_special(path):
            with contextlib.suppress(FileExistsError):  # a file; to write will tell
                path.parent.mkdir(parents=True, exist_ok=True)
        report.save(path)
    except Exception as error:
        reason = sanitise(f"{type(error).__name__}: {error}")
    else:
        return f"report: {sanitise(str(path))}"
    with contextlib.suppress(Exception):
        folder = Path(tempfile.mkdtemp(prefix="allraise-"))
        report.save(folder / path.name)
        return (
            f"report: {sanitise(str(folder / path.name))} (not where asked: {reason})"
        )
    return f"no report file: {reason}"


def write_error_stream(text: str) -> None:
    """Write to the error stream of the process, whatever Python has made of it.

    Not collective. Past Python's buffers: their lock may be held by a main
    thread that is stuck. Never raises.
    """
    data = text.encode(errors="backslashreplace")
    with contextlib.suppress(OSError, ValueError):  # closed
        write_within(STDERR, data)
