"""Exceptions of Python's own, pickled by C code alone.

Owns when that can be done. Most exceptions are an `OSError` or a `ValueError` that
hold a few texts and numbers: nothing of them is user code, and all of them is in what
``__reduce__`` returns. So the ladder of `bodies`, which trusts nothing, is not needed;
where many ranks that share a core fail at once, it would be half of what that costs.
"""

from __future__ import annotations

import io
import pickle
from typing import Final

_VALUES: Final = frozenset({type(None), bool, float})

# Of all texts in it together.
MAX_CHARS: Final = 16 * 1024

MAX_VALUES: Final = 16

# Of a whole number.
MAX_BITS: Final = 64

# Those that keep nothing beside ``args``. Not those of which an attribute tells more
# than the arguments do: `StopIteration`, `SystemExit`, `ImportError` and so on.
_BY_ARGS: Final = frozenset(
    {
        ArithmeticError,
        AssertionError,
        BufferError,
        EOFError,
        Exception,
        FloatingPointError,
        IndexError,
        KeyError,
        KeyboardInterrupt,
        LookupError,
        MemoryError,
        NotImplementedError,
        OverflowError,
        RecursionError,
        ReferenceError,
        RuntimeError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    }
)

_OS_ERRORS: Final = frozenset(
    {
        BrokenPipeError,
        ChildProcessError,
        ConnectionAbortedError,
        ConnectionError,
        ConnectionRefusedError,
        ConnectionResetError,
        FileExistsError,
        FileNotFoundError,
        InterruptedError,
        IsADirectoryError,
        NotADirectoryError,
        OSError,
        PermissionError,
        ProcessLookupError,
        TimeoutError,
    }
)


def dump_native(exc: BaseException) -> bytes:
    """Pickle an exception if C code alone can, and nothing of it is lost.

    Not collective.

    Args:
        exc: The exception; it is not changed.

    Returns:
        No bytes where it must go another way.
    """
    cls = type(exc)
    is_os_error = cls in _OS_ERRORS
    if not is_os_error and cls not in _BY_ARGS:
        return b""
    state = _state_of(exc, is_os_error=is_os_error)
    if not _is_plain(state) or exc.__dict__ or exc.__suppress_context__:
        return b""
    # An OSError may have been changed since it was made: as the receiver will do, see
    # what becomes of its arguments. By their types as well: 2.0 equals 2.
    made = cls(*exc.__reduce__()[1])
    again = _state_of(made, is_os_error=is_os_error)
    if type(made) is not cls or again != state or _types(again) != _types(state):
        return b""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    # Not copyreg's: tblib, say, may have put exceptions there, with their tracebacks.
    pickler.dispatch_table = {}
    pickler.dump(exc)
    return buffer.getvalue()


def _is_plain(state: tuple[object, ...]) -> bool:
    if len(state) > MAX_VALUES:
        return False
    n_chars = 0
    for value in state:
        if type(value) is str:
            n_chars += len(value)
        elif type(value) is int:
            if value.bit_length() > MAX_BITS:
                return False
        elif type(value) not in _VALUES:
            return False
    return n_chars <= MAX_CHARS


def _types(state: tuple[object, ...]) -> list[type]:
    return [*map(type, state)]


def _state_of(exc: BaseException, *, is_os_error: bool) -> tuple[object, ...]:
    if not is_os_error or not isinstance(exc, OSError):
        return exc.args
    fields = exc.errno, exc.strerror, exc.filename, exc.filename2
    # What it has not, it is not to have there.
    return (*exc.args, *fields, getattr(exc, "characters_written", None))
