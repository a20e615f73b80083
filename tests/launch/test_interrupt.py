"""A peer's failure wakes the ranks that are blocked in communication."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import mpirun
from allraise.plain import IS_COMPILED

PROGRAMS = Path(__file__).parent / "programs"
GROUPS = ["upper", "lower", "p2p", "requests", "derived"]
ULFM = {"OMPI_MCA_mpi_ft_enable": "1"}


def run(n_ranks, program, *args, **how):
    how = {"deadline_s": 90, **how}
    words = [str(arg) for arg in args]
    ended = mpirun.run(n_ranks, [str(PROGRAMS / program), *words], **how)
    assert not ended.timed_out, ended.output
    assert ended.returncode == 0, ended.output
    assert "WRONG" not in ended.output
    return ended


@cache
def has_ulfm():
    """Whether the launcher of this runtime knows ``--with-ft``: Open MPI 5."""
    code = "from mpi4py import MPI; print(MPI.Get_library_version())"
    return "Open MPI v5" in mpirun.run(1, ["-c", code]).stdout


@pytest.fixture(params=["messages", "revoke", "launched with ULFM"])
def way(request):
    """How peers are woken, as arguments of `run`."""
    if request.param == "messages":
        return {}
    if not has_ulfm():
        pytest.skip("needs Open MPI 5, the only one with ULFM")
    if request.param == "revoke":
        return {"env": ULFM}
    return {"options": ["--with-ft", "ulfm"]}


@pytest.mark.parametrize("failing", [[0], [1], [1, 2]], ids=str)
@pytest.mark.parametrize("group", GROUPS)
def test_a_failure_wakes_ranks_in_each_operation(group, failing):
    """One failing rank, rank 0 and another, and two at once."""
    run(4, "interrupt_each.py", group, *failing)


@pytest.mark.parametrize("group", GROUPS)
def test_a_failure_wakes_the_only_other_rank(group):
    """With two ranks, where collectives take short cuts."""
    run(2, "interrupt_each.py", group, 1)


@pytest.mark.parametrize("group", GROUPS)
def test_a_revoke_wakes_ranks_in_each_operation(group):
    """The same by a revoke, with three ranks."""
    if not has_ulfm():
        pytest.skip("needs Open MPI 5, the only one with ULFM")
    run(3, "interrupt_each.py", group, 1, options=["--with-ft", "ulfm"])


@pytest.mark.parametrize("n_ranks", [2, 3, 4])
def test_random_faults_neither_hang_nor_corrupt(n_ranks):
    """Mixed operations, 8 bytes to 800 kB; any message that is stale would show."""
    ended = run(n_ranks, "interrupt_cycles.py", 150, n_ranks)
    assert "ok 150 cycles" in ended.stdout


def test_random_faults_with_relays(monkeypatch):
    """Announcements go from neighbour to neighbour, as among many ranks."""
    monkeypatch.setenv("STANDIN_DIRECT_LIMIT", "1")
    assert "ok 150 cycles" in run(5, "interrupt_cycles.py", 150).stdout


def test_random_faults_with_a_revoke(way):
    """The same programs, woken by a revoke."""
    assert "ok 150 cycles" in run(3, "interrupt_cycles.py", 150, **way).stdout


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 7])
def test_results_are_those_of_mpi4py(n_ranks):
    """Where nothing fails, every operation gives what the plain one gives."""
    assert "ok" in run(n_ranks, "interrupt_same.py").stdout


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("where", ["gate", "behind", "none", "mixed"])
def test_small_collectives_give_what_mpi4py_gives(n_ranks, where):
    """Whether they are done at the gate, behind it, or on some ranks in Python."""
    assert f"ok {where}" in run(n_ranks, "interrupt_small.py", where).stdout


def test_with_more_ranks_than_a_gate_has_slots_they_give_the_same():
    *ok, n_cases, n_at_the_gate = run(17, "interrupt_small.py", "gate").stdout.split()
    assert ok == ["ok", "gate"]
    assert int(n_at_the_gate) < int(n_cases) / 5  # objects alone, which are not counted


def test_results_are_those_of_mpi4py_with_ulfm(way):
    """And where a revoke would wake."""
    assert "ok" in run(2, "interrupt_same.py", **way).stdout


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_what_one_rank_gets_wrong_alone_hangs_no_other(n_ranks):
    """Unpicklable objects, bad buffers, signals at a gate, stale communicators."""
    assert "ok" in run(n_ranks, "interrupt_alone.py").stdout


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_a_wrong_argument_on_one_rank_is_a_failure_of_that_rank(n_ranks):
    """It is refused before the others are in the collective."""
    assert "ok" in run(n_ranks, "interrupt_arguments.py").stdout


def test_a_wrong_argument_of_what_makes_a_communicator_is_no_other_with_a_revoke(way):
    """It is all that a revoke does not wake."""
    cases = "Split", "Split key", "Create", "Create null", "Dup"
    assert "ok" in run(3, "interrupt_arguments.py", *cases, **way).stdout


@pytest.mark.parametrize("n_ranks", [1, 3])
def test_what_is_refused_before_a_gate_is_what_mpi4py_refuses(n_ranks):
    """Some thousand calls, with the exception that each ends in, if any."""
    assert "ok" in run(n_ranks, "interrupt_looks.py").stdout


def test_buffers_of_finished_requests_are_let_go(way):
    """Also where mpi4py's own Waitall has waited."""
    assert "ok" in run(2, "interrupt_kept.py", **way).stdout


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_wherever_a_handler_raises_in_an_operation_no_rank_waits_for_ever(n_ranks, way):
    """Between the gate and the collective, say, where the others are inside."""
    assert "ok" in run(n_ranks, "interrupt_places.py", **way).stdout


@pytest.mark.parametrize("n_signals", [1, 2])
@pytest.mark.parametrize("n_ranks", [2, 3])
def test_a_rank_whose_handler_raised_in_an_operation_has_taken_part(n_ranks, n_signals):
    """So it may go on with the others, if it swallows that.

    At a gate: where a revoke wakes ranks, MPI's own operations run no handler.
    """
    assert "ok" in run(n_ranks, "interrupt_swallowed.py", n_signals).stdout


@pytest.mark.parametrize(
    ("name", "pure"),
    [
        *(("broadcast_rest", "0"), ("_rest", "0"), ("behind", "0"), ("behind", "1")),
        *(("run", "0"), ("run", "1"), ("move", "0"), ("move", "1")),
    ],
)
def test_a_rank_that_has_passed_the_gate_of_a_broadcast_takes_part_to_its_end(
    name, pure
):
    """Wherever a signal's handler raises on the way there."""
    if pure == "0" and not IS_COMPILED:
        pytest.skip("nothing is compiled: the same as with ALLRAISE_PURE")
    run(2, "interrupt_rest.py", name, env={"ALLRAISE_PURE": pure})


@pytest.mark.parametrize("n_ranks", [3, 4])
def test_a_failure_around_does_not_come_between_the_parts_of_a_step(n_ranks, way):
    """Some ranks may be in the collective of the next part already."""
    assert "ok" in run(n_ranks, "interrupt_steps.py", n_ranks, **way).stdout


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_rank_that_has_come_in_vain_is_not_taken_to_come_later(n_ranks, way):
    """When a communicator is made: what it has sent then is received then, or never."""
    assert "ok" in run(n_ranks, "interrupt_met.py", deadline_s=30, **way).stdout


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_a_handler_that_raises_where_a_communicator_is_made_hangs_nobody(n_ranks, way):
    """Where its rank deals with that and comes again."""
    assert run(n_ranks, "interrupt_again.py", **way).stdout.count("ok") == n_ranks


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_guards_on_one_rank_change_nothing_for_those_around_and_within(n_ranks, way):
    assert run(n_ranks, "nested_one_rank.py", **way).stdout.count("ok") == n_ranks


@pytest.mark.parametrize("n_ranks", [3, 4])
@pytest.mark.parametrize("what", ["go well", "fail", "asked twice", "freed around"])
def test_regions_may_differ_between_ranks(what, n_ranks, way):
    ended = run(n_ranks, "nested_uneven.py", what, **way)
    assert ended.stdout.count("ok") == n_ranks


@pytest.mark.parametrize("what", ["messages", "counts", "cleanup"])
def test_nothing_is_met_or_missed_of_a_communicator_that_was_freed(what, way):
    assert run(3, "interrupt_freed.py", what, **way).stdout.count("ok") == 3


@pytest.mark.parametrize("what", ["goes well", "fails", "is woken"])
@pytest.mark.parametrize("who", ["all", "one"])
def test_a_guard_ends_as_any_where_its_communicator_is_freed_within(who, what, way):
    assert run(3, "freed_within.py", who, what, 20, **way).stdout.count("ok") == 3


@pytest.mark.parametrize("how", ["freed", "kept", "split"])
def test_ranks_that_wait_for_each_other_are_found_among_many_communicators(how):
    assert run(4, "interrupt_stands.py", how).stdout.count("ok") == 4


@pytest.mark.parametrize("case", ["fails", "dealt with", "comes"])
def test_ranks_that_wait_for_each_other_for_messages_are_found(case):
    """On the g.comm of a guard around that in which one has failed."""
    ended = run(4, "interrupt_around.py", case, deadline_s=60)
    assert ended.stdout.count("ok") == 4


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_a_guard_further_in_asks_nobody_who_waits_around_it(n_ranks):
    ended = run(n_ranks, "interrupt_around.py", "further in", deadline_s=30)
    assert ended.stdout.count("ok") == n_ranks


def test_a_failure_is_passed_on_by_ranks_that_wait_in_a_wider_guard():
    assert run(12, "interrupt_passed_on.py").stdout.count("ok") == 12


@pytest.mark.parametrize("n_ranks", [2, 3])
def test_an_operation_at_the_end_of_the_stack_leaves_no_rank_waiting(n_ranks, way):
    """It ends well, or its rank has failed, as far as the others can see, too."""
    assert "ok" in run(n_ranks, "interrupt_depths.py", **way).stdout


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_only_what_comes_from_the_interruption_counts_as_interrupted(n_ranks, way):
    """Not what fails besides, or after it; and the first use of g.comm is no other."""
    assert run(n_ranks, "interrupt_kinds.py", **way).stdout.count("ok") == n_ranks


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_failure_that_was_dealt_with_ends_no_later_region(n_ranks, way):
    """Though what lay within is made anew, by some of the ranks."""
    ended = run(n_ranks, "interrupt_recovered.py", **way)
    assert ended.stdout.count("ok") == n_ranks


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_failure_in_one_thread_is_nothing_to_another(n_ranks, way):
    """On a communicator of the same ranks, as of a saver in the background."""
    ended = run(n_ranks, "interrupt_threads.py", **way)
    assert ended.stdout.count("ok") == n_ranks


@pytest.mark.parametrize("what", ["goes well", "fails", "background", "within"])
def test_which_thread_uses_a_communicator_may_differ_between_ranks(what, way):
    assert run(3, "interrupt_pool.py", what, **way).stdout.count("ok") == 3


def test_a_failure_within_that_was_dealt_with_loses_no_message_outside(way):
    assert run(4, "interrupt_outer.py", **way).stdout.count("ok") == 4


def test_the_table_names_every_method_of_mpi4py():
    """A new method of mpi4py is refused until somebody has thought about it."""
    lines = run(2, "interrupt_table.py").stdout.splitlines()
    assert lines == [*["MISSING []"] * 4, "ok"]


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_an_outer_failure_wakes_ranks_in_an_inner_region(n_ranks, way):
    """On a communicator of some of its ranks, which is given up then."""
    assert "ok" in run(n_ranks, "interrupt_nested.py", **way).stdout


@pytest.mark.parametrize("case", ["fails", "wakes", "exchanges", "nothing", "all"])
def test_a_guard_in_the_first_handler_of_the_exit_is_as_any_other(case):
    """It runs when listening has been stopped, and MPI ends without complaint."""
    ended = run(3, "interrupt_exit.py", case)
    assert sorted(ended.stdout.split("\n")) == [
        "",
        *map("handled on rank {}".format, range(3)),
    ]
    assert "WARN" not in ended.stderr, ended.stderr


def test_a_guard_in_a_handler_of_the_exit_where_a_revoke_wakes(way):
    assert run(3, "interrupt_exit.py", "all", **way).stdout.count("handled") == 3


def test_a_guard_says_what_has_used_up_the_communicators():
    code = "from mpi4py import MPI; print(MPI.Get_library_version())"
    if not mpirun.run(1, ["-c", code]).stdout.startswith("MPICH"):
        pytest.skip("Open MPI (4.1, 5.0) has more communicators than a test can use up")
    ended = run(2, "interrupt_exhausted.py")
    assert ended.stdout.count("Regions that\nfail use communicators up") == 2


@pytest.mark.skipif(
    not IS_COMPILED,
    reason="a guard in Python can be thrown out before its first line, see sharp-bits",
)
@pytest.mark.parametrize("end", ["well", "fails"])
def test_a_signal_that_comes_as_a_block_ends_leaves_nobody_in_it(end):
    ended = run(3, "signal_at_end.py", end)
    agreed = "NoneType" if end == "well" else "CheckpointError"
    others = "nothing" if end == "well" else "CheckpointError of NoneType"
    assert f"rank 1: TimeoutError of {agreed}" in ended.stdout, ended.output
    assert f"rank 2: {others}" in ended.stdout
