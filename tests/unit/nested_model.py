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
from allraise.standing import Gate, Stand, never_open


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
    standing: bool = True  # ranks that wait for each other end the outermost one
    ends: bool = True  # who skips something tells so at the end of that
    doors: bool = True  # agreements on the outermost, further in, are waited for
    messages: bool = True  # who waits for one tells so, and how many were sent
    gone: bool = True  # who is at an agreement of what has failed tells so


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
        self.skips = self.ended = False  # where it is the outermost

    def connect(self, name: Any) -> None:
        """Begin on a private communicator of this name."""
        self.name = name
        self.n_lanes = 0
        self.gates = [("agreement", name), 0]
        self.be_as_new()

    def be_as_new(self) -> None:
        self.n_lanes += 1
        self.lane = [("lane", self.name, self.n_lanes), 0]
        self.sent: Counter = Counter()
        self.received: Counter = Counter()
        self.failed, self.failed_depth = False, 0
        self.announced: dict[Any, int] = {}
        self.pending: list[list[Any]] = []
        self.door = [("door", self.name, self.n_lanes), 0]
        self.ended = False
        self.forget_stands()

    def forget_stands(self) -> None:
        self.stands: dict[int, Stand] = {}
        self.told = None

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
        self.would_tell = False  # where it stands, when it has waited for a while
        self.is_late = False  # it has

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

    def root(self):
        """The side of the outermost open region."""
        return self.open[0][0] if self.open else None

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

    def close(self, side, depth, *, skips=True):
        if depth == len(side.steps):
            side.settled = None
        side.steps.pop()
        root = self.root()
        if root is not None:
            root.skips |= skips
            if root is side and not side.steps:
                root.skips = False
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
        root = self.root()
        try:
            self.look_outside(side)
            if error is None and side.ended:
                error = Woken()
            if error is not None:
                self.announce(side)
                if root is not None and root is not side:
                    root.skips = True
            if root is side:
                error = yield from self.come_by(side, error)
            slot = yield from self.agree(side, error)
        except Woken as woken:
            self.tell_outside(side)
            self.close(side, None)
            return error or woken
        return (yield from self.settle(side, slot))

    def come_by(self, side, error):
        """Come to an agreement on the outermost communicator."""
        if self.is_nested(side) and self.rules.doors:
            error = (yield from self.pass_door(side)) or error
            side.watched = ()  # all come
        elif side.skips and self.rules.ends:
            self.tell((), at_end=True)
        return error

    def settle(self, side, slot):
        """Close a region as it was agreed."""
        failures = [value for value in slot.values() if value[0]]
        is_mismatch = len({value[2:] for value in slot.values()}) > 1
        if not failures:
            if any(value[1] for value in slot.values()):
                yield from self.flush(side)
                side.forget_stands()
            if is_mismatch and self.program.contained:
                raise Deadlock(f"different steps meet: {slot}")
        if not failures and not is_mismatch:
            self.close(side, None, skips=False)
            return None
        depth = min(value[2] for value in slot.values())
        yield from self.clear(side, depth)
        side.n_failed += 1
        outcome = Agreed(side.family, side.group, side.n_failed, depth)
        side.settled = (depth, outcome)
        self.close(side, depth)
        return outcome

    def agree(self, side, error):
        """The reduction: a gate, where anything is to be listened to."""
        listens = bool(side.watched) or (side.has_twin and self.rules.twins)
        tells = side.told is not None
        depth = len(side.steps)
        if side is self.root() and self.is_over(side):
            depth = min(depth, side.failed_depth)
        value = (error is not None, tells, depth, side.steps[-1])
        gate = ()
        if listens:
            side.gates[1] += 1
            if side is not self.root():
                gate = (self.gate_of(side, side.gates),)
                self.stand(gate)
            self.tell_if_over(side)
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
                    self.tell_if_over(side)
                    if gate:
                        self.stand(gate)
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

    def announce(self, side, depth=None):
        self.hear_one(side)
        depth = len(side.steps) if depth is None else depth
        is_news = self.learn(side, depth, dict(self.gates_of(side)))
        if is_news:
            numbers = dict(side.announced)
            for other in side.group:
                if other != self.rank:
                    message = (side.failed_depth, numbers)
                    self.world.send(other, side.name, message)

    def gates_of(self, side):
        told = [side.lane, *side.pending]
        return told + [g for s in self.within(side) for g in (s.gates, s.lane)]

    def learn(self, side, depth, numbers):
        if isinstance(numbers, Stand):
            side.stands[depth] = numbers
            return False
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
        root = self.root()
        if root and root.failed and gates is not root.gates:
            # Those at its end listen no more, and enter nothing.
            gate = Gate(*gates, side.members)
            for rank, stand in root.stands.items():
                if stand.is_at_end and rank in side.members and stand.is_before(gate):
                    entered = stand.counts.get(gate.ident, 0)
                    self.learn(root, root.failed_depth, {gate.ident: entered})
        closed = [s for s in side.watched if self.has_failed_around(s)]
        if self.rules.numbered_gates:
            closed = [s for s in (side, *closed) if s.closes(gates)]
        if closed:
            self.give_up(side)

    def tell_if_over(self, side):
        """Tell that this rank, at an agreement here, enters nothing within."""
        if self.rules.gone and self.has_failed_around(side):
            self.announce(side)

    def give_up(self, side):
        failed = [s for s in side.watched if self.has_failed_around(s)]
        self.announce(failed[-1] if failed else side)
        raise Woken

    # -- who waits for whom ----------------------------------------------------

    def is_nested(self, side):
        """Whether the innermost region here is within one elsewhere."""
        return any(s is not side for s, _ in self.open)

    def is_over(self, root):
        """Whether a failure ends all that is within the outermost region."""
        n_outer = next((n for n, (s, _) in enumerate(self.open) if s is not root), None)
        n_outer = len(self.open) if n_outer is None else n_outer
        return root.failed and root.failed_depth <= n_outer

    def path(self, waits=()):
        """The gates to pass until the outermost region ends."""
        gates = list(waits)
        root = self.root()
        for n in range(len(self.open) - 1, 0, -1):
            side, _ = self.open[n]
            ident, number = side.door if side is root else side.gates
            is_there = any(gate.ident == ident for gate in gates)
            if len(side.group) > 1 and not is_there:
                around = self.around_of(side, n)
                gates.append(Gate(ident, number + 1, side.members, around))
        return tuple(gates)

    def around_of(self, side, n_open, *, itself=False):
        """The sides, but for the outermost, that contain one, and how often."""
        outer = [s for s, _ in self.open[:n_open]]
        counted = Counter(
            s.name
            for s in outer
            if s is not self.root()
            and (s is not side or itself)
            and side.members <= s.members
        )
        return tuple(counted.items())

    def listened_to(self, side):
        """What may end a wait on the lane of a side: not what was opened since."""
        n = max(n for n, (s, _) in enumerate(self.open, 1) if s is side)
        return self.around_of(side, n, itself=True)

    def gate_of(self, side, gates, *, itself=False):
        around = self.around_of(side, len(self.open), itself=itself)
        if itself:
            around = self.listened_to(side)
        return Gate(*gates, side.members, around)

    def tell(self, waits=(), *, at_end=False):
        root = self.root()
        counts = dict([root.door, *self.gates_of(root)])
        for side in (root, *self.within(root)):
            for other, n in side.sent.items():
                counts["message", side.lane[0], self.rank, other] = n
        if waits and not waits[0].gives_way:
            counts[waits[0].ident] = waits[0].number
        gates = () if at_end else self.path(waits)
        sides = dict.fromkeys(s for s, _ in self.open if s is not root)
        failed = tuple((s.name, s.failed_depth) for s in sides if s.failed)
        stand = Stand(bool(waits), gates, counts, at_end, failed)
        root.stands[self.rank] = stand
        if stand == root.told:
            return
        root.told = stand
        for other in root.group:
            if other != self.rank:
                self.world.send(other, root.name, (self.rank, stand))

    def stand(self, waits):
        """Tell where this rank stands, if that may matter; see if all is lost."""
        root = self.root()
        if not self.rules.standing or not root or not (root.skips or root.stands):
            return
        if self.is_over(root):
            self.announce(root)  # it enters nothing more
            return
        # Only where it has waited for a while, which may be for ever.
        self.would_tell = not self.is_late
        if self.would_tell:
            return
        self.is_late = False
        waits_for = any(
            rank != self.rank and rank in gate.members and stand.is_before(gate)
            for gate in self.path(waits)
            for rank, stand in root.stands.items()
        )
        if root.skips or waits_for or self.rank in root.stands:
            self.tell(waits)
            if waits and waits[0] in never_open(root.stands):
                root.ended = True
                self.announce(root, 1)

    def pass_door(self, side):
        """Wait for all to come to an agreement on the outermost, within others."""
        side.door[1] += 1
        name = (*side.door[0], side.door[1])
        gate = (Gate(*side.door, side.members),)
        at, distance, size = side.group.index(self.rank), 1, len(side.group)
        while distance < size:
            self.world.send(side.group[(at + distance) % size], (*name, distance), "in")
            box = (self.rank, (*name, distance))
            while not self.world.arrived[box]:
                self.hear(side)
                if self.is_over(side):
                    self.announce(side)
                    return Woken() if side.ended else None
                self.stand(gate)
                if side.ended:
                    continue
                yield lambda b=box: self.has_news(side) or self.world.arrived[b]
            distance *= 2
        return None

    def talk(self, side, kind):
        """An operation on g.comm."""
        settled = [s.settled for s in (side, *side.watched) if s.settled]
        if settled and self.rules.settled_around:
            raise settled[0][1]
        name = side.lane[0]
        if kind == "ring":
            at = side.group.index(self.rank)
            after = side.group[(at + 1) % len(side.group)]
            side.sent[after] += 1
            self.world.send(after, (name, "ring"), "hello")
            box = (self.rank, (name, "ring"))
            before = side.group[at - 1]
            ident = "message", name, before, self.rank
            around = self.listened_to(side)
            n = side.received[before] + 1
            gate = Gate(ident, n, frozenset((before,)), around, gives_way=True)
            waits = (gate,) if self.rules.messages else ()
            while not self.world.arrived[box]:
                if side.failed or any(map(self.has_failed_around, side.watched)):
                    self.give_up(side)
                self.stand(waits)
                if side.failed or any(map(self.has_failed_around, side.watched)):
                    self.give_up(side)
                yield lambda: self.has_news(side) or self.world.arrived[box]
                self.hear(side)
            self.world.arrived[box].pop()
            side.received[before] += 1
            return
        side.lane[1] += 1
        self.give_up_if_closed(side, side.lane)
        slot = self.world.bring(self.rank, name, kind)
        gate = (self.gate_of(side, side.lane, itself=True),)
        while len(slot) < len(side.group):
            self.stand(gate)
            self.give_up_if_closed(side, side.lane)
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

    def flush(self, side):
        yield from self.meet_all(side.group, (side.name, "sent"))
        yield lambda: not self.world.is_flying(self.rank, side.name)
        self.hear_one(side)
        yield from self.meet_all(side.group, (side.name, "received"))

    def clear(self, side, depth):
        yield from self.flush(side)
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
            gate = (self.gate_of(side, ((*gates[0], "in"), gates[1] + 1)),)
            while not self.world.arrived[self.rank, name]:
                self.stand(gate)
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
    told: set[Rank] = set()  # that wait, and have told so since something happened
    # Slow messages and slow ranks, in different proportion in each run.
    eagerness = rng.choice((0.05, 0.3, 0.7))
    while running:
        ready = [rank for rank in running if waits[rank]()]
        if world.flying and (not ready or rng.random() < eagerness):
            world.arrive()
            told.clear()
            continue
        if ready:
            rank = rng.choice(ready)
            told.clear()
        else:
            late = [rank for rank in running if rank.would_tell and rank not in told]
            if not late:
                raise Deadlock(f"{[rank.rank for rank in running]} wait for ever")
            rank = rng.choice(late)
            rank.is_late = True
            told.add(rank)
        rank.would_tell = False
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
