"""What the two runners share: start the suite, collect the results, print the table."""

from __future__ import annotations

import json
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

from suite import MARK, ROOT, Result

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD = ("cell", "MPI", "Python", "mpi4py", "tblib", "tests passed", "seconds", "")


def load() -> dict[str, Any]:
    """Return matrix.toml."""
    return tomllib.loads((ROOT / ".ci/matrix.toml").read_text())


def variables(data: dict[str, Any], row: dict[str, Any], venv: str) -> dict[str, str]:
    """Return the variables of a row: those of its MPI, and its own."""
    both = {**data["env"][row["mpi"]], **row.get("env", {})}
    return {name: value.replace("{venv}", venv) for name, value in both.items()}


def suite_arguments(cell: str, data: dict[str, Any], ranks: list[int]) -> list[str]:
    """Return the command line of suite.py."""
    return [
        ".ci/suite.py",
        *("--cell", cell),
        *("--ranks", ",".join(str(n) for n in ranks)),
        *("--deadline", str(data["suite"]["deadline_s"])),
        *("--total", str(data["suite"]["total_s"])),
        *(["--quick"] if data["suite"].get("quick") else []),
    ]


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


def show(results: Iterable[Result], not_run: Iterable[str] = ()) -> str:
    """Return a Markdown table of the cells that ran, and of those that did not."""
    rows: list[tuple[str, ...]] = [HEAD]
    for result in results:
        ranks = sum(n for step, n in result.passed.items() if step.startswith("ranks"))
        parts = f"{result.passed.get('unit', 0)} + {ranks} + {result.passed.get('launch', 0)}"
        rows.append(
            (
                result.cell,
                result.mpi,
                result.python,
                result.mpi4py,
                result.tblib,
                f"{result.total} ({parts})",
                f"{result.seconds:.0f}",
                f"FAILED: {result.error}" if result.error else "ok",
            )
        )
    rows.extend((cell, *[""] * 6, "not run") for cell in not_run)
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = [
        "| "
        + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True))
        + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def close(results: list[Result], cells: list[str], name: str) -> int:
    """Print the table, keep a copy as build/NAME.md, and return the exit code."""
    text = show(results, cells[len(results) :])
    kept = ROOT / "build" / f"{name}.md"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(text + "\n")
    failed = sum(max(result.failed, 1) for result in results if result.error)
    skipped = sum(result.skipped for result in results)
    print(f"\n{text}\n")
    print("tests passed: unit + ranks (every number of ranks counts) + launch")
    print(
        f"{sum(result.total for result in results)} passed, {failed} failed, {skipped} skipped"
    )
    return 1 if failed or len(results) < len(cells) else 0
