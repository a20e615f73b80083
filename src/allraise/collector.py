"""What the collecting rank knows of the others, and when it has enough.

Owns the decisions: when a report is due, whom to ask, when the job is over. A
state machine without threads, clocks or MPI: messages and the time come in,
messages and one outcome go out::

    idle ──a rank failed, or was signalled──> grace ──time, or all known──> asking
      │                                                                       │
      └─ some left, all others wait for them for ever ──> publish <───────────┘
                                                            │
                                        hooks <── "end" to the failed ranks
                                          │
                                        ended

**A rank that leaves while others wait for it.** That a rank ends early is
nothing bad: it may have done its part. The job is ended only where no rank can
ever go on: some ranks have reached the end of the program, every other has
been inside one MPI call, running no Python at all, for `PATIENCE_S`, and one of
them in a collective on a communicator that a rank belongs to which has left. A
rank that computes, or whose call cannot be told from its source, keeps the job
alive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from allraise.bundle import Bundle
from allraise.findings import decoded, put_together
from allraise.ranks import RankSet
from allraise.record import minimal

if TYPE_CHECKING:
    from collections.abc import Callable

# How long ranks that have not failed may take to say where they stand. One second was
# not enough where several jobs of more ranks than cores were at work: a rank that was
# only waiting for its turn was told to be dead.
ANSWER_S: Final = 3.0

# After SIGTERM, schedulers and launchers kill soon. Open MPI's does in a quarter of a
# second: enough only where every rank answers at once, else see `spool`.
SIGNAL_GRACE_S: Final = 0.4

# How long a user's own excepthook may take after the report.
HOOK_S: Final = 5.0

# No transfer between live ranks takes that long without one step of Python.
PATIENCE_S: Final = 10.0

# When ranks have left, the others are looked at after so long, then less often.
LOOK_S: Final = 1.0
LOOK_LESS_OFTEN: Final = 1.5
MAX_LOOK_S: Final = 60.0

# Above, a merged report holds to the caps of a bundle.
MAX_UNCAPPED_RANKS: Final = 1024

Message = tuple[Any, ...]


class Outcome(NamedTuple):
    """What is published."""

    code: int
    why: str
    step: str
    bundle: Bundle


class Collector:
    """The collecting rank's knowledge; see the module. Not collective.

    Args:
        size: How many ranks there are.
        grace_s: How long to wait for more failures after the first.
        send: Sends a message to a rank.
        publish: Shows and stores the outcome; called once.
        answer_s: How long ranks that have not failed may take to say where they
            stand.
    """

    def __init__(
        self,
        size: int,
        grace_s: float,
        send: Callable[[int, Message], None],
        publish: Callable[[Outcome], None],
        answer_s: float = ANSWER_S,
    ) -> None:
        self.size = size
        self.phase = "idle"
        self.code = 0
        self.failed: dict[int, Message] = {}
        self.left: dict[int, bytes] = {}
        self._grace_s = grace_s
        self._answer_s = answer_s
        self._send = send
        self._publish = publish
        self._signalled: dict[int, Message] = {}
        self._states: dict[int, Message] = {}
        self._hooks: set[int] = set()
        self._deadline = float("inf")
        self._ask_number = 0
        self._look_s = LOOK_S
        self._look_at = 0.0

    @property
    def all_left(self) -> bool:
        """Whether every rank has reached the end."""
        return len(self.left) == self.size

    def take(self, source: int, message: Message, now: float) -> None:
        """Take in what a rank says."""
        kind, *rest = message
        if kind == "failed":
            self.failed[source] = message
            self._send(source, ("heard",))
            if self.phase in ("hooks", "ended"):
                self._send(source, ("end", self.code))
            self._begin(now, self._grace_s)
        elif kind == "signalled":
            self._signalled[source] = message
            self._begin(now, min(SIGNAL_GRACE_S, self._grace_s))
        elif kind == "left":
            self.left[source] = rest[0]
            self._look_at = self._look_at or now + self._look_s
        elif kind == "state" and rest[0] == self._ask_number:
            self._states[source] = message
        elif kind == "hooked":
            self._hooks.discard(source)

    def _begin(self, now: float, grace_s: float) -> None:
        if self.phase == "idle":
            self.phase = "grace"
            self._deadline = now + grace_s
        elif self.phase == "grace":
            self._deadline = min(self._deadline, now + grace_s)

    def _missing(self) -> list[int]:
        known = self.failed.keys() | self.left.keys() | self._signalled.keys()
        return [rank for rank in range(self.size) if rank not in known]

    def _ask(self, ranks: list[int], now: float) -> None:
        self._ask_number += 1
        self._states.clear()
        left = RankSet(self.left).ranges
        for rank in ranks:
            self._send(rank, ("ask", self._ask_number, left))
        signalled = self._signalled and not self.failed
        self._deadline = now + (SIGNAL_GRACE_S if signalled else self._answer_s)

    def step(self, now: float) -> None:
        """Go on, if there is anything to do."""
        if self.phase == "idle":
            self._watch_who_left(now)
        elif self.phase == "grace":
            missing = self._missing()
            if not missing:
                self._end()
            elif now >= self._deadline:
                self.phase = "asking"
                self._ask(missing, now)
        elif self.phase == "asking":
            silent = [rank for rank in self._missing() if rank not in self._states]
            if not silent or now >= self._deadline:
                self._end()
        if self.phase == "hooks" and (not self._hooks or now >= self._deadline):
            self.phase = "ended"
        elif self.phase == "hooks" and self._deadline == float("inf"):
            self._deadline = now + HOOK_S

    def _watch_who_left(self, now: float) -> None:
        """Look whether the ranks that are left wait for ranks that have left."""
        waiting = self._missing()
        if not self.left or not waiting:
            return
        if self._states.keys() >= set(waiting):
            states = [self._states[rank] for rank in waiting]
            self._states.clear()
            stuck = all(silent_s >= PATIENCE_S for _, _, _, silent_s, _ in states)
            if stuck and any(for_good for *_, for_good in states):
                self._states = dict(zip(waiting, states, strict=True))
                self._end()
                return
        if now >= self._look_at:
            self._look_at = now + self._look_s
            self._look_s = min(self._look_s * LOOK_LESS_OFTEN, MAX_LOOK_S)
            self._ask(waiting, now)

    def _end(self) -> None:
        """Publish, and let the failed ranks go."""
        self.phase = "hooks"
        self._deadline = float("inf")
        self.code, why = self._verdict()
        step = next((message[3] for message in self.failed.values() if message[3]), "")
        try:
            self._publish(Outcome(self.code, why, step, self._merged()))
        finally:
            self._hooks = {rank for rank, found in self.failed.items() if found[4]}
            for rank in self.failed:
                self._send(rank, ("end", self.code))

    def _verdict(self) -> tuple[int, str]:
        if self.failed:  # in the order in which they were heard
            return next(iter(self.failed.values()))[1], "failed"
        if self._signalled:
            number, name = next(iter(self._signalled.values()))[1:3]
            return 128 + number, f"the job got {name}"
        return 1, f"the others waited for ranks that had left: {RankSet(self.left)}"

    def _merged(self) -> Bundle:
        capped = self.size > MAX_UNCAPPED_RANKS
        told = put_together(
            {rank: message[2] for rank, message in self.failed.items()}, capped=capped
        )
        bundles = [told.first]
        # Of a rank that says several of these, the first counts.
        for messages, place in ((self._signalled, 3), (self._states, 2)):
            bundles += [decoded(messages[r][place], r) for r in sorted(messages)]
        bundles += [decoded(self.left[rank], rank) for rank in sorted(self.left)]
        heard = self.failed.keys() | self._signalled.keys() | self._states.keys()
        silent = RankSet(
            r for r in range(self.size) if r not in heard | self.left.keys()
        )
        if silent:
            nothing = Bundle()
            text = "no answer: it is dead, or in C code that holds the GIL"
            nothing.add(silent, minimal("silent", text, kind="silent"))
            bundles.append(nothing)
        return told.complete(Bundle.merge(bundles, capped=capped))
