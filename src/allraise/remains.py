"""What ranks have left in the folder of a job, read again.

Owns the form of its files; `spool` writes them, and says what they are for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from allraise.bundle import Bundle
from allraise.ranks import RankSet
from allraise.record import DIED, Link, Origin, Record, minimal
from allraise.report import Report, load_report
from allraise.stacks import program_frames, without_launcher
from allraise.stall import parse_stacks

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = re.compile(r"rank-(\d+)\.(json|txt)")
HEAD: Final = re.compile(
    r"rank \d+(?: of (?P<size>\d+))? on (?P<host>\S*), pid (?P<pid>\d+), "
    r"signal (?P<number>\d+) *\n"
)

# The first line of all these files is that long: no need to read who has no stacks.
HEAD_BYTES: Final = 128

_NOTHING: Final = "left nothing (killed?)"


def load_spool(folder: Path) -> Report:
    """Read what the ranks have left, as one report.

    Not collective.

    Raises:
        ValueError: There is nothing.
    """
    left = read_left(folder)
    bundle = Bundle.merge((left.failures, left.ended))
    size = _add_who_left_nothing(folder, bundle)
    if not bundle:
        msg = f"{folder} holds nothing that a rank has left"
        raise ValueError(msg)
    return Report(left.step, bundle, left.size or size, left.environment)


class Left(NamedTuple):
    """What is in a folder: failures and crashes, and stacks at SIGTERM."""

    failures: Bundle
    ended: Bundle
    step: str
    size: int | None
    environment: dict[str, Any]


def read_left(folder: Path) -> Left:
    """Read what there is. Not collective."""
    told: list[Bundle] = []
    crashes, ended = Bundle(), Bundle()
    step, size, environment = "", None, {}
    for path in sorted(folder.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found and found[2] == "json":
            report = load_report(path)
            told.append(report.bundle)
            step, size, environment = report.step, report.size, report.environment
        elif found and path.stat().st_size > HEAD_BYTES:
            record = stack_record_of(path)
            kind = crashes if record.kind == DIED else ended
            kind.add(RankSet((int(found[1]),)), record)
    return Left(Bundle.merge((crashes, *told)), ended, step, size, environment)


def _add_who_left_nothing(folder: Path, bundle: Bundle) -> int | None:
    """Name the ranks that were there and have come to no end that is known.

    Returns:
        How many ranks there were, if a file says it.
    """
    size = None
    known = bundle.ranks
    for path in sorted(folder.glob("rank-*.txt")):
        found = _NAME.fullmatch(path.name)
        head = HEAD.match(path.read_text(errors="replace"))
        if not found or not head:
            continue
        size = size or int(head["size"] or 0) or None
        rank = int(found[1])
        if rank not in known:
            place = Origin(head["host"], int(head["pid"]))  # when is not known
            record = minimal("silent", _NOTHING, "silent")
            bundle.add(RankSet((rank,)), record._replace(origin=place))
    return size


def stack_record_of(path: Path) -> Record:
    """Make a record of what `faulthandler` wrote. Not collective."""
    text = path.read_text(errors="replace")
    head = HEAD.match(text)
    host, pid = (head["host"], int(head["pid"])) if head else ("", 0)
    origin = Origin(host, pid, path.stat().st_mtime)
    _, is_crash, crash = text.partition("Fatal Python error: ")
    stacks = parse_stacks(crash or text)
    if not is_crash:
        # The main thread, which is the oldest, comes last.
        frames = program_frames(next(reversed(stacks.values()), ()))
        link = Link("SIGTERM", "", ("SIGTERM\n",), (), frames)
        return Record((link,), origin=origin, kind="signalled")
    message = crash.partition("\n")[0]
    current_thread = re.search(r"^Current thread 0x([0-9a-f]+)", crash, re.MULTILINE)
    key = int(current_thread[1], 16) if current_thread else None
    frames = without_launcher(stacks.get(key or 0) or next(iter(stacks.values()), ()))
    link = Link("died", message, (f"died: {message}\n",), (), frames)
    return Record((link,), origin=origin, kind=DIED)
