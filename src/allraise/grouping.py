"""From the failures of many ranks to the few groups that people read.

Owns what counts as alike, and the order in which groups are told. Knows nothing
of MPI or of text layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from allraise.ranks import RankSet
from allraise.record import BLOCKED, DIED, FAILURE, HANG

if TYPE_CHECKING:
    from allraise.bundle import Bundle
    from allraise.record import Link, Record

_VARYING: Final = re.compile(r"0[xX][0-9a-fA-F]+|\d+")


def fold_numbers(text: str) -> str:
    """Replace what usually differs between ranks: numbers and addresses."""
    return _VARYING.sub("#", text)


class Message(NamedTuple):
    """Messages that differ only in numbers, and the ranks that have them."""

    ranks: RankSet
    record: Record  # of the first rank
    n_different: int


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that failed alike: the same types at the same frames."""

    ranks: RankSet
    kind: str
    messages: tuple[Message, ...]
    first_time: float

    @property
    def record(self) -> Record:
        """The record of the first rank."""
        return self.messages[0].record


def _key(links: tuple[Link, ...]) -> tuple[object, ...]:
    return tuple((k.type_name, k.frames, k.cause, k.context, k.members) for k in links)


def _order(kind: str) -> int:
    # Who hangs where it waits for nobody is likely what the others wait for.
    return {DIED: 0, FAILURE: 1, HANG: 2, BLOCKED: 4}.get(kind, 3)


def _dated(
    bundle: Bundle, records: list[tuple[RankSet, Record]]
) -> dict[int, tuple[object, ...]]:
    """Return of which group a rank's time is, where a rank is in several: the first."""
    found: dict[int, tuple[object, ...]] = {}
    if sum(len(ranks) for ranks, _ in records) > len(bundle.ranks):
        for ranks, record in records:
            for rank in bundle.origins:
                if rank in ranks:
                    found.setdefault(rank, (record.kind, _key(record.links)))
    return found


def group_records(bundle: Bundle) -> list[Group]:
    """Sort failures into groups: deaths, failures, consequences, who waits; by time.

    Not collective.
    """
    alike: dict[tuple[object, ...], dict[str, list[tuple[RankSet, Record]]]] = {}
    records = list(bundle.records())
    dated = _dated(bundle, records)
    for ranks, record in records:
        folded = fold_numbers("".join(line for k in record.links for line in k.lines))
        messages = alike.setdefault((record.kind, _key(record.links)), {})
        messages.setdefault(folded, []).append((ranks, record))
    groups = []
    for key, messages in alike.items():
        made = []
        for found in messages.values():
            found.sort(key=lambda item: item[0].first)
            ranks = RankSet.from_ranges(p for r, _ in found for p in r.ranges)
            made.append(Message(ranks, found[0][1], len(found)))
        made.sort(key=lambda message: message.ranks.first)
        ranks = RankSet.from_ranges(p for m in made for p in m.ranks.ranges)
        first = min(
            (
                origin[2]
                for rank, origin in bundle.origins.items()
                if rank in ranks and dated.get(rank, key) == key
            ),
            default=float("inf"),
        )
        groups.append(Group(ranks, str(key[0]), tuple(made), first))
    groups.sort(key=lambda g: (_order(g.kind), g.first_time, g.ranks.first))
    return groups
