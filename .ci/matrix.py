"""Test the library on MPI runtimes from PyPI, each with every Python found here.

usage: matrix.py [--cell NAME] [--quick | --full] [--ranks N,N] [--keep-going] [--list]

The cells are in matrix.toml, and what runs in each. Each has a virtual
environment, .venv/NAME, with the wheel built from this checkout; it is kept, and
made again when what belongs into it has changed. The first cell that fails ends
the run. --quick: one cell of each MPI, and only tests/ranks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import table
from suite import ROOT, Result

MINORS = range(11, 20)
# Where version managers keep Pythons: pyenv's commands on PATH refuse to run
# for any version that is not selected, so those are taken from its own folder.
MANAGED = (
    "~/.pyenv/versions/*/bin",
    "~/.local/share/uv/python/*/bin",
    "/opt/hostedtoolcache/Python/*/x64/bin",
)
PROBE = "import ensurepip, ssl, sys, venv; print(*sys.version_info[:3])"


@dataclass(frozen=True)
class Cell:
    """One environment to test in."""

    name: str
    python: str  # the interpreter
    runtime: str  # requirement
    mpi4py: str  # requirement
    tblib: str  # requirement
    quick: bool
    plan: table.Plan
    env: dict[str, str] = field(default_factory=dict)
    build_env: dict[str, str] = field(default_factory=dict)

    @property
    def venv(self) -> Path:
        """Return the folder of its virtual environment."""
        return ROOT / ".venv" / self.name


def find_pythons() -> dict[str, tuple[str, str]]:
    """Return the interpreters that really run: "3.13" -> newest patch, its path."""
    folders = [Path(entry) for entry in os.get_exec_path()]
    for pattern in MANAGED:
        path = Path(pattern).expanduser()
        folders += sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    best: dict[str, tuple[tuple[int, ...], str]] = {}
    for minor in MINORS:
        for folder in folders:
            python = folder / f"python3.{minor}"
            if not python.exists():
                continue
            probe = subprocess.run(
                [python, "-c", PROBE],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            if probe.returncode:
                continue  # a version manager's refusal, or no ensurepip
            version = tuple(int(part) for part in probe.stdout.split())
            key = f"3.{minor}"
            if key not in best or best[key][0] < version:
                best[key] = (version, str(python))
    return {
        key: (".".join(map(str, version)), python)
        for key, (version, python) in best.items()
    }


def requirement(package: str, version: str | None) -> str:
    """Return a requirement; no version means the newest."""
    return f"{package}=={version}" if version else package


def make_cells(data: dict[str, Any], pythons: dict[str, tuple[str, str]]) -> list[Cell]:
    """Return one cell for each runtime and each Python that it asks for."""
    cells = []
    minors = list(pythons)
    ends = {"oldest": minors[0], "newest": minors[-1]} if minors else {}
    for row in data["wheels"]:
        for minor, (version, python) in pythons.items():
            if row.get("python", minor) != minor:
                continue
            name = row.get("name", f"{row['mpi']}-{row['version']}") + f"-py{minor}"
            thorough = minor == ends.get(row.get("thorough"))
            plan = table.plan(data, row, thorough=thorough)
            if version in data["suite"]["no_unit"]:
                plan = replace(plan, unit=False)
            cells.append(
                Cell(
                    name=name,
                    python=python,
                    runtime=requirement(row["package"], f"{row['version']}.*"),
                    mpi4py=requirement("mpi4py", row.get("mpi4py")),
                    tblib=requirement("tblib", row.get("tblib")),
                    quick=thorough and row.get("quick", False),
                    plan=plan,
                    env=table.variables(data, row, str(ROOT / ".venv" / name)),
                    build_env=row.get("build_env", {}),
                )
            )
    return cells


def pip(cell: Cell, *arguments: str) -> None:
    """Run pip in a cell's environment; its mpicc is the first on PATH."""
    path = f"{cell.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [cell.venv / "bin/python", "-m", "pip", "-qq", *arguments],
        cwd=ROOT,
        env={**os.environ, **cell.build_env, "PATH": path},
        check=True,
    )


def prepare(cell: Cell) -> None:
    """Make the cell's environment, unless it stands as it should."""
    wanted = json.dumps(
        [cell.python, cell.runtime, cell.mpi4py, cell.tblib, cell.build_env]
    ).encode()
    wanted += (ROOT / "pyproject.toml").read_bytes()
    stamp = cell.venv / ".made-from"
    digest = hashlib.sha256(wanted).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    shutil.rmtree(cell.venv, ignore_errors=True)
    subprocess.run([cell.python, "-m", "venv", cell.venv], check=True)
    pip(cell, "install", "--upgrade", "pip>=25.1")  # 25.1: --group
    pip(cell, "install", cell.runtime)
    pip(cell, "install", cell.mpi4py, cell.tblib, "--group", "test")
    stamp.write_text(digest)


def build_wheel(cell: Cell) -> Path:
    """Build the wheel of this checkout, once for all cells of one Python."""
    folder = ROOT / "build/wheel" / Path(cell.python).name
    shutil.rmtree(folder, ignore_errors=True)
    pip(cell, "wheel", "--no-deps", "--wheel-dir", str(folder), ".")
    return next(folder.glob("*.whl"))


def run_cell(cell: Cell, wheel: Path, data: dict[str, Any]) -> Result:
    """Install the wheel and run the suite."""
    pip(cell, "install", "--force-reinstall", "--no-deps", str(wheel))
    pip(cell, "check")
    python = str(cell.venv / "bin/python")
    command = [python, *cell.plan.arguments(cell.name, data)]
    path = f"{cell.venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, **cell.env, "PATH": path, "VIRTUAL_ENV": str(cell.venv)}
    return table.follow(cell.name, command, env)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", help="only this one, or those whose name starts so")
    table.add_options(parser)
    options = parser.parse_args()

    data = table.load()
    pythons = find_pythons()
    cells = make_cells(data, pythons)
    if options.cell:
        exact = [cell for cell in cells if cell.name == options.cell]
        cells = exact or [cell for cell in cells if cell.name.startswith(options.cell)]
    elif options.quick:
        cells = [cell for cell in cells if cell.quick]
    if not cells:
        found = ", ".join(pythons) or "none"
        parser.error(f"no such cell here (Pythons found: {found}); see --list")
    cells = [
        replace(cell, plan=table.change(cell.plan, options, data)) for cell in cells
    ]
    if options.list:
        for cell in cells:
            quick = " (quick)" if cell.quick else ""
            print(f"{cell.name}: {cell.runtime} {cell.mpi4py} {cell.tblib}{quick}")
        return 0

    results: list[Result] = []
    wheels: dict[str, Path] = {}
    for cell in cells:
        print(f"{cell.name}: {cell.runtime}, {cell.python}", flush=True)
        try:
            prepare(cell)
            if cell.python not in wheels:
                wheels[cell.python] = build_wheel(cell)
            results.append(run_cell(cell, wheels[cell.python], data))
        except subprocess.CalledProcessError as exc:
            print(exc)
            results.append(Result(cell.name, error="environment cannot be made"))
        table.keep("wheels", results[-1])
        if results[-1].error and not options.keep_going:
            break
    return table.close(results, [cell.name for cell in cells])


if __name__ == "__main__":
    sys.exit(main())
