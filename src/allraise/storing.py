"""Bytes into a file: whole or not at all, or into what must not be replaced.

Owns how the file of a report is written. Knows nothing of what is in it.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Final

from allraise.paths import descriptor_of, is_special

if TYPE_CHECKING:
    from pathlib import Path

# What does not take a report for so long does not get it: a terminal, a FIFO.
WRITE_LIMIT_S: Final = 5.0


def write_file(target: Path, text: str) -> None:
    """Write a file, whole or not at all; a device or a FIFO is written into.

    Not collective.

    Raises:
        OSError: It cannot be written; a file that was there is unharmed.
    """
    data = text.encode("ascii")
    if is_special(target):
        _write_into(target, data + b"\n")
    else:
        _replace(target, data)


def _replace(target: Path, data: bytes) -> None:
    # Not tempfile, whose files only their owner can read: reports are shown.
    name = target.parent / f".{target.name[:100]}.{os.getpid()}-{time.time_ns()}"
    asked = target.parent  # an error names what was asked for, not a file of ours
    try:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        asked = target
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            name.replace(target)
        except BaseException:
            name.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(asked)) from error


def _write_into(target: Path, data: bytes) -> None:
    number = descriptor_of(target)
    # A FIFO that nobody reads is an error then, and not a wait.
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        handle = os.open(target, flags) if number is None else os.dup(number)
        try:
            left = write_within(handle, data)
        finally:
            os.close(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    if left:
        msg = f"{target} took {len(data) - len(left)} of {len(data)} bytes"
        raise TimeoutError(msg)


def write_within(handle: int, data: bytes) -> bytes:
    """Write to an open file for as long as it takes it, not for ever.

    Not collective.

    Returns:
        What it has not taken.

    Raises:
        OSError: It cannot be written.
    """
    deadline = time.monotonic() + WRITE_LIMIT_S
    waiting = select.poll()
    waiting.register(handle, select.POLLOUT)
    while data and time.monotonic() < deadline:
        if waiting.poll(100):
            try:
                # Small: a pipe that is ready takes this much without blocking.
                data = data[os.write(handle, data[: select.PIPE_BUF]) :]
            except BlockingIOError:
                time.sleep(0.001)
    return data
