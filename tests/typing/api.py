"""How the public names are used, for type checkers; never run."""

from __future__ import annotations

from pathlib import Path
from traceback import StackSummary
from typing import TYPE_CHECKING, assert_type

import allraise

if TYPE_CHECKING:
    from mpi4py import MPI


def block(comm: MPI.Intracomm) -> None:
    with allraise.guard(comm, "write", root=1, everywhere=True, timeout=60) as g:
        assert_type(g, allraise.guard)
        g.comm.barrier()
    with allraise.guard():
        pass


@allraise.guard(step="double")
def double(number: int) -> int:
    return 2 * number


@allraise.guard(step="fetch")
async def fetch(name: str) -> bytes:
    return name.encode()


def decorated() -> None:
    assert_type(double(1), int)


def caught(comm: MPI.Intracomm, exc: ValueError | None) -> None:
    allraise.agree(exc, comm, "write")
    failure = allraise.collect(exc, comm, "write", everywhere=True)
    assert_type(failure, allraise.CheckpointException | None)


def steps(comm: MPI.Intracomm) -> None:
    wrapper = allraise.CollectiveSteps(comm, 0)
    assert_type(
        wrapper.reduce_scatter("plan", lambda: 1, lambda v: [str(x) for x in v]), str
    )
    assert_type(wrapper.all_reduce("sum", lambda: 1, lambda v: sum(v) / 2), float)
    assert_type(wrapper.all_gather("names", lambda: "a"), list[str])
    assert_type(wrapper.broadcast("path", lambda: Path("a")), Path)
    assert_type(wrapper.gather_object(1), list[int] | None)
    assert_type(wrapper.all_gather_object(1), list[int])
    assert_type(wrapper.is_coordinator, bool)


def outcome(failure: allraise.CheckpointException) -> None:
    assert_type(failure.ranks, tuple[int, ...])
    assert_type(failure.step, str)
    assert_type(failure.failures, dict[int, tuple[BaseException, StackSummary]])
    assert_type(failure.report, allraise.Report)
    failure.report.save("report.json")
    assert_type(allraise.load_report(Path("report.json")), allraise.Report)


def pairs(exc: BaseException) -> allraise.CheckpointException:
    wrapped = allraise.wrap_exception(exc)
    assert_type(wrapped, allraise.WrappedException)
    assert_type(allraise.is_wrapped_exception(wrapped), bool)
    return allraise.CheckpointException("plan", {0: wrapped})
