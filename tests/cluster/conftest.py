"""Nodes for the tests that need more than one: containers on a network of their own.

``make cluster-test`` builds the image, names it in TEST_IMAGE and runs these
tests on this machine. Each test gets new containers, since most of them break
some. mpirun runs in the first, and reaches the others through ssh.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass

import pytest

from cluster.engine import DEADLINE, DEADLINE_SCRIPT, HOME, JOBS, docker

SLOTS = 2  # ranks a node
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"

# The loopback of a node leads to no other node, and the tests need no more than
# TCP between the nodes. Copying from process to process needs a capability that
# containers do not have.
ENVIRONMENT = {
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl_tcp_if_include": "eth0",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "OMPI_MCA_smsc": "^cma",
    # Open MPI 5's collectives by node (han) crash on a communicator with a dead
    # rank: SIGSEGV in mca_coll_han_comm_create instead of MPI_ERR_PROC_FAILED.
    "OMPI_MCA_coll": "^han",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Ended:
    """How a job on the cluster ended."""

    code: int
    output: str
    seconds: float

    @property
    def timed_out(self) -> bool:
        return DEADLINE in self.output


class Job:
    """A running mpirun, whose output can be waited for."""

    def __init__(self, command: list[str]) -> None:
        self._began = time.monotonic()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._seen: list[str] = []
        self._ended = False  # the end of the output has been read
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, text: str, times: int, seconds: float = 60.0) -> None:
        """Wait until that many lines with a text have been printed."""
        until = time.monotonic() + seconds
        while times:
            try:
                line = self._lines.get(timeout=max(0.1, until - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no {text!r} in {seconds:g} s:\n{''.join(self._seen)}")
            if line is None:
                self._ended = True
                pytest.fail(f"ended before {text!r} was printed:\n{self.end().output}")
            self._seen.append(line)
            times -= text in line

    def end(self) -> Ended:
        """Wait for the end, which the deadline in the node brings at the latest."""
        code = self._process.wait(timeout=600)
        while not self._ended and (line := self._lines.get(timeout=10)) is not None:
            self._seen.append(line)
        return Ended(code, "".join(self._seen), time.monotonic() - self._began)


class Cluster:
    """Containers with sshd, a network and a hostfile."""

    def __init__(self, image: str, n_nodes: int) -> None:
        self.name = f"allraise-{uuid.uuid4().hex[:8]}"
        self.nodes = [f"node{i}" for i in range(n_nodes)]
        self.image = image

    def start(self) -> None:
        docker("network", "create", self.name)
        for node in self.nodes:
            docker(
                *("run", "--detach", "--init", "--shm-size", "512m"),
                *("--name", self.container(node), "--hostname", node),
                *("--network", self.name, "--network-alias", node),
                self.image,
            )
        hosts = "".join(f"{node} slots={SLOTS}\n" for node in self.nodes)
        for node in self.nodes:
            self.write(node, "hosts", hosts)
            docker("cp", str(JOBS), f"{self.container(node)}:{HOME}/jobs")
            docker("exec", self.container(node), "chown", "-R", "tester:", HOME)
        reach = " && ".join(
            f"until ssh {node} true; do sleep 0.1; done" for node in self.nodes
        )
        self.shell(self.nodes[0], f"timeout 30 bash -c '{reach}'")

    def stop(self) -> None:
        for node in self.nodes:
            docker("rm", "--force", "--volumes", self.container(node), check=False)
        docker("network", "rm", self.name, check=False)

    def container(self, node: str) -> str:
        return f"{self.name}-{node}"

    def shell(self, node: str, command: str) -> str:
        container = self.container(node)
        return docker("exec", "--user", "tester", container, "bash", "-c", command)

    def write(self, node: str, name: str, text: str) -> None:
        """Write a file in the home folder of one node."""
        subprocess.run(
            [
                *("docker", "exec", "--interactive", "--user", "tester"),
                *(self.container(node), "tee", f"{HOME}/{name}"),
            ],
            input=text,
            text=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )

    def read(self, node: str, name: str) -> str:
        return docker("exec", self.container(node), "cat", f"{HOME}/{name}")

    def set_clock(self, node: str, seconds: int) -> None:
        """Set the time of day that programs started over ssh on a node see."""
        lines = (
            f"LD_PRELOAD={FAKETIME}",
            f"FAKETIME={seconds:+d}s",
            # MPI measures its own time-outs with the monotonic clock
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        )
        text = "\\n".join(lines)
        self.shell(node, f"printf '{text}\\n' >>{HOME}/.ssh/environment")

    def kill(self, node: str) -> None:
        docker("kill", self.container(node))

    def cut(self, node: str) -> None:
        """Take a node off the network."""
        docker("network", "disconnect", self.name, self.container(node))

    def mpirun(self, *program: str, ulfm: bool = False, deadline_s: int = 60) -> Job:
        """Start a Python program on all slots of all nodes."""
        n_ranks = SLOTS * len(self.nodes)
        exports = [part for name in ENVIRONMENT for part in ("-x", name)]
        variables = [
            part for pair in ENVIRONMENT.items() for part in ("--env", "=".join(pair))
        ]
        return Job(
            [
                *("docker", "exec", "--user", "tester", "--workdir", HOME),
                *variables,
                self.container(self.nodes[0]),
                # In the container, because ending `docker exec` ends nothing there.
                *("bash", "-c", DEADLINE_SCRIPT, "-"),
                *("timeout", "--kill-after=5", str(deadline_s)),
                *("mpirun", *(("--with-ft", "ulfm") if ulfm else ())),
                *("--hostfile", "hosts", "-n", str(n_ranks), *exports),
                *("python", *program),
            ]
        )


def open_mpi_version(image: str) -> tuple[int, ...]:
    text = docker("run", "--rm", image, "mpirun", "--version").splitlines()[0]
    return tuple(int(part) for part in text.split()[-1].split(".") if part.isdigit())


@pytest.fixture(scope="session")
def image():
    name = os.environ.get("TEST_IMAGE")
    if not name:
        pytest.fail("TEST_IMAGE names no image: these tests run by `make cluster-test`")
    return name


@pytest.fixture(scope="session")
def has_ulfm(image):
    return open_mpi_version(image) >= (5,)


@pytest.fixture
def cluster(image):
    """Two nodes of two ranks each: ranks 0 and 1 on node0, 2 and 3 on node1."""
    made = Cluster(image, n_nodes=2)
    try:
        made.start()
        yield made
    finally:
        made.stop()
