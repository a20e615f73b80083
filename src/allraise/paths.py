"""What the path of a report means.

Owns its placeholders, which paths are refused, and what is there already. Knows
nothing of reports.
"""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

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

_MAX_NAME_CHARS: Final = 80

# As many as Linux follows.
_MAX_LINKS: Final = 40


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
    """Refuse what cannot be the path of a report.

    Not collective.

    Raises:
        ValueError: A placeholder is not known, and the message names those that are;
            or it is no file that the path names.
    """
    for name in re.findall(r"\{([^{}]*)\}", template):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            msg = f"the report path knows {known}, not {{{name}}}: {template!r}"
            raise ValueError(msg)
    try:
        path = expand_path(template, "", job_id(os.environ))
    except RuntimeError:  # by pathlib
        msg = f"the report path begins with a home that is not known: {template!r}"
        raise ValueError(msg) from None
    kind = _refused_kind(path)
    if template.endswith("/") or path.name in ("", ".."):
        kind = "a folder"
    if kind:
        msg = f"the report path must be that of a file, {template!r} is {kind}"
        raise ValueError(msg)
    return template


def _refused_kind(path: Path) -> str:
    """Say what is there, if nothing can be written into it that is of use."""
    if descriptor_of(path) is not None:
        return ""
    mode = _mode_of(path)
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISBLK(mode):  # a disk
        return "a block device"
    return "a socket" if stat.S_ISSOCK(mode) else ""


def _mode_of(path: Path) -> int:
    """Return the mode of what is there, or 0."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0


def expand_path(template: str, step: str, job: str) -> Path:
    """Fill in the placeholders of a path.

    Raises:
        RuntimeError: It begins with a home that is not known.
    """
    values = {
        "{jobid}": job,
        "{step}": _as_file_name(step),
        "{time}": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
    }
    path = template
    for name, value in values.items():
        path = path.replace(name, value)
    return Path(path).expanduser()


def descriptor_of(path: Path) -> int | None:
    """Return which open file of this process a path means, as /dev/stderr does.

    Not collective. None if it means none. To be asked, since what is open may be a
    regular file, which nothing must be renamed over.
    """
    own = f"/proc/{os.getpid()}/fd"
    name = os.fspath(path)
    try:
        for _ in range(_MAX_LINKS):
            folder, last = os.path.split(name)
            folder = os.path.realpath(folder or ".")
            if folder == own and last.isdecimal():
                return int(last)
            name = str(Path(folder, Path(folder, last).readlink()))
    except (OSError, ValueError):  # no link any more
        pass
    return None


def is_special(path: Path) -> bool:
    """Tell whether a report is written into what is there: a device, a FIFO.

    Not collective. A regular file is replaced instead, and so appears whole.
    """
    if descriptor_of(path) is not None:
        return True
    mode = _mode_of(path)
    return bool(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def folder_for(path: Path) -> Path | None:
    """Return the innermost folder of a path that is there.

    Not collective. What belongs to a report can be kept in it, or in folders that are
    made there; None if it cannot be written, or is the place of a device.

    Raises:
        OSError: The folder in which the process runs is gone.
    """
    if is_special(path):
        return None
    folder = next(found for found in path.absolute().parents if _mode_of(found))
    can = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return folder if can else None
