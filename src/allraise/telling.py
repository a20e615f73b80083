"""What an exception for the failures of many ranks says.

Owns the text of ``str()``, and what is retold of a failure within the chain of another
one. Knows nothing of how failures were gathered, nor of live exceptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allraise.bundle import record_of
from allraise.ranks import RankSet
from allraise.record import clip
from allraise.render import format_block, format_traceback

if TYPE_CHECKING:
    from allraise.bundle import Bundle
    from allraise.distinct import Variant
    from allraise.record import Record

# `str()` prints a block a rank, as torch does. Past this many it is no longer
# read but only costs: 100,000 blocks are 190 MB. `.report` has all, in groups.
MAX_BLOCKS: Final = 1024

# Of others, where another rank prints them all. A failure that nobody catches is
# printed by every rank: with a block of each for each, 512 ranks print 262,144.
MAX_BLOCKS_ELSEWHERE: Final = 8

# Of different failures that are retold within the chain of another one.
MAX_RETOLD: Final = 8

# Of a line that is retold, what tells it from others.
MAX_RETOLD_LINE: Final = 1000

# Before each line that is retold: an outline, so that none passes for a header.
_MARK: Final = "  | "


def tell(failures: Bundle, own: int, where: str, *, is_whole: bool) -> str:
    """Write a block for each rank, as `torch` does. Not collective.

    Args:
        failures: Those of all ranks, as far as they are known here.
        own: This rank.
        where: Who has the whole report, where that is not this rank; there, all is
            printed.
        is_whole: Whether all is known here nevertheless.
    """
    known = {
        rank: (shape, variant)
        for shape, variant, ranges in failures.held()
        for first, last in ranges
        for rank in range(first, last + 1)
    }
    ranks = sorted(known)
    parts = [f"CheckpointException ranks:dict_keys({_keys(ranks)})\n"]
    shown = ranks[:MAX_BLOCKS]
    if where and len(ranks) - (own in known) > MAX_BLOCKS_ELSEWHERE:
        others = [rank for rank in ranks if rank != own]
        shown = [own] * (own in known) + others[:MAX_BLOCKS_ELSEWHERE]
    read: dict[tuple[bytes, Variant], Record] = {}  # each once, and no more than shown
    for rank in shown:
        packed = known[rank]
        if packed not in read:
            read[packed] = record_of(*packed)
        parts.append(format_block(read[packed], rank))
    left = len(ranks) - len(shown)
    if left:
        hint = where or ".report shows all in groups"
        parts.append(f"[{_more(left)}; {hint}]\n")
    elif where and not is_whole:
        parts.append(f"[{where}]\n")
    return "".join(parts)


def _more(number: int) -> str:
    return f"{number} more {'rank' if number == 1 else 'ranks'} failed"


def _keys(ranks: list[int]) -> str:
    left = len(ranks) - MAX_BLOCKS
    if left <= 0:
        return str(ranks)
    return f"{str(ranks[:MAX_BLOCKS])[:-1]}, ... {left} more]"


def name_ranks(ranks: RankSet) -> str:
    """Return ``rank 3`` or ``ranks 3-5``. Not collective."""
    return f"rank {ranks}" if len(ranks) == 1 else f"ranks {ranks}"


def retell(failures: Bundle, own: int, where: str, room: int) -> str:
    """Write what is known of a failure that another one comes from. Not collective.

    Args:
        failures: Those of all ranks, as far as they are known here.
        own: The rank whose own failure is told anyway, further down the chain; or -1.
        where: Who has the whole report, where that is not this rank.
        room: How many characters it may have, more or less.

    Returns:
        Lines, each marked and ended; alike failures once. No lines where there is
        nothing to add to the rank's own.
    """
    known = [item for item in _distinct(failures, where) if [*item[0]] != [own]]
    known.sort(key=lambda item: item[0].first)
    lines: list[str] = []
    shown = known[:MAX_RETOLD]
    for ranks, record in shown:
        if where:
            text = f" {_headline(record)} [{where}]"
        else:
            text = f"\n{format_traceback(record)}"
        text = f"{name_ranks(ranks)}:{text}"
        lines += _fitting(text, room // len(shown))
    left = sum(len(ranks) for ranks, _ in known[MAX_RETOLD:])
    if left:
        lines.append(f"[{_more(left)}]")
    return "".join(f"{_MARK}{line}\n" for line in lines)


def _distinct(failures: Bundle, where: str) -> list[tuple[RankSet, Record]]:
    """Return what is to be told apart.

    Where only headlines are known, the same ones on all ranks that know no more:
    also a rank's own, so that what they tell is alike.
    """
    if not where:
        return list(failures.records())
    alike: dict[str, tuple[list[tuple[int, int]], Record]] = {}
    for ranks, record in failures.records():
        alike.setdefault(_headline(record), ([], record))[0].extend(ranks.ranges)
    return [(RankSet.from_ranges(ranges), found) for ranges, found in alike.values()]


def _headline(record: Record) -> str:
    link = record.links[0]
    first = link.message.partition("\n")[0]
    return f"{link.type_name}: {first}" if first else link.type_name


def _fitting(text: str, room: int) -> list[str]:
    """Return the lines of a text; of a long one both ends, where causes are."""
    lines = [clip(line, MAX_RETOLD_LINE) for line in text.splitlines()]
    head, tail = 0, len(lines)
    # In turn from both ends, until there is no more room.
    while head < tail:
        at_end = head > len(lines) - tail
        room -= len(lines[tail - 1 if at_end else head]) + len(_MARK) + 1
        if room < 0:
            break
        head, tail = (head, tail - 1) if at_end else (head + 1, tail)
    left = tail - head
    if not left:
        return lines
    return [*lines[:head], f"... [{left} more lines]", *lines[tail:]]


def in_chain(name: str, step: str, ranks: RankSet) -> str:
    """Write the line that stands for a reported failure in another one's chain.

    Not collective.
    """
    what = f"step {step!r}" if step else "a step"
    where = "reported where it was raised"
    return f"{name}: {what} failed on {name_ranks(ranks)}, {where}\n"
