"""What a reader refuses of bytes that came from elsewhere.

Owns the checks of everything that is read, from a peer or from a file, so that no
other reader has to look again. Not collective.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from allraise.record import Frame, Link

# Of damaged bytes: a frame that claims to be repeated without end.
_MAX_REPEAT: Final = 1 << 20

# Of damaged bytes: more ranks than MPI can number would be gone through.
MAX_RANK: Final = 1 << 24


class WireError(ValueError):
    """Bytes that are not a record of this version."""


def require(holds: bool, what: str) -> None:  # noqa: FBT001 a condition
    """Refuse what is not as it should be. Not collective."""
    if not holds:
        msg = f"{what} is not what it should be"
        raise WireError(msg)


def is_whole(value: object) -> bool:
    """Tell a whole number from a truth value. Not collective."""
    return type(value) is int


def _check_frame(frame: Frame) -> None:
    texts = (frame.filename, frame.name, frame.source)
    require(all(type(text) is str for text in texts), "a frame's text")
    numbers = (frame.lineno, frame.end_lineno, frame.colno, frame.end_colno)
    whole = all(number is None or is_whole(number) for number in numbers)
    require(whole, "a frame's line or column")
    repeat = frame.repeat
    require(is_whole(repeat) and 0 < repeat <= _MAX_REPEAT, "a frame's repeat")


def check_links(links: tuple[Link, ...]) -> None:
    """Refuse what no `capture` makes, so that no reader has to look again.

    Not collective.

    Raises:
        WireError: A field is of another type, or the links are not a tree.
    """
    require(len(links) > 0, "the number of links")
    met = {0}
    for position, link in enumerate(links):
        texts = (link.type_name, link.message, *link.lines, *link.notes)
        require(all(type(text) is str for text in texts), "a link's text")
        require(is_whole(link.hidden) and link.hidden >= 0, "a link's hidden")
        for frame in link.frames:
            _check_frame(frame)
        following = [link.cause, link.context, *(link.members or ())]
        for other in following:
            require(is_whole(other), "the position of a link")
            if other != -1:
                # Each once, and forwards: no cycle, no endless text.
                forwards = position < other < len(links) and other not in met
                require(forwards, "the position of a link")
                met.add(other)
        require(-1 not in following[2:], "a member of a group")
        require(link.members is None or len(link.members) > 0, "a group")


def check_types(*pairs: tuple[type, object]) -> None:
    """Refuse a value that is of another type.

    Not collective.
    """
    for cls, value in pairs:
        if type(value) is not cls:
            msg = f"a {type(value).__name__} where a {cls.__name__} should be"
            raise WireError(msg)


def check_ranges(ranges: Any) -> None:
    """Refuse ranges that are none, or beyond any job.

    Not collective.
    """
    for first, last in ranges:
        if type(first) is not int or type(last) is not int:
            check_types((int, first), (int, last))
        if not 0 <= first <= last <= MAX_RANK:
            msg = f"no ranks are {first} to {last}"
            raise WireError(msg)
    if not ranges:
        msg = "a failure of no rank"
        raise WireError(msg)
