"""Regions that have a time limit: their beginning and end.

Owns the meeting of the ranks at the first such region on a communicator, where
they tell each other where their helper threads listen. What happens when the time
has passed is the business of `overdue`.

The main thread of a rank that has arrived waits in a plain blocking Allreduce,
with a time limit and without, so that ranks of both kinds never mismatch, and a
region that ends well does no more than store a watch and remove it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from allraise.agreement import enter, leave
from allraise.chains import is_a
from allraise.errors import HangError, PeerFailure
from allraise.leaving import tell_at_exit
from allraise.overdue import WOKEN_S, Deadline, answer
from allraise.peers import BY_TOKEN, PEERS, WATCHDOG, Peers
from allraise.signals import signals_held_back
from allraise.wire import dump_plain

if TYPE_CHECKING:
    from allraise.census import Door
    from allraise.peers import TimedRegion
    from allraise.private import Private

_door: Door | None = None


def open_timed(private: Private, step: str, timeout: float, place: int) -> TimedRegion:
    """Open a region that has a time limit.

    Collective over comm the first time on a communicator, not afterwards.

    Raises:
        BaseException: What `agreement.enter` raises; it opens nothing then.
        CheckpointException: On every rank, where not all give a time limit.
    """
    region = Deadline(private, step, timeout)
    WATCHDOG.add(region)
    try:
        if private not in PEERS:
            _meet(private, step, place)
        ident = (private.n_failed, *private.counts, private.n_within + 1)
        # No call from here on, so no signal's handler in between.
        region.opened = enter(private, step)
        region.ident = ident
    except BaseException:
        WATCHDOG.remove(region)
        raise
    return region


def close_timed(
    region: TimedRegion, exc: BaseException | None, place: int
) -> BaseException | None:
    """Close a region that has a time limit, as `agreement.leave` does.

    Collective over comm, unless a failure further out is settled.
    """
    private = region.private
    region.exc = exc
    region.arrived = True
    if region.hang is not None:
        exc = _woken(region, exc)
    try:
        return leave(region.opened, exc, place)
    finally:
        WATCHDOG.remove(region)
        PEERS[private].closed = region.ident or ()


def _woken(region: TimedRegion, exc: BaseException | None) -> BaseException | None:
    """Return the failure of this rank, which the others have woken."""
    if region.may_go is not None:
        region.may_go.wait(2 * WOKEN_S)
    # Also where what woke it was swallowed: the others wait for a failure.
    if region.hang is not None and (exc is None or is_a(exc, PeerFailure)):
        error = HangError(region.hang)
        if exc is not None:
            return error.with_traceback(exc.__traceback__)
        try:
            raise error  # from here it is known which line of the program this is in
        except HangError:
            return error
    return exc


def _meet(private: Private, step: str, place: int) -> None:
    """Tell all ranks where this one's helper thread listens.

    Collective over comm. A region of its own: a rank that has failed further out
    does not come, and a rank without a time limit goes elsewhere; here as
    anywhere both must end as an exception on every rank.
    """
    for known in [known for known in PEERS if known.closed]:
        BY_TOKEN.pop(PEERS.pop(known).token, None)
    token, addresses = "", [dump_plain(None)]
    if private.comm is not None:
        own = _own_address()
        with signals_held_back():
            opened = enter(private, (step, "its timeout= is the first here"))
            outcome = leave(opened, None, place)
            if outcome is not None:
                raise outcome
            token = private.comm.bcast(os.urandom(16).hex(), 0)
            addresses = private.comm.allgather(own)
    PEERS[private] = BY_TOKEN[token] = Peers(private, token, addresses)


def _own_address() -> bytes:
    """Open the door of this process, once, and return where it is."""
    global _door  # noqa: PLW0603 one a process
    if _door is None:
        from allraise.census import Door

        try:
            door = Door(answer)
        except OSError:
            return dump_plain(None)  # the others will say that it is silent
        _door = door
        WATCHDOG.start()
        WATCHDOG.listen(door.fileno(), door.serve)
        tell_at_exit()
    return dump_plain(tuple(_door.address(_stall_file())))


def _stall_file() -> int:
    """Have stacks written when the helper thread cannot run; return the file."""
    from allraise.stall import StallTimer

    thread, timer = WATCHDOG.thread, WATCHDOG.stall
    if timer is None:
        try:
            timer = StallTimer((thread and thread.native_id) or 0)
        except OSError:
            return -1
        WATCHDOG.attach(timer)
    return timer.fd
