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
from pathlib import Path
from traceback import StackSummary, TracebackException, extract_tb
from typing import TYPE_CHECKING, Any, Final

from allraise.bodies import dump_exception
from allraise.frames import frames_from_summary
from allraise.parts import type_name_of
from allraise.record import Frame, Link, Origin, Record, minimal

if TYPE_CHECKING:
    from types import TracebackType

# A message can hold a whole array. A report is read by people.
MAX_MESSAGE_CHARS: Final = 16 * 1024

# A chain of causes longer than this is a loop that retried; its end is told.
MAX_LINKS: Final = 200

# Python prints 15 members of a group; the report file has more.
MAX_MEMBERS: Final = 100

# Of a chain, the failure and its nearest causes travel as objects as well.
MAX_BODIES: Final = 8

_PACKAGE: Final = str(Path(__file__).parent) + os.sep


def is_own_file(filename: str) -> bool:
    """Tell whether a source file is one of allraise's."""
    return filename.startswith(_PACKAGE)


def clip(text: str, limit: int | None = MAX_MESSAGE_CHARS) -> str:
    """Cut a text that is too long, and say how much there was."""
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]}... [{len(text) - limit} more characters left out]"


def _builtin(name: str, exc: BaseException) -> Any:
    """Read an attribute as `BaseException` has it, whatever the class says."""
    return BaseException.__dict__[name].__get__(exc)


def _own_frames_dropped(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Leave out where allraise called the user's function: it is no news."""
    for position, frame in enumerate(frames):
        if not is_own_file(frame.filename):
            return frames[position:]
    return frames  # allraise's own error: then they are the news


def _brief_lines(exc: BaseException | None) -> tuple[str, ...]:
    """Return the one line of an exception whose text is a report of its own.

    A `CheckpointException` among the causes has been reported where it was
    raised: a report never nests.
    """
    try:
        return (type(exc)._allraise_brief(exc),)  # type: ignore[union-attr]  # noqa: SLF001
    except BaseException:  # no such method, for one
        return ()


def _text_of(
    te: TracebackException, exc: BaseException | None, limit: int | None
) -> Link:
    """Take down the text of one exception, without its place in the chain."""
    name = type_name_of(type(exc)) if exc is not None else "<unknown>"
    lines = _brief_lines(exc)
    if not lines:
        try:
            lines = tuple(clip(line, limit) for line in te.format_exception_only())
        except BaseException:
            lines = (f"{name}: <exception str() failed>\n",)
    try:
        message = clip(lines[0] if _brief_lines(exc) else str(te), limit)
    except BaseException:
        message = "<exception str() failed>"
    try:
        notes = tuple(clip(str(note), limit) for note in te.__notes__ or ())
    except BaseException:
        notes = ()
    return Link(name, message, lines, notes, frames_from_summary(te.stack))


def _links_of(
    te: TracebackException, exc: BaseException, limit: int | None
) -> tuple[list[Link], list[BaseException | None]]:
    """Flatten a chain of causes and members, nearest first, without recursion."""
    links = [_text_of(te, exc, limit)]
    holders: list[BaseException | None] = [exc]  # whose object is carried
    queue: list[tuple[int, TracebackException, BaseException]] = [(0, te, exc)]

    def add(child: TracebackException, value: BaseException, *, carried: bool) -> int:
        if len(links) >= MAX_LINKS:
            text = "[the rest of this chain is left out]\n"
            links.append(Link("...", "", (text,)))
            holders.append(None)
        else:
            links.append(_text_of(child, value, limit))
            holders.append(value if carried else None)
            queue.append((len(links) - 1, child, value))
        return len(links) - 1

    while queue:
        position, te, exc = queue.pop(0)
        carried = holders[position] is not None
        cause = context = -1
        members: tuple[int, ...] | None = None
        hidden = 0
        if te.__cause__ is not None:
            cause = add(te.__cause__, _builtin("__cause__", exc), carried=carried)
        elif te.__context__ is not None and not te.__suppress_context__:
            context = add(te.__context__, _builtin("__context__", exc), carried=carried)
        if te.exceptions is not None:
            inner = BaseExceptionGroup.__dict__["exceptions"].__get__(exc)
            shown = te.exceptions[:MAX_MEMBERS]
            # A member travels in the body of its group.
            members = tuple(
                add(child, value, carried=False)
                for child, value in zip(shown, inner, strict=False)
            )
            hidden = len(inner) - len(members)
        links[position] = links[position]._replace(
            cause=cause, context=context, members=members, hidden=hidden
        )
    return links, holders


def _by_hand(
    exc: BaseException, traceback: TracebackType | None, limit: int | None
) -> Link:
    """Take down one exception where `TracebackException` itself gives up."""
    name = type_name_of(type(exc))
    try:
        message = clip(str(exc), limit)
    except BaseException:
        message = "<exception str() failed>"
    try:
        frames = frames_from_summary(extract_tb(traceback))
    except BaseException:
        frames = ()
    line = f"{name}: {message}\n" if message else f"{name}\n"
    return Link(name, message, (line,), (), frames)


def _capture_text(
    exc: BaseException, summary: StackSummary | None, limit: int | None
) -> tuple[list[Link], list[BaseException | None]]:
    traceback = None if summary is not None else _builtin("__traceback__", exc)
    links: list[Link]
    holders: list[BaseException | None]
    try:
        # compact: of cause and context, only what Python would print.
        te = TracebackException(type(exc), exc, traceback, compact=True)
        links, holders = _links_of(te, exc, limit)
    except BaseException:
        links, holders = [_by_hand(exc, traceback, limit)], [exc]
    if summary is not None:
        links[0] = links[0]._replace(frames=frames_from_summary(summary))
    return links, holders


def _origin() -> Origin:
    try:
        return Origin(os.uname().nodename, os.getpid(), time.time())
    except BaseException:
        return Origin("", os.getpid(), time.time())


def _with_objects(
    links: list[Link], holders: list[BaseException | None], **rest: Any
) -> Record:
    bodies, reasons = [], []
    for holder in holders[:MAX_BODIES]:
        body, reason = (b"", "") if holder is None else dump_exception(holder)
        bodies.append(body)
        reasons.append(reason)
    return Record(tuple(links), tuple(bodies), tuple(reasons), **rest)


def capture(exc: BaseException, *, kind: str = "failure") -> Record:
    """Take down an exception for the wire.

    Not collective. Never raises.

    Args:
        exc: The exception; it is not changed, and nothing of it is kept alive.
        kind: ``failure``, or which consequence of one it is.

    Returns:
        The record: text and frames always; objects as far as they can travel.
    """
    try:
        links, holders = _capture_text(exc, None, MAX_MESSAGE_CHARS)
        links[0] = links[0]._replace(frames=_own_frames_dropped(links[0].frames))
        return _with_objects(links, holders, origin=_origin(), kind=kind)
    except BaseException as error:
        reason = f"capturing it failed: {type_name_of(type(error))}"
        return minimal(type_name_of(type(exc)), kind=kind, reason=reason)


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
    try:
        stack = StackSummary() if summary is None else summary
        links, holders = _capture_text(exc, stack, None)
        return _with_objects(links, holders) if objects else Record(tuple(links))
    except BaseException:
        return minimal(type_name_of(type(exc)))
