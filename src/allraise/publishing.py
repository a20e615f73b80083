"""Showing a report to people and storing it in a file.

Owns where a report goes: the terminal, and a path with placeholders. Knows
nothing of how it was gathered.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from allraise.viewer import sanitise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allraise.report import Report

DEFAULT_PATH: Final = "allraise-{jobid}.json"
PLACEHOLDERS: Final = ("jobid", "step", "time")

# Where schedulers tell a job's number.
_JOB_VARIABLES: Final = (
    "SLURM_JOB_ID",
    "PBS_JOBID",
    "LSB_JOBID",
    "JOB_ID",
    "FLUX_JOB_ID",
    "PJM_JOBID",
)

# Up to here a block for each failed rank fits on a screen or two.
MAX_FAILED_SHOWN_SINGLY: Final = 8

# A terminal that does not take a report for so long does not get it.
WRITE_LIMIT_S: Final = 5.0

_MAX_NAME_CHARS: Final = 80


def default_style(n_failed: int) -> str:
    """Return the style that suits so many failed ranks."""
    return "ranks" if n_failed <= MAX_FAILED_SHOWN_SINGLY else "groups"


def job_id(environ: Mapping[str, str]) -> str:
    """Return the scheduler's number of this job, or this process's."""
    for name in _JOB_VARIABLES:
        if environ.get(name):
            return _as_file_name(environ[name])
    return f"pid{os.getpid()}"


def _as_file_name(text: str) -> str:
    """Return the text as a part of a file name: no folders, nothing hidden."""
    name = re.sub(r"[^\w.+-]+", "-", text, flags=re.ASCII).strip(".-")
    return name[:_MAX_NAME_CHARS] or "none"


def check_path(template: str) -> str:
    """Check that all placeholders are known.

    Raises:
        ValueError: One is not; the message names those that are.
    """
    for name in re.findall(r"\{([^{}]*)\}", template):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            msg = f"the report path knows {known}, not {{{name}}}: {template!r}"
            raise ValueError(msg)
    return template


def expand_path(template: str, step: str, job: str) -> Path:
    """Fill in the placeholders of a path."""
    values = {
        "{jobid}": job,
        "{step}": _as_file_name(step),
        "{time}": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
    }
    path = template
    for name, value in values.items():
        path = path.replace(name, value)
    return Path(path).expanduser()


def save_somewhere(report: Report, path: Path) -> str:
    """Save a report, if need be elsewhere; never raises.

    Not collective.

    Returns:
        A line that says where it is, or why it is nowhere.
    """
    try:
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
    deadline = time.monotonic() + WRITE_LIMIT_S
    while data and time.monotonic() < deadline:
        try:
            _, ready, _ = select.select([], [2], [], 0.1)
            if ready:
                # Small: a pipe that is ready takes this much without blocking.
                data = data[os.write(2, data[: select.PIPE_BUF]) :]
        except BlockingIOError:
            continue
        except (OSError, ValueError):  # closed
            return
