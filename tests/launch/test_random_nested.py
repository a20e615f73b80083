"""Random SPMD programs over several communicators on real ranks."""

from pathlib import Path

import pytest

import mpirun

PROGRAM = str(Path(__file__).parent / "programs" / "random_nested.py")
# In one launch: MPICH has 2046 communicators, and failures use them. With more ranks
# than cores it needs seconds for a program.
N_PROGRAMS = 30

DEADLINE_S = 300.0


def check_launch(mpiexec, n_ranks, first, *groups, **how):
    last = first + N_PROGRAMS
    words = [PROGRAM, str(first), str(last), *(groups or ["contained"])]
    run = mpiexec(n_ranks, words, deadline_s=DEADLINE_S, **how)
    assert run.returncode == 0, run.output
    well = [
        line.partition(":")[0] for line in run.stdout.splitlines() if "well" in line
    ]
    assert well == [f"seed {seed}" for seed in range(first, last)], run.output
    assert not run.stdout.count(", 0 on a failure") > N_PROGRAMS / 2, run.output


@pytest.mark.parametrize("n_ranks", [4, 5, 6])
def test_random_programs_over_several_communicators_end_alike(n_ranks, mpiexec):
    check_launch(mpiexec, n_ranks, 10_000)


@pytest.mark.parametrize(("n_ranks", "first"), [(3, 51_000), (4, 53_040), (5, 54_000)])
def test_random_programs_over_groups_that_overlap_end_alike(n_ranks, first, mpiexec):
    """Also with three ranks, where some groups are of one."""
    check_launch(mpiexec, n_ranks, first, "any")


def test_random_programs_over_several_communicators_end_alike_under_ulfm(mpiexec):
    code = "from mpi4py import MPI; print(MPI.Get_library_version())"
    if "Open MPI v5" not in mpirun.run(1, ["-c", code]).stdout:
        pytest.skip("only Open MPI has ULFM, and knows --with-ft from version 5 on")
    # On the g.comm of a guard around they would wait in MPI, deaf, see sharp-bits.
    options = ["--with-ft", "ulfm"]
    check_launch(mpiexec, 4, 20_000, "contained", "near", options=options)
