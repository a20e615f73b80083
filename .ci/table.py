"""What the runners share: which tests run in a cell, starting them, the results."""

from __future__ import annotations

import json
import subprocess
import time
import tomllib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from suite import MARK, ROOT, Result

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

# What each cell came to the last time, for docs/tested.md.
KEPT = ROOT / "build/tested"
HEAD = (
    "cell",
    "MPI",
    "Python",
    "mpi4py",
    "tblib",
    "unit",
    "ranks",
    "launch",
    "seconds",
    "",
)


@dataclass(frozen=True)
class Plan:
    """What of tests/ runs in a cell."""

    ranks: Sequence[int]
    unit: bool
    launch: Sequence[str]  # files

    def arguments(self, cell: str, data: dict[str, Any]) -> list[str]:
        """Return the command line of suite.py."""
        return [
            ".ci/suite.py",
            *("--cell", cell),
            *("--ranks", *(str(n) for n in self.ranks)),
            *(["--unit"] if self.unit else []),
            *(["--launch", *self.launch] if self.launch else []),
            *("--deadline", str(data["suite"]["deadline_s"])),
            *("--total", str(data["suite"]["total_s"])),
        ]


def load() -> dict[str, Any]:
    """Return matrix.toml."""
    return tomllib.loads((ROOT / ".ci/matrix.toml").read_text())


def variables(data: dict[str, Any], row: dict[str, Any], venv: str) -> dict[str, str]:
    """Return the variables of a row: those of its MPI, and its own."""
    both = {**data["env"][row["mpi"]], **row.get("env", {})}
    return {name: value.replace("{venv}", venv) for name, value in both.items()}


def plan(data: dict[str, Any], row: dict[str, Any], *, thorough: bool) -> Plan:
    """Return what matrix.toml says for a row."""
    suite = data["suite"]
    most = row.get("max_ranks", max(suite["all_ranks"]))
    ranks = suite["all_ranks"] if thorough else suite["ranks"]
    return Plan(
        [n for n in ranks if n <= most],
        unit=row.get("unit", False),
        launch=suite["launch"] if thorough else [],
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that both runners have."""
    parser.add_argument("--quick", action="store_true", help="few, and less in each")
    parser.add_argument("--full", action="store_true", help="all tests in every cell")
    parser.add_argument("--ranks", metavar="N,N,...", help="instead of matrix.toml's")
    parser.add_argument("--keep-going", action="store_true", help="after a failure")
    parser.add_argument("--list", action="store_true", help="print the cells and end")


def change(planned: Plan, options: argparse.Namespace, data: dict[str, Any]) -> Plan:
    """Return what the command line makes of a plan."""
    if options.full:
        planned = Plan(data["suite"]["all_ranks"], unit=True, launch=["tests/launch"])
    if options.quick:
        planned = Plan(data["suite"]["ranks"], unit=False, launch=[])
    if options.ranks:
        ranks = [int(n) for n in options.ranks.split(",")]
        planned = replace(planned, ranks=ranks)
    return planned


def follow(cell: str, command: list[str], env: dict[str, str] | None = None) -> Result:
    """Run a command that ends in suite.py, pass its output on, return its result."""
    result = Result(cell, error="ended without a result")
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        if process.stdout is None:
            raise AssertionError
        for line in process.stdout:
            if line.startswith(MARK):
                result = Result(**json.loads(line.removeprefix(MARK)))
            else:
                print(line, end="", flush=True)
    if process.returncode and not result.error:
        result.error = f"exit code {process.returncode}"
    return result


def day_and_commit() -> str:
    """Return when and of what a cell was run."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return f"{day}, {described.stdout.strip() or 'no commit'}"


def keep(kind: str, result: Result) -> None:
    """Store a result for docs/tested.md."""
    result.ran_on = day_and_commit()
    path = KEPT / kind / f"{result.cell}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(result), indent=1))


def kept(kind: str) -> dict[str, Result]:
    """Return the stored results of one kind, by cell."""
    found = sorted((KEPT / kind).glob("*.json"))
    return {path.stem: Result(**json.loads(path.read_text())) for path in found}


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of rows, the first of which is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True))
        + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def skipped(result: Result) -> str:
    """Return how many tests were skipped, if any."""
    return f" + {result.skipped} skipped" if result.skipped else ""


def show(results: Iterable[Result], not_run: Iterable[str] = ()) -> str:
    """Return a table of the cells that ran, and of those that did not."""
    rows: list[tuple[str, ...]] = [HEAD]
    for result in results:
        ranks = {step: n for step, n in result.passed.items() if step[:5] == "ranks"}
        numbers = " ".join(step.removeprefix("ranks ") for step in ranks)
        rows.append(
            (
                result.cell,
                result.mpi,
                result.python,
                result.mpi4py,
                result.tblib,
                str(result.passed.get("unit", "")),
                f"{sum(ranks.values())} (n = {numbers})" if ranks else "",
                str(result.passed.get("launch", "")),
                f"{result.seconds:.0f}",
                f"FAILED: {result.error}" if result.error else "ok" + skipped(result),
            )
        )
    rows.extend((cell, *[""] * (len(HEAD) - 2), "not run") for cell in not_run)
    return columns(rows)


def close(results: list[Result], cells: list[str]) -> int:
    """Print the table and return the exit code."""
    failed = sum(max(result.failed, 1) for result in results if result.error)
    skipped = sum(result.skipped for result in results)
    print(f"\n{show(results, cells[len(results) :])}\n")
    print(
        "tests passed in tests/unit, in tests/ranks (each with n ranks), tests/launch"
    )
    print(
        f"{sum(result.total for result in results)} passed, {failed} failed, {skipped} skipped"
    )
    return 1 if failed or len(results) < len(cells) else 0
