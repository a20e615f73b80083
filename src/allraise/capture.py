"""From a live exception to its record.

Owns what is taken down of an exception on the rank where it was raised. Knows
nothing of ranks and communicators.

Everything here runs between ``except`` and the collective, where a rank that
raises leaves all others waiting. So nothing raises: what user code (``__str__``,
``__repr__``, ``__getattr__``, pickling hooks) does wrong costs a detail, never
the record, and `capture` ends in a record of the type's name alone where all
else fails.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from traceback import StackSummary, TracebackException
from typing import Any, Final, NamedTuple

from allraise.bodies import dump_exception
from allraise.chains import (
    attributes_of,
    cause_of,
    context_of,
    is_context_hidden,
    traceback_of,
    type_name_of,
)
from allraise.damage import check_links
from allraise.frames import frames_from_summary, frames_from_traceback
from allraise.own import without_own
from allraise.record import Link, Origin, Record, clip, minimal

# A message can hold a whole array. A report is read by people. The text is in the
# record twice, and perhaps in the object: a merged report must have room for several.
MAX_MESSAGE_CHARS: Final = 64 * 1024

# Of each cause and member, of which there may be hundreds.
MAX_CAUSE_CHARS: Final = 16 * 1024

# A chain of causes longer than this is a loop that retried; its end is told.
MAX_LINKS: Final = 200

# Python prints 15 members of a group; the report file has more.
MAX_MEMBERS: Final = 100

# Of a chain, the failure and its nearest causes travel as objects as well.
MAX_BODIES: Final = 8

# Of all agreed failures in a chain, what is told of them again.
MAX_RETOLD_CHARS: Final = 16 * 1024

# What Python prints where __str__ raises.
FAILED: Final = "<exception str() failed>"


def _brief_of(exc: BaseException, room: int) -> str:
    """Return the text of an exception whose own text is a report.

    A `CheckpointException` among the causes has been reported where it was
    raised. It is a line here, and in the room that is left what others failed
    with: a report never nests without end.
    """
    try:
        brief = type(exc)._allraise_brief(exc, room)  # type: ignore[attr-defined]  # noqa: SLF001
    except BaseException:  # no such method, for one
        return ""
    return brief if type(brief) is str else ""


class _Told(NamedTuple):
    """An exception, and what Python made of it; None where Python gave up."""

    exc: BaseException
    te: TracebackException | None


def _clipped_str(value: object, limit: int | None) -> str:
    try:
        return clip(str(value), limit)
    except BaseException:  # __str__ is user code, and len() of what it returns
        return FAILED


def _notes_of(exc: BaseException, te: TracebackException | None) -> list[Any]:
    try:
        found = attributes_of(exc).get("__notes__") if te is None else te.__notes__
        return list(found or ())
    except BaseException:
        return []


def _text_of(told: _Told, limit: int | None, brief: str) -> Link:
    """Take down the text of one exception, without its place in the chain."""
    exc, te = told
    name = type_name_of(type(exc))
    message = _clipped_str(exc if te is None else te, limit)
    notes = tuple(_clipped_str(note, limit) for note in _notes_of(exc, te))
    lines: tuple[str, ...]
    if brief:
        message, lines = brief, (brief,)
    elif te is None:
        first = f"{name}: {message}\n" if message else f"{name}\n"
        lines = (first, *(f"{note}\n" for note in notes))
    else:
        # Cut where the message is, which stands behind the type, and ended in any case.
        room = None if limit is None else limit + len(name) + len(": ")
        found = (line.removesuffix("\n") for line in te.format_exception_only())
        lines = tuple(f"{clip(line, room)}\n" for line in found)
    if te is None:
        frames = frames_from_traceback(traceback_of(exc))
    else:
        frames = frames_from_summary(te.stack)
    return Link(name, message, lines, notes, frames)


class _Following(NamedTuple):
    """What hangs on an exception; at most one of cause and context."""

    cause: _Told | None = None
    context: _Told | None = None
    members: tuple[_Told, ...] | None = None


def _following(told: _Told, met: set[int]) -> _Following:
    exc, te = told
    cause: Any = cause_of(exc)
    context: Any = context_of(exc)
    members = None
    if issubclass(type(exc), BaseExceptionGroup):
        members = BaseExceptionGroup.__dict__["exceptions"].__get__(exc)
    if te is not None:
        # It has been careful about cycles, and about what Python prints.
        return _Following(
            _Told(cause, te.__cause__) if te.__cause__ is not None else None,
            _Told(context, te.__context__)
            if te.__cause__ is None
            and te.__context__ is not None
            and not te.__suppress_context__
            else None,
            tuple(_Told(*pair) for pair in zip(members, te.exceptions, strict=True))
            if members is not None and te.exceptions is not None
            else None,
        )
    hidden = cause is not None or is_context_hidden(exc)
    return _Following(
        _Told(cause, None) if cause is not None and id(cause) not in met else None,
        _Told(context, None)
        if context is not None and not hidden and id(context) not in met
        else None,
        None
        if members is None
        else tuple(_Told(m, None) for m in members if id(m) not in met),
    )


def _links_of(
    top: _Told, limit: int | None, beside: BaseException | None
) -> tuple[list[Link], list[BaseException | None]]:
    """Flatten a chain of causes and members, nearest first, without recursion."""
    room = MAX_RETOLD_CHARS

    rest = None if limit is None else min(limit, MAX_CAUSE_CHARS)

    def text_of(told: _Told, limit: int | None = rest) -> Link:
        nonlocal room
        brief = _brief_of(told.exc, 0 if told.exc is beside else room)
        room = max(0, room - len(brief))
        return _text_of(told, limit, brief)

    links = [text_of(top, limit)]
    holders: list[BaseException | None] = [top.exc]  # whose object is carried
    queue = deque([(0, top)])
    met = {id(top.exc)}

    def add(told: _Told | None, *, carried: bool) -> int:
        if told is None:
            return -1
        met.add(id(told.exc))
        if len(links) >= MAX_LINKS:
            text = "[the rest of this chain is left out]\n"
            links.append(Link("...", "", (text,)))
            holders.append(None)
        else:
            links.append(text_of(told))
            holders.append(told.exc if carried else None)
            queue.append((len(links) - 1, told))
        return len(links) - 1

    while queue:
        position, told = queue.popleft()
        carried = holders[position] is not None
        following = _following(told, met)
        cause = add(following.cause, carried=carried)
        context = add(following.context, carried=carried)
        members: tuple[int, ...] | None = None
        hidden = 0
        if following.members is not None:
            shown = following.members[:MAX_MEMBERS]
            # A member travels in the body of its group.
            members = tuple(add(member, carried=False) for member in shown)
            hidden = len(following.members) - len(shown)
        links[position] = links[position]._replace(
            cause=cause, context=context, members=members, hidden=hidden
        )
    return links, holders


def _capture_text(
    exc: BaseException,
    summary: StackSummary | None,
    limit: int | None,
    beside: BaseException | None = None,
) -> tuple[list[Link], list[BaseException | None]]:
    traceback = None if summary is not None else traceback_of(exc)
    try:
        # compact: of cause and context, only what Python would print.
        te = TracebackException(type(exc), exc, traceback, compact=True)
        links, holders = _links_of(_Told(exc, te), limit, beside)
    except BaseException:
        # One exception with a hook that raises spoils the whole chain for
        # Python. By hand, the chain is without carets and suggestions.
        links, holders = _links_of(_Told(exc, None), limit, beside)
    if summary is not None:
        links[0] = links[0]._replace(frames=frames_from_summary(summary))
    return links, holders


def origin_here() -> Origin:
    """Return the host, the process and the time of now. Never raises."""
    try:
        return Origin(os.uname().nodename, os.getpid(), time.time())
    except BaseException:
        return Origin("", os.getpid(), time.time())


def _with_objects(
    links: list[Link], holders: list[BaseException | None], **rest: Any
) -> Record:
    bodies, reasons = [], []
    for holder in holders[:MAX_BODIES]:
        try:
            body, reason = (b"", "") if holder is None else dump_exception(holder)
        except BaseException as error:  # out of memory, say: the text is there
            body, reason = b"", f"pickling raised {type_name_of(type(error))}"
        bodies.append(body)
        reasons.append(reason)
    return Record(tuple(links), tuple(bodies), tuple(reasons), **rest)


def capture(
    exc: BaseException,
    *,
    kind: str = "failure",
    beside: BaseException | None = None,
) -> Record:
    """Take down an exception for the wire.

    Not collective. Never raises.

    Args:
        exc: The exception; it is not changed, and nothing of it is kept alive.
        kind: ``failure``, or which consequence of one it is.
        beside: An agreed failure in its chain that is told beside this one anyway.

    Returns:
        The record: text and frames always; objects as far as they can travel.
    """
    try:
        links, holders = _capture_text(exc, None, MAX_MESSAGE_CHARS, beside)
        without_own(links)
        return _with_objects(links, holders, origin=origin_here(), kind=kind)
    except BaseException as error:
        reason = f"capturing it failed: {type_name_of(type(error))}"
        message = _clipped_str(exc, MAX_MESSAGE_CHARS)
        return minimal(type_name_of(type(exc)), message, kind, reason)


def capture_pair(
    exc: BaseException, summary: StackSummary | None, *, objects: bool
) -> Record:
    """Take down an exception that stays here, with the stack it was given.

    Not collective. Never raises. Nothing is cut: this is for printing, on this
    rank, what is at hand on this rank.

    Args:
        exc: The exception.
        summary: The stack to show instead of the exception's own; None for
            none at all.
        objects: Whether the exception objects go along.
    """
    for stack in (summary, None):  # a summary of something else costs only itself
        with suppress(BaseException):  # its frames are a user's, and so is exc
            # As torch prints it: also a list of tuples.
            frames = StackSummary.from_list([] if stack is None else stack)
            links, holders = _capture_text(exc, frames, None)
            check_links(tuple(links))
            return _with_objects(links, holders) if objects else Record(tuple(links))
    return minimal(type_name_of(type(exc)), _clipped_str(exc, None))
