"""What the tests look for in an outcome."""

import pytest

from allraise import CheckpointException, RemoteError


def outcome_of(function, *args, **kwargs):
    """Return the CheckpointException that a call must raise."""
    try:
        function(*args, **kwargs)
    except CheckpointException as error:
        return error
    pytest.fail("nothing was raised")


def fail_if(condition, error):
    if condition:
        raise error


def check_outcome(outcome, comm, errors, *, step, root=0, everywhere=False):
    """Check one rank's outcome.

    Args:
        outcome: What this rank raised.
        comm: The communicator.
        errors: What failed, by rank; on each rank its own is the live one.
        step: The step.
        root: Who has the whole report.
        everywhere: Whether all have it.
    """
    assert outcome.step == step
    assert outcome.ranks == tuple(sorted(errors))
    ordinary = all(isinstance(error, Exception) for error in errors.values())
    assert isinstance(outcome, Exception) == ordinary
    assert list(outcome.failures) == sorted(errors)
    assert outcome.__cause__ is errors.get(comm.rank)
    for rank, error in errors.items():
        seen, summary = outcome.failures[rank]
        if rank == comm.rank:
            assert seen is error
            assert summary
        elif comm.rank == root or everywhere:
            assert type(seen) is type(error)
            assert str(seen) == str(error)
            assert summary
        else:
            assert type(seen) is RemoteError
            assert seen.type_name.endswith(type(error).__name__)
            assert seen.message == str(error).partition("\n")[0]
            assert not summary
    if comm.rank == root or everywhere:
        assert not outcome.is_partial
        for rank in errors:
            assert f"(RANK {rank})" in str(outcome)
    elif comm.size > 1:
        assert f"rank {root} of {comm.size} has the whole report" in str(outcome)
