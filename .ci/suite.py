"""Run the tests with this Python and the MPI it finds, and print what came of it.

Used by ``matrix.py`` in a virtual environment and by ``containers.py`` in an
image; the library must be installed there, as users have it. Each step prints
one line; a step that fails prints all its output. The last line is the result,
``RESULT`` and JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
MARK = "RESULT "
PYTEST = ["-m", "pytest", "--color=no", "-p", "no:cacheprovider"]
INTERRUPT_GRACE_S = 30.0  # for pytest to end the jobs that its tests have started

# Printed by the programs themselves, so that the table holds what was really run.
VERSIONS = """
import importlib.metadata as metadata, platform, re
from mpi4py import MPI
text = MPI.Get_library_version().replace(chr(0), "")
found = re.search(r"(Open MPI|MPICH Version|Intel\\(R\\) MPI Library)\\D*([\\d.]+\\w*)", text)
vendor = found.group(1).removesuffix(" Version").replace("(R)", "").removesuffix(" Library")
print(f"{vendor} {found.group(2)}", platform.python_version(),
      metadata.version("mpi4py"), metadata.version("tblib"),
      __import__("allraise").__file__, sep="|")
"""


@dataclass
class Result:
    """What one cell came to."""

    cell: str
    mpi: str = "?"
    python: str = "?"
    mpi4py: str = "?"
    tblib: str = "?"
    passed: dict[str, int] = field(default_factory=dict)  # by step
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    error: str = ""
    ran_on: str = ""  # day and commit
    steps: dict[str, str] = field(default_factory=dict)  # how single tests ended

    @property
    def total(self) -> int:
        """Return the number of tests that passed; one run with N ranks is one test."""
        return sum(self.passed.values())


def count(word: str, summary: str) -> int:
    """Return N of "N word" in pytest's closing line."""
    found = re.search(rf"(\d+) {word}", summary)
    return int(found.group(1)) if found else 0


def run(command: list[str], deadline_s: float) -> tuple[int, str]:
    """Run a command in a session of its own; return its code and its output."""
    import mpirun  # of tests/, on the path since main()

    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired:
        # pytest first: its fixtures end jobs that live in sessions of their own.
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=INTERRUPT_GRACE_S)
        except subprocess.TimeoutExpired:
            mpirun.end_session(process)
            output, _ = process.communicate()
        return 124, f"{output}\nsuite.py: no end after {deadline_s:g} s\n"
    finally:
        mpirun.kill_session(process.pid)
    return process.returncode, output


def run_ranks(n_ranks: int, deadline_s: float) -> tuple[int, str]:
    """Run the tests of tests/ranks under mpiexec."""
    import mpirun

    program = [*PYTEST, "tests/ranks", "--only-mpi"]
    ended = mpirun.run(n_ranks, program, deadline_s=deadline_s, cwd=ROOT)
    if ended.timed_out:
        return 124, f"{ended.output}\nsuite.py: no end after {deadline_s:g} s\n"
    return ended.returncode, ended.output


def ask_versions(result: Result) -> None:
    """Fill in the versions, and refuse a library that is not the installed one."""
    code, output = run([sys.executable, "-c", VERSIONS], 60.0)
    lines = [line for line in output.splitlines() if line.count("|") == 4]  # noqa: PLR2004
    if code or not lines:
        result.error = "no MPI"
        print(output)
        return
    result.mpi, result.python, result.mpi4py, result.tblib, where = lines[-1].split("|")
    if "site-packages" not in where:
        result.error = f"tests would run on {where}, not on the installed wheel"


def run_steps(result: Result, options: argparse.Namespace) -> None:
    """Run step after step until one fails."""
    pytest = [sys.executable, *PYTEST]
    launch = [*pytest, *options.launch]
    steps: dict[str, Callable[[], tuple[int, str]]] = {}
    if options.unit:
        steps["unit"] = lambda: run([*pytest, "tests/unit"], options.total)
    for n in options.ranks:
        steps[f"ranks {n}"] = functools.partial(run_ranks, n, options.deadline)
    if options.launch:
        steps["launch"] = lambda: run(launch, options.total)
    for name, step in steps.items():
        began = time.monotonic()
        code, output = step()
        summaries = re.findall(r"^.*\d+ \w+.* in [\d.]+s.*$", output, re.MULTILINE)
        summary = summaries[-1].strip("= ") if summaries else "no summary"
        result.passed[name] = count("passed", summary)
        result.failed += count("failed", summary) + count("error", summary)
        result.skipped += count("skipped", summary)
        seconds = time.monotonic() - began
        print(f"  {result.cell}: {name}: {summary} [{seconds:.1f} s]", flush=True)
        if code:
            print(output)
            result.error = f"{name}: exit code {code}"
            return
        if not result.passed[name]:
            # Green without a test is how a suite dies unnoticed.
            print(output)
            result.error = f"{name}: no test passed"
            return


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", default="here", help="its name in the output")
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2, 3, 4, 8], metavar="N"
    )
    parser.add_argument("--unit", action="store_true", help="tests/unit, too")
    parser.add_argument(
        "--launch", nargs="+", default=[], metavar="FILE", help="and these"
    )
    parser.add_argument("--deadline", type=float, default=300.0, metavar="S")
    parser.add_argument("--total", type=float, default=1500.0, metavar="S")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))

    began = time.monotonic()
    result = Result(options.cell)
    if max(options.ranks) == 1:
        parser.error("--ranks: at least one number must be larger than 1")
    ask_versions(result)
    if not result.error:
        run_steps(result, options)
    result.seconds = time.monotonic() - began
    print(MARK + json.dumps(asdict(result)), flush=True)
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main())
