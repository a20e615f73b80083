"""A failure that is told without its stack, by a fingerprint of it.

Owns when that can be done, the fingerprint, and how the stack is written out later.
Knows nothing of MPI::

    rank 3   type, message, object, fingerprint ─┐
    rank 5   type, message, object, fingerprint ─┤
    ...                                          ├─> root ── "rank 3, your stack?"
    rank 9   type, message, object, fingerprint ─┘        <─ the stack, once

Why: a thousand ranks that fail alike have one stack. To write it out, each would read
the same source files and look up each frame's columns, only to have the root find that
it knows all that: most of what a failure costs, and a thousand readers of one file on
a file system that all share.

A failure has an outline if it stands alone, without causes, members and notes, and if
Python prints nothing of it but its stack, its type and its message, all of it in files.
All others are taken down whole, see `capture`.
"""

from __future__ import annotations

import linecache
import pickle
import sys
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

from allraise.bodies import dump_exception
from allraise.capture import MAX_MESSAGE_CHARS, origin_here
from allraise.chains import (
    cause_of,
    context_of,
    is_context_hidden,
    traceback_of,
    type_name_of,
)
from allraise.frames import MAX_FRAMES_EACH_END, frames_from_places, places_of
from allraise.native import NATIVE
from allraise.own import OWN_FOLDER, is_own_file
from allraise.plain import tell_plainly
from allraise.record import Link
from allraise.wire import Packed, pack_outline, pack_shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.frames import Place

# Python prints more of these than type and message: members, the line with the error,
# "did you mean".
_TOLD_WITH_MORE: Final = (
    BaseExceptionGroup,
    SyntaxError,
    NameError,
    AttributeError,
    ImportError,
)


class Outline:
    """A failure in the form that travels, and what makes it whole on its own rank.

    Not collective. Keeps code alive, but no frame and no exception.

    Attributes:
        packed: With a fingerprint in the shape.
    """

    def __init__(
        self, packed: Packed, kind: str, name: str, places: list[Place]
    ) -> None:
        self.packed = packed
        self._kind = kind
        self._name = name
        self._places = places

    def whole(self) -> dict[bytes, bytes]:
        """Write the stack out: return the shape here with the one of `capture`."""
        try:
            return self._shaped(seen_at=self.packed.origin[2])
        except Exception:  # asks a module's loader for the source: user code
            return self._shaped(seen_at=None)

    def whole_while_others_wait(self) -> dict[bytes, bytes]:
        """Return the same; never raises. Nothing where it cannot be had."""
        with suppress(BaseException):  # as a loader may raise
            return self.whole()
        with suppress(BaseException):  # no memory, say
            return self._shaped(seen_at=None)
        return {}

    def _shaped(self, seen_at: float | None) -> dict[bytes, bytes]:
        link = Link(self._name, frames=frames_from_places(self._places, seen_at))
        return {self.packed.shape: pack_shape(self._kind, (link,))}


def outline_of(exc: BaseException, kind: str) -> Outline | None:
    """Take down a failure without writing its stack out.

    Not collective. Never raises.

    Args:
        exc: The exception; it is not changed, and nothing of it is kept alive.
        kind: ``failure``, or which consequence of one it is.

    Returns:
        None where it must be taken down whole.
    """
    try:
        told = tell_plainly(
            exc,
            NATIVE,
            OWN_FOLDER,
            linecache.cache,
            _load_hash(),
            pickle.dumps,
            linecache.lazycache,
        )
        reason = ""
        if told is not None:
            name, message, body, fingerprint, places = told
        elif _may_be_outlined(exc):
            places, message = _places_of(exc), str(exc)
            is_text = type(message) is str and len(message) <= MAX_MESSAGE_CHARS
            if not places or not is_text:
                return None
            name = type_name_of(type(exc))
            body, reason = dump_exception(exc)
            fingerprint = _fingerprint_of(name, places)
        else:
            return None
        shape, variant = pack_outline(kind, name, message, reason, fingerprint)
        host, pid, time = origin_here()
        packed = Packed(shape, variant, (body,), (host, pid, time))
        return Outline(packed, kind, name, places)
    except BaseException:  # __str__, a module's loader: `capture` knows what to do
        return None


def _may_be_outlined(exc: BaseException) -> bool:
    cls, is_hidden = type(exc), is_context_hidden(exc)
    return not (
        issubclass(cls, _TOLD_WITH_MORE)
        or cause_of(exc) is not None
        or (context_of(exc) is not None and not is_hidden)
        or type(cls) is not type  # of a metaclass Python may ask the name
        or getattr(exc, "__notes__", None) is not None
        or exc.__suppress_context__ is not is_hidden
        or hasattr(sys, "tracebacklimit")
    )


def _places_of(exc: BaseException) -> list[Place]:
    """Return where its frames are; nothing where only `capture` can tell."""
    places = places_of(traceback_of(exc))
    first = 0  # allraise called the user's function: it is no news
    while first < len(places) and is_own_file(places[first][0].co_filename):
        first += 1
    del places[:first]
    for code, *_ in places:
        if code.co_filename.startswith("<"):
            return []  # typed at a prompt, or from `exec`: Python may know the source
    if not places or is_own_file(places[-1][0].co_filename):
        return []
    return places if len(places) <= 2 * MAX_FRAMES_EACH_END else []


def _fingerprint_of(name: str, places: list[Place]) -> str:
    """Return what is the same for the same frames, in every process, and else not.

    But for the source: of that, where each instruction stands in it. This comes with
    the code; to read the text is what is to be saved.
    """
    words, tables = [name], []
    for code, instruction, lineno in places:
        # The table counts from the first line. Cython makes code for each line of a
        # function, all with the same table.
        lines = f"{code.co_firstlineno}\0{lineno}\0{instruction}"
        words.append(f"{code.co_filename}\0{code.co_qualname}\0{lines}")
        tables.append(code.co_linetable)
    tables.append("\0".join(words).encode("utf-8", "surrogatepass"))
    digest: str = _load_hash()(b"\0".join(tables)).hexdigest()
    return digest


@cache
def _load_hash() -> Callable[..., Any]:
    # Late because OpenSSL takes three milliseconds to load.
    from hashlib import blake2b

    return partial(blake2b, digest_size=16)
