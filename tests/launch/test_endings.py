"""How a job ends that does not catch its failure: soon, told, and not with 0."""

from pathlib import Path

import pytest

import apart

PROGRAM = str(Path(__file__).parent / "programs" / "endings.py")
N_RANKS = 3
LAST = N_RANKS - 1


@pytest.fixture
def end(mpiexec):
    """Run a job to its end; `mpiexec` fails where a rank is left behind."""

    def run(ending, n_ranks=N_RANKS):
        ended = mpiexec(n_ranks, [PROGRAM, ending])
        for rank in range(n_ranks):
            assert f"rank {rank} begins" in ended.stdout, ended.output
        return ended

    return run


def test_the_program_that_goes_well_ends_with_0(end):
    """What the others are held against."""
    ended = end("nothing")
    assert ended.returncode == 0
    assert ended.stdout.count("reaches the end") == N_RANKS


def test_what_a_failure_needs_is_loaded_before_one_can_happen(mpiexec):
    ended = mpiexec(2, [PROGRAM.replace("endings", "loads")])
    assert ended.returncode == 0, ended.output
    told = [line for line in ended.stdout.splitlines() if " loaded [" in line]
    assert len(told) == 2
    assert "allraise" not in ended.stdout


@pytest.mark.parametrize("n_ranks", [1, N_RANKS])
def test_after_mpi_was_finalized_a_guard_says_so(n_ranks):
    """Each rank, in output of its own: the launcher ends the others at the first."""
    job = apart.run(n_ranks, [PROGRAM, "after MPI was finalized"])
    assert not job.timed_out, job
    assert job.codes == [1] * n_ranks, job
    assert job.returncode != 0
    for rank, (out, err) in enumerate(zip(job.outs, job.errs, strict=True)):
        text = "MPI has been finalized: ranks can agree only between MPI_Init"
        assert f"rank {rank}: {text}" in out
        # The exception that was to be agreed on is not lost to that.
        assert f"ValueError: of {rank}" in err
        assert "entered" not in out
        assert "reaches the end" not in out


def test_a_guard_made_before_mpi_was_finalized_says_so():
    job = apart.run(N_RANKS, [PROGRAM, "finalized between two uses of a guard"])
    assert job.codes == [1] * N_RANKS, job
    assert all("ValueError: MPI has been finalized" in err for err in job.errs)
    assert not any("entered" in out for out in job.outs)


@pytest.mark.parametrize("n_ranks", [1, N_RANKS])
@pytest.mark.parametrize("place", ["guard", "step"])
def test_mpi_that_is_finalized_in_a_block_is_no_abort(place, n_ranks):
    job = apart.run(n_ranks, [PROGRAM, f"finalized in a {place}"])
    assert job.codes == [1] * n_ranks, job
    for rank, err in enumerate(job.errs):
        assert "ValueError: MPI has been finalized: ranks can agree only" in err
        assert place == "step" or f"OSError: of {rank}" in err
        assert "not returned to mpool" not in err  # UCX, of a receive under way


@pytest.mark.parametrize("n_ranks", [1, N_RANKS])
@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ("import", "ModuleNotFoundError: No module named 'a_module_that_only"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("uncaught", "OSError: [Errno 28] No space left on device"),
        ("uncaught, no exception", "KeyboardInterrupt"),
    ],
)
def test_an_uncaught_failure_ends_every_rank(end, ending, told, n_ranks):
    """The root tells it, the exit code is not 0, nobody goes on."""
    ended = end(ending, n_ranks)
    assert ended.returncode != 0, ended.output
    assert told in ended.stderr
    assert f"CheckpointException ranks:dict_keys([{n_ranks - 1}])" in ended.stderr
    assert "reaches the end" not in ended.stdout


def test_a_failure_that_is_caught_is_not_the_end(end):
    ended = end("caught, and goes on")
    assert ended.returncode == 0, ended.output
    for rank in range(N_RANKS):
        assert f"rank {rank} goes on without ({LAST},)" in ended.stdout
    assert ended.stdout.count("reaches the end") == N_RANKS
