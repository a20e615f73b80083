"""What is left of a job on this host is killed by one of its processes."""

import os
import signal
import subprocess
import sys
import uuid

import pytest

from allraise.neighbours import JOB

# Long, as a host's name may be.
LENGTH = 200

WAITS = "print('ready', flush=True); import time; time.sleep(60)"
ENDS = """
import sys
from allraise.neighbours import end_neighbours
end_neighbours()
print("alone", flush=True)
sys.stdin.read()
"""


def start(program, job):
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, JOB: job},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def job():
    """Start processes of a job, and of another; leave none."""
    name = uuid.uuid4().hex.ljust(LENGTH, "x")
    started = []

    def start_one(program, *, other=False):
        started.append(start(program, "another" + name if other else name))
        assert started[-1].stdout.readline() in {"ready\n", "alone\n"}
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def test_the_others_of_the_job_are_killed_and_nobody_else(job):
    there, elsewhere = job(WAITS), job(WAITS, other=True)
    killer = job(ENDS)
    assert there.wait(timeout=30) == -signal.SIGKILL
    assert elsewhere.poll() is None
    assert killer.poll() is None


def test_only_one_kills_until_it_has_ended(job):
    """Two would kill each other, and no exit code would be left."""
    first = job(ENDS)
    second = job(ENDS)
    assert first.poll() is None
    first.communicate("")
    third = job(ENDS)
    assert second.wait(timeout=30) == -signal.SIGKILL
    assert third.poll() is None
