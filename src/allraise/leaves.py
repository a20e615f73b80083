"""The failures of many ranks as an exception group.

Owns what a leaf is made of. Knows nothing of how failures were gathered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allraise.copies import likeness
from allraise.errors import RemoteError
from allraise.parts import add_note, set_traceback
from allraise.ranks import RankSet
from allraise.rebuild import rebuild, rebuild_traceback
from allraise.record import NOWHERE, Origin
from allraise.telling import name_ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.bundle import Bundle
    from allraise.record import Record


def make_group(
    step: str, bundle: Bundle, live_of: Callable[[int], BaseException | None]
) -> BaseExceptionGroup[Any]:
    """Make a group of one leaf a rank, of new objects.

    Not collective.

    Args:
        step: The step that failed.
        bundle: The failures.
        live_of: Returns a rank's exception as it was raised, if it is here.

    Raises:
        ValueError: There is no failure: a group cannot be empty.
    """
    leaves = {}
    for ranks, record in bundle.failures().records():
        for rank in ranks:
            origin = Origin(*bundle.origins.get(rank, NOWHERE))
            place = f" on {origin.host}, pid {origin.pid}" if origin.pid else ""
            leaves[rank] = _leaf(record, live_of(rank), f"rank {rank}{place}")
    if not leaves:
        msg = "no rank failed: an exception group cannot be empty"
        raise ValueError(msg)
    title = f"step {step!r}" if step else "failures"
    ordered = [leaves[rank] for rank in sorted(leaves)]
    places = name_ranks(RankSet(leaves))
    return BaseExceptionGroup(f"{title} on {places}", ordered)


def _leaf(record: Record, live: BaseException | None, note: str) -> BaseException:
    exc = rebuild(record)[0] if live is None else likeness(live)
    try:
        isinstance(exc, Exception)  # as the group asks
    except BaseException:  # of what is none, its __class__, which is a user's
        link = record.links[0]
        exc = RemoteError(link.type_name, link.message, "a group cannot hold it")
    if exc is live:  # there is no other like it: the user's own stays as it is
        return exc
    set_traceback(exc, rebuild_traceback(record))
    add_note(exc, note)
    return exc
