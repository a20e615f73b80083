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

_VALUES: Final = frozenset({type(None), bool, int, float, str})

# Of all texts in it together.
MAX_CHARS: Final = 16 * 1024

MAX_ARGS: Final = 8

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

# BlockingIOError keeps a number that its arguments do not tell.
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
    if len(exc.args) > MAX_ARGS:
        return b""
    state = _state_of(exc, is_os_error=is_os_error)
    n_chars = 0
    for value in state:
        if type(value) not in _VALUES:
            return b""
        n_chars += len(value) if type(value) is str else 0
    if n_chars > MAX_CHARS or exc.__dict__ or exc.__suppress_context__:
        return b""
    # An OSError may have been changed since it was made: as the receiver will do, see
    # what becomes of its arguments.
    made = cls(*exc.__reduce__()[1])
    if type(made) is not cls or _state_of(made, is_os_error=is_os_error) != state:
        return b""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    # Not copyreg's: tblib, say, may have put exceptions there, with their tracebacks.
    pickler.dispatch_table = {}
    pickler.dump(exc)
    return buffer.getvalue()


def _state_of(exc: BaseException, *, is_os_error: bool) -> tuple[object, ...]:
    if is_os_error and isinstance(exc, OSError):
        return (*exc.args, exc.errno, exc.strerror, exc.filename, exc.filename2)
    return exc.args
