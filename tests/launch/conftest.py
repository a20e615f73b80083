"""Starting MPI programs with a deadline."""

import pytest

import mpirun

# Far more than any of these programs takes on a busy machine.
DEADLINE_S = 90.0


@pytest.fixture
def mpiexec():
    """`mpirun.run`, for programs that must end: a hang fails with all output."""

    def run(n_ranks, program, **how):
        ended = mpirun.run(n_ranks, program, **{"deadline_s": DEADLINE_S, **how})
        if ended.timed_out:
            command = " ".join(program)
            pytest.fail(
                f"{command} on {n_ranks} ranks did not end within its deadline; "
                f"its output:\n{ended.output}"
            )
        return ended

    return run


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: waits for seconds, by its nature")
