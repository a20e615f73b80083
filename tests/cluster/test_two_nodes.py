"""What only shows between nodes: hosts, files, clocks, and what happens to networks."""

import json
import re
import time

import pytest

ULFM = pytest.mark.parametrize("ulfm", [False, True], ids=["plain", "ulfm"])


@pytest.fixture
def with_ft(ulfm, has_ulfm):
    if ulfm and not has_ulfm:
        pytest.skip("needs Open MPI 5, the only one whose launcher knows --with-ft")
    return ulfm


@ULFM
def test_every_rank_of_every_node_raises(cluster, with_ft):
    ended = cluster.mpirun("jobs/shards.py", ulfm=with_ft).end()
    for rank in range(4):
        assert f"rank {rank} raised for [1, 3]" in ended.output
    assert ended.code == 0, ended.output


def test_the_report_names_the_host_of_each_rank(cluster):
    cluster.mpirun("jobs/shards.py").end()
    origins = json.loads(cluster.read("node0", "report.json"))["origins"]
    assert {rank: origin["host"] for rank, origin in origins.items()} == {
        "1": "node0",
        "3": "node1",
    }


def test_source_lines_come_from_the_node_that_has_them(cluster):
    line = 'raise ZeroDivisionError("a singular block")'
    cluster.write("node1", "jobs/only_here.py", f"def solve():\n    {line}\n")
    ended = cluster.mpirun("jobs/foreign_source.py").end()
    assert f"    {line}\n" in ended.output


def test_clocks_that_differ_leave_times_and_order_of_failures(cluster):
    """Rank 3 fails a second after rank 1, by a clock that is nine seconds behind."""
    cluster.set_clock("node1", -9)
    here, there = cluster.shell("node0", "date +%s; ssh node1 date +%s").split()
    assert 7 <= int(here) - int(there) <= 9
    ended = cluster.mpirun("jobs/shards.py", "1").end()
    origins = json.loads(cluster.read("node0", "report.json"))["origins"]
    assert 0.9 < origins["3"]["time"] - origins["1"]["time"] < 5
    assert "OSError: [Errno 28] No space left for shard 1" in ended.output
    assert "ValueError: shard 3 is malformed" in ended.output
    assert ended.output.index("=== rank 1") < ended.output.index("=== rank 3")


@ULFM
def test_a_failure_wakes_ranks_that_are_blocked_on_another_node(cluster, with_ft):
    """Without being woken they would wait until the job is ended from outside."""
    ended = cluster.mpirun("jobs/blocked.py", ulfm=with_ft).end()
    assert not ended.timed_out, ended.output
    raised = re.findall(r"rank (\d) raised for (.*)", ended.output)
    assert dict(raised) == {str(rank): "[3]" for rank in range(4)}


@ULFM
def test_a_killed_node_ends_the_job(cluster, with_ft):
    """Open MPI's own launcher ends it, in any mode, once a node's daemon is gone.

    Its exit code is not looked at: mpirun of Open MPI 5.0 gives 0 or 255, as it
    happens (https://github.com/open-mpi/ompi/issues/12227).
    """
    job = cluster.mpirun("jobs/waiting.py", ulfm=with_ft)
    job.wait_for("inside", times=4)
    began = time.monotonic()
    cluster.kill("node1")
    ended = job.end()
    assert not ended.timed_out, ended.output
    assert time.monotonic() - began < 20
    assert "went on" not in ended.output


def test_a_cut_network_is_told_at_the_deadline(cluster):
    """TCP alone would wait for many minutes for a node that has fallen silent."""
    timeout_s = 5
    job = cluster.mpirun("jobs/waiting.py", str(timeout_s), deadline_s=40)
    job.wait_for("inside", times=4)
    cluster.cut("node1")
    job.wait_for("HangError", times=1, seconds=timeout_s + 15)
    ended = job.end()
    assert "2-3" in ended.output, "the ranks that did not arrive"
    assert "went on" not in ended.output


def test_the_launcher_ends_a_job_on_both_nodes(cluster):
    ended = cluster.mpirun(
        *("-m", "allraise", "run", "--report", "report.json", "jobs/uncaught.py")
    ).end()
    assert not ended.timed_out, ended.output
    assert ended.code != 0
    assert "RuntimeError: the solver diverged" in ended.output
    report = json.loads(cluster.read("node0", "report.json"))
    assert report["origins"]["3"]["host"] == "node1"
    assert cluster.shell("node1", "pgrep -c -f [u]ncaught.py || true") == "0"
