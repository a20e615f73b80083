"""Exception objects as bytes, and back.

Owns the pickled form of an exception: what is tried, in which order, and what
stands in where nothing works. Knows nothing of text or of MPI::

    exception -> Python's own, of plain values: see `native`
              -> parts -> private pickler -> bytes -> verified by one load
                   |  (no user __init__, __new__, __reduce__ or __setattr__ runs)
                   +-> the class's own reducer
                   +-> parts, with what cannot be pickled replaced by its repr
                   +-> b"" and the reason: the text section is all there is

Why parts come first: `BaseException.__reduce__` calls the class with ``args``,
which fails or lies for every class whose ``__init__`` takes something else, and
fails where nothing can be done about it, on the receiver. Parts are what the
object *is*: its class, the fields of its builtin base, ``args``, attributes.

An exception that holds others (a group, an argument) carries each as bytes of
its own, so one that cannot travel costs itself, not the whole.

`tblib.pickling_support.install` is not used: it changes `copyreg` for the whole
process, hence for every other pickle in the job.
"""

from __future__ import annotations

import io
import pickle
import reprlib
from functools import partial
from traceback import StackSummary
from types import MethodDescriptorType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from allraise.chains import describe, type_name_of
from allraise.errors import RemoteError
from allraise.frames import frames_from_summary, summary_from_frames
from allraise.native import dump_native
from allraise.parts import create, fill, make_traceback, plain_frames, take_apart
from allraise.record import Frame, clip

if TYPE_CHECKING:
    from collections.abc import Callable

# An exception that holds a model's state is cut off while it is written, not
# after: see _CappedBuffer.
MAX_BODY_BYTES: Final = 256 * 1024

# Where parts are replaced by their repr, each part that is kept may be so big.
MAX_PART_BYTES: Final = 16 * 1024

# Of a text among them: as long as the longest message that is printed.
MAX_TEXT_BYTES: Final = 64 * 1024

_MAX_BYTES_SHOWN: Final = 32

# Exceptions within exceptions: each level is pickled again by its parent, so
# the cost grows with the depth.
MAX_DEPTH: Final = 8


class _TooLargeError(Exception):
    """The pickle passed its cap."""


class _CappedBuffer(io.BytesIO):
    """A buffer that ends the pickling at the cap: 50 MB cost nothing."""

    def __init__(self, cap: int) -> None:
        super().__init__()
        self._left = cap

    def write(self, data: Any, /) -> int:
        self._left -= memoryview(data).nbytes
        if self._left < 0:
            msg = "larger than the cap"
            raise _TooLargeError(msg)
        return super().write(data)


def bounded_repr(value: Any) -> str:
    """Return a repr of bounded size that never raises."""
    try:
        if type(value) in (bytes, bytearray) and len(value) > _MAX_BYTES_SHOWN:
            # reprlib would write all of it, then cut.
            shown = bytes(value[:_MAX_BYTES_SHOWN])
            return f"{shown!r}... [{len(value)} bytes]"
        return str(reprlib.repr(value))
    except BaseException:  # user code: anything may come out of it
        return f"<{type_name_of(type(value))} object, its repr failed>"


def _make_summary(frames: tuple[tuple[Any, ...], ...]) -> StackSummary:
    return summary_from_frames(tuple(Frame(*frame) for frame in frames))


def _make_nested(body: bytes, *stand_in: str) -> BaseException:
    """Load an exception held by another one; fall back to its stand-in."""
    if body:
        try:
            return load_exception(body)
        except Exception as error:
            name, message, _ = stand_in
            return RemoteError(name, message, describe(error))
    return RemoteError(*stand_in)


class _Held(NamedTuple):
    """What the exceptions around the one that is pickled know.

    ``by`` are the ``id`` of each exception that it is held by. ``done`` are the
    bytes, or the reason, of those pickled before, each with the exception
    itself, so that no other takes its id: every level is pickled more than
    once, and without this the cost would double with every level.
    """

    by: frozenset[int]
    done: dict[int, tuple[BaseException, bytes, str]]


class _Pickler(pickle.Pickler):
    """Pickles one exception; what `reducer_override` sees is never copyreg's."""

    def __init__(
        self,
        buffer: io.BytesIO,
        top: BaseException | None,
        reduce_top: Callable[[Any], Any] | None,
        held: _Held,
    ) -> None:
        super().__init__(buffer, protocol=5)
        self._top = top
        self._reduce_top = reduce_top
        self._held = held

    def reducer_override(self, obj: Any, /) -> Any:
        cls = type(obj)  # not isinstance: __class__ may be a user's property
        if issubclass(cls, BaseException):
            if obj is not self._top:
                return self._reduce_nested(obj)
            if self._reduce_top is not None:
                return self._reduce_top(obj)
            return NotImplemented
        if cls is TracebackType:
            return make_traceback, (plain_frames(obj),)
        if cls is StackSummary:  # 3.13.3 and later keep code objects in it
            plain = tuple(tuple(frame) for frame in frames_from_summary(obj))
            return _make_summary, (plain,)
        return NotImplemented

    def _reduce_nested(self, exc: BaseException) -> Any:
        held = self._held
        body, reason = b"", "an exception that holds itself"
        if id(exc) in held.done:
            _, body, reason = held.done[id(exc)]
        elif id(exc) not in held.by:
            body, reason = dump_exception(exc, with_traceback=True, held=held)
            held.done[id(exc)] = exc, body, reason
        try:
            message = clip(str(exc), MAX_PART_BYTES)
        except BaseException:
            message = "<exception str() failed>"
        return _make_nested, (body, type_name_of(type(exc)), message, reason)


def _dump(
    exc: Any,
    top: BaseException | None,
    reduce_top: Callable[[BaseException], Any] | None,
    held: _Held,
    cap: int = MAX_BODY_BYTES,
) -> bytes:
    buffer = _CappedBuffer(cap)
    _Pickler(buffer, top, reduce_top, held).dump(exc)
    return buffer.getvalue()


def _reduce_exactly(exc: BaseException, *, with_traceback: bool) -> tuple[Any, ...]:
    made_of, state = take_apart(exc, with_traceback=with_traceback)
    return create, made_of, state, None, None, fill


def _reduce_tamed(
    exc: BaseException, *, with_traceback: bool, held: _Held
) -> tuple[Any, ...]:
    made_of, state = take_apart(exc, with_traceback=with_traceback)
    left = MAX_BODY_BYTES // 2  # the other half is for reprs

    def tame(value: Any) -> Any:
        """Return the value, or its repr where it cannot be pickled or is too big."""
        nonlocal left
        if value is None or type(value) in (bool, float):
            return value
        try:
            body = _dump(value, None, None, held, min(left, MAX_PART_BYTES))
            pickle.loads(body)
        except BaseException:  # pickling hooks are user code
            if type(value) is not str:
                return bounded_repr(value)
            # UTF-8 takes up to four bytes for a character.
            width = 1 if value.isascii() else 4
            value = clip(value, min(left, MAX_TEXT_BYTES) // width)
            body = value.encode("utf-8", "surrogatepass")
        left = max(0, left - len(body))
        return value

    state["args"] = tuple(tame(arg) for arg in state["args"])
    for group in ("fields", "slots", "dict"):
        state[group] = {k: tame(v) for k, v in state[group].items()}
    return create, made_of, state, None, None, fill


def has_native_reducer(exc: BaseException) -> bool:
    """Tell a C or Rust type whose own reducer knows best.

    It keeps state where no descriptor shows it. Not collective.
    """
    try:
        reducer: Any = type(exc).__reduce__
    except BaseException:  # a metaclass may hide it
        return False
    return (
        type(reducer) is MethodDescriptorType
        and reducer.__objclass__.__module__ != "builtins"
    )


def dump_exception(
    exc: BaseException,
    *,
    with_traceback: bool = False,
    held: _Held | None = None,
) -> tuple[bytes, str]:
    """Turn an exception object into bytes, as exactly as it can be done.

    Not collective. Never raises.

    Args:
        exc: The exception; it is not changed.
        with_traceback: Whether its traceback and its chain go along. Not for an
            exception whose frames and chain travel as text anyway.
        held: Of the exceptions that this one is held by, if it is.

    Returns:
        The bytes and an empty string; or no bytes and the reason.
    """
    if not with_traceback:
        try:
            body = dump_native(exc)
        except BaseException:  # no memory, say: the ladder says what it was
            body = b""
        if body:
            return body, ""
    by, done = held or _Held(frozenset(), {})
    if len(by) >= MAX_DEPTH:
        return b"", f"more than {MAX_DEPTH} exceptions deep within each other"
    held = _Held(by | {id(exc)}, done)
    exact = partial(_reduce_exactly, with_traceback=with_traceback)
    tamed = partial(_reduce_tamed, with_traceback=with_traceback, held=held)
    reason = ""
    for reduce_top in (
        (None, exact, tamed) if has_native_reducer(exc) else (exact, None, tamed)
    ):
        try:
            body = _dump(exc, exc, reduce_top, held)
            # One load here is what turns "fails on the receiver" into the next
            # step of the ladder. It costs some microseconds.
            if type(load_exception(body)) is type(exc):
                return body, ""
            reason = reason or "it comes back as another type"
        except BaseException as error:  # pickling hooks are user code
            reason = reason or describe(error)
    return b"", reason


def load_exception(body: bytes) -> BaseException:
    """Make the exception object again.

    Not collective.

    Raises:
        Exception: Whatever the bytes lead to: a class that this rank cannot
            import, a hook that fails.
        TypeError: They lead to something that is no exception.
    """
    try:
        made = pickle.loads(body)
    except Exception:
        raise
    except BaseException as error:
        # A hook that calls sys.exit() must not end the rank that reads a report.
        msg = f"unpickling raised {type_name_of(type(error))}"
        raise TypeError(msg) from error
    if not issubclass(type(made), BaseException):
        msg = f"unpickling made a {type_name_of(type(made))}, not an exception"
        raise TypeError(msg)
    return cast("BaseException", made)
