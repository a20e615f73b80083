"""How a job ends that does not catch its failure: soon, told, and not with 0."""

from pathlib import Path

import pytest

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


@pytest.mark.parametrize("n_ranks", [1, N_RANKS])
def test_after_mpi_was_finalized_a_guard_says_so(end, n_ranks):
    ended = end("after MPI was finalized", n_ranks)
    assert ended.returncode != 0
    text = "MPI has been finalized: ranks can agree only between MPI_Init"
    # Each says so and exits 1, and the launcher ends the others at the first.
    assert any(f"rank {rank}: {text}" in ended.stdout for rank in range(n_ranks))
    # The exception that was to be agreed on is not lost to that.
    assert any(f"ValueError: of {rank}" in ended.stderr for rank in range(n_ranks))
    assert "entered" not in ended.stdout
    assert "reaches the end" not in ended.stdout


def test_a_guard_made_before_mpi_was_finalized_says_so(end):
    ended = end("finalized between two uses of a guard")
    assert ended.returncode != 0
    assert "ValueError: MPI has been finalized" in ended.stderr
    assert "entered" not in ended.stdout


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
