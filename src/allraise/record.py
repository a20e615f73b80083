"""The record of one failure: plain data.

Owns what is known of one rank's exception. Knows nothing of live exceptions, of text
for people, of bytes, or of MPI::

    exception --capture--> Record --pack--> Packed, see `wire`
    exception <--rebuild-- Record <-unpack- Packed
"""

from __future__ import annotations

from typing import Final, NamedTuple

# Kinds of records: what failed, and what only stopped because of that.
FAILURE: Final = "failure"
INTERRUPTED: Final = "interrupted"
HANG: Final = "hang"  # it was not there when a time limit passed
DIED: Final = "died"  # the process, without a word
HANDLED: Final = "handled"  # before another failure, which ended the job
BLOCKED: Final = "blocked"  # it waits for other ranks

# What others only suffer from.
CAUSES: Final = frozenset({FAILURE, DIED})


# In the environment of a report: of every rank it is known whether it failed, so that
# those that the report does not name did not.
ALL_KNOWN: Final = "all_known"


class Frame(NamedTuple):
    """One frame of a stack, with what is needed to print it anywhere.

    ``source`` is the text of lines ``lineno`` to ``end_lineno`` as the failing
    rank read it: another node may have no such file, or another version of it.
    ``repeat`` counts consecutive identical frames (a recursion).
    """

    filename: str
    lineno: int | None
    end_lineno: int | None
    colno: int | None
    end_colno: int | None
    name: str
    source: str
    repeat: int = 1


class Link(NamedTuple):
    """One exception of a record: the failure itself, a cause, or a member.

    ``lines`` is what Python prints below the stack (type and message, the
    caret of a syntax error, "did you mean", notes), written on the failing
    rank because only there all of it is known. ``cause``, ``context`` and
    ``members`` are positions in `Record.links`, -1 and None where there is
    none; ``hidden`` counts the members of a group that were not kept.
    """

    type_name: str
    message: str = ""
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    cause: int = -1
    context: int = -1
    members: tuple[int, ...] | None = None
    hidden: int = 0


class Origin(NamedTuple):
    """Where and when a failure happened: ``time`` is seconds since the epoch."""

    host: str = ""
    pid: int = 0
    time: float = 0.0


NOWHERE: Final = Origin()


class Record(NamedTuple):
    """What is known of one rank's failure.

    ``links[0]`` is the exception itself. ``bodies`` holds, for the first links,
    the pickled exception object, or an empty bytes object and, in ``reasons``,
    why it could not travel. ``kind`` tells a failure from a consequence.
    """

    links: tuple[Link, ...]
    bodies: tuple[bytes, ...] = ()
    reasons: tuple[str, ...] = ()
    origin: Origin = NOWHERE
    kind: str = "failure"


def clip(text: str, limit: int | None) -> str:
    """Cut a text that is too long, and say how much more there was."""
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]}... [{len(text) - limit} more characters]"


def minimal(
    type_name: str, message: str = "", kind: str = "failure", reason: str = ""
) -> Record:
    """Make a record of nothing but a type and a message: the last resort."""
    line = f"{type_name}: {message}\n" if message else f"{type_name}\n"
    link = Link(type_name, message, (line,))
    return Record((link,), reasons=(reason,) if reason else (), kind=kind)
