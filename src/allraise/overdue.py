"""What happens when a region's time limit passes.

Owns who finds out which ranks are missing, and that the job ends whoever is. How
ranks are asked is the business of `peers`, what is said that of `hang`::

    half the time  rank 0's helper asks all:   "waiting for rank 3 of 4"
    all of it      each helper tells rank 0's, which asks all where they stand;
                   all who are missing can be woken? then every rank raises
                   otherwise it reports where they are, and ends the job
                   rank 0 silent: the lowest that answers does it (see `leading`)

All of it runs in helper threads. A rank that comes late, but before the job is
ended, completes the agreement as if nothing had been.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from allraise.ending import BEFORE_END_S, abort_job, end_process
from allraise.hang import (
    Case,
    headline,
    missing_ranks,
    notice,
    publish,
    where_it_stands,
)
from allraise.leading import find_leader
from allraise.neighbours import is_first
from allraise.peers import (
    ANSWER_S,
    BY_TOKEN,
    PEERS,
    WATCHDOG,
    Ident,
    Peers,
    TimedRegion,
    ask_all,
    stalled,
)
from allraise.waking import announce
from allraise.watchdog import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.census import Message

NOTICE_S: Final = 1.0

# How long the one who takes the census may take, before every rank ends by itself.
VERDICT_S: Final = 60.0

# How long the rest of the job leaves the rank alone that writes the report.
PUBLISH_S: Final = 10.0

# Where all have arrived the agreement is about to be complete; so often it is
# looked again, a second apart.
MAX_LOOKS: Final = 5

# How long ranks may take to wake others, and those to come to the agreement.
WOKEN_S: Final = 10.0

# How long a job is not ended by the guard of a part of its ranks, once that has told all
# it knows: the others may have one whose time is over at the same moment, and the
# failure behind both.
BESIDE_S: Final = 2.0


class Deadline(TimedRegion):
    """A region whose time limit has consequences."""

    __slots__ = ()

    def on_due(self) -> float:
        """Act at half the time, and when all of it has passed."""
        if not self.is_open():
            WATCHDOG.remove(self)
            return NEVER
        if time.monotonic() < self.ends_at:
            if self.private.rank == 0 and self.private.size > 1:
                _in_thread(_give_notice, self)
            return self.ends_at
        _in_thread(_expire, self)
        return NEVER


def _in_thread(function: Callable[..., None], *args: Any) -> None:
    """Do what takes its time, so that the helper thread goes on to answer."""
    threading.Thread(
        target=function, args=args, name="allraise census", daemon=True
    ).start()


def answer(token: str, question: Message) -> Message | None:
    """Answer another rank; None to who does not know the token."""
    peers = BY_TOKEN.get(token)
    if peers is None or not token:
        return None
    what = question["do"]
    if what == "state":
        ident = tuple(question["ident"])
        found = peers.state(ident, stacks=question["stacks"])
        found["left"] = list(peers.left.items())
        leader = question.get("leader")
        if leader is not None and peers.claims.hear(ident, leader):
            found["leads"] = True
        return found
    if what == "overdue":
        case = Case(question["step"], question["timeout"], peers.private.size)
        _lead(peers, tuple(question["ident"]), case)
    elif what == "left":
        peers.left[int(question["rank"])] = {
            key: str(question[key]) for key in ("how", "inner")
        }
    elif what in ("hang", "wake", "go"):
        return {"done": _take_order(peers, question)}
    elif what == "stall":
        return stalled(int(question["pid"]), int(question["fd"]), question["main"])
    elif what == "end":
        _in_thread(end_process)
    return {"done": what}


def _give_notice(region: TimedRegion) -> None:
    """Say which ranks are waited for; rank 0, at half the time."""
    from allraise.publishing import write_error_stream

    peers = PEERS.get(region.private)
    if peers is None or region.ident is None:
        return
    limit_s = min(NOTICE_S, region.timeout / 4)
    answers = ask_all(peers, region.ident, limit_s, stacks=False)
    passed_s = region.timeout - (region.ends_at - time.monotonic())
    case = Case(region.step, region.timeout, region.private.size)
    if region.is_open() and passed_s < region.timeout:
        write_error_stream(notice(case, passed_s, answers))


def _expire(region: TimedRegion) -> None:
    """Find who takes the census, and see to it that the job ends."""
    peers, ident = PEERS.get(region.private), region.ident
    case = Case(region.step, region.timeout, region.private.size)
    if peers is not None and ident is not None:
        question = {
            "do": "overdue",
            "ident": ident,
            "step": region.step,
            "timeout": region.timeout,
        }
        leader = find_leader(peers, question, region.is_open)
        if not region.is_open():
            return
        if leader == region.private.rank:
            _lead(peers, ident, case)
        time.sleep(VERDICT_S)
    if region.is_open():
        _end_alone(region, peers, case)


def _lead(peers: Peers, ident: Ident, case: Case) -> None:
    """Take the census of a region, once."""
    if peers.claims.claim(ident):
        _in_thread(_take_census, peers, ident, case)


def _take_census(peers: Peers, ident: Ident, case: Case) -> None:
    for _ in range(MAX_LOOKS):
        answers = ask_all(peers, ident, ANSWER_S, stacks=True, leads=True)
        if any(answer.get("leads") for answer in answers.values()):
            return  # another rank ends the region
        if any(answer["state"] == "done" for answer in answers.values()):
            return  # a late rank has completed the agreement
        if missing_ranks(answers) or case.size == 1:
            break
        time.sleep(1.0)
    if peers.state(ident, stacks=False)["state"] == "done":
        return
    if not peers.claims.make_final(ident):
        return
    if _wake(peers, ident, answers, case):
        return
    _end_with(peers, case, answers, headline(case, answers))


def _wake(peers: Peers, ident: Ident, answers: dict[int, Message], case: Case) -> bool:
    """Wake the missing ranks, where all of them can be; then all ranks raise.

    A missing rank goes on to the agreement only when all that wake it are done
    with that, for then their main threads clear the channel.

    Returns:
        Whether the agreement is complete.
    """
    from allraise.asking import ask_many

    missing = missing_ranks(answers)
    able = all(
        found.get("wakeable" if r in missing else "wakes")
        for r, found in answers.items()
    )
    if not missing or not able:
        return False

    def order(do: str, ranks: list[int], **more: Any) -> bool:
        question = {"do": do, "ident": ident, **more}
        others = [pair for pair in peers.others() if pair[0] in ranks]
        found = ask_many(others, peers.token, question, WOKEN_S)
        done = [answer["done"] for answer in found.values()]
        if peers.private.rank in ranks:
            done.append(_take_order(peers, question))
        return len(done) == len(ranks) and all(done)

    text = f"{case.name} was not at its end within {case.timeout:g} s"
    if not order("hang", list(missing), text=text):
        order("go", list(missing), text=None)
        return False
    order("wake", [rank for rank in answers if rank not in missing])
    order("go", list(missing), text=text)
    deadline = time.monotonic() + WOKEN_S
    while time.monotonic() < deadline:
        if peers.state(ident, stacks=False)["state"] == "done":
            return True
        time.sleep(0.05)
    return False


def _take_order(peers: Peers, question: Message) -> bool:
    """Do one rank's part of waking; see `_wake`."""
    region = peers.region(tuple(question["ident"]))
    if region is None:
        return False
    if question["do"] == "wake":
        announce(peers.private)
    elif question["do"] == "hang":
        region.may_go = threading.Event()
        region.hang = question["text"]
        if region.arrived:  # meanwhile
            region.hang = None
            region.may_go.set()
            return False
    elif region.may_go is not None:
        region.hang = question["text"]
        region.may_go.set()
    return True


def _end_alone(region: TimedRegion, peers: Peers | None, case: Case) -> None:
    """Report what this rank knows by itself, where nobody takes the census."""
    rank = region.private.rank
    if region.ident is None:
        state: Message = {"state": "inside", **where_it_stands(region.thread)}
        why = "not all ranks have come to its beginning"
    elif peers is None or peers.private.size == 1:
        return
    else:
        state = peers.state(region.ident, stacks=True)
        why = "the rank that takes the census has not ended it"
    title = f"{case.name} passed its deadline of {case.timeout:g} s on rank {rank}, and {why}"
    _end_with(peers, case, {rank: state}, title)


def _end_with(
    peers: Peers | None, case: Case, answers: dict[int, Message], title: str
) -> None:
    """Report and end the job; only end it where another rank here reports."""
    # For where ranks could not hear each other in time, or several of this process's
    # regions end.
    if peers is None or is_first(f"deadline {peers.token}"):
        publish(case, answers, title)
    else:
        time.sleep(PUBLISH_S)
    _end_job(peers)


def _end_job(peers: Peers | None) -> None:
    """End the job by what is allowed from a helper thread."""
    mpi = sys.modules["mpi4py.MPI"]
    from allraise.ulfm import is_active

    # Asked here, where it matters: a question that any thread may ask at any level.
    may_abort = not mpi.Is_finalized() and mpi.Query_thread() == mpi.THREAD_MULTIPLE
    # The launcher ends the others when one exits or aborts; but not where it was
    # told that ranks may die. So all that can hear are asked to.
    tolerant = False
    if peers is not None and peers.private.size > 1:
        from allraise.asking import ask_many

        tolerant = is_active()  # known by now: no call of MPI
        if tolerant or not may_abort:
            ask_many(peers.others(), peers.token, {"do": "end"}, BEFORE_END_S)
    if may_abort and peers is not None:
        from allraise.registry import resolve_comm

        if peers.private.size < resolve_comm(None).Get_size():
            time.sleep(BESIDE_S)
    if may_abort or tolerant:
        abort_job()
    end_process()
