"""Where ranks stand within their outermost region, and which wait for each other.

Owns the arithmetic of it and nothing else: no MPI, no waiting. Once a rank has
failed, or has left a region that failed, it skips what is left of that. Others may
wait for it in regions that it never comes to, and know nothing of the failure:
those of a communicator that reaches outside of the one that has failed::

    world { half { B } }           ranks 0 1 are one half, 2 3 the other
    rank 0  fails in its half      stands at the half's agreement, for 1
    rank 1  is in B                stands at B's, for 0
    rank 2  is in B                stands at B's, for 0

So such a rank tells all others of the outermost region where it stands: at which
*gate* it waits (see `gates`), which it must pass on its way out, and how many it has
entered of each kind. A rank that waits for one of which it knows that tells where
it stands itself. Who finds that it waits for itself ends the outermost region.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from allraise.plain import StandingState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_BITS = 62  # of ranks in a word


class Gate(NamedTuple):
    """What a rank passes only with all others of a group."""

    ident: int
    number: int
    members: frozenset[int]  # as ranks of the outermost communicator
    #: whose failure may close it, with how many regions of it are around
    around: tuple[tuple[int, int], ...] = ()
    #: no collective, but a message say, which is given up for any failure there
    gives_way: bool = False


class Stand(NamedTuple):
    """Where a rank stands."""

    is_waiting: bool  # at the first of the gates
    gates: tuple[Gate, ...]  # that it must pass, in this order
    counts: Mapping[int, int]  # of those it has entered, by ident
    is_at_end: bool = False  # of the outermost region: it enters nothing more
    #: sides that have failed, with the depth, where its counts are told already
    failed: tuple[tuple[int, int], ...] = ()

    def is_before(self, gate: Gate) -> bool:
        """Whether the rank has not entered a gate of its group."""
        return self.counts.get(gate.ident, 0) < gate.number

    def closes(self, gate: Gate) -> bool:
        """Whether those who wait at the gate are to hear that it is closed."""
        return any(
            side == outer and depth <= n_around
            for side, depth in self.failed
            for outer, n_around in gate.around
        )

    @property
    def n_awaited(self) -> int:
        """At how many of the gates it waits: one, or for several messages at once."""
        n = 0
        while n < len(self.gates) and self.gates[n].gives_way:
            n += 1
        return max(n, 1) if self.is_waiting else 0

    def comes_to(self, gate: Gate, closed: set[Gate]) -> bool:
        """Whether the rank comes to a gate if those others never open."""
        if self.is_at_end:
            return False
        idents = [known.ident for known in self.gates]
        if self.is_waiting and idents[0] == gate.ident:
            n_before = int(self.gates[0].number < gate.number)
        elif gate.ident in idents:
            n_before = idents.index(gate.ident)
        else:
            n_before = self.n_awaited
        return closed.isdisjoint(self.gates[:n_before])


def never_open(stands: Mapping[int, Stand]) -> set[Gate]:
    """Return the gates at which ranks wait for each other.

    Each is taken to be closed until those who are missing there are seen to come,
    or to have told that they do not.
    """
    closed = {gate for stand in stands.values() for gate in stand.gates}
    failed = frozenset(pair for stand in stands.values() for pair in stand.failed)
    of_all = Stand(is_waiting=False, gates=(), counts={}, failed=tuple(failed))
    while True:
        opens = set()
        for gate in closed:
            known = [stands[rank] for rank in gate.members if rank in stands]
            missing = [stand for stand in known if stand.is_before(gate)]
            tell = [of_all] if gate.gives_way else missing
            if any(stand.closes(gate) for stand in tell) or all(
                stand.comes_to(gate, closed) for stand in missing
            ):
                opens.add(gate)
        if not opens:
            return closed
        closed -= opens


# Not dataclasses, here and in `gates`: the module takes a tenth of the import.
class Standing(StandingState):
    """What a rank knows of where others stand, in one outermost region."""

    __slots__ = ("is_over", "met", "met_in", "skips", "stands", "told")

    def __init__(self) -> None:
        self.stands: dict[int, Stand] = {}
        self.told: Stand | None = None  # by this rank
        self.skips = False  # this rank has failed, or left a region that failed
        self.is_active = False  # so a stand is to be told, or one is known
        self.is_over = False  # this rank has found that ranks wait for each other
        #: how often it has met others to make a communicator, by ident, and in which
        #: outermost region
        self.met: dict[int, int] = {}
        self.met_in: object = None

    def note_met(self, region: object, ident: int, number: int) -> None:
        """Note what this rank enters that is there no more when it has passed.

        Not collective. Who has passed it has entered it, for all that others can tell.
        """
        if self.met_in is not region:
            self.met.clear()
            self.met_in = region
        self.met[ident] = number

    def know(self, rank: int, stand: Stand) -> None:
        """Take in where a rank stands. Not collective."""
        self.stands[rank] = stand
        self.is_active = True

    def set_skips(self, *, skips: bool) -> None:
        """Note whether this rank skips something. Not collective."""
        self.skips = skips
        self.is_active = skips or bool(self.stands)

    def forget(self) -> None:
        """Forget what was told. Not collective."""
        self.is_active = self.skips
        self.stands.clear()
        self.told = None
        self.is_over = False


def encode(stand: Stand) -> list[int]:
    """Turn a stand into numbers. The same groups come several times: once each."""
    numbers = [stand.is_waiting + 2 * stand.is_at_end]
    groups = list(dict.fromkeys(gate.members for gate in stand.gates))
    n_words = 1 + max((max(members) for members in groups), default=0) // _BITS
    _put(numbers, [_words_of(members, n_words) for members in groups])
    numbers.append(len(stand.gates))
    for gate in stand.gates:
        place = 2 * groups.index(gate.members) + gate.gives_way
        numbers += (gate.ident, gate.number, place)
        _put(numbers, gate.around)
    _put(numbers, stand.counts.items())
    _put(numbers, stand.failed)
    return numbers


def decode(numbers: Iterable[int]) -> Stand:
    """Turn numbers into a stand again."""
    rest = iter(numbers)
    flags = next(rest)
    groups = [_members_of(words) for words in _take(rest)]
    gates = tuple(_take_gate(rest, groups) for _ in range(next(rest)))
    counts = dict(_pairs(rest))
    return Stand(bool(flags & 1), gates, counts, bool(flags & 2), tuple(_pairs(rest)))


def _take_gate(rest: Iterator[int], groups: list[frozenset[int]]) -> Gate:
    ident, number, place = next(rest), next(rest), next(rest)
    around = tuple(_pairs(rest))
    return Gate(ident, number, groups[place // 2], around, bool(place % 2))


def _put(numbers: list[int], rows: Iterable[Iterable[int]]) -> None:
    given = [list(row) for row in rows]
    numbers += (len(given), len(given[0]) if given else 0)
    for row in given:
        numbers += row


def _words_of(members: Iterable[int], n_words: int) -> list[int]:
    words = [0] * n_words
    for rank in members:
        words[rank // _BITS] |= 1 << rank % _BITS
    return words


def _members_of(words: list[int]) -> frozenset[int]:
    return frozenset(
        n * _BITS + bit
        for n, word in enumerate(words)
        for bit in range(word.bit_length())
        if word >> bit & 1
    )


def _take(rest: Iterator[int]) -> list[list[int]]:
    n_rows, length = next(rest), next(rest)
    return [[next(rest) for _ in range(length)] for _ in range(n_rows)]


def _pairs(rest: Iterator[int]) -> list[tuple[int, int]]:
    return [(first, second) for first, second in _take(rest)]
