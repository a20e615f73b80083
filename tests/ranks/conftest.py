"""Tests that every rank runs, all of them in the same order, under mpiexec.

A test that fails on one rank leaves the others waiting in its next collective.
So a failure is printed at once, and then the whole job is ended.
"""

from __future__ import annotations

import sys
import time

import pytest

# How long ranks that fail alike may take to say so, before the job is ended.
ALIKE_S = 1.0


def under_mpiexec(config):
    return config.getoption("--only-mpi") or config.getoption("--with-mpi")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    if not under_mpiexec(config):
        return
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank:
        # Rank 0 tells what went well; what fails is told by the rank it fails on.
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        config.pluginmanager.unregister(reporter)


def pytest_collection_modifyitems(items):
    """Refuse what pytest-mpi would pass over in silence."""
    for item in items:
        if not item.path.is_relative_to(__file__.rpartition("/")[0]):
            continue
        marks = list(item.iter_markers("mpi"))
        if not marks:
            msg = f"{item.nodeid}: tests in tests/ranks are marked with `mpi`"
            raise pytest.UsageError(msg)
        for mark in marks:
            if mark.args or set(mark.kwargs) - {"min_size"}:
                msg = f"{item.nodeid}: the mark `mpi` takes min_size=N and nothing else"
                raise pytest.UsageError(msg)


class Ending:
    """Tells a failure at once, and ends the job."""

    def __init__(self, config):
        self.config = config

    def pytest_runtest_logreport(self, report):
        if not report.failed:
            return
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print(
                f"[{world.rank}/{world.size}] {report.nodeid} FAILED in {report.when}\n"
                f"{report.longreprtext}\n{report.capstdout}{report.capstderr}",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(ALIKE_S)
        world.Abort(1)


def pytest_sessionstart(session):
    if under_mpiexec(session.config):
        session.config.pluginmanager.register(Ending(session.config))


@pytest.fixture(params=["self", "world", "halves backwards"])
def comm(request):
    """Communicators that a test must hold on: of one rank, of all, of some.

    The halves number their ranks backwards, so that nothing depends on rank 0
    being first or on ranks of ``COMM_WORLD``.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if request.param == "self":
        yield MPI.COMM_SELF
    elif request.param == "world":
        yield world
    else:
        half = world.Split(world.rank % 2, -world.rank)
        yield half
        half.Free()


@pytest.fixture
def world():
    from mpi4py import MPI

    return MPI.COMM_WORLD


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """After each test the ranks still agree."""
    yield
    import allraise

    allraise.agree(step="after the test")
