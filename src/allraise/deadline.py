"""Regions that have a time limit.

Owns when a region is overdue and who finds out what of it. What is then said is
the business of `hang`, how ranks ask each other that of `census`.
::

    open_timed     a watch is stored; the first time on a communicator the ranks
                   meet and tell each other where their helper threads listen
    (user)
    close_timed    the agreement, by the same Allreduce as ever; the watch goes

    half the time  rank 0's helper asks all:   "waiting for rank 3 of 4"
    all of it      each helper tells rank 0's, which asks all where they stand,
                   reports it, and ends the job
                   rank 0 silent: rank 1 does it, then rank 2, then each for itself

The main thread of a rank that has arrived waits in a plain blocking Allreduce,
with a time limit and without, so that ranks of both kinds never mismatch, and a
region that ends well does no more than store a watch and remove it. A rank that
comes late, but before the job is ended, completes the same Allreduce.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from allraise.agreement import enter, leave
from allraise.hang import (
    BEFORE_END_S,
    Case,
    abort_job,
    end_process,
    failure_answer,
    headline,
    missing_ranks,
    notice,
    publish,
    where_it_stands,
)
from allraise.record import dump_plain, load_plain
from allraise.signals import signals_held_back
from allraise.watchdog import NEVER, Watchdog

if TYPE_CHECKING:
    from allraise.census import Address, Door, Message
    from allraise.private import Private

# How long a helper thread may take to answer; a machine with more ranks than
# cores is slow, and one that never answers is waited for only now.
ANSWER_S: Final = 3.0
NOTICE_S: Final = 1.0

# Who may take the census: each of them silent costs `ANSWER_S`.
MAX_LEADERS: Final = 3

# How long the one who takes it may take, before every rank ends by itself.
VERDICT_S: Final = 30.0

# Where all have arrived the agreement is about to be complete; so often it is
# looked again, a second apart.
MAX_LOOKS: Final = 5

Ident = tuple[int, ...]


class Region:
    """One region that has a time limit, on one rank.

    Attributes:
        due: When the helper thread looks at it next.
        ident: What it is called on every rank; None before it was entered.
        arrived: Whether this rank waits for the agreement.
        exc: What the region ended with on this rank, then.
    """

    __slots__ = (
        "arrived",
        "due",
        "ends_at",
        "exc",
        "ident",
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
        self.arrived = False
        self.exc: BaseException | None = None
        self.thread = threading.get_ident()

    def on_due(self) -> float:
        """Act at half the time, and when all of it has passed."""
        if time.monotonic() < self.ends_at:
            if self.private.rank == 0 and self.private.size > 1:
                _in_thread(_give_notice, self)
            return self.ends_at
        _in_thread(_expire, self)
        return NEVER

    def is_open(self) -> bool:
        """Whether it has not ended since."""
        return self in WATCHDOG.watches()


class Peers:
    """The ranks of one communicator, as their helper threads know each other.

    Attributes:
        closed: The region with a time limit that ended last.
        leading: Regions whose census this rank takes.
    """

    def __init__(self, private: Private, token: str, addresses: list[bytes]) -> None:
        self.private = private
        self.token = token
        self.addresses = addresses  # decoded only when they are needed
        self.closed: Ident = ()
        self.leading: set[Ident] = set()
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

    def state(self, ident: Ident, *, stacks: bool) -> Message:
        """Say where this rank stands, seen from one region."""
        private = self.private
        counts, steps = list(private.counts), list(private.steps)
        thread, found = self.thread, None
        for watch in WATCHDOG.watches():
            if isinstance(watch, Region) and watch.private is private:
                thread = watch.thread
                if watch.ident == ident:
                    found = watch
                    break
        depth = len(ident) - 1
        inner = steps[-1] if len(steps) > depth else ""
        answer: Message = {"inner": inner if isinstance(inner, str) else inner[0]}
        if found is not None and found.arrived:
            exc = found.exc
            answer["state"] = "arrived" if exc is None else "failed"
            if exc is not None and stacks:
                return {**answer, **failure_answer(exc)}
        elif found is not None or (
            # Open here without a time limit; failures within it count on.
            tuple(counts[:depth]) == ident[1:] and private.n_failed >= ident[0]
        ):
            answer["state"] = "inside"
        else:
            answer["state"] = "done" if self.closed >= ident else "elsewhere"
            answer["inner"] = str(steps[-1]) if steps else ""
        return {**answer, **where_it_stands(thread)} if stacks else answer


WATCHDOG: Final = Watchdog()
_peers: dict[Private, Peers] = {}
_by_token: dict[str, Peers] = {}
_door: Door | None = None
_may_call_mpi = False  # from a helper thread


def _in_thread(function: object, *args: object) -> None:
    """Do what takes its time, so that the helper thread goes on to answer."""
    threading.Thread(
        target=function,  # type: ignore[arg-type]
        args=args,
        name="allraise census",
        daemon=True,
    ).start()


# -- the main thread -------------------------------------------------------------


def open_timed(private: Private, step: str, timeout: float, place: int) -> Region:
    """Open a region that has a time limit.

    Collective over comm the first time on a communicator, not afterwards.

    Raises:
        BaseException: What `agreement.enter` raises; it opens nothing then.
        CheckpointException: On every rank, where not all give a time limit.
    """
    region = Region(private, step, timeout)
    WATCHDOG.add(region)
    try:
        if private not in _peers:
            _meet(private, step, place)
        enter(private, step)
        region.ident = (private.n_failed, *private.counts[:-1])
    except BaseException:
        WATCHDOG.remove(region)
        raise
    return region


def close_timed(
    region: Region, exc: BaseException | None, place: int
) -> BaseException | None:
    """Close a region that has a time limit, as `agreement.leave` does.

    Collective over comm, unless a failure further out is settled.
    """
    private = region.private
    region.exc = exc
    region.arrived = True
    try:
        return leave(private, exc, place)
    finally:
        WATCHDOG.remove(region)
        _peers[private].closed = region.ident or ()


def _meet(private: Private, step: str, place: int) -> None:
    """Tell all ranks where this one's helper thread listens.

    Collective over comm. A region of its own: a rank that has failed further out
    does not come, and a rank without a time limit goes elsewhere; here as
    anywhere both must end as an exception on every rank.
    """
    global _may_call_mpi  # noqa: PLW0603 one a process
    from mpi4py import MPI

    _may_call_mpi = MPI.Query_thread() == MPI.THREAD_MULTIPLE
    for known in [known for known in _peers if known.closed]:
        _by_token.pop(_peers.pop(known).token, None)
    token, addresses = "", [dump_plain(None)]
    if private.comm is not None:
        own = _own_address()
        with signals_held_back():
            enter(private, f"{step} [its timeout= is the first here]")
            outcome = leave(private, None, place)
            if outcome is not None:
                raise outcome
            token = private.comm.bcast(os.urandom(16).hex(), 0)
            addresses = private.comm.allgather(own)
    _peers[private] = _by_token[token] = Peers(private, token, addresses)


def _own_address() -> bytes:
    """Open the door of this process, once, and return where it is."""
    global _door  # noqa: PLW0603 one a process
    if _door is None:
        from allraise.census import Door

        try:
            door = Door(_answer)
        except OSError:
            return dump_plain(None)  # the others will say that it is silent
        _door = door
        WATCHDOG.start()
        WATCHDOG.listen(door.fileno(), door.serve)
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


# -- the helper threads ----------------------------------------------------------


def _answer(token: str, question: Message) -> Message | None:
    """Answer another rank."""
    peers = _by_token.get(token)
    if peers is None or not token:
        return None
    what = question["do"]
    if what == "state":
        return peers.state(tuple(question["ident"]), stacks=question["stacks"])
    if what == "overdue":
        case = Case(question["step"], question["timeout"], peers.private.size)
        _lead(peers, tuple(question["ident"]), case)
    elif what == "stall":
        return _stalled(int(question["pid"]), int(question["fd"]), question["main"])
    elif what == "end":
        _in_thread(end_process)
    return {"done": what}


def _give_notice(region: Region) -> None:
    """Say which ranks are waited for; rank 0, at half the time."""
    from allraise.publishing import write_error_stream

    peers = _peers.get(region.private)
    if peers is None or region.ident is None:
        return
    limit_s = min(NOTICE_S, region.timeout / 4)
    answers = _ask_all(peers, region.ident, limit_s, stacks=False)
    passed_s = region.timeout - (region.ends_at - time.monotonic())
    case = Case(region.step, region.timeout, region.private.size)
    if region.is_open():
        write_error_stream(notice(case, passed_s, answers))


def _expire(region: Region) -> None:
    """Find who takes the census, and see to it that the job ends."""
    peers, ident = _peers.get(region.private), region.ident
    case = Case(region.step, region.timeout, region.private.size)
    if peers is not None and ident is not None:
        from allraise.census import ask

        question = {
            "do": "overdue",
            "ident": ident,
            "step": region.step,
            "timeout": region.timeout,
        }
        for rank in range(min(MAX_LEADERS, region.private.size)):
            if not region.is_open():
                return
            if rank == region.private.rank:
                _lead(peers, ident, case)
                break
            address = peers.address(rank)
            if address and ask(address, peers.token, question, ANSWER_S):
                break
        else:
            _end_alone(region, peers, case)
            return
        time.sleep(VERDICT_S)
    if region.is_open():
        _end_alone(region, peers, case)


def _lead(peers: Peers, ident: Ident, case: Case) -> None:
    """Take the census of a region, once."""
    if ident not in peers.leading:
        peers.leading.add(ident)
        _in_thread(_take_census, peers, ident, case)


def _take_census(peers: Peers, ident: Ident, case: Case) -> None:
    for _ in range(MAX_LOOKS):
        answers = _ask_all(peers, ident, ANSWER_S, stacks=True)
        if any(answer["state"] == "done" for answer in answers.values()):
            return  # a late rank has completed the agreement
        if missing_ranks(answers) or case.size == 1:
            break
        time.sleep(1.0)
    publish(case, answers, f"{headline(case, answers)}; the job is ended")
    _end_job(peers)


def _ask_all(
    peers: Peers, ident: Ident, limit_s: float, *, stacks: bool
) -> dict[int, Message]:
    """Ask every rank where it stands, this one included."""
    from allraise.census import ask_many

    question = {"do": "state", "ident": ident, "stacks": stacks}
    answers = ask_many(peers.others(), peers.token, question, limit_s)
    answers[peers.private.rank] = peers.state(ident, stacks=stacks)
    for rank in set(range(peers.private.size)) - set(answers):
        answers[rank] = {"state": "silent"}
        address = peers.address(rank)
        if address is not None and stacks:
            answers[rank] = _ask_neighbour(peers, address, answers)
    return dict(sorted(answers.items()))


def _ask_neighbour(
    peers: Peers, silent: Address, answers: dict[int, Message]
) -> Message:
    """Find out about a rank that does not answer, from one on the same host."""
    from allraise.census import ask

    origin = [silent.host, silent.pid, time.time()]
    found: Message | None = None
    if silent.host == os.uname().nodename:
        found = _stalled(silent.pid, silent.stall, silent.main)
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


def _stalled(pid: int, fd: int, main: int) -> Message:
    """Read the stack of a process on this host whose interpreter is held."""
    from allraise.stacks import program_frames
    from allraise.stall import read_stacks

    stacks = read_stacks(pid, fd)
    if main not in stacks:
        return {}
    frames = [list(frame) for frame in program_frames(stacks[main])]
    return {"state": "stalled", "frames": frames}


def _end_alone(region: Region, peers: Peers | None, case: Case) -> None:
    """Report what this rank knows by itself, where nobody takes the census."""
    rank = region.private.rank
    if region.ident is None:
        state: Message = {"state": "inside", **where_it_stands(region.thread)}
        why = "not all ranks have come to its beginning"
    elif peers is None or peers.private.size == 1:
        return
    else:
        state = peers.state(region.ident, stacks=True)
        why = f"ranks 0-{min(MAX_LEADERS, case.size) - 1} do not answer"
    title = f"{case.name} passed its deadline of {case.timeout:g} s on rank {rank}, and {why}"
    publish(case, {rank: state}, f"{title}; the job is ended")
    _end_job(peers)


def _end_job(peers: Peers | None) -> None:
    """End the job by what is allowed from a helper thread."""
    mpi = sys.modules["mpi4py.MPI"]
    if _may_call_mpi and not mpi.Is_finalized():
        abort_job()
    # The launcher ends the others when one exits; but not where it was told that
    # ranks may die. So all that can hear are asked to.
    if peers is not None and peers.private.size > 1:
        from allraise.census import ask_many

        ask_many(peers.others(), peers.token, {"do": "end"}, BEFORE_END_S)
    end_process()
