"""Test the library in containers: a distribution's own MPI, and a user who is not root.

usage: containers.py [--cell NAME] [--quick | --full] [--ranks N,N] [--keep-going] [--list]
       containers.py --cluster | --slurm [--cell NAME]
       containers.py --write-compose

The cells are in matrix.toml, and what runs in each; the images come from
docker/Dockerfile. Needed is an engine with `docker build` and `docker run`; neither
buildx nor compose. The first cell that fails ends the run. --quick: two cells that
build fast, and only tests/ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from typing import Any

import table
from suite import ROOT, VERSIONS, Result

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
# The exit code where this machine can make no container at all: no test has run.
NO_ENGINE = 3
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
    plan: table.Plan
    packages: str = ""
    runtime: str = ""
    quick: bool = False
    cluster: bool = False
    slurm: str = ""  # the plugin of `srun --mpi`
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
    if not shutil.which("docker"):
        return False
    try:
        return docker("info").returncode == 0
    except subprocess.TimeoutExpired:
        return False


def make_local(suites: list[str]) -> None:
    """Start an engine on this machine, with base images of these suites."""
    try:
        subprocess.run([LOCAL_ENGINE, *suites], check=True, timeout=BUILD_LIMIT_S)
    except (subprocess.SubprocessError, OSError) as exc:
        msg = f"no container engine can be started here: {exc}"
        raise EngineError(msg) from exc
    if not engine_answers():
        msg = f"{LOCAL_ENGINE.name} ended well, but no container engine answers"
        raise EngineError(msg)


def ensure_bases(cells: list[Cell]) -> None:
    """See to it that an engine answers and has the base images."""
    suites = sorted(
        {c.base.removeprefix("debian:").removesuffix("-slim") for c in cells}
    )
    if not engine_answers():
        if not LOCAL_ENGINE.exists():
            msg = "no container engine answers: start dockerd, or see that this user may use it"
            raise EngineError(msg)
        make_local(suites)
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
        make_local([suite])


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
        *("python", *cell.plan.arguments(cell.name, data)),
    ]
    try:
        return table.follow(cell.name, command)
    except BaseException:
        docker("kill", name)  # ending the client leaves the container running
        raise


def outcome_of(case: ET.Element) -> str:
    """Return how a test ended, from pytest's report."""
    if case.find("failure") is not None or case.find("error") is not None:
        return "FAILED"
    return "passed" if case.find("skipped") is None else "skipped"


def run_folder(cell: Cell, kind: str, target: str, env: dict[str, str]) -> Result:
    """Run those of tests/cluster, on this machine, that start containers of an image."""
    image = build(cell, target)
    outcomes = table.KEPT / kind / f"{cell.name}.xml"
    outcomes.parent.mkdir(parents=True, exist_ok=True)
    outcomes.unlink(missing_ok=True)
    result = Result(cell.name)
    answer = docker("run", "--rm", "--user", "tester", image, "python", "-c", VERSIONS)
    versions = answer.stdout.strip().split("|")[:4]
    if answer.returncode or len(versions) != 4:  # noqa: PLR2004
        msg = f"{image}: no MPI\n{answer.stdout}{answer.stderr}"
        raise EngineError(msg)
    result.mpi, result.python, result.mpi4py, result.tblib = versions
    if kind == "slurm":
        result.mpi += f", {docker('run', '--rm', image, 'slurmd', '-V').stdout.strip()}"
    began = time.monotonic()
    tests = f"tests/cluster/test_{kind}.py"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", f"--junitxml={outcomes}", tests],
        cwd=ROOT,
        env={**os.environ, **env, "TEST_IMAGE": image},
        timeout=CLUSTER_LIMIT_S,
        check=False,
    )
    result.seconds = time.monotonic() - began
    result.error = f"exit code {ended.returncode}" if ended.returncode else ""
    for case in ET.parse(outcomes).iter("testcase"):
        outcome = outcome_of(case)
        result.steps[case.get("name", "?")] = outcome
        result.passed[case.get("name", "?")] = outcome == "passed"
        result.skipped += outcome == "skipped"
        result.failed += outcome == "FAILED"
    if not result.total and not result.error:
        result.error = "no test passed"
    table.keep(kind, result)
    return result


def run_nodes(cells: list[Cell], options: argparse.Namespace) -> int:
    """Run the tests of two nodes, and those of Slurm, in the cells that have them."""
    results = []
    for cell in cells:
        if cell.cluster and options.cluster:
            results.append(run_folder(cell, "two_nodes", "node", {}))
        if cell.slurm and options.slurm:
            plugin = {"SLURM_MPI": cell.slurm}
            results.append(run_folder(cell, "slurm", "slurm", plugin))
    for result in results:
        print(
            f"{result.cell}: {result.mpi}: {result.total} passed, {result.failed} failed, "
            f"{result.skipped} skipped {result.error} [{result.seconds:.0f} s]"
        )
    return 1 if not results or any(result.error for result in results) else 0


def compose(cells: list[Cell], data: dict[str, Any]) -> str:
    """Return the text of docker/compose.yaml."""
    lines = []
    for cell in cells:
        suite = ["python", *cell.plan.arguments(cell.name, data)]
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
            if not results:  # as where a base image cannot be had
                return NO_ENGINE
            results.append(Result(cell.name, error="image cannot be built"))
        table.keep("images", results[-1])
        if results[-1].error and not keep_going:
            break
    return table.close(results, [cell.name for cell in cells])


def make_cells(data: dict[str, Any]) -> list[Cell]:
    """Return one cell for each row of the table."""
    cells = []
    for row in data["images"]:
        thorough = row.get("thorough", False)
        cells.append(
            Cell(
                name=row["name"],
                base=row["base"],
                packages=row.get("packages", ""),
                runtime=row.get("runtime", ""),
                quick=row.get("quick", False),
                cluster=row.get("cluster", False),
                slurm=row.get("slurm", ""),
                plan=table.plan(data, row, thorough=thorough),
                env=table.variables(data, row, "/opt/venv"),
            )
        )
    return cells


def choose(
    cells: list[Cell], options: argparse.Namespace, data: dict[str, Any]
) -> list[Cell]:
    """Return the cells that the command line asks for."""
    if options.cell:
        cells = [cell for cell in cells if cell.name == options.cell]
    elif options.quick:
        cells = [cell for cell in cells if cell.quick]
    elif options.cluster or options.slurm:
        cells = [
            cell
            for cell in cells
            if (cell.cluster and options.cluster) or (cell.slurm and options.slurm)
        ]
    return [
        replace(cell, plan=table.change(cell.plan, options, data)) for cell in cells
    ]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cell", help="only this one")
    table.add_options(parser)
    parser.add_argument("--cluster", action="store_true", help="tests of two nodes")
    parser.add_argument("--slurm", action="store_true", help="tests under Slurm")
    parser.add_argument("--write-compose", action="store_true", help="and end")
    options = parser.parse_args()

    data = table.load()
    every = make_cells(data)
    if options.write_compose:
        COMPOSE.write_text(compose(every, data))
        return 0
    if COMPOSE.read_text() != compose(every, data):
        parser.error(
            "docker/compose.yaml is not what matrix.toml says: --write-compose"
        )
    cells = choose(every, options, data)
    if not cells:
        parser.error("no such cell; the cells are " + ", ".join(c.name for c in every))
    if options.list:
        for cell in cells:
            quick = " (quick)" if cell.quick else ""
            print(f"{cell.name}: {cell.base} {cell.packages} {cell.runtime}{quick}")
        return 0
    try:
        ensure_bases(cells)
        if options.cluster or options.slurm:
            return run_nodes(cells, options)
    except EngineError as exc:
        print(exc)
        return NO_ENGINE
    return run_cells(cells, data, keep_going=options.keep_going)


if __name__ == "__main__":
    sys.exit(main())
