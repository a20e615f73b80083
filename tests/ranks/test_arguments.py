"""Wrong arguments: a clear error on every rank, and no rank left waiting."""

import re

import pytest
from mpi4py import MPI

import allraise
from allraise import CheckpointError, CollectiveSteps, agree, collect, guard
from ranks.outcomes import outcome_of

pytestmark = pytest.mark.mpi

WRONG = {
    "root too large": ({"root": 99}, ValueError, "root=99 is out of range"),
    "root negative": ({"root": -1}, ValueError, "root=-1 is out of range"),
    "root no number": ({"root": "0"}, TypeError, "root must be a rank, .* got str"),
    "root a float": ({"root": 0.0}, TypeError, "root must be a rank, .* got float"),
    "step no text": ({"step": 5}, TypeError, "step must be a str, got int"),
    "step bytes": ({"step": b"x"}, TypeError, "step must be a str, got bytes"),
    "everywhere": ({"everywhere": 1}, TypeError, "everywhere must be True or False"),
    "timeout zero": ({"timeout": 0}, ValueError, "timeout must be a positive"),
    "timeout minus": ({"timeout": -1.5}, ValueError, "timeout must be a positive"),
    "timeout nan": ({"timeout": float("nan")}, ValueError, "timeout must be a posit"),
    "timeout inf": ({"timeout": float("inf")}, ValueError, "timeout must be a posit"),
    "timeout text": ({"timeout": "5"}, TypeError, "timeout must be a number of sec"),
    "timeout a list": ({"timeout": [5]}, TypeError, "timeout must be a number of sec"),
    "timeout bool": ({"timeout": True}, TypeError, "timeout must be a number of sec"),
}
ENTRIES = {
    "guard": lambda comm, wrong: guard(comm, **wrong),
    "agree": lambda comm, wrong: agree(None, comm, **wrong),
    "collect": lambda comm, wrong: collect(None, comm, **wrong),
}


@pytest.fixture(params=ENTRIES.values(), ids=ENTRIES)
def entry(request):
    return request.param


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_wrong_on_every_rank_is_a_plain_error_on_every_rank(world, entry, wrong):
    arguments, kind, text = wrong
    with pytest.raises(kind, match=text) as caught:
        entry(world, arguments)
    assert type(caught.value) is kind


@pytest.mark.mpi(min_size=2)
def test_a_deadline_that_a_rank_refuses_leaves_the_step_its_name(world):
    fresh = world.Dup()
    timeout = -1 if world.rank == 0 else 600
    with (
        pytest.raises(CheckpointError) as caught,
        guard(fresh, "save", timeout=timeout),
    ):
        pass
    fresh.Free()
    assert caught.value.step == "save"
    assert caught.value.ranks == (0,)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("is_named", [True, False])
def test_wrong_on_one_rank_is_a_failure_on_every_rank(world, entry, is_named):
    comm = world if is_named else None
    for number, (arguments, kind, text) in enumerate(WRONG.values()):
        bad = number % world.size

        def block(bad=bad, arguments=arguments):
            if world.rank == bad:
                entry(comm, arguments)
            else:
                agree(None, comm)

        outcome = outcome_of(block)
        assert outcome.ranks == (bad,)
        if world.rank in {bad, 0}:
            assert __file__ in str(outcome)  # the user's line, and none of ours
            assert "allraise/arguments.py" not in str(outcome)
        if world.rank in {bad, 0}:
            assert type(outcome.failures[bad][0]) is kind
            assert re.search(text, str(outcome.failures[bad][0]))
        if world.rank == bad:
            assert outcome.__cause__ is outcome.failures[bad][0]
        agree(None, world)


def test_wrong_inside_a_guard_reaches_its_end_on_every_rank(comm):
    def block():
        with guard(comm, "outer"):
            if comm.rank == comm.size - 1:
                agree(None, comm, root=-1)
            else:
                agree(None, comm)

    outcome = outcome_of(block)
    assert outcome.ranks == (comm.size - 1,)
    assert "root=-1 is out of range" in str(outcome)


def test_the_callers_exception_is_not_lost_to_a_wrong_argument(comm):
    mine = OSError("disk full")
    with pytest.raises(ValueError, match="root=99") as caught:
        agree(mine, comm, root=99)
    assert caught.value.__cause__ is mine

    def block():
        if comm.rank == 0:
            agree(mine, comm, root=99)
        else:
            agree(None, comm)

    if comm.size > 1:
        outcome = outcome_of(block)
        if comm.rank == 0:
            assert outcome.__cause__.__cause__ is mine
            assert "OSError: disk full" in str(outcome)


@pytest.mark.parametrize(
    ("comm_like", "kind", "text"),
    [
        (MPI.COMM_NULL, ValueError, r"comm is COMM_NULL .*: pass an intracommunicator"),
        (5, TypeError, "comm is a int, not a communicator: pass an intracommunicator"),
        ("world", TypeError, "comm is a str, not a communicator: pass an"),
        (MPI.GROUP_EMPTY, TypeError, "comm is a Group, not a communicator"),
        (MPI.Intracomm(), ValueError, "comm is COMM_NULL"),
    ],
    ids=["null", "number", "text", "group", "null intracommunicator"],
)
def test_what_is_no_communicator_is_refused(entry, comm_like, kind, text):
    with pytest.raises(kind, match=text):
        entry(comm_like, {})
    with pytest.raises(kind, match=text):
        CollectiveSteps(comm_like)


@pytest.mark.mpi(min_size=2)
def test_an_intercommunicator_is_refused(world, entry):
    half = world.Split(world.rank % 2, 0)
    inter = half.Create_intercomm(0, world, 1 - world.rank % 2)
    with pytest.raises(TypeError, match=r"intercommunicator; .* intercomm\.Merge\(\)"):
        entry(inter, {})
    inter.Free()
    half.Free()


def test_a_root_that_all_ranks_lack_is_refused_where_comm_is_none(world):
    """The size is not known before MPI is asked."""
    mine = OSError("disk full")
    for root in (world.size, 2**32 - 1, 2**32, 2**40, 2**70):
        with pytest.raises(ValueError, match=f"root={root} is out of range"):
            agree(root=root)
        with pytest.raises(ValueError, match=f"root={root} is"), guard(root=root):
            pytest.fail("it was entered")
        with pytest.raises(ValueError, match=f"root={root} is") as caught:
            agree(mine, root=root)
        assert caught.value.__cause__ is mine


def test_what_was_caught_must_be_an_exception(comm):
    for function in (agree, collect):
        for given in ("an error", ValueError, 0):
            kind = type(given).__name__
            with pytest.raises(TypeError, match=f"exc must be an exc.*, got {kind}"):
                function(given, comm)


def test_a_root_of_any_integer_type_will_do(comm):
    numpy = pytest.importorskip("numpy", reason="the types are NumPy's")
    outcome = collect(ValueError(), comm, root=numpy.int64(comm.size - 1))
    assert outcome.is_partial == (comm.rank != comm.size - 1)


def test_a_decorator_without_parentheses_is_refused():
    text = (
        r"comm is a function, not a communicator: .*; as a decorator write @guard\(\)"
    )
    with pytest.raises(TypeError, match=text):

        @guard
        def function():
            pass


def test_a_step_given_in_place_of_the_communicator_is_refused():
    text = r"comm is a str, not a communicator: .*; .* second .*guard\(step='write'\)"
    with pytest.raises(TypeError, match=text):
        guard("write")


def test_collective_steps_refuse_a_step_that_is_no_text(comm):
    steps = CollectiveSteps(comm)
    calls = [
        lambda step: steps.all_gather(step, int),
        lambda step: steps.broadcast(step, int),
        lambda step: steps.all_reduce(step, int, sum),
        lambda step: steps.reduce_scatter(step, int, list),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="step must be a str, got int"):
            call(5)
        if comm.size > 1:
            outcome = outcome_of(call, 5 if comm.rank == 0 else "text")
            assert outcome.ranks == (0,)
            assert "step must be a str, got int" in str(outcome)


def test_collective_steps_refuse_a_coordinator_that_is_no_rank(comm):
    with pytest.raises(ValueError, match="coordinator_rank=-1 is out of range"):
        CollectiveSteps(comm, -1)
    with pytest.raises(ValueError, match=f"from 0 to {comm.size - 1}"):
        CollectiveSteps(comm, comm.size)


def test_different_roots_are_settled_for_one(comm):
    outcome = collect(ValueError(), comm, root=comm.rank)
    assert outcome.is_partial == (comm.rank != comm.size - 1)
    assert isinstance(outcome, CheckpointError)
    assert allraise.collect(None, comm, root=comm.rank) is None
