"""The ranks of one communicator, as their helper threads know each other.

Owns which regions with a time limit are open on this rank, what it answers to
where it stands, and how all are asked. Knows nothing of when, nor of what follows.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from allraise.contribution import kind_of
from allraise.hang import failure_answer, where_it_stands
from allraise.leading import Claims
from allraise.nesting import is_open
from allraise.own import is_own_file
from allraise.revive import is_wakeable, may_wake
from allraise.watchdog import Watch, Watchdog
from allraise.wire import load_plain

if TYPE_CHECKING:
    from allraise.census import Address, Message
    from allraise.private import Opened, Private

# How long a helper thread may take to answer; and once more, for on a machine with
# many more threads than cores one turn of the interpreter may take half a second.
ANSWER_S: Final = 3.0
LATE_ANSWER_S: Final = 7.0

Ident = tuple[int, ...]

# The one helper thread of this process.
WATCHDOG: Final = Watchdog()


class TimedRegion(Watch):
    """One region that has a time limit, on one rank.

    Attributes:
        due: When the helper thread looks at it next.
        ident: What it is called on every rank; None before it was entered.
        opened: The region, from then on.
        arrived: Whether this rank waits for the agreement.
        exc: What the region ended with on this rank, then.
        hang: What the others say of this rank, which they are about to wake.
        may_go: Set when all of them have done that.
    """

    __slots__ = (
        "arrived",
        "ends_at",
        "exc",
        "hang",
        "ident",
        "may_go",
        "opened",
        "private",
        "step",
        "thread",
        "timeout",
    )

    def __init__(self, private: Private, step: str, timeout: float) -> None:
        now = time.monotonic()
        self.private = private
        self.step = step
        self.timeout = timeout
        self.due = now + timeout / 2
        self.ends_at = now + timeout
        self.ident: Ident | None = None
        self.opened: Opened
        self.arrived = False
        self.exc: BaseException | None = None
        self.hang: str | None = None
        self.may_go: threading.Event | None = None
        self.thread = threading.get_ident()

    def is_open(self) -> bool:
        """Whether it has not ended since, nor been given up.

        A signal's handler may raise wherever it begins and ends, also before it is
        taken from what is watched.
        """
        if self not in WATCHDOG.watches():
            return False
        return self._is_beginning() if self.ident is None else is_open(self.opened)

    def _is_beginning(self) -> bool:
        """Whether its thread is in one of our functions that has to do with it."""
        frame = sys._current_frames().get(self.thread)  # noqa: SLF001 the documented way
        while frame is not None:
            file = frame.f_code.co_filename
            is_ours = is_own_file(file) and file != __file__
            if is_ours and any(value is self for value in frame.f_locals.values()):
                return True
            frame = frame.f_back
        return False


class Peers:
    """The ranks of one communicator, as their helper threads know each other.

    Attributes:
        closed: The region with a time limit that ended last.
        claims: Which rank ends which region.
        left: What ranks told that have finished their program, by rank.
    """

    def __init__(self, private: Private, token: str, addresses: list[bytes]) -> None:
        self.private = private
        self.token = token
        self.addresses = addresses  # decoded only when they are needed
        self.closed: Ident = ()
        self.claims = Claims(private.rank)
        self.left: dict[int, Message] = {}
        self.thread = threading.get_ident()

    def address(self, rank: int) -> Address | None:
        """Return where a rank listens, if it does."""
        from allraise.census import Address

        fields = load_plain(self.addresses[rank])
        return Address(*fields) if fields else None

    def others(self) -> list[tuple[int, Address]]:
        """Return all others that listen."""
        found = []
        for rank in range(self.private.size):
            address = self.address(rank) if rank != self.private.rank else None
            if address is not None:
                found.append((rank, address))
        return found

    def region(self, ident: Ident) -> TimedRegion | None:
        """Return a region with a time limit that is open on this rank."""
        for watch in WATCHDOG.watches():
            if (
                isinstance(watch, TimedRegion)
                and watch.private is self.private
                and watch.ident == ident
                and watch.is_open()
            ):
                return watch
        return None

    def state(self, ident: Ident, *, stacks: bool) -> Message:
        """Say where this rank stands, seen from one region."""
        private = self.private
        opened = private.opened()  # at once, for the thread goes on
        counts, steps = [o[3] for o in opened], [o[1] for o in opened]
        found = self.region(ident)
        thread = self.thread if found is None else found.thread
        depth = len(ident) - 1
        inner = steps[-1] if len(steps) > depth else ""
        answer: Message = {"inner": inner if isinstance(inner, str) else inner[0]}
        if found is not None and found.arrived:
            exc = found.exc
            answer["state"] = "arrived" if exc is None else "failed"
            answer["wakes"] = may_wake(private)
            if exc is not None and stacks:
                return {**answer, **failure_answer(exc, kind_of(exc))}
        elif found is not None or (
            # Open here without a time limit; failures within it count on.
            len(counts) >= depth
            and tuple(counts[:depth]) == ident[1:]
            and private.n_failed >= ident[0]
        ):
            answer["state"] = "inside"
            answer["wakeable"] = found is not None and is_wakeable(private, thread)
        else:
            answer["state"] = "done" if self.closed >= ident else "elsewhere"
            answer["inner"] = str(steps[-1]) if steps else ""
        return {**answer, **where_it_stands(thread)} if stacks else answer


# The communicators whose ranks have met, and the same by their tokens.
PEERS: Final[dict[Private, Peers]] = {}
BY_TOKEN: Final[dict[str, Peers]] = {}


def ask_all(
    peers: Peers, ident: Ident, limit_s: float, *, stacks: bool, leads: bool = False
) -> dict[int, Message]:
    """Ask every rank where it stands, this one included.

    Not collective. Runs in a helper thread.

    Args:
        peers: The ranks.
        ident: Of the region.
        limit_s: How long they may take.
        stacks: Whether they tell their stacks too.
        leads: Whether they are told that this rank leads.
    """
    from allraise.asking import ask_many

    question = {"do": "state", "ident": ident, "stacks": stacks}
    if leads:
        question["leader"] = peers.private.rank
    answers = ask_many(peers.others(), peers.token, question, limit_s)
    answers[peers.private.rank] = peers.state(ident, stacks=stacks)
    silent = set(range(peers.private.size)) - set(answers)
    found: dict[int, Message] = {rank: {"state": "silent"} for rank in silent}
    left = [pair for answer in answers.values() for pair in answer.pop("left", ())]
    for rank, told in (*left, *peers.left.items()):
        if rank in silent:
            found[rank] = {**told, "state": "finished"}
    if stacks:
        silent = {rank for rank in silent if found[rank]["state"] == "silent"}
        there = [pair for pair in peers.others() if pair[0] in silent]
        for rank, address in there:
            found[rank] = _ask_neighbour(peers, address, answers)
        # Neither an answer nor a reason for that: the machine may be busy.
        late = [pair for pair in there if found[pair[0]]["state"] == "silent"]
        found |= ask_many(late, peers.token, question, LATE_ANSWER_S)
    return dict(sorted((answers | found).items()))


def _ask_neighbour(
    peers: Peers, silent: Address, answers: dict[int, Message]
) -> Message:
    """Find out about a rank that does not answer, from one on the same host."""
    from allraise.asking import ask

    origin = [silent.host, silent.pid, time.time()]
    found: Message | None = None
    if silent.host == os.uname().nodename:
        found = stalled(silent.pid, silent.stall, silent.main)
    else:
        question = {
            "do": "stall",
            "pid": silent.pid,
            "fd": silent.stall,
            "main": silent.main,
        }
        for rank, address in peers.others():
            if rank in answers and address.host == silent.host:
                found = ask(address, peers.token, question, ANSWER_S)
                break
    return {"state": "silent", **(found or {}), "origin": origin}


def stalled(pid: int, fd: int, main: int) -> Message:
    """Read the stack of a process on this host whose interpreter is held."""
    from allraise.stacks import program_frames
    from allraise.stall import read_stacks

    stacks = read_stacks(pid, fd)
    if main not in stacks:
        return {}
    frames = [list(frame) for frame in program_frames(stacks[main])]
    return {"state": "stalled", "frames": frames}
