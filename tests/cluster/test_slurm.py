"""Under Slurm, whose `srun` starts the ranks: endings, time limits, a killed rank.

One container is a cluster of one node; `make slurm-test` builds its image and names
it in TEST_IMAGE, and in SLURM_MPI the plugin that its MPI needs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import uuid

import pytest

from cluster.engine import HOME, JOBS, docker

# A container has no CMA, and Open MPI's ranks must not spin: there are few cores.
ENVIRONMENT = {
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "OMPI_MCA_smsc": "^cma",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PYTHONUNBUFFERED": "1",
}
RUN = ("python", "-m", "allraise", "run", "--report", "report.json")


class Slurm:
    """A container that runs slurmctld and slurmd, named node0."""

    def __init__(self, image: str, plugin: str) -> None:
        self.name = f"allraise-slurm-{uuid.uuid4().hex[:8]}"
        self.image = image
        self.plugin = plugin

    def start(self) -> None:
        docker(
            *("run", "--detach", "--init", "--shm-size", "512m"),
            *("--name", self.name, "--hostname", "node0", self.image),
        )
        docker("cp", str(JOBS), f"{self.name}:{HOME}/jobs")
        docker("exec", self.name, "chown", "-R", "tester:", HOME)
        idle = "until sinfo --noheader --format %T | grep -q idle; do sleep 0.1; done"
        self.shell(f"timeout 30 bash -c '{idle}' || (sinfo; exit 1)")

    def stop(self) -> None:
        docker("rm", "--force", "--volumes", self.name, check=False)

    def shell(self, command: str) -> str:
        return docker("exec", "--user", "tester", self.name, "bash", "-c", command)

    def read(self, name: str) -> str:
        return docker("exec", self.name, "cat", f"{HOME}/{name}")

    def start_srun(self, *command: str) -> subprocess.Popen[str]:
        """Start srun with options and a program."""
        variables = [
            part for pair in ENVIRONMENT.items() for part in ("--env", "=".join(pair))
        ]
        return subprocess.Popen(
            [
                *("docker", "exec", "--user", "tester", "--workdir", HOME, *variables),
                # In the container, because ending `docker exec` ends nothing there.
                *(self.name, "timeout", "150"),
                *("srun", f"--mpi={self.plugin}", "-n", "4", *command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def srun(self, *command: str) -> tuple[int, str]:
        """Run it to its end; return srun's exit code, and what was printed."""
        process = self.start_srun(*command)
        output, _ = process.communicate(timeout=200)
        assert process.returncode != 124, f"no end after 150 s:\n{output}"
        return process.returncode, output

    def state(self) -> str:
        """Return how Slurm says that the last job ended, as `sacct` would."""
        text = self.shell("scontrol --oneliner show job")
        last = max(text.splitlines(), key=lambda job: int(job.split()[0][6:]))
        return re.search(r"JobState=(\w+)", last).group(1)

    def wait_until_gone(self) -> None:
        """Wait until no rank is left on the node."""
        left = "while pgrep -u tester -f '^(/opt/venv/bin/)?python'; do sleep 0.1; done"
        self.shell(f'timeout 30 bash -c "{left}"')


@pytest.fixture(scope="module")
def slurm():
    image, plugin = os.environ.get("TEST_IMAGE"), os.environ.get("SLURM_MPI")
    if not image or not plugin:
        pytest.fail("TEST_IMAGE, SLURM_MPI: these tests run by `make slurm-test`")
    made = Slurm(image, plugin)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def check_report_of_all_stacks(slurm, output):
    assert "the job got SIGTERM" in output
    assert "time.sleep(3600)" in output, "where rank 3 is"
    assert "SIGTERM: in comm.barrier()" in output, "where the others are"
    report = json.loads(slurm.read("report.json"))
    assert {tuple(span) for f in report["failures"] for span in f["ranks"]} == {
        (0, 2),
        (3, 3),
    }


def test_a_job_that_goes_well_ends_with_0(slurm):
    code = "from mpi4py import MPI; print(MPI.COMM_WORLD.size)"
    code, output = slurm.srun(*RUN, "-c", code)
    assert code == 0, output
    assert output.split() == ["4"] * 4
    assert slurm.state() == "COMPLETED"


def test_every_rank_raises_and_the_job_goes_on(slurm):
    code, output = slurm.srun("python", "jobs/shards.py")
    assert code == 0, output
    for rank in range(4):
        assert f"rank {rank} raised for [1, 3]" in output


def test_a_failure_ends_the_job_and_its_code_reaches_srun(slurm):
    code, output = slurm.srun(*RUN, "jobs/uncaught.py")
    # The highest code of any rank, where those count that Slurm has killed by then.
    assert code in {1, 128 + signal.SIGKILL}, output
    assert output.count("RuntimeError: the solver diverged") == 1
    assert "=== ranks 0-2 (3 of 4): blocked: in comm.barrier()" in output
    assert slurm.state() == "FAILED"
    slurm.wait_until_gone()


def test_the_time_limit_leaves_a_report_of_all_stacks(slurm):
    """Slurm's shortest limit is a minute. It sends SIGTERM, and SIGKILL later."""
    code, output = slurm.srun("--time", "1", *RUN, "jobs/stuck.py")
    assert code != 0, output
    assert "DUE TO TIME LIMIT" in output
    check_report_of_all_stacks(slurm, output)
    assert slurm.state() == "TIMEOUT"
    slurm.wait_until_gone()


def test_scancel_leaves_a_report_of_all_stacks(slurm):
    process = slurm.start_srun(*RUN, "jobs/stuck.py")
    seen = [process.stdout.readline() for _ in range(4)]
    assert seen == ["waiting\n"] * 4, process.communicate()
    slurm.shell("scancel --user tester")
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0, output
    check_report_of_all_stacks(slurm, output)
    assert slurm.state() == "CANCELLED"
    slurm.wait_until_gone()


def test_a_killed_rank_ends_the_job(slurm):
    code, output = slurm.srun("--kill-on-bad-exit=1", *RUN, "jobs/stuck.py", "killed")
    assert code != 0, output
    assert slurm.state() == "FAILED"
    slurm.wait_until_gone()
