"""Write docs/tested.md from what the last runs of matrix.py and containers.py left.

usage: tested.py

`make tested` runs all of them first.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import table
from suite import ROOT, Result

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = ROOT / "docs/tested.md"

TEXT = """\
# Tested on

<!-- Written by .ci/tested.py; `make tested` runs everything here and writes it. -->

Versions are what the programs themselves reported during the run. Each cell has the wheel of
this library installed, not the checkout. All ran on one machine, with
{machine}; with 4 or 8 ranks there are more ranks than cores.

The numbers are tests that passed:

- `unit`: `tests/unit`, without MPI.
- `ranks`: `tests/ranks`, run by all ranks together; the sum over the numbers of ranks n.
- `launch`: tests that start programs and check how they end:
  {launch}.

An empty place was not run. Most cells run `ranks` alone, with 2 and 4 ranks. `make matrix`
also runs `launch` and more numbers of ranks in one cell of each implementation, and `unit` in
one cell of each Python. `.ci/matrix.py --quick` runs only `ranks`, in one cell of each MPI;
`--full` runs everything in every cell, which takes hours on such a machine. Skipped tests say
which MPI, package or number of ranks they need.

On CPython 3.12.1 all of `tests/unit` pass, and then the interpreter crashes as it exits. The
test exceptions cause that by themselves, even where allraise is not imported. So that number
is missing.

## MPI from PyPI

`make matrix`; one cell: `make matrix CELL=mpich-5.0-py3.13`. The cell `oldest` has the oldest
supported mpi4py and tblib.

{wheels}

{wheels_when}

## Containers

`make docker-test`; one cell: `make docker-test CELL=trixie`. A distribution's MPI, or one from
a wheel, in an image of that distribution, run by a user who is not root.

{images}

{images_when}

## Two nodes

`make cluster-test`: two containers on a network of their own, two ranks each, with ssh and
`mpirun --hostfile`. Tests marked `[ulfm]` run under `--with-ft ulfm`.

{nodes}

{nodes_when}

## Slurm

`make slurm-test`: one node under Slurm, where `srun` starts four ranks; see [Slurm](slurm.md).

{slurm}

{slurm_when}
"""


def when(results: Iterable[Result]) -> str:
    """Return on which days and of which commits results are."""
    found = sorted({result.ran_on for result in results})
    return f"Run on {'; '.join(found)}." if found else "Not run."


def cells(kind: str, names: list[str]) -> tuple[str, str]:
    """Return the table of cells, and when they ran."""
    stored = table.kept(kind)
    results = [stored[name] for name in names if name in stored]
    not_run = [name for name in names if name not in stored]
    return table.show(results, not_run), when(results)


def sentences(kind: str, names: list[str]) -> tuple[str, str]:
    """Return a table of tests, with a column for each cell, and when they ran."""
    stored = table.kept(kind)
    results = [stored[name] for name in names if name in stored]
    tests = list(dict.fromkeys(test for result in results for test in result.steps))
    head = [f"{r.cell}: {r.mpi}, Python {r.python}" for r in results]
    rows = [["test", *head]]
    rows += [
        [
            test.removeprefix("test_").replace("_", " "),
            *(result.steps.get(test, "not run") for result in results),
        ]
        for test in tests
    ]
    rows.append(["seconds", *(f"{result.seconds:.0f}" for result in results)])
    return table.columns(rows), when(results)


def page(data: dict[str, Any]) -> str:
    """Return the text of docs/tested.md."""
    images = [row["name"] for row in data["images"]]
    # Which Pythons there were is known from the results.
    wheels = [
        name
        for row in data["wheels"]
        for name in table.kept("wheels")
        if name.startswith(row.get("name", f"{row['mpi']}-{row['version']}") + "-py")
    ]
    parts = {}
    parts["wheels"], parts["wheels_when"] = cells("wheels", wheels)
    parts["images"], parts["images_when"] = cells("images", images)
    parts["nodes"], parts["nodes_when"] = sentences("two_nodes", images)
    parts["slurm"], parts["slurm_when"] = sentences("slurm", images)
    cores = os.cpu_count() or 1
    return TEXT.format(
        machine=f"{cores} cores, {platform.system()} {platform.release().split('-')[0]}, {platform.machine()}",
        launch=", ".join(f"`{Path(f).name}`" for f in data["suite"]["launch"]),
        **parts,
    )


def main() -> int:
    """Run from the command line."""
    PAGE.write_text(page(table.load()))
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
