"""The end of a job that cannot go on: what is known is told, then all end.

Owns the order of it: the program's own output, the report on stderr, the report
file, a moment, the abort. Knows nothing of why.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Final

from allraise.neighbours import end_neighbours
from allraise.record import ALL_KNOWN
from allraise.render import escape_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.report import Report

EXIT_CODE: Final = 1

# Printed by a helper thread right before MPI_Abort, a report was lost under MPICH
# in 6 of 30 runs; with a tenth of a second in between in none of 80.
BEFORE_END_S: Final = 0.25

# What `allraise run` was told, where the environment says nothing.
_defaults = {"report": "", "style": ""}

_EXIT_NOW: Final = os._exit  # a program may have put another in its place


def report_to(report: str, style: str | None) -> None:
    """Say where the last report goes where the environment does not, and how.

    Not collective.
    """
    _defaults.update(report=report, style=style or "")


def publish_last(
    title: str, make_report: Callable[[], Report], raw: Callable[[], str]
) -> None:
    """Show and store the last report of a job.

    Not collective. Never raises.

    Args:
        title: A line that says why the job ends.
        make_report: Makes the report.
        raw: Says what is known where that fails.
    """
    from allraise.publishing import write_error_stream
    from allraise.viewer import sanitise

    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        text, where = _report(title, make_report())
    except Exception as error:
        text, where = f"{raw()}\n", f"{type(error).__name__}: {error}\n"
    text = f"\nallraise: {sanitise(title)}; the job is ended\n\n{text}\n{where}"
    write_error_stream(escape_surrogates(text))


def _report(title: str, report: Report) -> tuple[str, str]:
    from allraise.paths import expand_path, job_id
    from allraise.publishing import default_style, save_somewhere
    from allraise.settings import read_settings

    settings = read_settings()
    report.environment["exit_code"] = EXIT_CODE
    report.environment["ended_because"] = title
    report.environment[ALL_KNOWN] = True
    where = ""
    template = settings.report or _defaults["report"]
    if template:
        path = expand_path(template, report.step, job_id(os.environ))
        where = f"{save_somewhere(report, path)}\n"
        if where.startswith("report: "):
            from allraise.spool import remove_current

            remove_current()
    style = settings.style or _defaults["style"] or default_style(len(report.ranks))
    return report.text(style), where


def end_process(code: int = EXIT_CODE) -> None:
    """End this process without MPI, which a helper thread may not call here."""
    time.sleep(BEFORE_END_S)
    _EXIT_NOW(code)


def abort_job(code: int = EXIT_CODE) -> None:
    """End the job; in a helper thread only at ``THREAD_MULTIPLE``.

    Not collective. Where ranks may die, those on other hosts must have been told to
    end by themselves: see `neighbours`.
    """
    from allraise.registry import resolve_comm
    from allraise.ulfm import is_active

    time.sleep(BEFORE_END_S)
    if is_active():
        end_neighbours()
        _EXIT_NOW(code)
    resolve_comm(None).Abort(code)
