"""A rank that does not arrive in time is named, and where it is stuck."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

import mpirun
from allraise import load_report

PROGRAMS = Path(__file__).parent / "programs"
LIMIT_S = 4  # all who are not stuck arrive at once, on a busy machine too


def run(n_ranks, how, stuck, *options, timeout=LIMIT_S, **rest):
    limit = ["--timeout", str(timeout)] if timeout else []
    program = [str(PROGRAMS / "deadline_cases.py"), how, stuck, *limit, *options]
    ended = mpirun.run(n_ranks, program, deadline_s=120, **rest)
    assert not ended.timed_out, ended.output
    return ended


def run_stuck(*args, **how):
    """Run what has to be ended: nobody goes on, and the job has failed."""
    ended = run(*args, **how)
    assert ended.returncode != 0
    assert "went on" not in ended.output
    return ended


@cache
def library():
    code = "from mpi4py import MPI; print(MPI.Get_library_version())"
    return mpirun.run(1, ["-c", code]).stdout


@pytest.mark.parametrize(
    "how", ["sleep", "loop", "receive", "barrier", "hidden", "held"]
)
def test_a_missing_rank_is_named_with_its_stack(how):
    """In a sleep, in Python, in MPI, and where C code holds the GIL."""
    ended = run_stuck(3, how, "1")
    text = "passed its deadline of 4 s: ranks 0,2 arrived, rank 1 missing"
    assert ended.stderr.count(text) == 1, ended.output
    assert re.search(rf"deadline_cases.py\", line \d+, in {how}\n", ended.stderr)
    held = "holds the interpreter" in ended.stderr
    assert held == (how in ("held", "hidden")), ended.stderr
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("level", "how"),
    [
        *(("single", how) for how in ("sleep", "barrier", "held")),
        ("funneled", "sleep"),
        ("serialized", "held"),
    ],
)
def test_every_thread_level_gets_a_verdict(level, how):
    """Below multiple no helper thread calls MPI; the launcher ends the job."""
    ended = run_stuck(3, how, "2", "--level", level)
    assert "ranks 0-1 arrived, rank 2 missing" in ended.stderr, ended.output
    assert f", in {how}\n" in ended.stderr


@pytest.mark.parametrize("how", ["sleep", "held"])
@pytest.mark.parametrize("level", ["multiple", "single"])
def test_no_rank_is_left_where_an_abort_ends_only_one(level, how):
    """Open MPI 5 under --with-ft: nor one that cannot be asked to end."""
    if "Open MPI v5" not in library():
        pytest.skip("needs Open MPI 5, the only one whose launcher knows --with-ft")
    ended = run_stuck(3, how, "2", "--level", level, options=["--with-ft", "ulfm"])
    assert ended.returncode == 1
    assert ended.left_behind == 0
    assert "ranks 0-1 arrived, rank 2 missing" in ended.stderr, ended.output


@pytest.mark.parametrize("how", ["sleep", "held"])
@pytest.mark.parametrize("level", ["multiple", "single"])
def test_a_missing_root_is_reported_by_another_rank(level, how):
    """Rank 0 can say where it sleeps; where it holds the GIL, rank 1 takes over."""
    ended = run_stuck(3, how, "0", "--level", level)
    assert "ranks 1-2 arrived, rank 0 missing" in ended.stderr, ended.output
    assert f", in {how}\n" in ended.stderr


@pytest.mark.parametrize("failing", [0, 3])
def test_ranks_that_all_hold_the_interpreter_are_told_whichever_rank_fails(failing):
    """However many of those that are asked first hold it."""
    stuck = [rank for rank in range(4) if rank != failing]
    told = ",".join(str(rank) for rank in stuck)
    ended = run_stuck(4, "hidden", told, "--failing", str(failing))
    missing = "0-2" if failing else "1-3"
    text = f"deadline of 4 s: rank {failing} failed, ranks {missing} missing"
    assert text in ended.stderr, ended.output
    assert "OSError: disk full" in ended.stderr
    assert f"ranks {missing} (3 of 4): allraise.HangError" in ended.stderr
    assert ", in hidden\n" in ended.stderr


@pytest.mark.parametrize("level", ["multiple", "single"])
def test_ranks_that_all_take_the_census_make_one_report(level, tmp_path):
    path = tmp_path / "report.json"
    options = ["--all-lead", "--failing", "2", "--level", level]
    env = {"ALLRAISE_REPORT": str(path)}
    ended = run_stuck(4, "sleep", "1", *options, env=env)
    text = "ranks 0,3 arrived, rank 2 failed, rank 1 missing; the job is ended"
    assert ended.stderr.count(text) == 1, ended.output
    assert ended.stderr.count("the job is ended") == 1
    assert load_report(path).ranks == (1, 2)


@pytest.mark.parametrize(
    ("others", "where"),
    [
        ("together", "in RAW.Barrier()"),
        ("on_guards_comm", "in guard.comm.Barrier()"),
        ("in_guard", "it is in step 'inner' within it and waits for other ranks"),
    ],
)
@pytest.mark.parametrize("how", ["sleep", "loop"])
def test_who_waits_for_others_comes_after_who_is_elsewhere(
    others, where, how, tmp_path
):
    """In MPI, on the guard's communicator, and at the end of an inner guard."""
    path = tmp_path / "report.json"
    env = {"ALLRAISE_REPORT": str(path)}
    ended = run_stuck(4, how, "1", "--others", others, env=env)
    text = "ranks 0-3 missing (ranks 0,2-3 wait for others); the job is ended"
    assert text in ended.stderr, ended.output
    groups = load_report(path).groups()
    assert [(str(g.ranks), g.kind) for g in groups] == [
        ("1", "hang"),
        ("0,2-3", "blocked"),
    ]
    assert {g.record.links[0].type_name for g in groups} == {"allraise.HangError"}
    assert where in groups[1].record.links[0].message
    assert ended.stderr.index("=== rank 1 ") < ended.stderr.index("=== ranks 0,2-3 ")


def test_where_all_wait_for_each_other_none_is_elsewhere():
    """Each receives from the next."""
    ended = run_stuck(3, "receive", "0,1,2")
    assert "ranks 0-2 missing; the job is ended" in ended.stderr, ended.output
    assert ended.stderr.count("[blocked]") == 1
    assert "[hang]" not in ended.stderr


def test_several_missing_ranks_stuck_alike_are_one_group():
    ended = run_stuck(5, "sleep", "1,2,4", env={"ALLRAISE_STYLE": "groups"})
    assert "ranks 0,3 arrived, ranks 1-2,4 missing" in ended.stderr, ended.output
    assert "=== ranks 1-2,4 (3 of 5): allraise.HangError" in ended.stderr


def test_a_failure_that_a_missing_rank_holds_up_is_told(tmp_path):
    """Both are in the report and in its file, told apart."""
    path = tmp_path / "report.json"
    env = {"ALLRAISE_REPORT": str(path)}
    ended = run_stuck(3, "sleep", "1", "--failing", "2", env=env)
    text = "rank 0 arrived, rank 2 failed, rank 1 missing"
    assert text in ended.stderr, ended.output
    assert "OSError: disk full" in ended.stderr
    report = load_report(path)
    kinds = {tuple(ranks): record.kind for ranks, record in report.bundle.records()}
    assert kinds == {(2,): "failure", (1,): "hang"}
    assert report.step == "write"
    assert report.size == 3
    assert text in report.environment["ended_because"]


def test_the_environment_gives_the_limit_of_guards_without_one():
    ended = run_stuck(2, "sleep", "1", timeout=None, env={"ALLRAISE_TIMEOUT": "4"})
    assert "deadline of 4 s: rank 0 arrived, rank 1 missing" in ended.stderr


def test_a_limit_that_is_no_number_is_refused():
    ended = run(2, "none", "", timeout=None, env={"ALLRAISE_TIMEOUT": "soon"})
    assert "ALLRAISE_TIMEOUT must be a positive number" in ended.stderr


def test_a_late_rank_completes_the_step_after_one_notice():
    """The notice is written by rank 0, at half the time, to stderr."""
    ended = run(3, "late", "1", timeout=12)
    assert ended.returncode == 0, ended.output
    lines = [line for line in ended.stderr.splitlines() if "allraise" in line]
    text = (
        r"allraise: step 'write': [\d.]+ s of 12 s have passed, waiting for rank 1 of 3"
    )
    assert len(lines) == 1
    assert re.fullmatch(text, lines[0])
    assert ended.stdout.count("went on") == 3


def test_nobody_missing_says_nothing():
    ended = run(3, "none", "", timeout=1000)
    assert ended.returncode == 0, ended.output
    assert "allraise" not in ended.output
    assert ended.stdout.count("went on") == 3


@pytest.mark.parametrize("level", ["multiple", "single"])
@pytest.mark.parametrize("left", [0, 2])
def test_a_rank_that_has_finished_its_program_is_told_so(left, level, tmp_path):
    """It left a loop too soon, is in MPI_Finalize, and answers no more."""
    path = tmp_path / "report.json"
    options = ["--level", level]
    env = {"ALLRAISE_REPORT": str(path)}
    ended = run_stuck(3, "leave", str(left), *options, env=env)
    others = "1-2" if left == 0 else "0-1"
    text = (
        f"ranks {others} arrived, rank {left} missing "
        f"(rank {left} has finished the program); the job is ended"
    )
    assert text in ended.stderr, ended.output
    ((ranks, record),) = load_report(path).bundle.records()
    assert tuple(ranks) == (left,)
    assert record.kind == "finished"
    assert record.links[0].type_name == "allraise.HangError"
    assert record.links[0].message == (
        "step 'write' was not at its end within 4 s: the rank has finished its "
        "program, with no guard open"
    )
    assert "C code" not in ended.stderr


def test_a_rank_that_ended_by_an_uncaught_exception_is_told_so():
    ended = run_stuck(3, "fail", "1")
    text = "the rank has finished its program by ValueError: no such mesh, with no"
    assert text in ended.stderr, ended.output


def test_a_rank_that_has_not_entered_is_told_so():
    ended = run_stuck(3, "before", "1")
    text = "step 'write' was not even entered within 4 s: it is in no guarded region"
    assert text in ended.stderr, ended.output
    assert ", in sleep\n" in ended.stderr


def test_agree_has_a_limit_from_its_call():
    ended = run_stuck(3, "collect", "1", "--failing", "2")
    text = "step 'collected' passed its deadline of 4 s: rank 0 arrived, rank 2 failed"
    assert text in ended.stderr, ended.output


def test_the_innermost_limit_that_passes_is_told():
    ended = run_stuck(3, "narrow", "0")
    assert "step 'narrow' passed its deadline of 4 s" in ended.stderr, ended.output


def test_a_rank_stuck_in_an_inner_guard_without_a_limit_is_told_so():
    ended = run_stuck(3, "inner", "1")
    assert "it is in step 'inner' within it" in ended.stderr, ended.output


def test_other_threads_of_a_missing_rank_are_shown():
    ended = run_stuck(2, "thread", "1")
    assert "thread 'loader':" in ended.stderr, ended.output


def test_one_rank_alone_has_a_deadline():
    ended = run_stuck(1, "sleep", "0")
    assert "passed its deadline of 4 s: rank 0 missing" in ended.stderr, ended.output
    assert ", in sleep\n" in ended.stderr


@pytest.mark.parametrize("stuck", ["1", "0,2", "1 swallow"])
def test_ranks_stuck_on_the_guards_communicator_are_woken(stuck):
    """Then every rank raises, and the next step works; also if one swallows it."""
    program = [str(PROGRAMS / "deadline_woken.py"), *stuck.split()]
    ended = mpirun.run(4, program, deadline_s=90)
    assert ended.returncode == 0, ended.output
    assert ended.stdout.count("went on") == 4
    assert "the job is ended" not in ended.output


def test_a_revoke_wakes_them_too():
    if "Open MPI v5" not in library():
        pytest.skip("needs Open MPI 5, the only one with ULFM")
    program = [str(PROGRAMS / "deadline_woken.py"), "1"]
    env = {"OMPI_MCA_mpi_ft_enable": "1"}
    ended = mpirun.run(3, program, deadline_s=90, env=env)
    assert ended.returncode == 0, ended.output
    assert ended.stdout.count("went on") == 3


def test_below_multiple_they_are_reported_and_the_job_ends():
    """No helper thread may wake anybody there."""
    env = {"MPI4PY_RC_THREAD_LEVEL": "serialized"}
    program = [str(PROGRAMS / "deadline_woken.py"), "1"]
    ended = mpirun.run(3, program, deadline_s=90, env=env)
    assert not ended.timed_out, ended.output
    assert ended.returncode != 0
    assert "ranks 0,2 arrived, rank 1 missing; the job is ended" in ended.stderr
    assert ", in block\n" in ended.stderr


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4])
def test_the_first_limit_neither_hangs_nor_starts_threads_too_soon(n_ranks):
    """A failure further out, and a limit that only some ranks give, are raised."""
    ended = mpirun.run(n_ranks, [str(PROGRAMS / "deadline_entry.py")], deadline_s=90)
    assert ended.returncode == 0, ended.output
    assert "ok" in ended.stdout


def test_a_failure_that_another_part_of_the_ranks_knows_is_told():
    """Whose deadline passes a second later, than that of those who wait for it."""
    program = [str(PROGRAMS / "deadline_beside.py")]
    ended = mpirun.run(4, program, deadline_s=120)
    assert not ended.timed_out, ended.output
    assert ended.returncode != 0
    assert ended.stderr.count("passed its deadline of 3 s") == 1, ended.output
    assert ended.stderr.count("passed its deadline of 4 s") == 1, ended.output
    assert "ValueError: broken on rank 1" in ended.stderr
