"""What all ranks are told of each other's failures, where one has the report.

Owns how much that is, and its form on the wire: less than a bundle, for the root makes
it while all wait, and most ranks never read it.
"""

from __future__ import annotations

from typing import Final

from allraise.bundle import Bundle
from allraise.damage import WireError, check_ranges, check_types
from allraise.ranks import RankSet
from allraise.record import FAILURE, clip, minimal
from allraise.wire import dump_compressed, load_compressed, peek

# So many different failures, with so many characters of each first line.
MAX_SUMMARY_VARIANTS: Final = 64
MAX_SUMMARY_CHARS: Final = 200


def summarise(bundle: Bundle) -> bytes:
    """Return type and first line of each failure, bounded.

    Not collective.

    Returns:
        No bytes where nobody failed.
    """
    told: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    types: set[tuple[str, str]] = set()
    for shape, (text, _), ranges in bundle.failures().held():
        try:
            kind, name, message = peek(shape, text)
        except WireError as error:
            kind, name, message = FAILURE, "<unknown>", str(error)
        name = name[:MAX_SUMMARY_CHARS]
        if len(types) >= MAX_SUMMARY_VARIANTS and (kind, name) not in types:
            name = "(other types)"
        types.add((kind, name))
        first = ""
        if len(told) < MAX_SUMMARY_VARIANTS:
            first = clip(message.partition("\n")[0], MAX_SUMMARY_CHARS)
        told.setdefault((kind, name, first), []).extend(ranges)
    return dump_compressed(list(told.items())) if told else b""


def summarise_one(rank: int, name: str, first: str) -> bytes:
    """Return the summary of one failure, by its type's name and its first line.

    Not collective.
    """
    return dump_compressed([((FAILURE, name, first), ((rank, rank),))])


def read_summary(data: bytes, where: str) -> Bundle:
    """Read what `summarise` has made.

    Not collective.

    Args:
        data: It.
        where: Why the exceptions themselves are not there, and who has them.

    Raises:
        WireError: The bytes are damaged.
    """
    try:
        summary = Bundle()
        for (kind, name, first), ranges in load_compressed(data):
            check_types((str, kind), (str, name), (str, first))
            check_ranges(ranges)
            record = minimal(name, first, kind, where)
            summary.add(RankSet.from_ranges(ranges), record)
    except WireError:
        raise
    except Exception as error:
        msg = f"a damaged summary: {type(error).__name__}: {error}"
        raise WireError(msg) from error
    return summary
