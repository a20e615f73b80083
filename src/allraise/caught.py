"""The ways in for code that has caught its exception itself.

Owns `agree` and `collect`. Knows of the protocol only how a region is entered and
left, as `guard` does::

    try: ... except OSError as error: ...    on each rank, or not
    agree(error)      raises on every rank what a guard would
    collect(error)    returns it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allraise.agreement import enter, leave
from allraise.arguments import check_arguments, checked_before, locate
from allraise.chains import is_a, put_on_top
from allraise.errors import PeerFailure
from allraise.exceptions import CheckpointException
from allraise.nesting import is_open
from allraise.plain import agree_plainly
from allraise.verdict import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

    from allraise.private import Private


def collect(
    exc: BaseException | None = None,
    comm: MPI.Intracomm | None = None,
    step: str = "",
    *,
    root: int = 0,
    everywhere: bool = False,
    timeout: float | None = None,
) -> CheckpointException | None:
    """Return on every rank the failure of all ranks, or None if no rank failed.

    Collective over comm.

    As `agree`, which raises that failure::

        failure = allraise.collect(error, comm, "read settings")
        if failure is not None:  # on every rank, or on none
            settings = DEFAULTS

    Args:
        exc: The exception that this rank has caught, or None.
        comm: The ranks that agree; None for ``COMM_WORLD``.
        step: The name of what was done, in reports; the same on every rank.
        root: The rank that gets the whole report.
        everywhere: Whether every rank gets the whole report.
        timeout: Seconds from the call until all ranks have agreed; None for
            ``ALLRAISE_TIMEOUT``, or no deadline if that is not set. Past it, as for
            `guard`, the job is normally ended with a report.

    Returns:
        None if no rank failed; otherwise, on every rank, the
        `CheckpointException` that `guard` would raise there.

    Raises:
        TypeError: On every rank that passes the wrong kind of argument.
        ValueError: On every rank whose argument is impossible.
        CheckpointException: On every rank, if some passed wrong arguments.

    Success costs one ``Allreduce`` of 8 int64 (64 bytes).
    """
    outcome = agree_plainly(leave, comm, step, root, everywhere, timeout, exc)
    if outcome is not NotImplemented:
        return _told(outcome)
    entered: Any = None
    close: Callable[..., BaseException | None] = leave
    place = 0
    try:
        private = checked_before(comm, step, root, everywhere, timeout)
        if private is None or not (exc is None or is_a(exc, BaseException)):
            arguments = check_arguments(
                comm, step, root=root, everywhere=everywhere, timeout=timeout, exc=exc
            )
            place = place_of(arguments.root, everywhere=everywhere)
            timeout = arguments.timeout
            private = locate(comm, place, exc)
        try:
            entered, close = _open(private, step, timeout, place)
        except CheckpointException as due:
            put_on_top(due, exc)
            return due
    except PeerFailure:
        if exc is None:
            raise
    if entered is None and exc is not None:
        # A region around, on another communicator, has failed, and tells of this too.
        raise exc
    try:
        outcome = close(entered, exc, place)
    except BaseException as error:
        if not is_open(entered if timeout is None else entered.opened):
            raise
        # A signal's handler has raised as the call began.
        outcome = close(entered, put_on_top(error, exc), place)
    return _told(outcome)


def _told(outcome: BaseException | None) -> CheckpointException | None:
    """Return the failure of all ranks, and raise what is this rank's alone."""
    if outcome is None or is_a(outcome, CheckpointException):
        return outcome
    raise outcome


def _open(
    private: Private, step: str, timeout: float | None, place: int
) -> tuple[Any, Callable[..., BaseException | None]]:
    """Open a region; return it, and what closes it."""
    if timeout is None:
        return enter(private, step), leave
    from allraise import deadline

    return deadline.open_timed(private, step, timeout, place), deadline.close_timed


def agree(
    exc: BaseException | None = None,
    comm: MPI.Intracomm | None = None,
    step: str = "",
    *,
    root: int = 0,
    everywhere: bool = False,
    timeout: float | None = None,
) -> None:
    """Raise on every rank if any rank has caught an exception.

    Collective over comm.

    The end of a `guard`, for code that has caught its exception itself. Each rank
    raises what it would at the end of a guard.

    Args:
        exc: The exception that this rank has caught, or None.
        comm: The ranks that agree; None for ``COMM_WORLD``.
        step: The name of what was done, in reports; the same on every rank.
        root: The rank that gets the whole report.
        everywhere: Whether every rank gets the whole report.
        timeout: Seconds from the call until all ranks have agreed; None for
            ``ALLRAISE_TIMEOUT``, or no deadline if that is not set. Past it, as for
            `guard`, the job is normally ended with a report.

    Raises:
        CheckpointException: On every rank, if any rank failed, or if the ranks
            met at different steps.
        TypeError: On every rank that passes the wrong kind of argument.
        ValueError: On every rank whose argument is impossible.

    Success costs one ``Allreduce`` of 8 int64 (64 bytes).
    """
    outcome = collect(
        exc, comm, step, root=root, everywhere=everywhere, timeout=timeout
    )
    if outcome is not None:
        raise outcome
