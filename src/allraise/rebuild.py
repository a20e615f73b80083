"""From a record to an exception.

Owns what a receiver makes of a record: the exception object with its stack and
its chain. Knows nothing of text for people.

One record that cannot be rebuilt costs its own object, never another rank's: it
becomes a `RemoteError` that says why.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from allraise.bodies import load_exception
from allraise.chains import describe
from allraise.errors import RemoteError
from allraise.frames import summary_from_frames, traceback_from_frames
from allraise.parts import set_traceback

if TYPE_CHECKING:
    from traceback import StackSummary
    from types import TracebackType

    from allraise.record import Frame, Record


@lru_cache(maxsize=64)  # ranks that fail alike share their frames
def _traceback(frames: tuple[Frame, ...]) -> TracebackType | None:
    return traceback_from_frames(frames)


def _object(record: Record, position: int) -> BaseException:
    """Load the object of one link, or make what stands in for it."""
    link = record.links[position]
    body = record.bodies[position] if position < len(record.bodies) else b""
    reason = record.reasons[position] if position < len(record.reasons) else ""
    if body:
        try:
            return load_exception(body)
        except Exception as error:  # a class this rank cannot import, say
            reason = describe(error)
    return RemoteError(link.type_name, link.message, reason)


def rebuild_traceback(record: Record) -> TracebackType | None:
    """Make a traceback like that of the exception. Not collective."""
    return _traceback(record.links[0].frames)


def rebuild(record: Record) -> tuple[BaseException, StackSummary]:
    """Make the exception and the summary of its stack again.

    Not collective. Never raises.

    Args:
        record: From any rank.

    Returns:
        The exception, of its own type or a `RemoteError`, with a rebuilt
        ``__traceback__``, its nearest causes linked; and its stack as the
        failing rank saw it, source text and columns included.
    """
    top = _object(record, 0)
    made = {0: top}
    position = 0
    while True:
        link, exc = record.links[position], made[position]
        set_traceback(exc, _traceback(link.frames))
        following = max(link.cause, link.context)
        if not 0 <= following < len(record.bodies) or following in made:
            break
        made[following] = _object(record, following)
        name = "__cause__" if link.cause >= 0 else "__context__"
        # The descriptor leaves __suppress_context__ as it travelled.
        suppress = BaseException.__dict__["__suppress_context__"]
        before = suppress.__get__(exc)
        BaseException.__dict__[name].__set__(exc, made[following])
        suppress.__set__(exc, before)
        position = following
    return top, summary_from_frames(record.links[0].frames)
