"""A process that dies: the job ends soon, not with 0, and what is known is shown."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import mpirun
from allraise import load_report
from allraise.remains import load_spool

PROGRAM = str(Path(__file__).parent / "programs" / "dead_cases.py")
N_RANKS = 4
ULFM = ["--with-ft", "ulfm"]
SOON_S = 60.0
# The tests' own faulthandler would have the stacks on stderr.
ENV = {"PYTHONFAULTHANDLER": ""}


@cache
def library():
    code = "from mpi4py import MPI; print(MPI.Get_library_version())"
    return mpirun.run(1, ["-c", code]).stdout


needs_ulfm = pytest.mark.skipif(
    "Open MPI v5" not in library(),
    reason="a survivor can speak only under Open MPI 5, whose launcher knows --with-ft",
)


def run(how, where, victim=1, *, ulfm=False, launcher=(), env=None):
    """Run it; a survivor that goes on, and a job that ends well, are wrong."""
    program = [*launcher, PROGRAM, how, where, str(victim)]
    ended = mpirun.run(
        N_RANKS,
        program,
        deadline_s=SOON_S,
        options=ULFM if ulfm else [],
        env={**ENV, **(env or {})},
    )
    assert not ended.timed_out, ended.output
    assert ended.left_behind == 0
    # MPICH's launcher may take an exit with 0 for a good end, and kill the others:
    # what none of them can see, none can tell. Under run it is made a failure.
    if how != "exit" or launcher or "Open MPI" in library():
        assert ended.returncode != 0, ended.output
    # MPICH's launcher may kill before it has passed on what was printed.
    if "Open MPI" in library():
        assert ended.stdout.count("begins") == N_RANKS, ended.output
    if where != "last":
        assert "goes on" not in ended.stdout, ended.output
    return ended


@needs_ulfm
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(
    "where", ["agreement", "barrier", "recv", "raw", "nested", "split", "first", "last"]
)
def test_the_survivors_tell_who_died_and_where_they_stand(where, victim):
    """Who notices first is left to chance."""
    ended = run("sigkill", where, victim, ulfm=True)
    assert ended.returncode == 1
    told = ended.stderr.count(f"rank {victim} died; the job is ended")
    assert told == 1, ended.output
    assert f"=== rank {victim} (1 of 4): died" in ended.stderr
    assert "silent" not in ended.stderr, ended.output
    if where in ("agreement", "nested"):
        assert f", in {where}\n" in ended.stderr, ended.output
    if where == "split":
        assert "(RANK 3)" in ended.stderr, ended.output
        assert "OSError: disk full" in ended.stderr


@needs_ulfm
@pytest.mark.parametrize("how", ["sigsegv", "abort"])
def test_every_kind_of_death_is_told(how):
    ended = run(how, "agreement", 2, ulfm=True)
    assert "step 'write': rank 2 died; the job is ended" in ended.stderr, ended.output


@needs_ulfm
def test_who_computes_meanwhile_is_not_waited_for():
    ended = run("sigkill", "late", ulfm=True)
    assert "rank 1 died" in ended.stderr, ended.output
    assert "=== rank 3 (1 of 4): silent: has not come to MPI" in ended.stderr


@needs_ulfm
def test_the_report_of_a_death_is_stored_with_its_stack_in_c(tmp_path):
    path = tmp_path / "report.json"
    launcher = ["-m", "allraise", "run", "--report", str(path)]
    run("sigsegv", "failure", ulfm=True, launcher=launcher)
    found = {}
    for ranks, record in load_report(path).bundle.records():
        found |= dict.fromkeys(ranks, record)
    assert found[1].kind == "died"
    assert found[1].links[0].message == "Segmentation fault"
    assert "die" in [frame.name for frame in found[1].links[0].frames]
    assert found[3].links[0].message == "disk full"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("sigkill", "agreement"),
        ("sigsegv", "barrier"),
        ("abort", "nested"),
        ("exit", "agreement"),
        ("exit", "barrier"),
    ],
)
def test_without_fault_tolerance_the_launcher_ends_the_job(how, where):
    run(how, where)


def left_by(tmp_path, *args, launcher=()):
    """Run it without fault tolerance; return what is left and what `show` prints.

    A launcher that is slow to kill leaves time for a whole report.
    """
    path = tmp_path / "report.json"
    if launcher:
        launcher = [*launcher, "--report", str(path)]
    run(*args, launcher=launcher, env={"ALLRAISE_REPORT": str(path)})
    left = path if path.exists() else tmp_path / "report.json.d"
    shown = subprocess.run(
        [sys.executable, "-m", "allraise", "show", "--style", "groups", str(left)],
        capture_output=True,
        text=True,
        check=True,
    )
    return left, shown.stdout


def test_a_guard_leaves_its_failure_where_it_may_be_killed(tmp_path):
    folder, shown = left_by(tmp_path, "sigkill", "failure")
    assert "=== rank 3 (1 of 4): OSError: disk full" in shown
    assert [path.name for path in folder.iterdir()] == ["rank-3.json"]
    assert load_spool(folder).step == "write"


def test_a_run_leaves_the_stack_of_a_crash_in_c_as_well(tmp_path):
    launcher = ["-m", "allraise", "run"]
    _, shown = left_by(tmp_path, "sigsegv", "failure", launcher=launcher)
    assert "=== rank 1 (1 of 4): died: Segmentation fault\n" in shown
    assert ", in die\n" in shown
    assert "=== rank 3 (1 of 4): OSError: disk full" in shown


def test_a_run_leaves_who_was_killed(tmp_path):
    _, shown = left_by(
        tmp_path, "sigkill", "failure", launcher=["-m", "allraise", "run"]
    )
    if "MPICH" in library():  # 5.0.2: its launcher sends the others no SIGTERM before
        assert "=== ranks 0-2 (3 of 4): silent: left nothing" in shown
    else:
        assert "=== rank 1 (1 of 4): silent: " in shown
    assert "=== rank 3 (1 of 4): OSError: disk full" in shown


def test_a_run_that_ends_well_leaves_nothing(tmp_path):
    launcher = ["-m", "allraise", "run", "--report", str(tmp_path / "report.json")]
    program = [*launcher, PROGRAM, "not at all", "agreement", "1"]
    ended = mpirun.run(N_RANKS, program, deadline_s=SOON_S, env=ENV)
    assert ended.returncode == 0, ended.output
    assert ended.stdout.count("goes on") == N_RANKS
    assert list(tmp_path.iterdir()) == []


def test_an_agreed_failure_leaves_nothing(tmp_path):
    """The peers know it: the file is gone, and the folder."""
    env = {"ALLRAISE_REPORT": str(tmp_path / "report.json"), **ENV}
    program = [PROGRAM, "not at all", "failure", "1"]
    ended = mpirun.run(N_RANKS, program, deadline_s=SOON_S, env=env)
    assert "OSError: disk full" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_exit_in_the_middle_is_told_under_run(tmp_path):
    """Open MPI's launcher says so; MPICH's says nothing at all."""
    launcher = ["-m", "allraise", "run", "--report", str(tmp_path / "report.json")]
    ended = run("exit", "agreement", launcher=launcher)
    text = "allraise: rank 1 calls os._exit(0) before MPI_Finalize"
    assert text in ended.stderr, ended.output
    assert ", in die\n" in ended.stderr


@needs_ulfm
def test_an_exit_under_ulfm_is_a_death_under_run(tmp_path):
    """Elsewhere Open MPI would not notice, and the others would wait for ever."""
    launcher = ["-m", "allraise", "run", "--report", str(tmp_path / "report.json")]
    ended = run("exit", "agreement", ulfm=True, launcher=launcher)
    assert "calls os._exit(0) before MPI_Finalize" in ended.stderr
    assert "step 'write': rank 1 died; the job is ended" in ended.stderr, ended.output
