"""A model of guards on several communicators: ranks, messages, and a scheduler.

Says in two hundred lines what `nesting`, `creation`, `verdict`, `channel` and
`waits` say in two thousand, without MPI, reports and waiting. Ranks are generators
that yield what they wait for. The scheduler picks at random who runs and which
message arrives; where nobody can run and nothing is under way, that is a deadlock.

A collective is a *slot*: the n-th of each member on one communicator meet, whatever
they are meant for, as in MPI. So a rank that gave up one which others did not enter
is out of step for ever after.
"""

from __future__ import annotations

import functools
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import nested


class Deadlock(Exception):
    """The ranks cannot go on, or collectives met that do not match."""


class Failed(Exception):
    """A rank's own failure."""


class Agreed(Exception):
    """The outcome of an agreement."""


class Woken(Exception):
    """A failure around, or a peer's, ends what a rank waits for."""


@dataclass(frozen=True)
class Rules:
    """What the protocol consists of; a test leaves out one of them."""

    numbered_gates: bool = True  # give up only what cannot end
    told_at_entry: bool = True  # that a rank does not enter, so nobody waits for it
    second_meeting: bool = True  # before a communicator is made
    forgetting: bool = True  # what lies within a failure, and is not open around
    renewing: bool = True  # what lies within a failure, and is open around
    depths: bool = True  # a failure further in does not end what is around
    settled_around: bool = True  # regions within a settled one do not agree
    twins: bool = True  # communicators of the same ranks always listen


class Side:
    """One rank's side of the protocol on one communicator."""

    def __init__(self, family: str, group: tuple[int, ...]) -> None:
        self.family, self.group = family, group
        self.members = frozenset(group)
        self.steps: list[str] = []
        self.settled: tuple[int, Agreed] | None = None
        self.watched: tuple[Side, ...] = ()
        self.has_twin = self.closed = False
        self.n_failed = 0

    def connect(self, name: Any) -> None:
        """Begin on a private communicator of this name."""
        self.name = name
        self.n_lanes = 0
        self.gates = [("agreement", name), 0]
        self.be_as_new()

    def be_as_new(self) -> None:
        self.n_lanes += 1
        self.lane = [("lane", self.name, self.n_lanes), 0]
        self.failed, self.failed_depth = False, 0
        self.announced: dict[Any, int] = {}
        self.pending: list[list[Any]] = []

    def closes(self, gates: list[Any]) -> bool:
        return self.announced.get(gates[0], gates[1]) < gates[1]


@dataclass
class World:
    """What the ranks share: slots, messages, and who has ended what."""

    size: int
    rng: random.Random
    slots: dict[Any, dict[int, Any]] = field(default_factory=lambda: defaultdict(dict))
    counts: Counter = field(default_factory=Counter)  # of slots, by name and rank
    flying: list[tuple[int, Any, Any]] = field(default_factory=list)
    arrived: dict[Any, list[Any]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[Any, set[int]] = field(default_factory=lambda: defaultdict(set))

    def bring(self, rank: int, name: Any, value: Any) -> dict[int, Any]:
        """Begin the next collective of this rank on a communicator."""
        number = self.counts[name, rank]
        self.counts[name, rank] += 1
        slot = self.slots[name, number]
        slot[rank] = value
        return slot

    def send(self, rank: int, channel: Any, message: Any) -> None:
        self.flying.append((rank, channel, message))

    def arrive(self) -> None:
        at = self.rng.randrange(len(self.flying))
        self.flying[at], self.flying[-1] = self.flying[-1], self.flying[at]
        rank, channel, message = self.flying.pop()
        self.arrived[rank, channel].append(message)

    def is_flying(self, rank: int, channel: Any) -> bool:
        return any(to == rank and name == channel for to, name, _ in self.flying)


class Rank:
    """One rank that runs a program."""

    def __init__(
        self, rank: int, world: World, program: nested.Program, rules: Rules
    ) -> None:
        self.rank, self.world, self.program, self.rules = rank, world, program, rules
        self.groups = {
            family: group
            for family, groups in nested.groups_of(program.size).items()
            for group in groups
            if rank in group
        }
        self.known: dict[str, Side] = {}
        self.open: list[tuple[Side, tuple[Side, ...]]] = []
        self.made: Counter = Counter()
        self.log: list[Any] = []

    # -- the program -----------------------------------------------------------

    def run(self):
        for family in self.program.touched:
            if family in self.groups:
                yield from self.guard(family, "before", ())
        for statement in self.program.body:
            try:
                yield from self.do(statement)
                self.log.append((statement.family, None))
            except Agreed as outcome:
                self.log.append((statement.family, outcome.args))
        for family in self.groups:
            yield from self.guard(family, "after", ("barrier", "ring"))

    def do(self, statement):
        kind = type(statement)
        if kind is nested.Work:
            if self.rank in statement.fails:
                raise Failed
        elif kind is nested.Pause:
            yield lambda: True
        elif kind is nested.Talk:
            yield from self.talk(self.known_open(statement.family), statement.kind)
        elif kind is nested.Try:
            try:
                yield from self.do(statement.guard)
            except Exception as error:
                if isinstance(error, Deadlock) or self.rank not in statement.swallows:
                    raise
        elif statement.family in self.groups:
            yield from self.guard(statement.family, statement.step, statement.body)

    def guard(self, family, step, body):
        side = self.known.get(family)
        if side is None:
            side = yield from self.create(family)
        self.enter(side, step)
        error = None
        try:
            for inner in body:
                if isinstance(inner, str):
                    yield from self.talk(side, inner)
                else:
                    yield from self.do(inner)
        except (Failed, Agreed, Woken) as caught:
            error = caught
        outcome = yield from self.leave(side, error)
        if outcome is not None:
            raise outcome

    def known_open(self, family):
        return next(s for s, _ in reversed(self.open) if s.family == family)

    # -- regions ---------------------------------------------------------------

    def enter(self, side, step):
        if side.settled and len(side.steps) >= side.settled[0]:
            raise side.settled[1]
        before = side.watched
        if self.open and self.open[-1][0] is not side:
            side.watched = self.enclosing(side.members, side)
        try:
            self.look_outside(side)
        except Exception:
            if self.rules.told_at_entry:
                self.tell_outside(side)
            side.watched = before
            raise
        self.open.append((side, before))
        side.steps.append(step)

    def close(self, side, depth):
        if depth == len(side.steps):
            side.settled = None
        side.steps.pop()
        _, side.watched = self.open.pop()

    def enclosing(self, members, side=None):
        found = []
        for other, _ in reversed(self.open):
            fits = other is not side and members <= other.members
            if fits and other not in found:
                found.append(other)
        return tuple(found)

    def within(self, side):
        return [
            other
            for other in self.known.values()
            if other is not side and other.members <= side.members
        ]

    def around(self, side, depth):
        found, n_open = [], 0
        for other, _ in self.open:
            n_open += other is side
            if n_open == depth:
                break
            if other is not side and other not in found:
                found.append(other)
        return found

    def leave(self, side, error):
        if side.settled:
            depth, outcome = side.settled
            self.close(side, depth)
            return outcome
        for outer in side.watched:
            if outer.settled and self.rules.settled_around:
                self.close(side, None)
                return outer.settled[1]
        try:
            self.look_outside(side)
            if error is not None:
                self.announce(side)
            slot = yield from self.agree(side, error)
        except Woken as woken:
            self.tell_outside(side)
            self.close(side, None)
            return error or woken
        failures = [value for value in slot.values() if value[0]]
        if not failures:
            if len({value[1:] for value in slot.values()}) > 1:
                raise Deadlock(f"different steps meet: {slot}")
            self.close(side, None)
            return None
        depth = min(value[1] for value in slot.values())
        yield from self.clear(side, depth)
        side.n_failed += 1
        outcome = Agreed(side.family, side.group, side.n_failed, depth)
        side.settled = (depth, outcome)
        self.close(side, depth)
        return outcome

    def agree(self, side, error):
        """The reduction: a gate, where anything is to be listened to."""
        listens = bool(side.watched) or (side.has_twin and self.rules.twins)
        value = (error is not None, len(side.steps), side.steps[-1])
        if listens:
            side.gates[1] += 1
            self.give_up_if_closed(side, side.gates)
        number = self.world.counts[side.name, self.rank]
        slot = self.world.bring(self.rank, side.name, (listens, value))
        while len(slot) < len(side.group):
            if {kind for kind, _ in slot.values()} == {True, False}:
                raise Deadlock("an Allreduce meets an Iallreduce")
            if listens:
                yield lambda: self.has_news(side) or len(slot) == len(side.group)
                if len(slot) < len(side.group):
                    self.hear(side)
                    self.give_up_if_closed(side, side.gates)
            else:
                yield lambda: len(slot) == len(side.group)
        self.world.ended[side.name, number].add(self.rank)
        return {rank: value for rank, (_, value) in slot.items()}

    def tell_outside(self, side):
        for outer in side.watched:
            if self.has_failed_around(outer):
                self.announce(outer)

    def look_outside(self, side):
        for outer in reversed(side.watched):
            if outer.settled and self.rules.settled_around:
                raise outer.settled[1]
            self.hear_one(outer)
            if self.has_failed_around(outer):
                raise Woken

    # -- announcements ---------------------------------------------------------

    def has_failed_around(self, side):
        is_around = side.failed_depth <= len(side.steps) or not self.rules.depths
        return side.failed and is_around

    def announce(self, side):
        self.hear_one(side)
        told = [side.lane, *side.pending]
        told += [g for inner in self.within(side) for g in (inner.gates, inner.lane)]
        is_news = self.learn(side, len(side.steps), dict(told))
        if is_news:
            numbers = dict(side.announced)
            for other in side.group:
                if other != self.rank:
                    message = (side.failed_depth, numbers)
                    self.world.send(other, side.name, message)

    def learn(self, side, depth, numbers):
        is_news = not side.failed or depth < side.failed_depth
        if is_news:
            side.failed, side.failed_depth = True, depth
        for ident, entered in numbers.items():
            if entered < side.announced.get(ident, entered + 1):
                side.announced[ident] = entered
                is_news = True
        return is_news

    def has_news(self, side):
        return self.has_any(one.name for one in (side, *side.watched))

    def has_any(self, channels):
        return any(self.world.arrived[self.rank, channel] for channel in channels)

    def hear_one(self, side):
        for message in self.world.arrived.pop((self.rank, side.name), ()):
            self.learn(side, *message)

    def hear(self, side):
        for one in (side, *side.watched):
            self.hear_one(one)

    def give_up_if_closed(self, side, gates):
        closed = [s for s in side.watched if self.has_failed_around(s)]
        if self.rules.numbered_gates:
            closed = [s for s in (side, *closed) if s.closes(gates)]
        if closed:
            self.give_up(side)

    def give_up(self, side):
        failed = [s for s in side.watched if self.has_failed_around(s)]
        self.announce(failed[-1] if failed else side)
        raise Woken

    def talk(self, side, kind):
        """An operation on g.comm."""
        settled = [s.settled for s in (side, *side.watched) if s.settled]
        if settled and self.rules.settled_around:
            raise settled[0][1]
        name = side.lane[0]
        if kind == "ring":
            at = side.group.index(self.rank)
            after = side.group[(at + 1) % len(side.group)]
            self.world.send(after, (name, "ring"), "hello")
            box = (self.rank, (name, "ring"))
            while not self.world.arrived[box]:
                if side.failed or any(map(self.has_failed_around, side.watched)):
                    self.give_up(side)
                yield lambda: self.has_news(side) or self.world.arrived[box]
                self.hear(side)
            self.world.arrived[box].pop()
            return
        side.lane[1] += 1
        self.give_up_if_closed(side, side.lane)
        slot = self.world.bring(self.rank, name, kind)
        while len(slot) < len(side.group):
            yield lambda: self.has_news(side) or len(slot) == len(side.group)
            if len(slot) < len(side.group):
                self.hear(side)
                is_first = not self.rules.numbered_gates and side.failed
                if is_first:
                    self.give_up(side)
                self.give_up_if_closed(side, side.lane)
        yield from self.meet_all(side.group, (name, "real"))

    def meet_all(self, group, name):
        """A collective that cannot be given up."""
        slot = self.world.bring(self.rank, name, None)
        yield lambda: len(slot) == len(group)

    # -- after a failure -------------------------------------------------------

    def clear(self, side, depth):
        yield from self.meet_all(side.group, (side.name, "sent"))
        yield lambda: not self.world.is_flying(self.rank, side.name)
        self.hear_one(side)
        yield from self.meet_all(side.group, (side.name, "received"))
        side.be_as_new()
        around = self.around(side, depth)
        for other in self.within(side):
            if other not in around and self.rules.forgetting:
                del self.known[other.family]
        for other in around:
            if other.members <= side.members and self.rules.renewing:
                yield from self.connect(other)

    # -- making a communicator -------------------------------------------------

    def connect(self, side):
        """Dup: of the user's communicator, which nothing may leave out of step."""
        name = ("user", side.family, side.group)
        number = self.world.counts[name, self.rank]
        yield from self.meet_all(side.group, name)
        side.connect((side.family, side.group, number))

    def create(self, family):
        side = Side(family, self.groups[family])
        around = self.enclosing(side.members)
        for outer in around:
            if outer.settled and self.rules.settled_around:
                raise outer.settled[1]
        if around:
            yield from self.meet(side, around)
        yield from self.connect(side)
        self.known[family] = side
        for other in self.within(side):
            if other.members == side.members:
                other.has_twin = side.has_twin = True
        return side

    def meet(self, side, around):
        state = tuple((outer.name, outer.n_failed) for outer in around)
        self.made[side.members, state] += 1
        ident = ("meeting", side.members, state, self.made[side.members, state])
        gates = [ident, 0]
        for outer in around:
            outer.pending.append(gates)
        try:
            yield from self.exchange(side, around, gates)
            if self.rules.second_meeting:
                gates[1] = 1
                yield from self.exchange(side, around, gates)
        finally:
            for outer in around:
                if gates in outer.pending:
                    outer.pending.remove(gates)

    def exchange(self, side, around, gates):
        at, distance, size = side.group.index(self.rank), 1, len(side.group)
        while distance < size:
            name = (*gates[0], gates[1], distance)
            self.world.send(side.group[(at + distance) % size], name, "here")
            while not self.world.arrived[self.rank, name]:
                failed = [outer for outer in around if self.has_failed_around(outer)]
                closed = not gates[1] or any(s.closes(gates) for s in around)
                if failed and closed:
                    self.announce(failed[-1])
                    raise Woken
                heard = (name, *(outer.name for outer in around))
                yield functools.partial(self.has_any, heard)
                for outer in around:
                    self.hear_one(outer)
            distance *= 2


def simulate(program: nested.Program, seed: int, rules: Rules) -> list[Rank]:
    """Run a program under one order of all that happens, and check it.

    Raises:
        Deadlock: The ranks cannot go on.
        AssertionError: They ended differently.
    """
    rng = random.Random(seed)
    world = World(program.size, rng)
    ranks = [Rank(r, world, program, rules) for r in range(program.size)]
    running = {rank: rank.run() for rank in ranks}
    waits = dict.fromkeys(ranks, lambda: True)
    # Slow messages and slow ranks, in different proportion in each run.
    eagerness = rng.choice((0.05, 0.3, 0.7))
    while running:
        ready = [rank for rank in running if waits[rank]()]
        if world.flying and (not ready or rng.random() < eagerness):
            world.arrive()
            continue
        if not ready:
            raise Deadlock(f"{[rank.rank for rank in running]} wait for ever")
        rank = rng.choice(ready)
        try:
            waits[rank] = next(running[rank])
        except StopIteration:
            del running[rank]
        except (Failed, Agreed, Woken) as error:
            message = f"rank {rank.rank} ended with {error!r}"
            raise AssertionError(message) from error
    check(world, ranks)
    return ranks


def check(world: World, ranks: list[Rank]) -> None:
    for (name, number), ended in world.ended.items():
        _, group, _ = name
        assert ended == set(group), f"agreement {number} on {name} ended on {ended}"
    for rank in ranks:
        assert not rank.open
        tops = [entry for entry in rank.log if entry[1] is not None]
        for family, outcome in tops:
            for other in rank.groups[family]:
                assert (family, outcome) in ranks[other].log, (
                    f"{outcome} not on {other}"
                )
