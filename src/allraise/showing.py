"""``allraise show``: a report file, on any machine.

Owns what is printed of a stored report, and its colours. Needs no MPI.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from allraise.publishing import default_style
from allraise.report import load_report
from allraise.viewer import place_of, sanitise

if TYPE_CHECKING:
    import argparse

    from allraise.report import Report

CANNOT_READ: Final = 2

# A line of a report, and what it is printed in.
_COLOURS: Final = (
    (re.compile(r"^(=== .*)$", re.MULTILINE), "1;31"),
    (re.compile(r"^((?:Traceback|Stack) \(most .*)$", re.MULTILINE), "1"),
    (re.compile(r'^(  File ".*)$', re.MULTILINE), "36"),
)


def wants_colour(stream: TextIO) -> bool:
    """Tell whether a stream is a terminal that may be coloured."""
    if os.environ.get("NO_COLOR"):  # no-color.org: not empty
        return False
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(text: str) -> str:
    """Colour the lines that a reader looks for. The text is sanitised already."""
    for pattern, colour in _COLOURS:
        text = pattern.sub(f"\x1b[{colour}m\\1\x1b[0m", text)
    return text


def describe(report: Report) -> str:
    """Write where a report is from: a line or two."""
    known = report.environment
    command = " ".join(str(word) for word in known.get("command", ()))
    lines = [place_of(known), command]
    if "exit_code" in known:
        because = known.get("ended_because")
        why = f": {because}" if because else ""
        lines.append(f"exit code {known['exit_code']}{why}")
    return "".join(f"{sanitise(line)}\n" for line in lines if line)


def _load(path: Path) -> Report:
    """Read a report file, or the folder of a job that left none."""
    if path.is_dir():
        from allraise.remains import load_spool

        return load_spool(path)
    return load_report(path)


def show(options: argparse.Namespace, style: str | None) -> int:
    """Print a report, or write it as a page.

    Not collective.

    Returns:
        The exit code: 2 where the file is no report, and says so.
    """
    try:
        report = _load(Path(options.path))
        if options.rank is not None:
            report = report.only(options.rank)
    except (OSError, ValueError) as error:
        print(f"allraise show: {sanitise(str(error))}", file=sys.stderr)  # noqa: T201
        return CANNOT_READ
    if options.html is not None:
        from allraise.page import page_of

        try:
            Path(options.html).write_text(page_of(report), encoding="utf-8")
        except OSError as error:
            print(f"allraise show: {sanitise(str(error))}", file=sys.stderr)  # noqa: T201
            return CANNOT_READ
        return 0
    style = options.style or style or default_style(len(report.failed_ranks))
    text = f"{describe(report)}\n{report.text(style)}"
    if not text.endswith("\n"):
        text += "\n"
    if wants_colour(sys.stdout):
        text = coloured(text)
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError:  # a terminal that is not UTF-8
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except BrokenPipeError:  # `| head`
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 for the rest of the process
    return 0
