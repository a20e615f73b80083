"""An agreement that listens to others meanwhile, and MPI that fails in one."""

import pytest

from allraise import CheckpointError, agree, collect, guard
from allraise.gates import Gates
from allraise.standing import Standing
from unit import simulated

pytestmark = pytest.mark.usefixtures("simulated_ranks")

WORLD_SIZE = 3


class MPIError(Exception):
    """What MPI raises."""


MPIError.__module__ = "mpi4py.MPI"


class Listening(simulated.SimulatedComm):
    """A rank whose first agreement is disturbed, before or after it is started."""

    needs_relay = failed = False

    def __init__(self, comm, when, raised):
        super().__init__(comm.world, comm.rank)
        self.when, self.raised = when, raised
        self.n_started = 0
        self.private.has_twin = True
        self.private.note_plain()
        self.private.beacon = self
        self.standing = Standing()
        self.private.gates = Gates(1)

    def disturb(self, when):
        if self.when == when:
            self.when = None
            raise self.raised

    def Iallreduce(self, send, receive, op):
        self.n_started += 1
        # As MPICH does: what is received there tells nothing before the end.
        receive[0] = send[0]
        return lambda: self.Allreduce(send, receive, op)

    def pass_gate(self, start, gates, _operation):
        gates.entered += 1
        self.disturb("before")
        wait = start()
        self.disturb("between")
        wait()


def run(when, raised, fails_on):
    def main(comm):
        first = comm.rank == 1
        comm = Listening(comm, when if first else None, raised)
        ended = None
        try:
            with guard(comm, "block"):
                if comm.rank in fails_on:
                    raise ValueError(f"of {comm.rank}")
        except BaseException as error:
            ended = error
        agree(None, comm, "after")  # nothing is left behind
        assert comm.private.gates.entered == comm.n_started == 2
        return ended

    return simulated.World(WORLD_SIZE).run(main)


@pytest.mark.parametrize("fails_on", [(), (0,), (1,), (0, 1, 2)])
def test_a_signal_before_the_reduction_is_the_ranks_failure(fails_on):
    outcomes = run("before", KeyboardInterrupt("now"), fails_on)
    assert {outcome.ranks for outcome in outcomes} == {tuple({1, *fails_on})}
    assert "KeyboardInterrupt: now" in str(outcomes[0])
    assert ("ValueError: of 1" in str(outcomes[0])) == (1 in fails_on)


def test_a_signal_in_a_reduction_that_goes_well_is_raised_after_it():
    first, second, third = run("between", KeyboardInterrupt("now"), ())
    assert first is None
    assert type(second) is KeyboardInterrupt
    assert third is None


@pytest.mark.parametrize("fails_on", [(0,), (1,), (0, 1, 2)])
def test_a_signal_in_a_reduction_that_fails_is_raised_after_the_report(fails_on):
    outcomes = run("between", KeyboardInterrupt("now"), fails_on)
    assert type(outcomes[1]) is KeyboardInterrupt
    assert outcomes[0].ranks == outcomes[2].ranks == fails_on


@pytest.mark.parametrize("broken", ["Allreduce", "gather"])
def test_a_region_in_which_mpi_fails_is_closed(broken, monkeypatch):
    """On every rank here; what is still to be had is MPI's error and the own one."""

    def fail(*_args, **_kwargs):
        raise MPIError("no more")

    def main(comm):
        monkeypatch.setattr(comm, broken, fail)
        comm.private.communicate_on(comm)
        own = ValueError("own")
        with pytest.raises(MPIError) as raised, guard(comm, "block"):
            raise own
        assert raised.value.__context__ is own
        assert comm.private.steps == []
        assert comm.private.settled is None

    simulated.World(WORLD_SIZE).run(main)


def test_what_cannot_be_told_does_not_keep_the_others_waiting(monkeypatch):
    def fail(*_args, **_kwargs):
        raise MemoryError("no room")

    def main(comm):
        return collect(ValueError("own") if comm.rank == 1 else None, comm)

    monkeypatch.setattr("allraise.contribution.capture", fail)
    outcomes = simulated.World(WORLD_SIZE).run(main)
    assert [type(outcome) for outcome in outcomes] == [CheckpointError] * 3
    assert [outcome.ranks for outcome in outcomes] == [(1,)] * 3
    assert "cannot be told: MemoryError: no room" in str(outcomes[0])
