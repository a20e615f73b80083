"""Random SPMD programs on real ranks: the protocol's rules, over MPI."""

from pathlib import Path

import pytest

PROGRAM = str(Path(__file__).parent / "programs" / "random_programs.py")
N_PROGRAMS = 75  # in one launch

# Other seeds than on simulated ranks.
FIRST = 10_000


@pytest.mark.parametrize("launch", range(6))
def test_random_programs_end_alike_on_four_ranks(launch, mpiexec):
    first = FIRST + launch * N_PROGRAMS
    run = mpiexec(4, [PROGRAM, str(first), str(first + N_PROGRAMS)])
    assert run.returncode == 0, run.output
    seeds = range(first, first + N_PROGRAMS)
    well = [
        line.partition(":")[0] for line in run.stdout.splitlines() if "well" in line
    ]
    assert well == [f"seed {seed}" for seed in seeds], run.output
    assert "on a failure" in run.stdout


def test_random_programs_end_alike_where_one_gather_does_not_do(mpiexec):
    """Where the ranks are many, reports merge in a tree."""
    run = mpiexec(5, [PROGRAM, "0", "60", "tree"])
    assert run.returncode == 0, run.output
    assert run.stdout.count("well") == 60, run.output
