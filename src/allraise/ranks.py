"""Sets of ranks: ``0-2,4-511``.

Owns how a set of ranks is held, written and read. Knows nothing of
communicators: ranks are whole numbers here.

A job of 100,000 ranks that fails everywhere is one range, so a set costs what
it takes to write it down, not what it holds.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RANGES: Final = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)

# A set that alternates has as many ranges as ranks. A line of text shows this
# many of them and then how many ranks there are beyond.
MAX_RANGES_SHOWN: Final = 64


class RankSet:
    """An immutable set of ranks, held as ascending ranges.

    Not collective.
    """

    __slots__ = ("ranges",)

    ranges: tuple[tuple[int, int], ...]

    def __init__(self, ranks: Iterable[int] = ()) -> None:
        """Make the set of these ranks, in any order, repeated or not."""
        merged: list[tuple[int, int]] = []
        for rank in sorted(set(ranks)):
            if merged and merged[-1][1] == rank - 1:
                merged[-1] = (merged[-1][0], rank)
            else:
                merged.append((rank, rank))
        self.ranges = tuple(merged)

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> RankSet:
        """Make a set of ``(first, last)`` pairs, both ends included."""
        made = cls.__new__(cls)
        if isinstance(ranges, list) and len(ranges) == 1:  # as most often
            made.ranges = (ranges[0],)
            return made
        merged: list[tuple[int, int]] = []
        for pair in sorted(ranges):
            if merged and pair[0] <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(pair[1], merged[-1][1]))
            else:
                merged.append(pair)
        made.ranges = tuple(merged)
        return made

    @classmethod
    def parse(cls, text: str) -> RankSet:
        """Read ``0-2,4-511``.

        Raises:
            ValueError: The text is not a list of ranks and ranges.
        """
        compact = "".join(text.split())
        if not _RANGES.fullmatch(compact):
            msg = f"not a set of ranks: {text!r}; write ranks and ranges, like 0-2,4"
            raise ValueError(msg)
        pairs = []
        for part in compact.split(","):
            first, _, last = part.partition("-")
            pair = (int(first), int(last or first))
            if pair[0] > pair[1]:
                msg = f"the range {part!r} in {text!r} ends before it begins"
                raise ValueError(msg)
            pairs.append(pair)
        return cls.from_ranges(pairs)

    def __or__(self, other: RankSet) -> RankSet:
        return RankSet.from_ranges(self.ranges + other.ranges)

    def __and__(self, other: RankSet) -> RankSet:
        found = []
        mine, theirs = iter(self.ranges), iter(other.ranges)
        a, b = next(mine, None), next(theirs, None)
        while a is not None and b is not None:
            if max(a[0], b[0]) <= min(a[1], b[1]):
                found.append((max(a[0], b[0]), min(a[1], b[1])))
            if a[1] <= b[1]:
                a = next(mine, None)
            else:
                b = next(theirs, None)
        return RankSet.from_ranges(found)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __contains__(self, rank: object) -> bool:
        if not isinstance(rank, int):
            return False
        after = bisect_right(self.ranges, (rank, float("inf")))
        return after > 0 and rank <= self.ranges[after - 1][1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RankSet) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    @property
    def first(self) -> int:
        """The lowest rank; the set must not be empty."""
        return self.ranges[0][0]

    def __str__(self) -> str:
        shown = ",".join(
            str(first) if first == last else f"{first}-{last}"
            for first, last in self.ranges[:MAX_RANGES_SHOWN]
        )
        beyond = sum(last - first + 1 for first, last in self.ranges[MAX_RANGES_SHOWN:])
        return f"{shown} and {beyond} more" if beyond else shown

    def __repr__(self) -> str:
        return f"RankSet({str(self)!r})"
