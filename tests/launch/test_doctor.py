"""``allraise doctor``: the screen tells what this job really has."""

import pytest
from mpi4py import MPI

import allraise
import mpirun
from allraise.doctor import Answers, screen
from allraise.plain import IS_COMPILED

ANSWERS = Answers(
    host="node1",
    python="3.12.1",
    library="Open MPI v5.0.11",
    binding="mpi4py 4.1.2",
    level="multiple",
    ulfm=True,
    faulthandler=True,
    said_size=2,
    compiled=True,
)


def doctor(n=2, **rest):
    ended = mpirun.run(n, ["-m", "allraise", "doctor"], deadline_s=60, **rest)
    assert ended.returncode == 0, ended.output
    return ended.stdout


def test_one_screen_for_all_ranks():
    text = doctor(3)
    lines = text.splitlines()
    assert len(lines) < 24
    assert "ranks         3 on 1 host" in lines
    assert "thread level  multiple" in lines
    assert "ULFM          not active" in lines
    made = "compiled" if IS_COMPILED else "not compiled"
    assert f"allraise      {allraise.__version__}, {made}, Python " in text
    assert MPI.Get_library_version().split()[0] in text  # as it calls itself


def test_the_thread_level_is_the_one_that_was_got():
    text = doctor(env={"MPI4PY_RC_THREAD_LEVEL": "serialized"})
    assert "thread level  serialized" in text
    assert "signals, by files" in text
    assert "unset MPI4PY_RC_THREAD_LEVEL" in text


@pytest.mark.skipif(
    not MPI.Get_library_version().startswith("Open MPI v5"),
    reason="only Open MPI 5 has ULFM that works",
)
def test_fault_tolerance_that_was_asked_for_is_seen():
    text = doctor(options=["--with-ft", "ulfm"])
    assert "ULFM          active" in text
    assert "woken by a revoke" in text
    assert "--with-ft" not in text


def test_a_time_limit_is_told():
    assert "after 90 s" in doctor(env={"ALLRAISE_TIMEOUT": "90"})


def test_a_job_with_everything_needs_no_advice(monkeypatch):
    monkeypatch.setenv("ALLRAISE_TIMEOUT", "60")
    text = screen([ANSWERS, ANSWERS], "1.0")
    assert "to get more" not in text
    assert "  no " not in text


def test_ranks_that_are_unlike_are_told_apart():
    other = ANSWERS._replace(host="node2", library="Open MPI v5.0.8", ulfm=False)
    text = screen([ANSWERS, other, ANSWERS], "1.0")
    assert "v5.0.11, mpi4py 4.1.2 (ranks 0,2); Open MPI v5.0.8" in text
    assert "3 on 2 hosts" in text
    assert "ULFM          not active" in text


def test_the_mpirun_of_another_mpi_is_seen():
    """Each process is then a job of one rank."""
    text = screen([ANSWERS._replace(said_size=4)], "1.0")
    assert "the launcher started 4 ranks, MPI knows 1" in text
