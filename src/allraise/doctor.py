"""``allraise doctor``: which protections a job has here.

Owns the questions and the screen with the answers. Each rank answers for itself,
since ranks may run on unlike nodes; the root prints what they have in common.
"""

from __future__ import annotations

import faulthandler
import os
import platform
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from allraise.plain import IS_COMPILED
from allraise.ranks import RankSet
from allraise.settings import read_settings
from allraise.viewer import library_name, sanitise

if TYPE_CHECKING:
    from collections.abc import Iterable

# How launchers tell a process how many there are.
_SIZE_VARIABLES: Final = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")

_LEVELS: Final = ("single", "funneled", "serialized", "multiple")

# Of answers that differ, a screen shows so many.
MAX_ANSWERS: Final = 4


class Answers(NamedTuple):
    """What one rank knows of itself."""

    host: str
    python: str
    library: str
    binding: str
    level: str
    ulfm: bool
    faulthandler: bool
    said_size: int
    compiled: bool


def _ask(mpi: Any) -> Answers:
    from importlib.metadata import version

    from allraise.ulfm import is_active

    said = [
        int(os.environ[n]) for n in _SIZE_VARIABLES if os.environ.get(n, "").isdigit()
    ]
    levels = (
        mpi.THREAD_SINGLE,
        mpi.THREAD_FUNNELED,
        mpi.THREAD_SERIALIZED,
        mpi.THREAD_MULTIPLE,
    )
    return Answers(
        socket.gethostname(),
        platform.python_version(),
        library_name(mpi.Get_library_version()),
        f"mpi4py {version('mpi4py')}",
        _LEVELS[levels.index(mpi.Query_thread())],
        is_active(),
        faulthandler.is_enabled(),
        max(said, default=1),
        IS_COMPILED,
    )


def _in_common(values: Iterable[object]) -> str:
    """Write what all ranks answer, or which ranks answer what."""
    ranks: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(sanitise(str(value)), []).append(rank)
    if len(ranks) == 1:
        return next(iter(ranks))
    parts = [f"{text} (ranks {RankSet(found)})" for text, found in ranks.items()]
    more = len(parts) - MAX_ANSWERS
    return "; ".join(parts[:MAX_ANSWERS]) + (f"; {more} more" if more > 0 else "")


def _made(compiled: bool) -> str:  # noqa: FBT001 one question
    return f"{'compiled' if compiled else 'not compiled'}, Python"


def screen(answers: list[Answers], version: str) -> str:
    """Write the screen. Not collective.

    Args:
        answers: Of each rank.
        version: Of allraise.
    """
    size = len(answers)
    first = answers[0]
    hosts = {answer.host for answer in answers}
    multiple = all(answer.level == "multiple" for answer in answers)
    ulfm = all(answer.ulfm for answer in answers)
    settings = read_settings()
    facts = [
        (
            "allraise",
            _in_common(f"{version}, {_made(a.compiled)} {a.python}" for a in answers),
        ),
        ("MPI", _in_common(f"{a.library}, {a.binding}" for a in answers)),
        ("ranks", f"{size} on {len(hosts)} host{'s'[: len(hosts) > 1]}"),
        ("thread level", _in_common(a.level for a in answers)),
        ("ULFM", "active" if ulfm else "not active"),
    ]
    protections = [
        (True, "an exception in a guard is raised on every rank"),
        (
            True,
            "a rank blocked on g.comm is woken "
            + ("by a revoke" if ulfm else "by messages"),
        ),
        (
            settings.timeout is not None,
            "a guard that takes too long is reported"
            + (f" after {settings.timeout:g} s" if settings.timeout else ""),
        ),
        (
            True,
            "`allraise run` reports uncaught exceptions and signals, by "
            + ("messages" if multiple else "files"),
        ),
        (multiple, "`allraise run` ends a job that waits for ranks that have left"),
        (ulfm, "survivors report a rank that was killed"),
        (all(a.faulthandler for a in answers), "a crash in C code leaves a stack"),
    ]
    advice = []
    if first.said_size > size:
        advice.append(
            f"the launcher started {first.said_size} ranks, MPI knows {size}: mpirun "
            f"and mpi4py belong to different MPIs; use the mpirun of {first.library}"
        )
    if settings.timeout is None:
        advice.append("set ALLRAISE_TIMEOUT=seconds, or guard(timeout=)")
    if not multiple:
        advice.append(
            "initialise MPI with THREAD_MULTIPLE (unset MPI4PY_RC_THREAD_LEVEL)"
        )
    if not ulfm:
        advice.append(
            "start with `mpirun --with-ft ulfm`"
            if first.library.startswith("Open MPI v5")
            else "ULFM needs Open MPI 5, started with `mpirun --with-ft ulfm`"
        )
    if not all(a.faulthandler for a in answers):
        advice.append("set PYTHONFAULTHANDLER=1")
    lines = [f"{name:<13} {text}" for name, text in facts]
    lines += ["", "protections"]
    lines += [f"  {'yes' if on else 'no ':<4} {text}" for on, text in protections]
    if advice:
        lines += ["", "to get more", *(f"  - {text}" for text in advice)]
    return "\n".join(lines) + "\n"


def doctor() -> None:
    """Print, on the root, which protections a job started like this has.

    Collective over ``COMM_WORLD``.
    """
    from mpi4py import MPI

    import allraise
    from allraise.registry import resolve_comm

    comm = resolve_comm(None)
    answers = comm.gather(tuple(_ask(MPI)), 0)
    if answers is not None:
        text = screen([Answers(*found) for found in answers], allraise.__version__)
        print(text, end="", flush=True)  # noqa: T201 what it is for
