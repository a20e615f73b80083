"""Test the library in containers: a distribution's own MPI, and a user who is not root.

usage: containers.py [--cell NAME] [--quick] [--ranks N,N] [--keep-going] [--list]
       containers.py --cluster [--cell NAME]
       containers.py --write-compose

The cells are in matrix.toml, the images come from docker/Dockerfile. Needed is an
engine with `docker build` and `docker run`; neither buildx nor compose. The first
cell that fails ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

import table
from suite import ROOT, Result

COMPOSE = ROOT / "docker/compose.yaml"
COMPOSE_HEAD = """\
# Written by `.ci/containers.py --write-compose` from .ci/matrix.toml.
#
#   docker compose -f docker/compose.yaml run --rm --build trixie
#
# `make docker-test` does the same for all of them, with plain `docker build` and
# `docker run`, and prints the table.

services:
"""
# Rank to rank through shared memory: Docker's 64 MB are too few for eight ranks.
SHM_SIZE = "1g"
# Of what the environment may hold, what pip needs to find its packages.
PIP_ARGUMENTS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
# A script that may lie beside this repository, on machines that have no engine, or
# can reach no registry: `docker-engine SUITE` starts one and makes debian:SUITE-slim.
LOCAL_ENGINE = ROOT.parent / "shared/docker-engine"
BUILD_LIMIT_S = 1800
RUN_LIMIT_S = 2400
CLUSTER_LIMIT_S = 1800


class EngineError(Exception):
    """No engine, no base image, or an image that cannot be built."""


@dataclass(frozen=True)
class Cell:
    """One image to test in."""

    name: str
    base: str
    ranks: list[int]
    packages: str = ""
    runtime: str = ""
    quick: bool = False
    cluster: bool = False
    env: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, str]:
        """Return the build arguments."""
        return {
            "BASE": self.base,
            "MPI_PACKAGES": self.packages,
            "MPI_RUNTIME": self.runtime,
        }

    def image(self, target: str) -> str:
        """Return the name of the image, for a target of the Dockerfile."""
        return f"allraise-{target}:{self.name}"


def docker(*arguments: str, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run a docker command, with its output captured."""
    return subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


def engine_answers() -> bool:
    """Tell whether there is an engine to talk to."""
    return bool(shutil.which("docker")) and docker("info").returncode == 0


def ensure_bases(cells: list[Cell]) -> None:
    """See to it that an engine answers and has the base images."""
    suites = sorted(
        {c.base.removeprefix("debian:").removesuffix("-slim") for c in cells}
    )
    if not engine_answers():
        if not LOCAL_ENGINE.exists():
            msg = "no container engine answers: start dockerd, or see that this user may use it"
            raise EngineError(msg)
        subprocess.run([LOCAL_ENGINE, *suites], check=True, timeout=BUILD_LIMIT_S)
    for base in sorted({cell.base for cell in cells}):
        if docker("image", "inspect", base).returncode == 0:
            continue
        pulled = docker("pull", "--quiet", base, limit_s=BUILD_LIMIT_S)
        if pulled.returncode == 0:
            continue
        if not LOCAL_ENGINE.exists():
            msg = f"{base} cannot be pulled: {pulled.stderr}"
            raise EngineError(msg)
        suite = base.removeprefix("debian:").removesuffix("-slim")
        subprocess.run([LOCAL_ENGINE, suite], check=True, timeout=BUILD_LIMIT_S)


def build(cell: Cell, target: str) -> str:
    """Build an image of a cell and return its name."""
    image = cell.image(target)
    arguments = [f"{name}={value}" for name, value in cell.arguments.items()]
    # Without a value, docker takes it from the environment, and keeps it out of ps.
    arguments += [name for name in PIP_ARGUMENTS if name in os.environ]
    options = [part for argument in arguments for part in ("--build-arg", argument)]
    began = time.monotonic()
    built = docker(
        "build",
        *("--file", "docker/Dockerfile", "--target", target, "--tag", image),
        *options,
        ".",
        limit_s=BUILD_LIMIT_S,
    )
    if built.returncode:
        msg = f"{image} cannot be built\n{built.stdout}{built.stderr}"
        raise EngineError(msg)
    print(f"  {cell.name}: image built [{time.monotonic() - began:.1f} s]", flush=True)
    return image


def run_cell(cell: Cell, data: dict[str, Any]) -> Result:
    """Build the image of a cell and run the suite in it."""
    image = build(cell, "suite")
    name = f"allraise-{cell.name}-{os.getpid()}"
    command = [
        *("docker", "run", "--rm", "--name", name),
        "--init",  # a process 1 that reaps ranks whose parent is gone
        *("--shm-size", SHM_SIZE),
        *(part for pair in cell.env.items() for part in ("--env", "=".join(pair))),
        image,
        *("timeout", "--signal=INT", "--kill-after=60", str(RUN_LIMIT_S)),
        *("python", *table.suite_arguments(cell.name, data, cell.ranks)),
    ]
    try:
        return table.follow(cell.name, command)
    except BaseException:
        docker("kill", name)  # ending the client leaves the container running
        raise


def run_cluster(cell: Cell) -> int:
    """Build the image of a node and run tests/cluster, which makes nodes of it."""
    image = build(cell, "node")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "tests/cluster"],
        cwd=ROOT,
        env={**os.environ, "CLUSTER_IMAGE": image},
        timeout=CLUSTER_LIMIT_S,
        check=False,
    )
    return ended.returncode


def compose(cells: list[Cell]) -> str:
    """Return the text of docker/compose.yaml."""
    lines = []
    for cell in cells:
        suite = ["python", *table.suite_arguments(cell.name, table.load(), cell.ranks)]
        lines += [
            f"  {cell.name}:",
            f"    image: {cell.image('suite')}",
            "    build:",
            "      context: ..",
            "      dockerfile: docker/Dockerfile",
            "      target: suite",
            "      args:",
            *(f'        {name}: "{value}"' for name, value in cell.arguments.items()),
            *(f"        {name}:" for name in PIP_ARGUMENTS),
            "    init: true",
            f"    shm_size: {SHM_SIZE}",
            "    command: " + json.dumps(suite),
        ]
        if cell.env:
            lines.append("    environment:")
            lines += [f'      {name}: "{value}"' for name, value in cell.env.items()]
        lines.append("")
    return COMPOSE_HEAD + "\n".join(lines).rstrip() + "\n"


def run_cells(cells: list[Cell], data: dict[str, Any], *, keep_going: bool) -> int:
    """Run one cell after the other and print the table."""
    results: list[Result] = []
    for cell in cells:
        print(f"{cell.name}: {cell.base}, {cell.packages} {cell.runtime}", flush=True)
        try:
            results.append(run_cell(cell, data))
        except EngineError as exc:
            print(exc)
            results.append(Result(cell.name, error="image cannot be built"))
        if results[-1].error and not keep_going:
            break
    return table.close(results, [cell.name for cell in cells], "docker")


def make_cells(data: dict[str, Any]) -> list[Cell]:
    """Return one cell for each row of the table."""
    cells = []
    for row in data["images"]:
        own = {name: value for name, value in row.items() if name != "mpi"}
        own["env"] = table.variables(data, row, "/opt/venv")
        own.setdefault("ranks", data["suite"]["ranks"])
        cells.append(Cell(**own))
    return cells


def choose(cells: list[Cell], options: argparse.Namespace) -> list[Cell]:
    """Return the cells that the command line asks for."""
    if options.cell:
        cells = [cell for cell in cells if cell.name == options.cell]
    elif options.quick:
        cells = [cell for cell in cells if cell.quick]
    elif options.cluster:
        cells = [cell for cell in cells if cell.cluster]
    if options.ranks:
        ranks = [int(n) for n in options.ranks.split(",")]
        cells = [replace(cell, ranks=ranks) for cell in cells]
    return cells


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", help="only this one")
    parser.add_argument(
        "--quick", action="store_true", help="two that build fast, and only tests/ranks"
    )
    parser.add_argument("--ranks", metavar="N,N,...", help="instead of matrix.toml's")
    parser.add_argument("--keep-going", action="store_true", help="after a failure")
    parser.add_argument("--list", action="store_true", help="print the cells and end")
    parser.add_argument("--cluster", action="store_true", help="tests of several nodes")
    parser.add_argument("--write-compose", action="store_true", help="and end")
    options = parser.parse_args()

    data = table.load()
    data["suite"]["quick"] = options.quick
    every = make_cells(data)
    if options.write_compose:
        COMPOSE.write_text(compose(every))
        return 0
    if COMPOSE.read_text() != compose(every):
        parser.error(
            "docker/compose.yaml is not what matrix.toml says: --write-compose"
        )
    cells = choose(every, options)
    if not cells:
        parser.error("no such cell; the cells are " + ", ".join(c.name for c in every))
    if options.list:
        for cell in cells:
            quick = " (quick)" if cell.quick else ""
            print(f"{cell.name}: {cell.base} {cell.packages} {cell.runtime}{quick}")
        return 0
    try:
        ensure_bases(cells)
        if options.cluster:
            return max(run_cluster(cell) for cell in cells)
    except EngineError as exc:
        print(exc)
        return 1
    return run_cells(cells, data, keep_going=options.keep_going)


if __name__ == "__main__":
    sys.exit(main())
