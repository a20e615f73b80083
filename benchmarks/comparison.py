"""One failing job, started in three ways: what people have to read.

    python benchmarks/comparison.py [ranks] > docs/comparison.md

runs a small program on many ranks (64) under the mpiexec beside this Python:
every rank fails alike; one rank fails and the others wait. Each is started by
plain ``python``, by ``python -m mpi4py`` and by ``python -m allraise run``. What
is counted is what they print and how they end.
"""

import platform
import re
import sys
import tempfile
from pathlib import Path

from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import mpirun  # beside the tests

PROGRAM = """\
import sys
from mpi4py import MPI

comm = MPI.COMM_WORLD

def write_shard(path):
    raise OSError(28, "No space left on device", path)

def checkpoint():
    write_shard("/scratch/checkpoint")

if sys.argv[1] == "all" or comm.Get_rank() == 1:
    checkpoint()
comm.Barrier()
"""

WAYS = {
    "`python job.py`": [],
    "`python -m mpi4py job.py`": ["-m", "mpi4py"],
    "`python -m allraise run job.py`": ["-m", "allraise", "run"],
}

DEADLINE_S = 150.0


def ranks_named(text):
    """Return how many ranks are named as having failed, in a head of a traceback."""
    from allraise.ranks import RankSet

    named = {int(rank) for rank in re.findall(r"\(RANK (\d+)\)", text)}
    for ranks in re.findall(r"^=== ranks? ([\d,-]+).*: OSError", text, re.MULTILINE):
        named |= set(RankSet.parse(ranks))
    return len(named)


def measure(n_ranks, fault, folder):
    """Run the job in each way and return a line of the table for each."""
    lines = []
    for name, way in WAYS.items():
        ended = mpirun.run(
            n_ranks, [*way, "job.py", fault], deadline_s=DEADLINE_S, cwd=folder
        )
        text = ended.output
        code, seconds = str(ended.returncode), f"{ended.seconds:.1f} s"
        if ended.timed_out:
            code, seconds = "none", f"never (ended after {DEADLINE_S:g} s)"
        n_lines, n_tracebacks = len(text.splitlines()), text.count("Traceback (most")
        cells = [name, n_lines, n_tracebacks, ranks_named(text), code, seconds]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def main():
    n_ranks = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    library = " ".join(MPI.Get_library_version().split("\n")[0].split(",")[0].split())
    columns = ["started by", "lines printed", "tracebacks", "failed ranks named"]
    columns += ["exit code", "time to end"]
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.py").write_text(PROGRAM)
        every = measure(n_ranks, "all", folder)
        one = measure(n_ranks, "one", folder)
    print(
        "# The same failing job, started in three ways\n\n"
        "Written by `benchmarks/comparison.py`; do not edit.\n\n"
        f"{n_ranks} ranks on one machine, {library}, Python "
        f"{platform.python_version()}. There are far more ranks than cores, so "
        "compare the times only with each other.\n\n"
        "## Every rank fails with the same error\n\n"
        + "\n".join(head + every)
        + "\n\n## One rank fails, the others wait for it in a barrier\n\n"
        + "\n".join(head + one)
        + "\n\nPart of the time of `allraise run`: it waits 2 seconds after the first failure for "
        "others (`--grace`), then asks the ranks that have not failed where they are."
    )


if __name__ == "__main__":
    main()
