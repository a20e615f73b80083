"""What is stored of a failure: the report and its file.

Owns the report's content and its JSON form. Knows nothing of live exceptions
and never unpickles anything: a report can be read where neither MPI nor the
job's classes are installed.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from allraise.bundle import Bundle
from allraise.damage import check_links, check_ranges, check_types
from allraise.grouping import Group, group_records
from allraise.ranks import RankSet
from allraise.record import ALL_KNOWN, CAUSES, Frame, Link, Origin, Record
from allraise.settings import STYLES
from allraise.storing import write_file
from allraise.tree import show_tree
from allraise.viewer import head_of, show_groups, show_ranks

FORMAT: Final = "allraise-report"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one failed step: text and numbers, no live exceptions.

    Not collective. From ``exception.report`` (on the root, the whole; on other
    ranks what they know), or from `load_report`. ``print(report)`` shows failures
    that are alike once, under the set of their ranks.

    Attributes:
        step: The step that failed; empty for a whole program.
        bundle: The failures by rank, in the form that travels.
        size: The number of ranks of the communicator; None if not known.
        environment: Host, process, MPI library, Python, command line and time (UTC)
            of the process that made the report.
    """

    step: str
    bundle: Bundle
    size: int | None = None
    environment: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls, step: str, bundle: Bundle, size: int | None) -> Report:
        """Make a report in this process, with its environment."""
        return cls(step, bundle, size, describe_environment())

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that the report is about, ascending: failed, or interrupted."""
        return tuple(self.bundle.ranks)

    @property
    def failed_ranks(self) -> RankSet:
        """The ranks that failed by themselves or died, without consequences."""
        return RankSet.from_ranges(
            pair
            for ranks, record in self.bundle.records()
            if record.kind in CAUSES
            for pair in ranks.ranges
        )

    def only(self, ranks: RankSet) -> Report:
        """Return the part of the report that is about these ranks. Not collective.

        Raises:
            ValueError: It says nothing about any of them.
        """
        bundle = Bundle()
        for known, record in self.bundle.records():
            wanted = known & ranks
            if wanted:
                bundle.add(wanted, record)
        if not bundle:
            msg = f"the report is about ranks {self.bundle.ranks}, none of {ranks}"
            raise ValueError(msg)
        for rank, origin in self.bundle.origins.items():
            if rank in bundle.ranks:
                bundle.set_origin(rank, Origin(*origin))
        environment = {k: v for k, v in self.environment.items() if k != ALL_KNOWN}
        return Report(self.step, bundle, self.size, environment)

    def groups(self) -> list[Group]:
        """Return the failures, alike ones together, in order of time."""
        return group_records(self.bundle)

    def text(self, style: str = "groups") -> str:
        """Return the report as text. Not collective.

        Args:
            style: ``groups``: identical failures once, under the set of their
                ranks. ``ranks``: one block for each failed rank. ``tree``: all
                stacks merged from the outermost frame.

        Raises:
            ValueError: There is no such style.
        """
        if style == "groups":
            return show_groups(self.groups(), self.headline(), self.size)
        if style == "ranks":
            return show_ranks(self.bundle, self.groups(), self.size)
        if style == "tree":
            return show_tree(self.groups(), self.headline())
        msg = f"style must be one of {', '.join(STYLES)}, got {style!r}"
        raise ValueError(msg)

    def headline(self) -> str:
        """Say in one line what failed, and where."""
        # Without a step, `allraise run` has seen the program fail, in no guard or in
        # one without a name.
        nameless = "the program" if "ended_because" in self.environment else "a step"
        return head_of(self.groups(), self.step, self.size, nameless)

    def __str__(self) -> str:
        return self.text()

    def to_dict(self) -> dict[str, Any]:
        """Return what `save` writes, as plain data. Not collective."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "step": self.step,
            "size": self.size,
            "environment": self.environment,
            "times": _spread_of(self.bundle),
            "failures": [
                {
                    "ranks": [list(pair) for pair in ranks.ranges],
                    "kind": record.kind,
                    "links": [_link_to_dict(link) for link in record.links],
                    "reasons": [reason for reason in record.reasons if reason],
                }
                for ranks, record in self.bundle.records()
            ],
            "origins": {
                str(rank): dict(zip(Origin._fields, origin, strict=True))
                for rank, origin in sorted(self.bundle.origins.items())
            },
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report to a JSON file, whole or not at all.

        Not collective: call it on one rank, usually the root, which knows all. What is
        no regular file, a device or a FIFO, is written into.

        Args:
            path: The file; its folder must exist.

        Raises:
            OSError: It cannot be written. A file that was there is left as it was.
        """
        write_file(Path(path), json.dumps(self.to_dict(), indent=1))


def _spread_of(bundle: Bundle) -> dict[str, Any] | None:
    """Return when the first and the last rank failed, by their own clocks."""
    times = [origin[2] for origin in bundle.origins.values() if origin[2]]
    if not times:
        return None
    first, last = min(times), max(times)
    return {
        "first": _utc(first),
        "last": _utc(last),
        "spread_s": round(last - first, 6),
    }


def _utc(seconds: float) -> str:
    try:
        made = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (ValueError, OverflowError, OSError):  # a file may hold any number
        return ""
    return made.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _link_to_dict(link: Link) -> dict[str, Any]:
    data = link._asdict()
    data["frames"] = [frame._asdict() for frame in link.frames]
    return data


def _link_from_dict(data: dict[str, Any]) -> Link:
    members = data["members"]
    return Link(
        **{
            **data,
            "lines": tuple(data["lines"]),
            "notes": tuple(data["notes"]),
            "frames": tuple(Frame(**frame) for frame in data["frames"]),
            "members": None if members is None else tuple(members),
        }
    )


def load_report(path: str | os.PathLike[str]) -> Report:
    """Read a report file.

    Not collective. Needs no MPI.

    Args:
        path: A file written by `Report.save`, ``allraise run``, or at a deadline.

    Returns:
        The report, as text and numbers: it has no exception objects.

    Raises:
        ValueError: The file is not a report, is damaged, or is of a version
            that this allraise does not read; the message says where.
        OSError: It cannot be read.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        msg = (
            f"{os.fspath(path)} is not a whole JSON file: {error.msg} at line "
            f"{error.lineno}, column {error.colno}"
        )
        raise ValueError(msg) from error
    except RecursionError as error:
        msg = f"{os.fspath(path)} is JSON nested too deep for a report"
        raise ValueError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{os.fspath(path)} is no text: {error.reason} at byte {error.start}"
        raise ValueError(msg) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        msg = f"{os.fspath(path)} is JSON, but not an allraise report"
        raise ValueError(msg)
    if data.get("version") != VERSION:
        msg = (
            f"{os.fspath(path)} is of report version {data.get('version')!r}; this "
            f"allraise reads version {VERSION}"
        )
        raise ValueError(msg)
    try:
        bundle = Bundle()
        for failure in data["failures"]:
            links = tuple(_link_from_dict(link) for link in failure["links"])
            check_links(links)
            check_types((str, failure["kind"]))
            check_types(*((str, reason) for reason in failure["reasons"]))
            record = Record(
                links, reasons=tuple(failure["reasons"]), kind=failure["kind"]
            )
            check_ranges(failure["ranks"])
            ranks = RankSet.from_ranges((a, b) for a, b in failure["ranks"])
            bundle.add(ranks, record)
        for rank, origin in data["origins"].items():
            made = Origin(**origin)
            check_types((str, made.host), (int, made.pid), (float, made.time))
            bundle.set_origin(int(rank), made)
        check_types((str, data["step"]), (dict, data["environment"]))
        check_types((type(None) if data["size"] is None else int, data["size"]))
        return Report(data["step"], bundle, data["size"], data["environment"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        msg = f"{os.fspath(path)} is a damaged report: {type(error).__name__}: {error}"
        raise ValueError(msg) from error


def describe_environment() -> dict[str, Any]:
    """Describe this process; asks MPI only if the program has started it."""
    import platform

    mpi = sys.modules.get("mpi4py.MPI")
    library = ""
    if mpi is not None:
        library = mpi.Get_library_version().partition("\n")[0].strip("\0 ")
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "mpi": library,
        "command": list(sys.orig_argv),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
