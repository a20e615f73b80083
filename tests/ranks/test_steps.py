"""Collective steps: torch's semantics, and what torch does not survive."""

import gc
import pickle
import shutil
import signal
import tempfile
import threading
import weakref
from concurrent.futures import Future
from pathlib import Path

import pytest

import allraise
from allraise import CheckpointError, CheckpointException, CollectiveSteps
from allraise.own import OWN_FOLDER

pytestmark = pytest.mark.mpi

COORDINATORS = [0, 1, 2, 3]
STEPS_WITH_A_MAP = ["reduce_scatter", "all_reduce", "all_gather"]


def failure_of(function, *args):
    """Return the CheckpointException that a call raises."""
    try:
        function(*args)
    except CheckpointException as error:
        return error
    pytest.fail("nothing was raised")


def take(steps, method, map_fun, reduce_fun=list):
    """Take a step whose reduction is of no interest, or is there none."""
    if method in {"reduce_scatter", "all_reduce"}:
        return getattr(steps, method)("a step", map_fun, reduce_fun)
    return getattr(steps, method)("a step", map_fun)


def ranks_of(comm, ranks):
    """Return ranks that there are, the same as given where there are enough."""
    return sorted({rank % comm.size for rank in ranks})


def seen(error):
    """Return what a failure tells: type and message by rank."""
    return {rank: (type(exc), str(exc)) for rank, (exc, _) in error.failures.items()}


class WithLock(Exception):
    """Cannot be pickled as it is."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class TwoArguments(Exception):
    """Pickles; unpickling calls the class with one argument."""

    def __init__(self, path, why):
        super().__init__(f"{path}: {why}")


HERE = {"rank": -1}


def explode_on(ranks):
    if HERE["rank"] in ranks:
        msg = f"cannot be unpickled on rank {HERE['rank']}"
        raise RuntimeError(msg)
    return "unpickled"


class Picky:
    """A value that some ranks cannot unpickle."""

    def __init__(self, comm, ranks):
        HERE["rank"] = comm.rank
        self.ranks = ranks

    def __reduce__(self):
        return explode_on, (self.ranks,)


# --- what each step does when all is well -----------------------------------


@pytest.mark.parametrize("coordinator", COORDINATORS)
def test_reduce_scatter_reduces_on_the_coordinator_and_gives_each_its_part(
    comm, coordinator
):
    coordinator %= comm.size
    steps = CollectiveSteps(comm, coordinator)
    reduced = []

    def reduce(values):
        reduced.append(values)
        return [value * 10 for value in values]

    assert steps.reduce_scatter("plan", lambda: comm.rank + 1, reduce) == (
        (comm.rank + 1) * 10
    )
    expected = [list(range(1, comm.size + 1))] if comm.rank == coordinator else []
    assert reduced == expected


@pytest.mark.parametrize("coordinator", COORDINATORS)
def test_all_reduce_gives_all_the_result_of_the_coordinator(comm, coordinator):
    coordinator %= comm.size
    steps = CollectiveSteps(comm, coordinator)
    reduced = []

    def reduce(values):
        reduced.append(values)
        return sum(values)

    total = sum(range(1, comm.size + 1))
    assert steps.all_reduce("write", lambda: comm.rank + 1, reduce) == total
    assert len(reduced) == (comm.rank == coordinator)


def test_all_gather_gives_all_the_values_in_order_of_ranks(comm):
    steps = CollectiveSteps(comm)
    assert steps.all_gather("read", lambda: {"rank": comm.rank}) == [
        {"rank": rank} for rank in range(comm.size)
    ]


@pytest.mark.parametrize("coordinator", COORDINATORS)
def test_broadcast_maps_on_the_coordinator_alone(comm, coordinator):
    coordinator %= comm.size
    steps = CollectiveSteps(comm, coordinator)
    called = []
    value = steps.broadcast("address", lambda: called.append(1) or f"of {comm.rank}")
    assert value == f"of {coordinator}"
    assert len(called) == (comm.rank == coordinator)


def test_barrier_waits_for_every_rank(comm):
    steps = CollectiveSteps(comm)
    folder = Path(comm.bcast(tempfile.mkdtemp() if comm.rank == 0 else None))
    (folder / f"{comm.rank}").touch()
    steps.barrier()
    assert len(list(folder.iterdir())) == comm.size
    steps.barrier()
    if comm.rank == 0:
        shutil.rmtree(folder)


@pytest.mark.parametrize("coordinator", COORDINATORS)
def test_objects_move_between_the_coordinator_and_the_ranks(comm, coordinator):
    coordinator %= comm.size
    steps = CollectiveSteps(comm, coordinator)
    here = comm.rank == coordinator
    everyone = [[rank] for rank in range(comm.size)]
    assert steps.gather_object([comm.rank]) == (everyone if here else None)
    assert steps.all_gather_object([comm.rank]) == everyone
    assert steps.broadcast_object({"from": comm.rank}) == {"from": coordinator}
    assert steps.scatter_object(everyone if here else None) == [comm.rank]


def test_the_steps_know_their_ranks(comm):
    last = comm.size - 1
    steps = CollectiveSteps(comm, last)
    assert (steps.rank, steps.get_rank()) == (comm.rank, comm.rank)
    assert steps.get_world_size() == comm.size
    assert steps.coordinator_rank == last
    assert steps.is_coordinator == (comm.rank == last)


@pytest.mark.parametrize("method", [*STEPS_WITH_A_MAP, "broadcast"])
@pytest.mark.parametrize("kind", ["pair", "exception", "agreed"])
def test_a_value_that_looks_like_a_failure_is_a_value(comm, method, kind):
    """Torch takes the pair for a failure, and raises the CheckpointException."""
    steps = CollectiveSteps(comm)
    pair = allraise.wrap_exception(ValueError("a value"))
    values = {
        "pair": pair,
        "exception": ValueError("a value"),
        "agreed": CheckpointException("a value", {0: pair}),
    }
    one = steps.all_gather if method == "all_gather" else None
    result = take(steps, method, lambda: values[kind])
    result = result[0] if one or method == "all_reduce" else result
    assert type(result) is type(values[kind])
    assert str(result) == str(values[kind])


# --- who fails, and what every rank is told ---------------------------------


@pytest.mark.parametrize("method", STEPS_WITH_A_MAP)
@pytest.mark.parametrize("failing", [[0], [1], [3], [1, 3], [0, 1, 2, 3]])
def test_a_failing_map_raises_on_every_rank_and_nothing_is_reduced(
    comm, method, failing
):
    failing = ranks_of(comm, failing)
    steps = CollectiveSteps(comm, comm.size - 1)
    reduced = []

    def fail_somewhere():
        if comm.rank in failing:
            msg = f"rank {comm.rank}"
            raise ValueError(msg)

    error = failure_of(take, steps, method, fail_somewhere, reduced.append)
    assert seen(error) == {rank: (ValueError, f"rank {rank}") for rank in failing}
    assert error.ranks == tuple(error.failures) == tuple(failing)
    assert error.step == error.args[0] == "a step"
    assert isinstance(error, CheckpointError)
    assert reduced == []
    for _, summary in error.failures.values():
        assert summary[-1].name == "fail_somewhere"


@pytest.mark.parametrize("method", STEPS_WITH_A_MAP)
def test_a_failing_rank_finds_its_own_exception_as_the_cause(comm, method):
    mine = ValueError("mine")
    last = comm.size - 1

    def fail_on_the_last():
        if comm.rank == last:
            raise mine

    error = failure_of(take, CollectiveSteps(comm), method, fail_on_the_last)
    if comm.rank == last:
        assert error.__cause__ is mine
        assert error.failures[last][0] is mine
    else:
        assert error.__cause__ is None


@pytest.mark.parametrize("method", ["reduce_scatter", "all_reduce"])
@pytest.mark.parametrize("coordinator", COORDINATORS)
def test_a_failing_reduction_is_the_coordinators(comm, method, coordinator):
    coordinator %= comm.size
    steps = CollectiveSteps(comm, coordinator)

    def reduce(values):
        raise KeyError(len(values))

    error = failure_of(take, steps, method, lambda: 1, reduce)
    assert seen(error) == {coordinator: (KeyError, str(comm.size))}


@pytest.mark.parametrize("coordinator", COORDINATORS)
def test_a_failing_broadcast_is_the_coordinators(comm, coordinator):
    coordinator %= comm.size

    def fail():
        msg = f"rank {comm.rank}"
        raise OSError(28, msg)

    error = failure_of(CollectiveSteps(comm, coordinator).broadcast, "address", fail)
    assert seen(error) == {coordinator: (OSError, f"[Errno 28] rank {coordinator}")}


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), SystemExit(0), SystemExit("no"), GeneratorExit()]
)
@pytest.mark.parametrize("method", STEPS_WITH_A_MAP)
def test_what_is_no_exception_is_caught_too_and_passes_except_exception(
    comm, method, raised
):
    last = comm.size - 1

    def leave_on_the_last():
        if comm.rank == last:
            raise raised

    error = failure_of(take, CollectiveSteps(comm), method, leave_on_the_last)
    assert seen(error) == {last: (type(raised), str(raised))}
    assert not isinstance(error, Exception)


def test_steps_go_on_after_a_failure(comm):
    steps = CollectiveSteps(comm)
    for n in range(5):
        failure_of(steps.all_gather, "fails", lambda: 1 // 0)
        assert steps.all_gather("works", lambda n=n: n) == [n] * comm.size


def test_a_failure_in_a_step_passes_a_guard_around_it_once(comm):
    def fail():
        if comm.rank == 0:
            raise ValueError("of the first")

    def step_in_guard():
        with allraise.guard(comm, "outer"):
            CollectiveSteps(comm).all_gather("inner", fail)

    error = failure_of(step_in_guard)
    assert error.step == "inner"
    assert seen(error) == {0: (ValueError, "of the first")}
    assert str(error).count("(RANK") == 1


def test_a_failure_in_a_guard_in_a_map_passes_the_step_as_it_is(comm):
    def map_with_guard():
        with allraise.guard(comm, "inner"):
            if comm.rank == comm.size - 1:
                msg = "inside"
                raise ValueError(msg)

    error = failure_of(CollectiveSteps(comm).all_gather, "outer", map_with_guard)
    assert (error.step, error.ranks) == ("inner", (comm.size - 1,))
    if comm.rank in {0, comm.size - 1}:  # as the guard tells it
        assert seen(error) == {comm.size - 1: (ValueError, "inside")}


def test_a_failure_keeps_nothing_alive_once_it_is_dropped(comm):
    class Big:
        """Stands for the arrays in a user's frame."""

    def fail_with_big():
        big = Big()
        watched.append(weakref.ref(big))
        raise ValueError

    watched = []
    gc.disable()
    try:
        failure_of(CollectiveSteps(comm).all_gather, "a step", fail_with_big)
        assert watched[0]() is None
    finally:
        gc.enable()


# --- the faults of torch's own test of checkpoints --------------------------


class Storage:
    """A writer and reader that fails where it is told to."""

    def __init__(self, comm, method, failing):
        self.rank = comm.rank
        self.method = method
        self.failing = failing
        self.called = []

    def fails_in(self, method):
        self.called.append(method)
        return method == self.method and self.rank in self.failing

    def do(self, method, result=None):
        if self.fails_in(method):
            msg = f"rank fail {self.rank} for {method}"
            raise ValueError(msg)
        return result

    def do_later(self, method, result=None):
        future = Future()
        if self.fails_in(method):
            future.set_exception(ValueError(f"rank fail {self.rank} for {method}"))
        else:
            future.set_result(result)
        return future

    def prepare_local_plan(self, setting_up):
        for method in setting_up:
            self.do(method)
        return self.do("prepare_local_plan", f"plan {self.rank}")

    def prepare_global_plan(self, plans):
        return self.do("prepare_global_plan", plans)

    def transfer(self, verb, plan):
        self.do(f"{verb}_data")
        return self.do_later(f"{verb}_data_async", f"{verb} {plan}").result()

    def finish(self, results):
        return self.do("finish", results)


def save(steps, storage):
    plan = steps.reduce_scatter(
        "plan",
        lambda: storage.prepare_local_plan(["set_up_storage_writer"]),
        storage.prepare_global_plan,
    )
    return steps.all_reduce(
        "write", lambda: storage.transfer("write", plan), storage.finish
    )


def load(steps, storage):
    plan = steps.reduce_scatter(
        "plan",
        lambda: storage.prepare_local_plan(["read_metadata", "set_up_storage_reader"]),
        storage.prepare_global_plan,
    )
    return steps.all_gather("read", lambda: storage.transfer("read", plan))


FAULTS = [
    (save, "set_up_storage_writer", 0, 0, "plan"),
    (save, "finish", 0, 0, "write"),
    (save, "prepare_global_plan", 0, 0, "plan"),
    (save, "prepare_local_plan", 0, 0, "plan"),
    (save, "write_data", 2, 0, "write"),
    (save, "write_data_async", 3, 0, "write"),
    (save, "set_up_storage_writer", 1, 1, "plan"),
    (save, "finish", 1, 1, "write"),
    (load, "set_up_storage_reader", 0, 0, "plan"),
    (load, "prepare_global_plan", 0, 0, "plan"),
    (load, "read_metadata", 0, 0, "plan"),
    (load, "prepare_local_plan", 1, 0, "plan"),
    (load, "read_data", 3, 0, "read"),
    (load, "read_data_async", 1, 0, "read"),
    (load, "set_up_storage_reader", 0, 3, "plan"),
    (load, "read_metadata", 3, 1, "plan"),
    (load, "read_data", 0, 2, "read"),
    (load, "read_data_async", 2, 3, "read"),
    (load, "prepare_global_plan", 1, 1, "plan"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_torchs_test_fails_alike_on_every_rank(comm, fault):
    job, method, failing, coordinator, step = fault
    failing, coordinator = failing % comm.size, coordinator % comm.size
    storage = Storage(comm, method, [failing])
    error = failure_of(job, CollectiveSteps(comm, coordinator), storage)
    assert error.step == step
    assert seen(error) == {failing: (ValueError, f"rank fail {failing} for {method}")}
    # Nothing that comes after the failure was done.
    assert "finish" not in storage.called or (method, comm.rank) == ("finish", failing)
    if step == "plan":
        assert not {"write_data", "read_data"} & set(storage.called)


@pytest.mark.parametrize("coordinator", COORDINATORS)
def test_without_a_fault_torchs_jobs_work(comm, coordinator):
    steps = CollectiveSteps(comm, coordinator % comm.size)
    for job, verb in ((save, "write"), (load, "read")):
        assert job(steps, Storage(comm, None, [])) == [
            f"{verb} plan {rank}" for rank in range(comm.size)
        ]


# --- where torch deadlocks, or loses the error ------------------------------


@pytest.mark.parametrize("method", [*STEPS_WITH_A_MAP, "broadcast"])
@pytest.mark.parametrize("failing", COORDINATORS)
def test_an_exception_that_cannot_travel_is_told_all_the_same(comm, method, failing):
    class Local(WithLock):
        """Nor can its class be found by its name."""

    failing %= comm.size
    steps = CollectiveSteps(comm, failing)

    def fail():
        if comm.rank == failing:
            msg = "the message"
            raise Local(msg)

    error = failure_of(take, steps, method, fail)
    assert error.ranks == (failing,)
    text = str(error)
    assert "Local: the message\n" in text
    assert "in fail\n    raise Local(msg)\n" in text


@pytest.mark.parametrize("method", [*STEPS_WITH_A_MAP, "broadcast"])
def test_an_exception_that_plain_pickle_cannot_rebuild_comes_whole(comm, method):
    def fail():
        raise TwoArguments("/scratch", "full")

    error = failure_of(take, CollectiveSteps(comm), method, fail)
    expected = range(1) if method == "broadcast" else range(comm.size)
    assert seen(error) == dict.fromkeys(expected, (TwoArguments, "/scratch: full"))


@pytest.mark.parametrize("method", [*STEPS_WITH_A_MAP, "broadcast"])
def test_a_value_that_cannot_be_pickled_is_its_ranks_failure(comm, method):
    if comm.size == 1:
        lock = threading.Lock()  # one rank keeps its objects
        assert lock in (take(CollectiveSteps(comm), method, lambda: lock), lock)
        return
    giving = 0 if method == "broadcast" else comm.size - 1
    error = failure_of(
        take,
        CollectiveSteps(comm),
        method,
        lambda: threading.Lock() if comm.rank == giving else 1,
    )
    assert seen(error) == {giving: (TypeError, "cannot pickle '_thread.lock' object")}
    assert "raised by pickling what map_fun gave\n" in str(error)
    assert OWN_FOLDER not in str(error)  # but the line that led to it
    assert __file__ in str(error)


@pytest.mark.parametrize("method", ["reduce_scatter", "all_reduce"])
def test_a_result_that_cannot_be_pickled_is_the_coordinators_failure(comm, method):
    steps = CollectiveSteps(comm, comm.size - 1)

    def reduce(values):
        return [threading.Lock() for _ in values]

    if comm.size == 1:
        assert take(steps, method, int, reduce)
        return
    error = failure_of(take, steps, method, int, reduce)
    assert seen(error) == {
        comm.size - 1: (TypeError, "cannot pickle '_thread.lock' object")
    }
    assert "raised by pickling what reduce_fun gave\n" in str(error)
    assert OWN_FOLDER not in str(error)  # but the line that led to it
    assert __file__ in str(error)


@pytest.mark.parametrize(
    ("reduce", "got"),
    [
        (lambda values: values[1:], "{} of them"),
        (lambda values: [*values, 0], "{} of them"),
        (lambda _: None, "NoneType"),
        (lambda _: "text", "str"),
    ],
    ids=["short", "long", "none", "text"],
)
def test_a_reduction_that_gives_the_wrong_list_is_the_coordinators_failure(
    comm, reduce, got
):
    steps = CollectiveSteps(comm, comm.size - 1)
    error = failure_of(steps.reduce_scatter, "plan", int, reduce)
    got = got.format(len(reduce([0] * comm.size) or []))
    text = f"reduce_fun must give a list of {comm.size} values, one a rank, got {got}"
    assert seen(error) == {comm.size - 1: (ValueError, text)}


def test_scatter_object_without_a_list_is_the_coordinators_failure(comm):
    error = failure_of(CollectiveSteps(comm).scatter_object, None)
    assert error.ranks == (0,)
    assert "scatter_object must give a list" in str(error)


@pytest.mark.parametrize("method", ["all_gather", "broadcast"])
@pytest.mark.parametrize("failing", [[0], [1, 3], [0, 1, 2, 3]])
def test_a_value_that_a_receiver_cannot_unpickle_is_the_receivers_failure(
    comm, method, failing
):
    failing = ranks_of(comm, failing)
    steps = CollectiveSteps(comm)
    value = Picky(comm, failing)
    if comm.size == 1:
        assert take(steps, method, lambda: value) in (value, [value])
        return
    error = failure_of(take, steps, method, lambda: value)
    assert seen(error) == {
        rank: (RuntimeError, f"cannot be unpickled on rank {rank}") for rank in failing
    }
    assert "raised by unpickling the value of rank 0\n" in str(error)
    assert steps.all_gather("go on", int) == [0] * comm.size


@pytest.mark.parametrize("method", ["reduce_scatter", "all_reduce"])
def test_a_value_that_the_coordinator_cannot_unpickle_is_its_failure(comm, method):
    last = comm.size - 1
    value = Picky(comm, [last])
    steps = CollectiveSteps(comm, last)
    if comm.size == 1:
        assert take(steps, method, lambda: value) in (value, [value])
        return
    error = failure_of(take, steps, method, lambda: value if comm.rank == 0 else 1)
    assert seen(error) == {last: (RuntimeError, f"cannot be unpickled on rank {last}")}


def test_a_map_that_is_no_function_is_a_failure(comm):
    error = failure_of(CollectiveSteps(comm).all_gather, "read", None)
    assert seen(error) == dict.fromkeys(
        range(comm.size), (TypeError, "'NoneType' object is not callable")
    )


def test_an_interrupt_while_bytes_move_is_told_to_every_rank(comm):
    steps = CollectiveSteps(comm)
    last = comm.size - 1
    if comm.size == 1:
        assert steps.all_gather("alone", int) == [0]  # moves no bytes
        return

    class Interrupted:
        """The private communicator, where Ctrl-C is hit before the allgather."""

        def __init__(self, private):
            self._comm = private

        def __getattr__(self, name):
            return getattr(self._comm, name)

        def allgather(self, data):
            signal.raise_signal(signal.SIGINT)
            return self._comm.allgather(data)

    private = steps._private
    whole = private.comm
    if comm.rank == last:
        private.comm = Interrupted(whole)
    try:
        error = failure_of(steps.all_gather, "read", int)
    finally:
        private.comm = whole
    assert seen(error) == {last: (KeyboardInterrupt, "")}
    assert steps.all_gather("go on", int) == [0] * comm.size


# --- ranks that do not take the same step, and wrong arguments --------------


def test_different_kinds_of_step_do_not_meet(comm):
    steps = CollectiveSteps(comm)
    method = "broadcast" if comm.rank == 0 else "all_gather"
    if comm.size == 1:
        assert take(steps, method, int) == 0
        return
    error = failure_of(take, steps, method, int)
    assert error.ranks == tuple(range(comm.size))
    assert {type(exc) for exc, _ in error.failures.values()} == {
        allraise.StepMismatchError
    }
    assert "broadcast" in str(error)
    assert "all_gather" in str(error)


def test_steps_of_different_coordinators_do_not_meet(comm):
    steps = CollectiveSteps(comm, comm.rank)
    if comm.size == 1:
        assert steps.all_reduce("plan", int, sum) == 0
        return
    error = failure_of(steps.all_reduce, "plan", int, sum)
    assert {type(exc) for exc, _ in error.failures.values()} == {
        allraise.StepMismatchError
    }
    assert "coordinator 0" in str(error)
    assert f"coordinator {comm.size - 1}" in str(error)


@pytest.mark.parametrize("step", [None, 3, b"plan"])
def test_a_step_that_is_no_text_is_refused_on_every_rank(comm, step):
    steps = CollectiveSteps(comm)
    with pytest.raises(TypeError, match=r"^step must be a str, got "):
        steps.all_gather(step, int)
    assert steps.all_gather("go on", int) == [0] * comm.size


def test_a_step_that_one_rank_gets_wrong_fails_on_every_rank(comm):
    steps = CollectiveSteps(comm)
    step = None if comm.rank == 0 else "read"
    if comm.size == 1:
        with pytest.raises(TypeError):
            steps.all_gather(step, int)
        return
    error = failure_of(steps.all_gather, step, int)
    assert seen(error) == {0: (TypeError, "step must be a str, got NoneType")}


@pytest.mark.parametrize(
    ("coordinator", "expected"),
    [(-1, ValueError), (10**6, ValueError), ("0", TypeError), (0.5, TypeError)],
)
def test_a_coordinator_that_is_no_rank_is_refused(comm, coordinator, expected):
    with pytest.raises(expected):
        CollectiveSteps(comm, coordinator)


def test_steps_over_a_communicator_that_was_freed_say_so(comm):
    duplicate = comm.Dup()
    steps = CollectiveSteps(duplicate)
    assert steps.all_gather("read", int) == [0] * comm.size
    duplicate.Free()
    with pytest.raises(ValueError, match="COMM_NULL"):
        steps.all_gather("read", int)


# --- torch's private names ---------------------------------------------------


def test_torchs_wrapper_takes_torchs_arguments(comm):
    from allraise.dcp import _DistWrapper

    last = comm.size - 1
    wrapper = _DistWrapper(comm, True, last)
    assert wrapper.group is comm
    assert wrapper.use_dist is True
    assert wrapper.is_coordinator == (comm.rank == last)
    world = comm.allgather(_world_rank())
    assert wrapper.global_coordinator_rank == world[last]
    assert wrapper.all_reduce("write", lambda: 1, sum) == comm.size


def _world_rank():
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank


def test_torchs_wrapper_without_dist_never_communicates(comm):
    """Only one rank takes the step, which would hang if it communicated."""
    from allraise.dcp import _DistWrapper

    if comm.rank:
        return
    wrapper = _DistWrapper(None, False, 3)
    assert (wrapper.rank, wrapper.is_coordinator) == (0, True)
    assert (wrapper.get_world_size(), wrapper.global_coordinator_rank) == (1, 0)
    assert wrapper.coordinator_rank == 3
    wrapper.barrier()
    lock = threading.Lock()
    assert wrapper.reduce_scatter("plan", lambda: lock, list) is lock
    assert wrapper.all_gather_object(lock) == wrapper.gather_object(lock) == [lock]
    assert wrapper.broadcast_object(lock) is wrapper.scatter_object([lock]) is lock
    for method in [*STEPS_WITH_A_MAP, "broadcast"]:
        error = failure_of(take, wrapper, method, lambda: 1 // 0)
        assert error.ranks == (0,)
        assert isinstance(error.__cause__, ZeroDivisionError)


def test_torchs_failure_dict_finds_the_wrapped_exceptions():
    from allraise import dcp

    pair = dcp._wrap_exception(ValueError("a"))
    assert dcp._get_failure_dict([1, pair, (1, 2), pair]) == {1: pair, 3: pair}
    assert dcp._is_wrapped_exception(pair)
    assert pickle.loads(pickle.dumps(pair))[0].args == ("a",)
    assert isinstance(dcp.CheckpointException("read", {1: pair}), CheckpointException)
    assert dcp.WRAPPED_EXCEPTION is allraise.WrappedException
