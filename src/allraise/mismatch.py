"""What is said of where ranks stand that have not raised.

Owns the text where they met at different steps. Knows nothing of communication.
"""

from __future__ import annotations

import sys
from traceback import extract_stack
from typing import TYPE_CHECKING, Final

from allraise.bodies import dump_exception
from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.errors import StepMismatchError
from allraise.frames import frames_from_summary
from allraise.own import is_own_file
from allraise.record import FAILURE, Record

if TYPE_CHECKING:
    from allraise.private import Region

# Where more sets of ranks than this stand apart, reading on tells nothing new; and the
# table is told by each of them.
MAX_POSITIONS: Final = 8


def position_of(region: Region, depth: int, count: int) -> Record:
    """Take down where this rank stands: the step, and the user's line.

    Not collective.
    """
    return stand_of(StepMismatchError(_describe(region, depth, count)), FAILURE)


def stand_of(error: BaseException, kind: str) -> Record:
    """Return the record of an error that is raised where the user's code stands.

    Not collective. Never raises.
    """
    record = capture(error, kind=kind)
    try:
        frame = sys._getframe()  # noqa: SLF001 the documented way to one's caller
        while frame.f_back is not None and is_own_file(frame.f_code.co_filename):
            frame = frame.f_back
        frames = frames_from_summary(extract_stack(frame, limit=1))
    except Exception:  # of what loads the user's source, say
        return record
    return record._replace(
        links=(record.links[0]._replace(frames=frames), *record.links[1:])
    )


def _describe(region: Region, depth: int, count: int) -> str:
    step, kind = (region, "") if isinstance(region, str) else region
    name = f"step {step!r}" if step else "a step without a name"
    name += f" ({kind})" if kind else ""
    return f"{name}, the {_ordinal(count)} at depth {depth}"


def _ordinal(number: int) -> str:
    tens, ones = divmod(number % 100, 10)
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(ones, "th") if tens != 1 else "th"
    return f"{number}{suffix}"


def explain_mismatch(positions: Bundle) -> Bundle:
    """Turn where each rank stands into one error that tells it all.

    Not collective.

    Args:
        positions: The records of `position_of`, from every rank.

    Returns:
        For each rank a `StepMismatchError` with the table, and the rank's line.
    """
    found = sorted(positions.records(), key=lambda item: item[0].first)
    lines = []
    for ranks, record in found[:MAX_POSITIONS]:
        link = record.links[0]
        word = "rank" if len(ranks) == 1 else "ranks"
        place = "".join(f", {f.filename}:{f.lineno}" for f in link.frames)
        lines.append(f"  {word} {ranks}: {link.message}{place}")
    left = len(found) - MAX_POSITIONS
    if left > 0:
        lines.append(f"  [{left} more {'place' if left == 1 else 'places'}]")
    text = "ranks met at different steps:\n" + "\n".join(lines)
    error = StepMismatchError(text)
    told = capture(error).links[0]
    body, _ = dump_exception(error)
    explained = Bundle()
    for ranks, record in found:
        link = told._replace(frames=record.links[0].frames)
        explained.add(ranks, Record((link,), (body,)))
    return Bundle.merge((explained, positions))
