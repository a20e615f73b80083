"""The helper thread of each rank under ``allraise run``.

Owns what a rank can still say while its main thread is blocked in MPI, has
failed, or is about to be killed. Knows nothing of how the program is run, nor of
how a report looks::

    main thread                helper thread              rank 0's helper thread
    -----------                -------------              ----------------------
    fail(exc)  --- inbox --->  "failed" ----------------> Collector
                               state <------------------- "ask"
    (waits)    <-------------  "end" <------------------- publishes, ends the job
    leave()    --- inbox --->  "left" ------------------> waits for all, or ends it
    a signal   --- pipe ---->  "signalled" -------------> Collector

The pipe is Python's own (`signal.set_wakeup_fd`): the C part of a signal handler
writes to it at once, while the Python part waits for the main thread to come back
from MPI. Where rank 0 does not answer, the rank that failed collects in its place.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from allraise.alarm import Alarm
from allraise.bundle import Bundle
from allraise.collector import ANSWER_S, HOOK_S, Collector, Outcome
from allraise.damage import WireError
from allraise.ranks import RankSet
from allraise.registry import resolve_comm
from allraise.stacks import stack_record
from allraise.standstill import call_in_progress, never_returns
from allraise.wire import dump_plain, load_plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.carrier import Carrier
    from allraise.collector import Message
    from allraise.record import Record

# How soon rank 0 says that it has heard of a failure, unless it is stuck itself.
HEARD_S: Final = 4.0

# Leaving early must not lose the word that one has left.
FLUSH_S: Final = 2.0

# Turns of a carrier that a rank may take to answer: there, and back.
ANSWER_TURNS: Final = 8

# How often the collecting rank looks when there is something to collect.
BUSY_POLL_S: Final = 0.002

# Uncaught exceptions of threads that a rank keeps for a report.
MAX_EXTRAS: Final = 16


def flush_output() -> None:
    """Write out what the program has printed; it may be about to be killed."""

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

    # In a thread: the main thread may hold the lock of a stream that is stuck.
    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    thread.join(0.2)


class Witness(threading.Thread):
    """One rank's helper thread; see the module.

    Not collective.

    Args:
        carrier: To the other ranks.
        grace_s: How long to wait for more failures after the first.
        publish: Shows and stores the outcome, on the collecting rank.
        end_job: Ends the job with a code, from this thread; may do nothing.
        quit_rank: Ends this rank with a code, where the launcher would not.
    """

    def __init__(
        self,
        carrier: Carrier,
        grace_s: float,
        publish: Callable[[Outcome], None],
        end_job: Callable[[int], None],
        quit_rank: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(name="allraise", daemon=True)
        self.extras: list[Record] = []
        self.code = 0
        self.heard = threading.Event()
        self.ended = threading.Event()
        self.may_abort = threading.Event()
        self._all_left = threading.Event()
        self._carrier = carrier
        self._grace_s = grace_s
        # On a busy node a carrier is late by several of its turns.
        self._answer_s = ANSWER_S + ANSWER_TURNS * carrier.poll_s
        self._publish = publish
        self._end_job = end_job
        self._quit = quit_rank
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self.alarm = Alarm(self._tell_signal, self._hand_over_signal)
        self._collecting_rank = 0
        self._collector = self._make_collector() if carrier.rank == 0 else None
        self._told: list[Message] = []
        self._running = True

    # -- for the main thread -----------------------------------------------------

    @property
    def wakeup_fd(self) -> int:
        """Where the C part of signal handlers writes the signal's number."""
        return self._wake_w

    def own_bundle(self, *records: Record) -> Bundle:
        """Put a record and what threads have raised together."""
        bundle = Bundle()
        for record in (*records, *self.extras):
            bundle.add(RankSet((self._carrier.rank,)), record)
        return bundle

    def post(self, *message: object) -> None:
        """Give the helper thread something to do."""
        self._inbox.put(message)
        with contextlib.suppress(OSError):  # full, hence awake; or closed
            os.write(self._wake_w, b"\0")

    def fail(self, message: Message) -> None:
        """Report a failure, and return when the report has been published."""
        self.post("tell", message)
        if not self._wait(self.heard, HEARD_S + self._carrier.poll_s):
            self.post("collect")
        limit = self._grace_s + self._answer_s + HOOK_S + 2 * HEARD_S
        if not self._wait(self.ended, limit):
            self.post("collect")
            self._wait(self.ended, limit)

    def _wait(self, event: threading.Event, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and self.is_alive():
            with contextlib.suppress(KeyboardInterrupt):
                if event.wait(0.5):
                    return True
        return event.is_set()

    def _hand_over_signal(self, number: int) -> None:
        self.post("signal", number)
        self._wait(self.ended, self._grace_s + self._answer_s + 1)

    def leave(self, record: Record, *, wait: Callable[[], bool]) -> None:
        """Say that this rank has reached the end, and stop.

        Rank 0 stays until all have: where it waits, ``MPI_Finalize`` may wait.

        Args:
            record: How it ended.
            wait: Asked again and again whether waiting makes sense.
        """
        if self.is_alive():
            self.post("tell", ("left", self.own_bundle(record).encode()))
            while self._collector is not None and self.is_alive() and wait():
                if self._all_left.wait(0.2):
                    break
            self.post("stop")
            self.join(FLUSH_S + 1)

    def clean_up(self) -> None:
        """Remove what the carrier has left; the job ends at once."""
        self._carrier.close()

    # -- the helper thread -------------------------------------------------------

    def run(self) -> None:
        """Look after messages until told to stop."""
        try:
            while self._running:
                self._turn()
            self._carrier.flush(FLUSH_S)
        finally:
            self.ended.set()

    def _turn(self) -> None:
        collector = self._collector
        busy = collector is not None and (collector.phase != "idle" or collector.left)
        with contextlib.suppress(InterruptedError):
            wait_s = BUSY_POLL_S if busy else self._carrier.poll_s
            select.select([self._wake_r], [], [], wait_s)
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wake_r, 4096):
                if number:
                    self.alarm.take(number)
        while not self._inbox.empty():
            self._do(self._inbox.get())
        for source, data in self._carrier.receive():
            with contextlib.suppress(WireError):
                self._on_message(source, load_plain(data))
        self.alarm.watch()
        if self._collector is not None:
            self._collector.step(time.monotonic())
            if self._collector.all_left:
                self._all_left.set()
            if self._collector.phase == "ended":
                self._finish(self._collector)

    def _do(self, message: Message) -> None:
        kind, *rest = message
        if kind == "tell":
            self._tell(rest[0])
        elif kind == "signal":
            self.alarm.take(rest[0])
        elif kind == "collect" and self._collector is None:
            self._collector = self._make_collector()
            self._collecting_rank = self._carrier.rank
            self._retell()
        elif kind == "stop":
            self._running = False

    def _make_collector(self) -> Collector:
        return Collector(
            self._carrier.size,
            self._grace_s,
            self._send,
            self._publish,
            self._answer_s,
        )

    def _send(self, dest: int, message: Message) -> None:
        if dest == self._carrier.rank:
            self._on_message(dest, message)
        else:
            self._carrier.send(dest, dump_plain(message))

    def _tell(self, message: Message) -> None:
        """Say something to the collecting rank, and remember it."""
        self._told.append(message)
        self._send(self._collecting_rank, message)
        flush_output()

    def _tell_signal(self, number: int, name: str, record: Record) -> None:
        if all(message[0] != "signalled" for message in self._told):
            bundle = self.own_bundle(record)
            self._tell(("signalled", number, name, bundle.encode()))

    def _retell(self) -> None:
        for message in self._told:
            self._send(self._collecting_rank, message)

    def _on_message(self, source: int, message: Message) -> None:
        kind, *rest = message
        if kind == "heard":
            self.heard.set()
        elif kind == "end":
            if source != self._carrier.rank:  # which has published all there is
                self._collector = None
            self.code = rest[0]
            self.alarm.is_over = True
            self.ended.set()
        elif kind == "abort":
            self.may_abort.set()
        elif kind == "quit":
            flush_output()
            if self._quit is not None:
                # Who collects cleans up before the launcher hears of an end, and
                # kills it.
                self._carrier.wait_closed(FLUSH_S)
                self._quit(rest[0])
        elif kind == "ask":
            self._on_ask(source, *rest)
        elif self._collector is not None:
            self._collector.take(source, message, time.monotonic())

    def _on_ask(self, source: int, number: int, left: list[tuple[int, int]]) -> None:
        if source not in (self._collecting_rank, self._carrier.rank):
            # Rank 0 does not answer, and two collect in its place: the lower one.
            if self._collector is not None and source > self._carrier.rank:
                return
            self._collector, self._collecting_rank = None, source
        if any(message[0] == "failed" for message in self._told):
            self._retell()
            return
        call = call_in_progress()
        silent_s = self.alarm.pulse.silent_s() if left else 0.0
        for_good = False
        if call is not None:
            gone = RankSet.from_ranges(left)
            for_good = never_returns(call, gone, resolve_comm(None))
        record = (
            stack_record("running", "running")
            if call is None
            else stack_record("blocked", "blocked", f"in {call.text}")
        )
        data = self.own_bundle(record).encode()
        state = ("state", number, data, silent_s if call else 0.0, for_good)
        self._send(source, state)
        if not left:
            self.alarm.is_over = True
            flush_output()

    def _finish(self, collector: Collector) -> None:
        """End the job, here or by a rank whose main thread may call MPI."""
        self._running = False
        flush_output()
        if self._carrier.rank:
            # Rank 0 may come back from C code when the launcher sends it SIGTERM.
            self._send(0, ("end", collector.code))
        if self._quit is not None:
            for rank in range(self._carrier.size):
                if rank != self._carrier.rank:
                    self._send(rank, ("quit", collector.code))
            time.sleep(2 * self._carrier.poll_s)  # files must not go unread
        elif collector.failed:
            self._send(min(collector.failed), ("abort",))
        self._carrier.flush(FLUSH_S)
        self._end_job(collector.code)
