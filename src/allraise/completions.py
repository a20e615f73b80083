"""Waiting for several requests, of which some are a peer's failure to interrupt.

Owns how a row of requests finds the channel that waits for it, and what mpi4py's
forms of waiting return. Not collective.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from allraise.tally import TO_RECEIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mpi4py import MPI

    from allraise.channel import Channel
    from allraise.tally import Awaited


def channel_of(requests: Iterable[MPI.Request], operation: str) -> Channel | None:
    """Return the channel of the first request that has one."""
    for request in requests:
        ready = getattr(request, "_ready", None)  # of `pending.Waiting`
        if ready is not None:
            return cast("Channel", ready(operation))
    return None


def none_active(requests: Sequence[MPI.Request]) -> bool:
    """Whether mpi4py's waiting would return at once.

    Where all are done or persistent ones not started, the channel's would wait for
    a failure only.
    """
    get_status = plain("Get_status")  # not Get_status_all: Open MPI has none
    return all(get_status(request) for request in requests)


def forget(channel: Channel, requests: Iterable[MPI.Request]) -> None:
    """Let go of the requests that are done."""
    for request in requests:
        if not request:
            channel.started.pop(id(request), None)
            note_received(request)


def note_received(request: Any, status: MPI.Status | None = None) -> None:
    """Note what was received, once. Not collective.

    Args:
        request: That is done.
        status: Of it, which is looked at where it came from anybody.
    """
    awaited = getattr(request, "awaited", None)
    if awaited is None:
        return
    request.awaited = None
    tally, kind, source = awaited
    if kind == TO_RECEIVE:
        if source < 0 and status is not None:
            source = status.source
        tally.received[int(source)] += 1


def awaited_of(requests: Sequence[MPI.Request]) -> tuple[Awaited, ...]:
    """Return what requests that are not done are waited for, where it is known."""
    from mpi4py import MPI

    is_done = MPI.Request.Get_status  # also of those that are persistent, not started
    found = [getattr(r, "awaited", None) for r in requests if not is_done(r)]
    return tuple(known for known in found if known)


def wait_all(
    requests: Sequence[MPI.Request],
    statuses: list[MPI.Status] | None,
    operation: str,
    *,
    lowercase: bool,
) -> list[Any]:
    """Wait as ``Waitall`` and ``waitall`` do; return the objects."""
    channel = channel_of(requests, operation)
    if channel is None:  # all are REQUEST_NULL, or of other communicators
        return plain(operation)(requests, statuses)  # type: ignore[no-any-return]
    results = channel.wait_all(lowercase, requests, operation)
    for request, (status, _) in zip(requests, results, strict=True):
        if not request:
            note_received(request, status)
    forget(channel, requests)
    if statuses is not None:
        statuses[: len(results)] = [status for status, _ in results]
    return [obj for _, obj in results]


def wait_any(
    waitany: Callable[..., Any],
    requests: Sequence[MPI.Request],
    operation: str,
    status: MPI.Status | None,
) -> Any:
    """Wait as ``Waitany`` and ``waitany`` do."""
    channel = channel_of(requests, operation)
    if channel is None or none_active(requests):
        return waitany(requests, status)
    result = channel.wait_first(waitany, requests, operation, status)
    forget(channel, requests)
    return result


def wait_some(
    waitsome: Callable[..., Any],
    requests: Sequence[MPI.Request],
    operation: str,
    statuses: list[MPI.Status] | None,
) -> list[tuple[int, MPI.Status, Any]] | None:
    """Wait as ``Waitsome`` and ``waitsome``; return places, statuses, objects."""
    channel = channel_of(requests, operation)
    if channel is None and any(requests):
        message = f"{operation}: none of the requests was made by g.comm"
        raise TypeError(message)
    if channel is None or none_active(requests):
        found: list[MPI.Status] = []
        result = waitsome(requests, found)
        places, objs = result if isinstance(result, tuple) else (result, None)
        if places is None:
            return None
        return [(i, found[k], objs and objs[k]) for k, i in enumerate(places)]
    done = channel.wait_some(waitsome, requests, operation, [])
    forget(channel, requests)
    if statuses is not None:
        statuses[: len(done)] = [status for _, status, _ in done]
    return done


def plain(name: str) -> Callable[..., Any]:
    """Return mpi4py's own method of requests."""
    from mpi4py import MPI

    return getattr(MPI.Request, name)  # type: ignore[no-any-return]
