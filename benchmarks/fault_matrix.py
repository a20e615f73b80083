"""The fault matrix, run and written down.

``run`` runs every row of ``tests/fault_cases.py`` on the MPI of this Python, or,
with ``--plain``, the same faults without allraise, as ``python -m mpi4py`` handles
them; each writes a file of results. ``write`` makes ``docs/fault-matrix.md`` of all
of them. ::

    .venv/openmpi/bin/python benchmarks/fault_matrix.py run
    .venv/openmpi/bin/python benchmarks/fault_matrix.py run --plain
    .venv/openmpi/bin/python benchmarks/fault_matrix.py run --ulfm
    .venv/mpich/bin/python benchmarks/fault_matrix.py run
    .venv/openmpi/bin/python benchmarks/fault_matrix.py write

Ends with 1 if a row did not end as it must.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import fault_cases  # noqa: E402 a module of the tests

RESULTS = ROOT / "build" / "fault-matrix"
PAGE = ROOT / "docs" / "fault-matrix.md"

# A program that has not ended by then is waiting for what will never come.
HANGS_S = 10.0

INTRODUCTION = """\
# What never hangs

Each fault must end the whole job in time, with the right exit code (0 or not) and the right
texts shown, and leave no process behind.

{summary}

Written by `benchmarks/fault_matrix.py` from real runs of {n_ranks} ranks each, on one machine
with two cores that had other work too. `tests/launch/test_fault_matrix.py` checks every row.

## How to read the tables

- **fault**: rows that begin with `run` are under `python -m allraise run`; the others are
  plain programs with guards. A deadline is `timeout={limit}`.
- **checked**: texts that must be in the output, in the report file, or in what
  `allraise show` makes of the files that the ranks have left. `(RANK 1)` heads the traceback
  of rank 1; `in fail` is the frame that raised.
- **each MPI**: the exit code of mpiexec, and the seconds from its start to the end of the
  last rank. Starting alone takes one or two. **Bold** is what is not as it must be.
- **without allraise**: the same fault under `python -m mpi4py`, which calls `MPI_Abort` at an
  uncaught exception: how the job ends, and whether the output tells the cause. "hangs": no
  end within {hangs:g} s. Empty: there is no such fault, or it was not tried.

"""


def summarise(found: list[dict], bare: list[dict]) -> str:
    """Return a line for each MPI, and what the same faults do without allraise."""
    lines = [
        "| | faults tried | ended as they must | longest |",
        "|---|---:|---:|---:|",
    ]
    for result in found:
        rows = [row for row in result["rows"].values() if "wrong" in row]
        longest = max((row["seconds"] for row in rows), default=0.0)
        n_well = sum(map(is_well, rows))
        cells = [result["name"], len(rows), n_well, f"{longest:.1f} s"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if bare:
        lines += ["", "Without allraise, of the same faults:", ""]
        lines += ["| | faults tried | hang | cause not told |", "|---|---:|---:|---:|"]
    for result in bare:
        rows = [row["plain"] for row in result["rows"].values() if "plain" in row]
        n_hang = sum(row["hangs"] for row in rows)
        n_untold = sum(not row["told"] for row in rows)
        cells = [result["name"], len(rows), n_hang, n_untold]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def run_row(fault, *, ulfm: bool) -> dict:
    """Run a row as the library's own tests do."""
    with tempfile.TemporaryDirectory() as folder:
        ended = fault_cases.run(fault, ulfm=ulfm, cwd=Path(folder))
    wrong = fault_cases.shortcomings(fault, ended)
    if wrong:
        print(ended.output)
    return {"code": ended.returncode, "seconds": ended.seconds, "wrong": wrong}


def run_plain(fault) -> dict:
    """Run the same fault without allraise."""
    with tempfile.TemporaryDirectory() as folder:
        ended = fault_cases.run_plain(fault, deadline_s=HANGS_S, cwd=Path(folder))
    told = all(any(t in ended.output for t in texts) for texts in fault.causes)
    return {"code": ended.returncode, "hangs": ended.timed_out, "told": told}


def run_rows(options: argparse.Namespace) -> int:
    """Run every row, and keep what came of it."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    name = fault_cases.launcher() + (" with ULFM" if options.ulfm else "")
    target = RESULTS / f"{name.replace(' ', '-')}.json"
    rows = json.loads(target.read_text())["rows"] if target.exists() else {}
    for fault in fault_cases.FAULTS:
        row = rows.setdefault(fault.name, {})
        if options.only not in fault.name or (options.plain and fault.only_here):
            continue
        if options.missing and ("plain" in row if options.plain else is_well(row)):
            continue
        if options.plain:
            row["plain"] = run_plain(fault)
        else:
            row |= run_row(fault, ulfm=options.ulfm)
        print(f"{fault.name}: {row}", flush=True)
        target.write_text(json.dumps({"name": name, "rows": rows}, indent=1))
    return 0 if options.plain or all(map(is_well, rows.values())) else 1


def is_well(row: dict) -> bool:
    return row.get("wrong") == []


def cell(row: dict | None) -> str:
    if not row or "wrong" not in row:
        return ""
    if row["wrong"]:
        return f"**{'; '.join(row['wrong'])}**".replace("|", "\\|")
    return f"{row['code']}, {row['seconds']:.1f} s"


def plain_cell(row: dict | None) -> str:
    bare = (row or {}).get("plain")
    if bare is None:
        return ""
    told = "told" if bare["told"] else "not told"
    return f"hangs, {told}" if bare["hangs"] else f"{bare['code']}, {told}"


def checked(fault) -> str:
    """Return what is held to be shown, and what not."""
    entries = [
        " or ".join(f"`{' '.join(text.strip(', ').split())}`" for text in entry)
        if isinstance(entry, tuple)
        else f"`{' '.join(entry.strip(', ').split())}`"
        for entry in fault.shows
    ]
    entries += [f"not `{text}`" for text in fault.hides]
    return ", ".join(entries)


def order(name: str) -> tuple[int, str]:
    """Put the newest of each first."""
    for number, start in enumerate(("Open MPI 5", "MPICH 5", "Open MPI", "MPICH")):
        if name.startswith(start):
            return number, name
    return len(name), name


def write() -> int:
    """Write the page from all results there are."""
    found = [json.loads(path.read_text()) for path in RESULTS.glob("*.json")]
    found.sort(key=lambda result: order(result["name"]))
    if not found:
        print(f"no results in {RESULTS}: run first")
        return 1
    bare = [r for r in found if any("plain" in row for row in r["rows"].values())]
    head = ["fault", "checked", *(result["name"] for result in found)]
    head += [f"without allraise, {result['name']}" for result in bare]
    text = INTRODUCTION.format(
        summary=summarise(found, bare),
        n_ranks=fault_cases.N_RANKS,
        limit=fault_cases.LIMIT_S,
        hangs=HANGS_S,
    )
    for section, faults in fault_cases.SECTIONS.items():
        text += f"## {section}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
        for fault in faults:
            cells = [("`run`: " if fault.run else "") + fault.told, checked(fault)]
            cells += [cell(result["rows"].get(fault.name)) for result in found]
            cells += [plain_cell(result["rows"].get(fault.name)) for result in bare]
            text += f"| {' | '.join(cells)} |\n"
        text += "".join(
            f"\n{fault.told}: the exit code of {mpi} is not checked: {why}.\n"
            for fault in faults
            for mpi, why in fault.exempt.items()
        )
        text += "\n"
    PAGE.write_text(text.rstrip() + "\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=["run", "write"])
    parser.add_argument("--ulfm", action="store_true", help="Open MPI 5: --with-ft")
    parser.add_argument("--plain", action="store_true", help="without allraise")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument(
        "--missing", action="store_true", help="rows without a right result"
    )
    options = parser.parse_args()
    if options.do == "write":
        return write()
    return run_rows(options)


if __name__ == "__main__":
    sys.exit(main())
