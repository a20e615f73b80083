"""When a process has died: the survivors tell what they know, and end the job.

Owns what follows where MPI reports a dead process, which only Open MPI under ULFM
does (see `ulfm`); elsewhere the launcher ends the job before anybody could speak.
::

    rank 1         rank 0                 rank 2               rank 3
    killed         MPI error              in g.comm.recv()     computes
                   revokes all   ------>  PeerFailure
                   leads: collects <----- its record
                   waits ARRIVE_S for rank 3
                   report, Abort          (waits for the end)  (killed)

The survivors meet by small messages on the *lifeboat*, a duplicate that nobody
revokes. Not on a shrunken communicator: ``MPI_Comm_shrink`` blocks until the last
survivor has come, who may compute for hours, and ``MPI_Comm_ishrink`` fails with
an internal error (Open MPI 5.0.11). The lowest surviving rank leads; one that does
not answer is passed over.

The job always ends with an abort: after a death ``MPI_Finalize`` hung in 8 of 30
runs, and mpirun exits with 0 if the survivors do.
"""

from __future__ import annotations

import atexit
import functools
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from allraise.bundle import Bundle
from allraise.capture import capture, origin_here
from allraise.chains import is_of_mpi, link_of
from allraise.contribution import brief, contribution
from allraise.ending import abort_job, publish_last
from allraise.hang import user_frames
from allraise.meeting import ARRIVE_S, POLL_S, Meeting, dead_ranks
from allraise.neighbours import end_with_launcher
from allraise.nesting import outermost
from allraise.own import is_own_file
from allraise.private import Private, step_of
from allraise.ranks import RankSet
from allraise.record import DIED, INTERRUPTED, Link, Record, minimal
from allraise.registry import registered
from allraise.report import Report
from allraise.signals import room_on_the_stack, signals_held_back
from allraise.spool import current as current_spool

if TYPE_CHECKING:
    from mpi4py import MPI

# How long they wait for the report of the one that leads.
REPORT_S: Final = 30.0

# At exit, before the last look at who is dead.
LAST_LOOK_S: Final = 0.05

# Above, a merged report holds to the caps of a bundle.
MAX_UNCAPPED_RANKS: Final = 1024

_DIED: Final = "the process is gone: killed, crashed, or ended without MPI_Finalize"
_SILENT: Final = f"has not come to MPI within {ARRIVE_S:g} s"


def end_if_died(
    private: Private, exc: BaseException | None, error: BaseException | None
) -> None:
    """End the job where a process of a communicator has died.

    Not collective: every survivor that learns of it comes here. Returns only where
    no process has died, or where that cannot be known.

    Args:
        private: This rank's side.
        exc: What this rank has failed with, or None.
        error: MPI's, or None.
    """
    if private.lifeboat is None or not (error is None or is_of_mpi(error)):
        return
    side = outermost() or private
    if side.lifeboat is None:
        side = private
    try:
        # By a survivor, nobody else does it; one communicator after the other.
        around = {private, side, *private.watched}
        revoked = any(known.comm.Is_revoked() for known in around)
        if not (revoked or dead_ranks(private) or dead_ranks(side)):
            return
    except Exception:
        return
    try:
        with room_on_the_stack(), signals_held_back():
            _tell(side, private, exc)
    finally:
        abort_job()


def end_if_died_first(comm: MPI.Intracomm, error: BaseException) -> None:
    """End the job where a process died before its ranks had met here.

    Not collective; as `end_if_died`.
    """
    side = Private(comm, comm.Get_rank(), comm.Get_size())
    side.lifeboat = comm
    end_if_died(side, None, error)


@functools.cache
def watch_exit() -> None:
    """See at exit whether a process has died since. Not collective."""
    atexit.register(_at_exit)
    # Ranks that compute see nothing of a death, nor of an abort.
    end_with_launcher()


def _at_exit() -> None:
    mpi = sys.modules["mpi4py.MPI"]
    if mpi.Is_finalized():
        return
    sides = [private for private in registered() if private.lifeboat is not None]
    deadline = time.monotonic() + LAST_LOOK_S
    while sides and time.monotonic() < deadline:
        for private in sides:
            with suppress(mpi.Exception):  # a death is known to who looks
                private.lifeboat.Iprobe()
        time.sleep(POLL_S)
    for private in sides:
        end_if_died(private, getattr(sys, "last_value", None), None)


def _wake_all(lifeboat: MPI.Intracomm) -> None:
    """Wake every survivor that communicates, wherever. Not collective."""
    from mpi4py import MPI

    for known in registered():
        if known.lifeboat is None:
            continue
        comms = [*known.channel.revocable(), known.comm]
        comms.append(MPI.Intracomm.fromhandle(known.handle))
        for comm in comms:
            with suppress(MPI.Exception):
                if comm != lifeboat and not comm.Is_revoked():
                    comm.Revoke()


def _tell(side: Private, private: Private, exc: BaseException | None) -> None:
    """Bring together what the survivors know, and report it on one of them."""
    _wake_all(side.lifeboat)
    own = _own_bundle(side, private, exc)
    step = _innermost_step(private)
    meeting = Meeting(side, own.encode())
    found = meeting.meet()
    if found is None:
        time.sleep(REPORT_S)  # ended meanwhile by the one that leads
        found = {}
    bundle = _merged(side, own, found, meeting.dead)
    dead = RankSet(meeting.dead)
    who = f"{'rank' if len(dead) == 1 else 'ranks'} {dead} died" if dead else "died"
    title = f"step {step!r}: {who}" if step else who
    publish_last(title, lambda: Report.here(step, bundle, side.size), lambda: title)


def _innermost_step(private: Private) -> str:
    """Return the innermost open region that has a name."""
    return next((name for name in map(step_of, reversed(private.steps)) if name), "")


def _own_bundle(side: Private, private: Private, exc: BaseException | None) -> Bundle:
    """Return this rank's own failure, or where it stands."""
    rank = side.rank
    if exc is None:
        step = _innermost_step(private)
        text = f"at the end of step {step!r}" if step else "outside of any step"
        frames = user_frames(sys._getframe())  # noqa: SLF001 the documented way
        if all(is_own_file(frame.filename) for frame in frames):  # at exit
            text, frames = "at the end of the program", ()
        link = Link("blocked", text, (f"blocked: {text}\n",), (), frames)
        return Bundle.of(rank, Record((link,), origin=origin_here(), kind="blocked"))
    if _is_consequence(exc):
        return Bundle.of(rank, capture(exc, kind=INTERRUPTED))
    own, _ = contribution(side, exc, 0, None)
    return own or brief(side, exc)


def _is_consequence(exc: BaseException) -> bool:
    """Whether MPI's error is at the bottom of it: a death is, then."""
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        if is_of_mpi(link):
            return True
        seen.add(id(link))
        link = link_of(link)
    return False


def _merged(
    side: Private, own: Bundle, found: dict[int, bytes], dead: set[int]
) -> Bundle:
    bundles = [own]
    for rank, data in sorted(found.items()):
        try:
            bundles.append(Bundle.decode(data))
        except Exception as error:
            text = f"its record cannot be read: {error}"
            bundles.append(Bundle.of(rank, minimal("<unknown>", text)))
    told = Bundle()
    silent = set(range(side.size)) - dead - set(found) - {side.rank}
    crashes = Bundle()
    spool = current_spool()
    # In COMM_WORLD the spool's ranks are the meeting's.
    if spool is not None and dead and side.size == spool.size:
        crashes = spool.known_of(dead)
    if dead:
        told.add(RankSet(dead), minimal("died", _DIED, DIED))
    if silent:
        told.add(RankSet(silent), minimal("silent", _SILENT, "silent"))
    return Bundle.merge(
        (crashes, told, *bundles), capped=side.size > MAX_UNCAPPED_RANKS
    )
