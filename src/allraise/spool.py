"""What each rank leaves in a folder, for when nobody is left to report.

Owns the folder beside the report file, ``PATH.d``::

    rank-3.json    the failure of rank 3, a report by itself, written before its
                   peers are woken; removed when they know it
    rank-3.txt     a line that says which process this is, and the stacks that
                   `faulthandler` writes when it crashes in C, or gets SIGTERM

Where the MPI has no fault tolerance, the launcher kills a job at once when one of
its processes dies; when it is told to end, it gives ranks a quarter of a second
between SIGTERM and SIGKILL (Open MPI 5.0.11). Then this is what remains, and
``allraise show PATH.d`` merges it (`remains`). Ranks are those of ``COMM_WORLD``.
Nothing remains of a job that ends well, nor of one whose report was written.
"""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import signal
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from allraise.bundle import Bundle
from allraise.paths import expand_path, folder_for, job_id
from allraise.ranks import RankSet
from allraise.record import Link, Record
from allraise.remains import HEAD, HEAD_BYTES, read_left, stack_record_of
from allraise.report import Report
from allraise.settings import read_settings
from allraise.stall import take_signal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# How long a process may take to write its stacks when it is asked to.
STACKS_S: Final = 0.5
POLL_S: Final = 0.01

_HELD: Final = "no answer: C code holds the GIL, from the call in the last line"


def folder_of(path: Path) -> Path:
    """Return the folder that belongs to a report file."""
    return path.with_name(f"{path.name}.d")


class Spool:
    """One rank's part of the folder. Not collective. Never raises.

    Args:
        folder: The same on all ranks; made when it is needed.
        rank: In ``COMM_WORLD``.
        size: Of ``COMM_WORLD``.
        there: The parent that was there before: the empty ones below it were made
            with the folder, and are removed with it. None to leave them.
    """

    def __init__(
        self, folder: Path, rank: int, size: int, there: Path | None = None
    ) -> None:
        self.folder = folder
        self._there = there or folder.parent
        self.rank, self.size = rank, size
        self._crash_file: Any = None
        self._is_enabler = False
        self._handler: object = self  # of SIGTERM, where its stacks are written

    def watch_crashes(self, *, sigterm: bool) -> None:
        """Have the stacks written if this process crashes in C, or is asked.

        What the user has switched on already stays as it is.

        Args:
            sigterm: Whether to write them at SIGTERM, too, before its handler runs:
                in C, whoever holds the GIL.
        """
        with suppress(OSError, RuntimeError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._crash_file = self._path("txt").open("wb", buffering=0)
            number = take_signal()
            faulthandler.register(number, self._crash_file)
            who = f"rank {self.rank} of {self.size} on {_host()}, pid {os.getpid()}"
            head = f"{who}, signal {number}"
            self._crash_file.write(head.ljust(HEAD_BYTES - 1).encode() + b"\n")
            self._is_enabler = not faulthandler.is_enabled()
            if self._is_enabler:
                faulthandler.enable(self._crash_file)
            if sigterm:
                faulthandler.register(signal.SIGTERM, self._crash_file, chain=True)
                self._handler = signal.getsignal(signal.SIGTERM)

    def keep(self, step: str, bundle: Bundle) -> None:
        """Write down what this rank knows."""
        with suppress(Exception):
            self.folder.mkdir(parents=True, exist_ok=True)
            report = Report.here(step, bundle, self.size)
            part = self.folder / f".rank-{self.rank}"
            # Not Report.save, which waits for the disk: the process may die, the
            # machine need not.
            part.write_text(json.dumps(report.to_dict()), encoding="ascii")
            part.replace(self._path("json"))

    def discard(self) -> None:
        """Remove what `keep` wrote: the peers know it."""
        with suppress(OSError):
            self._path("json").unlink(missing_ok=True)
            if self._crash_file is None:
                self.folder.rmdir()  # by the last one
                for parent in self.folder.parents:
                    if parent == self._there:
                        break
                    parent.rmdir()

    def clear(self) -> None:
        """Leave nothing: this rank has come to a good end."""
        if self._crash_file is not None:
            if self._is_enabler:
                faulthandler.disable()
            if signal.getsignal(signal.SIGTERM) is self._handler:
                faulthandler.unregister(signal.SIGTERM)
            self._crash_file = None
            with suppress(OSError):
                self._path("txt").unlink(missing_ok=True)
        self.discard()

    def known_of(self, ranks: Iterable[int]) -> Bundle:
        """Return what has failed or crashed on ranks that cannot answer."""
        with suppress(Exception):
            return read_left(self.folder).failures.among(ranks)
        return Bundle()

    def stacks_of(self, ranks: Iterable[int], *, ask: bool) -> Bundle:
        """Return where ranks stand that do not answer, as far as can be known.

        Args:
            ranks: They.
            ask: Whether to ask those on this host; else they have got SIGTERM.
        """
        found = Bundle()
        with suppress(Exception):
            paths = {rank: self.folder / f"rank-{rank}.txt" for rank in ranks}
            if ask:
                _ask(paths.values())
            deadline = time.monotonic() + STACKS_S
            while paths and time.monotonic() < deadline:
                for rank, path in list(paths.items()):
                    if path.stat().st_size > HEAD_BYTES:
                        record = stack_record_of(path)
                        found.add(RankSet((rank,)), _silent(record) if ask else record)
                        del paths[rank]
                if not ask:
                    break
                time.sleep(POLL_S)
        return found

    def remove(self) -> None:
        """Remove all of it: the report has been written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, suffix: str) -> Path:
        return self.folder / f"rank-{self.rank}.{suffix}"


_current: Spool | None = None


def use(spool: Spool) -> None:
    """Have guards use this one, whatever the environment says. Not collective."""
    global _current  # noqa: PLW0603 one a process, or none
    _current = spool


def current() -> Spool | None:
    """Return this process's; made where ``ALLRAISE_REPORT`` is set.

    Not collective. None if nobody has asked for a report,
    or nothing can be kept beside it.
    """
    if _current is None:
        _use_what_is_asked_for()
    return _current


@cache  # as it is at the first failure: to read the environment takes as long as ten calls
def _use_what_is_asked_for() -> None:
    report = read_settings().report
    if report is None:
        return
    path = expand_path(report, "", job_id(os.environ))
    if folder_for(path) is not None:
        from allraise.registry import resolve_comm

        world = resolve_comm(None)
        use(Spool(folder_of(path).absolute(), world.Get_rank(), world.Get_size()))


def discard_current() -> None:
    """Remove what this rank has kept: its peers know it. Not collective."""
    if _current is not None:
        _current.discard()


def remove_current() -> None:
    """Remove the folder: the report has been written. Not collective."""
    if _current is not None:
        _current.remove()


def _host() -> str:
    return os.uname().nodename[:64]


def _ask(paths: Iterable[Path]) -> None:
    """Have the processes on this host that these files are of write their stacks."""
    for path in paths:
        head = HEAD.match(path.read_text(errors="replace"))
        if head and head["host"] == _host():
            with suppress(OSError):  # it is gone
                os.kill(int(head["pid"]), int(head["number"]))


def _silent(record: Record) -> Record:
    """Say of a stack that it is that of a rank which does not answer."""
    text = (f"silent: {_HELD}\n",)
    link = Link("silent", _HELD, text, (), record.links[0].frames)
    return Record((link,), origin=record.origin, kind="silent")
