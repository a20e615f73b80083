"""From a record to text.

Owns how an exception is written: as Python writes it, byte for byte, with the
rank in the header of the last traceback. Knows nothing of communicators and of
how ranks are grouped.

The formatting is Python's own: a `TracebackException` is filled from the record
instead of from a live exception, and formats itself.
"""

from __future__ import annotations

from functools import lru_cache
from traceback import StackSummary, TracebackException
from typing import TYPE_CHECKING, Any, Final

from allraise.frames import summary_from_frames

if TYPE_CHECKING:
    from collections.abc import Generator

    from allraise.record import Frame, Record

HEADER: Final = "Traceback (most recent call last):"


class _TopStack(StackSummary):
    """A stack whose header is printed even where there are no frames."""

    def __bool__(self) -> bool:
        return True


class _Recorded(TracebackException):
    """A `TracebackException` that reads a record."""

    def __init__(self, record: Record, position: int) -> None:
        # Not super().__init__: it reads a live exception. These are the
        # attributes that `format` uses, documented or named in its docstring.
        link = record.links[position]
        self.max_group_width = 15
        self.max_group_depth = 10
        self.stack = summary_from_frames(link.frames)
        if position == 0:
            self.stack = _TopStack(self.stack)
        self.__cause__ = self.__context__ = None
        self.__suppress_context__ = link.context < 0
        self.exceptions: Any = None
        self._lines = link.lines

    def format_exception_only(self, **_options: Any) -> Generator[str]:
        yield from self._lines


def _recorded(record: Record) -> _Recorded:
    """Fill the whole chain, without recursion."""
    made = [_Recorded(record, position) for position in range(len(record.links))]
    for item, link in zip(made, record.links, strict=True):
        if link.cause >= 0:
            item.__cause__ = made[link.cause]
        if link.context >= 0:
            item.__context__ = made[link.context]
        if link.members is not None:
            # Those beyond are only counted.
            members: list[Any] = [made[member] for member in link.members]
            item.exceptions = members + [None] * link.hidden
    return made[0]


@lru_cache(maxsize=64)  # ranks that fail alike share their frames
def _format_frames(frames: tuple[Frame, ...]) -> str:
    return "".join(summary_from_frames(frames).format())


def format_traceback(record: Record, label: str = "") -> str:
    """Write an exception as Python writes it, with a label in its header.

    Not collective.

    Args:
        record: What to write.
        label: Stands behind the header of the last traceback: ``(RANK 3)``.

    Returns:
        Lines, each ended; the exception itself last, its causes before it.
    """
    link = record.links[0]
    header = f"{HEADER} {label}\n" if label else f"{HEADER}\n"
    if len(record.links) == 1 and link.members is None:
        return f"{header}{_format_frames(link.frames)}{''.join(link.lines)}"
    top = _recorded(record)
    chunks = list(top.format(chain=True))
    # The exception itself comes last, in as many chunks as it has alone. Not by
    # chain=False: that leaves out the causes of a group's members as well.
    top.__cause__ = top.__context__ = None
    alone = len(list(top.format(chain=True)))
    position = len(chunks) - alone
    chunks[position] = chunks[position].replace(f"{HEADER}\n", header, 1)
    return "".join(chunks)


def escape_surrogates(text: str) -> str:
    """Make a text printable by any UTF-8 stream, changing nothing else.

    A lone surrogate (a file name that is no UTF-8) makes `print` raise.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def format_block(record: Record, rank: int) -> str:
    """Write one rank's block of a report, as `torch` writes it.

    Not collective.
    """
    return escape_surrogates(format_traceback(record, f"(RANK {rank})"))
