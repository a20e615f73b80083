"""A signal handler that raises on one rank while ranks agree."""

import sys
from functools import partial
from pathlib import Path

import pytest

import allraise
import spmd
from allraise import (
    CheckpointException,
    CollectiveSteps,
    agree,
    agreement,
    collect,
    guard,
)
from allraise.plain import IS_COMPILED
from unit import simulated

pytestmark = pytest.mark.usefixtures("simulated_ranks")

WORLD_SIZE = 3


class Interrupted(simulated.SimulatedComm):
    """A rank on which a handler raises right before or after its first Allreduce."""

    def __init__(self, comm, when):
        super().__init__(comm.world, comm.rank)
        self.when = when

    def Allreduce(self, send, receive, op):
        when, self.when = self.when, None
        if when == "before":
            raise KeyboardInterrupt(when)
        super().Allreduce(send, receive, op)
        if when == "after":
            raise KeyboardInterrupt(when)


@pytest.fixture(params=["compiled", "in Python"])
def way(request, monkeypatch):
    """Both ways a block may go, one after the other."""
    if request.param == "in Python":
        go_in_python(monkeypatch)
    elif not IS_COMPILED:
        pytest.skip("allraise was installed without a compiler")
    return request.param


def go_in_python(monkeypatch):
    if IS_COMPILED:
        monkeypatch.setattr(guard, "__enter__", guard._enter)
        monkeypatch.setattr(guard, "__exit__", guard._exit)


def run(when, fails_on):
    """Run a guarded block on ranks of which rank 1 is interrupted."""

    def main(comm):
        if comm.rank == 1:
            comm = Interrupted(comm, when)
        try:
            with guard(comm, "block"):
                if comm.rank in fails_on:
                    raise ValueError(f"of {comm.rank}")
        except BaseException as error:
            ended = error
        else:
            ended = None
        agree(None, comm, "after")  # nothing is left behind
        return ended

    return simulated.World(WORLD_SIZE).run(main)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("fails_on", [(), (0,), (1,), (0, 1, 2)])
def test_before_the_reduction_it_is_the_ranks_failure(fails_on):
    outcomes = run("before", fails_on)
    expected = tuple(sorted({1, *fails_on}))
    for outcome in outcomes:
        assert type(outcome) is CheckpointException
        assert outcome.ranks == expected
    assert type(outcomes[1].__cause__) is KeyboardInterrupt
    assert "KeyboardInterrupt: before" in str(outcomes[0])


@pytest.mark.usefixtures("way")
def test_before_the_reduction_the_failure_it_hits_is_not_lost():
    outcome = run("before", (1,))[0]
    assert "ValueError: of 1" in str(outcome)


def test_before_the_reduction_what_was_handed_over_is_not_lost():
    def main(comm):
        if comm.rank == 1:
            comm = Interrupted(comm, "before")
        return collect(ValueError("handed over") if comm.rank == 1 else None, comm)

    outcomes = simulated.World(WORLD_SIZE).run(main)
    assert [outcome.ranks for outcome in outcomes] == [(1,)] * WORLD_SIZE
    assert "KeyboardInterrupt: before" in str(outcomes[0])
    assert "ValueError: handed over" in str(outcomes[0])


@pytest.mark.usefixtures("way")
def test_after_a_reduction_that_went_well_it_goes_on_alone():
    """The others have gone on already: nobody waits for this rank."""
    first, second, third = run("after", ())
    assert first is None
    assert type(second) is KeyboardInterrupt
    assert third is None


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("fails_on", [(0,), (1,), (0, 1, 2)])
def test_after_a_reduction_that_failed_the_ranks_report_first(fails_on):
    outcomes = run("after", fails_on)
    assert type(outcomes[1]) is KeyboardInterrupt
    for rank in (0, 2):
        assert outcomes[rank].ranks == fails_on
        assert "KeyboardInterrupt" not in str(outcomes[rank])


@pytest.mark.usefixtures("way")
def test_every_program_ends_alike_with_a_rank_interrupted_before_reductions():
    """Random programs, an interrupt at each of the first agreements in turn."""
    for seed in range(120):
        program = spmd.generate(seed, WORLD_SIZE)

        def main(comm, seed=seed, program=program):
            if comm.rank == seed % WORLD_SIZE:
                comm = Interrupted(comm, "before")
            player = spmd.Player(comm, comm.rank, WORLD_SIZE)
            player.play(program)
            agree(None, comm, "after")
            return player.log

        logs = simulated.World(WORLD_SIZE).run(main)
        assert all(log == logs[0] for log in logs), f"seed {seed}: {logs}"


PACKAGE = str(Path(allraise.__file__).parent)


def is_leaving(frame):
    """Tell whether `leave` has begun: from there on a rank cannot be thrown out."""
    while frame is not None and frame.f_code is not agreement.leave.__code__:
        frame = frame.f_back
    return frame is not None


class Handler:
    """A signal whose handler raises at the n-th place where Python runs handlers.

    That is where a function begins, and after each call of one written in C. Code
    of the test's is none of these places.
    """

    def __init__(self, place):
        self.place = place
        self.n_places = self.n_held = 0
        self.is_due = self.has_raised = self.was_leaving = False

    def __call__(self, frame, event, _argument):
        here = frame.f_code.co_filename.startswith(PACKAGE)
        if event not in {"call", "c_return"} or not here:
            return
        self.n_places += 1
        if self.n_places == self.place:
            self.is_due = True
            self.was_leaving = is_leaving(frame.f_back if event == "call" else frame)
        self.run()

    def run(self):
        if self.is_due and not self.n_held:
            self.is_due, self.has_raised = False, True
            sys.setprofile(None)
            raise KeyboardInterrupt("now")


@pytest.fixture
def held_back(monkeypatch):
    """Hold back what `Handler` raises in this thread, as signals are in the first."""

    class held_back:
        def __enter__(self):
            self.handler = sys.getprofile()
            if self.handler is not None:
                self.handler.n_held += 1

        def __exit__(self, *_):
            if self.handler is not None:
                self.handler.n_held -= 1
                self.handler.run()

        def let_through(self, function):
            self.__exit__()
            try:
                return function()
            finally:
                self.__enter__()

    for module in ("agreement", "reducing", "row"):
        monkeypatch.setattr(f"allraise.{module}.signals_held_back", held_back)
    return held_back


def interrupted_at(place, fails_on):
    """Run a block within another; in the inner one, rank 1's handler raises."""
    handler = Handler(place)

    def main(comm):
        ended = None
        try:
            with guard(comm, "outer"):
                if comm.rank == 1:
                    sys.setprofile(handler)
                try:
                    with guard(comm, "inner"):
                        if comm.rank in fails_on:
                            raise ValueError(f"of {comm.rank}")
                    met_there[comm.rank] = True
                except CheckpointException as error:
                    met_there[comm.rank] = error.step == "inner"
                    raise
                finally:
                    sys.setprofile(None)
        except BaseException as error:
            ended = error
        agree(None, comm, "after")  # nothing is left behind
        return ended

    met_there = [False] * WORLD_SIZE
    outcomes = simulated.World(WORLD_SIZE).run(main)
    if handler.was_leaving:
        # The others were not left to the outer agreement: all met in the inner one.
        assert met_there[0]
        assert met_there[2]
    return outcomes, handler.has_raised


@pytest.mark.usefixtures("held_back")
@pytest.mark.parametrize("fails_on", [(), (0,), (1,)])
def test_wherever_a_handler_raises_the_ranks_end_alike(fails_on, way):
    place, has_raised = 0, True
    limit = sys.getrecursionlimit()
    while has_raised:
        place += 1
        try:
            outcomes, has_raised = interrupted_at(place, fails_on)
            expected = {1, *fails_on} if has_raised else {*fails_on}
            for outcome in outcomes if expected else ():
                assert isinstance(outcome, CheckpointException)
                assert set(outcome.ranks) == expected
        except BaseException as error:
            error.add_note(f"at place {place}")
            raise
        assert sys.getrecursionlimit() == limit, f"at place {place}"
    # Where it goes well, there are few calls, and in a compiled block next to none.
    assert place > (20 if fails_on else 2 if way == "compiled" else 5)


def in_a_block(comm):
    with guard(comm, "block"):
        pass


def decorated(comm):
    guard(comm, "function")(lambda: None)()


ENDS = {
    "agree": (agree, None, "leave"),
    "collect": (collect, ValueError("handed over"), "leave"),
    "block": (in_a_block, None, "leave"),
    "function": (decorated, None, "leave"),
    "end of a function": (decorated, None, "__exit__"),
}


@pytest.mark.parametrize(("end", "exc", "begins"), ENDS.values(), ids=ENDS)
def test_a_handler_that_raises_as_the_end_begins_is_a_failure(
    end, exc, begins, monkeypatch
):
    """With no guard around, in whose end the others would meet that rank."""
    go_in_python(monkeypatch)

    def raise_there(frame, event, _argument):
        if event == "call" and frame.f_code.co_name == begins:
            sys.setprofile(None)
            raise KeyboardInterrupt("now")

    def main(comm):
        if comm.rank == 1:
            sys.setprofile(raise_there)
        try:
            outcome = end(comm) if exc is None else end(exc, comm)
        except BaseException as error:
            outcome = error
        finally:
            sys.setprofile(None)
        agree(None, comm, "after")
        assert not comm.private.depth
        return outcome

    if end is agree:
        end = partial(agree, None)
    outcomes = simulated.World(WORLD_SIZE).run(main)
    for outcome in outcomes:
        assert isinstance(outcome, CheckpointException)
        assert outcome.ranks == ((1,) if exc is None else (0, 1, 2))
    assert "KeyboardInterrupt: now" in str(outcomes[0])
    assert exc is None or str(outcomes[0]).count("handed over") == WORLD_SIZE


@pytest.mark.usefixtures("held_back")
@pytest.mark.skipif(not IS_COMPILED, reason="no code in Python can be without a place")
@pytest.mark.parametrize("is_failing", [False, True])
def test_a_compiled_block_leaves_no_place_before_its_agreement(is_failing):
    """Where a handler raises at all, it is the rank's failure, or raises behind."""
    place, has_raised = 0, True
    while has_raised:
        place += 1
        handler = Handler(place)

        def main(comm, handler=handler):
            block = guard(comm, "block")
            try:
                with block:
                    if comm.rank == 1:
                        sys.setprofile(handler)
                    if is_failing:
                        raise ValueError(f"of {comm.rank}")
            except BaseException as error:
                outcome = error
            else:
                outcome = None
            finally:
                sys.setprofile(None)
            agree(None, comm, "after")
            assert not comm.private.depth
            return outcome

        outcomes = simulated.World(WORLD_SIZE).run(main)
        has_raised = handler.has_raised
        if type(outcomes[1]) is KeyboardInterrupt:  # all had met before
            outcomes[1] = outcomes[1].__context__
        for rank, outcome in enumerate(outcomes):
            if is_failing:
                assert outcome.ranks == (0, 1, 2), f"rank {rank} at place {place}"
            else:
                assert outcome is None
    assert place > (20 if is_failing else 0)


def test_a_handler_that_raises_as_a_rank_asks_to_be_woken_leaves_nothing_behind():
    def raise_there(frame, event, _argument):
        back = frame.f_back.f_code.co_name if frame.f_back else ""
        if event == "call" and (frame.f_code.co_name, back) == (
            "note_plain",
            "wake_from_now_on",
        ):
            sys.setprofile(None)
            raise KeyboardInterrupt("now")

    def main(comm):
        def block():
            with guard(comm, "block"):
                if comm.rank == 1:
                    sys.setprofile(raise_there)
                    agreement.wake_from_now_on(comm.private)

        with pytest.raises(CheckpointException) as raised:
            block()
        agree(None, comm, "after")
        assert not comm.private.asking
        return raised.value

    outcomes = simulated.World(WORLD_SIZE).run(main)
    assert [outcome.ranks for outcome in outcomes] == [(1,)] * WORLD_SIZE


STEPS = {
    "reduce_scatter": lambda s: s.reduce_scatter("step", lambda: 1, lambda ones: ones),
    "all_reduce": lambda s: s.all_reduce("step", lambda: 1, sum),
    "all_gather": lambda s: s.all_gather("step", lambda: 1),
    "broadcast": lambda s: s.broadcast("step", lambda: 1),
    "barrier": lambda s: s.barrier(),
    "gather_object": lambda s: s.gather_object(1),
    "scatter_object": lambda s: s.scatter_object([1] * WORLD_SIZE),
}


@pytest.mark.usefixtures("held_back")
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_wherever_a_handler_raises_in_a_step_no_rank_waits_in_a_collective(step):
    place, has_raised = 0, True
    while has_raised:
        place += 1
        handler = Handler(place)

        def main(comm, handler=handler):
            steps = CollectiveSteps(comm)
            try:
                with guard(comm, "around"):
                    if comm.rank == 1:
                        sys.setprofile(handler)
                    try:
                        step(steps)
                    finally:
                        sys.setprofile(None)
            except BaseException as error:
                ended = error
            else:
                ended = None
            agree(None, comm, "after")
            return ended

        try:
            outcomes = simulated.World(WORLD_SIZE).run(main)
        except simulated.Deadlock as error:
            error.add_note(f"at place {place}")
            raise
        has_raised = handler.has_raised
        for outcome in outcomes:
            if has_raised:
                assert isinstance(outcome, CheckpointException), f"at place {place}"
                assert outcome.ranks == (1,)
            else:
                assert outcome is None
    assert place > 5
